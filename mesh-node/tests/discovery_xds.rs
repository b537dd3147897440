//! Nodes that find services in a control plane of xDS, which speaks with the official protobuf messages.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use serde_json::Value;
use serde_json::json;

use support::ads::Ads;
use support::ads::cluster;
use support::ads::endpoint;
use support::app::App;
use support::load::Load;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::wait_until;

mod support;

/// A control plane, a node that asks it, and two instances of the order service with an application each. The control
/// plane knows nothing yet; it and the applications run.
struct Scene {
    ads: Ads,
    mesh: Mesh,
    second: Node,
    apps: [App; 2],
}

impl Scene {
    fn new(variant: &str) -> Option<Self> {
        let mut mesh = Mesh::new("mtls");
        let ads = Ads::start(mesh.path())?;
        let apps = [App::start(mesh.path())?, App::start(mesh.path())?];
        let mut second = mesh.node("order-service", "second");
        second.configure(json!({ "policy": mesh.order.config["policy"] }));
        for (node, app) in [(&mut mesh.order, &apps[0]), (&mut second, &apps[1])] {
            node.serve(app.port);
        }
        let source = json!({ "mode": "xds", "servers": [ads.url()], "variant": variant });
        mesh.user.config["discovery"] = json!({ "sources": [source] });
        Some(Self {
            ads,
            mesh,
            second,
            apps,
        })
    }

    fn start(&mut self) {
        self.second.spawn();
        self.mesh.start();
        self.second.wait_ready();
    }

    fn call(&self) -> u16 {
        self.mesh.call("/api/orders", &[]).status
    }

    /// How many requests reached each instance.
    fn counts(&self) -> [usize; 2] {
        [0, 1].map(|index| self.apps[index].count("/"))
    }

    /// Waits until all of ten calls go to this instance.
    #[track_caller]
    fn wait_all_go_to(&self, index: usize) {
        wait_until("all calls go to one instance", || {
            let before = self.counts();
            let statuses: Vec<_> = (0..10).map(|_| self.call()).collect();
            assert_eq!(statuses, [200; 10]);
            self.counts()[1 - index] == before[1 - index]
        });
    }

    /// What the node shows of the order service.
    #[track_caller]
    fn page(&self) -> Value {
        let page = self.mesh.user.admin("/services/order-service");
        page.expect(200).json()
    }

    /// Serves the order service: each instance in a place and a priority of its own.
    fn serve(&self, healths: [&str; 2], policy: &Value) {
        let ports = [self.mesh.order.inbound, self.second.inbound];
        let places: Vec<_> = (0..2)
            .map(|index| {
                let mut found = endpoint("127.0.0.1", ports[index]);
                found["health_status"] = json!(healths[index]);
                json!({
                    "locality": { "region": "eu", "zone": format!("eu-{index}") },
                    "priority": index,
                    "lb_endpoints": [found],
                })
            })
            .collect();
        self.tell_assignment("order-service", &json!(places), policy);
    }

    fn tell_assignment(&self, name: &str, places: &Value, policy: &Value) {
        let resource = json!({ "cluster_name": name, "endpoints": places, "policy": policy });
        let assignment = json!({ "set": "assignment", "name": name, "resource": resource });
        self.ads
            .tell(&json!({ "batch": [cluster(name), assignment] }));
    }

    /// How many requests were dropped.
    fn dropped(&self) -> usize {
        let series = "mesh_discovery_dropped_requests_total{";
        let count = self.mesh.user.metric(series).unwrap_or_default();
        format!("{count:.0}").parse().unwrap()
    }
}

/// Both variants of the protocol in turn, each with a scene of its own.
macro_rules! in_both_variants {
    ($($name:ident),* $(,)?) => {
        mod whole {
            $(#[test] fn $name() { super::$name("sotw"); })*
        }
        mod delta {
            $(#[test] fn $name() { super::$name("delta"); })*
        }
    };
}

in_both_variants!(
    calls_go_where_the_control_plane_says,
    a_control_plane_that_is_killed_costs_no_call,
    a_share_of_the_requests_is_dropped_where_the_control_plane_asks_for_it,
);

fn calls_go_where_the_control_plane_says(variant: &str) {
    let Some(mut scene) = Scene::new(variant) else {
        return;
    };
    scene.ads.serve("stock-service", &[1]);
    let settings = json!({ "discovery": { "withdrawal": { "grace": "1s" } } });
    scene.mesh.user.configure(settings);
    scene.start();
    // A state of the world has no words for what is not there, so for a while nobody can tell.
    let unknown = scene.call();
    assert!(matches!(unknown, 404 | 503), "{unknown}");
    scene.serve(["HEALTHY", "HEALTHY"], &json!({}));
    wait_until("a call arrives", || scene.call() == 200);
    scene.wait_all_go_to(0);
    scene.serve(["UNHEALTHY", "HEALTHY"], &json!({}));
    scene.wait_all_go_to(1);
    scene.serve(["HEALTHY", "DRAINING"], &json!({}));
    scene.wait_all_go_to(0);

    let page = scene.page();
    let list = page["endpointList"].as_array().unwrap();
    let shown: Vec<_> = list
        .iter()
        .map(|one| {
            (
                &one["zone"],
                &one["priority"],
                &one["source"],
                &one["state"],
            )
        })
        .map(|(zone, priority, source, state)| json!([zone, priority, source, state]))
        .collect();
    assert_eq!(
        shown,
        [
            json!(["eu/eu-0", 0, "xds", "healthy"]),
            json!(["eu/eu-1", 1, "xds", "draining"])
        ]
    );
    let asked = Value::from(scene.ads.requests()).to_string();
    assert!(asked.contains("order-service") && !asked.contains("stock-service"));

    scene.ads.tell(&json!({ "batch": [
        { "remove": "cluster", "name": "order-service" },
        { "remove": "assignment", "name": "order-service" },
    ] }));
    wait_until("the service is gone", || scene.call() == 503);
    scene.serve(["HEALTHY", "HEALTHY"], &json!({}));
    wait_until("the service is back", || scene.call() == 200);
}

fn a_control_plane_that_is_killed_costs_no_call(variant: &str) {
    let Some(mut scene) = Scene::new(variant) else {
        return;
    };
    scene.serve(["HEALTHY", "HEALTHY"], &json!({}));
    scene.start();
    let Some(load) = Load::start(&scene.mesh, "GET,POST") else {
        return;
    };
    for _ in 0..2 {
        scene.ads.server.process.kill();
        wait_until("the list is stale", || scene.page()["isStale"] == true);
        load.go_on();
        scene.ads.start_again();
        // It comes back with nothing to tell, as one that has not read its own sources yet.
        load.go_on();
        scene.serve(["HEALTHY", "HEALTHY"], &json!({}));
        wait_until("the list is fresh", || scene.page()["isStale"] == false);
        load.go_on();
    }
    let answered = load.answered();
    assert_eq!(load.end(), Vec::<String>::new(), "of {answered}");
    scene.serve(["UNHEALTHY", "HEALTHY"], &json!({}));
    scene.wait_all_go_to(1);
}

fn a_share_of_the_requests_is_dropped_where_the_control_plane_asks_for_it(variant: &str) {
    let Some(mut scene) = Scene::new(variant) else {
        return;
    };
    let mut payment = scene.mesh.node("payment-service", "payment");
    payment
        .serve(scene.apps[1].port)
        .configure(json!({ "policy": { "default": "audit" } }));
    payment.start();
    let place = json!([{ "lb_endpoints": [endpoint("127.0.0.1", payment.inbound)] }]);
    scene.tell_assignment("payment-service", &place, &json!({}));
    let drops = |share: u32| {
        let percentage = json!({ "numerator": share, "denominator": "HUNDRED" });
        json!({ "drop_overloads": [ { "category": "throttle", "drop_percentage": percentage } ] })
    };
    scene.serve(["HEALTHY", "HEALTHY"], &drops(100));
    scene.start();

    for _ in 0..20 {
        let answer = scene.mesh.call("/api/orders", &[]).expect(503);
        assert_eq!(answer.error(), Some("overloaded"));
        let text = answer.text();
        assert!(
            text.contains("asks to drop a share of the requests to order-service (throttle)"),
            "{text}"
        );
        assert_eq!(answer.header("x-mesh-processed"), Some("no"));
        assert_eq!(answer.header("retry-after"), Some("1"));
        // A drop is no failure of the service.
        assert_eq!(answer.header("x-circuit-breaker-state"), Some("CLOSED"));
        let other = scene.mesh.user.call("payment-service", "/pay", &[]);
        other.expect(200);
    }
    assert_eq!(scene.apps[0].count("/api/orders"), 0);
    assert_eq!(scene.dropped(), 20);
    let expected = json!([{ "source": "xds", "category": "throttle", "perMillion": 1_000_000 }]);
    assert_eq!(scene.page()["drops"], expected);
    let output = scene.mesh.user.program(&["services", "order-service"]);
    let output = { output }.output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("xds wants 100 % of the requests dropped (throttle)"),
        "{table}"
    );

    scene.serve(["HEALTHY", "HEALTHY"], &drops(50));
    wait_until("some calls pass again", || scene.call() == 200);
    let before = scene.dropped();
    let passed = (0..100).filter(|_| scene.call() == 200).count();
    assert!((20..=80).contains(&passed), "{passed} of 100");
    assert_eq!(scene.dropped() - before, 100 - passed);

    scene.serve(["HEALTHY", "HEALTHY"], &json!({}));
    wait_until("the control plane asks for nothing any more", || {
        scene.page()["drops"] == json!([])
    });
    let before = scene.dropped();
    assert!((0..40).all(|_| scene.call() == 200));
    assert_eq!(scene.dropped(), before);
}

#[test]
fn a_control_plane_drops_nothing_of_a_service_that_another_source_leads_to() {
    let Some(mut scene) = Scene::new("sotw") else {
        return;
    };
    let services =
        json!([{ "id": "order-service", "host": "127.0.0.1", "port": scene.mesh.order.inbound }]);
    let listed = json!({ "mode": "static", "services": services });
    let asked = scene.mesh.user.config["discovery"]["sources"][0].clone();
    scene
        .mesh
        .user
        .configure(json!({ "discovery": { "sources": [listed, asked] } }));
    let all = json!({ "numerator": 100, "denominator": "HUNDRED" });
    let policy = json!({ "drop_overloads": [ { "category": "all", "drop_percentage": all } ] });
    scene.serve(["HEALTHY", "HEALTHY"], &policy);
    scene.start();
    wait_until("the control plane has told what it wants", || {
        assert_eq!(scene.call(), 200);
        scene.page()["sources"][1]["endpoints"] == 2
    });
    assert_eq!(scene.call(), 200);
    assert_eq!(scene.page()["drops"], json!([]));
    assert_eq!(scene.dropped(), 0);
}

#[test]
fn what_a_control_plane_sends_without_effect_is_shown() {
    let Some(mut scene) = Scene::new("sotw") else {
        return;
    };
    scene.serve(["HEALTHY", "HEALTHY"], &json!({}));
    let mut richer = cluster("order-service");
    richer["resource"]["outlier_detection"] = json!({ "consecutive_5xx": 3 });
    scene.ads.tell(&richer);
    scene.start();
    wait_until("a call arrives", || scene.call() == 200);

    let page = scene.mesh.user.admin("/services").expect(200).json();
    let plane = &page["controlPlanes"][0];
    assert_eq!(
        (&plane["source"], &plane["server"]),
        (&json!("xds"), &json!(scene.ads.url()))
    );
    let fields = plane["ignored"].as_array().unwrap();
    let field = "envoy.config.cluster.v3.Cluster.outlier_detection";
    let found = fields.iter().find(|one| one["field"] == field);
    assert_eq!(found.unwrap()["first"], "order-service", "{plane:#}");
    let output = { scene.mesh.user.program(&["services"]) }.output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("xds: fields that have no effect here:") && table.contains(field),
        "{table}"
    );
}

#[test]
fn a_variable_adds_a_control_plane_behind_all_other_sources() {
    let Some(mut scene) = Scene::new("sotw") else {
        return;
    };
    // What stands in the file is asked first, and does not know the service.
    let listed = json!([{ "id": "stock-service", "host": "127.0.0.1", "port": 9 }]);
    scene.mesh.user.config["discovery"] =
        json!({ "sources": [ { "mode": "static", "services": listed } ] });
    let address = format!("127.0.0.1:{}", scene.ads.port);
    scene.mesh.user.environment = vec![("SERVICE_MESH_DISCOVERY_ENVOY_ADDRESS", address)];
    scene.serve(["HEALTHY", "HEALTHY"], &json!({}));
    scene.start();
    assert_eq!(scene.call(), 200);
    let page = scene.page();
    assert_eq!(page["endpointList"][0]["source"], "xds");
    let sources: Vec<_> = page["sources"].as_array().unwrap().iter().collect();
    assert_eq!(sources.last().unwrap()["source"], "xds", "{page:#}");
}
