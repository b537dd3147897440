//! Endpoints that stand in the configuration, replaced as a whole when it changes.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::endpoint::Staleness;
use crate::endpoint::Standing;
use crate::error::Error;
use crate::host::Host;
use crate::name::ServiceName;
use crate::report::SourceReport;
use crate::watch::Discover;
use crate::watch::Publisher;
use crate::watch::Watch;

/// One line of a static list: a service and one place where it runs.
///
/// With the `serde` feature it reads `{ id: order-service, host: 10.0.0.7, port: 50051 }`; the other fields
/// have defaults, unknown ones are refused.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct StaticEntry {
    /// The service that runs here.
    pub id: ServiceName,
    /// Name or address of the machine.
    pub host: Host,
    /// TCP port, 1 to 65535.
    pub port: u16,
    /// Name of this endpoint, unique within the service. Default `host:port`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub instance: Option<String>,
    /// Share of the traffic, 1 to 65535. Default 1.
    #[cfg_attr(feature = "serde", serde(default = "default_weight"))]
    pub weight: NonZeroU16,
    /// Failure domain. Default none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub zone: Option<String>,
    /// Version of the service. Default none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub version: Option<String>,
    /// Fingerprint of the peer's identity key. Default none: trusted by its certificate.
    #[cfg_attr(feature = "serde", serde(default))]
    pub public_key_fingerprint: Option<String>,
    /// Labels for subsets. Default none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub tags: Vec<String>,
    /// The SPIFFE id that the peer must prove. Default none: whoever calls decides what to expect.
    #[cfg_attr(feature = "serde", serde(default))]
    pub spiffe_id: Option<String>,
}

impl StaticEntry {
    /// A service at a host and port, all else by default.
    pub fn new(id: ServiceName, host: Host, port: u16) -> Self {
        Self {
            id,
            host,
            port,
            instance: None,
            weight: default_weight(),
            zone: None,
            version: None,
            public_key_fingerprint: None,
            tags: Vec::new(),
            spiffe_id: None,
        }
    }

    /// The service and the endpoint that this line names.
    pub fn into_endpoint(self) -> (ServiceName, Endpoint) {
        let mut endpoint = Endpoint::new(self.host, self.port);
        if let Some(instance) = self.instance {
            endpoint.id = instance;
        }
        endpoint.weight = self.weight;
        endpoint.zone = self.zone;
        endpoint.version = self.version;
        endpoint.public_key_fingerprint = self.public_key_fingerprint;
        endpoint.tags = self.tags;
        endpoint.spiffe_id = self.spiffe_id;
        (self.id, endpoint)
    }
}

/// A source whose endpoints are given to it; clones share one list.
///
/// It never empties by accident: a service that is missing from a new list keeps its last good endpoints,
/// marked stale. Only [`StaticSource::remove`] takes a service away.
#[derive(Clone, Debug)]
pub struct StaticSource {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    revision: u64,
    services: HashMap<ServiceName, Publisher>,
}

impl StaticSource {
    /// Begins with a list.
    ///
    /// # Errors
    ///
    /// [`Error`] when the list is too large or an endpoint in it is refused.
    pub fn new(entries: Vec<StaticEntry>) -> Result<Self, Error> {
        let source = Self {
            table: Arc::new(Mutex::new(Table::default())),
        };
        source.replace(entries)?;
        Ok(source)
    }

    /// Takes a new list in place of the old one, whole or not at all; watchers of unchanged services sleep on.
    ///
    /// A service of the old list that the new one leaves out keeps its endpoints, marked stale.
    ///
    /// # Errors
    ///
    /// [`Error`] when the list is refused; the old one then stays as it was.
    pub fn replace(&self, entries: Vec<StaticEntry>) -> Result<Replaced, Error> {
        let fresh = group(entries)?;
        let mut table = self.lock();
        table.replace(fresh)
    }

    /// Takes a service away, its endpoints too; this empties the list of its watchers. True if it was known.
    pub fn remove(&self, service: &ServiceName) -> bool {
        let mut table = self.lock();
        match table.services.get(service) {
            Some(publisher) if publisher.current().is_known() => {
                let revision = table.revision + 1;
                publisher.publish(Endpoints::absent().with_revision(revision));
                table.revision = revision;
            }
            _ => return false,
        }
        table.forget_unused();
        true
    }

    /// The services that are known, in order.
    pub fn services(&self) -> Vec<ServiceName> {
        let table = self.lock();
        let known = table
            .services
            .iter()
            .filter(|(_, publisher)| publisher.current().is_known());
        let mut names: Vec<_> = known.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while the lock is held, and the table is whole between any two statements.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Discover for StaticSource {
    fn reports(&self, service: &ServiceName) -> Vec<SourceReport> {
        let table = self.lock();
        let Some(publisher) = table.services.get(service) else {
            return Vec::new();
        };
        let mut report = SourceReport::new(STATIC, &publisher.current());
        report.is_used = true;
        vec![report]
    }

    /// Watches a service. Past 20,000 names that are watched and unknown the watch comes back closed.
    fn watch(&self, service: &ServiceName) -> Watch {
        let mut table = self.lock();
        if let Some(publisher) = table.services.get(service) {
            return publisher.watch();
        }
        if table.services.len() >= MAX_NAMES {
            table.forget_unused();
        }
        if table.services.len() >= MAX_NAMES {
            return Watch::closed(Endpoints::absent());
        }
        table
            .services
            .entry(service.clone())
            .or_insert_with(|| Publisher::new(Endpoints::absent()))
            .watch()
    }
}

/// What a new list changed.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Services whose endpoints changed, became known, or came back from being stale.
    pub changed: Vec<ServiceName>,
    /// Services that the list leaves out and that go on with their last good endpoints.
    pub stale: Vec<ServiceName>,
}

impl Table {
    fn replace(&mut self, fresh: BTreeMap<ServiceName, Endpoints>) -> Result<Replaced, Error> {
        let missing = self.services.iter().filter(|(name, publisher)| {
            publisher.current().is_known() && !fresh.contains_key(*name)
        });
        let mut stale: Vec<_> = missing.map(|(name, _)| name.clone()).collect();
        stale.sort_unstable();
        // threat 51: services that are kept alive count, or many small lists would grow past the limit.
        let count = fresh.len() + stale.len();
        if count > MAX_SERVICES {
            return Err(Error::TooManyServices {
                count,
                limit: MAX_SERVICES,
            });
        }

        self.revision += 1;
        for name in &stale {
            if let Some(publisher) = self.services.get(name) {
                // threat 50: a list that withdraws a service is not believed.
                if publisher.publish(
                    publisher
                        .current()
                        .with_standing(Standing::Stale(Staleness::Withdrawn), self.revision),
                ) {
                    tracing::warn!(service = %name, "service is missing from the new list, keeping its last good endpoints");
                }
            }
        }
        let mut changed = Vec::new();
        for (name, endpoints) in fresh {
            let publisher = self
                .services
                .entry(name.clone())
                .or_insert_with(|| Publisher::new(Endpoints::absent()));
            let endpoints = endpoints
                .reusing(&publisher.current())
                .with_revision(self.revision);
            if publisher.publish(endpoints) {
                changed.push(name);
            }
        }
        Ok(Replaced { changed, stale })
    }

    /// Drops names that are unknown and that nobody watches any more.
    fn forget_unused(&mut self) {
        self.services
            .retain(|_, publisher| publisher.is_watched() || publisher.current().is_known());
    }
}

fn group(entries: Vec<StaticEntry>) -> Result<BTreeMap<ServiceName, Endpoints>, Error> {
    if entries.len() > MAX_ENDPOINTS {
        return Err(Error::SourceTooLarge {
            count: entries.len(),
            limit: MAX_ENDPOINTS,
        });
    }
    let mut lists: BTreeMap<ServiceName, Vec<Endpoint>> = BTreeMap::new();
    for entry in entries {
        let (service, endpoint) = entry.into_endpoint();
        lists.entry(service).or_default().push(endpoint);
    }
    let check = |(service, list): (ServiceName, Vec<Endpoint>)| match Endpoints::new(list, 0) {
        Ok(endpoints) => Ok((service, endpoints)),
        Err(error) => Err(Error::Service {
            service,
            source: Box::new(error),
        }),
    };
    lists.into_iter().map(check).collect()
}

/// What this source is called in reports.
const STATIC: &str = "static";

fn default_weight() -> NonZeroU16 {
    NonZeroU16::MIN
}

/// The most endpoints of all services together: about 40 MiB.
pub(crate) const MAX_ENDPOINTS: usize = 100_000;
/// The most services that a source knows; a mesh of this kind has up to 300.
pub(crate) const MAX_SERVICES: usize = 10_000;
/// The most names in the table, known or only watched: callers may ask for any name they like.
const MAX_NAMES: usize = 2 * MAX_SERVICES;

#[cfg(test)]
mod tests;
