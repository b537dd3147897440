//! A source that follows a registry while the test does other things, and what it made of each change.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use mesh_discovery::Discover as _;
use mesh_discovery::Driver;
use mesh_discovery::Endpoint;
use mesh_discovery::Endpoints;
use mesh_discovery::Evidence;
use mesh_discovery::Registry;
use mesh_discovery::ServiceName;
use mesh_discovery::SourceReport;
use mesh_discovery::Status;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::process::holds_within;

/// Each endpoint by its port, with the number of the registration that it came from.
pub(crate) type Set = BTreeMap<u16, u64>;

/// What is certain of registrations: which of them the test has begun to take away or to replace. Who is taken away is
/// also stopped, so a check of it fails: that is what the ledger may know of it.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    ended: Mutex<HashMap<u64, Instant>>,
    down: Mutex<HashSet<u16>>,
}

impl Truth {
    /// The registration `number` of the endpoint at `port` is replaced from now on.
    pub(crate) fn replace(&self, port: u16, number: Option<u64>) {
        if let Some(number) = number {
            self.ended.lock().unwrap().insert(number, Instant::now());
        }
        self.down.lock().unwrap().remove(&port);
    }

    /// The registration `number` of the endpoint at `port` is taken away from now on.
    pub(crate) fn remove(&self, port: u16, number: u64) {
        self.replace(port, Some(number));
        self.down.lock().unwrap().insert(port);
    }

    fn is_ended(&self, number: u64) -> bool {
        self.ended.lock().unwrap().contains_key(&number)
    }
}

impl Evidence for Truth {
    fn status(&self, _service: &ServiceName, endpoint: &Endpoint) -> Status {
        if self.down.lock().unwrap().contains(&endpoint.port) {
            Status::Unhealthy
        } else {
            Status::Unknown
        }
    }
}

/// A source and a watch of one service of it.
#[derive(Debug)]
pub(crate) struct Follower {
    registry: Registry,
    service: ServiceName,
    seen: Arc<Mutex<Seen>>,
    // Before the runtime, which ends what it runs.
    _tasks: JoinSet<()>,
    _runtime: Runtime,
}

/// What a watch gave.
#[derive(Debug, Default)]
struct Seen {
    set: Set,
    lists: usize,
    /// Registrations that disappeared while nobody had taken them away.
    lost: Vec<String>,
}

impl Follower {
    /// Makes a source in a runtime of its own and watches `service`.
    pub(crate) fn start(
        service: &str,
        truth: &Arc<Truth>,
        make: impl FnOnce() -> (Registry, Driver),
    ) -> Self {
        Self::start_in(service, truth, || {}, make)
    }

    /// The same, and each thread of the runtime begins with `enter`.
    pub(crate) fn start_in(
        service: &str,
        truth: &Arc<Truth>,
        enter: impl Fn() + Send + Sync + 'static,
        make: impl FnOnce() -> (Registry, Driver),
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(enter)
            .enable_all()
            .build()
            .unwrap();
        let service = ServiceName::parse(service).unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = JoinSet::new();
        let entered = runtime.enter();
        let (registry, driver) = make();
        tasks.spawn(driver);
        let mut watch = registry.watch(&service);
        let (truth, taker) = (Arc::clone(truth), Arc::clone(&seen));
        tasks.spawn(async move {
            loop {
                taker.lock().unwrap().take(watch.latest(), &truth);
                if watch.changed().await.is_err() {
                    break;
                }
            }
        });
        drop(entered);
        Self {
            registry,
            service,
            seen,
            _tasks: tasks,
            _runtime: runtime,
        }
    }

    /// The endpoints that it gives.
    pub(crate) fn set(&self) -> Set {
        self.seen.lock().unwrap().set.clone()
    }

    /// How many lists it gave, and each registration that it lost although nobody had taken it away.
    pub(crate) fn findings(&self) -> (usize, Vec<String>) {
        let seen = self.seen.lock().unwrap();
        (seen.lists, seen.lost.clone())
    }

    /// What the source says of itself.
    pub(crate) fn report(&self) -> SourceReport {
        let mut reports = self.registry.reports(&self.service);
        reports.pop().unwrap()
    }

    /// What the source says of itself, in a line: a hundred endpoints that are kept are no help.
    pub(crate) fn says(&self) -> String {
        let report = self.report();
        format!(
            "{}, {} endpoints, {} exceptions, failure {:?}",
            report.standing,
            report.endpoints,
            report.exceptions.len(),
            report.failure
        )
    }

    /// How long it takes from now until the registry has answered it, which could not answer at the moment `down` and may
    /// have done so since.
    #[track_caller]
    pub(crate) fn takes_until_answer(&self, down: Instant, limit: Duration) -> Duration {
        let start = Instant::now();
        let has_answered = || {
            let answered_at = self.report().answered_at;
            answered_at.is_some_and(|at| at > down.into_std())
        };
        assert!(holds_within(limit, has_answered), "{}", self.says());
        start.elapsed()
    }
}

impl Seen {
    fn take(&mut self, endpoints: &Endpoints, truth: &Truth) {
        self.lists += 1;
        let new: Set = endpoints
            .iter()
            .map(|endpoint| (endpoint.port, number(endpoint)))
            .collect();
        for (port, number) in &self.set {
            if new.get(port) != Some(number) && !truth.is_ended(*number) {
                let now = new.get(port);
                self.lost.push(format!(
                    "{port} of registration {number}, now {now:?}, {}",
                    endpoints.standing()
                ));
            }
        }
        self.set = new;
    }
}

/// The tests write the number of a registration where the version stands.
fn number(endpoint: &Endpoint) -> u64 {
    let version = endpoint.version.as_deref();
    version
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}
