//! What waits between the callers and the writer: bytes in one buffer, and one commit per batch.
//!
//! A caller copies its escaped fields into a shared buffer under a short lock; the writer swaps that buffer for an empty
//! one. No allocation is made per record here, and one [`Commit`] per batch carries the answer to all
//! who wait for it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::chain::{Head, RecordHash};
use crate::error::AppendError;
use crate::event::{Event, EventKind};
use crate::record::Millis;

/// Records that wait to be written, in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    pub(crate) commit: Arc<Commit>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    end: usize,
    kind: EventKind,
    time: Millis,
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The records: kind, time and fields of each.
    pub(crate) fn records(&self) -> impl Iterator<Item = ((EventKind, Millis), &[u8])> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let fields = self.bytes.get(start..entry.end).unwrap_or_default();
            start = entry.end;
            ((entry.kind, entry.time), fields)
        })
    }

    /// Empties the batch for the next round, with a commit of its own.
    pub(crate) fn renew(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.commit = Arc::default();
    }
}

/// Why nothing is accepted.
#[derive(Clone, Debug)]
enum Refusal {
    Failed(Arc<io::Error>),
    Closed,
}

#[derive(Debug)]
struct State {
    batch: Batch,
    refusal: Option<Refusal>,
    is_closing: bool,
    /// The writer wants to be woken when this many records wait.
    wake_at: usize,
    refused: u64,
}

/// The bounded queue.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    max_records: usize,
    max_bytes: usize,
}

impl Queue {
    pub(crate) fn new(max_records: usize, max_bytes: usize) -> Self {
        let state = State {
            batch: Batch::default(),
            refusal: None,
            is_closing: false,
            wake_at: usize::MAX,
            refused: 0,
        };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            max_records,
            max_bytes,
        }
    }

    /// Queues an event and says which commit answers it and as which of its records.
    pub(crate) fn push(
        &self,
        event: Event,
        time: Millis,
    ) -> Result<(Arc<Commit>, usize), AppendError> {
        let kind = event.kind();
        let fields = event.into_fields();
        let mut state = self.state.lock();
        if let Err(refusal) = self.check(&state, fields.len()) {
            state.refused += 1;
            return Err(refusal);
        }
        let index = state.batch.len();
        state.batch.bytes.extend_from_slice(&fields);
        let end = state.batch.bytes.len();
        state.batch.entries.push(Entry { end, kind, time });
        let commit = Arc::clone(&state.batch.commit);
        if state.batch.len() >= state.wake_at {
            state.wake_at = usize::MAX;
            drop(state);
            self.wake.notify_one();
        }
        Ok((commit, index))
    }

    fn check(&self, state: &State, more: usize) -> Result<(), AppendError> {
        match &state.refusal {
            Some(Refusal::Failed(error)) => return Err(AppendError::Failed(Arc::clone(error))),
            Some(Refusal::Closed) => return Err(AppendError::Closed),
            None => {}
        }
        let (records, bytes) = (state.batch.len(), state.batch.bytes());
        // A single event larger than the bound still passes through an empty queue.
        if records >= self.max_records || (records > 0 && bytes + more > self.max_bytes) {
            return Err(AppendError::Full { records, bytes });
        }
        Ok(())
    }

    /// Waits until `records` wait, or the queue closes, or the time is over.
    pub(crate) fn wait(&self, records: usize, limit: Option<Duration>) -> Wait {
        let mut state = self.state.lock();
        state.wake_at = records;
        let mut timed_out = false;
        while state.batch.len() < records && !state.is_closing && !timed_out {
            match limit {
                None => self.wake.wait(&mut state),
                // A spurious wake-up may restart the wait: it is a bound on idleness, not a timer.
                Some(limit) => timed_out = self.wake.wait_for(&mut state, limit).timed_out(),
            }
        }
        state.wake_at = usize::MAX;
        Wait {
            records: state.batch.len(),
            is_closing: state.is_closing,
        }
    }

    /// Swaps what waits for `empty`.
    pub(crate) fn take(&self, empty: &mut Batch) {
        std::mem::swap(&mut self.state.lock().batch, empty);
    }

    /// Refuses everything from now on because of an error, and gives how many were refused so far.
    pub(crate) fn fail(&self, error: Arc<io::Error>) -> u64 {
        let mut state = self.state.lock();
        if !matches!(state.refusal, Some(Refusal::Closed)) {
            state.refusal = Some(Refusal::Failed(error));
        }
        state.refused
    }

    /// Accepts again, unless it is closed.
    pub(crate) fn heal(&self) {
        let mut state = self.state.lock();
        state.refusal = state.is_closing.then_some(Refusal::Closed);
    }

    /// Refuses everything for good and tells the writer to end.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closing = true;
        state.refusal = Some(Refusal::Closed);
        drop(state);
        self.wake.notify_one();
    }

    /// Records waiting, and events refused so far.
    pub(crate) fn depth(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.batch.len(), state.refused)
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) records: usize,
    pub(crate) is_closing: bool,
}

/// The answer to all records of a batch.
#[derive(Debug, Default)]
pub(crate) struct Commit(Mutex<CommitState>);

#[derive(Debug, Default)]
struct CommitState {
    result: Option<Result<Sealed, AppendError>>,
    waiting: Vec<Waker>,
}

/// The records of a committed batch.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) first: u64,
    pub(crate) hashes: Arc<[RecordHash]>,
}

impl Commit {
    /// Answers everyone. Only the first answer counts.
    pub(crate) fn finish(&self, result: Result<Sealed, AppendError>) {
        let mut state = self.0.lock();
        state.result.get_or_insert(result);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// What a caller gets for a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Receipt {
    /// The record is on stable storage as this one.
    Durable(Head),
    /// The record waits to be written ([`crate::Durability::Async`]).
    Queued,
}

impl Receipt {
    /// The record's number and hash, once it is durable.
    pub const fn head(&self) -> Option<Head> {
        match self {
            Self::Durable(head) => Some(*head),
            Self::Queued => None,
        }
    }
}

/// The answer to an append: ready when the log's [`crate::Durability`] is met.
///
/// # Cancel safety
///
/// The event was queued before this future existed. Dropping it only gives up the answer; the record is written.
#[derive(Debug)]
#[must_use = "the answer says whether the record is on disk; a request must not go on without it"]
pub struct Append(Answer);

#[derive(Debug)]
enum Answer {
    Ready(Result<Receipt, AppendError>),
    Waiting {
        commit: Arc<Commit>,
        index: usize,
        slot: Option<usize>,
    },
}

impl Append {
    pub(crate) fn ready(result: Result<Receipt, AppendError>) -> Self {
        Self(Answer::Ready(result))
    }

    pub(crate) fn waiting(commit: Arc<Commit>, index: usize) -> Self {
        Self(Answer::Waiting {
            commit,
            index,
            slot: None,
        })
    }
}

impl Future for Append {
    type Output = Result<Receipt, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (commit, index, slot) = match &mut self.0 {
            Answer::Ready(result) => return Poll::Ready(result.clone()),
            Answer::Waiting {
                commit,
                index,
                slot,
            } => (commit, *index, slot),
        };
        let mut state = commit.0.lock();
        match &state.result {
            Some(Ok(sealed)) => {
                let hash = sealed
                    .hashes
                    .get(index)
                    .copied()
                    .unwrap_or(RecordHash::ZERO);
                Poll::Ready(Ok(Receipt::Durable(Head::new(
                    sealed.first + index as u64,
                    hash,
                ))))
            }
            Some(Err(error)) => Poll::Ready(Err(error.clone())),
            None => {
                match slot.and_then(|slot| state.waiting.get_mut(slot)) {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => {
                        *slot = Some(state.waiting.len());
                        state.waiting.push(context.waker().clone());
                    }
                }
                Poll::Pending
            }
        }
    }
}
