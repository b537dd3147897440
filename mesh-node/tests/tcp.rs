//! Connections that are not HTTP, carried between two real nodes.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use support::client::curl;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::free_port;
use support::process::wait_until;

mod support;

/// An application that sends back what it gets, and then, once its caller has ended, a last word.
struct Echo {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        // Ends with the process; the system closes what it holds.
        let _serving = thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut stream = stream.unwrap();
                let _echoing = thread::spawn(move || -> io::Result<()> {
                    io::copy(&mut stream.try_clone()?, &mut stream)?;
                    stream.write_all(LAST_WORD)
                });
            }
        });
        Self { port, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Two nodes; what the user service's application connects to at the port that is given leads to the echo.
fn mesh_with_tcp(rules: &Value) -> (Mesh, Echo, u16) {
    let echo = Echo::start();
    let (mesh, bound) = mesh_to(echo.port, json!({ "policy": { "rules": rules } }));
    (mesh, echo, bound)
}

/// Two nodes; what the user service's application connects to at the port that is given leads to `app`. `changes` are of
/// the order service's node.
fn mesh_to(app: u16, changes: Value) -> (Mesh, u16) {
    let mut mesh = Mesh::new("hybrid");
    let (carried, bound) = (free_port(), free_port());
    mesh.order.configure(json!({
        "service": {
            // It speaks HTTP too, so a rule about requests can be enforced.
            "app": format!("127.0.0.1:{app}"),
            "tcp": [
                { "listen": format!("127.0.0.1:{carried}"), "app": format!("127.0.0.1:{app}") },
            ],
        },
    }));
    mesh.order.configure(changes);
    mesh.user.discover("order-service", &[carried]);
    mesh.user.configure(upstream(bound));
    mesh.start();
    (mesh, bound)
}

fn upstream(port: u16) -> Value {
    json!({ "outbound": { "upstreams": [
        { "service": "order-service", "bind": format!("127.0.0.1:{port}"), "protocol": "tcp" },
    ] } })
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
}

/// All that comes back when `bytes` were sent and the sending side was ended.
fn exchange(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    let mut sending = stream.try_clone().unwrap();
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            // Who refuses may do so before all is sent.
            drop(sending.write_all(bytes));
            drop(sending.shutdown(Shutdown::Write));
        });
        let mut got = Vec::new();
        drop(stream.read_to_end(&mut got));
        sender.join().unwrap();
        got
    })
}

fn connections(node: &Node) -> Vec<Value> {
    let log = fs::read_to_string(node.dir().join("logs/mesh-audit.log")).unwrap();
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|record: &Value| {
            record["event"] == "connection" && record["direction"] == "inbound"
        })
        .collect()
}

#[test]
fn bytes_pass_both_ways_and_ends_pass_one_by_one() {
    let rules = json!([
        { "name": "users", "from": ["user-service"], "to": { "service": "order-service" }, "action": "allow" },
    ]);
    let (mesh, echo, port) = mesh_with_tcp(&rules);
    // 64 MiB, of which no two blocks are the same.
    let sent: Vec<u8> = (0..MEBIBYTES << 17).flat_map(u64::to_le_bytes).collect();
    let got = exchange(port, &sent);
    assert_eq!(got.len(), sent.len() + LAST_WORD.len());
    assert!(got.starts_with(&sent) && got.ends_with(LAST_WORD));
    assert_eq!(exchange(port, b""), LAST_WORD);
    assert_eq!(echo.connections(), 2);

    let bytes = f64::from(u32::try_from(sent.len()).unwrap());
    for node in [&mesh.user, &mesh.order] {
        wait_until("both are closed", || {
            node.metric("istio_tcp_connections_closed_total") == Some(2.0)
        });
        assert_eq!(node.metric("istio_tcp_connections_opened_total"), Some(2.0));
        assert_eq!(node.metric("istio_tcp_received_bytes_total"), Some(bytes));
        let last_words = f64::from(u32::try_from(2 * LAST_WORD.len()).unwrap());
        assert_eq!(
            node.metric("istio_tcp_sent_bytes_total"),
            Some(bytes + last_words)
        );
    }
    wait_until("both ends are recorded", || {
        connections(&mesh.order).len() == 4
    });
    let records = connections(&mesh.order);
    assert_eq!(records[0]["verdict"], "allow");
    assert_eq!(records[0]["rule"], "users");
    assert_eq!(records[0]["peer"], "spiffe://example.org/user-service");
    assert_eq!(records[0]["decision"].as_str().unwrap().len(), 26);
    assert_eq!(records[1]["verdict"], "closed");
    assert_eq!(records[1]["received_bytes"], sent.len());
}

#[test]
fn who_may_not_connect_gets_nothing_through() {
    // threat 1
    let rules = json!([
        { "name": "payments", "from": ["payment-service"], "to": { "service": "order-service" }, "action": "allow" },
        // A rule about requests says nothing about connections.
        {
            "name": "pages", "from": ["user-service"], "action": "allow",
            "to": { "service": "order-service", "paths": ["/pages/*"] },
        },
    ]);
    let (mesh, echo, port) = mesh_with_tcp(&rules);
    assert_eq!(exchange(port, b"let me in"), b"");
    let records = connections(&mesh.order);
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["verdict"], "deny");
    let id = records[0]["decision"].as_str().unwrap();
    let page = mesh
        .order
        .admin(&format!("/decisions/{id}"))
        .expect(200)
        .json();
    assert_eq!(page["facts"]["peer"], "spiffe://example.org/user-service");
    let denied = "mesh_auth_policy_decisions_total{verdict=\"deny\",rule=\"default\"}";
    assert_eq!(mesh.order.metric(denied), Some(1.0));

    // Nor does who speaks another protocol there, with a certificate or without.
    let carried = mesh.order.config["service"]["tcp"][0]["listen"]
        .as_str()
        .unwrap();
    let certs = mesh.user.dir().join("certs");
    let certificate = certs.join("user-service.crt").display().to_string();
    let key = certs.join("user-service.key").display().to_string();
    let url = format!("https://{carried}/");
    let shown = ["--cert", &certificate, "--key", &key];
    for args in [&shown[..], &[]] {
        for protocol in ["--http1.1", "--http2", "--no-alpn"] {
            let mut all = vec![&*url, "--insecure", protocol];
            all.extend(args);
            let answer = curl(&all);
            assert_eq!(answer.status, 0, "{answer:?}");
        }
    }
    let plain = curl(&[&format!("http://{carried}/")]);
    assert_eq!(plain.status, 0, "{plain:?}");
    assert_eq!(echo.connections(), 0);
    // The port for other nodes carries none of it either.
    assert!(mesh.order.metric("mesh_session_refused_total") >= Some(7.0));
    let mut payment = mesh.node("payment-service", "payment");
    let bound = free_port();
    let number = carried.rsplit(':').next().unwrap().parse().unwrap();
    payment
        .discover("order-service", &[number])
        .configure(upstream(bound));
    payment.start();
    assert_eq!(exchange(bound, b"hello"), [b"hello", LAST_WORD].concat());
}

#[test]
fn the_record_of_a_connection_is_whole_also_where_calls_are_not_recorded() {
    let echo = Echo::start();
    let (mesh, port) = mesh_to(
        echo.port,
        json!({
            "audit": { "events": ["connection"] },
            "policy": { "rules": [
                { "name": "users", "from": ["user-service"], "to": { "service": "order-service" }, "action": "allow" },
            ] },
        }),
    );
    assert_eq!(exchange(port, b""), LAST_WORD);
    let record = &connections(&mesh.order)[0];
    assert_eq!(record["verdict"], "allow");
    assert_eq!(record["peer"], "spiffe://example.org/user-service");
    assert_eq!(record["service"], "order-service");
    let carried = mesh.order.config["service"]["tcp"][0]["listen"]
        .as_str()
        .unwrap();
    assert!(carried.ends_with(&format!(":{}", record["port"].as_str().unwrap())));
}

#[test]
fn a_prober_reaches_no_application_over_tcp_whatever_the_rules_say() {
    let echo = Echo::start();
    let (mesh, port) = mesh_to(
        echo.port,
        json!({
            "security": { "probe": "user-service" },
            "policy": { "rules": [
                { "name": "all", "from": ["*"], "to": { "service": "order-service" }, "action": "allow" },
            ] },
        }),
    );
    assert_eq!(exchange(port, b"let me in"), b"");
    assert_eq!(echo.connections(), 0);
    let log = mesh.order.dir().join("logs/mesh-audit.log");
    let reason = "spiffe://example.org/user-service may probe, and reaches no application";
    wait_until("it is recorded", || {
        fs::read_to_string(&log).unwrap().contains(reason)
    });
}

#[test]
fn a_connection_that_is_cut_is_a_reset_for_the_application_and_no_end() {
    // threat 25
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let rules = json!([
        { "name": "users", "from": ["user-service"], "to": { "service": "order-service" }, "action": "allow" },
    ]);
    let app = listener.local_addr().unwrap().port();
    let (mut mesh, port) = mesh_to(app, json!({ "policy": { "rules": rules } }));
    let open = || {
        let near = connect(port);
        let mut far = None;
        wait_until("the application is called", || {
            far = listener.accept().ok();
            far.is_some()
        });
        let (far, _) = far.unwrap();
        far.set_nonblocking(false).unwrap();
        far.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        for (mut from, mut to) in [(&near, &far), (&far, &near)] {
            from.write_all(b"half").unwrap();
            to.read_exact(&mut [0; 4]).unwrap();
        }
        (near, far)
    };
    // A process that is killed closes its sockets, and says nothing over TLS any more.
    let (_near, mut far) = open();
    mesh.user.process().kill();
    let cut = far.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);

    mesh.user.start();
    let (mut near, _far) = open();
    mesh.order.process().kill();
    let cut = near.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_connection_that_is_open_ends_by_itself_while_its_node_stops() {
    let rules = json!([
        { "name": "users", "from": ["user-service"], "to": { "service": "order-service" }, "action": "allow" },
    ]);
    let (mut mesh, _echo, port) = mesh_with_tcp(&rules);
    let mut stream = connect(port);
    let mut say = |text: &[u8]| {
        stream.write_all(text).unwrap();
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, text);
    };
    say(b"before");
    mesh.order.process().terminate();
    wait_until("the node drains", || mesh.order.log().contains("draining"));
    say(b"meanwhile");
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, LAST_WORD);
    let status = mesh.order.process().wait(Duration::from_secs(20));
    assert!(status.success());
}

const LAST_WORD: &[u8] = b"goodbye";
const MEBIBYTES: u64 = 64;
