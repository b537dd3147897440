//! The source and the registrar against a real etcd, and what befalls it.

#![cfg(feature = "etcd")]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use mesh_discovery::Belief;
use mesh_discovery::Condition;
use mesh_discovery::Discover as _;
use mesh_discovery::Endpoint;
use mesh_discovery::Endpoints;
use mesh_discovery::Register as _;
use mesh_discovery::Registration;
use mesh_discovery::Registry;
use mesh_discovery::RegistryConfig;
use mesh_discovery::Renewed;
use mesh_discovery::ServiceName;
use mesh_discovery::Staleness;
use mesh_discovery::Standing;
use mesh_discovery::TlsConfig;
use mesh_discovery::TlsIdentity;
use mesh_discovery::Watch;
use mesh_discovery::etcd::Client;
use mesh_discovery::etcd::Config;
use mesh_discovery::etcd::Credentials;
use mesh_discovery::etcd::Error;
use mesh_discovery::etcd::Registrar;
use mesh_discovery::etcd::RegistrarConfig;
use mesh_discovery::etcd::SourceConfig;
use mesh_discovery::etcd::source;
use mesh_discovery::keep_registered;
use tokio::task::JoinHandle;

use support::certificates::Certificates;
use support::etcd::Etcd;
use support::process::lasts;
use support::relay::Flow;
use support::relay::Relay;

/// A source that runs beside the test.
struct Running {
    registry: Registry,
    driver: JoinHandle<()>,
}

impl Running {
    #[expect(
        clippy::disallowed_methods,
        reason = "the driver of a test runs beside it"
    )]
    fn start(client: Client) -> Self {
        // What etcd says is what these tests are about, and not what is believed of it.
        let belief = Belief::default().with_grace(Duration::ZERO);
        let belief = belief.with_damping(None).unwrap();
        let config = RegistryConfig::new("etcd").with_belief(belief);
        let (registry, driver) = source(client, &SourceConfig::default(), config).unwrap();
        let driver = tokio::task::spawn(driver);
        Self { registry, driver }
    }

    fn watch(&self, service: &str) -> Watch {
        self.registry.watch(&ServiceName::parse(service).unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn client_of(config: &Config) -> Client {
    // Always the first member first.
    Client::new(config, Arc::new(|| 0)).unwrap()
}

fn client(etcd: &Etcd) -> Client {
    client_of(&Config::new(etcd.urls()))
}

fn put(etcd: &Etcd, service: &str, id: &str) {
    let value = format!(r#"{{"host":"10.0.0.7","port":80,"zone":"{id}"}}"#);
    etcd.put(&format!("/mesh/services/{service}/{id}"), &value);
}

fn delete(etcd: &Etcd, service: &str, id: &str) {
    etcd.delete(&format!("/mesh/services/{service}/{id}"));
}

fn ids(endpoints: &Endpoints) -> BTreeSet<String> {
    let ids = endpoints.iter().map(|endpoint| endpoint.id.clone());
    ids.collect()
}

/// What etcd has of a service.
fn truth(etcd: &Etcd, service: &str) -> BTreeSet<String> {
    let prefix = format!("/mesh/services/{service}/");
    let keys = etcd.get_all(&prefix).into_iter();
    keys.map(|(key, _)| key.strip_prefix(&prefix).unwrap().to_owned())
        .collect()
}

/// Waits until a list is as it should be.
async fn until(what: &str, watch: &mut Watch, mut holds: impl FnMut(&Endpoints) -> bool) {
    let waiting = async {
        while !holds(watch.latest()) {
            watch.changed().await.unwrap();
        }
    };
    let waited = tokio::time::timeout(LIMIT, waiting).await;
    assert!(
        waited.is_ok(),
        "waited in vain until {what}: {:?} {:?}",
        watch.current().standing(),
        ids(&watch.current())
    );
}

async fn until_has(watch: &mut Watch, expected: &[&str]) {
    let expected: BTreeSet<_> = expected.iter().map(|id| (*id).to_owned()).collect();
    until(&format!("it has {expected:?}"), watch, |endpoints| {
        endpoints.standing() == Standing::Fresh && ids(endpoints) == expected
    })
    .await;
}

/// Waits until the source has what etcd has.
async fn until_as(etcd: &Etcd, service: &str, watch: &mut Watch) {
    let expected = truth(etcd, service);
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    until_has(watch, &expected).await;
}

async fn until_stale(watch: &mut Watch) {
    let stale = Standing::Stale(Staleness::Unreachable);
    until("it is stale", watch, |endpoints| {
        endpoints.standing() == stale
    })
    .await;
}

/// Waits until a service has no answer, and tells why.
async fn until_refused(running: &Running, service: &str) -> Arc<str> {
    let service = ServiceName::parse(service).unwrap();
    let waiting = async {
        loop {
            let report = running.registry.reports(&service).pop();
            match report.and_then(|report| report.failure) {
                Some(failure) => break failure,
                None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap()
}

/// A change is to arrive within this after the end of a fault, and within the notice of a fault that does not end.
const LIMIT: Duration = Duration::from_secs(10);

fn registration(id: &str, host: &str) -> Registration {
    let mut endpoint = Endpoint::new(host.parse().unwrap(), 8080);
    id.clone_into(&mut endpoint.id);
    endpoint.zone = Some("a".to_owned());
    endpoint.tags = vec!["blue".to_owned()];
    endpoint
        .metadata
        .insert("team".to_owned(), "shop".to_owned());
    endpoint.spiffe_id = Some("spiffe://example.org/orders".to_owned());
    Registration::new(ServiceName::parse("orders").unwrap(), endpoint)
}

// threat 51
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_is_pushed_and_what_is_wrong_is_left_out_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    put(&etcd, "orders", "1");
    put(&etcd, "orders-v2", "other");
    let running = Running::start(client(&etcd));
    let mut orders = running.watch("orders");
    let mut nobody = running.watch("nobody");
    until_has(&mut orders, &["1"]).await;
    until("nobody is known to be absent", &mut nobody, |endpoints| {
        endpoints.standing() == Standing::Absent
    })
    .await;
    put(&etcd, "orders", "2");
    put(&etcd, "orders", "3");
    until_has(&mut orders, &["1", "2", "3"]).await;
    etcd.put("/mesh/services/orders/4", r#"{"host":"10.0.0.7","port":0}"#);
    etcd.put("/mesh/services/orders/5", "not json");
    delete(&etcd, "orders", "2");
    until_has(&mut orders, &["1", "3"]).await;
    put(&etcd, "orders", "5");
    until_has(&mut orders, &["1", "3", "5"]).await;
    put(&etcd, "nobody", "somebody");
    until_has(&mut nobody, &["somebody"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_is_seen_changes_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    put(&etcd, "orders", "1");
    put(&etcd, "orders", "2");
    let client = client(&etcd);
    let running = Running::start(client.clone());
    let mut orders = running.watch("orders");
    let registrar = Registrar::new(client, &RegistrarConfig::default()).unwrap();
    assert_eq!(registrar.renew_every(), Duration::from_secs(5));
    let ours = registration("3", "10.0.0.9");
    registrar.register(&ours).await.unwrap();
    until_has(&mut orders, &["1", "2", "3"]).await;
    let seen = orders.current();
    let mut expected = ours.endpoint.clone();
    expected.source = Some("etcd".into());
    assert_eq!(**seen.iter().find(|seen| seen.id == "3").unwrap(), expected);

    let renewed = registrar.renew(&ours, Condition::Draining).await.unwrap();
    assert_eq!(renewed, Renewed::Kept);
    until("it drains", &mut orders, |endpoints| {
        endpoints
            .iter()
            .any(|seen| seen.id == "3" && seen.condition == Condition::Draining)
    })
    .await;
    registrar.deregister(&ours).await.unwrap();
    until_has(&mut orders, &["1", "2"]).await;
    // What is not there is no error, and it is known to be gone.
    registrar.deregister(&ours).await.unwrap();
    let renewed = registrar.renew(&ours, Condition::Passing).await.unwrap();
    assert_eq!(renewed, Renewed::Forgotten);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_lasts_as_long_as_its_lease() {
    let dir = tempfile::tempdir().unwrap();
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    put(&etcd, "orders", "1");
    let running = Running::start(client(&etcd));
    let mut orders = running.watch("orders");
    let config = RegistrarConfig::default().with_ttl(Duration::from_secs(5));
    let registrar = Registrar::new(client(&etcd), &config).unwrap();
    let ours = registration("2", "10.0.0.9");
    registrar.register(&ours).await.unwrap();
    until_has(&mut orders, &["1", "2"]).await;
    // Renewed, it outlives its time to live.
    for _ in 0..7 {
        lasts(Duration::from_secs(1));
        let renewed = registrar.renew(&ours, Condition::Passing).await.unwrap();
        assert_eq!(renewed, Renewed::Kept);
    }
    assert!(ids(&orders.current()).contains("2"));
    // Forgotten, it goes.
    drop(registrar);
    until_has(&mut orders, &["1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_etcd_has_lost_is_forgotten_and_one_that_is_ours_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let registrar = |()| Registrar::new(client(&etcd), &RegistrarConfig::default()).unwrap();
    let (first, second) = (registrar(()), registrar(()));
    let ours = registration("1", "10.0.0.9");
    let theirs = registration("1", "10.0.0.10");
    let renew = async |registrar: &Registrar, registration: &Registration| {
        registrar
            .renew(registration, Condition::Passing)
            .await
            .unwrap()
    };
    first.register(&ours).await.unwrap();
    // By hand.
    delete(&etcd, "orders", "1");
    assert_eq!(renew(&first, &ours).await, Renewed::Forgotten);
    first.register(&ours).await.unwrap();
    assert_eq!(renew(&first, &ours).await, Renewed::Kept);

    // The later one wins, and the earlier one does not take it back while it is there.
    second.register(&theirs).await.unwrap();
    let written = || etcd.get_all("/mesh/services/orders/1").pop().unwrap().1;
    assert!(written().contains("10.0.0.10"));
    assert_eq!(renew(&first, &ours).await, Renewed::Kept);
    assert_eq!(renew(&second, &theirs).await, Renewed::Kept);
    assert!(written().contains("10.0.0.10"));
    second.deregister(&theirs).await.unwrap();
    assert_eq!(renew(&first, &ours).await, Renewed::Forgotten);
    first.register(&ours).await.unwrap();

    // A life after a crash writes over its own key, and takes it away with it, or one that it never wrote.
    let again = registrar(());
    again.register(&ours).await.unwrap();
    again.deregister(&ours).await.unwrap();
    assert_eq!(truth(&etcd, "orders").len(), 0);
    first.register(&ours).await.unwrap();
    registrar(()).deregister(&theirs).await.unwrap();
    assert_eq!(truth(&etcd, "orders").len(), 1);
    registrar(()).deregister(&ours).await.unwrap();
    assert_eq!(truth(&etcd, "orders").len(), 0);
}

// threat 50
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_while_etcd_was_away_and_compacted_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let relay = Relay::start(etcd.port());
    let config = Config::new([format!("http://127.0.0.1:{}", relay.port)]);
    let running = Running::start(client_of(&config));
    let mut orders = running.watch("orders");
    put(&etcd, "orders", "1");
    put(&etcd, "orders", "2");
    until_has(&mut orders, &["1", "2"]).await;

    relay.let_pass(Flow::None);
    relay.cut();
    put(&etcd, "orders", "3");
    delete(&etcd, "orders", "1");
    etcd.compact();
    until_stale(&mut orders).await;
    assert_eq!(orders.current().len(), 2);
    relay.let_pass(Flow::Both);
    relay.cut();
    until_has(&mut orders, &["2", "3"]).await;

    etcd.member_mut(0).server.process.kill();
    etcd.member_mut(0).server.start_again();
    etcd.wait_ready();
    put(&etcd, "orders", "4");
    until_has(&mut orders, &["2", "3", "4"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_is_compacted_before_its_watch_begins_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let relay = Relay::start(etcd.port());
    let config = Config::new([format!("http://127.0.0.1:{}", relay.port)]);
    let running = Running::start(client_of(&config));
    put(&etcd, "orders", "1");
    put(&etcd, "carts", "1");
    let mut carts = running.watch("carts");
    until_has(&mut carts, &["1"]).await;
    // The answer is on its way while what follows it is forgotten.
    relay.let_pass(Flow::There);
    let mut orders = running.watch("orders");
    lasts(Duration::from_millis(500));
    put(&etcd, "orders", "2");
    delete(&etcd, "orders", "1");
    etcd.compact();
    relay.let_pass(Flow::Both);
    until_has(&mut orders, &["2"]).await;
    put(&etcd, "orders", "3");
    until_has(&mut orders, &["2", "3"]).await;
    assert_eq!(carts.current().standing(), Standing::Fresh);
}

// threat 50
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_etcd_keeps_the_list_and_one_that_thaws_is_followed_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let running = Running::start(client(&etcd));
    let mut orders = running.watch("orders");
    put(&etcd, "orders", "1");
    until_has(&mut orders, &["1"]).await;
    etcd.member(0).server.process.freeze();
    lasts(Duration::from_secs(10));
    until_stale(&mut orders).await;
    assert_eq!(ids(&orders.current()).len(), 1);
    etcd.member(0).server.process.thaw();
    put(&etcd, "orders", "2");
    until_has(&mut orders, &["1", "2"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_member_dies_or_freezes_no_event_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut etcd) = Etcd::start_cluster(dir.path()) else {
        return;
    };
    let running = Running::start(client(&etcd));
    let mut orders = running.watch("orders");
    let mut number = 0;
    // Some that come and some that go, in an order that is the same each time.
    let mut churn = |etcd: &Etcd, times| {
        for _ in 0..times {
            number += 1;
            put(etcd, "orders", &(number * 7 % 50).to_string());
            delete(etcd, "orders", &(number * 11 % 50).to_string());
        }
    };
    churn(&etcd, 40);
    until_as(&etcd, "orders", &mut orders).await;
    for _ in 0..2 {
        let leader = etcd.leader();
        etcd.member_mut(leader).server.process.kill();
        churn(&etcd, 40);
        until_as(&etcd, "orders", &mut orders).await;
        etcd.member_mut(leader).server.start_again();
        etcd.wait_ready();
        churn(&etcd, 40);
        until_as(&etcd, "orders", &mut orders).await;
    }
    for member in 0..3 {
        etcd.member(member).server.process.freeze();
        // Each of these asks a member that is frozen first.
        churn(&etcd, 3);
        until_as(&etcd, "orders", &mut orders).await;
        etcd.member(member).server.process.thaw();
        etcd.wait_ready();
    }
}

// threat 50
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_majority_is_not_believed_to_be_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut etcd) = Etcd::start_cluster(dir.path()) else {
        return;
    };
    let running = Running::start(client_of(&Config::new([etcd.urls().remove(0)])));
    let mut orders = running.watch("orders");
    put(&etcd, "orders", "1");
    until_has(&mut orders, &["1"]).await;
    for other in [1, 2] {
        etcd.member_mut(other).server.process.kill();
    }
    until_stale(&mut orders).await;
    assert_eq!(ids(&orders.current()).len(), 1);
    etcd.member_mut(1).server.start_again();
    until_has(&mut orders, &["1"]).await;
    put(&etcd, "orders", "2");
    until_has(&mut orders, &["1", "2"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_lost_its_data_is_believed_even_when_it_is_beyond_the_old_revision() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let relay = Relay::start(etcd.port());
    let config = Config::new([format!("http://127.0.0.1:{}", relay.port)]);
    let running = Running::start(client_of(&config));
    let mut orders = running.watch("orders");
    put(&etcd, "orders", "1");
    put(&etcd, "orders", "2");
    until_has(&mut orders, &["1", "2"]).await;
    relay.let_pass(Flow::None);
    relay.cut();
    etcd.member_mut(0).server.process.kill();
    fs::remove_dir_all(dir.path().join(format!("etcd-{}", etcd.port()))).unwrap();
    etcd.member_mut(0).server.start_again();
    etcd.wait_ready();
    for id in ["3", "4", "5", "6", "2"] {
        put(&etcd, "orders", id);
    }
    relay.let_pass(Flow::Both);
    relay.cut();
    until_has(&mut orders, &["2", "3", "4", "5", "6"]).await;
    put(&etcd, "orders", "7");
    until_has(&mut orders, &["2", "3", "4", "5", "6", "7"]).await;
}

fn as_mesh(etcd: &Etcd, password: &'static str) -> Config {
    let credentials = Credentials::new("mesh", Arc::new(move || Ok(format!("{password}\n"))));
    Config::new(etcd.urls()).with_credentials(credentials)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_expire_or_are_forgotten_are_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut etcd) = Etcd::start_with_flags(dir.path(), &["--auth-token-ttl", "1"]) else {
        return;
    };
    let client = client_of(&as_mesh(&etcd, "secret"));
    let running = Running::start(client.clone());
    let registrar = Registrar::new(client, &RegistrarConfig::default()).unwrap();
    // Before etcd asks for passwords.
    put(&etcd, "orders", "1");
    let mut orders = running.watch("orders");
    until_has(&mut orders, &["1"]).await;
    let ours = registration("2", "10.0.0.9");
    registrar.register(&ours).await.unwrap();

    etcd.require_passwords("mesh", "secret", "/mesh/");
    for _ in 0..3 {
        let renewed = registrar.renew(&ours, Condition::Passing).await.unwrap();
        assert_eq!(renewed, Renewed::Kept);
        lasts(Duration::from_secs(3));
    }
    // A watch that is opened with a token that has expired since.
    put(&etcd, "carts", "1");
    let mut carts = running.watch("carts");
    until_has(&mut carts, &["1"]).await;
    put(&etcd, "carts", "2");
    until_has(&mut carts, &["1", "2"]).await;
    etcd.member_mut(0).server.process.kill();
    etcd.member_mut(0).server.start_again();
    etcd.wait_ready();
    put(&etcd, "carts", "3");
    until_has(&mut carts, &["1", "2", "3"]).await;
    until_has(&mut orders, &["1", "2"]).await;
    let renewed = registrar.renew(&ours, Condition::Warning).await.unwrap();
    assert_eq!(renewed, Renewed::Kept);
}

// threat 50
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_does_not_permit_is_said_and_disturbs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut etcd) = Etcd::start(dir.path()) else {
        return;
    };
    etcd.require_passwords("mesh", "secret", "/mesh/services/orders/");
    put(&etcd, "orders", "1");
    let running = Running::start(client_of(&as_mesh(&etcd, "secret")));
    let mut carts = running.watch("carts");
    let mut orders = running.watch("orders");
    until_has(&mut orders, &["1"]).await;
    let failure = until_refused(&running, "carts").await;
    assert!(failure.contains("permission denied"), "{failure}");
    assert_eq!(carts.latest().standing(), Standing::Pending);

    let wrong = Registrar::new(
        client_of(&as_mesh(&etcd, "wrong-password")),
        &RegistrarConfig::default(),
    )
    .unwrap();
    let error = wrong.register(&registration("2", "10.0.0.9")).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(Error::Login { .. })),
        "{error:?}"
    );
    assert!(!format!("{error} {error:?}").contains("wrong-password"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_show_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path(), "localhost");
    let Some(etcd) = Etcd::start_with_tls(&certificates, dir.path()) else {
        return;
    };
    let read = |path| fs::read(path).unwrap();
    let identity = TlsIdentity::new(read(&certificates.client), read(&certificates.client_key));
    let anonymous = TlsConfig::new(read(&certificates.authority));
    let tls = anonymous.clone().with_identity(identity);
    put(&etcd, "orders", "1");
    let running = Running::start(client_of(&Config::new(etcd.urls()).with_tls(tls)));
    let mut orders = running.watch("orders");
    until_has(&mut orders, &["1"]).await;
    put(&etcd, "orders", "2");
    until_has(&mut orders, &["1", "2"]).await;

    let other = tempfile::tempdir().unwrap();
    let stranger = TlsConfig::new(read(
        &Certificates::make(other.path(), "localhost").authority,
    ));
    for tls in [anonymous, stranger] {
        let client = client_of(&Config::new(etcd.urls()).with_tls(tls));
        let registrar = Registrar::new(client, &RegistrarConfig::default()).unwrap();
        let registered = registrar.register(&registration("3", "10.0.0.9")).await;
        registered.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_seen_within_half_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let running = Running::start(client(&etcd));
    let mut orders = running.watch("orders");
    let mut taken = Vec::new();
    for number in 0..200_u32 {
        // One comes, or the one before goes again, so the last is never the only one.
        let (id, is_new) = (format!("{}", number / 2), number % 2 == 0);
        let id = if number == 1 { "other".to_owned() } else { id };
        if is_new || number == 1 {
            put(&etcd, "orders", &id);
        } else {
            delete(&etcd, "orders", &id);
        }
        let written = tokio::time::Instant::now();
        until("it is seen", &mut orders, |endpoints| {
            ids(endpoints).contains(&id) == (is_new || number == 1)
        })
        .await;
        taken.push(written.elapsed());
    }
    taken.sort();
    let (half, most) = (taken[taken.len() / 2], taken[taken.len() * 99 / 100]);
    assert!(
        most <= Duration::from_millis(500),
        "half within {half:?}, of a hundred one after {most:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_outlives_members_that_die_and_freeze() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut etcd) = Etcd::start_cluster(dir.path()) else {
        return;
    };
    let running = Running::start(client(&etcd));
    let mut orders = running.watch("orders");
    let ours = registration("1", "10.0.0.9");
    let registrar = Registrar::new(client(&etcd), &RegistrarConfig::default()).unwrap();
    let (_condition, conditions) = tokio::sync::watch::channel(Condition::Passing);
    let state = tokio::sync::watch::Sender::default();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let random = || 500;
    let keeping = keep_registered(&registrar, &ours, (conditions, &state), &random, async {
        stopped.await.unwrap();
    });
    let test = async {
        until_has(&mut orders, &["1"]).await;
        let leader = etcd.leader();
        etcd.member_mut(leader).server.process.kill();
        never_without(&mut orders, "1", Duration::from_secs(17)).await;
        etcd.member_mut(leader).server.start_again();
        etcd.wait_ready();
        etcd.member(0).server.process.freeze();
        never_without(&mut orders, "1", Duration::from_secs(17)).await;
        etcd.member(0).server.process.thaw();
        stop.send(()).unwrap();
    };
    tokio::join!(keeping, test);
    until("it is gone", &mut orders, |endpoints| endpoints.is_empty()).await;
}

/// For so long an instance is always there; longer than a lease that nobody renews.
async fn never_without(watch: &mut Watch, id: &str, time: Duration) {
    let gone = async {
        while ids(watch.latest()).contains(id) {
            watch.changed().await.unwrap();
        }
    };
    let gone = tokio::time::timeout(time, gone).await;
    assert!(gone.is_err(), "{id} is gone");
}

// threat 51
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_too_large_is_refused_and_disturbs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let junk = "x".repeat(90_000);
    for number in 0..200 {
        etcd.put(&format!("/mesh/services/large/{number}"), &junk);
    }
    put(&etcd, "orders", "1");
    let running = Running::start(client(&etcd));
    let large = running.watch("large");
    let mut orders = running.watch("orders");
    until_has(&mut orders, &["1"]).await;
    let failure = until_refused(&running, "large").await;
    assert!(failure.contains("16 MiB"), "{failure}");
    assert_eq!(large.current().standing(), Standing::Pending);
    put(&etcd, "orders", "2");
    until_has(&mut orders, &["1", "2"]).await;
}
