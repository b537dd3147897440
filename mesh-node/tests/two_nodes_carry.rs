//! Requests of real clients through two real nodes to real applications arrive as they were sent.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::client::curl;
use support::client::curl_raw;
use support::client::raw;
use support::mesh::Mesh;
use support::process::Process;
use support::process::free_port;
use support::process::holds_within;
use support::process::is_open;
use support::process::wait_until;
use support::tools::tool;

mod support;

with_both_encryptions!(
    carries_requests_by_host_by_proxy_by_port_and_over_http2,
    serves_files_of_the_plain_python_server,
    keeps_connections_open_on_both_sides,
    streams_large_bodies_up_and_down_without_holding_them,
    a_reader_that_stops_stalls_the_application,
    an_application_that_does_not_read_stalls_the_sender,
    carries_every_form_of_message,
    passes_the_application_s_own_answers_on,
    keeps_trailers,
    makes_json_calls,
    names_every_request_and_its_trace,
);

fn carries_requests_by_host_by_proxy_by_port_and_over_http2(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    let bound = free_port();
    mesh.order.serve(app.port);
    mesh.user.configure(json!({ "outbound": {
        "upstreams": [ { "service": "order-service", "bind": format!("127.0.0.1:{bound}") } ],
    } }));
    mesh.start();
    let outbound = mesh.user.outbound;
    let ways: [(&str, &[&str]); 4] = [
        (
            &format!("http://127.0.0.1:{outbound}/api/orders?page=2"),
            &["-H", "Host: order-service"],
        ),
        (
            "http://order-service/api/orders?page=2",
            &["-x", &format!("http://127.0.0.1:{outbound}")],
        ),
        (&format!("http://127.0.0.1:{bound}/api/orders?page=2"), &[]),
        (
            &format!("http://127.0.0.1:{outbound}/api/orders?page=2"),
            &["-H", "Host: order-service", "--http2-prior-knowledge"],
        ),
    ];
    for (url, args) in ways {
        let args = [args, &[url, "-d", "a body", "-H", "X-Own: kept"]].concat();
        let answer = curl(&args).expect(200);
        let seen = answer.json();
        assert_eq!(seen["method"], "POST", "{args:?}");
        assert_eq!(seen["target"], "/api/orders?page=2", "{args:?}");
        assert_eq!(seen["bytes"], 6, "{args:?}");
        assert_eq!(seen["headers"]["x-own"], "kept", "{args:?}");
        assert_eq!(
            seen["headers"]["x-mesh-peer-id"], "spiffe://example.org/user-service",
            "{args:?}"
        );
        assert_eq!(seen["headers"]["x-mesh-token"], Value::Null, "{args:?}");
        assert_eq!(
            answer.header("x-circuit-breaker-state"),
            Some("CLOSED"),
            "{args:?}"
        );
    }
    // A GET may have a body of any form, and mostly has none.
    let chunked = [
        "-X",
        "GET",
        "-d",
        "a body",
        "-H",
        "transfer-encoding: chunked",
    ];
    for (args, bytes) in [(&chunked[..], 6), (&chunked[..4], 6), (&[], 0)] {
        let seen = mesh.call("/api/orders", args).expect(200).json();
        assert_eq!(
            (&seen["method"], &seen["bytes"]),
            (&json!("GET"), &json!(bytes)),
            "{args:?}"
        );
        let is_chunked = seen["headers"]["transfer-encoding"] == "chunked";
        assert_eq!(is_chunked, args.len() == chunked.len(), "{args:?}");
    }
}

fn serves_files_of_the_plain_python_server(encryption: &str) {
    let Some(python) = tool("python") else { return };
    let mut mesh = Mesh::new(encryption);
    let port = free_port();
    let files = mesh.path().join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("orders.txt"), "one\ntwo\n").unwrap();
    let mut server = Command::new(python);
    server
        .args([
            "-m",
            "http.server",
            "--bind",
            "127.0.0.1",
            &port.to_string(),
        ])
        .current_dir(&files);
    let _server = Process::start(&mut server, mesh.path(), "files");
    wait_until("the file server listens", || is_open(port));
    mesh.order.serve(port);
    mesh.start();

    let answer = mesh.call("/orders.txt", &[]).expect(200);
    assert_eq!(answer.text(), "one\ntwo\n");
    let changed = format!(
        "If-Modified-Since: {}",
        answer.header("last-modified").unwrap()
    );
    let unchanged = mesh.call("/orders.txt", &["-H", &changed]).expect(304);
    assert_eq!(unchanged.body, b"");
    assert_eq!(mesh.call("/none", &[]).expect(404).error(), None);
}

fn keeps_connections_open_on_both_sides(encryption: &str) {
    let Some((mesh, app)) = Mesh::with_app(encryption) else {
        return;
    };
    let url = format!("http://127.0.0.1:{}/api/one", mesh.user.outbound);
    let out = ["-o", "/dev/null"];
    let several = [&url, &url, &url, &url].map(String::as_str);
    let mut args = vec![
        "-w",
        "%{num_connects} ",
        "-H",
        "Host: order-service",
        "-d",
        "x",
    ];
    args.extend([out; 4].concat());
    args.extend(several);
    assert_eq!(curl_raw(&args), "1 0 0 0 ");

    let connections: Vec<_> = app
        .seen()
        .iter()
        .map(|request| request["connection"].clone())
        .collect();
    assert_eq!(connections.len(), 4);
    assert!(
        connections.iter().all(|one| *one == connections[0]),
        "{connections:?}"
    );
}

fn streams_large_bodies_up_and_down_without_holding_them(encryption: &str) {
    let Some((mut mesh, _app)) = Mesh::with_app(encryption) else {
        return;
    };
    let before = memory(&mut mesh);
    let path = mesh.path().join("large");
    write_noise(&path);
    let file = path.to_str().unwrap();
    let expected = sha256(file);

    let up = mesh.call("/api/large", &["-T", file]).expect(200);
    assert_eq!(up.json()["bytes"], LARGE);
    assert_eq!(up.json()["sha256"], *expected);
    let chunked = ["-T", file, "-H", "Transfer-Encoding: chunked"];
    let up = mesh.call("/api/large", &chunked).expect(200);
    assert_eq!(up.json()["sha256"], *expected);

    let target = format!("/api/source?bytes={LARGE}");
    let down = mesh.call(&target, &[]).expect(200);
    assert_eq!(down.body.len(), LARGE);
    let in_order = down.body.chunks(65_536).enumerate().all(|(number, block)| {
        block
            .chunks(16)
            .all(|line| line == format!("{number:015}\n").as_bytes())
    });
    assert!(in_order);

    assert_held(before, &mut mesh);
}

fn a_reader_that_stops_stalls_the_application(encryption: &str) {
    let Some((mut mesh, app)) = Mesh::with_app(encryption) else {
        return;
    };
    let before = memory(&mut mesh);
    let mut reader = TcpStream::connect(("127.0.0.1", mesh.user.outbound)).unwrap();
    let request = "GET /api/source?bytes=4000000000 HTTP/1.1\r\nHost: order-service\r\n\r\n";
    reader.write_all(request.as_bytes()).unwrap();
    let mut some = vec![0; 1 << 20];
    reader.read_exact(&mut some).unwrap();

    let progress = || {
        let url = format!("http://127.0.0.1:{}/progress", app.port);
        curl(&[&url]).expect(200).json()
    };
    let (mut written, mut unchanged) = (0, 0);
    let is_stalled = || {
        let now = progress()["written"].as_u64().unwrap();
        unchanged = if now == written { unchanged + 1 } else { 0 };
        written = now;
        unchanged == 20
    };
    wait_until("the application is stalled", is_stalled);
    assert!(written > 1 << 20);
    assert!(
        written < 40_000_000,
        "the application wrote {written} bytes that nobody read"
    );
    assert_held(before, &mut mesh);
    // And who goes away takes the whole chain along.
    drop(reader);
    wait_until("the application is rid of the request", || {
        progress()["running"] == 1
    });
}

/// The most memory that each node ever held.
fn memory(mesh: &mut Mesh) -> [u64; 2] {
    [&mut mesh.user, &mut mesh.order].map(|node| node.process().most_memory())
}

#[track_caller]
fn assert_held(before: [u64; 2], mesh: &mut Mesh) {
    for (before, after) in before.into_iter().zip(memory(mesh)) {
        let held = after - before;
        assert!(held < MAX_HELD, "a node held {held} bytes more");
    }
}

fn an_application_that_does_not_read_stalls_the_sender(encryption: &str) {
    let Some((mesh, app)) = Mesh::with_app(encryption) else {
        return;
    };
    let mut sender = TcpStream::connect(("127.0.0.1", mesh.user.outbound)).unwrap();
    let head = format!(
        "POST /api/stall HTTP/1.1\r\nHost: order-service\r\nContent-Length: {LARGE}\r\nConnection: close\r\n\r\n"
    );
    sender.write_all(head.as_bytes()).unwrap();
    sender
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let piece = vec![7; 65_536];
    let mut accepted = 0;
    let stalled = loop {
        match sender.write(&piece[..piece.len().min(LARGE - accepted)]) {
            Ok(0) => break None,
            Ok(len) => accepted += len,
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(
        stalled,
        Some(ErrorKind::WouldBlock),
        "{accepted} bytes were taken"
    );
    assert!(
        accepted < 40_000_000,
        "{accepted} bytes were taken that nobody read"
    );

    let url = format!("http://127.0.0.1:{}/release", app.port);
    curl(&[&url]).expect(200);
    sender
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    while accepted < LARGE {
        accepted += sender
            .write(&piece[..piece.len().min(LARGE - accepted)])
            .unwrap();
    }
    let mut answer = String::new();
    sender.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(&format!("\"bytes\": {LARGE}")), "{answer}");
}

fn carries_every_form_of_message(encryption: &str) {
    let Some((mesh, app)) = Mesh::with_app(encryption) else {
        return;
    };
    // Chunked both ways.
    let chunked = ["-H", "Transfer-Encoding: chunked", "-d", "in pieces"];
    let answer = mesh.call("/api/echo", &chunked).expect(200);
    assert_eq!(answer.text(), "in pieces");
    // No body where none may be, and the length that GET would have.
    let head =
        "HEAD /api/source?bytes=5 HTTP/1.1\r\nHost: order-service\r\nConnection: close\r\n\r\n";
    let answer = raw(mesh.user.outbound, head.as_bytes()).to_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(
        answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    let answer = mesh.call("/api/status?code=204", &[]).expect(204);
    assert_eq!(
        (answer.header("content-length"), answer.body.len()),
        (None, 0)
    );
    // An empty body is not no body.
    let answer = mesh.call("/api/empty", &["-d", ""]).expect(200);
    assert_eq!(answer.json()["bytes"], 0);
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS"] {
        let answer = mesh
            .call("/api/any", &["-X", method, "-d", "x"])
            .expect(200);
        assert_eq!(answer.json()["method"], method);
    }
    // What HTTP/1.0 clients get, they can read.
    let old = "GET /api/old HTTP/1.0\r\nHost: order-service\r\n\r\n";
    let answer = raw(mesh.user.outbound, old.as_bytes());
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(
        !answer.to_lowercase().contains("transfer-encoding"),
        "{answer}"
    );
    // Several requests at once on one connection are answered in their order.
    let two = "GET /api/first HTTP/1.1\r\nHost: order-service\r\n\r\n\
               GET /api/second HTTP/1.1\r\nHost: order-service\r\nConnection: close\r\n\r\n";
    let answer = raw(mesh.user.outbound, two.as_bytes());
    assert!(answer.find("/api/first").unwrap() < answer.find("/api/second").unwrap());
    assert_eq!((app.count("first"), app.count("second")), (1, 1));
    // More header than is taken.
    let large = format!("X-Large: {}", "x".repeat(70_000));
    let refused = mesh.call("/api/large-header", &["-H", &large]);
    assert_eq!(refused.status, 431, "{refused:?}");
    assert_eq!(app.count("large-header"), 0);
}

fn passes_the_application_s_own_answers_on(encryption: &str) {
    let Some((mesh, _app)) = Mesh::with_app(encryption) else {
        return;
    };
    for code in [201_u16, 301, 400, 404, 409, 418, 501] {
        let target = format!("/api/status?code={code}");
        let answer = mesh.call(&target, &["-d", "x"]).expect(code);
        assert_eq!(answer.header("x-app"), Some("1"));
        assert_eq!(answer.text(), "the application's own\n");
        // Only the mesh says that the mesh failed.
        assert_eq!(answer.error(), None);
    }
}

fn keeps_trailers(encryption: &str) {
    let Some((mesh, _app)) = Mesh::with_app(encryption) else {
        return;
    };
    let request = "GET /api/trailers HTTP/1.1\r\nHost: order-service\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n";
    let answer = raw(mesh.user.outbound, request.as_bytes()).to_lowercase();
    assert!(answer.contains("trailer: x-checksum, x-count"), "{answer}");
    let (body, trailers) = answer.rsplit_once("\r\n0\r\n").unwrap();
    assert!(
        body.contains("first ") && body.contains("second"),
        "{answer}"
    );
    assert!(trailers.contains("x-checksum: abc123"), "{answer}");
    assert!(trailers.contains("x-count: 2"), "{answer}");
}

fn makes_json_calls(encryption: &str) {
    let Some((mesh, _app)) = Mesh::with_app(encryption) else {
        return;
    };
    let base = format!("http://127.0.0.1:{}/v1/call", mesh.user.outbound);
    let input = r#"{"user":"ada","größe":[1,2.5,null]}"#;
    let answer = curl(&[&format!("{base}/order-service/json"), "--json", input]).expect(200);
    let expected =
        json!({ "method": "json", "input": serde_json::from_str::<Value>(input).unwrap() });
    assert_eq!(answer.json(), expected);
    assert_eq!(answer.header("x-circuit-breaker-state"), Some("CLOSED"));

    for (path, args, status, code) in [
        ("/none/json", &["--json", "{}"][..], 404, "no_route"),
        ("/order-service/", &["--json", "{}"], 404, "no_route"),
        ("/order-service/json", &[], 405, "method_not_allowed"),
        (
            "/order-service/json",
            &["-d", "{}", "-H", "Content-Type: text/plain"],
            415,
            "unsupported_media_type",
        ),
    ] {
        let url = format!("{base}{path}");
        let answer = curl(&[&[url.as_str()], args].concat()).expect(status);
        assert_eq!(answer.error(), Some(code));
        assert_eq!(answer.json()["error"]["code"], code);
    }

    let args = ["--json", "call", "order-service", "json", "--data", input];
    let output = mesh.user.program(&args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["status"], 200);
    assert_eq!(printed["answer"], expected);
}

fn names_every_request_and_its_trace(encryption: &str) {
    let Some((mesh, _app)) = Mesh::with_app(encryption) else {
        return;
    };
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01");
    let args = [
        "-H",
        &traceparent,
        "-H",
        "tracestate: vendor=1",
        "-H",
        "x-request-id: own-7",
    ];
    let headers = mesh.call("/api/traced", &args).expect(200).json()["headers"].clone();
    let passed: Vec<_> = headers["traceparent"]
        .as_str()
        .unwrap()
        .split('-')
        .collect();
    assert_eq!((passed[0], passed[1], passed[3]), ("00", trace, "01"));
    assert_eq!(headers["tracestate"], "vendor=1");
    assert_eq!(headers["x-request-id"], "own-7");

    let ids = || {
        let headers = mesh.call("/api/untraced", &[]).expect(200).json()["headers"].clone();
        let made: Vec<_> = headers["traceparent"]
            .as_str()
            .unwrap()
            .split('-')
            .map(str::len)
            .collect();
        assert_eq!(made, [2, 32, 16, 2], "{headers}");
        (
            headers["traceparent"].clone(),
            headers["x-request-id"].clone(),
        )
    };
    let (first, second) = (ids(), ids());
    assert!(first.0 != second.0 && first.1 != second.1);
    assert!(first.1.as_str().is_some_and(|id| id.len() >= 16));
}

#[test]
fn keys_of_4096_bits_seal_a_call() {
    let mut mesh = Mesh::new("hybrid");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    for node in [&mut mesh.user, &mut mesh.order] {
        node.configure(json!({ "security": { "rsa_key_size": 4096 } }));
        fs::remove_dir_all(node.dir().join("keys")).unwrap();
    }
    mesh.start();
    mesh.call("/api/orders", &["-d", "x"]).expect(200);
    // Made on first use, of the size asked for, and the handshake took place.
    for node in [&mesh.user, &mesh.order] {
        let keys = support::mesh::cli(node.dir(), "--json keys list --dir keys");
        let keys: Value = serde_json::from_str(&keys).unwrap();
        assert_eq!(keys["keys"][0]["bits"], 4096);
    }
    assert!(holds_within(Duration::from_secs(5), || {
        mesh.order.admin("/stats").json()["activeSessions"] == 1
    }));
}

/// 64 MiB that no part of repeats.
fn write_noise(path: &std::path::Path) {
    let mut file = File::create(path).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..LARGE / 65_536 {
        let mut block = Vec::with_capacity(65_536);
        while block.len() < 65_536 {
            // xorshift64 (Marsaglia 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend(state.to_le_bytes());
        }
        file.write_all(&block).unwrap();
    }
}

fn sha256(file: &str) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

const LARGE: usize = 64 << 20;
/// What a node may hold while a body of 64 MiB passes, beside what it held before: windows, and the parts of the program that
/// ran for the first time.
const MAX_HELD: u64 = 24 << 20;
