//! Many services over few connections.
//!
//! A blocking query holds a connection for minutes, and an agent takes 200 of one address by default
//! (`limits.http_max_conns_per_client`), which all programs of a machine share; beyond that it closes whatever comes,
//! theirs too. A query that is given up counts until its wait is over (seen with 1.8.7), so none is. While there are more
//! services than connections each waits for a short while only, and a part of the connections is kept for requests that
//! are answered at once.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;

/// The connections of one source.
#[derive(Debug)]
pub(super) struct Turns {
    waiting: usize,
    /// For queries that wait.
    long: Semaphore,
    /// For those that don't.
    short: Semaphore,
    followed: AtomicUsize,
}

/// One service that is followed.
#[derive(Debug)]
pub(super) struct Place(Arc<Turns>);

/// The use of a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    /// How long a query may wait.
    pub(super) wait: Duration,
    _connection: Option<SemaphorePermit<'a>>,
}

impl Turns {
    /// A quarter of `connections` is for what is answered at once.
    pub(super) fn new(connections: NonZeroUsize) -> Arc<Self> {
        let connections = connections.get().min(Semaphore::MAX_PERMITS);
        let short = connections.div_ceil(4);
        let waiting = (connections - short).max(1);
        Arc::new(Self {
            waiting,
            long: Semaphore::new(waiting),
            short: Semaphore::new(short),
            followed: AtomicUsize::new(0),
        })
    }

    /// A place among those who share the connections, until it is dropped.
    pub(super) fn join(self: &Arc<Self>) -> Place {
        self.followed.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(self))
    }
}

impl Place {
    /// Waits for a connection; `is_answered_at_once` tells that the query will not wait, whatever it may. Other queries
    /// may wait for `usual`, or shortly where connections are rare.
    pub(super) async fn take(&self, is_answered_at_once: bool, usual: Duration) -> Turn<'_> {
        if !is_answered_at_once
            && let Ok(connection) = tokio::time::timeout(PATIENCE, self.0.long.acquire()).await
        {
            let is_crowded = self.0.followed.load(Ordering::Relaxed) > self.0.waiting;
            return Turn {
                wait: if is_crowded { usual.min(SHORT) } else { usual },
                // It is never closed.
                _connection: connection.ok(),
            };
        }
        Turn {
            wait: LOOK,
            _connection: self.0.short.acquire().await.ok(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.followed.fetch_sub(1, Ordering::Relaxed);
    }
}

/// With 48 connections that wait and 480 services, each is asked for each 20 s, …
const SHORT: Duration = Duration::from_secs(2);
/// … and in between, as while others still wait for longer, each 10 s without waiting.
const PATIENCE: Duration = Duration::from_secs(10);
/// Consul takes 0 for its own default.
const LOOK: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_connection_looks_after_a_while_without_waiting() {
        let turns = Turns::new(NonZeroUsize::new(4).unwrap());
        let places: Vec<_> = (0..5).map(|_| turns.join()).collect();
        let [first, second, third, fourth, fifth] = &*places else {
            unreachable!()
        };
        let held = (
            first.take(false, USUAL).await,
            second.take(false, USUAL).await,
            third.take(false, USUAL).await,
        );
        assert_eq!(held.0.wait, SHORT);
        let start = tokio::time::Instant::now();
        let look = fourth.take(false, USUAL).await;
        assert_eq!((look.wait, start.elapsed()), (LOOK, PATIENCE));
        drop(look);
        assert_eq!(fifth.take(true, USUAL).await.wait, LOOK);
        assert_eq!(
            start.elapsed(),
            PATIENCE,
            "what is answered at once waits for nobody"
        );
        drop(held);
        assert_eq!(fourth.take(false, USUAL).await.wait, SHORT);
    }

    #[tokio::test(start_paused = true)]
    async fn few_services_wait_as_long_as_they_like() {
        let turns = Turns::new(NonZeroUsize::MIN);
        let place = turns.join();
        assert_eq!(place.take(false, USUAL).await.wait, USUAL);
        let other = turns.join();
        assert_eq!(place.take(false, USUAL).await.wait, SHORT);
        drop(other);
        assert_eq!(place.take(false, USUAL).await.wait, USUAL);
    }
}
