//! Nodes that stop, die, come back and change under traffic: what the callers see of it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test helper may panic")]

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::json;

use support::app::App;
use support::client::curl_raw;
use support::load::Load;
use support::mesh::Mesh;
use support::mesh::Node;
use support::mesh::cli;
use support::process::free_port;
use support::process::is_open;
use support::process::wait_until;

mod support;

with_both_encryptions!(
    a_called_node_restarts_under_load_without_a_lost_request,
    a_calling_node_restarts_under_load_without_a_lost_request,
    what_is_in_flight_finishes_before_a_node_ends,
    a_peer_that_dies_opens_the_circuit_and_is_found_again,
    what_may_have_been_done_is_never_done_twice,
    a_slow_answer_times_out_and_counts_as_a_failure,
    too_many_calls_at_once_are_refused,
    new_certificate_files_are_taken_over_under_traffic,
);

fn a_called_node_restarts_under_load_without_a_lost_request(encryption: &str) {
    // threat 64
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    let mut other = mesh.node("order-service", "other");
    let policy = mesh.order.config["policy"].clone();
    other.configure(json!({ "policy": policy })).serve(app.port);
    mesh.order.serve(app.port);
    let ports = [mesh.order.inbound, other.inbound];
    mesh.user.discover("order-service", &ports);
    other.start();
    mesh.start();
    let load = Load::start(&mesh, "GET,POST").unwrap();
    for node in [&mut mesh.order, &mut other] {
        assert!(node.stop().success(), "{}", node.log());
        load.go_on();
        node.start();
        load.go_on();
    }
    assert_eq!(load.end(), Vec::<String>::new());
}

fn a_calling_node_restarts_under_load_without_a_lost_request(encryption: &str) {
    let Some((mut mesh, app)) = Mesh::with_app(encryption) else {
        return;
    };
    let load = Load::start(&mesh, "GET,POST").unwrap();
    assert!(mesh.user.stop().success(), "{}", mesh.user.log());
    mesh.user.start();
    load.go_on();
    assert_eq!(load.end(), Vec::<String>::new());
    // What the client had to send again had never been taken.
    let mut targets: Vec<_> = app
        .seen()
        .iter()
        .map(|request| request["target"].to_string())
        .collect();
    let all = targets.len();
    targets.sort_unstable();
    targets.dedup();
    assert_eq!(targets.len(), all);
}

fn what_is_in_flight_finishes_before_a_node_ends(encryption: &str) {
    for stopped in ["user", "order"] {
        let Some((mut mesh, app)) = Mesh::with_app(encryption) else {
            return;
        };
        let url = |path: &str| format!("http://127.0.0.1:{}/api/{path}", mesh.user.outbound);
        let slow = in_background(&[
            &url("slow?seconds=2"),
            "-H",
            "Host: order-service",
            "-d",
            "x",
        ]);
        let drip = in_background(&[&url("drip?pieces=50"), "-H", "Host: order-service"]);
        wait_until("both requests are under way", || app.seen().len() == 2);
        let node = if stopped == "user" {
            &mut mesh.user
        } else {
            &mut mesh.order
        };
        assert!(node.stop().success(), "{}", node.log());
        assert!(slow.join().unwrap().ends_with(" 200"));
        let drip = drip.join().unwrap();
        assert!(drip.contains("48 49 ") && drip.ends_with(" 200"), "{drip}");
        assert_eq!(app.seen().len(), 2);
    }
}

fn a_peer_that_dies_opens_the_circuit_and_is_found_again(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    mesh.user.configure(json!({ "resilience": {
        "circuit_breaker": { "timeout": "4s", "half_open_requests": 2 },
        "retry": { "max_attempts": 1 },
    } }));
    mesh.start();
    mesh.call("/api/orders", &[]).expect(200);
    mesh.order.process().kill();
    for number in 1..=5 {
        let failed = mesh.call("/api/orders", &[]).expect(502);
        let state = if number < 5 { "CLOSED" } else { "OPEN" };
        assert_eq!(
            failed.header("x-circuit-breaker-state"),
            Some(state),
            "{number}"
        );
    }
    let refused = mesh.call("/api/orders", &[]).expect(503);
    assert_eq!(refused.error(), Some("circuit_open"));
    assert_eq!(refused.header("x-circuit-breaker-state"), Some("OPEN"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&wait));
    let services = mesh.user.admin("/health/services").expect(200).json();
    assert_eq!(services[0]["circuitBreaker"], "OPEN");
    assert_eq!(mesh.user.metric("circuit_breaker_state"), Some(1.0));

    mesh.order.start();
    let mut states = Vec::new();
    wait_until("the circuit closes", || {
        let answer = mesh.call("/api/orders", &[]);
        let state = answer.header("x-circuit-breaker-state").unwrap().to_owned();
        if states.last() != Some(&state) {
            states.push(state);
        }
        answer.status == 200 && states.last().is_some_and(|state| state == "CLOSED")
    });
    assert_eq!(states, ["OPEN", "HALF-OPEN", "CLOSED"]);
}

fn what_may_have_been_done_is_never_done_twice(encryption: &str) {
    // threat 43
    let mut mesh = Mesh::new(encryption);
    let Some(mut app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    mesh.user.configure(
        json!({ "resilience": { "retry": { "initial_delay": "10ms", "budget": 1.0 } } }),
    );
    mesh.start();
    // The application takes the request and goes away without an answer.
    let failed = mesh.call("/api/cut?kind=post", &["-d", "x"]).expect(502);
    assert_eq!(failed.header("x-mesh-processed"), None);
    assert_eq!(app.count("kind=post"), 1);
    // Reading again changes nothing.
    mesh.call("/api/cut?kind=get", &[]).expect(502);
    assert_eq!(app.count("kind=get"), 3);
    let failed = mesh.call("/api/exit", &["-d", "x"]).expect(502);
    assert_eq!(failed.header("x-mesh-processed"), None);
    app.process.wait(Duration::from_secs(5));
    assert_eq!(app.count("exit"), 1);
    // What never arrived may be tried again, whatever it is: the application comes back in time.
    mesh.user.stop();
    mesh.user.configure(json!({ "resilience": { "retry": { "initial_delay": "500ms", "backoff": "fixed", "max_attempts": 40 } } }));
    mesh.user.start();
    let url = format!("http://127.0.0.1:{}/api/late", mesh.user.outbound);
    let late = in_background(&[&url, "-H", "Host: order-service", "-X", "POST"]);
    let (port, dir) = (app.port, mesh.path());
    wait_until("an attempt has failed", || {
        mesh.order
            .metric("mesh_node_refusals_total{code=\"upstream_failed\"}")
            >= Some(5.0)
    });
    drop(app);
    let app = App::start_on(port, dir).unwrap();
    assert!(late.join().unwrap().ends_with(" 200"));
    assert_eq!(app.count("late"), 1);
}

fn a_slow_answer_times_out_and_counts_as_a_failure(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    mesh.user.configure(json!({ "resilience": {
        "timeout": "300ms", "circuit_breaker": { "threshold": 2 }, "retry": { "max_attempts": 1 },
    } }));
    mesh.start();
    for state in ["CLOSED", "OPEN"] {
        let late = mesh.call("/api/slow?seconds=3", &["-d", "x"]).expect(504);
        assert_eq!(late.error(), Some("timeout"));
        assert_eq!(late.header("x-circuit-breaker-state"), Some(state));
        assert_eq!(late.header("x-mesh-processed"), None);
        let took = late.measured["time_total"].as_f64().unwrap();
        // The other node has a little less time, so that its answer is here in time.
        assert!((0.25..1.5).contains(&took), "{took}");
    }
    assert_eq!(
        mesh.call("/api/orders", &[]).expect(503).error(),
        Some("circuit_open")
    );
    assert_eq!(app.count("slow"), 2);
}

fn too_many_calls_at_once_are_refused(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    mesh.user.configure(json!({ "resilience": {
        "bulkhead": { "max_concurrent": 2, "max_waiting": 0 }, "retry": { "max_attempts": 1 },
    } }));
    mesh.start();
    let url = format!("http://127.0.0.1:{}/api/drip?pieces=30", mesh.user.outbound);
    let slow: Vec<_> = (0..2)
        .map(|_| in_background(&[&url, "-H", "Host: order-service"]))
        .collect();
    wait_until("both are under way", || app.seen().len() == 2);
    let refused = mesh.call("/api/orders", &["-d", "x"]).expect(503);
    assert_eq!(refused.error(), Some("overloaded"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("x-circuit-breaker-state"), Some("CLOSED"));
    for slow in slow {
        assert!(slow.join().unwrap().ends_with(" 200"));
    }
    assert_eq!(app.count("orders"), 0);
    // The place is free again once the answers' bodies are over.
    mesh.call("/api/orders", &[]).expect(200);
}

#[test]
fn a_caller_over_its_rate_is_told_when_to_come_back() {
    let mut mesh = Mesh::new("mtls");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port).configure(json!({ "resilience": {
        "rate_limit": { "max_requests": 3, "window": "60s" },
    } }));
    mesh.start();
    for left in ["2", "1", "0"] {
        let answer = mesh.call("/api/orders", &[]).expect(200);
        assert_eq!(answer.header("x-ratelimit-limit"), Some("3"));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(left));
    }
    let refused = mesh.call("/api/orders", &["-d", "x"]).expect(429);
    assert_eq!(refused.error(), Some("rate_limited"));
    assert_eq!(refused.header("x-ratelimit-limit"), Some("3"));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    for name in ["x-ratelimit-reset", "retry-after"] {
        let seconds: u64 = refused.header(name).unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds), "{name}: {seconds}");
    }
    assert_eq!(app.seen().len(), 3);
}

#[test]
fn retries_stay_within_their_budget() {
    // threat 45
    let mut mesh = Mesh::new("mtls");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    mesh.user.configure(json!({ "resilience": {
        "retry": { "initial_delay": "1ms", "max_delay": "5ms", "budget": 0.2 },
        "circuit_breaker": { "threshold": 100_000 },
    } }));
    mesh.start();
    let host = "Host: order-service";
    let url = format!(
        "http://127.0.0.1:{}/api/status?code=503&number=[1-300]",
        mesh.user.outbound
    );
    curl_raw(&["-H", host, "-o", "/dev/null", &url]);
    let reached = app.count("status");
    // A fifth on top, and the few that a budget starts with.
    assert!((301..=500).contains(&reached), "{reached}");
}

fn new_certificate_files_are_taken_over_under_traffic(encryption: &str) {
    // threat 63, 64
    let Some((mut mesh, _app)) = Mesh::with_app(encryption) else {
        return;
    };
    let before = serial(&mesh.order);
    let load = Load::start(&mesh, "GET,POST").unwrap();
    for (service, name) in [("order-service", "order"), ("user-service", "user")] {
        cli(
            mesh.path(),
            &format!("ca issue {service} --out {name}/certs --lifetime 2h"),
        );
    }
    wait_until("the new certificate is shown", || {
        serial(&mesh.order) != before
    });
    wait_until("the other node has taken its own over", || {
        mesh.user.log().contains("identity replaced")
    });
    load.go_on();
    // Half a file is no identity: the old one stays.
    let half = mesh.order.dir().join("certs/order-service.crt");
    let whole = fs::read_to_string(&half).unwrap();
    fs::write(&half, whole.get(..whole.len() / 2).unwrap()).unwrap();
    wait_until("half a file is refused", || {
        mesh.order.log().contains("new identity refused")
    });
    load.go_on();
    assert_eq!(load.end(), Vec::<String>::new());
    assert!(mesh.order.process().is_running());
}

#[test]
fn a_peer_whose_authority_is_trusted_no_more_has_no_session_any_more() {
    // threat 63
    authority_trusted_no_more("hybrid");
}

#[test]
fn a_peer_whose_authority_is_trusted_no_more_has_no_connection_any_more() {
    // threat 2
    authority_trusted_no_more("mtls");
}

fn authority_trusted_no_more(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    cli(mesh.path(), "ca init --trust-domain example.org --dir new");
    let dir = mesh.path().to_owned();
    let issue = |name: &str| {
        let args = format!("ca issue {name}-service --dir new --out {name}/certs --lifetime 1h");
        cli(&dir, &args);
    };
    // The caller trusts both authorities; the other node will trust one at a time.
    let both = ["ca", "new"].map(|of| fs::read_to_string(dir.join(of).join("ca.crt")).unwrap());
    let both = both.concat();
    fs::write(mesh.user.dir().join("certs/ca.crt"), &both).unwrap();
    mesh.order.serve(app.port);
    mesh.user.configure(json!({ "resilience": {
        "retry": { "max_attempts": 1 }, "circuit_breaker": { "threshold": 100_000 },
    } }));
    mesh.order.start();
    mesh.user.start();
    mesh.call("/api/before", &[]).expect(200);

    issue("order");
    wait_until("the connection ends", || {
        mesh.order.log().contains("not vouched for any more")
    });
    for _ in 0..5 {
        assert_ne!(mesh.call("/api/after", &[]).status, 200);
    }
    assert_eq!(app.count("after"), 0);
    let log = mesh.order.log();
    assert!(log.contains("connection refused"), "{log}");
    assert_eq!(log.contains("sessions ended"), encryption == "hybrid");

    issue("user");
    wait_until("a certificate of the new one is good", || {
        mesh.call("/api/again", &[]).status == 200
    });
    // A new root beside the old one ends nothing.
    let ended = || {
        let log = mesh.order.log();
        log.matches("sessions ended").count() + log.matches("not vouched for").count()
    };
    let replaced = || mesh.order.log().matches("identity replaced").count();
    let (ended_before, replaced_before) = (ended(), replaced());
    fs::write(mesh.order.dir().join("certs/ca.crt"), &both).unwrap();
    wait_until("both are trusted", || replaced() > replaced_before);
    assert_eq!(ended(), ended_before);
    mesh.call("/api/still", &[]).expect(200);
}

#[test]
fn identity_and_session_keys_are_replaced_under_traffic() {
    // threat 31
    let mut mesh = Mesh::new("hybrid");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    let rotation = json!({ "interval": "1s", "identity_interval": "2s", "identity_overlap": "3s" });
    let by_age = json!({ "key_rotation": rotation, "session_timeout": "4s" });
    mesh.order
        .serve(app.port)
        .configure(json!({ "security": by_age }));
    mesh.start();
    let load = Load::start(&mesh, "GET,POST").unwrap();
    let replaced = |node: &Node| node.log().matches("identity key replaced").count();
    wait_until("the identity key is replaced again and again", || {
        replaced(&mesh.order) >= 3
    });
    // By hand, too: a running node takes over what it finds.
    cli(mesh.user.dir(), "keys rotate --bits 2048 --dir keys");
    wait_until("a key made by hand is taken over", || {
        replaced(&mesh.user) == 1
    });
    load.go_on();
    let keys = fs::read_dir(mesh.order.dir().join("keys")).unwrap();
    let keys = keys.filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        path.extension().is_some_and(|extension| extension == "pem")
    });
    assert!(keys.count() <= 4, "old keys are deleted");
    assert_eq!(load.end(), Vec::<String>::new());
}

#[test]
fn a_file_that_is_wrong_opens_no_port_and_says_why_once() {
    let mut mesh = Mesh::new("mtls");
    mesh.order
        .configure(json!({ "resilience": { "timeot": "3s" } }));
    let output = mesh.order.program(&["run"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(
        message.contains("timeot") && message.contains("mesh.yaml"),
        "{message}"
    );
    assert!(!message.contains("listening"), "{message}");
    assert_eq!(output.stdout, b"");
    for port in [mesh.order.inbound, mesh.order.outbound, mesh.order.admin] {
        assert!(!is_open(port));
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let mut mesh = Mesh::new("mtls");
    let taken = free_port();
    let _holder = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    mesh.order
        .configure(json!({ "admin": { "listen": format!("127.0.0.1:{taken}") } }));
    let output = mesh.order.program(&["run"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains(&taken.to_string()), "{message}");
    assert!(!is_open(mesh.order.inbound));
}

/// A curl that runs beside the test; gives what it got, and the status behind it.
fn in_background(args: &[&str]) -> thread::JoinHandle<String> {
    let mut all = vec!["-w".to_owned(), " %{http_code}".to_owned()];
    all.extend(args.iter().map(|&arg| arg.to_owned()));
    thread::spawn(move || curl_raw(&all.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// The serial number of the certificate that a node shows.
fn serial(node: &Node) -> String {
    let certs = node.dir().join("certs");
    let name = node.config["service"]["id"].as_str().unwrap();
    let file = |end: &str| {
        certs
            .join(format!("{name}.{end}"))
            .to_str()
            .unwrap()
            .to_owned()
    };
    let url = format!("https://127.0.0.1:{}/", node.inbound);
    let shown = curl_raw(&[
        &url,
        "--insecure",
        "--cert",
        &file("crt"),
        "--key",
        &file("key"),
        "-o",
        "/dev/null",
        "-w",
        "%{certs}",
    ]);
    let line = shown.lines().find(|line| line.starts_with("Serial Number"));
    line.unwrap_or_else(|| panic!("no certificate: {shown}"))
        .to_owned()
}

/// The called node ends sessions sooner than the caller. Its refusal can't be sealed, so of a pinned key it proves nothing.
#[test]
fn a_write_outlives_the_end_of_a_session_but_where_the_key_is_pinned() {
    // threat 43
    for is_pinned in [false, true] {
        let mut mesh = Mesh::new("hybrid");
        let Some(app) = App::start(mesh.path()) else {
            return;
        };
        mesh.order
            .serve(app.port)
            .configure(json!({ "security": { "session_timeout": "3s" } }));
        if is_pinned {
            let keys = cli(mesh.order.dir(), "keys list --json --dir keys");
            let keys: serde_json::Value = serde_json::from_str(&keys).unwrap();
            let mut service = mesh.user.config["discovery"]["sources"][0]["services"][0].take();
            service["public_key_fingerprint"] = keys["keys"][0]["fingerprint"].clone();
            mesh.user.config["discovery"]["sources"][0]["services"][0] = service;
        }
        mesh.start();
        mesh.call("/pay", &["-d", "1"]).expect(200);
        // The figure is of the last time that it looked.
        for (what, sessions) in [("begun", 1.0), ("over", 0.0)] {
            wait_until(&format!("the session is {what}"), || {
                mesh.order.metric("mesh_session_active") == Some(sessions)
            });
        }
        let second = mesh.call("/pay", &["-d", "2"]);
        if is_pinned {
            let second = second.expect(502);
            assert_eq!(second.error(), Some("upstream_failed"));
            assert_eq!(second.header("x-mesh-processed"), None);
        } else {
            second.expect(200);
        }
        mesh.call("/pay", &["-d", "3"]).expect(200);
        assert_eq!(app.count("/pay"), if is_pinned { 2 } else { 3 });
    }
}
