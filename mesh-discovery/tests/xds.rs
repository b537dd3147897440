//! The client of xDS against a control plane that speaks with the official protobuf messages, and against faults of it.

#![cfg(feature = "xds")]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh_discovery::Condition;
use mesh_discovery::Discover as _;
use mesh_discovery::Endpoints;
use mesh_discovery::Registry;
use mesh_discovery::RegistryConfig;
use mesh_discovery::ServiceName;
use mesh_discovery::Standing;
use mesh_discovery::Watch;
use mesh_discovery::xds;
use mesh_discovery::xds::Findings;
use mesh_discovery::xds::Variant;
use serde_json::Value;
use serde_json::json;
use support::ads::Ads;
use support::ads::assignment;
use support::ads::cluster;
use support::ads::endpoint;
use support::consul::Consul;
use support::process::holds_within;
use support::process::wait_until;
use support::tools::tool;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A source that runs until this is dropped.
struct Client {
    registry: Registry,
    findings: Findings,
    driver: JoinHandle<()>,
}

impl Client {
    fn start(config: xds::Config) -> Self {
        let findings = config.findings.clone();
        let (registry, driver) = xds::source(config, RegistryConfig::new("xds")).unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "the source of a test runs beside it"
        )]
        let driver = tokio::task::spawn(driver);
        Self {
            registry,
            findings,
            driver,
        }
    }

    fn of(ads: &Ads, variant: Variant) -> Self {
        Self::start(config(vec![ads.url()], variant))
    }

    fn watch(&self, name: &str) -> Watch {
        self.registry.watch(&service(name))
    }

    fn failure(&self, name: &str) -> String {
        let reports = self.registry.reports(&service(name));
        let failure = reports.first().and_then(|report| report.failure.clone());
        failure.as_deref().unwrap_or_default().to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn config(servers: Vec<String>, variant: Variant) -> xds::Config {
    let mut config = xds::Config::new(servers, "node-1", Arc::new(|| 0));
    config.variant = variant;
    config.first_answer = Duration::from_secs(2);
    config
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn ports(endpoints: &Endpoints) -> Vec<u16> {
    let mut ports: Vec<_> = endpoints.iter().map(|endpoint| endpoint.port).collect();
    ports.sort_unstable();
    ports
}

/// Waits until a list is as `condition` wants it.
#[track_caller]
fn wait_for(what: &str, watch: &Watch, condition: impl Fn(&Endpoints) -> bool) {
    let held = holds_within(Duration::from_secs(10), || condition(&watch.current()));
    assert!(held, "waited in vain until {what}: {:?}", watch.current());
}

#[track_caller]
fn wait_for_ports(watch: &Watch, expected: &[u16]) {
    wait_for("the ports are right and fresh", watch, |list| {
        ports(list) == expected && list.standing() == Standing::Fresh
    });
}

/// Both variants in turn, each with a control plane of its own.
macro_rules! in_both_variants {
    ($($(#[$attribute:meta])* fn $name:ident($ads:pat, $variant:ident) $body:block)*) => {
        $(
            $(#[$attribute])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                for $variant in [Variant::StateOfTheWorld, Variant::Incremental] {
                    let dir = TempDir::new().unwrap();
                    let Some($ads) = Ads::start(dir.path()) else { return };
                    $body
                }
            }
        )*
    };
}

in_both_variants! {
    fn a_service_is_followed_when_it_is_watched_and_only_then(ads, variant) {
        for name in ["orders", "stock", "mail"] {
            ads.serve(name, &[1000, 1001]);
        }
        let client = Client::of(&ads, variant);
        let orders = client.watch("orders");
        wait_for_ports(&orders, &[1000, 1001]);
        ads.serve("orders", &[1001, 1002, 1003]);
        wait_for_ports(&orders, &[1001, 1002, 1003]);
        let stock = client.watch("stock");
        wait_for_ports(&stock, &[1000, 1001]);
        let requests = ads.requests();
        assert!(!Value::from(requests.clone()).to_string().contains("mail"));
        let first = requests.first().unwrap();
        assert_eq!(first["node"]["id"], "node-1");
        assert_eq!(first["node"]["user_agent_name"], "mesh-discovery");
        assert!(requests.iter().skip(1).all(|request| request.get("node").is_none()));
        // Never a wildcard: each first request of a type names what it wants.
        for url in ["Cluster", "ClusterLoadAssignment"] {
            let first = requests.iter().find(|request| request["type_url"].as_str().unwrap().ends_with(url));
            let first = first.unwrap();
            let names = first.get("resource_names").or(first.get("resource_names_subscribe"));
            assert_eq!(names, Some(&json!(["orders"])));
        }
        assert_eq!(ads.refusals(), Vec::<String>::new());
    }

    // threat 51
    /// D-7 of the reliability targets: partial acceptance.
    fn what_is_good_in_a_response_is_taken_and_what_is_bad_is_refused_by_name(ads, variant) {
        ads.serve("orders", &[1000]);
        ads.serve("stock", &[2000]);
        let client = Client::of(&ads, variant);
        let (orders, stock) = (client.watch("orders"), client.watch("stock"));
        wait_for_ports(&orders, &[1000]);
        wait_for_ports(&stock, &[2000]);
        let bad = json!({"cluster_name": "stock", "endpoints": [{"lb_endpoints": [endpoint("stock.example.org", 1)]}]});
        ads.tell(&json!({"batch": [
            assignment("orders", &[1001]),
            {"set": "assignment", "name": "stock", "resource": bad},
        ]}));
        wait_for_ports(&orders, &[1001]);
        wait_until("the bad one is refused", || !ads.refusals().is_empty());
        let refusals = ads.refusals();
        assert_eq!(refusals, ["cluster load assignment \"stock\": envoy.config.core.v3.SocketAddress.address is no IP address"]);
        assert_eq!(ports(&stock.current()), [2000]);
        assert!(stock.current().is_stale() && !orders.current().is_stale());
        assert!(client.failure("stock").contains("SocketAddress.address"), "{}", client.failure("stock"));
        ads.serve("stock", &[2001]);
        wait_for_ports(&stock, &[2001]);
        assert_eq!(client.failure("stock"), "");
    }

    /// D-7 of the reliability targets: no more than one refusal for a version at once, and those after it seldom.
    fn a_server_that_repeats_a_bad_version_is_told_once_and_then_seldom(ads, variant) {
        let started = tokio::time::Instant::now();
        ads.tell(&json!({"mode": "eager"}));
        ads.tell(&json!({"set": "cluster", "name": "orders", "resource": {"name": "orders", "type": "LOGICAL_DNS"}}));
        let client = Client::of(&ads, variant);
        let orders = client.watch("orders");
        wait_until("the repetition is there", || client.findings.counts().refused_again > 0);
        // Another round trip shows that there was no more.
        let stock = client.watch("stock");
        ads.serve("stock", &[1]);
        wait_for("the other is there", &stock, |list| ports(list) == [1]);
        let refusals = ads.refusals();
        assert!(refusals.iter().all(|refusal| refusal.contains("Cluster.type is LOGICAL_DNS")), "{refusals:?}");
        // One at once, one with the names as they changed, one since they did, one of the version in state of the world that
        // has `stock`; and all others a second apart at least.
        let most = 4 + started.elapsed().as_secs();
        assert!(refusals.len() as u64 <= most, "{refusals:?}");
        assert!(orders.current().is_empty());
    }

    // threat 51
    /// A server as go-control-plane: what it said last has to be answered before it says anything else, and it answers a
    /// refusal with what was refused.
    fn a_server_that_waits_for_an_answer_to_a_bad_version_can_send_a_good_one(ads, variant) {
        ads.tell(&json!({"mode": "watch"}));
        ads.serve("orders", &[1000]);
        let client = Client::of(&ads, variant);
        let orders = client.watch("orders");
        wait_for_ports(&orders, &[1000]);
        let bad = json!({"cluster_name": "orders", "endpoints": [{"lb_endpoints": [endpoint("orders.example.org", 1)]}]});
        ads.tell(&json!({"set": "assignment", "name": "orders", "resource": bad}));
        wait_until("it is refused again", || client.findings.counts().refused_again > 0);
        wait_for("it is doubted", &orders, Endpoints::is_stale);
        assert_eq!(ports(&orders.current()), [1000]);
        ads.serve("orders", &[1001]);
        wait_for_ports(&orders, &[1001]);
        assert!(ads.refusals().len() < 10, "{:?}", ads.refusals());
    }

    fn what_the_server_takes_away_is_told_to_the_ledger_and_keeps_serving(ads, variant) {
        ads.serve("orders", &[1000]);
        let client = Client::of(&ads, variant);
        let orders = client.watch("orders");
        wait_for_ports(&orders, &[1000]);
        ads.tell(&json!({"remove": "cluster", "name": "orders"}));
        wait_for("it is withdrawn", &orders, Endpoints::is_stale);
        assert_eq!(ports(&orders.current()), [1000]);
        ads.serve("orders", &[1001]);
        wait_for("it is back", &orders, |list| ports(list).contains(&1001));
    }

    fn a_service_that_the_server_does_not_know_is_absent_and_appears_when_it_does(ads, variant) {
        let client = Client::of(&ads, variant);
        let orders = client.watch("orders");
        wait_for("it is absent", &orders, |list| list.standing() == Standing::Absent);
        ads.serve("orders", &[1000]);
        wait_for_ports(&orders, &[1000]);
    }

    /// D-7 of the reliability targets: reconnect, with the last good list meanwhile.
    fn a_server_that_is_killed_and_comes_back_finds_the_last_good_list(mut ads, variant) {
        ads.serve("orders", &[1000]);
        ads.serve("stock", &[2000]);
        let client = Client::of(&ads, variant);
        let (orders, stock) = (client.watch("orders"), client.watch("stock"));
        wait_for_ports(&orders, &[1000]);
        wait_for_ports(&stock, &[2000]);
        ads.server.process.kill();
        wait_for("it is stale", &orders, Endpoints::is_stale);
        assert_eq!(ports(&orders.current()), [1000]);
        assert!(client.failure("orders").contains("can't be reached"), "{}", client.failure("orders"));
        ads.start_again();
        // Only one of them has changed; both are there before the client is.
        ads.tell(&json!({"batch": [
            cluster("orders"), assignment("orders", &[1000]),
            cluster("stock"), assignment("stock", &[2001]),
        ]}));
        wait_for_ports(&stock, &[2001]);
        wait_for_ports(&orders, &[1000]);
    }

    fn a_stream_that_the_server_ends_is_begun_anew_with_versions_and_nobody_notices(ads, variant) {
        ads.serve("orders", &[1000]);
        let client = Client::of(&ads, variant);
        let orders = client.watch("orders");
        wait_for_ports(&orders, &[1000]);
        let before = orders.current().revision();
        ads.tell(&json!({"close": true}));
        wait_until("there is another stream", || {
            ads.requests().iter().any(|request| request["stream"] == 2)
        });
        wait_until("there are two requests of it", || {
            ads.requests().iter().filter(|request| request["stream"] == 2).count() >= 2
        });
        let requests = ads.requests();
        let mut again = requests.iter().filter(|request| request["stream"] == 2);
        let versions = |request: &Value| {
            let versions = request.get("version_info").or(request.get("initial_resource_versions"));
            versions.is_some()
        };
        let clusters = again.next().unwrap();
        assert_eq!((&clusters["node"]["id"], versions(clusters)), (&json!("node-1"), false));
        assert!(versions(again.next().unwrap()), "{requests:?}");
        ads.serve("orders", &[1001]);
        wait_for_ports(&orders, &[1001]);
        assert_eq!(orders.current().revision(), before + 1, "nothing was marked stale between");
    }

    fn a_frozen_server_is_noticed_and_found_again(ads, variant) {
        ads.serve("orders", &[1000]);
        let mut config = config(vec![ads.url()], variant);
        config.keep_alive = Duration::from_millis(300);
        config.connect_timeout = Duration::from_secs(1);
        let client = Client::start(config);
        let orders = client.watch("orders");
        wait_for_ports(&orders, &[1000]);
        ads.server.process.freeze();
        let noticed = holds_within(Duration::from_secs(40), || orders.current().is_stale());
        assert!(noticed, "{:?}", client.findings);
        assert_eq!(ports(&orders.current()), [1000]);
        ads.server.process.thaw();
        ads.serve("orders", &[1001]);
        wait_for_ports(&orders, &[1001]);
    }

    fn localities_priorities_weights_health_and_metadata_become_endpoints(ads, variant) {
        let full = json!({
            "cluster_name": "orders-eds",
            "endpoints": [
                {
                    "locality": {"region": "eu", "zone": "a", "sub_zone": "r1"},
                    "load_balancing_weight": 3,
                    "lb_endpoints": [
                        {
                            "endpoint": endpoint("10.0.0.1", 1)["endpoint"],
                            "health_status": "DEGRADED",
                            "load_balancing_weight": 1,
                            "metadata": {"filter_metadata": {"mesh": {
                                "spiffe_id": "spiffe://example.org/orders",
                                "version": "1.2",
                                "team": "shop",
                                "rank": 7,
                            }}},
                        },
                        {"endpoint": endpoint("10.0.0.1", 2)["endpoint"], "health_status": "DRAINING", "load_balancing_weight": 2},
                    ],
                },
                {
                    "locality": {"region": "eu", "zone": "b"},
                    "load_balancing_weight": 1,
                    "lb_endpoints": [{"endpoint": endpoint("fd00::1", 3)["endpoint"], "health_status": "TIMEOUT"}],
                },
                {
                    "priority": 1,
                    "load_balancing_weight": 1,
                    "lb_endpoints": [{"endpoint": endpoint("10.0.0.1", 4)["endpoint"]}],
                },
            ],
            "policy": {"drop_overloads": [{"category": "throttle", "drop_percentage": {"numerator": 5}}]},
        });
        let mut with_name = cluster("orders");
        with_name["resource"]["eds_cluster_config"]["service_name"] = "orders-eds".into();
        with_name["resource"]["outlier_detection"] = json!({"consecutive_5xx": 3});
        ads.tell(&json!({"batch": [with_name, {"set": "assignment", "name": "orders-eds", "resource": full}]}));
        let client = Client::of(&ads, variant);
        let orders = client.watch("orders");
        wait_for_ports(&orders, &[1, 2, 3, 4]);
        let list = orders.current();
        let mut seen: Vec<_> = list
            .iter()
            .map(|e| (e.port, e.priority, e.zone.as_deref().unwrap_or_default(), e.weight.get(), e.condition))
            .collect();
        seen.sort_by_key(|endpoint| endpoint.0);
        // Of a priority: 3/4 * 1/3, 3/4 * 2/3, 1/4.
        assert_eq!(seen, [
            (1, 0, "eu/a/r1", 32_768, Condition::Warning),
            (2, 0, "eu/a/r1", 65_535, Condition::Draining),
            (3, 0, "eu/b", 32_768, Condition::Critical),
            (4, 1, "", 65_535, Condition::Passing),
        ]);
        let first = list.first().unwrap();
        assert_eq!(first.spiffe_id.as_deref(), Some("spiffe://example.org/orders"));
        assert_eq!(first.version.as_deref(), Some("1.2"));
        assert_eq!(format!("{:?}", first.metadata), r#"{"rank": "7", "team": "shop"}"#);
        let drops = client.findings.drops(&service("orders"));
        assert_eq!(format!("{drops:?}"), r#"[DropOverload { category: "throttle", per_million: 50000 }]"#);
        let ignored = client.findings.ignored();
        let ignored: Vec<_> = ignored.iter().map(|field| (field.field.as_str(), field.first.as_str())).collect();
        assert_eq!(ignored, [("envoy.config.cluster.v3.Cluster.outlier_detection", "orders")]);
    }

    fn a_server_that_is_not_there_is_passed_over_for_the_next(ads, variant) {
        ads.serve("orders", &[1000]);
        let client = Client::start(config(vec!["http://127.0.0.1:1".to_owned(), ads.url()], variant));
        let orders = client.watch("orders");
        wait_for_ports(&orders, &[1000]);
        assert_eq!(client.findings.server().as_deref(), Some(&*ads.url()));
    }

    /// Servers made with gRPC for Go and Python send their headers with their first response.
    fn a_server_that_comes_back_with_the_same_is_believed_at_once(mut ads, variant) {
        ads.serve("orders", &[1000]);
        ads.tell(&json!({"mode": "late"}));
        let client = Client::of(&ads, variant);
        let orders = client.watch("orders");
        wait_for_ports(&orders, &[1000]);
        ads.server.process.kill();
        wait_for("it is stale", &orders, Endpoints::is_stale);
        ads.start_again();
        ads.tell(&json!({"mode": "late"}));
        ads.serve("orders", &[1000]);
        wait_for_ports(&orders, &[1000]);
    }

    // threat 51
    fn bytes_that_are_no_response_and_messages_that_are_too_long_leave_the_last_good_list(ads, variant) {
        ads.serve("orders", &[1000]);
        let mut config = config(vec![ads.url()], variant);
        config.max_message = 10_000;
        let client = Client::start(config);
        let orders = client.watch("orders");
        wait_for_ports(&orders, &[1000]);
        for junk in ["ff", "0a03ffffff", "", "1200"] {
            let streams = client.findings.counts().streams;
            ads.tell(&json!({"send": junk}));
            wait_until("there is another stream", || client.findings.counts().streams > streams);
            wait_for_ports(&orders, &[1000]);
        }
        ads.serve("orders", &(1000..2000).collect::<Vec<_>>());
        wait_for("it is stale", &orders, Endpoints::is_stale);
        assert!(client.failure("orders").contains("what is no response"), "{}", client.failure("orders"));
        assert_eq!(ports(&orders.current()), [1000]);
        ads.serve("orders", &[1001]);
        wait_for("it is back", &orders, |list| ports(list) == [1001]);
    }

    /// D-4 of the reliability targets, without the proxy: from the word of the control plane to the list.
    fn a_change_is_seen_within_half_a_second(ads, variant) {
        ads.serve("orders", &[1]);
        let client = Client::of(&ads, variant);
        let mut orders = client.watch("orders");
        wait_for_ports(&orders, &[1]);
        orders.latest();
        let mut times = Vec::new();
        for port in 2..102 {
            let before = tokio::time::Instant::now();
            ads.serve("orders", &[port, 1]);
            while orders.changed().await.unwrap().iter().all(|endpoint| endpoint.port != port) {}
            times.push(before.elapsed());
        }
        times.sort_unstable();
        assert!(times[98] < Duration::from_millis(500), "{times:?}");
    }
}

/// A list on disk is as old as the last word of the registry, and this one has nothing more to say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_does_not_change_is_confirmed_while_the_stream_lives() {
    let dir = TempDir::new().unwrap();
    let Some(ads) = Ads::start(dir.path()) else {
        return;
    };
    ads.serve("orders", &[1000]);
    let client = Client::of(&ads, Variant::Incremental);
    let orders = client.watch("orders");
    wait_for_ports(&orders, &[1000]);
    let answered_at = || client.registry.reports(&service("orders"))[0].answered_at;
    let first = answered_at();
    let is_confirmed = holds_within(Duration::from_secs(45), || answered_at() > first);
    assert!(
        is_confirmed,
        "{:?}",
        client.registry.reports(&service("orders"))
    );
}

/// Consul up to 1.9 serves the second version of xDS to proxies, which nobody speaks any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_consul_is_told_from_a_control_plane() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start(dir.path()) else {
        return;
    };
    let port = consul.get("/v1/agent/self").json()["DebugConfig"]["GRPCPort"].clone();
    let servers = vec![format!("http://127.0.0.1:{port}")];
    for variant in [Variant::StateOfTheWorld, Variant::Incremental] {
        let client = Client::start(config(servers.clone(), variant));
        let orders = client.watch("orders");
        wait_until("there is an error", || !client.failure("orders").is_empty());
        let failure = client.failure("orders");
        assert!(
            failure.contains("serves no aggregated xds of version 3"),
            "{failure}"
        );
        assert_eq!(orders.current().standing(), Standing::Pending);
    }
}

/// The names of fields that are shown come from a table; it is that of the official descriptors.
#[test]
fn the_table_of_fields_is_the_official_one() {
    let Some(python) = tool("python-xds") else {
        return;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(folder.join("src/xds/fields.rs")).unwrap();
    let (_, table) = table.split_once("pub(super) static").unwrap();
    let table = format!("pub(super) static{table}");
    let mut arguments = vec!["--rust".to_owned()];
    for message in table.split("pub(super) static ").skip(1) {
        let (constant, _) = message.split_once(':').unwrap();
        let name = message.split('"').nth(1).unwrap();
        arguments.push(format!("{constant}={name}"));
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let output = support::tools::python(&python, "xds_fields.py", &arguments)
        .output()
        .unwrap();
    let official = String::from_utf8(output.stdout).unwrap();
    // Only the places of line breaks and of commas before them differ.
    let bare = |text: &str| text.replace(|c: char| c.is_whitespace() || c == ',', "");
    assert_eq!(bare(&table), bare(&official));
}
