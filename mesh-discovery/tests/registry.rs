//! What every source that asks a registry has in common, with a registry that the test plays itself.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test helper may panic")]

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt as _;
use mesh_discovery::Admission;
use mesh_discovery::Discover as _;
use mesh_discovery::Driver;
use mesh_discovery::Endpoint;
use mesh_discovery::Endpoints;
use mesh_discovery::Error;
use mesh_discovery::Evidence;
use mesh_discovery::ExceptionReason;
use mesh_discovery::Recall;
use mesh_discovery::Registry;
use mesh_discovery::RegistryConfig;
use mesh_discovery::Reporter;
use mesh_discovery::ServiceName;
use mesh_discovery::SourceReport;
use mesh_discovery::Staleness;
use mesh_discovery::Standing;
use mesh_discovery::Status;
use mesh_discovery::Want;
use mesh_discovery::Wants;
use mesh_discovery::Watch;

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn at(ports: &[u16]) -> Vec<Endpoint> {
    let endpoint = |port: &u16| Endpoint::new("10.0.0.7".parse().unwrap(), *port);
    ports.iter().map(endpoint).collect()
}

fn ports(watch: &Watch) -> Vec<u16> {
    watch
        .current()
        .iter()
        .map(|endpoint| endpoint.port)
        .collect()
}

/// What comes now, if anything.
fn next(wants: &mut Wants) -> Option<Want> {
    wants.next().now_or_never()
}

fn begun(wants: &mut Wants) -> Reporter {
    match next(wants) {
        Some(Want::Begin(reporter)) => reporter,
        other => panic!("{other:?}"),
    }
}

fn report(registry: &Registry, service: &ServiceName) -> SourceReport {
    let mut reports = registry.reports(service);
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

/// Lets time pass, and the source do what it has to do meanwhile.
async fn pass(wants: &mut Wants, time: Duration) -> Vec<Want> {
    let end = tokio::time::Instant::now() + time;
    let mut found = Vec::new();
    while let Ok(want) = tokio::time::timeout_at(end, wants.next()).await {
        found.push(want);
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_service_is_asked_for_when_it_is_watched_and_no_longer_when_it_is_not() {
    let (registry, mut wants) = Registry::new(RegistryConfig::new("model"));
    assert!(next(&mut wants).is_none());
    let orders = name("orders");
    let watch = registry.watch(&orders);
    let second = registry.watch(&orders);
    assert_eq!(begun(&mut wants).service(), &orders);
    assert!(next(&mut wants).is_none(), "once for both");
    drop(watch);
    assert!(pass(&mut wants, Duration::from_mins(2)).await.is_empty());
    drop(second);
    let ended = pass(&mut wants, Duration::from_secs(61)).await;
    assert!(matches!(&ended[..], [Want::End(service)] if *service == orders));
    assert!(registry.reports(&orders).is_empty());
    let _third = registry.watch(&orders);
    assert_eq!(begun(&mut wants).service(), &orders);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_watched_again_soon_keeps_its_list() {
    let (registry, mut wants) = Registry::new(RegistryConfig::new("model"));
    let orders = name("orders");
    let watch = registry.watch(&orders);
    begun(&mut wants).found(at(&[1]));
    drop(watch);
    assert!(pass(&mut wants, Duration::from_secs(29)).await.is_empty());
    let watch = registry.watch(&orders);
    assert_eq!(ports(&watch), [1]);
    assert!(pass(&mut wants, Duration::from_mins(5)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_service_comes_before_its_new_beginning() {
    let (registry, mut wants) = Registry::new(RegistryConfig::new("model"));
    let (orders, users) = (name("orders"), name("users"));
    drop((registry.watch(&orders), registry.watch(&users)));
    let old = [begun(&mut wants), begun(&mut wants)];
    // Both end in one sweep; one is given out, the other waits.
    let Want::End(_first) = wants.next().await else {
        panic!("nobody watches");
    };
    let watches = [registry.watch(&orders), registry.watch(&users)];
    assert!(matches!(next(&mut wants), Some(Want::End(_))));
    let new = [begun(&mut wants), begun(&mut wants)];
    for reporter in old {
        reporter.found(at(&[1]));
    }
    assert_eq!(
        watches.each_ref().map(ports),
        [Vec::<u16>::new(), Vec::new()],
        "of the old beginning"
    );
    for reporter in new {
        reporter.found(at(&[2]));
    }
    assert_eq!(watches.each_ref().map(ports), [[2], [2]]);
}

#[tokio::test(start_paused = true)]
async fn answers_and_failures_reach_watchers_and_reports() {
    let (registry, mut wants) = Registry::new(RegistryConfig::new("model"));
    let orders = name("orders");
    let mut watch = registry.watch(&orders);
    let reporter = begun(&mut wants);
    assert_eq!(watch.current().standing(), Standing::Pending);
    let refused = io::Error::other("connection\nrefused");
    reporter.failed(&refused);
    assert_eq!(watch.current().standing(), Standing::Pending);
    let failed = report(&registry, &orders);
    assert_eq!(failed.failure.as_deref(), Some("connectionrefused"));
    assert_eq!((failed.answered_at, failed.endpoints), (None, 0));

    reporter.found(at(&[1, 2]));
    assert_eq!(watch.resolved().await.unwrap().len(), 2);
    assert_eq!(watch.latest()[0].source.as_deref(), Some("model"));
    let fresh = report(&registry, &orders);
    assert_eq!(
        (fresh.standing, fresh.endpoints, fresh.failure),
        (Standing::Fresh, 2, None)
    );
    assert!(fresh.answered_at.is_some() && fresh.changed_at.is_some() && fresh.is_used);

    pass(&mut wants, Duration::from_secs(1)).await;
    reporter.failed(&refused);
    assert_eq!(
        watch.changed().await.unwrap().standing(),
        Standing::Stale(Staleness::Unreachable)
    );
    assert_eq!(watch.latest().len(), 2);
    pass(&mut wants, Duration::from_secs(1)).await;
    reporter.confirmed();
    assert_eq!(watch.changed().await.unwrap().standing(), Standing::Fresh);
}

// threat 51
#[tokio::test(start_paused = true)]
async fn endpoints_that_can_not_be_used_are_left_out_and_an_answer_of_them_alone_is_a_failure() {
    let (registry, mut wants) = Registry::new(RegistryConfig::new("model"));
    let orders = name("orders");
    let watch = registry.watch(&orders);
    let reporter = begun(&mut wants);
    let mut list = at(&[1, 0, 2, 2]);
    reporter.found(list.clone());
    assert_eq!(ports(&watch), [1, 2]);
    assert_eq!(report(&registry, &orders).refused, 2);
    pass(&mut wants, Duration::from_secs(1)).await;
    list.retain(|endpoint| endpoint.port == 0);
    reporter.found(list);
    assert_eq!(ports(&watch), [1, 2]);
    assert!(watch.current().is_stale());
    assert!(report(&registry, &orders).failure.unwrap().contains("port"));
    pass(&mut wants, Duration::from_secs(1)).await;
    let many = vec![at(&[1]).remove(0); 1_000_000];
    reporter.found(many);
    assert_eq!(ports(&watch), [1, 2]);
    assert!(
        report(&registry, &orders)
            .failure
            .unwrap()
            .contains("10000")
    );
}

/// Says of the ports in it that they work.
struct Works(Mutex<Vec<u16>>);

impl Evidence for Works {
    fn status(&self, service: &ServiceName, endpoint: &Endpoint) -> Status {
        assert_eq!(service.as_str(), "orders");
        if self.0.lock().unwrap().contains(&endpoint.port) {
            Status::Healthy
        } else {
            Status::Unknown
        }
    }
}

// threat 50
#[tokio::test(start_paused = true)]
async fn time_and_checks_decide_about_an_emptied_list() {
    let works = Arc::new(Works(Mutex::new(vec![2])));
    let config = RegistryConfig::new("model").with_evidence(Arc::<Works>::clone(&works));
    let (registry, mut wants) = Registry::new(config);
    let orders = name("orders");
    let watch = registry.watch(&orders);
    let reporter = begun(&mut wants);
    reporter.found(at(&[1, 2]));
    pass(&mut wants, Duration::from_secs(1)).await;
    reporter.found(Vec::new());
    assert_eq!(ports(&watch), [1, 2]);
    let exceptions = report(&registry, &orders).exceptions;
    assert_eq!(exceptions.len(), 2);
    assert!(
        exceptions
            .iter()
            .all(|one| one.reason == ExceptionReason::WithdrawalNotBelieved)
    );
    pass(&mut wants, Duration::from_secs(61)).await;
    assert_eq!(ports(&watch), [2]);
    assert_eq!(
        watch.current().standing(),
        Standing::Stale(Staleness::Withdrawn)
    );
    works.0.lock().unwrap().clear();
    pass(&mut wants, Duration::from_secs(2)).await;
    assert_eq!(watch.current().standing(), Standing::Absent);
}

/// Remembers one list, whoever asks.
#[derive(Default)]
struct Memory(Mutex<Option<Endpoints>>);

impl Recall for Memory {
    fn recall(&self, source: &Arc<str>, _service: &ServiceName) -> Option<Endpoints> {
        assert_eq!(&**source, "model");
        self.0.lock().unwrap().clone()
    }

    fn remember(&self, _source: &Arc<str>, _service: &ServiceName, endpoints: &Endpoints) {
        *self.0.lock().unwrap() = Some(endpoints.clone());
    }
}

/// Lets in all but one port.
struct AllBut(u16);

impl Admission for AllBut {
    fn admit(&self, _service: &ServiceName, endpoint: &Endpoint) -> Result<(), Error> {
        if endpoint.port == self.0 {
            return Err(Error::not_admitted(&endpoint.id, "not today"));
        }
        Ok(())
    }
}

// threat 50
#[tokio::test(start_paused = true)]
async fn begins_with_what_is_remembered_and_judges_the_first_answer_by_it() {
    let memory = Arc::new(Memory::default());
    let config = || RegistryConfig::new("model").with_cache(Arc::<Memory>::clone(&memory));
    let orders = name("orders");
    {
        let (registry, mut wants) = Registry::new(config());
        let watch = registry.watch(&orders);
        assert_eq!(watch.current().standing(), Standing::Pending);
        let reporter = begun(&mut wants);
        reporter.found(at(&[1, 2, 3]));
        pass(&mut wants, Duration::from_secs(1)).await;
        reporter.failed(&io::Error::other("gone"));
    }
    let (registry, mut wants) = Registry::new(config().with_admission(Arc::new(AllBut(3))));
    let watch = registry.watch(&orders);
    assert_eq!(
        watch.current().standing(),
        Standing::Stale(Staleness::Restored)
    );
    assert_eq!(ports(&watch), [1, 2], "under the rules of now");
    let reporter = begun(&mut wants);
    reporter.failed(&io::Error::other("still gone"));
    assert_eq!(ports(&watch), [1, 2]);
    assert_eq!(
        memory.0.lock().unwrap().as_ref().unwrap().len(),
        3,
        "nobody stood by it"
    );
    reporter.found(Vec::new());
    assert_eq!(
        watch.current().standing(),
        Standing::Stale(Staleness::Withdrawn)
    );
    assert_eq!(memory.0.lock().unwrap().as_ref().unwrap().len(), 2);
    pass(&mut wants, Duration::from_secs(61)).await;
    assert_eq!(watch.current().standing(), Standing::Absent);
    assert!(memory.0.lock().unwrap().as_ref().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_changes_come_as_few_and_the_last_one_comes() {
    let (registry, mut wants) = Registry::new(RegistryConfig::new("model"));
    let mut watch = registry.watch(&name("orders"));
    let reporter = begun(&mut wants);
    let mut seen = 0;
    for port in 1..=100 {
        reporter.found((1..=port).map(|port| at(&[port]).remove(0)).collect());
        pass(&mut wants, Duration::from_millis(10)).await;
        seen += usize::from(watch.changed().now_or_never().is_some());
    }
    pass(&mut wants, Duration::from_millis(100)).await;
    assert_eq!(watch.current().len(), 100);
    assert!((9..=11).contains(&seen), "{seen} in a second");
}

// threat 51
#[tokio::test(start_paused = true)]
async fn past_the_most_services_a_watch_comes_back_closed() {
    let (registry, mut wants) = Registry::new(RegistryConfig::new("model"));
    let watches: Vec<_> = (0..10_000)
        .map(|n| registry.watch(&name(&format!("s{n}"))))
        .collect();
    let mut one_more = registry.watch(&name("one-more"));
    one_more.changed().await.unwrap_err();
    assert_eq!(one_more.current().standing(), Standing::Pending);
    drop(watches);
    let wanted = pass(&mut wants, Duration::from_secs(61)).await;
    let ended = wanted.iter().filter(|want| matches!(want, Want::End(_)));
    assert_eq!(ended.count(), 10_000);
    let mut room = registry.watch(&name("one-more"));
    assert!(room.changed().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn watches_close_when_the_source_ends() {
    let (registry, wants) = Registry::new(RegistryConfig::new("model"));
    let mut watch = registry.watch(&name("orders"));
    let driver = Driver::follow_each(wants, |reporter| async move {
        reporter.found(at(&[1]));
        // Something is due, which must not keep the watch open.
        reporter.found(at(&[2]));
        std::future::pending::<()>().await;
    });
    {
        let mut driver = std::pin::pin!(driver);
        tokio::select! {
            () = &mut driver => panic!("a driver does not end by itself"),
            _ = watch.resolved() => {}
        }
        assert!(watch.changed().now_or_never().is_none());
    }
    assert_eq!(ports(&watch), [1], "the last list stays");
    watch.changed().await.unwrap_err();
    registry.watch(&name("users")).changed().await.unwrap_err();
}

/// A name in a list for as long as this lives.
struct Mark(Arc<Mutex<Vec<String>>>, String);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.lock().unwrap().retain(|name| *name != self.1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_follows_each_service_for_as_long_as_it_is_watched() {
    let (registry, wants) = Registry::new(RegistryConfig::new("model"));
    let running: Arc<Mutex<Vec<String>>> = Arc::default();
    let all = Arc::clone(&running);
    let driver = Driver::follow_each(wants, move |reporter| {
        let service = reporter.service().to_string();
        all.lock().unwrap().push(service.clone());
        let mark = Mark(Arc::clone(&all), service);
        async move {
            let _mark = mark;
            reporter.found(at(&[1]));
            std::future::pending::<()>().await;
        }
    });
    let mut driver = std::pin::pin!(driver);
    let mut orders = registry.watch(&name("orders"));
    let users = registry.watch(&name("users"));
    tokio::select! {
        () = &mut driver => panic!("a driver does not end by itself"),
        _ = orders.resolved() => {}
    }
    assert_eq!(running.lock().unwrap().len(), 2);
    drop(users);
    tokio::select! {
        () = &mut driver => panic!("a driver does not end by itself"),
        () = tokio::time::sleep(Duration::from_secs(61)) => {}
    }
    assert_eq!(*running.lock().unwrap(), ["orders"]);
}
