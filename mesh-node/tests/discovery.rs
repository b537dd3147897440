//! Nodes that find each other in real registries.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::consul::Consul;
use support::etcd::Etcd;
use support::knot::Knot;
use support::load::Load;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::holds_within;
use support::process::wait_until;

mod support;

/// A Consul, a node that calls, and one that registers, with an application behind it. Nothing but Consul runs.
fn prepared() -> Option<(Consul, Mesh, App)> {
    let mut mesh = Mesh::new("mtls");
    let consul = Consul::start(mesh.path())?;
    let app = App::start(mesh.path())?;
    let source = json!({ "mode": "consul", "url": consul.url() });
    mesh.user.config["discovery"] = json!({ "sources": [source] });
    mesh.order.serve(app.port).configure(json!({
        "discovery": { "sources": [source], "register": { "zone": "a", "meta": { "team": "shop" } } },
    }));
    Some((consul, mesh, app))
}

/// What Consul has of a service: one row for each passing instance.
fn passing(consul: &Consul, service: &str) -> Vec<Value> {
    let answer = consul.get(&format!("/v1/health/service/{service}?passing"));
    answer.json().as_array().unwrap().clone()
}

/// An endpoint of `service` that somebody wrote into Consul.
fn write(consul: &Consul, service: &str, id: &str, port: u16, meta: &Value) {
    let body =
        json!({ "Name": service, "ID": id, "Address": "127.0.0.1", "Port": port, "Meta": meta });
    let written = consul.send("PUT", "/v1/agent/service/register", &body);
    written.expect(200);
}

#[test]
fn nodes_find_each_other_in_consul_and_leave_it_when_they_stop() {
    let Some((consul, mut mesh, _app)) = prepared() else {
        return;
    };
    mesh.start();
    wait_until("the instance is registered", || {
        !passing(&consul, "order-service").is_empty()
    });
    let row = passing(&consul, "order-service").remove(0);
    assert_eq!(row["Service"]["Port"], mesh.order.inbound);
    assert_eq!(row["Service"]["Meta"]["zone"], "a");
    assert_eq!(row["Service"]["Meta"]["team"], "shop");
    assert_eq!(
        row["Service"]["Meta"]["spiffe_id"],
        "spiffe://example.org/order-service"
    );
    mesh.call("/api/orders", &[]).expect(200);

    let unknown = mesh.user.call("unheard-of", "/", &[]).expect(404);
    assert_eq!(unknown.error(), Some("no_route"));
    let page = mesh.user.admin("/health/services").expect(200).json();
    let names: Vec<_> = page
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["service"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["order-service"], "only what is called is followed");

    assert!(mesh.order.stop().success());
    assert_eq!(passing(&consul, "order-service"), Vec::<Value>::new());
}

// threat 48, threat 49
#[test]
fn a_registry_can_lead_calls_neither_to_another_service_nor_back_to_us() {
    let Some((consul, mut mesh, app)) = prepared() else {
        return;
    };
    let mut payment = mesh.node("payment-service", "payment");
    payment
        .serve(app.port)
        .configure(json!({ "policy": { "default": "audit" } }));
    payment.start();
    mesh.user.start();
    let calls = |mesh: &Mesh| mesh.user.call("order-service", "/stolen", &[]);
    // With the truth about who is there, with a lie, and without a word of it.
    let other = json!({ "spiffe_id": "spiffe://example.org/payment-service" });
    let claimed = json!({ "spiffe_id": "spiffe://example.org/order-service" });
    for (id, meta) in [("a", &other), ("b", &claimed), ("c", &json!({}))] {
        write(&consul, "order-service", id, payment.inbound, meta);
        let answer = calls(&mesh);
        assert!(
            matches!(answer.status, 404 | 502 | 503),
            "{}",
            answer.text()
        );
        let gone = consul.send(
            "PUT",
            &format!("/v1/agent/service/deregister/{id}"),
            &json!({}),
        );
        gone.expect(200);
    }
    for port in [mesh.user.admin, mesh.user.outbound, mesh.user.inbound] {
        write(
            &consul,
            "order-service",
            &format!("own-{port}"),
            port,
            &json!({}),
        );
    }
    wait_until("our own listeners are refused by name", || {
        calls(&mesh);
        mesh.user.log().contains("it is our own listener")
    });
    assert_eq!(app.count("stolen"), 0);
}

#[test]
fn a_rolling_restart_loses_no_call() {
    let Some((consul, mut mesh, app)) = prepared() else {
        return;
    };
    let mut second = mesh.node("order-service", "order2");
    let first = mesh.order.config.clone();
    for section in ["discovery", "policy"] {
        second.config[section] = first[section].clone();
    }
    second.serve(app.port);
    second.start();
    mesh.start();
    wait_until("both instances are registered", || {
        passing(&consul, "order-service").len() == 2
    });
    let Some(load) = Load::start(&mesh, "GET,POST") else {
        return;
    };
    for _ in 0..2 {
        restart(&mut second, &consul);
        load.go_on();
        restart(&mut mesh.order, &consul);
        load.go_on();
    }
    let answered = load.answered();
    assert_eq!(load.end(), Vec::<String>::new(), "of {answered}");
}

fn restart(node: &mut Node, consul: &Consul) {
    assert!(node.stop().success());
    node.start();
    let is_back = || passing(consul, "order-service").len() == 2;
    assert!(
        holds_within(Duration::from_secs(20), is_back),
        "it registers again"
    );
}

// D-6 of the reliability goals: the registry is away when the node starts.
#[test]
fn a_node_that_starts_without_its_registry_serves_from_disk_or_waits_as_it_is_told() {
    let Some((mut consul, mut mesh, _app)) = prepared() else {
        return;
    };
    mesh.start();
    wait_until("the instance is registered", || {
        !passing(&consul, "order-service").is_empty()
    });
    mesh.call("/api/orders", &[]).expect(200);
    assert!(mesh.user.stop().success());
    consul.kill();

    mesh.user.start();
    mesh.call("/api/orders", &[]).expect(200);
    let page = mesh.user.admin("/health/services").expect(200).text();
    assert!(page.contains("stale: restored from disk"), "{page}");
    assert!(mesh.user.stop().success());

    mesh.user.configure(json!({
        "discovery": { "cache": { "on_start": "wait" } },
        "outbound": { "upstreams": [ { "service": "order-service", "bind": "127.0.0.1:0" } ] },
    }));
    mesh.user.spawn();
    let says_why = || {
        let ready = mesh.user.admin("/health/ready");
        ready.status == 503 && ready.text().contains("answered yet about order-service")
    };
    wait_until("the node says whom it waits for", || {
        support::process::is_open(mesh.user.admin) && says_why()
    });
    consul.start_again();
    mesh.user.wait_ready();
}

#[test]
fn memory_does_not_grow_with_what_the_registry_knows() {
    let Some((consul, mut mesh, _app)) = prepared() else {
        return;
    };
    mesh.order.start();
    let memory = |mesh: &mut Mesh| {
        mesh.user.start();
        mesh.call("/api/orders", &[]).expect(200);
        for name in ["bulk-1", "bulk-2"] {
            mesh.user.call(name, "/", &["--max-time", "2"]);
        }
        let most = mesh.user.process().most_memory();
        assert!(mesh.user.stop().success());
        most
    };
    wait_until("the instance is registered", || {
        !passing(&consul, "order-service").is_empty()
    });
    fill(&consul, 0..10);
    let few = memory(&mut mesh);
    fill(&consul, 10..10_000);
    let many = memory(&mut mesh);
    assert!(
        many < few + (2 << 20),
        "{few} bytes with 10 services, {many} with 10,000"
    );
}

/// Writes services into the catalog, on a machine of which no agent knows.
fn fill(consul: &Consul, numbers: std::ops::Range<u32>) {
    let machine = json!({ "Node": "bulk", "Address": "127.0.0.2" });
    let written = consul.send("PUT", "/v1/catalog/register", &machine);
    written.expect(200);
    let numbers: Vec<u32> = numbers.collect();
    // As many as a transaction takes.
    for some in numbers.chunks(64) {
        let operations: Vec<_> = some
            .iter()
            .map(|number| {
                let name = format!("bulk-{number}");
                let service =
                    json!({ "ID": name, "Service": name, "Address": "127.0.0.2", "Port": 1 });
                json!({ "Service": { "Verb": "set", "Node": "bulk", "Service": service } })
            })
            .collect();
        let written = consul.send("PUT", "/v1/txn", &Value::from(operations));
        written.expect(200);
    }
}

#[test]
fn nodes_find_each_other_in_etcd() {
    let mut mesh = Mesh::new("mtls");
    let Some(etcd) = Etcd::start(mesh.path()) else {
        return;
    };
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    let source = json!({ "mode": "etcd", "endpoints": etcd.urls() });
    mesh.user.config["discovery"] = json!({ "sources": [source] });
    mesh.order.serve(app.port).configure(json!({
        "discovery": { "sources": [source], "register": { "ttl": "5s" } },
    }));
    mesh.start();
    wait_until("a call arrives", || {
        mesh.call("/api/orders", &[]).status == 200
    });
    assert!(mesh.order.stop().success());
    let answer = mesh.call("/api/orders", &[]);
    assert_ne!(answer.status, 200);
}

#[test]
fn a_node_finds_services_by_dns_and_in_a_file() {
    let mut mesh = Mesh::new("mtls");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    let records = format!(
        "_mesh._tcp.order-service 1 SRV 0 1 {} here\nhere 1 A 127.0.0.1",
        mesh.order.inbound
    );
    let Some(knot) = Knot::start(&records, mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    let listed = format!(
        "- {{ id: order-service, host: 127.0.0.1, port: {} }}\n",
        mesh.order.inbound
    );
    std::fs::write(mesh.user.dir().join("services.yaml"), listed).unwrap();
    let by_file = json!({ "mode": "file", "path": "services.yaml" });
    let by_dns = json!({
        "mode": "dns", "template": "_mesh._tcp.{service}.mesh.test", "servers": [knot.address()],
        "min_ttl": "1s", "allow": ["127.0.0.0/8"],
    });
    mesh.order.start();
    for (source, name) in [(by_file, "file"), (by_dns, "dns")] {
        mesh.user.config["discovery"] = json!({ "sources": [source] });
        mesh.user.start();
        mesh.call("/api/orders", &[]).expect(200);
        let page = mesh.user.admin("/health/services").expect(200).text();
        assert!(page.contains(&format!("\"{name}\"")), "{page}");
        assert!(mesh.user.stop().success());
    }
}
