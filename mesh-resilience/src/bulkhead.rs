//! Bulkhead: a service that hangs may hold so many calls and no more.
//!
//! ```text
//!                    ┌── a place to run is free, and nobody waits ──▶ RUNNING ──▶ its permit goes to the first
//!                    │                                                   ▲        that waits, or becomes free
//!   call ────────────┼── a place to wait is free ──▶ WAITING ── its turn ┘
//!                    │                                  └── max_wait is over ──▶ REFUSED
//!                    └── neither ──▶ REFUSED
//! ```
//!
//! # Terms
//!
//! *Running*: holds one of `max_concurrent` permits. *Waiting*: stands in the queue, of at most `max_waiting`. *Refused*:
//! answered with [`BulkheadFull`]; the service was not called. *Permit*: an object; by default the layer gives it back
//! with the response, and a [`HoldPermit`] attaches it to the response instead, so that a streaming body counts until it
//! ends.
//!
//! # Fairness
//!
//! First come, first served, without exception: a permit that comes back is handed to whoever waits longest, before that
//! caller has even been woken, so that nobody who comes later can take it. The price is that a place stands empty for as
//! long as it takes to wake a task.
//!
//! A full queue that drains slowly makes everybody wait for an answer that comes too late. Keep it short, or set
//! [`BulkheadConfig::max_wait`] to less than the timeout of a call.
//!
//! *Cancel safety*: a caller that gives up leaves the queue; one that had just been handed a permit passes it on.
//!
//! # Sources
//!
//! - Nygard, "Release It!", 2nd edition, chapter 5 (bulkheads).
//! - `resilience4j`, "Bulkhead" (`maxWaitDuration`).

mod queue;
mod service;

use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Sleep;

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
    /// How long a call waits. Default none: as long as its caller does. Zero refuses at once.
    #[cfg_attr(
        feature = "serde",
        serde(
            with = "crate::duration::option",
            skip_serializing_if = "Option::is_none"
        )
    )]
    pub max_wait: Option<Duration>,
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

    /// Sets how long a call waits.
    #[must_use]
    pub const fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = Some(max_wait);
        self
    }
}

impl Default for BulkheadConfig {
    fn default() -> Self {
        Self {
            max_concurrent: DEFAULT_MAX_CONCURRENT,
            max_waiting: DEFAULT_MAX_WAITING,
            max_wait: None,
        }
    }
}

/// One bulkhead, shared by all that call the same service. Clones are the same bulkhead.
#[derive(Clone)]
pub struct Bulkhead {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    max_wait: Option<Duration>,
    observer: Option<Arc<dyn Observe>>,
}

impl Bulkhead {
    /// Creates an empty bulkhead.
    pub fn new(config: &BulkheadConfig) -> Self {
        Self::with_observer(config, None)
    }

    /// Creates an empty bulkhead that reports to `observer`.
    pub fn with_observer(config: &BulkheadConfig, observer: Option<Arc<dyn Observe>>) -> Self {
        let nobody_waits = config.max_wait == Some(Duration::ZERO);
        let max_waiting = if nobody_waits { 0 } else { config.max_waiting };
        let queue = Queue::new(config.max_concurrent.get(), max_waiting);
        Self {
            shared: Arc::new(Shared {
                queue: Mutex::new(queue),
                max_wait: config.max_wait,
                observer,
            }),
        }
    }

    /// Waits for a permit, first come first served. The place in the queue is taken now, not at the first poll.
    ///
    /// The future gives [`BulkheadFull`] when the queue is full too, or the wait takes longer than
    /// [`BulkheadConfig::max_wait`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue.
    pub fn acquire(&self) -> Acquire {
        let turn = self.shared.queue.lock().enter();
        let wait = match turn {
            Turn::Wait(_) => self.shared.max_wait,
            Turn::Run | Turn::Refused => None,
        };
        if turn == Turn::Refused {
            self.refused(Refused::QueueFull);
        }
        Acquire {
            bulkhead: self.clone(),
            turn: Some(turn),
            patience: wait.map(|wait| Box::pin(tokio::time::sleep(wait))),
        }
    }

    /// Takes a permit if one is free and nobody waits for it.
    ///
    /// # Errors
    ///
    /// [`BulkheadFull`] when a caller would have to wait.
    pub fn try_acquire(&self) -> Result<Permit, BulkheadFull> {
        self.take_free().ok_or_else(|| {
            self.refused(Refused::QueueFull);
            BulkheadFull
        })
    }

    /// Returns how many permits are out.
    pub fn running(&self) -> usize {
        self.shared.queue.lock().running()
    }

    /// Returns how many callers wait.
    pub fn waiting(&self) -> usize {
        self.shared.queue.lock().waiting()
    }

    /// Returns how full it is.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.queue.lock().snapshot()
    }

    fn take_free(&self) -> Option<Permit> {
        let is_free = self.shared.queue.lock().try_enter();
        is_free.then(|| self.permit())
    }

    fn permit(&self) -> Permit {
        Permit {
            bulkhead: self.clone(),
        }
    }

    fn release(&self) {
        let waker = self.shared.queue.lock().leave();
        // Woken outside the lock, since the woken task takes it.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn refused(&self, why: Refused) {
        if let Some(observer) = &self.shared.observer {
            observer.refused(why);
        }
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Snapshot {
            running, waiting, ..
        } = self.snapshot();
        f.debug_struct("Bulkhead")
            .field("running", &running)
            .field("waiting", &waiting)
            .finish()
    }
}

/// A bulkhead as it stands, for people.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// Permits that are out.
    pub running: usize,
    /// Callers that wait.
    pub waiting: usize,
    /// Permits there are.
    pub max_concurrent: usize,
    /// Callers that may wait.
    pub max_waiting: usize,
}

/// Why a bulkhead refused a call.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Refused {
    /// All places, to run and to wait, were taken.
    QueueFull,
    /// It waited for as long as it may.
    WaitedTooLong,
}

/// Is told what a bulkhead does, for metrics. Called without a lock held.
pub trait Observe: Send + Sync {
    /// A call was refused.
    fn refused(&self, why: Refused) {
        let _ = why;
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
    /// Boxed: only a caller that has to wait has one.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Acquire {
    fn waiter(&self) -> Option<WaiterId> {
        match self.turn {
            Some(Turn::Wait(id)) => Some(id),
            _ => None,
        }
    }

    /// Gives the place up: out of the queue, and a permit that was just handed over to the next.
    fn leave(&mut self) {
        match self.turn.take() {
            Some(Turn::Run) => self.bulkhead.release(),
            Some(Turn::Wait(id)) => {
                let was_handed_a_permit = self.bulkhead.shared.queue.lock().abandon(id);
                if was_handed_a_permit {
                    self.bulkhead.release();
                }
            }
            Some(Turn::Refused) | None => {}
        }
    }
}

impl Future for Acquire {
    type Output = Result<Permit, BulkheadFull>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The turn first: who is handed a permit at the last moment has it.
        if let Some(id) = self.waiter()
            && !self.bulkhead.shared.queue.lock().poll_turn(id, cx.waker())
        {
            let patience = self.patience.as_mut();
            if patience.is_none_or(|patience| patience.as_mut().poll(cx).is_pending()) {
                return Poll::Pending;
            }
            self.leave();
            self.bulkhead.refused(Refused::WaitedTooLong);
            return Poll::Ready(Err(BulkheadFull));
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
        self.leave();
    }
}

const DEFAULT_MAX_CONCURRENT: NonZeroUsize = NonZeroUsize::new(100).unwrap();
const DEFAULT_MAX_WAITING: usize = 50;

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Bulkhead>();
    assert_send_sync::<Permit>();
};
