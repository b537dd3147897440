//! Two nodes embedded in one program call each other over loopback.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use http::Request;
use http_body_util::BodyExt;
use mesh_auth::ca::Authority;
use mesh_auth::spiffe::TrustDomain;
use mesh_node::Body;
use mesh_node::CallError;
use mesh_node::CircuitState;
use mesh_node::HandlerError;
use mesh_node::HealthStatus;
use mesh_node::SecureMesh;
use mesh_node::config::Document;
use mesh_node::config::Environment;
use mesh_node::config::NodeConfig;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Notify;

/// What a user bought.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Order {
    id: u64,
    item: String,
}

#[derive(Deserialize, Serialize)]
struct ByUser {
    user: String,
}

const SEALED: &str = "{ encryption: hybrid, rsa_key_size: 2048 }";
const MTLS: &str = "{ encryption: mtls }";
/// Longer than it takes to leave where nothing is under way.
const A_WHILE: Duration = Duration::from_millis(900);

/// A folder with an authority that both nodes trust.
fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    let domain = TrustDomain::parse("example.org").unwrap();
    let authority = Authority::generate(&domain, Duration::from_hours(1), now()).unwrap();
    let ca = dir.path().join("ca");
    fs::create_dir(&ca).unwrap();
    fs::write(ca.join("ca.crt"), authority.certificate_pem()).unwrap();
    fs::write(ca.join("ca.key"), &*authority.key_pem()).unwrap();
    fs::set_permissions(ca.join("ca.key"), Permissions::from_mode(0o600)).unwrap();
    dir
}

#[expect(clippy::disallowed_methods, reason = "a certificate must be valid now")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// `service` as a node of its own; it knows `peers`, and `rules` say who may call it.
fn config(
    dir: &Path,
    service: &str,
    (security, rules): (&str, &str),
    peers: &[(&str, SocketAddr)],
) -> NodeConfig {
    let known: Vec<String> = peers
        .iter()
        .map(|(id, address)| {
            format!(
                "{{ id: {id}, host: {}, port: {} }}",
                address.ip(),
                address.port()
            )
        })
        .collect();
    let source = format!("{{ mode: static, services: [{}] }}", known.join(", "));
    with_source(dir, service, (security, rules), &source)
}

/// Likewise, with any source of endpoints.
fn with_source(
    dir: &Path,
    service: &str,
    (security, rules): (&str, &str),
    source: &str,
) -> NodeConfig {
    let text = format!(
        "service: {{ id: {service}, listen: '127.0.0.1:0' }}\n\
         outbound: {{ listen: '127.0.0.1:0' }}\n\
         admin: {{ listen: '127.0.0.1:0' }}\n\
         identity: {{ trust_domain: example.org, source: builtin, ca_dir: ca }}\n\
         security: {security}\n\
         discovery: {{ sources: [ {source} ], cache: {{ enabled: false }} }}\n\
         policy: {{ default: deny, rules: [{rules}] }}\n\
         audit: {{ path: {service}.log }}\n\
         drain: {{ timeout: 10s }}\n",
    );
    // Each node has a key folder of its own, as two programs on two machines have.
    let text = text.replace(
        "encryption:",
        &format!("keys_dir: keys-{service}, encryption:"),
    );
    let path = dir.join("mesh.yaml");
    Document::parse(&text, &path, &Environment::new())
        .unwrap()
        .config()
        .unwrap()
}

const USERS_MAY_LIST: &str = "{ name: users-list, from: [user-service], to: { service: order-service, methods: [POST], \
                              paths: [/getOrdersByUser, /fail, /wait, /echo, /unknown, /nothing] }, action: allow }";

/// The called program.
async fn orders(dir: &Path, security: &str) -> SecureMesh {
    SecureMesh::builder(config(
        dir,
        "order-service",
        (security, USERS_MAY_LIST),
        &[],
    ))
    .handle("getOrdersByUser", |input: ByUser| async move {
        Ok::<_, HandlerError>(vec![Order {
            id: 7,
            item: format!("a book for {}", input.user),
        }])
    })
    .handle("fail", |(): ()| async move {
        Err::<(), _>(HandlerError::new("the shelf is empty"))
    })
    .handle(
        "echo",
        |text: String| async move { Ok::<_, HandlerError>(text) },
    )
    .handle("secret", |(): ()| async move {
        Ok::<_, HandlerError>("not for users")
    })
    .start()
    .await
    .unwrap()
}

/// The calling program.
async fn users(dir: &Path, security: &str, orders: &SecureMesh) -> SecureMesh {
    let peers = [("order-service", orders.addresses().inbound)];
    SecureMesh::builder(config(dir, "user-service", (security, ""), &peers))
        .start()
        .await
        .unwrap()
}

async fn both(security: &str) -> (TempDir, SecureMesh, SecureMesh) {
    let dir = folder();
    let orders = orders(dir.path(), security).await;
    let users = users(dir.path(), security, &orders).await;
    (dir, orders, users)
}

async fn check_calls(security: &str) {
    let (_dir, orders, users) = both(security).await;
    let client = users.connect("order-service").unwrap();
    let input = ByUser {
        user: "ada".to_owned(),
    };
    for _ in 0..3 {
        let found: Vec<Order> = client.call("getOrdersByUser", &input).await.unwrap();
        assert_eq!(
            found,
            [Order {
                id: 7,
                item: "a book for ada".to_owned()
            }]
        );
    }

    let failed = client.call::<_, ()>("fail", &()).await.unwrap_err();
    assert_eq!(
        (failed.code(), failed.message()),
        ("handler_failed", "the shelf is empty")
    );
    assert_eq!(failed.status().unwrap().as_u16(), 500);
    assert!(
        failed.request_id().is_some() && !failed.is_retryable(),
        "{failed}"
    );

    // What no rule allows is refused, and the handler is not asked.
    let denied = client.call::<_, String>("secret", &()).await.unwrap_err();
    assert_eq!(
        (denied.code(), denied.status().unwrap().as_u16()),
        ("denied", 403)
    );
    let message = denied.message();
    assert!(message.starts_with("not allowed; decision "), "{denied}");
    assert!(!denied.is_retryable());

    let unknown = client.call::<_, ()>("unknown", &()).await.unwrap_err();
    assert_eq!(
        (unknown.code(), unknown.status().unwrap().as_u16()),
        ("no_route", 404)
    );
    assert!(unknown.message().contains("unknown"), "{unknown}");

    let unreadable = client
        .call::<_, Vec<Order>>("getOrdersByUser", &17)
        .await
        .unwrap_err();
    assert_eq!(unreadable.code(), "bad_request");
    assert!(
        unreadable
            .message()
            .contains("getOrdersByUser does not take this input"),
        "{unreadable}"
    );

    let sealed = usize::from(security == SEALED);
    assert!(orders.stats().active_sessions >= sealed);
    users.shutdown().await.unwrap();
    orders.shutdown().await.unwrap();
}

#[tokio::test]
async fn calls_pass_sealed() {
    check_calls(SEALED).await;
}

#[tokio::test]
async fn calls_pass_over_mtls_alone() {
    check_calls(MTLS).await;
}

// A client once held the service that it had found, which stayed as it was when the node forgot it; and a client that had
// found none yet went by the host of its requests.
#[tokio::test]
async fn a_client_calls_its_service_by_name_whatever_host_a_request_names() {
    let dir = folder();
    let orders = orders(dir.path(), MTLS).await;
    let address = orders.addresses().inbound;
    let (host, port) = (address.ip().to_string(), address.port());
    let list = json!([{ "id": "order-service", "host": host, "port": port }]);
    let path = dir.path().join("services.json");
    fs::write(&path, list.to_string()).unwrap();
    let source = format!("{{ mode: file, path: '{}' }}", path.display());
    let config = with_source(dir.path(), "user-service", (MTLS, ""), &source);
    let users = SecureMesh::builder(config).start().await.unwrap();
    let client = users.connect("order-service").unwrap();
    for _ in 0..2 {
        let request = Request::post("/echo")
            .header("host", "another-service")
            .header("content-type", "application/json")
            .body(Body::from("\"hello\""))
            .unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!(response.status(), 200, "{:?}", response.headers());
    }
}

#[tokio::test]
async fn an_unknown_service_is_answered_with_those_that_are_known() {
    let (_dir, _orders, users) = both(MTLS).await;
    let error = users.connect("oder-service").unwrap_err();
    assert_eq!((error.code(), error.status()), ("no_route", None));
    assert_eq!(
        error.to_string(),
        "oder-service failed with no_route: no discovery source knows this service (known: order-service); \
         add it under discovery.sources",
    );
}

#[tokio::test]
async fn a_name_that_is_no_method_is_refused_before_anything_is_sent() {
    let (_dir, orders, users) = both(MTLS).await;
    let client = users.connect("order-service").unwrap();
    for name in ["", "a?b=c", "a b", "a#b"] {
        let error = client.call::<_, ()>(name, &()).await.unwrap_err();
        assert_eq!(error.code(), "invalid_input", "{name:?}");
    }
    assert_eq!(orders.stats().total_requests, 0);
}

#[tokio::test]
async fn an_answer_that_is_too_large_or_of_another_type_is_an_error() {
    let (_dir, _orders, users) = both(SEALED).await;
    let client = users.connect("order-service").unwrap();
    let text = "x".repeat(300_000);
    let back: String = client.call("echo", &text).await.unwrap();
    assert_eq!(back.len(), text.len());

    let small = client.clone().with_max_answer_bytes(1000);
    let error = small.call::<_, String>("echo", &text).await.unwrap_err();
    assert_eq!(
        (error.code(), error.is_retryable()),
        ("answer_too_large", false)
    );
    let error = client.call::<_, u64>("echo", "seven").await.unwrap_err();
    assert_eq!(error.code(), "invalid_answer");
}

#[tokio::test]
async fn a_handler_added_later_answers_and_one_set_again_is_replaced() {
    let (_dir, orders, users) = both(MTLS).await;
    let client = users.connect("order-service").unwrap();
    orders.handle("unknown", |(): ()| async move { Ok::<_, HandlerError>(1) });
    assert_eq!(client.call::<_, u8>("unknown", &()).await.unwrap(), 1);
    orders.handle("unknown", |(): ()| async move { Ok::<_, HandlerError>(2) });
    assert_eq!(client.call::<_, u8>("unknown", &()).await.unwrap(), 2);
}

#[tokio::test]
async fn a_raw_request_passes_as_it_is() {
    let (_dir, _orders, users) = both(SEALED).await;
    let client = users.connect("order-service").unwrap();
    let request = Request::post("/echo")
        .body(Body::from("\"hello\""))
        .unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-circuit-breaker-state"], "CLOSED");
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "\"hello\""
    );

    let request = Request::get("/echo").body(Body::empty()).unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["x-mesh-error"]
        ),
        (403, &"denied".parse().unwrap())
    );
}

#[tokio::test]
async fn shutting_down_lets_a_call_in_flight_finish() {
    let (_dir, orders, users) = both(SEALED).await;
    let (begun, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (seen, wait) = (Arc::clone(&begun), Arc::clone(&finish));
    orders.handle("wait", move |(): ()| {
        let (seen, wait) = (Arc::clone(&seen), Arc::clone(&wait));
        async move {
            seen.notify_one();
            wait.notified().await;
            Ok::<_, HandlerError>("finished")
        }
    });
    let client = users.connect("order-service").unwrap();
    let call = client.call::<_, String>("wait", &());
    let leave = async {
        begun.notified().await;
        let mut leaving = pin!(orders.shutdown());
        let left = tokio::time::timeout(A_WHILE, &mut leaving).await;
        left.expect_err("it left a call behind");
        finish.notify_one();
        leaving.await
    };
    let (answer, left) = tokio::join!(call, leave);
    assert_eq!(answer.unwrap(), "finished");
    left.unwrap();

    let gone = client.call::<_, String>("echo", "x").await.unwrap_err();
    assert_eq!(gone.code(), "upstream_failed");
    assert!(
        gone.is_retryable(),
        "nobody listens there any more, so nothing was sent: {gone}"
    );
}

#[tokio::test]
async fn shutting_down_waits_for_calls_of_this_program_and_ends_its_clients() {
    let (_dir, orders, users) = both(MTLS).await;
    let (begun, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (seen, wait) = (Arc::clone(&begun), Arc::clone(&finish));
    orders.handle("wait", move |(): ()| {
        let (seen, wait) = (Arc::clone(&seen), Arc::clone(&wait));
        async move {
            seen.notify_one();
            wait.notified().await;
            Ok::<_, HandlerError>(())
        }
    });
    let client = users.connect("order-service").unwrap();
    let call = client.call::<_, ()>("wait", &());
    let leave = async {
        begun.notified().await;
        let mut leaving = pin!(users.shutdown());
        let left = tokio::time::timeout(A_WHILE, &mut leaving).await;
        left.expect_err("it left a call behind");
        finish.notify_one();
        leaving.await
    };
    let (answer, left) = tokio::join!(call, leave);
    answer.unwrap();
    left.unwrap();
    let stopped: CallError = client.call::<_, ()>("wait", &()).await.unwrap_err();
    assert_eq!(stopped.code(), "stopped");
}

#[tokio::test]
async fn dropping_the_node_stops_it() {
    let (dir, orders, users) = both(MTLS).await;
    let address = orders.addresses().inbound;
    drop((orders, users));
    let mut tries = 0;
    // The port is free again once the listener is gone.
    while let Err(error) = tokio::net::TcpListener::bind(address).await {
        tries += 1;
        assert!(tries < 100, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(dir);
}

#[tokio::test]
async fn figures_and_health_are_those_of_the_admin_pages() {
    let dir = folder();
    let orders = orders(dir.path(), SEALED).await;
    let peers = [
        ("order-service", orders.addresses().inbound),
        ("stock-service", ([127, 0, 0, 1], 9).into()),
    ];
    let users = SecureMesh::builder(config(dir.path(), "user-service", (SEALED, ""), &peers));
    let users = users.with_local_listeners().start().await.unwrap();
    let client = users.connect("order-service").unwrap();
    client.call::<_, String>("echo", "x").await.unwrap();
    client.call::<_, ()>("fail", &()).await.unwrap_err();

    let stats = users.stats();
    assert_eq!(
        (
            stats.total_requests,
            stats.successful_requests,
            stats.failed_requests
        ),
        (2, 1, 1)
    );
    assert!(stats.average_latency > Duration::ZERO);
    assert_eq!(
        (stats.service.as_str(), orders.stats().active_sessions),
        ("user-service", 1)
    );
    assert!(orders.stats().audit.unwrap().appended >= 2);

    let admin = users.addresses().admin.unwrap();
    let shown = page(admin, "/stats").await;
    assert_eq!(shown["totalRequests"], stats.total_requests);
    assert_eq!(shown["failedRequests"], stats.failed_requests);
    assert_eq!(shown["successfulRequests"], stats.successful_requests);
    let shown_average = shown["averageLatency"].as_f64().unwrap();
    assert!(
        (shown_average - stats.average_latency.as_secs_f64() * 1e3).abs() < 1e-9,
        "{shown}"
    );

    let health = users.health_check();
    assert_eq!((health.status, health.is_ok()), (HealthStatus::Ok, true));
    let names: Vec<_> = health
        .services
        .iter()
        .map(|one| one.service.as_str())
        .collect();
    assert_eq!(names, ["order-service", "stock-service"]);
    let seen = health.of("order-service").unwrap();
    assert_eq!(
        (seen.endpoints, seen.healthy_endpoints, seen.circuit_breaker),
        (1, 1, CircuitState::Closed)
    );
    assert_eq!(page(admin, "/health").await["status"], "ok");
    assert_eq!(orders.addresses().admin, None);
}

/// A page of the admin listener, as JSON.
async fn page(address: SocketAddr, path: &str) -> serde_json::Value {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let ask = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// The examples as programs. Cargo builds them next to the tests, but not where a single test file is asked for.
fn example(name: &str) -> std::path::PathBuf {
    let own = std::env::current_exe().unwrap();
    let profile = own.parent().unwrap().parent().unwrap();
    let program = profile.join("examples").join(name);
    if !program.exists() {
        let mut build = std::process::Command::new(std::env::var_os("CARGO").unwrap());
        build.args(["build", "--quiet", "-p", "mesh-node", "--example", name]);
        if profile.file_name().is_some_and(|name| name == "release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
    }
    program
}

#[tokio::test]
async fn the_two_example_programs_call_each_other() {
    use tokio::io::AsyncBufReadExt;
    let dir = TempDir::new().unwrap();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [free(), free()].map(|socket| socket.local_addr().unwrap().port().to_string());
    let program = |name| {
        let mut program = tokio::process::Command::new(example(name));
        program
            .arg(dir.path())
            .args(&ports)
            .kill_on_drop(true)
            .stdout(std::process::Stdio::piped());
        program
    };
    let mut orders = program("orders").spawn().unwrap();
    let mut said = tokio::io::BufReader::new(orders.stdout.take().unwrap()).lines();
    let first = said.next_line().await.unwrap().unwrap();
    assert!(
        first.starts_with("orders: answers on 127.0.0.1:"),
        "{first}"
    );

    let users = program("users").output().await.unwrap();
    let shown = String::from_utf8(users.stdout).unwrap();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 3, "{shown}");
    assert_eq!(lines[0], "users: order 7 is a book for Ada Lovelace");
    assert!(
        lines[1].contains("500 handler_failed") && lines[1].contains("nobody is called \"bob\""),
        "{shown}"
    );
    assert!(
        lines[2].contains("order-service/removeOrder failed with 403 denied"),
        "{shown}"
    );
    assert!(users.status.success());

    let stop = std::process::Command::new("kill")
        .args(["-INT", &orders.id().unwrap().to_string()])
        .status();
    assert!(stop.unwrap().success());
    assert!(orders.wait().await.unwrap().success());
    let last = said.next_line().await.unwrap().unwrap();
    assert!(last.starts_with("orders: "), "{last}");
}
