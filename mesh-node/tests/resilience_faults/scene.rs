//! A caller and what it calls: services one behind the other, or one service with several instances.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use crate::support::mesh::Mesh;
use crate::support::mesh::Node;
use crate::support::open_load::App;
use crate::support::open_load::Ask;
use crate::support::open_load::Calls;
use crate::support::open_load::Load;
use crate::support::open_load::Told;
use crate::support::open_load::Work;
use crate::support::process::holds_within;

/// The nodes, the applications, and the runtime of the applications and of the load.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) mesh: Mesh,
    /// Beside the caller's and the first one.
    pub(crate) others: Vec<Node>,
    /// Each behind its node, in the order of these.
    pub(crate) apps: Vec<App>,
    pub(crate) runtime: Runtime,
}

impl Scene {
    /// So many services, of which each calls the next; `work` is the last one's. All nodes have this `resilience`.
    pub(crate) fn chain(hops: usize, work: &Work, resilience: &Value) -> Self {
        let runtime = runtime();
        let mut mesh = mesh("mtls");
        let mut others: Vec<_> = NAMES[..hops - 1]
            .iter()
            .map(|name| mesh.node(name, name))
            .collect();
        let mut next: Option<(u16, &'static str)> = None;
        let mut apps = Vec::new();
        let names = ["order-service"].into_iter().chain(NAMES);
        let nodes = std::iter::once(&mut mesh.order).chain(&mut others);
        let nodes: Vec<_> = nodes.zip(names).collect();
        for (node, name) in nodes.into_iter().rev() {
            let does = match next {
                None => work.clone(),
                Some((inbound, service)) => {
                    node.discover(service, &[inbound]);
                    Work::Asks(node.outbound, service)
                }
            };
            let app = App::working(&runtime, does);
            node.serve(app.port).configure(allow_all());
            node.configure(unchecked(resilience));
            next = Some((node.inbound, name));
            apps.insert(0, app);
        }
        mesh.user.configure(unchecked(resilience));
        Self {
            mesh,
            others,
            apps,
            runtime,
        }
    }

    /// One service with so many instances; the caller has this `resilience`.
    pub(crate) fn instances(count: usize, resilience: &Value) -> Self {
        Self::of_instances("mtls", count, resilience)
    }

    /// One service with one instance, calls to which are sealed.
    pub(crate) fn sealed(resilience: &Value) -> Self {
        Self::of_instances("hybrid", 1, resilience)
    }

    fn of_instances(encryption: &str, count: usize, resilience: &Value) -> Self {
        let runtime = runtime();
        let mut mesh = mesh(encryption);
        let mut others: Vec<_> = NAMES[..count - 1]
            .iter()
            .map(|name| mesh.node("order-service", name))
            .collect();
        let nodes = std::iter::once(&mut mesh.order).chain(&mut others);
        let mut apps = Vec::new();
        let mut ports = Vec::new();
        for node in nodes {
            let app = App::start(&runtime);
            node.serve(app.port).configure(allow_all());
            ports.push(node.inbound);
            apps.push(app);
        }
        mesh.user.discover("order-service", &ports);
        mesh.user.configure(unchecked(resilience));
        Self {
            mesh,
            others,
            apps,
            runtime,
        }
    }

    /// Starts all nodes, and waits until a call comes through all of them.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        for node in &mut self.others {
            node.spawn();
        }
        self.mesh.start();
        for node in &mut self.others {
            node.wait_ready();
        }
        let comes_through = || self.call("/first").status == 200;
        assert!(holds_within(Duration::from_secs(20), comes_through));
    }

    /// The application at the end.
    pub(crate) fn last(&self) -> &App {
        self.apps.last().unwrap()
    }

    /// A call of the caller, over a connection of its own.
    #[track_caller]
    pub(crate) fn call(&self, target: &str) -> Told {
        let ask = Ask::new("GET", "order-service", target);
        ask.once(&self.runtime, self.mesh.user.outbound).unwrap()
    }

    /// Calls of the caller at a fixed rate.
    pub(crate) fn load(&self, per_second: u32) -> Load {
        Load::start(&self.runtime, self.mesh.user.outbound, per_second)
    }

    pub(crate) fn stop(&self, load: Load) -> Calls {
        load.stop(&self.runtime)
    }
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

fn mesh(encryption: &str) -> Mesh {
    let mut mesh = Mesh::new(encryption);
    for node in [&mut mesh.user, &mut mesh.order] {
        node.configure(json!({ "audit": { "durability": "async" } }));
    }
    mesh
}

fn allow_all() -> Value {
    let rule = json!({ "name": "all", "from": ["*"], "to": { "service": "*" }, "action": "allow" });
    json!({ "policy": { "rules": [rule] }, "audit": { "durability": "async" } })
}

/// Only calls tell of endpoints, so that it is calls that are tested.
fn unchecked(resilience: &Value) -> Value {
    json!({
        "resilience": resilience,
        "discovery": { "health_check": { "protocol": "none" } },
    })
}

const NAMES: [&str; 2] = ["second-service", "third-service"];
