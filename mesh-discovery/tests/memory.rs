//! The registry in memory, as a test uses it.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::time::Duration;

use mesh_discovery::Condition;
use mesh_discovery::Discover as _;
use mesh_discovery::Endpoint;
use mesh_discovery::MemoryFault;
use mesh_discovery::MemoryRegistry;
use mesh_discovery::Register as _;
use mesh_discovery::Registration;
use mesh_discovery::RegistryConfig;
use mesh_discovery::Renewed;
use mesh_discovery::ServiceName;

fn orders() -> ServiceName {
    ServiceName::parse("orders").unwrap()
}

fn at(port: u16) -> Endpoint {
    Endpoint::new("10.0.0.7".parse().unwrap(), port)
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Runs a test beside the registry's driver.
async fn run(test: impl AsyncFnOnce(&MemoryRegistry)) {
    let (registry, driver) = MemoryRegistry::new(RegistryConfig::new("memory"));
    tokio::select! {
        () = driver => panic!("a driver does not end by itself"),
        () = test(&registry) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_is_found_until_it_is_taken_away() {
    run(async |registry| {
        let of = Registration::new(orders(), at(1));
        registry.insert(&orders(), at(2));
        let mut watch = registry.watch(&orders());
        assert_eq!(watch.resolved().await.unwrap().len(), 1);
        registry.register(&of).await.unwrap();
        assert_eq!(
            registry.renew(&of, Condition::Warning).await.unwrap(),
            Renewed::Kept
        );
        pass(1).await;
        assert_eq!(watch.latest()[0].condition, Condition::Warning);
        assert_eq!(watch.latest().len(), 2);
        registry.deregister(&of).await.unwrap();
        registry.deregister(&of).await.unwrap();
        pass(1).await;
        assert_eq!(watch.latest().len(), 1);
        assert_eq!(registry.endpoints(&orders()), [at(2)]);
        registry.clear();
        assert_eq!(
            registry.renew(&of, Condition::Passing).await.unwrap(),
            Renewed::Forgotten
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn does_what_it_is_told_to_do_wrong() {
    run(async |registry| {
        let of = Registration::new(orders(), at(1));
        registry.register(&of).await.unwrap();
        let mut watch = registry.watch(&orders());
        watch.resolved().await.unwrap();
        registry.set_fault(MemoryFault::Fails);
        registry.register(&of).await.unwrap_err();
        pass(1).await;
        assert!(watch.latest().is_stale());
        let report = registry.reports(&orders()).remove(0);
        assert_eq!(
            report.failure.as_deref(),
            Some("the registry in memory was told to fail")
        );

        registry.set_fault(MemoryFault::None);
        pass(1).await;
        assert!(!watch.latest().is_stale());
        registry.set_fault(MemoryFault::Hangs);
        let attempt = registry.renew(&of, Condition::Passing);
        tokio::time::timeout(Duration::from_mins(1), attempt)
            .await
            .unwrap_err();
        assert!(!watch.latest().is_stale(), "nobody knows yet");

        registry.set_fault(MemoryFault::Empty);
        pass(1).await;
        assert_eq!((watch.latest().len(), watch.latest().is_stale()), (1, true));
        assert_eq!(registry.endpoints(&orders()).len(), 1);
        pass(60).await;
        assert!(watch.latest().is_empty(), "it stood by it");
    })
    .await;
}
