//! The source and the key-value store against a real agent, and what befalls it.

#![cfg(feature = "consul")]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh_discovery::Belief;
use mesh_discovery::Condition;
use mesh_discovery::Discover as _;
use mesh_discovery::Endpoints;
use mesh_discovery::Registry;
use mesh_discovery::RegistryConfig;
use mesh_discovery::ServiceName;
use mesh_discovery::Staleness;
use mesh_discovery::Standing;
use mesh_discovery::TlsConfig;
use mesh_discovery::TlsIdentity;
use mesh_discovery::Watch;
use mesh_discovery::consul::Client;
use mesh_discovery::consul::Config;
use mesh_discovery::consul::Error;
use mesh_discovery::consul::SourceConfig;
use mesh_discovery::consul::TokenFor;
use mesh_discovery::consul::source;
use mesh_discovery::consul::watch_key;
use mesh_discovery::consul::watch_prefix;
use serde_json::Value;
use serde_json::json;
use support::certificates::Certificates;
use support::consul::Consul;
use tempfile::TempDir;
use tokio::time::Instant;

mod support;

/// The seed of back-off may be any.
fn client(config: &Config, token: Option<&Path>) -> Client {
    let token = token.map(|file| {
        let file = file.to_owned();
        Arc::new(move || fs::read_to_string(&file)) as Arc<TokenFor>
    });
    Client::new(config, token, Arc::new(|| 7)).unwrap()
}

fn plain(consul: &Consul) -> Client {
    client(&Config::new(consul.url()), None)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the driver runs beside the test until its runtime ends"
)]
fn start_as(client: Client, config: SourceConfig, registry: RegistryConfig) -> Registry {
    let (registry, driver) = source(client, config, registry).unwrap();
    drop(tokio::task::spawn(driver));
    registry
}

fn start(client: Client, config: SourceConfig) -> Registry {
    start_as(client, config, RegistryConfig::new("consul"))
}

fn named(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn orders() -> ServiceName {
    named("orders")
}

/// Waits until the list is as `is` wants it.
async fn until(watch: &mut Watch, is: impl Fn(&Endpoints) -> bool) -> Endpoints {
    let reached = async {
        while !is(watch.latest()) {
            watch.changed().await.unwrap();
        }
    };
    let is_reached = tokio::time::timeout(LONG, reached).await.is_ok();
    assert!(is_reached, "{:?}", watch.latest());
    watch.latest().clone()
}

/// Waits until the source says of `orders` why it gives no answer, in these words.
async fn fails(registry: &Registry, words: &str) {
    let failure = || {
        let report = registry.reports(&orders()).pop();
        report.and_then(|report| report.failure).unwrap_or_default()
    };
    let failed = async {
        while !failure().contains(words) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let has_failed = tokio::time::timeout(LONG, failed).await.is_ok();
    assert!(has_failed, "{}", failure());
}

fn is_fresh(list: &Endpoints, count: usize) -> bool {
    list.standing() == Standing::Fresh && list.len() == count
}

const LONG: Duration = Duration::from_secs(20);

fn register(consul: &Consul, id: &str, more: &Value) {
    let mut definition = json!({
        "Name": "orders", "ID": id, "Address": "10.0.0.7", "Port": 8080,
        "Check": { "CheckID": format!("check-{id}"), "TTL": "10m", "Status": "passing" },
    });
    let fields = definition.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    consul.send("PUT", "/v1/agent/service/register", &definition);
}

#[tokio::test(flavor = "multi_thread")]
async fn states_tags_meta_and_maintenance_are_seen_as_they_change() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start(dir.path()) else {
        return;
    };
    // What Consul says is believed at once, also of the last endpoint.
    let believing = Belief::default().with_grace(Duration::ZERO);
    let believing = believing.with_damping(None).unwrap();
    let believing = RegistryConfig::new("consul").with_belief(believing);
    let registry = start_as(plain(&consul), SourceConfig::default(), believing);
    let mut watch = registry.watch(&orders());
    until(&mut watch, |list| list.standing() == Standing::Absent).await;
    register(
        &consul,
        "o-1",
        &json!({
            // Consul finds it by its name in any case.
            "Name": "Orders", "Tags": ["blue"], "Weights": { "Passing": 10, "Warning": 3 },
            "Meta": { "zone": "a", "version": "1.2", "spiffe_id": "spiffe://example.org/orders", "team": "shop" },
        }),
    );
    let list = until(&mut watch, |list| is_fresh(list, 1)).await;
    let found = list.first().unwrap();
    assert_eq!(
        (&*found.id, &*found.to_string()),
        ("t/o-1", "10.0.0.7:8080")
    );
    assert_eq!(
        (found.weight.get(), &*found.tags),
        (10, &["blue".to_owned()][..])
    );
    assert_eq!(found.zone.as_deref(), Some("a"));
    assert_eq!(found.version.as_deref(), Some("1.2"));
    assert_eq!(
        found.spiffe_id.as_deref(),
        Some("spiffe://example.org/orders")
    );
    let metadata: Vec<_> = found
        .metadata
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(metadata, ["datacenter=dc1", "node=t", "team=shop"]);
    let is = |condition, weight| {
        move |list: &Endpoints| {
            list.first()
                .map(|found| (found.condition, found.weight.get()))
                == Some((condition, weight))
        }
    };
    for (status, condition, weight) in [
        ("warning", Condition::Warning, 3),
        ("critical", Condition::Critical, 10),
        ("passing", Condition::Passing, 10),
    ] {
        let told = json!({ "Status": status, "Output": "" });
        consul.send("PUT", "/v1/agent/check/update/check-o-1", &told);
        until(&mut watch, is(condition, weight)).await;
    }
    for path in ["/v1/agent/service/maintenance/o-1", "/v1/agent/maintenance"] {
        for (enable, condition) in [(true, Condition::Draining), (false, Condition::Passing)] {
            consul.send("PUT", &format!("{path}?enable={enable}"), &Value::Null);
            until(&mut watch, is(condition, 10)).await;
        }
    }
    // The same service id on another node, which has no address of its own for the service.
    let elsewhere = json!({
        "Node": "u", "Address": "10.0.0.9", "Service": { "Service": "orders", "ID": "o-1", "Port": 81 },
    });
    consul.send("PUT", "/v1/catalog/register", &elsewhere);
    let list = until(&mut watch, |list| is_fresh(list, 2)).await;
    let ids: Vec<_> = list
        .iter()
        .map(|found| format!("{} {found}", found.id))
        .collect();
    assert_eq!(ids, ["t/o-1 10.0.0.7:8080", "u/o-1 10.0.0.9:81"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_instances_with_all_tags_are_asked_for() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start(dir.path()) else {
        return;
    };
    register(&consul, "o-1", &json!({ "Tags": ["blue", "v2"] }));
    register(&consul, "o-2", &json!({ "Tags": ["blue"] }));
    let config = SourceConfig::default()
        .with_datacenter("dc1")
        .with_tags(vec!["blue".to_owned(), "v2".to_owned()]);
    let registry = start(plain(&consul), config);
    let list = until(&mut registry.watch(&orders()), |list| is_fresh(list, 1)).await;
    assert_eq!(list.first().unwrap().id, "t/o-1");
    let elsewhere = start(
        plain(&consul),
        SourceConfig::default().with_datacenter("dc9"),
    );
    let _watch = elsewhere.watch(&orders());
    fails(&elsewhere, "No path to datacenter").await;
}

// threat 51
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_can_not_be_used_is_left_out_and_named() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start(dir.path()) else {
        return;
    };
    register(&consul, "o-1", &json!({}));
    // Consul itself takes this one.
    register(&consul, "o-2", &json!({ "Port": 70000 }));
    let registry = start(plain(&consul), SourceConfig::default());
    let mut watch = registry.watch(&orders());
    until(&mut watch, |list| is_fresh(list, 1)).await;
    assert_eq!(registry.reports(&orders()).pop().unwrap().refused, 1);
    // Without the good one there is no answer at all, and the last good one stays.
    consul.send("PUT", "/v1/agent/service/deregister/o-1", &Value::Null);
    fails(&registry, "t/o-2").await;
    assert_eq!(watch.latest().len(), 1);
}

// threat 50
#[tokio::test(flavor = "multi_thread")]
async fn what_the_token_may_not_read_is_never_taken_for_nothing() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start_with_acls(dir.path()) else {
        return;
    };
    register(&consul, "o-1", &json!({}));
    let rules = |more: &str| format!("service \"orders\" {{ policy = \"read\" }} {more}");
    let all = "node_prefix \"\" { policy = \"read\" }";
    let (blind, seeing) = (
        consul.token("blind", &rules("")),
        consul.token("seeing", &rules(all)),
    );
    let file = dir.path().join("token");
    fs::write(&file, &blind).unwrap();
    let config = SourceConfig::default().with_wait(Duration::from_secs(1));
    let registry = start(client(&Config::new(consul.url()), Some(&file)), config);
    let mut watch = registry.watch(&orders());
    // It may read the service and no node: the answer is 200 and empty.
    fails(&registry, "acl token may not read").await;
    assert_eq!(watch.latest().standing(), Standing::Pending);
    // The file is read anew each time.
    fs::write(&file, format!("{seeing}\n")).unwrap();
    until(&mut watch, |list| is_fresh(list, 1)).await;
    fs::write(&file, "4b9a0d7e-0000-0000-0000-000000000000").unwrap();
    fails(&registry, "ACL not found").await;
    until(&mut watch, Endpoints::is_stale).await;
    assert_eq!(watch.latest().len(), 1);
    fs::write(&file, &blind).unwrap();
    fails(&registry, "acl token may not read").await;
    assert_eq!(
        watch.latest().standing(),
        Standing::Stale(Staleness::Unreachable)
    );
    fs::write(&file, &seeing).unwrap();
    until(&mut watch, |list| is_fresh(list, 1)).await;
    // Of what it may read, it learns that there is nothing.
    consul.send("PUT", "/v1/acl/policy", &json!({ "Name": "wide", "Rules": format!("service_prefix \"\" {{ policy = \"read\" }} {all}") }));
    let wide = consul
        .send(
            "PUT",
            "/v1/acl/token",
            &json!({ "Policies": [{ "Name": "wide" }] }),
        )
        .json();
    fs::write(&file, wide["SecretID"].as_str().unwrap()).unwrap();
    until(&mut registry.watch(&named("nobody")), |list| {
        list.standing() == Standing::Absent
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_wants_client_certificates_is_shown_one() {
    let dir = TempDir::new().unwrap();
    let certificates = Certificates::make(dir.path(), "consul");
    let Some(consul) = Consul::start_with_tls(&certificates, dir.path()) else {
        return;
    };
    register(&consul, "o-1", &json!({}));
    let read = |file: &Path| fs::read(file).unwrap();
    let tls = TlsConfig::new(read(&certificates.authority));
    let identity = TlsIdentity::new(read(&certificates.client), read(&certificates.client_key));
    let mut config = Config::new(consul.url());
    config.tls = Some(tls.clone().with_identity(identity));
    let registry = start(client(&config, None), SourceConfig::default());
    until(&mut registry.watch(&orders()), |list| is_fresh(list, 1)).await;
    config.tls = Some(tls);
    let registry = start(client(&config, None), SourceConfig::default());
    let _watch = registry.watch(&orders());
    fails(&registry, "ertificate").await;
}

// threat 50
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_back_empty_or_hangs_empties_no_list() {
    let dir = TempDir::new().unwrap();
    let Some(mut consul) = Consul::start(dir.path()) else {
        return;
    };
    // The index is far on when the agent goes.
    for round in 0..20 {
        register(
            &consul,
            "o-1",
            &json!({ "Meta": { "round": round.to_string() } }),
        );
    }
    let mut config = Config::new(consul.url());
    config.timeout = Duration::from_secs(1);
    let wait = SourceConfig::default().with_wait(Duration::from_secs(2));
    let registry = start(client(&config, None), wait);
    let mut watch = registry.watch(&orders());
    until(&mut watch, |list| is_fresh(list, 1)).await;
    consul.kill();
    until(&mut watch, |list| {
        list.standing() == Standing::Stale(Staleness::Unreachable)
    })
    .await;
    tokio::task::block_in_place(|| consul.start_again());
    until(&mut watch, |list| {
        list.standing() == Standing::Stale(Staleness::Withdrawn)
    })
    .await;
    assert_eq!(watch.latest().len(), 1);
    // Its index begins anew, and a change is seen all the same.
    register(&consul, "o-1", &json!({ "Tags": ["back"] }));
    until(&mut watch, |list| {
        is_fresh(list, 1) && list.iter().all(|found| found.tags == ["back"])
    })
    .await;
    consul.process().freeze();
    until(&mut watch, |list| {
        list.standing() == Standing::Stale(Staleness::Unreachable)
    })
    .await;
    assert_eq!(watch.latest().len(), 1);
    consul.process().thaw();
    let start = Instant::now();
    until(&mut watch, |list| is_fresh(list, 1)).await;
    assert!(
        start.elapsed() < Duration::from_secs(11),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn more_services_than_connections_take_turns() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start(dir.path()) else {
        return;
    };
    let service = |number: usize| json!({ "Service": "s", "ID": format!("s-{number}"), "Service": format!("s-{number}"), "Port": 80 });
    for number in 0..MANY {
        let entry = json!({ "Node": "u", "Address": "10.0.0.9", "Service": service(number) });
        consul.send("PUT", "/v1/catalog/register", &entry);
    }
    let few = SourceConfig::default().with_connections(NonZeroUsize::new(20).unwrap());
    let registry = start(plain(&consul), few);
    let mut watches: Vec<_> = (0..MANY)
        .map(|number| registry.watch(&named(&format!("s-{number}"))))
        .collect();
    for watch in &mut watches {
        until(watch, |list| is_fresh(list, 1)).await;
    }
    let number = MANY - 1;
    let changed = json!({ "Node": "v", "Address": "10.0.0.8", "Service": service(number) });
    consul.send("PUT", "/v1/catalog/register", &changed);
    let start = Instant::now();
    until(watches.last_mut().unwrap(), |list| is_fresh(list, 2)).await;
    // Three turns of 2 s, and a little.
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

const MANY: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_followed_and_absent_is_told_from_unreachable() {
    let dir = TempDir::new().unwrap();
    let Some(mut consul) = Consul::start(dir.path()) else {
        return;
    };
    let mut config = Config::new(consul.url());
    config.timeout = Duration::from_secs(1);
    let client = client(&config, None);
    let mut key = watch_key(&client, "shop/a b").unwrap();
    let mut prefix = watch_prefix(&client, "shop/").unwrap();
    assert_eq!(key.next().await.unwrap(), None);
    assert_eq!(prefix.next().await.unwrap(), []);
    consul.send("PUT", "/v1/kv/shop/a%20b?flags=42", &json!("one"));
    let found = key.next().await.unwrap().unwrap();
    assert_eq!(
        (&*found.key, &*found.value, found.flags),
        ("shop/a b", &b"\"one\""[..], 42)
    );
    assert_eq!(prefix.next().await.unwrap(), std::slice::from_ref(&found));
    assert!(!format!("{found:?}").contains(&format!("{:?}", b"one").replace(['[', ']'], "")));
    // Another key wakes the watch of the prefix alone; the other one sees only what comes after.
    consul.send("PUT", "/v1/kv/shop/c", &json!("two"));
    let keys: Vec<_> = prefix
        .next()
        .await
        .unwrap()
        .into_iter()
        .map(|key| key.key)
        .collect();
    assert_eq!(keys, ["shop/a b", "shop/c"]);
    consul.send("DELETE", "/v1/kv/shop/a%20b", &Value::Null);
    assert_eq!(key.next().await.unwrap(), None);
    assert_eq!(prefix.next().await.unwrap().len(), 1);
    consul.kill();
    assert!(matches!(key.next().await, Err(Error::Exchange { .. })));
    tokio::task::block_in_place(|| consul.start_again());
    consul.send("PUT", "/v1/kv/shop/a%20b", &json!("three"));
    let found = loop {
        match key.next().await {
            Ok(Some(found)) => break found,
            // It was absent before, so a watch says so no second time.
            Ok(None) => panic!("nothing has changed"),
            Err(_) => {}
        }
    };
    assert_eq!(found.value, b"\"three\"");
}

// threat 50
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_the_token_may_not_read_are_not_absent() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start_with_acls(dir.path()) else {
        return;
    };
    let file = dir.path().join("token");
    fs::write(
        &file,
        consul.token("one", "key \"shop/a\" { policy = \"read\" }"),
    )
    .unwrap();
    let client = client(&Config::new(consul.url()), Some(&file));
    consul.send("PUT", "/v1/kv/shop/a", &json!("one"));
    consul.send("PUT", "/v1/kv/bank/a", &json!("two"));
    assert!(
        watch_key(&client, "shop/a")
            .unwrap()
            .next()
            .await
            .unwrap()
            .is_some()
    );
    let denied = watch_key(&client, "bank/a").unwrap().next().await;
    assert!(
        matches!(denied, Err(Error::Status { status: 403, .. })),
        "{denied:?}"
    );
    let denied = watch_prefix(&client, "bank/").unwrap().next().await;
    assert!(matches!(denied, Err(Error::Filtered { .. })), "{denied:?}");
}

#[test]
fn keys_that_can_not_be_asked_for_are_refused() {
    let client = client(&Config::new("http://127.0.0.1:1"), None);
    for bad in ["", "/", "/a", "a//b", "a/../b", "."] {
        assert!(
            matches!(watch_key(&client, bad), Err(Error::Setting { .. })),
            "{bad}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_as_a_rule_seen_within_half_a_second() {
    let dir = TempDir::new().unwrap();
    let Some(consul) = Consul::start(dir.path()) else {
        return;
    };
    let registry = start(plain(&consul), SourceConfig::default());
    let mut watch = registry.watch(&orders());
    until(&mut watch, |list| list.standing() == Standing::Absent).await;
    let mut times = Vec::new();
    for round in 0..20 {
        let tags = json!({ "Tags": [format!("round {round}")] });
        let start = Instant::now();
        tokio::task::block_in_place(|| register(&consul, "o-1", &tags));
        until(&mut watch, |list| {
            list.iter()
                .any(|found| found.tags == [format!("round {round}")])
        })
        .await;
        times.push(start.elapsed());
    }
    times.sort();
    // The machine may be busy with other tests; what is kept is that no pause of ours comes in between.
    assert!(
        times[times.len() / 2] < Duration::from_millis(500),
        "{times:?}"
    );
}
