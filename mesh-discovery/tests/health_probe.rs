//! The gRPC probe against gRPC's own server.

#![cfg(feature = "probe-grpc")]

use std::time::Duration;

use mesh_discovery::Endpoint;
use mesh_discovery::GrpcProbe;
use mesh_discovery::connect;
use support::process::Process;
use support::process::wait_until;
use support::tools::python;
use support::tools::python_with_grpc;

mod support;

#[tokio::test(flavor = "multi_thread")]
async fn asks_a_server_of_grpc_and_understands_what_it_says() {
    let Some(interpreter) = python_with_grpc() else {
        return;
    };
    let place = tempfile::TempDir::new().unwrap();
    let mut command = python(&interpreter, "health.py", &[]);
    let server = Process::start(&mut command, place.path(), "health");
    wait_until("the server listens", || server.out().contains('\n'));
    let port = server.out().trim().parse().unwrap();
    let endpoint = Endpoint::new("127.0.0.1".parse().unwrap(), port);
    for (service, expected) in [
        ("", None),
        ("orders", None),
        ("broken", Some("it says NOT_SERVING")),
        ("nobody", Some("it knows no such service")),
    ] {
        let probe = GrpcProbe::new(&endpoint.to_string(), service).unwrap();
        let stream = connect(&endpoint).await.unwrap();
        let asked = tokio::time::timeout(Duration::from_secs(10), probe.ask(stream)).await;
        let failure = asked.unwrap().err().map(|error| error.to_string());
        assert_eq!(failure.as_deref(), expected, "{service:?}");
    }
}
