//! Checks that ask for health: those of Consul's agent, about a node that registers there, and those of a node, about the
//! applications behind others.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::path::Path;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::consul::Consul;
use support::mesh::Mesh;
use support::process::Process;
use support::process::free_port;
use support::process::is_open;
use support::process::wait_until;
use support::tools::python;
use support::tools::python_with_grpc;

mod support;

/// A gRPC server with the health service.
#[derive(Debug)]
struct Healthy {
    port: u16,
    process: Process,
}

impl Healthy {
    /// Its service `orders` has this status of the protocol: 1 is `SERVING`, 2 is `NOT_SERVING`.
    fn start(port: u16, status: u8, dir: &Path) -> Option<Self> {
        let program = "../../../mesh-discovery/tests/python/health.py";
        let args = [port.to_string(), status.to_string()];
        let mut command = python(&python_with_grpc()?, program, &[&args[0], &args[1]]);
        let process = Process::start(&mut command, dir, &format!("health-{port}"));
        wait_until("the server listens", || is_open(port));
        Some(Self { port, process })
    }
}

/// A node that calls, and one that registers in Consul with this check.
fn registered(consul: &Consul, mesh: &mut Mesh, register: &Value) {
    let source = json!({ "mode": "consul", "url": consul.url() });
    mesh.user.config["discovery"] = json!({ "sources": [source] });
    let mut register = register.clone();
    register["interval"] = json!("1s");
    mesh.order
        .configure(json!({ "discovery": { "sources": [source], "register": register } }));
    mesh.start();
}

/// The type and the status of the check of the one instance that Consul has.
fn check(consul: &Consul) -> Option<(String, String)> {
    let answer = consul.get("/v1/health/checks/order-service");
    let check = answer.json().as_array()?.first()?.clone();
    let text = |key: &str| Some(check[key].as_str()?.to_owned());
    Some((text("Type")?, text("Status")?))
}

#[track_caller]
fn wait_for(consul: &Consul, kind: &str, status: &str) {
    let expected = Some((kind.to_owned(), status.to_owned()));
    wait_until(&format!("the check is {status}"), || {
        check(consul) == expected
    });
}

/// What the caller's node shows of its endpoints.
#[track_caller]
fn states(mesh: &Mesh) -> Value {
    let page = mesh.user.admin("/services/order-service").expect(200);
    page.json()["states"].clone()
}

#[test]
fn the_agent_sees_by_tcp_and_by_http_whether_a_node_lives() {
    for kind in ["tcp", "http"] {
        let mut mesh = Mesh::new("mtls");
        let Some(consul) = Consul::start(mesh.path()) else {
            return;
        };
        let Some(app) = App::start(mesh.path()) else {
            return;
        };
        mesh.order.serve(app.port);
        // Of the last endpoint that there is no registry is believed at once that it does not work.
        let mut second = mesh.node("order-service", "second");
        second
            .serve(app.port)
            .configure(json!({ "policy": mesh.order.config["policy"] }));
        second.start();
        consul.register("order-service", second.inbound);
        registered(&consul, &mut mesh, &json!({ "check": kind }));
        wait_for(&consul, kind, "passing");
        mesh.call("/api/orders", &[]).expect(200);
        mesh.order.process().kill();
        wait_for(&consul, kind, "critical");
        wait_until("the caller knows", || {
            states(&mesh) == json!({ "healthy": 1, "unhealthy": 1 })
        });
        for _ in 0..10 {
            mesh.call("/api/orders", &[]).expect(200);
        }
        mesh.order.start();
        wait_for(&consul, kind, "passing");
        wait_until("the caller knows that as well", || {
            states(&mesh) == json!({ "healthy": 2 })
        });
        assert!(mesh.order.stop().success());
        assert_eq!(check(&consul), None);
    }
}

#[test]
fn the_agent_asks_the_application_by_grpc() {
    let mut mesh = Mesh::new("mtls");
    let Some(consul) = Consul::start(mesh.path()) else {
        return;
    };
    let Some(mut app) = Healthy::start(free_port(), 1, mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    registered(&consul, &mut mesh, &json!({ "check": "grpc" }));
    wait_for(&consul, "grpc", "passing");
    app.process.kill();
    wait_for(&consul, "grpc", "critical");
    assert!(mesh.order.stop().success());

    // One of its services that does not serve, while the application as a whole does.
    let app = Healthy::start(app.port, 2, mesh.path()).unwrap();
    let target = format!("127.0.0.1:{}/orders", app.port);
    mesh.order
        .configure(json!({ "discovery": { "register": { "check_target": target } } }));
    mesh.order.start();
    // An agent keeps to itself for minutes what a check says whose status stays.
    wait_until("the agent has asked", || {
        let checks = consul.get("/v1/agent/checks").text();
        checks.contains("gRPC application didn't report service healthy")
    });
    assert_eq!(check(&consul).unwrap().1, "critical");
}

fn a_node_asks_by_grpc_who_serves_and_calls_only_those(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let start = |port, status| Healthy::start(port, status, mesh.path());
    let (Some(serving), Some(mut other)) = (start(free_port(), 1), start(free_port(), 2)) else {
        return;
    };
    let mut second = mesh.node("order-service", "second");
    second
        .serve(other.port)
        .configure(json!({ "policy": mesh.order.config["policy"] }));
    mesh.order.serve(serving.port);
    let ports = [mesh.order.inbound, second.inbound];
    mesh.user.discover("order-service", &ports);
    mesh.user.configure(json!({ "discovery": { "health_check": {
            "protocol": "grpc", "grpc_service": "orders",
            "interval": "500ms", "timeout": "500ms", "rise": 1, "fall": 2,
        } } }));
    second.spawn();
    mesh.start();
    second.wait_ready();
    let one_serves = json!({ "healthy": 1, "unhealthy": 1 });
    let found = |port: u16| {
        let page = mesh.user.admin("/services/order-service").expect(200);
        let list = page.json()["endpointList"].as_array().unwrap().clone();
        let address = format!("127.0.0.1:{port}");
        let mut all = list.into_iter();
        all.find(|one| one["address"] == address).unwrap()
    };
    // Before, it may have been that the node was not there yet.
    wait_until("the check finds who does not serve", || {
        let reason = found(ports[1])["reason"].clone();
        reason.to_string().contains("NOT_SERVING")
    });
    wait_until("the check finds who serves", || states(&mesh) == one_serves);
    assert_eq!(found(ports[0])["state"], "healthy");

    other.process.kill();
    assert!(!is_open(other.port));
    assert_eq!(states(&mesh), one_serves, "gone is no better");
    other = Healthy::start(other.port, 1, mesh.path()).unwrap();
    wait_until("both serve", || states(&mesh) == json!({ "healthy": 2 }));
    drop(other);
    wait_until("one is gone", || states(&mesh) == one_serves);
}

with_both_encryptions!(a_node_asks_by_grpc_who_serves_and_calls_only_those);
