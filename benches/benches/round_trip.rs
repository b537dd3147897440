//! A call through two nodes to an application and back, over loopback, everything in one process on one thread.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::convert::Infallible;
use std::future::pending;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use criterion::BenchmarkId;
use criterion::Criterion;
use criterion::SamplingMode;
use criterion::Throughput;
use http::Request;
use http::Response;
use http_body_util::BodyExt;
use hyper::service::service_fn;
use mesh_auth::ca::Authority;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_node::Local;
use mesh_node::Node;
use mesh_node::config::Document;
use mesh_node::config::Environment;
use mesh_transport::Body;
use mesh_transport::app::AppClient;
use mesh_transport::app::AppConfig;
use mesh_transport::drain;
use mesh_transport::listen::Listener;
use mesh_transport::server::Protocol;
use mesh_transport::server::Server;
use mesh_transport::server::ServerConfig;
use mesh_transport::tasks::Tasks;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

fn main() {
    let mut criterion = benches::criterion();
    round_trip(&mut criterion);
    criterion.final_summary();
}

/// `direct` is the client and the application without nodes between: the difference to it is what the mesh adds, both
/// nodes together. With 64 in flight the time is that of 64 calls divided by 64, which is CPU time: the thread is never
/// idle.
fn round_trip(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let application = runtime.block_on(async { serve_application() });
    let through =
        |encryption| runtime.block_on(start_nodes(folder.path(), encryption, application));
    let targets = [
        ("direct", application),
        ("mtls", through("mtls")),
        ("hybrid", through("hybrid")),
    ];

    let mut group = criterion.benchmark_group("round_trip");
    group
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Elements(1));
    for (name, address) in targets {
        let client = AppClient::new(
            AppConfig::new(address.to_string()),
            Tasks::new(runtime.handle().clone()),
        );
        // Connections and sessions are made before anything is measured.
        runtime.block_on(call(&client));
        for in_flight in [1, 64] {
            measure(
                &mut group,
                BenchmarkId::new(name, in_flight),
                (&runtime, &client, in_flight),
            );
        }
    }
    group.finish();
}

fn measure(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    id: BenchmarkId,
    (runtime, client, in_flight): (&Runtime, &AppClient, usize),
) {
    group.bench_function(id, |b| {
        b.to_async(runtime)
            .iter_custom(|count| load(client.clone(), count, in_flight));
    });
}

/// Makes `count` calls, `in_flight` at a time without a pause.
async fn load(client: AppClient, count: u64, in_flight: usize) -> Duration {
    let left = Arc::new(AtomicU64::new(count));
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for _caller in 0..in_flight {
        let (client, left) = (client.clone(), Arc::clone(&left));
        callers.spawn(async move {
            let take = |left: u64| left.checked_sub(1);
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
            {
                call(&client).await;
            }
        });
    }
    callers.join_all().await;
    start.elapsed()
}

async fn call(client: &AppClient) {
    let request = Request::get("/api/orders/42")
        .header("host", "order-service")
        .header("accept", "application/json")
        .header("user-agent", "shop-frontend/2.31.0");
    let response = client
        .send(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert!(response.status().is_success(), "{response:?}");
    let answer = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(answer.len(), ANSWER.len(), "the whole answer arrives");
}

/// The application behind the called node.
fn serve_application() -> SocketAddr {
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let listener = Listener::bind(ANY_PORT, 1024).unwrap();
    let address = listener.address().unwrap();
    let server = Server::new(&ServerConfig::default(), tasks.clone());
    let (signal, drain) = drain::channel();
    let for_connections = drain.clone();
    tasks.clone().start(async move {
        let accept = |accepted: mesh_transport::listen::Accepted| {
            let (server, drain) = (server.clone(), for_connections.clone());
            tasks.start(async move {
                let service = service_fn(async |_| {
                    let answer = Response::builder().header("content-type", "application/json");
                    Ok::<_, Infallible>(
                        answer
                            .body(Body::from(Bytes::from_static(&ANSWER)))
                            .unwrap(),
                    )
                });
                server
                    .serve(accepted.stream, Protocol::Http1, service, drain)
                    .await;
            });
        };
        listener.run(drain, accept).await;
        drop(signal);
    });
    address
}

/// Starts the node of `order-service` in front of `application`, and the node of `user-service`, whose port for
/// `order-service` is given back.
async fn start_nodes(folder: &Path, encryption: &str, application: SocketAddr) -> SocketAddr {
    let node = async |name: &str, rest: &str| {
        let text = format!(
            "identity: {{ trust_domain: example.org, cert_file: {name}.crt, key_file: {name}.key, ca_file: ca.crt }}\n\
             security: {{ encryption: {encryption}, rsa_key_size: 2048, keys_dir: keys-{name} }}\n\
             resilience: {{ bulkhead: {{ max_concurrent: 256, max_waiting: 256 }} }}\n\
             audit: {{ enabled: false }}\n\
             admin: {{ listen: 127.0.0.1:0 }}\n\
             {rest}"
        );
        let document =
            Document::parse(&text, &folder.join("mesh.yaml"), &Environment::new()).unwrap();
        let config = document.config().unwrap();
        let node = Node::build(&config, Local::Listeners).await.unwrap();
        let addresses = node.addresses().clone();
        // Until the program ends.
        Tasks::new(tokio::runtime::Handle::current())
            .start(async move { node.run(pending()).await.unwrap() });
        addresses
    };
    let orders = node(
        "order-service",
        &format!(
            "service: {{ id: order-service, listen: 127.0.0.1:0, app: {application} }}\n\
             outbound: {{ listen: 127.0.0.1:0 }}\n\
             policy: {{ rules: [ {{ name: users-read-orders, from: [user-service], \
             to: {{ service: order-service, methods: [GET], paths: [\"/api/*\"] }}, action: allow }} ] }}\n"
        ),
    )
    .await;
    let users = node(
        "user-service",
        &format!(
            "service: {{ id: user-service, listen: 127.0.0.1:0 }}\n\
             outbound: {{ listen: 127.0.0.1:0, upstreams: [ {{ service: order-service, bind: 127.0.0.1:0 }} ] }}\n\
             discovery: {{ sources: [ {{ mode: static, services: \
             [ {{ id: order-service, host: 127.0.0.1, port: {} }} ] }} ] }}\n",
            orders.inbound.port()
        ),
    )
    .await;
    users.upstreams.first().unwrap().1
}

fn write_certificates(folder: &Path) {
    let domain = TrustDomain::parse("example.org").unwrap();
    let day = Duration::from_hours(24);
    let authority = Authority::generate(&domain, day, wall_clock()).unwrap();
    std::fs::write(folder.join("ca.crt"), authority.certificate_pem()).unwrap();
    for name in ["user-service", "order-service"] {
        let id = SpiffeId::for_service(&domain, name).unwrap();
        let issued = authority.issue(&id, day, wall_clock(), &[]).unwrap();
        std::fs::write(folder.join(format!("{name}.crt")), &issued.certificate_pem).unwrap();
        let mut key = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(folder.join(format!("{name}.key")))
            .unwrap();
        key.write_all(issued.key_pem.as_bytes()).unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "a program may read the clock")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const ANSWER: [u8; 1024] = [b'x'; 1024];
