//! The driver against a source and a connect function of the test, on paused time.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::collections::HashSet;
use std::future::Ready;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_discovery::Discover;
use mesh_discovery::Endpoint;
use mesh_discovery::Evidence;
use mesh_discovery::HealthConfig;
use mesh_discovery::HealthDriver;
use mesh_discovery::ProbeLimit;
use mesh_discovery::ServiceName;
use mesh_discovery::StaticEntry;
use mesh_discovery::StaticSource;
use mesh_discovery::Status;
use mesh_discovery::Vitals;
use mesh_discovery::Watch;

fn service() -> ServiceName {
    ServiceName::parse("orders").unwrap()
}

fn entries(ports: impl IntoIterator<Item = u16>) -> Vec<StaticEntry> {
    let entry = |port| StaticEntry::new(service(), "10.0.0.7".parse().unwrap(), port);
    ports.into_iter().map(entry).collect()
}

fn ports(watch: &mut Watch) -> Vec<u16> {
    watch
        .latest()
        .iter()
        .map(|endpoint| endpoint.port)
        .collect()
}

/// Ports that refuse a connection now.
#[derive(Clone, Default)]
struct Down(Arc<Mutex<HashSet<u16>>>);

impl Down {
    fn set(&self, ports: &[u16]) {
        *self.0.lock().unwrap() = ports.iter().copied().collect();
    }

    fn connect(&self, endpoint: &Endpoint) -> Ready<io::Result<()>> {
        let is_down = self.0.lock().unwrap().contains(&endpoint.port);
        ready(if is_down {
            Err(io::ErrorKind::ConnectionRefused.into())
        } else {
            Ok(())
        })
    }
}

async fn pass(time: Duration) {
    tokio::time::timeout(time, std::future::pending::<()>())
        .await
        .unwrap_err();
}

/// Runs the driver beside a script and ends with the script.
async fn beside(driver: impl Future<Output = ()>, script: impl Future<Output = ()>) {
    tokio::select! {
        () = driver => panic!("the driver ended before its source"),
        () = script => {}
    }
}

#[tokio::test(start_paused = true)]
async fn leaves_a_dead_endpoint_out_and_takes_it_back() {
    let source = StaticSource::new(entries([1, 2])).unwrap();
    let down = Down::default();
    let probe = down.clone();
    let connect = move |endpoint: Arc<Endpoint>| probe.connect(&endpoint);
    let (health, driver) =
        HealthDriver::new(HealthConfig::default(), source.watch(&service()), connect).unwrap();
    let mut usable = health.watch();

    beside(driver.run(), async {
        pass(Duration::from_secs(1)).await;
        assert!(
            health
                .statuses()
                .iter()
                .all(|found| found.status == Status::Healthy)
        );
        down.set(&[2]);
        pass(Duration::from_secs(21)).await;
        assert_eq!(ports(&mut usable), [1, 2], "two failures are not enough");
        pass(Duration::from_secs(10)).await;
        assert_eq!(ports(&mut usable), [1]);
        down.set(&[]);
        pass(Duration::from_secs(20)).await;
        assert_eq!(ports(&mut usable), [1, 2]);
        down.set(&[1, 2]);
        pass(Duration::from_mins(1)).await;
        assert_eq!(
            ports(&mut usable),
            [1, 2],
            "all are used when none is healthy"
        );
        assert!(
            health
                .statuses()
                .iter()
                .all(|found| found.status == Status::Unhealthy)
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn follows_its_source_and_ends_with_it() {
    let source = StaticSource::new(entries([1])).unwrap();
    let connect = |endpoint: Arc<Endpoint>| Down::default().connect(&endpoint);
    let (health, driver) =
        HealthDriver::new(HealthConfig::default(), source.watch(&service()), connect).unwrap();
    let mut usable = health.watch();
    let script = async {
        source.replace(entries([1, 2])).unwrap();
        assert_eq!(usable.changed().await.unwrap().len(), 2);
        assert_eq!(health.statuses().len(), 2);
        drop(source);
    };
    tokio::join!(driver.run(), script);
    assert_eq!(ports(&mut usable), [1, 2]);
    usable.changed().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_fails_after_its_timeout() {
    let source = StaticSource::new(entries([1, 2])).unwrap();
    let connect = |endpoint: Arc<Endpoint>| async move {
        if endpoint.port == 1 {
            std::future::pending().await
        } else {
            Ok(())
        }
    };
    let (health, driver) =
        HealthDriver::new(HealthConfig::default(), source.watch(&service()), connect).unwrap();
    let mut usable = health.watch();
    beside(driver.run(), async {
        // Three probes of 3 s, 10 s from the end of one to the start of the next.
        pass(Duration::from_millis(28_900)).await;
        assert_eq!(ports(&mut usable), [1, 2]);
        pass(Duration::from_millis(200)).await;
        assert_eq!(ports(&mut usable), [2]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ends_when_nobody_looks_and_what_it_knew_is_no_evidence_any_more() {
    let source = StaticSource::new(entries([1])).unwrap();
    let connect = |endpoint: Arc<Endpoint>| Down::default().connect(&endpoint);
    let (vitals, endpoint) = (Arc::new(Vitals::new()), source.watch(&service()).current());
    let (health, driver) =
        HealthDriver::new(HealthConfig::default(), source.watch(&service()), connect).unwrap();
    let driver = driver.with_vitals(Arc::clone(&vitals), service());
    let script = async {
        pass(Duration::from_secs(1)).await;
        let found = health.statuses();
        assert!(found[0].since.is_some() && found[0].last_probe.is_some());
        assert_eq!(vitals.status(&service(), &endpoint[0]), Status::Healthy);
        drop(health);
    };
    tokio::join!(driver.run(), script);
    assert_eq!(vitals.status(&service(), &endpoint[0]), Status::Unknown);
}

#[tokio::test(start_paused = true)]
async fn services_share_a_limit_and_who_waits_is_not_late() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let limit = ProbeLimit::new(2.try_into().unwrap());
    let make = || {
        let source = StaticSource::new(entries(1..=10)).unwrap();
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        let connect = move |_| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                most.fetch_max(
                    running.fetch_add(1, Ordering::Relaxed) + 1,
                    Ordering::Relaxed,
                );
                pass(Duration::from_secs(2)).await;
                running.fetch_sub(1, Ordering::Relaxed);
                Ok(())
            }
        };
        let watch = source.watch(&service());
        let (health, driver) = HealthDriver::new(HealthConfig::default(), watch, connect).unwrap();
        (source, health, driver.with_limit(limit.clone()))
    };
    let ((_one, first, one), (_two, second, two)) = (make(), make());
    let both = async {
        tokio::join!(one.run(), two.run());
    };
    beside(both, async {
        // 20 probes of 2 s, two at a time.
        pass(Duration::from_millis(20_200)).await;
        for found in first.statuses().iter().chain(&*second.statuses()) {
            assert_eq!(found.status, Status::Healthy, "{:?}", found.reason);
        }
    })
    .await;
    assert_eq!(most.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn never_runs_more_than_64_probes_at_a_time() {
    let source = StaticSource::new(entries(1..=1000)).unwrap();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let connect = move |_| {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        async move {
            most.fetch_max(
                running.fetch_add(1, Ordering::Relaxed) + 1,
                Ordering::Relaxed,
            );
            pass(Duration::from_secs(2)).await;
            running.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        }
    };
    let (health, driver) =
        HealthDriver::new(HealthConfig::default(), source.watch(&service()), connect).unwrap();
    beside(driver.run(), async {
        pass(Duration::from_mins(1)).await;
        assert!(
            health
                .statuses()
                .iter()
                .all(|found| found.status == Status::Healthy)
        );
    })
    .await;
    assert_eq!(seen.load(Ordering::Relaxed), 64);
}
