//! Not asking a busy peer again before it wants to be asked.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::time::Duration;

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::BoxError;
use crate::error::Error;
use crate::session::RETRY_PUSHBACK;

/// The peer begins no handshake now.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the peer is busy with handshakes, and can be asked again in {}ms", .retry_after.as_millis())]
pub(super) struct PeerBusy {
    retry_after: Duration,
}

impl PeerBusy {
    /// From the answer's header, or a second where that says nothing.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let said = headers.get(RETRY_PUSHBACK);
        let millis = said
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map_or(DEFAULT, Duration::from_millis);
        Self {
            retry_after: millis.min(LONGEST),
        }
    }
}

/// Until when a peer wants to be left alone. Whoever shares its patience with others comes back at another time than they
/// do: up to half as late again, drawn by chance.
#[derive(Debug, Default)]
pub(super) struct Pause {
    until: Mutex<Option<Instant>>,
    random: RandomState,
}

impl Pause {
    /// Notes what a failed handshake says of it.
    pub(super) fn note(&self, error: &BoxError, now: Instant) {
        let Some(busy) = error.downcast_ref::<PeerBusy>() else {
            return;
        };
        let spread = self.random.hash_one(now) % SPREAD;
        let late = busy.retry_after / 2 * u32::try_from(spread).unwrap_or(0) / SPREAD_PARTS;
        *self.until.lock() = Some(now + busy.retry_after + late);
    }

    /// Waits until the peer may be asked, if that is soon.
    ///
    /// # Errors
    ///
    /// [`PeerBusy`] at once where it is not.
    pub(super) async fn over(&self) -> Result<(), PeerBusy> {
        let until = *self.until.lock();
        let Some(until) = until else {
            return Ok(());
        };
        let retry_after = until.saturating_duration_since(Instant::now());
        if retry_after > SOON {
            return Err(PeerBusy { retry_after });
        }
        tokio::time::sleep(retry_after).await;
        Ok(())
    }
}

/// Whether the peer said that it is busy.
pub(super) fn is_busy(error: &Error) -> bool {
    matches!(error, Error::Session { source, .. } if source.is::<PeerBusy>())
}

const DEFAULT: Duration = Duration::from_secs(1);
/// A peer can't keep us away for longer.
const LONGEST: Duration = Duration::from_secs(30);
/// Waiting so long is better for a call than to fail; another attempt of it would come no earlier.
const SOON: Duration = Duration::from_secs(1);
const SPREAD: u64 = 1_024;
const SPREAD_PARTS: u32 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(millis: &str) -> BoxError {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_PUSHBACK, millis.parse().unwrap());
        PeerBusy::of(&headers).into()
    }

    // threat 32
    #[tokio::test(start_paused = true)]
    async fn waits_for_as_long_as_the_peer_says_and_up_to_half_more() {
        let (pause, start) = (Pause::default(), Instant::now());
        pause.over().await.unwrap();
        assert_eq!(Instant::now(), start);
        pause.note(&busy("600"), start);
        pause.over().await.unwrap();
        let waited = Instant::now() - start;
        assert!((600..=901).contains(&waited.as_millis()), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn fails_at_once_where_the_wait_is_long_and_never_waits_for_ever() {
        let pause = Pause::default();
        pause.note(&busy("18446744073709551615"), Instant::now());
        pause.over().await.unwrap_err();
        tokio::time::advance(LONGEST * 3 / 2).await;
        pause.over().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn takes_a_second_where_the_peer_says_nothing_of_use() {
        for said in ["-1", "", "soon"] {
            let busy = busy(said);
            assert_eq!(
                busy.downcast_ref::<PeerBusy>().unwrap().retry_after,
                DEFAULT
            );
        }
    }
}
