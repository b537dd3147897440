//! What two readers would read differently, sent to both ports of real nodes: it is refused, or has one reading.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use support::app::App;
use support::client::raw;
use support::h2;
use support::h2::Outcome;
use support::mesh::Mesh;
use support::process::wait_until;

mod support;

with_both_encryptions!(
    no_request_hides_in_an_answer_or_a_change_of_protocols,
    answers_out_of_order_reach_nobody_else,
    headers_change_nothing_about_a_rate_limit,
);

/// Two nodes; the called one is permissive, so that its port for other nodes takes what is sent here by hand.
fn open_mesh() -> Option<(Mesh, App)> {
    let mut mesh = Mesh::new("mtls");
    let app = App::start(mesh.path())?;
    mesh.order.serve(app.port).configure(json!({
        "security": { "mode": "permissive" },
        "policy": { "rules": [
            {
                "name": "api", "from": ["anonymous", "user-service"], "action": "allow",
                "to": { "service": "order-service", "paths": ["/api/*"] },
            },
        ] },
    }));
    mesh.start();
    Some((mesh, app))
}

type Headers<'a> = Vec<(&'a str, &'a [u8])>;

/// A request as it should be, with some fields put in place of those of the same name, and others behind.
fn with<'a>(changed: &[(&'a str, &'a [u8])]) -> Headers<'a> {
    let mut headers: Headers<'a> = vec![
        (":method", b"GET"),
        (":scheme", b"http"),
        (":authority", b"order-service"),
        (":path", b"/api/x"),
    ];
    for (name, value) in changed {
        match headers.iter_mut().find(|(known, _)| known == name) {
            Some(field) => field.1 = value,
            None => headers.push((name, value)),
        }
    }
    headers
}

#[test]
fn an_authority_and_a_target_have_one_reading() {
    // threat 11
    let Some((mesh, app)) = open_mesh() else {
        return;
    };
    let refused: [Headers<'_>; 15] = [
        with(&[(":path", b"admin")]),
        with(&[(":path", b"")]),
        with(&[(":path", b"*")]),
        with(&[(":path", b"/api/../admin")]),
        with(&[(":path", b"/api/%2e%2e%2fadmin")]),
        with(&[(":path", b"/admin")]),
        with(&[(":authority", b"order-service@evil")]),
        with(&[(":authority", b"user:secret@order-service")]),
        with(&[(":authority", b"order-service:80:90")]),
        with(&[(":authority", b"order-service:99999")]),
        with(&[(":authority", b"order-service/x")]),
        with(&[("host", b"evil")]),
        // The same field twice.
        [with(&[]), vec![(":path", b"/admin")]].concat(),
        [with(&[]), vec![(":authority", b"evil")]].concat(),
        // A pseudo-header behind the others.
        [vec![("accept", b"*/*".as_slice())], with(&[])].concat(),
    ];
    for port in [mesh.user.outbound, mesh.order.inbound] {
        for headers in &refused {
            let outcome = h2::request(port, headers, &[]);
            let is_answered = outcome == Outcome::Answer { is_ok: true };
            assert!(!is_answered, "{port}: {headers:?}");
        }
        let outcome = h2::request(port, &with(&[]), &[]);
        assert_eq!(outcome, Outcome::Answer { is_ok: true }, "{port}");
        // A fragment is no part of a request, and is not read by anybody.
        h2::request(port, &with(&[(":path", b"/api/x#/../../admin")]), &[]);
        // Spellings of one name are one name.
        for spelling in ["ORDER-SERVICE", "order-service.", "Order-Service.:80"] {
            h2::request(port, &with(&[(":authority", spelling.as_bytes())]), &[]);
            let request =
                format!("GET /api/x HTTP/1.1\r\nHost: {spelling}\r\nConnection: close\r\n\r\n");
            raw(port, request.as_bytes());
        }
        for request in app.seen() {
            let headers = request["headers"].as_array().unwrap();
            let host = headers.iter().find(|pair| pair[0] == "host").unwrap();
            let host = host[1].as_str().unwrap();
            assert!(
                ["order-service", "order-service:80"].contains(&host),
                "{request}"
            );
        }
        // In absolute form too there is one authority.
        for target in [
            "http://evil/api/x",
            "http://order-service@evil/api/x",
            "http://order-service/admin",
        ] {
            let before = app.seen().len();
            let request = format!(
                "GET {target} HTTP/1.1\r\nHost: order-service\r\nConnection: close\r\n\r\n"
            );
            let answer = raw(port, request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 4"), "{target}: {answer}");
            assert_eq!(app.seen().len(), before, "{target}");
        }
    }
    for request in app.seen() {
        assert_eq!(request["target"], "/api/x", "{request}");
    }
}

#[test]
fn no_request_hides_in_one_over_http2() {
    // threat 13
    let Some((mesh, app)) = open_mesh() else {
        return;
    };
    let hidden = b"GET /api/smuggled HTTP/1.1\r\nHost: order-service\r\n\r\n".as_slice();
    let chunked = [b"0\r\n\r\n".as_slice(), hidden].concat();
    let post = |changed: &[(&'static str, &'static [u8])]| {
        [
            with(&[(":method", b"POST"), (":path", b"/api/outer")]),
            changed.to_vec(),
        ]
        .concat()
    };
    let cases: [(Headers<'_>, &[&[u8]]); 17] = [
        // Lengths that are not the body's (H2.CL).
        (post(&[("content-length", b"0")]), &[hidden]),
        (post(&[("content-length", b"1")]), &[hidden]),
        (post(&[("content-length", b"9999")]), &[hidden]),
        (
            post(&[("content-length", b"0"), ("content-length", b"50")]),
            &[hidden],
        ),
        (post(&[("content-length", b"0, 50")]), &[hidden]),
        (post(&[("content-length", b"-1")]), &[hidden]),
        // Codings that HTTP/2 does not have (H2.TE), and fields of one connection.
        (post(&[("transfer-encoding", b"chunked")]), &[&chunked]),
        (post(&[("te", b"chunked")]), &[&chunked]),
        (post(&[("connection", b"transfer-encoding")]), &[&chunked]),
        (
            post(&[("connection", b"keep-alive"), ("keep-alive", b"1")]),
            &[&chunked],
        ),
        // Line breaks and ends of text in names, values and pseudo-headers.
        (
            post(&[("x", b"a\r\nTransfer-Encoding: chunked")]),
            &[&chunked],
        ),
        (
            post(&[(
                "x",
                b"a\r\n\r\nGET /api/smuggled HTTP/1.1\r\nHost: order-service\r\n\r\n",
            )]),
            &[],
        ),
        (post(&[("x", b"a\nb")]), &[]),
        (post(&[("x", b"a\0b")]), &[]),
        (
            post(&[("x: y\r\ntransfer-encoding", b"chunked")]),
            &[&chunked],
        ),
        (
            with(&[(
                ":path",
                b"/api/x HTTP/1.1\r\nHost: order-service\r\n\r\nGET /api/smuggled",
            )]),
            &[],
        ),
        (
            with(&[(":method", b"GET /api/smuggled HTTP/1.1\r\nx:")]),
            &[],
        ),
    ];
    for port in [mesh.user.outbound, mesh.order.inbound] {
        for (headers, body) in &cases {
            h2::request(port, headers, body);
            let requests = app.seen();
            let smuggled = requests
                .iter()
                .any(|seen| seen["target"] == "/api/smuggled");
            assert!(!smuggled, "{headers:?}");
            for request in &requests {
                let headers = request["headers"].as_array().unwrap();
                let is_own = |name: &str| headers.iter().any(|pair| pair[0] == name);
                assert!(!is_own("te") && !is_own("keep-alive"), "{request}");
            }
        }
        // The application's connections are still what they were.
        let outcome = h2::request(port, &with(&[]), &[]);
        assert_eq!(outcome, Outcome::Answer { is_ok: true });
    }
    assert_eq!(app.count("smuggled"), 0, "{:?}", app.seen());
}

#[test]
fn a_header_that_occurs_twice_opens_nothing() {
    // threat 12
    let mut mesh = Mesh::new("mtls");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port).configure(json!({ "policy": { "rules": [
        {
            "name": "red-tenant", "from": ["user-service"], "to": { "service": "order-service" }, "action": "allow",
            "when": "request.headers['x-tenant'] == 'red'",
        },
        {
            "name": "no-debugging", "from": ["*"], "to": { "service": "order-service" }, "action": "deny",
            "when": "'x-debug' in request.headers && request.headers['x-debug'] != 'off'",
        },
    ] } }));
    mesh.start();
    let call = |headers: &[&str]| {
        let args: Vec<_> = headers.iter().flat_map(|header| ["-H", header]).collect();
        mesh.call("/api/x", &args).status
    };
    assert_eq!(call(&["X-Tenant: red"]), 200);
    assert_eq!(call(&["X-Tenant: red", "X-Debug: off"]), 200);
    for headers in [
        &["X-Tenant: blue"][..],
        &["X-Tenant: red", "X-Tenant: blue"],
        &["X-Tenant: blue", "x-tenant: red"],
        &["X-Tenant: red,blue"],
        &["X-Tenant: red, blue"],
        &["X-Tenant;"],
        &[],
        &["X-Tenant: red", "X-Debug: on"],
        &["X-Tenant: red", "X-Debug: off", "X-Debug: on"],
        &["X-Tenant: red", "X-Debug: on", "x-debug: off"],
        &["X-Tenant: red", "X-Debug: off,on"],
    ] {
        assert_eq!(call(headers), 403, "{headers:?}");
    }
    assert_eq!(app.seen().len(), 2);
}

fn no_request_hides_in_an_answer_or_a_change_of_protocols(encryption: &str) {
    // threat 14
    let Some((mesh, app)) = Mesh::with_app(encryption) else {
        return;
    };
    let hidden = "GET /api/smuggled HTTP/1.1\r\nHost: order-service\r\n\r\n";
    // Nobody may change protocols, so what follows such a request is a request like any other, and the application
    // never hears of the wish.
    for wish in [
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Upgrade: own\r\nConnection: upgrade",
    ] {
        let request = format!("GET /api/wish HTTP/1.1\r\nHost: order-service\r\n{wish}\r\n\r\n");
        let answer = raw(mesh.user.outbound, request.as_bytes());
        assert!(!answer.contains("HTTP/1.1 101"), "{answer}");
    }
    for request in app.seen() {
        let headers = request["headers"].to_string();
        assert!(
            !headers.contains("upgrade") && !headers.contains("http2-settings"),
            "{request}"
        );
    }
    let connect =
        format!("CONNECT order-service:80 HTTP/1.1\r\nHost: order-service:80\r\n\r\n{hidden}");
    let answer = raw(mesh.user.outbound, connect.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    // An application that changes protocols though nobody asked gives no answer, and its connection is used no more.
    for _ in 0..3 {
        let answer = mesh.call("/api/switch", &[]);
        assert_eq!(answer.status, 502, "{answer:?}");
        let after = mesh.call("/api/after", &[]).expect(200);
        assert!(!after.text().contains("poisoned"), "{after:?}");
    }
    // A final answer before the body was sent: the rest of the body is no request.
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut stream = TcpStream::connect(("127.0.0.1", mesh.user.outbound)).unwrap();
        let announced = hidden.len() + 100_000;
        let head = format!(
            "POST /api/early HTTP/1.1\r\nHost: order-service\r\n{expect}Content-Length: {announced}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // Who has answered may have closed.
        drop(stream.write_all(hidden.as_bytes()));
        drop(stream);
        for _ in 0..3 {
            mesh.call("/api/after", &[]).expect(200);
        }
    }
    assert_eq!(app.count("smuggled"), 0, "{:?}", app.seen());
}

fn answers_out_of_order_reach_nobody_else(encryption: &str) {
    // threat 15
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    mesh.user.configure(json!({ "resilience": {
        "timeout": "3s", "retry": { "max_attempts": 1 }, "circuit_breaker": { "threshold": 100 },
    } }));
    mesh.start();
    let after = |what: &str| {
        for _ in 0..3 {
            let answer = mesh.call("/api/after", &["-d", "four"]).expect(200);
            assert!(!answer.text().contains("poisoned"), "{what}: {answer:?}");
            assert_eq!(answer.json()["bytes"], 4, "{what}");
        }
    };
    for _ in 0..3 {
        let head = mesh.call("/api/head-body", &["--head"]);
        assert!(
            head.body.is_empty() || !head.text().contains("poisoned"),
            "{head:?}"
        );
        after("a body behind an answer to HEAD");
    }
    let many = mesh.call("/api/interim?count=50", &[]);
    assert!(matches!(many.status, 200 | 502), "{many:?}");
    after("many interim answers");
    let endless = mesh.call("/api/interim", &[]);
    assert!(matches!(endless.status, 502 | 504), "{endless:?}");
    // It ends with the call: the application is heard no more, and the node has time for others.
    wait_until("the node answers others", || {
        mesh.call("/api/after", &[]).status == 200
    });
    after("interim answers without end");
    assert!(mesh.order.process().most_memory() < 200 << 20);
}

fn headers_change_nothing_about_a_rate_limit(encryption: &str) {
    // threat 47
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port).configure(json!({
        "resilience": { "rate_limit": { "max_requests": 5, "window": "1h" } },
        "policy": { "rules": [
            { "name": "all", "from": ["*"], "to": { "service": "order-service" }, "action": "allow" },
        ] },
    }));
    mesh.start();
    for _ in 0..5 {
        mesh.call("/api/x", &[]).expect(200);
    }
    let claims = [
        "X-Forwarded-For: 203.0.113.",
        "X-Real-IP: 203.0.113.",
        "Forwarded: for=203.0.113.",
        "CF-Connecting-IP: 203.0.113.",
        "True-Client-IP: 2001:db8::",
        "X-Mesh-Peer-Id: spiffe://example.org/payment-service-",
        "X-SPIFFE-ID: spiffe://example.org/payment-service-",
        "x_spiffe_id: spiffe://example.org/payment-service-",
        "X-Forwarded-Client-Cert: URI=spiffe://example.org/payment-service-",
        "X-Request-Id: fresh-",
        "X-Api-Key: mk_",
        "User-Agent: somebody-else-",
    ];
    for (claim, number) in claims.iter().zip(1..) {
        let claim = format!("{claim}{number}");
        let refused = mesh.call("/api/x", &["-H", &claim]).expect(429);
        assert_eq!(refused.error(), Some("rate_limited"), "{claim}");
        assert!(refused.header("retry-after").is_some());
    }
    assert_eq!(app.seen().len(), 5);
    // Another caller has its own share.
    let mut payment = mesh.node("payment-service", "payment");
    payment.discover("order-service", &[mesh.order.inbound]);
    payment.start();
    payment.call("order-service", "/api/x", &[]).expect(200);
}
