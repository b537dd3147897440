//! Bulkhead: a service that hangs may hold so many calls and no more.
//!
//! At most `max_concurrent` calls run and `max_waiting` wait, first come first served; the next is refused. A permit is
//! an object: by default the layer gives it back with the response, and a [`HoldPermit`] attaches it to the response
//! instead, so that a streaming body counts until it ends.
//!
//! *Cancel safety*: a caller that gives up leaves the queue; one that had just been handed a permit passes it on.
//!
//! # Sources
//!
//! - Nygard, "Release It!", 2nd edition, chapter 5 (bulkheads).

mod queue;
mod service;

use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;

use self::queue::{Queue, Turn, WaiterId};

pub use crate::refusal::BulkheadFull;

pub use self::service::{
    BulkheadLayer, BulkheadService, HoldPermit, ReleaseOnResponse, ResponseFuture,
};

/// The bounds of one bulkhead.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BulkheadConfig {
    /// Calls that run at the same time. Default 100.
    pub max_concurrent: NonZeroUsize,
    /// Calls that wait for one of them to end. Default 50; 0 refuses at once.
    pub max_waiting: usize,
}

impl BulkheadConfig {
    /// Sets how many calls run at the same time.
    #[must_use]
    pub const fn with_max_concurrent(mut self, max_concurrent: NonZeroUsize) -> Self {
        self.max_concurrent = max_concurrent;
        self
    }

    /// Sets how many calls wait.
    #[must_use]
    pub const fn with_max_waiting(mut self, max_waiting: usize) -> Self {
        self.max_waiting = max_waiting;
        self
    }
}

impl Default for BulkheadConfig {
    fn default() -> Self {
        Self {
            max_concurrent: DEFAULT_MAX_CONCURRENT,
            max_waiting: DEFAULT_MAX_WAITING,
        }
    }
}

/// One bulkhead, shared by all that call the same service. Clones are the same bulkhead.
#[derive(Clone)]
pub struct Bulkhead {
    queue: Arc<Mutex<Queue>>,
}

impl Bulkhead {
    /// Creates an empty bulkhead.
    pub fn new(config: &BulkheadConfig) -> Self {
        Self {
            queue: Arc::new(Mutex::new(Queue::new(
                config.max_concurrent.get(),
                config.max_waiting,
            ))),
        }
    }

    /// Waits for a permit, first come first served. The place in the queue is taken now, not at the first poll.
    ///
    /// The future gives [`BulkheadFull`] when the queue is full too.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue.
    pub fn acquire(&self) -> Acquire {
        let turn = self.queue.lock().enter();
        Acquire {
            bulkhead: self.clone(),
            turn: Some(turn),
        }
    }

    /// Takes a permit if one is free and nobody waits for it.
    ///
    /// # Errors
    ///
    /// [`BulkheadFull`] when a caller would have to wait.
    pub fn try_acquire(&self) -> Result<Permit, BulkheadFull> {
        if self.queue.lock().try_enter() {
            Ok(self.permit())
        } else {
            Err(BulkheadFull)
        }
    }

    /// Returns how many permits are out.
    pub fn running(&self) -> usize {
        self.queue.lock().running()
    }

    /// Returns how many callers wait.
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting()
    }

    fn permit(&self) -> Permit {
        Permit {
            bulkhead: self.clone(),
        }
    }

    fn release(&self) {
        let waker = self.queue.lock().leave();
        // Woken outside the lock, since the woken task takes it.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (running, waiting) = (self.running(), self.waiting());
        f.debug_struct("Bulkhead")
            .field("running", &running)
            .field("waiting", &waiting)
            .finish()
    }
}

/// The right to run one call, until dropped.
#[derive(Debug)]
#[must_use = "dropping a permit gives it back"]
pub struct Permit {
    bulkhead: Bulkhead,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.bulkhead.release();
    }
}

/// A place in the queue of a [`Bulkhead`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Acquire {
    bulkhead: Bulkhead,
    /// `None` once it has been answered.
    turn: Option<Turn>,
}

impl Acquire {
    fn waiter(&self) -> Option<WaiterId> {
        match self.turn {
            Some(Turn::Wait(id)) => Some(id),
            _ => None,
        }
    }
}

impl Future for Acquire {
    type Output = Result<Permit, BulkheadFull>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(id) = self.waiter()
            && !self.bulkhead.queue.lock().poll_turn(id, cx.waker())
        {
            return Poll::Pending;
        }
        match self.turn.take() {
            Some(Turn::Run | Turn::Wait(_)) => Poll::Ready(Ok(self.bulkhead.permit())),
            Some(Turn::Refused) => Poll::Ready(Err(BulkheadFull)),
            // Polled again after it was ready: no permit is made up.
            None => Poll::Pending,
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        match self.turn {
            Some(Turn::Run) => self.bulkhead.release(),
            Some(Turn::Wait(id)) => {
                let was_handed_a_permit = self.bulkhead.queue.lock().abandon(id);
                if was_handed_a_permit {
                    self.bulkhead.release();
                }
            }
            Some(Turn::Refused) | None => {}
        }
    }
}

const DEFAULT_MAX_CONCURRENT: NonZeroUsize = NonZeroUsize::new(100).unwrap();
const DEFAULT_MAX_WAITING: usize = 50;

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Bulkhead>();
    assert_send_sync::<Permit>();
};
