//! An established session, and the exchanges that run in it.
//!
//! An exchange is a request and its response: one stream of records each way, opened by the first record of the
//! initiator. Exchanges are independent of each other; the records of one stream are in strict order.
//!
//! # Sources
//!
//! NIST SP 800-38D section 8.2.1 (deterministic nonces), RFC 4303 section 3.4.3 (replay window), RFC 9147 section 4
//! (epochs), RFC 8446 section 7.2 (keys that follow each other by one-way steps).

pub(crate) mod epoch;
mod frozen;
mod stream;

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::BytesMut;
use mesh_crypto::Fingerprint;
use mesh_crypto::Secret;
use mesh_crypto::aead::SealingStream;
use parking_lot::Mutex;

pub(crate) use self::frozen::Frozen;
pub use self::stream::Opener;
pub use self::stream::Sealer;
use crate::Error;
use crate::Flags;
use crate::Role;
use crate::SessionId;
use crate::Suite;
use crate::UnixTime;
use crate::record;
use crate::record::Header;
use crate::schedule::Agreed;
use crate::session::epoch::Epoch;
use crate::session::epoch::Epochs;
use crate::session::epoch::Setting;
use crate::wire::VERSION;

/// Keys and counters that two authenticated peers share; hold it as an `Arc`.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    setting: Setting,
    peer: Peer,
    /// When this session and the full handshake behind it ended here.
    created: UnixTime,
    authenticated: UnixTime,
    resumption: Secret,
    epochs: Mutex<Epochs>,
    last_route: LastRoute,
    /// The numbers of the current epoch and of the newest that the peer was heard in, for streams to see without the
    /// lock.
    newest: AtomicU8,
    heard: AtomicU8,
    totals: Totals,
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: Arc<str>,
    pub(crate) fingerprint: Fingerprint,
}

/// When a session was made, and when its peer was authenticated by its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) created: UnixTime,
    pub(crate) authenticated: UnixTime,
}

impl Session {
    pub(crate) fn new(
        setting: Setting,
        agreed: Agreed,
        (peer, times): (Peer, Times),
        window: u32,
    ) -> Result<Self, Error> {
        let epochs = Epochs::first(&setting, agreed.chain, window)?;
        Ok(Self {
            id: agreed.id,
            setting,
            peer,
            created: times.created,
            authenticated: times.authenticated,
            resumption: agreed.resumption,
            epochs: Mutex::new(epochs),
            last_route: LastRoute::default(),
            newest: AtomicU8::new(0),
            heard: AtomicU8::new(0),
            totals: Totals::default(),
        })
    }

    /// Begins an exchange on `route`, whose bytes travel in clear beside the records and are bound to each of them.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] if the session has done its share, [`Error::Role`] if this is the responder's end,
    /// [`Error::Crypto`] if the engine fails.
    pub fn begin(self: &Arc<Self>, route: &[u8], now: Instant) -> Result<(Sealer, Opener), Error> {
        if self.role() != Role::Initiator {
            return Err(Error::Role);
        }
        let epoch = {
            let mut epochs = self.epochs.lock();
            epochs.tick(&self.setting, now)?;
            self.publish(&epochs);
            Arc::clone(epochs.current())
        };
        let stream = epoch.sealing.next_stream().or(Err(Error::Exhausted))?;
        Ok(self.exchange((epoch, stream), self.route_hash(route)))
    }

    /// Accepts an exchange on `route` by opening its first record, whose plaintext is left in `first_record`.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if the record is not the authentic and fresh beginning of an exchange on this route,
    /// [`Error::Role`] if this is the initiator's end.
    pub fn accept(
        self: &Arc<Self>,
        route: &[u8],
        first_record: &mut BytesMut,
        now: Instant,
    ) -> Result<(Sealer, Opener, Opened), Error> {
        if self.role() != Role::Responder {
            return Err(Error::Role);
        }
        match self.try_accept(route, first_record, now) {
            Ok(accepted) => Ok(accepted),
            Err(_) => self.refuse(),
        }
    }

    fn try_accept(
        self: &Arc<Self>,
        route: &[u8],
        record: &mut BytesMut,
        now: Instant,
    ) -> Result<(Sealer, Opener, Opened), Error> {
        let route = self.route_hash(route);
        let header = Header::of(record)?;
        let expected = Header {
            flags: header.flags,
            ..self.header(self.peer_role(), header.epoch, (header.exchange, 0))
        };
        // The header is public, so leaving early over it tells nothing.
        if header != expected {
            return Err(Error::Open);
        }
        let flags = header.flags()?;
        let epoch = {
            let mut epochs = self.epochs.lock();
            // The last epoch does not end; its keys stop by themselves.
            if !matches!(
                epochs.tick(&self.setting, now),
                Ok(()) | Err(Error::Exhausted)
            ) {
                return Err(Error::Open);
            }
            self.publish(&epochs);
            epochs.find(&self.setting, header.epoch)?
        };
        stream::authenticate(&epoch, self.suite().mac(), &route, record)?;
        // Only now: whoever could not make the MAC must neither move the session nor use up numbers.
        self.hear(header.epoch);
        let claimed = epoch.sealing.claim_stream(header.exchange);
        let claimed = claimed.or(Err(Error::Open))?;
        stream::decrypt(&epoch, &header, &route, record)?;
        let (sealer, mut opener) = self.exchange((epoch, claimed), route);
        opener.opened(flags, record.len());
        let exchange = header.exchange;
        Ok((sealer, opener, Opened { flags, exchange }))
    }

    /// The hash of a route, computed only where it is another one than the last: an engine's hash may allocate.
    fn route_hash(&self, route: &[u8]) -> [u8; 32] {
        let mut last = self.last_route.lock();
        if let Some((known, hash)) = &*last
            && **known == *route
        {
            return *hash;
        }
        let hash = self.setting.engine.sha256(&[route]);
        if route.len() <= MAX_KEPT_ROUTE {
            *last = Some((route.into(), hash));
        }
        hash
    }

    fn exchange(
        self: &Arc<Self>,
        (epoch, stream): (Arc<Epoch>, SealingStream),
        route: [u8; 32],
    ) -> (Sealer, Opener) {
        self.totals.exchanges.fetch_add(1, Ordering::Relaxed);
        let opener = Opener::new(
            Arc::clone(self),
            Arc::clone(&epoch),
            (stream.number(), route),
        );
        (
            Sealer::new(Arc::clone(self), (epoch, stream), route),
            opener,
        )
    }

    /// Goes on to the next epoch now, though the keys have not done their share; the peer follows with the next record
    /// that it opens. It does nothing in the last epoch, 255, and where the peer was not heard since the fourth before.
    ///
    /// # Errors
    ///
    /// [`Error::Crypto`] if the engine fails.
    pub fn advance(&self) -> Result<(), Error> {
        self.advance_from(self.newest.load(Ordering::Acquire))
    }

    fn advance_from(&self, epoch: u8) -> Result<(), Error> {
        let mut epochs = self.epochs.lock();
        let advanced = epochs.advance(&self.setting, epoch);
        self.publish(&epochs);
        match advanced {
            // The last epoch goes on to the hard limit of its keys.
            Err(Error::Exhausted) if epoch == u8::MAX => Ok(()),
            other => other,
        }
    }

    /// Takes note of an authentic record of `epoch`, which the session enters if it is ahead.
    fn hear(&self, epoch: u8) {
        if self.heard.load(Ordering::Acquire) < epoch {
            let mut epochs = self.epochs.lock();
            epochs.hear(epoch);
            self.heard.fetch_max(epoch, Ordering::AcqRel);
            self.publish(&epochs);
        }
    }

    fn publish(&self, epochs: &Epochs) {
        self.newest
            .store(epochs.current().number, Ordering::Release);
    }

    fn newest(&self) -> Arc<Epoch> {
        Arc::clone(self.epochs.lock().current())
    }

    /// Epoch `number` as a stream that was in `epoch` so far finds it: one that its own leads to, or one that the session
    /// still has, or one of the next.
    fn epoch_after(&self, epoch: &Arc<Epoch>, number: u8) -> Result<Arc<Epoch>, Error> {
        let distance = number.checked_sub(epoch.number).ok_or(Error::Open)?;
        if let Some(later) = epoch.after(distance) {
            return Ok(later);
        }
        let mut epochs = self.epochs.lock();
        // Another stream may have taken the session there meanwhile, or this one was silent for many epochs.
        match epoch.after(distance) {
            Some(later) => Ok(later),
            None => epochs.find(&self.setting, number),
        }
    }

    /// Which session this is; the same at both ends.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.setting.role
    }

    /// How records are protected.
    pub fn suite(&self) -> Suite {
        self.setting.suite
    }

    /// Who is at the other end, as the verifier accepted it.
    pub fn peer_name(&self) -> &str {
        &self.peer.name
    }

    /// The RSA key that the other end proved to hold.
    pub fn peer_fingerprint(&self) -> Fingerprint {
        self.peer.fingerprint
    }

    /// When the handshake or resumption ended here.
    pub fn created(&self) -> UnixTime {
        self.created
    }

    /// When the full handshake ended here; before [`created`](Self::created) if the session is a resumed one.
    pub fn authenticated(&self) -> UnixTime {
        self.authenticated
    }

    /// In which epoch records are sealed here: 0 to 255.
    pub fn epoch(&self) -> u8 {
        self.newest.load(Ordering::Acquire)
    }

    /// Whether the last epoch has done its share, so that the next exchange belongs in a new session.
    pub fn is_exhausted(&self) -> bool {
        self.epoch() == u8::MAX && self.newest().is_spent(&self.setting.limits)
    }

    /// What was carried so far, by exchanges whose ends here were dropped.
    pub fn counters(&self) -> Counters {
        self.totals.counters()
    }

    pub(crate) fn resumption(&self) -> &Secret {
        &self.resumption
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    fn peer_role(&self) -> Role {
        match self.role() {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        }
    }

    fn header(&self, sender: Role, epoch: u8, (exchange, index): (u64, u32)) -> Header {
        Header {
            version: VERSION,
            epoch,
            flags: 0,
            direction: record::direction_from(sender),
            session: self.id,
            exchange,
            index,
        }
    }

    fn refuse<T>(&self) -> Result<T, Error> {
        self.totals.refused_records.fetch_add(1, Ordering::Relaxed);
        Err(Error::Open)
    }
}

/// The route of the last exchange, and its hash.
type LastRoute = Mutex<Option<(Box<[u8]>, [u8; 32])>>;

/// Names of services are shorter; what comes with a record that is not authentic may be longer.
const MAX_KEPT_ROUTE: usize = 256;

/// What the first record of an exchange said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Opened {
    /// Its flags.
    pub flags: Flags,
    /// The number of the exchange, which the session accepts once.
    pub exchange: u64,
}

/// What a session carried.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Exchanges begun or accepted.
    pub exchanges: u64,
    /// Records sealed.
    pub sealed_records: u64,
    /// Bytes of plaintext sealed.
    pub sealed_bytes: u64,
    /// Records opened.
    pub opened_records: u64,
    /// Bytes of plaintext opened.
    pub opened_bytes: u64,
    /// Records that did not open, replayed ones too.
    pub refused_records: u64,
}

#[derive(Debug, Default)]
struct Totals {
    exchanges: AtomicU64,
    sealed_records: AtomicU64,
    sealed_bytes: AtomicU64,
    opened_records: AtomicU64,
    opened_bytes: AtomicU64,
    refused_records: AtomicU64,
}

impl Totals {
    fn counters(&self) -> Counters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            exchanges: load(&self.exchanges),
            sealed_records: load(&self.sealed_records),
            sealed_bytes: load(&self.sealed_bytes),
            opened_records: load(&self.opened_records),
            opened_bytes: load(&self.opened_bytes),
            refused_records: load(&self.refused_records),
        }
    }
}
