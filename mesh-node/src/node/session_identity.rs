//! The RSA key that sessions are agreed on with: where it lies, what attests it, and how it is replaced.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use mesh_crypto::Engine;
use mesh_crypto::KeyStore;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_session::Local;
use mesh_session::LocalIdentity;
use mesh_session::Responders;
use mesh_transport::tls::Credentials;
use parking_lot::Mutex;

use crate::adapt::peer_key::attest;
use crate::error::Error;
use crate::stack::now;
use crate::stack::outbound::unix_seconds;

/// The RSA key whose attestation the certificate signs, and where both are in use.
pub(crate) struct SessionIdentity {
    name: String,
    key: ArcSwap<RsaKeyPair>,
    life: KeyLife,
    /// Of the newest key that this process made after one from the future: the date in its name, and when that was; in
    /// seconds since 1970.
    ahead: Mutex<Option<(u64, u64)>>,
    config: mesh_session::Config,
    engine: Arc<dyn Engine>,
    local: Arc<ArcSwap<Local>>,
    responders: Arc<Responders>,
}

/// Where identity keys lie, and when they are replaced.
#[derive(Debug)]
pub(crate) struct KeyLife {
    pub(crate) store: KeyStore,
    pub(crate) bits: RsaBits,
    /// How old one may become; `None` is for ever.
    pub(crate) interval: Option<Duration>,
    /// How long the ones before still open what was begun with them.
    pub(crate) overlap: Duration,
}

impl KeyLife {
    /// The newest key, or a fresh one where it is of another size than is asked for.
    fn load(&self, engine: &dyn Engine, now: SystemTime) -> Result<RsaKeyPair, Error> {
        let seconds = unix_seconds(now);
        let key = self.store.load_or_generate(engine, self.bits, seconds)?;
        if key.public().bits() == self.bits {
            return Ok(key);
        }
        Ok(self.store.rotate(engine, self.bits, seconds)?)
    }
}

impl SessionIdentity {
    /// Loads or makes the key, attested by the certificate in `credentials`.
    pub(crate) fn new(
        credentials: &Credentials,
        name: String,
        life: KeyLife,
        (config, engine): (mesh_session::Config, Arc<dyn Engine>),
        at: SystemTime,
    ) -> Result<Self, Error> {
        let key = Arc::new(life.load(&*engine, at)?);
        let local = attested(credentials, (&name, &key), (&config, &engine))?;
        let responders = Responders::new(Arc::clone(&local), life.overlap)?;
        Ok(Self {
            name,
            key: ArcSwap::new(key),
            life,
            ahead: Mutex::default(),
            config,
            engine,
            local: Arc::new(ArcSwap::new(local)),
            responders: Arc::new(responders),
        })
    }

    /// What handshakes that this node begins are made with.
    pub(crate) fn local(&self) -> Arc<ArcSwap<Local>> {
        Arc::clone(&self.local)
    }

    /// What handshakes that others begin are answered with.
    pub(crate) fn responders(&self) -> Arc<Responders> {
        Arc::clone(&self.responders)
    }

    /// The folder whose changes mean that there may be another key.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.life.store.path()
    }

    /// When the keys are to be looked at again without being told: the newest becomes too old, or others are over.
    pub(crate) fn look_after(&self, now: SystemTime) -> Duration {
        let due = || {
            let made = self.life.store.newest_created().ok()??;
            let made = self.made(made, unix_seconds(now));
            let due = Duration::from_secs(made) + self.life.interval?;
            let left = (SystemTime::UNIX_EPOCH + due).duration_since(now);
            Some(left.unwrap_or_default())
        };
        let overlap = self.life.overlap;
        due()
            .map_or(overlap, |due| due.min(overlap))
            .max(SHORTEST_LOOK)
    }

    /// What a session would need of this side under another certificate; nothing is changed yet.
    pub(crate) fn renewed(&self, credentials: &Credentials) -> Result<Arc<Local>, Error> {
        attested(
            credentials,
            (&self.name, &self.key.load()),
            (&self.config, &self.engine),
        )
    }

    /// Answers for `local` from now on; what was begun for the identity before is answered for the overlap.
    pub(crate) fn take_over(&self, local: Arc<Local>) -> Result<(), Error> {
        self.responders.renew(Arc::clone(&local), now())?;
        self.local.store(local);
        Ok(())
    }

    /// Makes a new key if this one is too old, takes over the newest one of the folder, and deletes those whose overlap
    /// is over. Says which key is new, if one is. It takes seconds where a key is made: not for request threads.
    pub(crate) fn refresh(
        &self,
        credentials: &Credentials,
        at: SystemTime,
    ) -> Result<Option<mesh_crypto::Fingerprint>, Error> {
        let (life, engine) = (&self.life, &*self.engine);
        let seconds = unix_seconds(at);
        let is_old = |dated: u64| {
            let age = Duration::from_secs(seconds.saturating_sub(self.made(dated, seconds)));
            life.interval.is_some_and(|interval| age >= interval)
        };
        let newest = life.store.newest_created()?;
        let key = if newest.is_some_and(is_old) {
            let key = life.store.rotate(engine, life.bits, seconds)?;
            if newest.is_some_and(|dated| is_ahead(dated, seconds)) {
                let dir = life.store.path().display();
                tracing::warn!(%dir, "the newest identity key is dated in the future, and so is the one that replaces it; check the clock, and move the keys of the future away");
                *self.ahead.lock() = life.store.newest_created()?.map(|dated| (dated, seconds));
            }
            key
        } else {
            life.load(engine, at)?
        };
        life.store.retire(engine, life.overlap, seconds)?;
        let fingerprint = key.public().fingerprint();
        if fingerprint == self.key.load().public().fingerprint() {
            return Ok(None);
        }
        let key = Arc::new(key);
        let local = attested(
            credentials,
            (&self.name, &key),
            (&self.config, &self.engine),
        )?;
        self.take_over(local)?;
        self.key.store(key);
        Ok(Some(fingerprint))
    }

    /// When the newest key was made, which says `dated` of itself; in seconds since 1970, as `now` is.
    ///
    /// A date in the future, left by a clock that was wrong, would keep a key for as long. So such a key counts as old,
    /// except one that this process made: what replaces it must be dated after it, or it would not be the newest.
    fn made(&self, dated: u64, now: u64) -> u64 {
        if !is_ahead(dated, now) {
            return dated;
        }
        let ahead = self.ahead.lock().filter(|(ours, _)| *ours == dated);
        ahead.map_or(0, |(_, made)| made)
    }
}

/// Whether a date is further in the future than clocks differ; both in seconds since 1970.
fn is_ahead(dated: u64, now: u64) -> bool {
    dated > now.saturating_add(CLOCK_FAULT.as_secs())
}

/// What a session needs of this side, attested by the certificate in `credentials`.
fn attested(
    credentials: &Credentials,
    (name, key): (&str, &Arc<RsaKeyPair>),
    (config, engine): (&mesh_session::Config, &Arc<dyn Engine>),
) -> Result<Arc<Local>, Error> {
    let attestation = attest(credentials, name, key.public().spki_der())?;
    let identity = LocalIdentity::new(name.to_owned(), Arc::clone(key), attestation);
    let random = Arc::new(mesh_crypto::SystemRandom::new());
    let local = Local::new(config.clone(), Arc::clone(engine), random, identity)?;
    Ok(Arc::new(local))
}

impl fmt::Debug for SessionIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionIdentity")
            .field("name", &self.name)
            .field("key", &self.key.load().public().fingerprint())
            .finish_non_exhaustive()
    }
}

/// Where a key can't be made, the next try is not at once.
const SHORTEST_LOOK: Duration = Duration::from_secs(1);
/// A key dated later than this was dated by a clock that was wrong: those that are right differ by far less.
const CLOCK_FAULT: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests;
