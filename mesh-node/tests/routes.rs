//! What routes say becomes of the calls of real clients through real nodes to real applications.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::client::Answer;
use support::client::curl;
use support::client::quick;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::free_port;
use support::process::holds_within;
use support::process::wait_until;

mod support;

/// Two services with an application each, and a caller of both.
struct Shop {
    mesh: Mesh,
    payment: Node,
    orders: App,
    payments: App,
}

impl Shop {
    /// Nothing where there is no Python for the applications.
    fn open(routes: &Value) -> Option<Self> {
        Self::open_with(routes, |_, _| {})
    }

    fn open_with(routes: &Value, change: impl FnOnce(&mut Mesh, &mut Node)) -> Option<Self> {
        let mut mesh = Mesh::new("mtls");
        let mut payment = mesh.node("payment-service", "payment");
        let orders = App::start(mesh.path())?;
        let payments = App::start(mesh.path())?;
        mesh.order.serve(orders.port);
        payment.serve(payments.port).configure(json!({ "policy": { "rules": [
            { "name": "users", "from": ["user-service"], "to": { "service": "payment-service" }, "action": "allow" },
        ] } }));
        let services = json!([
            { "id": "order-service", "host": "127.0.0.1", "port": mesh.order.inbound },
            { "id": "payment-service", "host": "127.0.0.1", "port": payment.inbound },
        ]);
        mesh.user.configure(json!({
            "routes": routes,
            "discovery": { "sources": [ { "mode": "static", "services": services } ] },
            "access_log": { "enabled": true, "path": "access.log" },
        }));
        change(&mut mesh, &mut payment);
        payment.spawn();
        mesh.start();
        payment.wait_ready();
        Some(Self {
            mesh,
            payment,
            orders,
            payments,
        })
    }

    /// How many requests whose target holds `part` reached the applications of orders and of payments.
    fn counts(&self, part: &str) -> (usize, usize) {
        (self.orders.count(part), self.payments.count(part))
    }

    #[track_caller]
    fn call(&self, target: &str, args: &[&str]) -> Answer {
        self.mesh.call(target, args)
    }

    fn metric(&self, line: &str) -> f64 {
        self.mesh.user.metric(line).unwrap_or_default()
    }
}

/// Five standard deviations of a binomial count.
fn spread(n: f64, p: f64) -> f64 {
    5.0 * (n * p * (1.0 - p)).sqrt()
}

#[test]
fn the_first_route_that_matches_takes_a_call_however_it_is_made() {
    let routes = json!([
        { "name": "canary", "match": { "services": ["order-service"], "headers": [ { "name": "canary", "equals": "true" } ] },
          "to": [ { "service": "payment-service" } ] },
        { "name": "shop", "match": { "services": ["shop"] }, "to": [ { "service": "order-service" } ] },
    ]);
    let bound = free_port();
    let shop = Shop::open_with(&routes, |mesh, _| {
        let upstream = json!({ "service": "order-service", "bind": format!("127.0.0.1:{bound}") });
        mesh.user
            .configure(json!({ "outbound": { "upstreams": [upstream] } }));
    });
    let Some(shop) = shop else { return };
    let canary = ["-H", "canary: true"];
    // By host, by a port of its own, as a JSON call, over HTTP/2.
    shop.call("/api/one", &[]).expect(200);
    shop.call("/api/two", &canary).expect(200);
    shop.call(
        "/api/two",
        &["-H", "canary: true", "--http2-prior-knowledge"],
    )
    .expect(200);
    let port = format!("http://127.0.0.1:{bound}/api");
    curl(&[&format!("{port}/one")]).expect(200);
    curl(&[&format!("{port}/two"), "-H", "canary: true"]).expect(200);
    let calls = format!("http://127.0.0.1:{}/v1/call", shop.mesh.user.outbound);
    let url = format!("{calls}/order-service/json/one");
    curl(&[&url, "--json", "{}"]).expect(200);
    let url = format!("{calls}/order-service/json/two");
    curl(&[&url, "--json", "{}", "-H", "canary: true"]).expect(200);
    assert_eq!(shop.counts("/one"), (3, 0));
    assert_eq!(shop.counts("/two"), (0, 4));
    // A name that no service has, but a route.
    let answer = shop.mesh.user.call("shop", "/api/three", &[]).expect(200);
    assert_eq!(answer.json()["headers"]["host"], "shop");
    let url = format!("{calls}/shop/json/three");
    curl(&[&url, "--json", "{}"]).expect(200);
    assert_eq!(shop.counts("/three"), (2, 0));
    let answer = shop.mesh.user.call("shops", "/api/four", &[]).expect(404);
    assert_eq!(answer.error(), Some("no_route"));

    let canaries = r#"mesh_route_requests_total{route="canary",target="payment-service"}"#;
    assert!((shop.metric(canaries) - 4.0).abs() < 0.5);
    let log = shop.mesh.user.dir().join("access.log");
    let logged = holds_within(Duration::from_secs(5), || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let lines: Vec<Value> = lines.collect();
        let of = |route: Value| lines.iter().filter(|line| line["route"] == route).count();
        (of(json!("canary")), of(json!("shop")), of(Value::Null)) == (4, 2, 3)
    });
    assert!(logged, "{}", fs::read_to_string(&log).unwrap());
}

#[test]
fn path_host_and_fields_are_changed_and_redirects_answered() {
    let routes = json!([
        { "name": "old", "match": { "path": "/old/*" }, "redirect": { "status": 301, "host": "order-service", "path": "/new/*" } },
        { "name": "gone", "match": { "services": ["gone-service"] }, "redirect": { "host": "order-service" } },
        { "name": "changed", "match": { "path": "/v1/*" },
          "rewrite": { "path": "/api/v2/*", "host": "orders.internal" },
          "request_headers": { "set": { "x-tier": "gold" }, "add": { "x-seen": "node" }, "remove": ["x-secret"] },
          "response_headers": { "set": { "x-app": "2" }, "add": { "cache-control": "no-store" } } },
        { "name": "whole", "match": { "path": "/ping" }, "rewrite": { "path": "/api/health" } },
    ]);
    let Some(shop) = Shop::open(&routes) else {
        return;
    };
    let answer = shop.call("/old/orders/7?page=2", &[]).expect(301);
    let location = answer.header("location").unwrap();
    assert_eq!(location, "//order-service/new/orders/7?page=2");
    assert_eq!(answer.error(), None);
    let answer = shop.mesh.user.call("gone-service", "/a%20b", &["-d", "x"]);
    let answer = answer.expect(308);
    assert_eq!(answer.header("location"), Some("//order-service/a%20b"));

    let fields = [
        "-H",
        "x-secret: 1",
        "-H",
        "x-seen: app",
        "-H",
        "x-tier: lead",
    ];
    let answer = shop.call("/v1/a%20b/./c?x=/v1/", &fields).expect(200);
    let seen = answer.json();
    assert_eq!(seen["target"], "/api/v2/a%20b/c?x=/v1/");
    assert_eq!(seen["headers"]["host"], "orders.internal");
    assert_eq!(seen["headers"]["x-tier"], "gold");
    assert_eq!(seen["headers"]["x-secret"], Value::Null);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let answer = shop.call("/v1/status?code=404", &[]).expect(404);
    assert_eq!(answer.header("x-app"), Some("2"));
    let seen = shop.call("/ping?x=1", &[]).expect(200).json();
    assert_eq!(seen["target"], "/api/health?x=1");
    let fields = shop.orders.seen()[0]["headers"].clone();
    let fields = fields.as_array().unwrap().iter();
    let added: Vec<_> = fields.filter(|field| field[0] == "x-seen").collect();
    assert_eq!(added.len(), 2, "{added:?}");
    assert_eq!(shop.counts("/old"), (0, 0));
    assert_eq!(shop.payments.seen().len(), 0);
}

#[test]
fn faults_are_made_as_often_as_they_are_asked_for_and_count_against_nobody() {
    let routes = json!([
        { "name": "broken", "match": { "path": "/broken" },
          "fault": { "abort": { "status": 418, "percent": 100 } } },
        { "name": "broken-grpc", "match": { "path": "/shop.Orders/Get" },
          "fault": { "abort": { "grpc_status": 5, "percent": 100 } } },
        { "name": "tested", "match": { "path": "/api/tested" },
          "fault": { "delay": { "time": "300ms", "percent": 100 }, "headers": [ { "name": "x-test", "equals": "slow" } ] } },
        { "name": "some", "match": { "path": "/api/some" }, "fault": { "abort": { "status": 503, "percent": 30 } } },
    ]);
    let bound = free_port();
    let shop = Shop::open_with(&routes, |mesh, _| {
        let upstream = json!({ "service": "order-service", "bind": format!("127.0.0.1:{bound}") });
        mesh.user
            .configure(json!({ "outbound": { "upstreams": [upstream] } }));
    });
    let Some(shop) = shop else { return };
    for _ in 0..8 {
        let answer = shop.call("/broken", &[]).expect(418);
        assert_eq!(answer.error(), Some("fault_injected"));
        assert_eq!(answer.header("x-circuit-breaker-state"), Some("CLOSED"));
    }
    let grpc = [
        "-H",
        "content-type: application/grpc",
        "--http2-prior-knowledge",
        "-X",
        "POST",
    ];
    let answer = shop.call("/shop.Orders/Get", &grpc).expect(200);
    assert_eq!(answer.header("grpc-status"), Some("5"));
    assert_eq!(answer.error(), Some("fault_injected"));
    assert_eq!(shop.orders.seen().len(), 0);

    let answer = shop.call("/api/tested", &["-H", "x-test: slow"]);
    let answer = answer.expect(200);
    assert!(answer.measured["time_total"].as_f64().unwrap() >= 0.3);
    shop.call("/api/tested", &[]).expect(200);
    let delayed = r#"mesh_route_faults_total{route="tested",kind="delay"}"#;
    assert!((shop.metric(delayed) - 1.0).abs() < 0.5);

    let calls = 600;
    let statuses = (0..calls).map(|_| quick(bound, "GET", "/api/some", "").unwrap().0);
    let (aborted, answered): (Vec<_>, Vec<_>) = statuses.partition(|status| *status == 503);
    assert!(answered.iter().all(|status| *status == 200));
    let (n, p) = (f64::from(calls), 0.3);
    let found = f64::from(u32::try_from(aborted.len()).unwrap());
    assert!((found - n * p).abs() < spread(n, p), "{found} of {n}");
    assert_eq!(shop.orders.count("some"), answered.len());
    let counted = r#"mesh_route_faults_total{route="some",kind="abort"}"#;
    assert!((shop.metric(counted) - found).abs() < 0.5);
    assert_eq!(shop.mesh.user.metric("circuit_breaker_state"), Some(0.0));
}

#[test]
fn copies_go_where_the_mirror_says_and_only_there() {
    let routes = json!([ { "name": "watched", "match": { "path": "/api/*" },
        "mirror": { "service": "payment-service", "max_concurrent": 4 } } ]);
    let Some(shop) = Shop::open(&routes) else {
        return;
    };
    let answer = shop
        .call("/api/one?x=1", &["-d", "a body", "-H", "x-own: 1"])
        .expect(200);
    assert_eq!(answer.json()["headers"]["x-mesh-mirrored"], Value::Null);
    wait_until("the copy arrives", || shop.payments.count("one") == 1);
    let copy = shop.payments.seen().remove(0);
    assert_eq!(
        (&copy["method"], &copy["target"]),
        (&json!("POST"), &json!("/api/one?x=1"))
    );
    let field = |name: &str| {
        let fields = copy["headers"].as_array().unwrap().iter();
        let mut values = fields
            .filter(|field| field[0] == *name)
            .map(|field| field[1].clone());
        (values.next(), values.next())
    };
    assert_eq!(field("x-mesh-mirrored"), (Some(json!("1")), None));
    assert_eq!(field("content-length"), (Some(json!("6")), None));
    assert_eq!(field("x-own"), (Some(json!("1")), None));
    assert_eq!(field("host"), (Some(json!("order-service")), None));
    // An application can't pass a call for a copy.
    let forged = ["-H", "x-mesh-mirrored: 1"];
    let answer = shop.call("/own", &forged).expect(200);
    assert_eq!(answer.json()["headers"]["x-mesh-mirrored"], Value::Null);
    assert_eq!(shop.counts("own"), (1, 0));
    // A body that is not kept is not copied.
    let large = shop.mesh.path().join("large");
    fs::write(&large, vec![7; 200_000]).unwrap();
    let large = format!("@{}", large.display());
    shop.call("/api/two", &["--data-binary", &large])
        .expect(200);
    let of = |result| format!(r#"mesh_route_mirrored_total{{route="watched",result="{result}"}}"#);
    wait_until("the copies are counted", || {
        shop.metric(&of("answered")) > 0.5 && shop.metric(&of("dropped")) > 0.5
    });
    assert_eq!(shop.counts("two"), (1, 0));
    // No more at a time than are allowed; what waits for them waits for nothing.
    let target = "/api/slow?seconds=0.3";
    let url = format!("http://127.0.0.1:{}{target}", shop.mesh.user.outbound);
    let many = vec![url.as_str(); 12];
    let parallel = [
        "-H",
        "Host: order-service",
        "--parallel",
        "--parallel-immediate",
        "-o",
        "/dev/null",
    ];
    let args: Vec<&str> = parallel.into_iter().chain(many).collect();
    let output = support::client::curl_raw(&args);
    assert_eq!(output.matches("slept").count(), 11, "{output}");
    wait_until("some copies are dropped", || {
        shop.metric(&of("answered")) + shop.metric(&of("dropped")) > 13.5
    });
    let copies = shop.payments.count("slow");
    assert!((1..=8).contains(&copies), "{copies}");
}

#[test]
fn a_dead_mirror_has_no_effect_on_calls() {
    // It takes connections and never says a word.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let routes = json!([
        { "name": "silent", "match": { "path": "/api/silent" }, "mirror": { "service": "silent-service" } },
        { "name": "away", "match": { "path": "/api/away" }, "mirror": { "service": "away-service" } },
        { "name": "nowhere", "match": { "path": "/api/nowhere" }, "mirror": { "service": "nowhere-service" } },
    ]);
    let bound = free_port();
    let shop = Shop::open_with(&routes, |mesh, _| {
        let upstream = json!({ "service": "order-service", "bind": format!("127.0.0.1:{bound}") });
        let services = json!([
            { "id": "order-service", "host": "127.0.0.1", "port": mesh.order.inbound },
            { "id": "silent-service", "host": "127.0.0.1", "port": port },
            { "id": "away-service", "host": "127.0.0.1", "port": 1 },
        ]);
        mesh.user.configure(json!({
            "outbound": { "upstreams": [upstream] },
            "discovery": { "sources": [ { "mode": "static", "services": services } ] },
        }));
    });
    let Some(shop) = shop else { return };
    let call = |path: &str| {
        let began = now();
        let (status, _) = quick(bound, "GET", path, "").unwrap();
        assert_eq!(status, 200, "{path}");
        began.elapsed()
    };
    call("/api/plain");
    let slowest = |path: &str| (0..200).map(|_| call(path)).max().unwrap();
    for path in ["/api/silent", "/api/away", "/api/nowhere"] {
        let slowest = slowest(path);
        // One that waited for its copy would take a second.
        assert!(slowest < Duration::from_millis(900), "{path}: {slowest:?}");
    }
    let failed = r#"mesh_route_mirrored_total{route="silent",result="failed"}"#;
    wait_until("the copies to it are given up", || {
        shop.metric(failed) > 0.5
    });
    let states = shop
        .mesh
        .user
        .metric(r#"circuit_breaker_state{service="order-service"}"#);
    assert_eq!(states, Some(0.0));
}

#[test]
fn a_route_has_its_own_time_attempts_breaker_places_and_limit() {
    let routes = json!([
        { "name": "fast", "match": { "path": "/fast/*" }, "timeout": "300ms", "retry": { "max_attempts": 1 } },
        { "name": "stubborn", "match": { "path": "/stubborn/*" },
          "retry": { "max_attempts": 4, "backoff": "fixed", "initial_delay": "10ms", "budget": 1.0 } },
        { "name": "fragile", "match": { "path": "/fragile/*" }, "retry": { "max_attempts": 1 },
          "circuit_breaker": { "threshold": 2 } },
        { "name": "narrow", "match": { "path": "/narrow/*" }, "retry": { "max_attempts": 1 },
          "bulkhead": { "max_concurrent": 1, "max_waiting": 0 } },
        { "name": "few", "match": { "path": "/few" }, "rate_limit": { "max_requests": 3, "window": "1h" } },
    ]);
    let Some(shop) = Shop::open(&routes) else {
        return;
    };
    let answer = shop.call("/fast/slow?seconds=5", &[]).expect(504);
    assert_eq!(answer.error(), Some("timeout"));
    let took = answer.measured["time_total"].as_f64().unwrap();
    assert!((0.3..2.0).contains(&took), "{took}");
    assert_eq!(shop.counts("/fast"), (1, 0));
    shop.call("/other/slow?seconds=0.5", &[]).expect(200);

    shop.call("/stubborn/status?code=503", &[]).expect(503);
    assert_eq!(shop.counts("/stubborn"), (4, 0));

    // What opens one breaker leaves that of the other calls alone.
    for state in ["CLOSED", "OPEN"] {
        let answer = shop.call("/fragile/status?code=500", &[]).expect(500);
        assert_eq!(answer.header("x-circuit-breaker-state"), Some(state));
    }
    let answer = shop.call("/fragile/ok", &[]).expect(503);
    assert_eq!(answer.error(), Some("circuit_open"));
    let answer = shop.call("/other", &[]).expect(200);
    assert_eq!(answer.header("x-circuit-breaker-state"), Some("CLOSED"));
    let own = r#"circuit_breaker_state{route="fragile",service="order-service"}"#;
    assert_eq!(shop.mesh.user.metric(own), Some(1.0));
    let shared = r#"circuit_breaker_state{service="order-service"}"#;
    assert_eq!(shop.mesh.user.metric(shared), Some(0.0));

    let url = format!(
        "http://127.0.0.1:{}/narrow/slow?seconds=0.7",
        shop.mesh.user.outbound
    );
    let out = ["-o", "/dev/null", &url];
    let format = [
        "-w",
        "%{http_code} ",
        "-H",
        "Host: order-service",
        "--parallel",
        "--parallel-immediate",
    ];
    let args = [&format[..], &out, &out, &out].concat();
    let codes = support::client::curl_raw(&args);
    assert_eq!(
        (codes.matches("200").count(), codes.matches("503").count()),
        (1, 2),
        "{codes}"
    );

    for left in ["2", "1", "0"] {
        let answer = shop.call("/few", &[]).expect(200);
        assert_eq!(answer.header("x-ratelimit-limit"), Some("3"));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(left));
    }
    let answer = shop.call("/few", &[]).expect(429);
    assert_eq!(answer.error(), Some("rate_limited"));
    assert!(answer.header("retry-after").is_some() && answer.header("x-ratelimit-reset").is_some());
    assert_eq!(shop.counts("/few"), (3, 0));
    shop.call("/many", &[]).expect(200);
}

#[test]
fn a_slow_call_is_sent_a_second_time_where_its_route_says_so() {
    let hedge = json!({ "min_delay": "50ms", "max_delay": "50ms", "budget": 1.0 });
    let routes = json!([ { "name": "hedged", "match": { "path": "/hedged/*" }, "hedge": hedge } ]);
    let Some(shop) = Shop::open(&routes) else {
        return;
    };
    let answer = shop.call("/hedged/slow?seconds=1", &[]).expect(200);
    assert_eq!(answer.json()["slept"], "1");
    assert_eq!(shop.counts("/hedged/slow"), (2, 0));
    let sent = r#"mesh_resilience_hedges_total{service="order-service",result="sent"}"#;
    assert!((shop.metric(sent) - 1.0).abs() < 0.5);
    // Not what may not be repeated, and not what is fast.
    shop.call("/hedged/slow?seconds=0.3&post", &["-d", "x"])
        .expect(200);
    assert_eq!(shop.counts("seconds=0.3"), (1, 0));
    shop.call("/other/slow?seconds=0.2", &[]).expect(200);
    assert_eq!(shop.counts("/other"), (1, 0));
}

#[test]
fn a_route_leads_to_the_endpoints_that_it_describes() {
    let subset = |tag: &str| json!({ "tags": [tag] });
    let routes = json!([
        { "name": "new", "match": { "headers": [ { "name": "canary", "present": true } ] },
          "to": [ { "subset": subset("v2") } ] },
        { "name": "none", "match": { "path": "/none" }, "to": [ { "subset": subset("v3") } ] },
        { "name": "old", "to": [ { "subset": subset("v1") } ], "mirror": { "subset": subset("v2") } },
    ]);
    let shop = Shop::open_with(&routes, |mesh, payment| {
        // Both stand for one service, whose tokens only one of them would take.
        for node in [&mut mesh.user, &mut mesh.order, payment] {
            node.config.as_object_mut().unwrap().remove("auth");
        }
        let (one, two) = (mesh.order.inbound, payment.inbound);
        let services = json!([
            { "id": "order-service", "host": "127.0.0.1", "port": one, "tags": ["v1"] },
            { "id": "order-service", "host": "127.0.0.1", "port": two, "tags": ["v2"],
              "spiffe_id": "spiffe://example.org/payment-service" },
        ]);
        let sources = json!([ { "mode": "static", "services": services } ]);
        mesh.user
            .configure(json!({ "discovery": { "sources": sources } }));
    });
    let Some(shop) = shop else { return };
    for _ in 0..10 {
        shop.call("/api/new", &["-H", "canary: 1"]).expect(200);
        shop.call("/api/old", &[]).expect(200);
    }
    assert_eq!(shop.counts("new"), (0, 10));
    wait_until("all copies are at the new ones", || {
        shop.counts("old") == (10, 10)
    });
    let answer = shop.call("/none", &[]).expect(503);
    assert_eq!(answer.error(), Some("no_endpoints"));
}

#[test]
fn a_caller_stays_where_its_header_or_its_cookie_leads() {
    let halves = json!([ { "service": "order-service" }, { "service": "payment-service" } ]);
    let routes = json!([
        { "name": "by-user", "match": { "path": "/user/*" }, "to": halves, "sticky": { "header": "x-user" } },
        { "name": "by-cookie", "match": { "path": "/cookie/*" }, "to": halves,
          "sticky": { "cookie": { "name": "mesh-half", "ttl": "1h" } } },
    ]);
    let Some(shop) = Shop::open(&routes) else {
        return;
    };
    for user in 0..8 {
        let (target, field) = (format!("/user/{user}"), format!("x-user: {user}"));
        for _ in 0..3 {
            shop.call(&target, &["-H", &field]).expect(200);
        }
        let counts = shop.counts(&target);
        assert!(matches!(counts, (3, 0) | (0, 3)), "{counts:?}");
    }
    let (orders, payments) = shop.counts("/user/");
    assert!(orders > 0 && payments > 0);

    for caller in 0..8 {
        let target = format!("/cookie/{caller}");
        let answer = shop.call(&target, &[]).expect(200);
        let cookie = answer.header("set-cookie").unwrap().to_owned();
        assert!(
            cookie.contains("; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600"),
            "{cookie}"
        );
        let cookie = cookie.split_once(';').unwrap().0.to_owned();
        for _ in 0..3 {
            let answer = shop.call(&target, &["-b", &cookie]).expect(200);
            assert_eq!(answer.header("set-cookie"), None);
        }
        let counts = shop.counts(&target);
        assert!(matches!(counts, (4, 0) | (0, 4)), "{counts:?}");
    }
    let answer = shop.call("/cookie/forged", &["-b", "mesh-half=0-0"]);
    assert!(answer.expect(200).header("set-cookie").is_some());
    drop(shop.payment);
}

#[expect(clippy::disallowed_methods, reason = "how long a real call takes")]
fn now() -> Instant {
    Instant::now()
}
