//! The table with services that are only names.

use mesh_discovery::Driver;
use mesh_discovery::Endpoint;
use mesh_discovery::Registry;
use mesh_discovery::RegistryConfig;
use tokio::runtime::Handle;

use super::*;

/// A registry that knows what `known` says, and answers nothing else where it is silent.
fn registry(known: impl Fn(&str) -> Option<usize> + Send + Sync + 'static) -> Arc<dyn Discover> {
    let (registry, wants) = Registry::new(RegistryConfig::new("test"));
    let known = Arc::new(known);
    let driver = Driver::follow_each(wants, move |reporter| {
        let known = Arc::clone(&known);
        async move {
            let name = reporter.service().as_str().to_owned();
            let Some(count) = known(&name) else {
                return std::future::pending().await;
            };
            let host = || "10.0.0.7".parse().unwrap();
            let ports = 1..=u16::try_from(count).unwrap();
            reporter.found(ports.map(|port| Endpoint::new(host(), port)).collect());
        }
    });
    Tasks::new(Handle::current()).start(driver);
    Arc::new(registry)
}

fn services(discovery: Arc<dyn Discover>) -> Services<String> {
    let make = |name: &ServiceName, mut watch: Watch| {
        let work: Work = Box::pin(async move { while watch.changed().await.is_ok() {} });
        Ok((Arc::new(name.to_string()), work))
    };
    let tasks = Tasks::new(Handle::current());
    Services::new(&[], (discovery, true), Box::new(make), tasks).unwrap()
}

fn count(table: &Services<String>) -> usize {
    table.table.load().len()
}

#[tokio::test(start_paused = true)]
async fn a_service_is_looked_up_once_and_then_known() {
    let table = services(registry(|_| Some(1)));
    assert!(table.get("orders").is_none());
    let (one, other) = tokio::join!(table.find("orders"), table.find("orders"));
    assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
    assert!(table.get("orders").is_some());
    assert_eq!(count(&table), 1);
}

#[tokio::test(start_paused = true)]
async fn names_that_mean_nothing_do_not_get_into_the_table() {
    // threat 51
    let table = services(registry(|name| Some(usize::from(name == "orders"))));
    table.find("orders").await.unwrap();
    let mut refused = 0;
    for number in 0..10_000 {
        match table.find(&format!("made-up-{number}")).await {
            Err(NotFound::Unknown) => {}
            Err(NotFound::TooMany) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    for bad in ["", "a b", "../etc", &"x".repeat(254)] {
        assert_eq!(table.find(bad).await, Err(NotFound::Unknown));
    }
    assert_eq!(count(&table), 1);
    assert_eq!(table.asked.lock().len(), MAX_ASKED);
    assert_eq!(refused, 10_000 - MAX_ASKED);
    assert!(table.find("orders").await.is_ok(), "what is known goes on");
    tokio::time::advance(REMEMBER_ASKED).await;
    assert_eq!(table.find("later").await, Err(NotFound::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_silent_registry_is_waited_for_a_while_and_named() {
    let table = services(registry(|_| None));
    let began = tokio::time::Instant::now();
    let answer = table.find("orders").await;
    assert_eq!(
        answer,
        Err(NotFound::NoAnswer("test: no answer yet".to_owned()))
    );
    assert_eq!(began.elapsed(), FIRST_ANSWER);
    assert_eq!(count(&table), 0);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_calls_is_forgotten_and_its_subscription_ends() {
    let discovery = registry(|_| Some(1));
    let table = services(Arc::clone(&discovery));
    table.find("orders").await.unwrap();
    let held = table.find("users").await.unwrap();
    table.forget_unused();
    assert_eq!(count(&table), 2, "both were called since");
    table.forget_unused();
    assert!(table.get("orders").is_none());
    assert!(table.get("users").is_some(), "somebody holds it");
    drop(held);
    let orders = ServiceName::parse("orders").unwrap();
    let ended = async {
        while !discovery.reports(&orders).is_empty() {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    };
    let limit = Duration::from_mins(3);
    tokio::time::timeout(limit, ended).await.unwrap();
    assert!(table.find("orders").await.is_ok(), "and is found again");
}

#[tokio::test(start_paused = true)]
async fn more_services_than_the_table_holds_are_refused() {
    let table = services(registry(|_| Some(1)));
    for number in 0..MAX_SERVICES {
        table.find(&format!("s{number}")).await.unwrap();
    }
    assert_eq!(table.find("more").await, Err(NotFound::TooMany));
    table.forget_unused();
    table.forget_unused();
    table.find("more").await.unwrap();
}
