//! Consul and etcd together, under load: endpoints of both, and failover from one to the other and back.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use serde_json::Value;
use serde_json::json;

use registry::Registry;
use support::app::App;
use support::load::Load;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::wait_until;

#[path = "discovery_faults/registry.rs"]
mod registry;
mod support;

/// Consul, which knows one instance of the order service, etcd, which knows another one, and a node that asks both.
struct Scene {
    consul: Registry,
    etcd: Registry,
    mesh: Mesh,
    second: Node,
    apps: [App; 2],
}

impl Scene {
    fn start(settings: &Value) -> Option<Self> {
        let mut mesh = Mesh::new("mtls");
        let consul = Registry::start("consul", mesh.path())?;
        let etcd = Registry::start("etcd", mesh.path())?;
        let apps = [App::start(mesh.path())?, App::start(mesh.path())?];
        let mut second = mesh.node("order-service", "second");
        second.configure(json!({ "policy": mesh.order.config["policy"] }));
        for (node, app) in [(&mut mesh.order, &apps[0]), (&mut second, &apps[1])] {
            node.serve(app.port);
        }
        consul.add("one", mesh.order.inbound);
        etcd.add("two", second.inbound);
        mesh.user.config["discovery"] = settings.clone();
        mesh.user.config["discovery"]["sources"] = json!([consul.source(), etcd.source()]);
        second.start();
        mesh.start();
        mesh.call("/api/orders", &[]).expect(200);
        Some(Self {
            consul,
            etcd,
            mesh,
            second,
            apps,
        })
    }

    /// Which of the instances get calls, seen over some.
    fn called(&self, load: &Load) -> [bool; 2] {
        let counts = || [0, 1].map(|index| self.apps[index].count("/api/load"));
        let before = counts();
        load.go_on();
        let after = counts();
        [0, 1].map(|index| after[index] > before[index])
    }

    #[track_caller]
    fn wait_called(&self, load: &Load, expected: [bool; 2]) {
        wait_until(&format!("{expected:?} are called"), || {
            self.called(load) == expected
        });
    }

    /// Of each source its standing, and whether it is used.
    #[track_caller]
    fn sources(&self) -> Vec<(String, bool)> {
        let page = self.mesh.user.admin("/services/order-service").expect(200);
        let sources = page.json()["sources"].as_array().unwrap().clone();
        let row = |source: &Value| {
            let standing = source["standing"].as_str().unwrap();
            (standing.to_owned(), source["isUsed"] == true)
        };
        sources.iter().map(row).collect()
    }

    #[track_caller]
    fn wait_sources(&self, expected: [(&str, bool); 2]) {
        let expected = expected.map(|(standing, is_used)| (standing.to_owned(), is_used));
        wait_until(&format!("the sources are {expected:?}"), || {
            self.sources() == expected
        });
    }
}

const UNREACHABLE: &str = "stale: source unreachable";

#[test]
fn the_endpoints_of_both_are_called_whichever_of_them_is_gone() {
    let Some(mut scene) = Scene::start(&json!({ "combine": "merge" })) else {
        return;
    };
    let Some(load) = Load::start(&scene.mesh, "GET,POST") else {
        return;
    };
    scene.wait_called(&load, [true, true]);
    // One that both know is one endpoint, and stays while one of them knows it.
    scene.consul.add("two", scene.second.inbound);
    scene.wait_sources([("fresh", true), ("fresh", false)]);
    assert_eq!(scene.called(&load), [true, true]);
    scene.consul.remove("two");
    scene.wait_sources([("fresh", true), ("fresh", true)]);
    assert_eq!(scene.called(&load), [true, true]);

    scene.consul.kill();
    scene.wait_sources([(UNREACHABLE, true), ("fresh", true)]);
    assert_eq!(scene.called(&load), [true, true]);
    scene.etcd.kill();
    scene.wait_sources([(UNREACHABLE, true), (UNREACHABLE, true)]);
    assert_eq!(scene.called(&load), [true, true]);
    scene.consul.start_again();
    scene.etcd.start_again();
    // Consul keeps what is registered with its agent.
    scene.wait_sources([("fresh", true), ("fresh", true)]);
    assert_eq!(scene.called(&load), [true, true]);
    let answered = load.answered();
    assert_eq!(load.end(), Vec::<String>::new(), "of {answered}");
}

#[test]
fn the_next_one_takes_over_from_one_that_is_gone_and_gives_back() {
    let settings = json!({ "combine": "first", "failover_after": "1s" });
    let Some(mut scene) = Scene::start(&settings) else {
        return;
    };
    let Some(load) = Load::start(&scene.mesh, "GET,POST") else {
        return;
    };
    scene.wait_called(&load, [true, false]);
    for _ in 0..2 {
        scene.consul.kill();
        scene.wait_sources([(UNREACHABLE, false), ("fresh", true)]);
        scene.wait_called(&load, [false, true]);
        scene.consul.start_again();
        scene.wait_sources([("fresh", true), ("fresh", false)]);
        scene.wait_called(&load, [true, false]);
    }
    // The one behind it is no loss.
    scene.etcd.kill();
    scene.wait_sources([("fresh", true), (UNREACHABLE, false)]);
    assert_eq!(scene.called(&load), [true, false]);
    // Nobody is left to take over: the list stays.
    scene.consul.kill();
    scene.wait_sources([(UNREACHABLE, true), (UNREACHABLE, false)]);
    assert_eq!(scene.called(&load), [true, false]);
    scene.etcd.start_again();
    scene.wait_called(&load, [false, true]);
    let answered = load.answered();
    assert_eq!(load.end(), Vec::<String>::new(), "of {answered}");
}
