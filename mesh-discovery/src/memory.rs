//! A registry in memory, for the tests of whoever calls services.
//!
//! It is watched and registered with like any other, and what is believed of it is the same: it stands behind a
//! [`Ledger`](crate::Ledger). [`MemoryRegistry::set_fault`] makes it fail, hang, or say that nothing is there.
//!
//! ```
//! use mesh_discovery::Discover;
//! use mesh_discovery::Endpoint;
//! use mesh_discovery::MemoryFault;
//! use mesh_discovery::MemoryRegistry;
//! use mesh_discovery::RegistryConfig;
//! use mesh_discovery::ServiceName;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let orders = ServiceName::parse("orders")?;
//! let (registry, driver) = MemoryRegistry::new(RegistryConfig::new("memory"));
//! registry.insert(&orders, Endpoint::new("10.0.0.7".parse()?, 50051));
//!
//! let test = async {
//!     let mut watch = registry.watch(&orders);
//!     assert_eq!(watch.resolved().await?.len(), 1);
//!
//!     // What is under test goes on when the registry loses everything.
//!     registry.set_fault(MemoryFault::Empty);
//!     assert!(watch.changed().await?.is_stale());
//!     assert_eq!(watch.latest().len(), 1);
//!     Ok::<_, mesh_discovery::Closed>(())
//! };
//! tokio::select! {
//!     () = driver => {}
//!     outcome = test => outcome?,
//! }
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::watch;

use crate::endpoint::Condition;
use crate::endpoint::Endpoint;
use crate::name::ServiceName;
use crate::register::BoxFuture;
use crate::register::Register;
use crate::register::RegisterError;
use crate::register::Registration;
use crate::register::Renewed;
use crate::registry::Driver;
use crate::registry::Registry;
use crate::registry::RegistryConfig;
use crate::registry::Reporter;
use crate::report::SourceReport;
use crate::watch::Discover;
use crate::watch::Watch;

/// A registry in memory; clones are the same. It has no bounds but those of every source.
#[derive(Clone, Debug)]
pub struct MemoryRegistry {
    registry: Registry,
    shared: Arc<Shared>,
}

/// What is wrong with a [`MemoryRegistry`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MemoryFault {
    /// Nothing.
    #[default]
    None,
    /// It answers with an error.
    Fails,
    /// It does not answer at all, and says nothing of it.
    Hangs,
    /// It says that it knows no endpoint of any service.
    Empty,
}

/// The registry fails because it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the registry in memory was told to fail")]
#[non_exhaustive]
pub struct ToldToFail;

#[derive(Debug)]
struct Shared {
    services: Mutex<BTreeMap<ServiceName, BTreeMap<String, Endpoint>>>,
    /// Its change is the news that something has changed.
    fault: watch::Sender<MemoryFault>,
}

impl MemoryRegistry {
    /// An empty registry; nothing of it is seen by watchers unless the driver runs.
    pub fn new(config: RegistryConfig) -> (Self, Driver) {
        let (registry, wants) = Registry::new(config);
        let shared = Arc::new(Shared {
            services: Mutex::default(),
            fault: watch::Sender::default(),
        });
        let source = Arc::clone(&shared);
        let driver =
            Driver::follow_each(wants, move |reporter| follow(Arc::clone(&source), reporter));
        (Self { registry, shared }, driver)
    }

    /// Adds an endpoint, in place of one of the same id.
    pub fn insert(&self, service: &ServiceName, endpoint: Endpoint) {
        let mut services = self.shared.services();
        let list = services.entry(service.clone()).or_default();
        list.insert(endpoint.id.clone(), endpoint);
        drop(services);
        self.shared.changed();
    }

    /// Takes an endpoint away; true if it was there.
    pub fn remove(&self, service: &ServiceName, id: &str) -> bool {
        let mut services = self.shared.services();
        let list = services.get_mut(service);
        let was_there = list.and_then(|list| list.remove(id)).is_some();
        drop(services);
        self.shared.changed();
        was_there
    }

    /// Loses everything, as a registry that is restarted without its data.
    pub fn clear(&self) {
        self.shared.services().clear();
        self.shared.changed();
    }

    /// Makes it fail, or work again, from now on.
    pub fn set_fault(&self, fault: MemoryFault) {
        self.shared.fault.send_replace(fault);
    }

    /// What it holds of a service, in order of the ids, whatever is wrong with it.
    pub fn endpoints(&self, service: &ServiceName) -> Vec<Endpoint> {
        let services = self.shared.services();
        let list = services.get(service);
        list.map_or_else(Vec::new, |list| list.values().cloned().collect())
    }
}

impl Discover for MemoryRegistry {
    fn watch(&self, service: &ServiceName) -> Watch {
        self.registry.watch(service)
    }

    fn reports(&self, service: &ServiceName) -> Vec<SourceReport> {
        self.registry.reports(service)
    }
}

impl Register for MemoryRegistry {
    fn register<'a>(&'a self, of: &'a Registration) -> BoxFuture<'a, Result<(), RegisterError>> {
        Box::pin(async {
            self.shared.answers().await?;
            self.insert(&of.service, of.endpoint.clone());
            Ok(())
        })
    }

    fn renew<'a>(
        &'a self,
        of: &'a Registration,
        condition: Condition,
    ) -> BoxFuture<'a, Result<Renewed, RegisterError>> {
        Box::pin(async move {
            self.shared.answers().await?;
            let mut services = self.shared.services();
            let list = services.get_mut(&of.service);
            let Some(endpoint) = list.and_then(|list| list.get_mut(&of.endpoint.id)) else {
                return Ok(Renewed::Forgotten);
            };
            endpoint.condition = condition;
            drop(services);
            self.shared.changed();
            Ok(Renewed::Kept)
        })
    }

    fn deregister<'a>(&'a self, of: &'a Registration) -> BoxFuture<'a, Result<(), RegisterError>> {
        Box::pin(async {
            self.shared.answers().await?;
            self.remove(&of.service, &of.endpoint.id);
            Ok(())
        })
    }

    /// Every 5 s; a registration that is not renewed stays all the same.
    fn renew_every(&self) -> Duration {
        RENEW_EVERY
    }
}

impl Shared {
    fn services(&self) -> MutexGuard<'_, BTreeMap<ServiceName, BTreeMap<String, Endpoint>>> {
        // Nothing panics while the lock is held, and the table is whole between any two statements.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.fault.send_modify(|_| {});
    }

    /// Waits while it hangs, and fails while it fails.
    async fn answers(&self) -> Result<(), RegisterError> {
        let mut fault = self.fault.subscribe();
        let answers = fault.wait_for(|fault| *fault != MemoryFault::Hangs).await?;
        if *answers == MemoryFault::Fails {
            return Err(ToldToFail.into());
        }
        Ok(())
    }
}

/// Tells each change.
async fn follow(shared: Arc<Shared>, reporter: Reporter) {
    let mut changes = shared.fault.subscribe();
    loop {
        let fault = *changes.borrow_and_update();
        match fault {
            MemoryFault::None => {
                let services = shared.services();
                let list = services.get(reporter.service());
                let list = list.map_or_else(Vec::new, |list| list.values().cloned().collect());
                drop(services);
                reporter.found(list);
            }
            MemoryFault::Fails => reporter.failed(&ToldToFail),
            MemoryFault::Hangs => {}
            MemoryFault::Empty => reporter.found(Vec::new()),
        }
        if changes.changed().await.is_err() {
            // Not before the registry is gone, and this holds it.
            return;
        }
    }
}

const RENEW_EVERY: Duration = Duration::from_secs(5);
