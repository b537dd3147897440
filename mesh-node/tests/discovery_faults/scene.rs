//! A caller that asks a registry, and two instances of the order service with an application each.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::load::App;
use crate::load::Calls;
use crate::load::Load;
use crate::registry::Registry;
use crate::support::mesh::Mesh;
use crate::support::mesh::Node;
use crate::support::process::holds_within;
use crate::support::process::lasts;
use crate::support::process::wait_until;

/// The nodes, and the runtime of the load and of the applications.
#[derive(Debug)]
pub(crate) struct Scene {
    mesh: Mesh,
    second: Node,
    apps: [App; 2],
    runtime: Runtime,
}

impl Scene {
    /// Nothing runs yet but the applications.
    pub(crate) fn new(registry: &Registry) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut mesh = Mesh::new("mtls");
        let mut second = mesh.node("order-service", "second");
        let apps = [App::start(&runtime), App::start(&runtime)];
        second.configure(json!({ "policy": mesh.order.config["policy"].clone() }));
        for (node, app) in [(&mut mesh.order, &apps[0]), (&mut second, &apps[1])] {
            // Calls would wait for the disk otherwise, and hide what they wait for else.
            node.serve(app.port)
                .configure(json!({ "audit": { "durability": "async" } }));
        }
        mesh.user.configure(json!({
            "discovery": { "sources": [registry.source()] },
            "audit": { "durability": "async" },
        }));
        Self {
            mesh,
            second,
            apps,
            runtime,
        }
    }

    /// Lets the caller believe every withdrawal but that of the last endpoint, for tests that make many.
    pub(crate) fn believe_at_once(&mut self) {
        let settings = json!({ "discovery": { "withdrawal": { "share": 1.0 } } });
        self.mesh.user.configure(settings);
    }

    /// Starts all, and waits until a call comes through.
    pub(crate) fn start(&mut self) {
        self.second.spawn();
        self.mesh.start();
        self.second.wait_ready();
        wait_until("a call comes through", || {
            self.mesh.call("/", &[]).status == 200
        });
    }

    /// A service that is another one, with an application that ought to see nothing.
    pub(crate) fn impostor(&mut self) -> (Node, App) {
        let mut node = self.mesh.node("payment-service", "impostor");
        let app = App::start(&self.runtime);
        let rules = json!([ { "name": "all", "from": ["*"], "to": { "service": "*" }, "action": "allow" } ]);
        node.serve(app.port)
            .configure(json!({ "policy": { "rules": rules } }));
        node.start();
        (node, app)
    }

    /// Where an instance of the order service takes other nodes.
    pub(crate) fn port(&self, index: usize) -> u16 {
        [&self.mesh.order, &self.second][index].inbound
    }

    pub(crate) fn app(&self, index: usize) -> &App {
        &self.apps[index]
    }

    /// Calls of the user service to the order service.
    pub(crate) fn load(&self, per_second: u32) -> Load {
        let load = Load::start(&self.runtime, self.mesh.user.outbound, per_second);
        wait_until("calls are made", || load.made() > 10);
        load
    }

    pub(crate) fn stop(&self, load: Load) -> Calls {
        load.stop(&self.runtime)
    }

    /// Waits until an instance gets no more requests.
    #[track_caller]
    pub(crate) fn wait_quiet(&self, index: usize) {
        let quiet = holds_within(Duration::from_secs(20), || {
            let before = self.apps[index].count();
            lasts(QUIET);
            self.apps[index].count() == before
        });
        assert!(quiet, "requests go on\n{}", self.mesh.user.log());
    }

    /// What a call of the user service gets.
    pub(crate) fn call(&self) -> u16 {
        self.mesh.call("/", &["--max-time", "20"]).status
    }

    /// What the caller's node has written of lists, once it has.
    #[track_caller]
    pub(crate) fn kept_on_disk(&self) -> Vec<u8> {
        let mut kept = Vec::new();
        wait_until("the list is on disk", || {
            kept = fs::read(self.kept()).unwrap_or_default();
            String::from_utf8_lossy(&kept).contains("order-service")
        });
        kept
    }

    fn kept(&self) -> PathBuf {
        self.mesh.user.dir().join("state/discovery.cache")
    }

    /// Ends the caller's node as a power cut would, which leaves this on its disk, and starts it again. How long it takes
    /// until it is ready.
    pub(crate) fn power_cut(&mut self, kept: &[u8]) -> Duration {
        self.mesh.user.process().kill();
        fs::write(self.kept(), kept).unwrap();
        fs::write(self.mesh.user.dir().join("node.err"), "").unwrap();
        let start = Instant::now();
        self.mesh.user.start();
        start.elapsed()
    }

    /// What the caller's node said since it was started last.
    pub(crate) fn log(&self) -> String {
        self.mesh.user.log()
    }

    /// What the caller's node shows of the order service.
    #[track_caller]
    pub(crate) fn services(&self) -> String {
        self.mesh.user.admin("/services").expect(200).text()
    }

    /// The processor time that the caller's node uses meanwhile.
    pub(crate) fn processor_time(&mut self, meanwhile: impl FnOnce()) -> Duration {
        let before = self.mesh.user.process().processor_time();
        meanwhile();
        let after = self.mesh.user.process().processor_time();
        after.saturating_sub(before)
    }
}

/// At the rate of a load, ten calls or more.
const QUIET: Duration = Duration::from_millis(400);
