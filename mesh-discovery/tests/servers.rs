//! The servers of the tests are what the tests take them for: they keep or lose their data, ask for what they should ask
//! for, and come back where they were.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use serde_json::json;
use support::certificates::Certificates;
use support::client::curl;
use support::consul::Consul;
use support::etcd::Etcd;
use support::knot::Knot;
use tempfile::TempDir;

mod support;

#[test]
fn consul_comes_back_with_its_data_or_without() {
    for keeps in [true, false] {
        let dir = TempDir::new().unwrap();
        let started = if keeps {
            Consul::start_lasting(dir.path())
        } else {
            Consul::start(dir.path())
        };
        let Some(mut consul) = started else { return };
        consul.register("orders", 8080);
        consul.kill();
        consul.start_again();
        let found = consul.get("/v1/health/service/orders").expect(200).json();
        assert_eq!(found.as_array().unwrap().len(), usize::from(keeps));
    }
}

#[test]
fn consul_takes_only_clients_with_a_certificate() {
    let dir = TempDir::new().unwrap();
    let certificates = Certificates::make(dir.path(), "consul");
    let Some(consul) = Consul::start_with_tls(&certificates, dir.path()) else {
        return;
    };
    consul.get("/v1/status/leader").expect(200);
    let url = format!("{}/v1/status/leader", consul.url());
    let authority = certificates.authority.display().to_string();
    assert_ne!(curl(&["--cacert", &authority, &url]).status, 200);
}

#[test]
fn etcd_keeps_its_data_and_moves_its_leader() {
    let dir = TempDir::new().unwrap();
    let Some(mut etcd) = Etcd::start_cluster(dir.path()) else {
        return;
    };
    etcd.put("/a/1", "one");
    let leader = etcd.leader();
    etcd.member_mut(leader).server.process.kill();
    etcd.put("/a/2", "two");
    assert_ne!(etcd.leader(), leader);
    etcd.member_mut(leader).server.start_again();
    etcd.wait_ready();
    etcd.put("/b", "other");
    etcd.compact();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        etcd.get_all("/a/"),
        [pair("/a/1", "one"), pair("/a/2", "two")]
    );
}

#[test]
fn etcd_takes_only_clients_with_a_certificate_and_passwords() {
    let dir = TempDir::new().unwrap();
    let certificates = Certificates::make(dir.path(), "etcd");
    let Some(mut etcd) = Etcd::start_with_tls(&certificates, dir.path()) else {
        return;
    };
    etcd.require_passwords("node", "secret", "/mesh/");
    etcd.put("/mesh/a", "one");
    let url = format!("https://127.0.0.1:{}/v3/kv/range", etcd.port());
    let ask = |url: &str, flags: &[&str]| {
        let body = json!({ "key": "YQ==" }).to_string();
        curl(&[&["-X", "POST", "-d", &body, url], flags].concat()).status
    };
    let flags = certificates.curl_flags();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    assert_ne!(ask(&url, &flags), 200, "without a password");
    assert_ne!(ask(&url, &flags[..2]), 200, "without a certificate");
}

#[test]
fn knot_serves_what_was_published_last_also_after_a_crash() {
    let dir = TempDir::new().unwrap();
    let Some(mut knot) = Knot::start("a A 127.0.0.2", dir.path()) else {
        return;
    };
    let before = query(knot.port);
    knot.publish("a A 127.0.0.3");
    knot.kill();
    knot.start_again();
    assert_eq!((before, query(knot.port)), (Some(2), Some(3)));
}

/// The last byte of the address of `a.mesh.test`.
fn query(port: u16) -> Option<u8> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(std::time::Duration::from_secs(5)))
        .unwrap();
    // RFC 1035 section 4.1: one question, class IN, type A.
    let question = b"\0\x07\0\0\0\x01\0\0\0\0\0\0\x01a\x04mesh\x04test\0\0\x01\0\x01";
    socket.send_to(question, ("127.0.0.1", port)).unwrap();
    let mut answer = [0; 512];
    let len = socket.recv(&mut answer).unwrap();
    answer[..len].last().copied()
}
