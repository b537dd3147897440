//! How long a caller waits is known at every node on the way, and nobody works on for a caller who waits no more.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::io::Read;
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use support::mesh::Mesh;

mod support;

with_both_encryptions!(
    a_deadline_is_kept_on_both_sides_and_the_application_is_left_alone,
    what_is_left_is_carried_on_and_never_grows,
);

/// Goal R-12.
fn a_deadline_is_kept_on_both_sides_and_the_application_is_left_alone(encryption: &str) {
    // An application that never answers, and tells when it is left alone.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (left_alone, waits) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, left_alone) = (stream.unwrap(), left_alone.clone());
            thread::spawn(move || {
                let began = now();
                let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
                while !seen.ends_with(&CANCELLED) {
                    match stream.read(&mut piece) {
                        Ok(read) if read > 0 => seen.extend(&piece[..read]),
                        _ => break,
                    }
                }
                drop(left_alone.send((seen, began.elapsed())));
            });
        }
    });
    let mut mesh = Mesh::new(encryption);
    mesh.order.serve(port);
    mesh.start();
    let ask = ["-H", "x-mesh-timeout-ms: 400"];
    let answer = mesh.call("/never", &ask).expect(504);
    assert_eq!(answer.error(), Some("timeout"));
    let took = answer.measured["time_total"].as_f64().unwrap();
    assert!((0.38..0.7).contains(&took), "{took}");
    let (head, waited) = waits.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(head.starts_with(b"GET /never "), "{head:?}");
    assert!(waited < Duration::from_millis(700), "{waited:?}");
    // A gRPC caller is told in its own words.
    let grpc = [
        "-H",
        "grpc-timeout: 300m",
        "-H",
        "content-type: application/grpc",
    ];
    let answer = mesh.call("/orders.Orders/Get", &grpc).expect(200);
    assert_eq!(answer.header("grpc-status"), Some("4"));
    let (frames, waited) = waits.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(frames.ends_with(&CANCELLED), "{frames:?}");
    assert!(waited < Duration::from_millis(600), "{waited:?}");
}

fn what_is_left_is_carried_on_and_never_grows(encryption: &str) {
    let Some((mesh, _app)) = Mesh::with_app(encryption) else {
        return;
    };
    let seen = |args: &[&str]| mesh.call("/x", args).expect(200).json()["headers"].clone();
    let left =
        |seen: &Value| -> u64 { seen["x-mesh-timeout-ms"].as_str().unwrap().parse().unwrap() };
    // Two hops take their margins and the time that passed.
    let told = seen(&["-H", "x-mesh-timeout-ms: 5000"]);
    assert!((3_000..=4_990).contains(&left(&told)), "{told}");
    assert!(told["grpc-timeout"].is_null());
    // What is absurd, and what is more than the calling node allows (30 s), changes nothing.
    for absurd in ["99999999", "123456789012", "-1", "0", "soon"] {
        let seen = seen(&["-H", &format!("x-mesh-timeout-ms: {absurd}")]);
        assert!((20_000..=29_990).contains(&left(&seen)), "{absurd} {seen}");
    }
    let told = seen(&["-H", "grpc-timeout: 4S", "-H", "x-mesh-timeout-ms: 20000"]);
    assert!((2_000..=3_990).contains(&left(&told)), "{told}");
    let grpc = told["grpc-timeout"].as_str().unwrap();
    let micros: u64 = grpc.strip_suffix('u').unwrap().parse().unwrap();
    assert!((2_000_000..=3_990_000).contains(&micros), "{grpc}");
    // Which attempt of a caller further up a call is made for is carried on too.
    let told = seen(&["-H", "x-mesh-attempt: 2"]);
    assert_eq!(told["x-mesh-attempt"], "2");
    let told = seen(&["-H", "x-mesh-attempt: many"]);
    assert!(told["x-mesh-attempt"].is_null());
}

#[expect(clippy::disallowed_methods, reason = "how long a real call takes")]
fn now() -> Instant {
    Instant::now()
}

/// `RST_STREAM` for stream 1 with CANCEL (RFC 9113 sections 6.4 and 7).
const CANCELLED: [u8; 13] = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
