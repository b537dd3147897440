//! The live offers of a node: the newest, and those before it for as long as first messages may still come for them.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::RwLock;

use crate::Checked;
use crate::Error;
use crate::Local;
use crate::Responder;
use crate::UnixTime;

/// Replaces a node's identity without refusing who still has the offer of the old one.
#[derive(Debug)]
pub struct Responders {
    live: RwLock<Live>,
    overlap: Duration,
}

#[derive(Debug)]
struct Live {
    current: Arc<Responder>,
    /// With the time at which each is dropped, and its keys with it.
    previous: Vec<(Arc<Responder>, Instant)>,
}

impl Responders {
    /// One responder with a fresh offer. After a change, an old offer is answered for `overlap`, in which handshakes
    /// that were begun before have ended.
    ///
    /// # Errors
    ///
    /// [`Error::Crypto`] if the engine fails.
    pub fn new(local: Arc<Local>, overlap: Duration) -> Result<Self, Error> {
        let live = Live {
            current: Arc::new(Responder::new(local)?),
            previous: Vec::new(),
        };
        Ok(Self {
            live: RwLock::new(live),
            overlap,
        })
    }

    /// Answers for `local` from now on, with a fresh offer. More than eight changes within the overlap drop the oldest.
    ///
    /// # Errors
    ///
    /// [`Error::Crypto`] if the engine fails; nothing is changed then.
    pub fn renew(&self, local: Arc<Local>, now: Instant) -> Result<(), Error> {
        let renewed = Arc::new(self.current().renewed(local)?);
        let live = &mut *self.live.write();
        live.previous.retain(|(_, until)| now < *until);
        if live.previous.len() >= MAX_PREVIOUS {
            live.previous.remove(0);
        }
        let until = now.checked_add(self.overlap).unwrap_or(now);
        let ended = std::mem::replace(&mut live.current, renewed);
        live.previous.push((ended, until));
        Ok(())
    }

    /// The newest, whose offer is given out, and which answers resumptions.
    pub fn current(&self) -> Arc<Responder> {
        Arc::clone(&self.live.read().current)
    }

    /// As [`Responder::check`], by the responder whose offer the message is for.
    ///
    /// # Errors
    ///
    /// As [`Responder::check`].
    pub fn check(
        &self,
        init: &[u8],
        (unix, now): (UnixTime, Instant),
    ) -> Result<(Arc<Responder>, Checked), Error> {
        let live = self.live.read();
        let older = live.previous.iter().rev();
        let older = older.filter(|(_, until)| now < *until);
        let mut found = live.current.check(init, unix);
        let mut responder = &live.current;
        for (previous, _) in older {
            if !matches!(found, Err(Error::StaleOffer)) {
                break;
            }
            responder = previous;
            found = previous.check(init, unix);
        }
        found.map(|checked| (Arc::clone(responder), checked))
    }

    /// Drops those whose overlap is over; they answer nothing before that either, but their keys are still in memory.
    pub fn sweep(&self, now: Instant) {
        let mut live = self.live.write();
        live.previous.retain(|(_, until)| now < *until);
    }
}

/// Each holds shares and replay cache; identities change seldom.
const MAX_PREVIOUS: usize = 8;
