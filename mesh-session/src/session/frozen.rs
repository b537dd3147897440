//! A session that nobody uses at the moment: the same, without the expanded keys, which are most of its size.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Instant;

use mesh_crypto::Secret;
use parking_lot::Mutex;

use crate::Error;
use crate::Session;
use crate::SessionId;
use crate::SessionSummary;
use crate::session::Peer;
use crate::session::Times;
use crate::session::Totals;
use crate::session::epoch::Epochs;
use crate::session::epoch::Parked;
use crate::session::epoch::Setting;

/// A session without expanded keys. It can't do anything but become the session again, which consumes it: there are
/// never two that would grant the same exchange.
#[derive(Debug)]
pub(crate) struct Frozen {
    id: SessionId,
    setting: Setting,
    peer: Peer,
    times: Times,
    resumption: Secret,
    number: u8,
    parked: Parked,
    totals: Totals,
}

impl Frozen {
    /// Freezes a session that nobody else holds.
    pub(crate) fn of(session: Arc<Session>, now: Instant) -> Result<Self, Arc<Session>> {
        let session = Arc::try_unwrap(session)?;
        let number = session.epoch();
        let limits = session.setting.limits;
        match session.epochs.into_inner().park(&limits, now) {
            Ok(parked) => Ok(Self {
                id: session.id,
                setting: session.setting,
                peer: session.peer,
                times: Times {
                    created: session.created,
                    authenticated: session.authenticated,
                },
                resumption: session.resumption,
                number,
                parked,
                totals: session.totals,
            }),
            Err(epochs) => Err(Arc::new(Session {
                epochs: Mutex::new(epochs),
                ..session
            })),
        }
    }

    pub(crate) fn thaw(self) -> Result<Session, Error> {
        let epochs: Epochs = self.parked.unpark(&self.setting)?;
        Ok(Session {
            id: self.id,
            setting: self.setting,
            peer: self.peer,
            created: self.times.created,
            authenticated: self.times.authenticated,
            resumption: self.resumption,
            epochs: Mutex::new(epochs),
            last_route: Mutex::default(),
            newest: AtomicU8::new(self.number),
            // Too low at worst: hearing of an epoch again changes nothing.
            heard: AtomicU8::new(0),
            totals: self.totals,
        })
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(crate) fn summary(&self) -> SessionSummary {
        SessionSummary {
            id: self.id,
            peer_name: Arc::clone(&self.peer.name),
            created: self.times.created,
            epoch: self.number,
            counters: self.totals.counters(),
            is_frozen: true,
        }
    }
}
