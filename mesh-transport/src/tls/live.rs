//! Peers of live connections: vouched for as long as the connection lives, and not only in its handshake.
//!
//! A connection can live for days, a certificate for an hour, and a root may have to be taken back within seconds. So
//! each connection keeps its peer's chain and checks it again when a root is trusted no more, and when the first
//! certificate of the chain ends. It costs nothing while neither happens, and no request anything at all.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::UnixTime;
use tokio::sync::watch;

use crate::tls::PeerId;
use crate::tls::TlsStore;

/// The verified peer of one live connection.
#[derive(Debug)]
pub struct LivePeer {
    store: Arc<TlsStore>,
    id: PeerId,
    side: Side,
    chain: Vec<CertificateDer<'static>>,
    /// When the first certificate of the chain ends.
    valid_until: UnixTime,
    turns: watch::Receiver<Turn>,
    /// What this connection was last judged by, or made with.
    seen: Turn,
}

/// What the peer is to us.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Client,
    Server,
}

/// How often identity and trust changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Turn {
    /// Counts the identities.
    pub(super) generation: u64,
    /// Counts those that trust a root less than the one before.
    pub(super) trust: u64,
}

/// The peer of a live connection is not vouched for any more.
#[derive(Debug, thiserror::Error)]
#[error("{peer} is not vouched for any more")]
#[non_exhaustive]
pub struct PeerEnded {
    /// Who it was.
    pub peer: PeerId,
    /// Why.
    pub source: rustls::Error,
}

impl LivePeer {
    pub(super) fn new(
        store: Arc<TlsStore>,
        (id, side): (PeerId, Side),
        chain: Vec<CertificateDer<'static>>,
        seen: Turn,
    ) -> Self {
        let turns = store.turns.subscribe();
        let ends = chain.iter().map(|one| store.rules.not_after(one));
        let valid_until = ends.min().unwrap_or(BEGINNING);
        Self {
            store,
            id,
            side,
            chain,
            valid_until,
            turns,
            seen,
        }
    }

    /// Who it is.
    pub fn id(&self) -> &PeerId {
        &self.id
    }

    /// When its certificate, or one above it that came with it, ends.
    pub fn valid_until(&self) -> UnixTime {
        self.valid_until
    }

    /// Waits until the peer is not vouched for any more: its certificate ended, a root that it needs was removed, or its
    /// trust domain was dropped. Says so within a second; where the system's clock was set, within half a minute.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn ended(&mut self) -> PeerEnded {
        loop {
            let (trust, next_look) = (self.seen.trust, self.next_look());
            let shrunk = tokio::select! {
                changed = self.turns.wait_for(|turn| turn.trust != trust) => changed.map(|turn| *turn).ok(),
                () = tokio::time::sleep(next_look) => None,
            };
            match shrunk {
                Some(turn) => self.seen = turn,
                None if self.is_in_time() => continue,
                None => {}
            }
            if let Err(source) = self.store.verify(self.side, &self.chain) {
                let peer = self.id.clone();
                return PeerEnded { peer, source };
            }
            // What ended earlier was not needed; the leaf always is.
            if let (false, Some(leaf)) = (self.is_in_time(), self.chain.first()) {
                self.valid_until = self.store.rules.not_after(leaf);
            }
        }
    }

    /// Waits until our own identity is not the one any more that the connection was made with.
    pub(crate) fn replaced(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut turns, made_with) = (self.turns.clone(), self.seen.generation);
        async move {
            // An error says that the store is gone, and the connection holds it.
            drop(
                turns
                    .wait_for(|turn| turn.generation != made_with)
                    .await
                    .map(|_| ()),
            );
        }
    }

    fn next_look(&self) -> Duration {
        let left = self.store.rules.clock.current_time().map(|now| {
            let left = self.valid_until.as_secs().saturating_sub(now.as_secs());
            Duration::from_secs(left)
        });
        left.unwrap_or_default().clamp(SHORTEST_LOOK, LONGEST_LOOK)
    }

    fn is_in_time(&self) -> bool {
        let now = self.store.rules.clock.current_time();
        now.is_some_and(|now| now < self.valid_until)
    }
}

/// The end of a certificate that can't be read; such a one is not accepted in the first place.
const BEGINNING: UnixTime = UnixTime::since_unix_epoch(Duration::ZERO);
/// A certificate that ended is noticed this late at most.
const SHORTEST_LOOK: Duration = Duration::from_secs(1);
/// Timers do not count what a machine sleeps through, and clocks are set: look at the time this often.
const LONGEST_LOOK: Duration = Duration::from_secs(30);
