//! The node's own entry in registries.
//!
//! It is made once the node serves, so that nobody is sent here too early, and taken away before the node stops to serve, so
//! that nobody is sent here too late: between the two, whoever follows the registry has time to see it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh_discovery::Condition;
use mesh_discovery::Endpoint;
use mesh_discovery::Register;
use mesh_discovery::Registration;
use mesh_discovery::RegistrationState;
use mesh_discovery::ServiceName;
use mesh_discovery::keep_registered;
use mesh_resilience::random::Random;
use mesh_transport::tasks::Tasks;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::sync::watch;

use super::sources::announced;
use crate::config::NodeConfig;
use crate::error::Error;

/// A registry, by the name of its source.
pub(crate) type Registrar = (Arc<str>, Arc<dyn Register>);

/// What is registered, and where.
pub(crate) struct Registrations {
    registration: Arc<Registration>,
    registrars: Vec<Registrar>,
    random: Arc<dyn Random>,
}

/// Registrations that are kept.
#[derive(Debug)]
pub(crate) struct Kept {
    condition: watch::Sender<Condition>,
    /// For each: told to end, and tells that it has.
    entries: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    source: Arc<str>,
    state: watch::Receiver<RegistrationState>,
    end: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl fmt::Debug for Registrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrations")
            .field("registration", &self.registration)
            .finish_non_exhaustive()
    }
}

impl Registrations {
    /// The entry that `config` describes, for a node that listens on `port`; none where it registers nowhere.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when there is no address that others could use.
    pub(crate) fn new(
        config: &NodeConfig,
        registrars: Vec<Registrar>,
        (port, random): (u16, Arc<dyn Random>),
    ) -> Result<Option<Self>, Error> {
        let Some(register) = config.discovery.register.as_ref() else {
            return Ok(None);
        };
        let wrong = |source| Error::config("discovery.register can't be used", source);
        let announced = announced(config, register, port).map_err(wrong)?;
        let service =
            ServiceName::parse(&config.service.id).map_err(|source| wrong(source.into()))?;
        let mut endpoint = Endpoint::new(announced.host, announced.port);
        let id = register.id.clone();
        endpoint.id =
            id.unwrap_or_else(|| format!("{service}-{}-{}", endpoint.host, endpoint.port));
        endpoint.weight = register.weight;
        let zone = register.zone.as_ref().or(config.service.zone.as_ref());
        endpoint.zone = zone.cloned();
        endpoint.version.clone_from(&register.version);
        endpoint.tags.clone_from(&register.tags);
        endpoint.metadata.clone_from(&register.meta);
        endpoint.spiffe_id = Some(config.spiffe_id());
        mesh_discovery::Endpoints::new(vec![endpoint.clone()], 0)
            .map_err(|source| wrong(source.into()))?;
        Ok(Some(Self {
            registration: Arc::new(Registration::new(service, endpoint)),
            registrars,
            random,
        }))
    }

    /// Registers, in the background, and keeps it so.
    pub(crate) fn keep(self, tasks: &Tasks) -> Kept {
        let (condition, told) = watch::channel(Condition::Passing);
        let start = |(source, registrar): Registrar| {
            let (end, until) = oneshot::channel::<()>();
            let (done, ended) = oneshot::channel::<()>();
            let (tell, state) = watch::channel(RegistrationState::Pending);
            let (registration, random) = (Arc::clone(&self.registration), Arc::clone(&self.random));
            let told = told.clone();
            tasks.start(async move {
                let random = move || random.next_u64();
                let until = async {
                    drop(until.await);
                };
                keep_registered(&*registrar, &registration, (told, &tell), &random, until).await;
                drop(done);
            });
            Entry {
                source,
                state,
                end,
                ended,
            }
        };
        Kept {
            condition,
            entries: Mutex::new(self.registrars.into_iter().map(start).collect()),
        }
    }
}

impl Kept {
    /// Tells the registries how this node does.
    pub(crate) fn tell(&self, condition: Condition) {
        self.condition.send_if_modified(|told| {
            let is_new = *told != condition;
            *told = condition;
            is_new
        });
    }

    /// Where this node can't register, and why.
    pub(crate) fn failing(&self) -> Option<String> {
        let entries = self.entries.lock();
        let why = |entry: &Entry| match &*entry.state.borrow() {
            RegistrationState::Failing(why) => Some(format!("{}: {why}", entry.source)),
            _ => None,
        };
        let failing: Vec<_> = entries.iter().filter_map(why).collect();
        (!failing.is_empty()).then(|| failing.join("; "))
    }

    /// Takes all entries away, which takes 5 s at most, and waits until others can have seen it.
    pub(crate) async fn leave(&self, wait: Duration) {
        let entries = std::mem::take(&mut *self.entries.lock());
        let (ends, ended): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .map(|entry| (entry.end, entry.ended))
            .unzip();
        drop(ends);
        for ended in ended {
            drop(ended.await);
        }
        tokio::time::sleep(wait).await;
    }
}
