//! Many services over few connections.
//!
//! A blocking query holds a connection for minutes, and an agent takes 200 of one address by default
//! (`limits.http_max_conns_per_client`), which all programs of a machine share. While there are more services than
//! connections, each waits for a short while only and then lets the next one in.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;
use tokio::sync::watch;

/// The connections of one source.
#[derive(Debug)]
pub(super) struct Turns {
    connections: NonZeroUsize,
    free: Semaphore,
    followed: watch::Sender<usize>,
}

/// One service that is followed.
#[derive(Debug)]
pub(super) struct Place {
    turns: Arc<Turns>,
    followed: watch::Receiver<usize>,
}

impl Turns {
    pub(super) fn new(connections: NonZeroUsize) -> Arc<Self> {
        Arc::new(Self {
            connections,
            free: Semaphore::new(connections.get().min(Semaphore::MAX_PERMITS)),
            followed: watch::Sender::new(0),
        })
    }

    /// A place among those who share the connections, until it is dropped.
    pub(super) fn join(self: &Arc<Self>) -> Place {
        self.followed.send_modify(|followed| *followed += 1);
        Place {
            turns: Arc::clone(self),
            followed: self.followed.subscribe(),
        }
    }
}

impl Place {
    /// Waits for a connection to be free.
    pub(super) async fn take(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.turns.free.acquire().await.ok()
    }

    /// Whether there are more services than connections.
    pub(super) fn is_crowded(&self) -> bool {
        *self.followed.borrow() > self.turns.connections.get()
    }

    /// Ends when there are.
    pub(super) async fn crowded(&self) {
        let (mut followed, limit) = (self.followed.clone(), self.turns.connections.get());
        if followed
            .wait_for(|followed| *followed > limit)
            .await
            .is_err()
        {
            // This place holds the sender.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.turns.followed.send_modify(|followed| *followed -= 1);
    }
}

/// With 100 connections and 1,000 services, each is asked for every 20 s.
pub(super) const TURN: Duration = Duration::from_secs(2);
