//! Once: a repeat of a call is answered from memory, so that a call which must not run twice can be sent twice.
//!
//! The side that is called keeps, for each caller and message id, what it answered. The side that calls gives all attempts of
//! a call the same id *and the same lease*, and may then send it again after a loss, to the same memory.
//!
//! ```text
//!                     ┌─ no answer came out ──────────────▶ UNKNOWN ──┐
//!            first    │                                               │ window over, or pushed out by
//!   (absent) ─────▶ RUNNING ─ answer ─────────────────────▶ ANSWERED ─┼─ newer calls of the same caller ─▶ (absent)
//!      ▲              │                                               │
//!      │              └─ answer too large to be kept ─────▶ LOST ─────┘
//!      └── released: provably did not run
//! ```
//!
//! # Terms
//!
//! - *memory*: one [`Once`], from its making to its end; it has a random name, its *boot id*.
//! - *lease*: boot id and a *stamp*, a moment on the memory's own clock in milliseconds. The memory gives one with each
//!   answer. No clock is compared with another one.
//! - *first*: an attempt that may run. All others are *repeats*.
//!
//! # What is guaranteed
//!
//! Of all attempts with the same caller, id and lease **at most one runs**, however late, often or concurrently they come,
//! and whatever the memory forgets or restarts in between: an attempt runs only if its lease names this memory, is
//! younger than the window, and younger than everything that this caller's memory was made to forget early. What was forgotten
//! was accepted under a lease that is older than one of these, so a repeat of it is [`Begin::Stale`] and does not run.
//!
//! An attempt that is stale did not run. If it is the first of its call it is sent again with a new lease, which costs one
//! round trip; if an earlier attempt of the call may have run, nobody knows any more whether it did.
//!
//! The same id under a *newer* lease is answered from memory for as long as it is there, which is the window where the
//! caller stays within its share; after that it runs.
//!
//! *Cancel safety*: a [`Ticket`] that is dropped without a word leaves [`Begin::Unknown`] behind: the call may have run.
//!
//! # Sources
//!
//! - IETF draft-ietf-httpapi-idempotency-key-header-07, sections 2.6 and 2.7: a key is answered with what it was answered
//!   first, a key that comes with another request is an error, a repeat while the first is under way is one too or waits.
//! - Liskov, Shrira, Wroclawski: "Efficient At-Most-Once Messages Based on Synchronized Clocks", ACM TOCS 9(2), 1991: old
//!   messages are told from new ones by a time stamp, and the memory's upper bound for what it forgot rises under pressure.
//!   Here the receiver's clock alone stamps, so no clocks need be in step.
//! - Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System", CACM 21(7), 1978: a clock that is pushed
//!   forward and never runs back.

mod config;
mod held;
mod lease;
mod table;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use self::table::Found;
use self::table::Settled;
use self::table::Table;
use crate::error::ConfigError;

pub use self::config::OnceConfig;
pub use self::lease::{BadLease, BadMessageId, Lease, MessageId};

/// One attempt, as its receiver sees it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Who calls: a verified name. Each caller has a memory of its own.
    pub caller: &'a str,
    /// Which call it is an attempt of.
    pub id: MessageId,
    /// A digest of what makes it the same call: method, path, query, body.
    pub fingerprint: [u8; 32],
    /// The lease that it was sent with.
    pub lease: Option<Lease>,
}

impl<'a> Attempt<'a> {
    /// An attempt at a call of `caller`.
    pub const fn new(
        caller: &'a str,
        id: MessageId,
        fingerprint: [u8; 32],
        lease: Option<Lease>,
    ) -> Self {
        Self {
            caller,
            id,
            fingerprint,
            lease,
        }
    }
}

/// What to do with an attempt.
#[non_exhaustive]
#[derive(Debug)]
pub enum Begin<A> {
    /// Run it, and tell the ticket how it went.
    First(Ticket<A>),
    /// It runs already: wait, and begin again.
    Running(Running),
    /// It ran: this is what it was answered.
    Answered(Arc<A>),
    /// It ran, and its answer was not kept, being too large.
    AnswerLost,
    /// It may have run; no answer came out.
    Unknown,
    /// The id belongs to another request.
    Mismatch,
    /// Not run, since nobody knows whether it ran before: the lease is old, of another memory, or absent. Has a new one.
    Stale(Lease),
}

/// Is told what a memory does, for metrics.
///
/// Called with the memory's lock held: be quick, and don't call the memory.
pub trait Observe: Send + Sync {
    /// A call was answered from memory, its answer kept or lost.
    fn answered(&self) {}

    /// Nobody knows whether a call ran: its first attempt ended without an answer. Told for that and for each repeat.
    fn unknown(&self) {}

    /// An id came with another request than before.
    fn mismatched(&self) {}

    /// An attempt was not run for its lease.
    fn stale(&self) {}

    /// A call was forgotten before its time, to make room.
    fn evicted(&self) {}
}

/// What a memory holds.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// Calls that are remembered, those that run included.
    pub entries: usize,
    /// Bytes of answers.
    pub bytes: usize,
    /// Callers of whom something is remembered.
    pub callers: usize,
}

/// One memory. Clones are the same memory.
pub struct Once<A> {
    shared: Arc<Shared<A>>,
}

struct Shared<A> {
    table: Mutex<Table<A>>,
    observer: Option<Arc<dyn Observe>>,
}

impl<A> Once<A> {
    /// Creates an empty memory.
    ///
    /// `boot` must differ from that of every other memory that calls may reach, before and after: 128 bits from the
    /// operating system. `now` is where its clock begins.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `config` makes no sense; see the fields of [`OnceConfig`] for their ranges.
    pub fn new(
        config: OnceConfig,
        boot: [u8; 16],
        now: Instant,
        observer: Option<Arc<dyn Observe>>,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            shared: Arc::new(Shared {
                table: Mutex::new(Table::new(config, boot, now)),
                observer,
            }),
        })
    }

    /// The lease for the next calls of `caller`.
    pub fn lease(&self, caller: &str, now: Instant) -> Lease {
        self.shared.table.lock().lease(caller, now)
    }

    /// Says what to do with an attempt, and remembers it.
    pub fn begin(&self, attempt: &Attempt<'_>, now: Instant) -> Begin<A> {
        let always = || Ok::<_, Infallible>(());
        match self.begin_if(attempt, now, always) {
            Ok(begin) => begin,
            Err(never) => match never {},
        }
    }

    /// As [`Once::begin`], but an attempt that would be a first one begins only where `admit` lets it: of one that it does
    /// not, nothing is remembered, and nothing else is forgotten for it. A repeat is answered without asking.
    ///
    /// `admit` is called with the memory's lock held: be quick, and don't call the memory.
    ///
    /// # Errors
    ///
    /// That of `admit`.
    pub fn begin_if<E>(
        &self,
        attempt: &Attempt<'_>,
        now: Instant,
        admit: impl FnOnce() -> Result<(), E>,
    ) -> Result<Begin<A>, E> {
        let mut table = self.shared.table.lock();
        let found = table.begin_if(attempt, now, admit)?;
        self.tell(&found);
        self.tell_evicted(&mut table);
        Ok(match found {
            Found::First(number) => Begin::First(Ticket {
                once: Self::clone(self),
                caller: Arc::from(attempt.caller),
                id: attempt.id,
                number,
                is_settled: false,
            }),
            Found::Running(settled) => Begin::Running(Running { settled }),
            Found::Answered(answer) => Begin::Answered(answer),
            Found::Lost => Begin::AnswerLost,
            Found::Unknown => Begin::Unknown,
            Found::Mismatch => Begin::Mismatch,
            Found::Stale(lease) => Begin::Stale(lease),
        })
    }

    /// What is remembered now.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        self.shared.table.lock().snapshot(now)
    }

    fn settle(&self, ticket: &Ticket<A>, how: Settled<A>) {
        let mut table = self.shared.table.lock();
        if matches!(how, Settled::Unknown)
            && let Some(observer) = &self.shared.observer
        {
            observer.unknown();
        }
        table.settle(&ticket.caller, ticket.id, ticket.number, how);
        self.tell_evicted(&mut table);
    }

    fn tell(&self, found: &Found<A>) {
        let Some(observer) = &self.shared.observer else {
            return;
        };
        match found {
            Found::First(_) | Found::Running(_) => {}
            Found::Answered(_) | Found::Lost => observer.answered(),
            Found::Unknown => observer.unknown(),
            Found::Mismatch => observer.mismatched(),
            Found::Stale(_) => observer.stale(),
        }
    }

    fn tell_evicted(&self, table: &mut Table<A>) {
        let evicted = table.take_evicted();
        if let Some(observer) = &self.shared.observer {
            for _ in 0..evicted {
                observer.evicted();
            }
        }
    }
}

impl<A> Clone for Once<A> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<A> fmt::Debug for Once<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

/// The right to run a call, and the duty to say how it went. Dropped without a word it leaves [`Begin::Unknown`].
#[must_use = "a ticket that is dropped says that the call may have run"]
pub struct Ticket<A> {
    once: Once<A>,
    caller: Arc<str>,
    id: MessageId,
    number: u64,
    is_settled: bool,
}

impl<A> Ticket<A> {
    /// It ran, and this is the answer. One with more `bytes` than [`OnceConfig::max_answer_bytes`] is not kept.
    pub fn answer(self, answer: Arc<A>, bytes: usize) {
        self.settle(Settled::Answered(answer, bytes));
    }

    /// It ran, and its answer can't be kept.
    pub fn answer_lost(self) {
        self.settle(Settled::Lost);
    }

    /// It provably did not run: the next attempt is a first one again.
    pub fn release(self) {
        self.settle(Settled::Released);
    }

    fn settle(mut self, how: Settled<A>) {
        self.is_settled = true;
        self.once.settle(&self, how);
    }
}

impl<A> Drop for Ticket<A> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.once.settle(self, Settled::Unknown);
        }
    }
}

impl<A> fmt::Debug for Ticket<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("caller", &self.caller)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A call that runs.
#[derive(Debug)]
pub struct Running {
    settled: watch::Receiver<()>,
}

impl Running {
    /// Waits until it has ended, or is forgotten.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when it is dropped.
    pub async fn settled(mut self) {
        // The sender says nothing; it goes when the call is settled.
        drop(self.settled.changed().await);
    }
}

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Once<()>>();
    assert_send_sync::<Ticket<()>>();
};

#[cfg(test)]
mod tests;
