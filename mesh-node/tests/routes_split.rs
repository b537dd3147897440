//! The calls of a program are split between two services by a route of the node that is part of it.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use http::Request;
use http_body_util::BodyExt as _;
use mesh_auth::ca::Authority;
use mesh_auth::spiffe::TrustDomain;
use mesh_node::Body;
use mesh_node::HandlerError;
use mesh_node::SecureMesh;
use mesh_node::config::Document;
use mesh_node::config::Environment;
use mesh_node::config::NodeConfig;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// A folder with an authority that all nodes trust.
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

fn config(dir: &Path, service: &str, services: &Value, routes: &Value) -> NodeConfig {
    let rule = json!({ "name": "users", "from": ["user-service"], "to": { "service": service }, "action": "allow" });
    let config = json!({
        "service": { "id": service, "listen": "127.0.0.1:0" },
        "outbound": { "listen": "127.0.0.1:0" },
        "admin": { "listen": "127.0.0.1:0" },
        "identity": { "trust_domain": "example.org", "source": "builtin", "ca_dir": "ca" },
        "security": { "encryption": "mtls" },
        "discovery": { "sources": [ { "mode": "static", "services": services } ], "cache": { "enabled": false } },
        "policy": { "rules": [rule] },
        "audit": { "enabled": false },
        "routes": routes,
    });
    let path = dir.join("mesh.yaml");
    // Every JSON text is a YAML text.
    let document = Document::parse(&config.to_string(), &path, &Environment::new());
    document.unwrap().config().unwrap()
}

/// A program that says its name when it is asked.
async fn named(dir: &Path, service: &'static str) -> SecureMesh {
    let config = config(dir, service, &json!([]), &json!([]));
    let node = SecureMesh::builder(config).handle("name", move |(): ()| async move {
        Ok::<_, HandlerError>(service.to_owned())
    });
    node.start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_in_twenty_goes_to_the_canary_and_each_that_asks_for_it() {
    let dir = folder();
    let orders = named(dir.path(), "order-service").await;
    let canary = named(dir.path(), "order-canary").await;
    let at = |name: &str, node: &SecureMesh| {
        let address = node.addresses().inbound;
        json!({ "id": name, "host": address.ip().to_string(), "port": address.port() })
    };
    let services = json!([at("order-service", &orders), at("order-canary", &canary)]);
    let routes = json!([
        { "name": "asked", "match": { "services": ["order-service"], "headers": [ { "name": "canary", "equals": "true" } ] },
          "to": [ { "service": "order-canary" } ] },
        { "name": "split", "match": { "services": ["order-service"] },
          "to": [ { "service": "order-canary", "weight": 5 }, { "service": "order-service", "weight": 95 } ] },
    ]);
    let users = config(dir.path(), "user-service", &services, &routes);
    let users = SecureMesh::builder(users).start().await.unwrap();
    let client = users.connect("order-service").unwrap();

    let mut tasks = JoinSet::new();
    for _ in 0..CALLERS {
        let client = client.clone();
        tasks.spawn(async move {
            let mut canaries = 0_u32;
            for _ in 0..CALLS / CALLERS {
                let name: String = client.call("name", &()).await.unwrap();
                canaries += u32::from(name == "order-canary");
            }
            canaries
        });
    }
    let canaries: u32 = tasks.join_all().await.iter().sum();
    // Five standard deviations of a binomial count with n = 10,000 and p = 0.05.
    assert!(
        canaries.abs_diff(CALLS / 20) <= 108,
        "{canaries} of {CALLS}"
    );

    for _ in 0..100 {
        let request = Request::post("/name").header("canary", "true");
        let request = request.header("content-type", "application/json");
        let answer = client.request(request.body(Body::from("null")).unwrap());
        let body = answer.await.unwrap().into_body();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "\"order-canary\"");
    }
    for node in [users, orders, canary] {
        node.shutdown().await.unwrap();
    }
}

const CALLERS: u32 = 20;
const CALLS: u32 = 10_000;
