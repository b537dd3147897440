//! What callers get where a route has a fallback: real clients, nodes and applications.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::client::Answer;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::holds_within;
use support::process::wait_until;

mod support;

/// `order-service`, `payment-service` that can stand in for it, and a caller.
struct Shop {
    mesh: Mesh,
    payment: Node,
    orders: App,
    payments: App,
}

impl Shop {
    /// Nothing where there is no Python for the applications.
    fn open(encryption: &str, routes: &Value) -> Option<Self> {
        Self::open_with(encryption, routes, &json!({}))
    }

    /// With nodes that are configured so.
    fn open_with(encryption: &str, routes: &Value, all: &Value) -> Option<Self> {
        let mut mesh = Mesh::new(encryption);
        let mut payment = mesh.node("payment-service", "payment");
        let orders = App::start(mesh.path())?;
        let payments = App::start(mesh.path())?;
        mesh.order.serve(orders.port);
        payment.serve(payments.port).configure(json!({ "policy": { "rules": [
            { "name": "users", "from": ["user-service"], "to": { "service": "payment-service" }, "action": "allow" },
            { "name": "no", "from": ["*"], "to": { "service": "payment-service", "paths": ["/denied/*"] }, "action": "deny" },
        ] } }));
        let services = json!([
            { "id": "order-service", "host": "127.0.0.1", "port": mesh.order.inbound },
            { "id": "payment-service", "host": "127.0.0.1", "port": payment.inbound },
            // Nobody is there.
            { "id": "away-service", "host": "127.0.0.1", "port": 1 },
        ]);
        mesh.user.configure(json!({
            "routes": routes,
            "discovery": { "sources": [ { "mode": "static", "services": services } ] },
            "access_log": { "enabled": true, "path": "access.log" },
            "resilience": { "retry": { "max_attempts": 1 }, "circuit_breaker": { "threshold": 1000 } },
        }));
        for node in [&mut mesh.user, &mut mesh.order, &mut payment] {
            node.configure(all.clone());
        }
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

    #[track_caller]
    fn away(&self, target: &str, args: &[&str]) -> Answer {
        self.mesh.user.call("away-service", target, args)
    }

    /// How many calls were answered so.
    fn counted(&self, route: &str, kind: &str) -> Option<f64> {
        let line = format!(r#"mesh_route_fallback_total{{route="{route}",kind="{kind}"}}"#);
        self.mesh.user.metric(&line)
    }
}

/// Makes a body that does not say how long it is.
const CHUNKED: [&str; 2] = ["-H", "transfer-encoding: chunked"];

fn kind(answer: &Answer) -> Option<&str> {
    answer.header("x-mesh-fallback")
}

fn near(found: Option<f64>, expected: f64) -> bool {
    found.is_some_and(|found| (found - expected).abs() < 0.5)
}

#[test]
fn another_service_answers_what_the_first_one_did_not_or_may_do_twice() {
    let routes = json!([
        { "name": "backed", "match": { "path": "/api/*" }, "response_headers": { "set": { "x-edited": "1" } },
          "fallback": { "service": "payment-service" } },
        { "name": "itself", "match": { "path": "/itself/*" }, "fallback": { "service": "order-service" } },
        { "name": "nobody", "match": { "path": "/nobody/*" }, "fallback": { "service": "away-service" } },
        { "name": "faulty", "match": { "path": "/faulty/*" }, "rewrite": { "path": "/rewritten/*" },
          "fault": { "abort": { "status": 503, "percent": 100 } }, "fallback": { "service": "payment-service" } },
        { "name": "missing", "match": { "path": "/missing/*" },
          "fault": { "abort": { "status": 404, "percent": 100 } }, "fallback": { "service": "payment-service" } },
        { "name": "late", "match": { "path": "/late/*" }, "timeout": "300ms", "fallback": { "service": "payment-service" } },
        { "name": "named", "match": { "services": ["gone-service"] }, "fallback": { "service": "payment-service" } },
    ]);
    for encryption in ["mtls", "hybrid"] {
        let Some(shop) = Shop::open(encryption, &routes) else {
            return;
        };
        // A good answer is the service's own.
        let answer = shop.call("/api/good", &[]).expect(200);
        assert_eq!(kind(&answer), None);
        let answer = shop.call("/api/status?code=404", &[]).expect(404);
        assert_eq!(kind(&answer), None);
        assert_eq!(shop.payments.seen().len(), 0);

        let answer = shop.away("/api/get", &[]).expect(200);
        assert_eq!(kind(&answer), Some("service"));
        assert_eq!(answer.header("x-edited"), Some("1"));
        assert_eq!(answer.json()["headers"]["host"], "away-service");
        // Nobody executed it, so it may go elsewhere whatever it is.
        let answer = shop.away("/api/post", &["-d", "a body"]).expect(200);
        assert_eq!(kind(&answer), Some("service"));
        assert_eq!(answer.json()["bytes"], 6);
        let field = |name: &str| {
            let seen = shop.payments.seen();
            let fields = seen.last().unwrap()["headers"].as_array().unwrap().clone();
            let found = fields.iter().find(|field| field[0] == *name);
            found.map(|field| field[1].clone())
        };
        // It is told that nobody should try it again.
        assert_eq!(field("x-mesh-attempt"), Some(json!("2")));

        // What may have been executed goes elsewhere only where the method allows it twice.
        let answer = shop.call("/api/status?code=503", &[]).expect(503);
        assert_eq!(kind(&answer), Some("service"));
        assert_eq!(shop.counts("status?code=503"), (1, 1));
        let answer = shop.call("/api/status?code=500", &["-d", "x"]).expect(500);
        assert_eq!(kind(&answer), None);
        let cut = shop.call("/api/cut", &["-d", "x"]).expect(502);
        assert_eq!(kind(&cut), None);
        assert_eq!(cut.header("x-mesh-processed"), None);
        assert_eq!(
            (shop.counts("status?code=500"), shop.counts("cut")),
            ((1, 0), (1, 0))
        );

        // A key is remembered where it was first seen: sent again, the call would reach the first service.
        let key = ["-d", "x", "-H", "idempotency-key: k"];
        let answer = shop.away("/api/keyed", &key).expect(502);
        assert_eq!(kind(&answer), None);
        assert_eq!(answer.header("x-mesh-processed"), Some("no"));
        assert_eq!(shop.counts("keyed"), (0, 0));
        let put = [&key[..], &["-X", "PUT"]].concat();
        let answer = shop.away("/api/keyed", &put).expect(200);
        assert_eq!(kind(&answer), Some("service"));
        // A retry of somebody further up asks one service.
        let retry = ["-H", "x-mesh-attempt: 2"];
        let answer = shop.call("/api/status?code=503&try=2", &retry).expect(503);
        assert_eq!((kind(&answer), shop.counts("try=2")), (None, (1, 0)));
        let answer = shop.away("/api/again", &retry).expect(200);
        assert_eq!(kind(&answer), Some("service"));

        // Neither is a body sent elsewhere that is not kept, nor a call whose time is over.
        let large = shop.mesh.path().join("large");
        fs::write(&large, vec![7; 200_000]).unwrap();
        let large = format!("@{}", large.display());
        let answer = shop.away("/api/large", &["--data-binary", &large]);
        assert_eq!((kind(&answer), answer.status >= 500), (None, true));
        let answer = shop.call("/late/slow?seconds=5", &[]).expect(504);
        assert_eq!((kind(&answer), shop.counts("/late")), (None, (1, 0)));

        // Not the same service again, and what nobody has an answer for is told.
        let answer = shop.call("/itself/status?code=503", &[]).expect(503);
        assert_eq!((kind(&answer), shop.counts("/itself")), (None, (1, 0)));
        let answer = shop.call("/nobody/status?code=503", &[]).expect(502);
        assert_eq!(kind(&answer), Some("service"));
        // The first one may have done something.
        assert_eq!(answer.header("x-mesh-processed"), None);
        // What callers get is counted, good or not.
        assert!(near(shop.counted("nobody", "service"), 1.0));

        // Faults count as if the service had answered so.
        let answer = shop.call("/faulty/one", &["-d", "x"]).expect(200);
        assert_eq!(kind(&answer), Some("service"));
        assert_eq!(shop.counts("/rewritten/one"), (0, 1));
        let answer = shop.call("/missing/one", &[]).expect(404);
        assert_eq!(
            (kind(&answer), answer.error()),
            (None, Some("fault_injected"))
        );

        // A service that the route counts on, and none that somebody mistyped.
        let answer = shop.mesh.user.call("gone-service", "/a", &[]).expect(200);
        assert_eq!(kind(&answer), Some("service"));
        let answer = shop.mesh.user.call("mistyped", "/api/a", &[]).expect(404);
        assert_eq!((kind(&answer), answer.error()), (None, Some("no_route")));
        assert!(near(shop.counted("backed", "service"), 5.0));
        assert_eq!(shop.counted("backed", "stale"), None);
    }
}

#[test]
fn an_answer_of_the_configuration_stands_in_at_once_where_the_circuit_is_open() {
    let answer = json!({ "headers": { "x-source": "fixed" }, "content_type": "application/json", "body": "[]" });
    let routes = json!([
        { "name": "limited", "match": { "path": "/limited" }, "rate_limit": { "max_requests": 1, "window": "1h" },
          "fallback": { "answer": {} } },
        { "name": "fixed", "match": { "path": "/api/*" }, "circuit_breaker": { "threshold": 2, "timeout": "1h" },
          "fallback": { "service": "away-service", "answer": answer } },
    ]);
    let Some(shop) = Shop::open("mtls", &routes) else {
        return;
    };
    for _ in 0..2 {
        let answer = shop.call("/api/status?code=500", &["-d", "x"]).expect(500);
        assert_eq!(kind(&answer), None);
    }
    // Neither got it, so this may be given also for a write.
    for args in [&[][..], &["-d", "x"], &["-I"]] {
        let answer = shop.call("/api/late", args).expect(200);
        assert_eq!(kind(&answer), Some("answer"));
        assert_eq!(answer.header("x-circuit-breaker-state"), Some("OPEN"));
        assert_eq!(answer.header("x-source"), Some("fixed"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.error(), None);
        assert_eq!(answer.header("x-mesh-processed"), Some("no"));
        assert!(answer.header("x-request-id").is_some());
    }
    assert_eq!(shop.call("/api/late", &[]).text(), "[]");
    assert_eq!(shop.counts("/api/late"), (0, 0));
    assert!(near(shop.counted("fixed", "answer"), 4.0));
    // The other service has a breaker of the route's too.
    let others = r#"circuit_breaker_state{route="fixed",service="away-service"}"#;
    assert_eq!(shop.mesh.user.metric(others), Some(1.0));
    // What an answer in JSON would mean to gRPC nobody knows: it gets the error, here that of the other service.
    let grpc = [
        "-H",
        "content-type: application/grpc",
        "--http2-prior-knowledge",
        "-X",
        "POST",
    ];
    let answer = shop.call("/api/Get", &grpc).expect(200);
    assert_eq!(
        (kind(&answer), answer.header("grpc-status")),
        (Some("service"), Some("14"))
    );

    // A caller that asks too often is told so.
    shop.call("/limited", &[]).expect(200);
    let answer = shop.call("/limited", &[]).expect(429);
    assert_eq!(
        (kind(&answer), answer.error()),
        (None, Some("rate_limited"))
    );

    let log = shop.mesh.user.dir().join("access.log");
    let logged = holds_within(Duration::from_secs(5), || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let lines: Vec<Value> = lines.collect();
        let said = lines.iter().filter(|line| line["fallback"] == "answer");
        said.filter(|line| line["response_code"] == 200).count() == 4
    });
    assert!(logged, "{}", fs::read_to_string(&log).unwrap());
}

#[test]
fn what_a_node_refuses_for_the_service_behind_it_hides_no_answer_of_the_configuration() {
    let routes = json!([
        { "name": "alone", "match": { "path": "/denied/alone/*" }, "fallback": { "service": "payment-service" } },
        { "name": "both", "fallback": { "service": "payment-service", "answer": { "body": "[]" } } },
    ]);
    let Some(shop) = Shop::open("mtls", &routes) else {
        return;
    };
    for args in [&[][..], &["-d", "x"]] {
        let answer = shop.away("/denied/one", args).expect(200);
        assert_eq!((kind(&answer), &*answer.text()), (Some("answer"), "[]"));
        assert_eq!(answer.header("x-mesh-processed"), Some("no"));
    }
    // The first one may have done something.
    let answer = shop.call("/denied/status?code=500", &[]).expect(200);
    assert_eq!(kind(&answer), Some("answer"));
    assert_eq!(answer.header("x-mesh-processed"), None);
    // What the other application says is told.
    let answer = shop.away("/api/status?code=404", &[]).expect(404);
    assert_eq!((kind(&answer), answer.error()), (Some("service"), None));
    // As is what its node says, where there is nothing else.
    let answer = shop.away("/denied/alone/one", &[]).expect(403);
    let error = answer.error();
    assert_eq!((kind(&answer), error), (Some("service"), Some("denied")));
    assert!(near(shop.counted("alone", "service"), 1.0));
    assert_eq!(shop.counts("denied"), (1, 0));
}

#[test]
fn a_write_that_nobody_executed_is_not_copied_to_the_service_that_stands_in() {
    let routes = json!([ { "name": "all", "mirror": { "service": "payment-service" }, "fallback": { "service": "payment-service" } } ]);
    let Some(mut shop) = Shop::open("mtls", &routes) else {
        return;
    };
    shop.call("/api/one", &["-d", "x"]).expect(200);
    wait_until("the copy arrives", || shop.counts("one") == (1, 1));
    shop.orders.process.kill();
    // Its node is there, and says that nothing was executed.
    let answer = shop.call("/api/two", &["-d", "x"]).expect(200);
    assert_eq!(kind(&answer), Some("service"));
    // A copy of it would have arrived before that of a later call.
    let later = shop.mesh.user.call("payment-service", "/api/later", &[]);
    later.expect(200);
    wait_until("the copy arrives", || shop.payments.count("later") == 2);
    assert_eq!(shop.payments.count("two"), 1);
}

#[test]
fn the_last_good_answer_is_given_while_it_is_young_to_whom_it_was_given_before() {
    let stale = json!({ "stale": { "max_answer_bytes": 3000, "fields": ["x-tenant"] } });
    let routes = json!([
        { "name": "short", "match": { "path": "/short/*" }, "fallback": { "stale": { "max_age": "1s" } } },
        { "name": "kept", "match": { "path": "/api/*" }, "sticky": { "header": "x-user" }, "fallback": stale },
    ]);
    let api_key = json!({ "auth": { "api_key_header": "x-own-key" } });
    for encryption in ["mtls", "hybrid"] {
        let Some(mut shop) = Shop::open_with(encryption, &routes, &api_key) else {
            return;
        };
        let first = shop.call("/api/rates?of=EUR", &[]).expect(200);
        assert_eq!(kind(&first), None);
        let tenant = ["-H", "x-tenant: one"];
        let own = shop.call("/api/rates?of=EUR", &tenant).expect(200);
        shop.call("/api/source?bytes=2000", &[]).expect(200);
        shop.call("/api/source?bytes=200000", &[]).expect(200);
        shop.call("/api/known", &["-H", "authorization: Bearer x"])
            .expect(200);
        shop.call("/short/rates", &[]).expect(200);
        // The answer may depend on the body.
        let with_body = ["-X", "GET", "-d", "x", "-H", "content-type:"];
        let streamed = [&with_body[..], &CHUNKED].concat();
        let answer = shop.call("/api/search", &with_body).expect(200);
        assert_eq!(answer.json()["bytes"], 1);
        shop.call("/api/search", &streamed).expect(200);
        shop.call("/api/search", &[]).expect(200);
        shop.mesh.order.stop();

        let wait = || {
            holds_within(Duration::from_secs(20), || {
                shop.call("/api/other", &[]).status >= 500
            })
        };
        assert!(wait());
        let id = ["-H", "x-request-id: its-own"];
        let old = shop.call("/api/rates?of=EUR", &id).expect(200);
        assert_eq!(kind(&old), Some("stale"));
        assert_eq!(old.text(), first.text());
        assert_eq!(old.header("x-request-id"), Some("its-own"));
        let age: u64 = old.header("x-mesh-stale").unwrap().parse().unwrap();
        assert!(age < 60, "{age}");
        assert_eq!(old.header("age"), old.header("x-mesh-stale"));
        let old = shop.call("/api/source?bytes=2000", &[]).expect(200);
        assert_eq!((kind(&old), old.text().len()), (Some("stale"), 2000));
        // Each gets what was said to itself.
        let old = shop.call("/api/rates?of=EUR", &tenant).expect(200);
        assert_eq!(old.text(), own.text());
        for args in [
            ["-H", "x-tenant: two"],
            ["-H", "x-user-id: ann"],
            ["-H", "x-user: ann"],
            ["-H", "x-own-key: ann"],
            ["-H", "authorization: Bearer x"],
            ["-d", "x"],
        ] {
            let answer = shop.call("/api/rates?of=EUR", &args);
            assert_eq!(
                (kind(&answer), answer.status >= 500),
                (None, true),
                "{args:?}"
            );
        }
        for args in [&with_body[..], &streamed] {
            let answer = shop.call("/api/search", args);
            assert_eq!((kind(&answer), answer.status >= 500), (None, true));
        }
        for target in [
            "/api/rates?of=CHF",
            "/api/source?bytes=200000",
            "/api/known",
        ] {
            let answer = shop.call(target, &[]);
            assert_eq!(
                (kind(&answer), answer.status >= 500),
                (None, true),
                "{target}"
            );
        }
        wait_until("it is too old", || {
            let answer = shop.call("/short/rates", &[]);
            let is_young = answer.header("x-mesh-stale") == Some("0");
            assert_eq!(answer.status == 200, is_young);
            !is_young
        });
        assert!(near(shop.counted("kept", "stale"), 3.0));
        let page = shop.mesh.user.admin("/services").expect(200).json();
        let kept = page["routes"].as_array().unwrap().iter();
        let kept = kept.filter(|route| route["route"] == "kept");
        let kept: Vec<_> = kept.map(|route| &route["staleAnswers"]).collect();
        assert_eq!(
            (&kept[0]["entries"], &kept[0]["given"]),
            (&json!(4), &json!(3))
        );
        drop(shop.payment);
    }
}

#[test]
fn a_write_of_which_nobody_knows_whether_it_was_executed_is_told_as_that() {
    let fallback = json!({ "service": "payment-service", "stale": {}, "answer": {} });
    let routes = json!([ { "name": "all", "fallback": fallback } ]);
    let safe_writes = json!({ "resilience": { "safe_writes": { "enabled": true } } });
    let Some(mut shop) = Shop::open_with("mtls", &routes, &safe_writes) else {
        return;
    };
    // The first call has learned the lease.
    shop.call("/api/one", &["-d", "x"]).expect(200);
    let (user, order) = (&shop.mesh.user, &mut shop.mesh.order);
    let answer = thread::scope(|scope| {
        let call = || user.call("order-service", "/api/slow?seconds=30", &["-d", "x"]);
        let call = scope.spawn(call);
        wait_until("it is executed", || shop.orders.count("slow") == 1);
        order.process().kill();
        call.join().unwrap()
    });
    let answer = answer.expect(502);
    assert_eq!(answer.error(), Some("outcome_unknown"));
    assert_eq!(kind(&answer), None);
    assert_eq!(shop.counts("slow"), (1, 0));
    // A read of the same route is answered.
    let answer = shop.call("/api/two", &[]).expect(200);
    assert_eq!(kind(&answer), Some("service"));
}
