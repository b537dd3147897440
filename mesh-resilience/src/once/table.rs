//! The memory itself: a state machine without a clock of its own.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Attempt, Lease, MessageId, OnceConfig, Snapshot};

/// What is found about an attempt.
#[derive(Debug)]
pub(super) enum Found<A> {
    /// Nothing: it runs, under this number.
    First(u64),
    Running(watch::Receiver<()>),
    Answered(Arc<A>),
    Lost,
    Unknown,
    Mismatch,
    Stale(Lease),
}

/// How a call ended.
#[derive(Debug)]
pub(super) enum Settled<A> {
    Answered(Arc<A>, usize),
    Lost,
    Unknown,
    Released,
}

/// All that is remembered.
#[derive(Debug)]
pub(super) struct Table<A> {
    config: OnceConfig,
    boot: [u8; 16],
    start: Instant,
    /// The clock: milliseconds since the start, never back.
    time: u64,
    /// When all books were gone through last.
    swept: u64,
    books: HashMap<Arc<str>, Book<A>>,
    /// Callers that are forgotten lost nothing that was accepted under a stamp from here on.
    floor: u64,
    entries: usize,
    bytes: usize,
    numbers: u64,
    evicted: u32,
}

/// What is remembered of one caller.
#[derive(Debug)]
struct Book<A> {
    entries: HashMap<MessageId, Entry<A>>,
    /// The entries by the stamp of the newest lease that they were accepted under, and number.
    order: BTreeMap<(u64, u64), MessageId>,
    /// No attempt under a stamp below this runs: entries of such stamps were forgotten early.
    floor: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry<A> {
    fingerprint: [u8; 32],
    stamp: u64,
    number: u64,
    bytes: usize,
    state: State<A>,
}

#[derive(Debug)]
enum State<A> {
    /// With what wakes those who wait, where somebody does.
    Running(Option<watch::Sender<()>>),
    Answered(Arc<A>),
    Lost,
    Unknown,
}

impl<A> Table<A> {
    pub(super) fn new(config: OnceConfig, boot: [u8; 16], now: Instant) -> Self {
        Self {
            config,
            boot,
            start: now,
            time: 0,
            swept: 0,
            books: HashMap::new(),
            floor: 0,
            entries: 0,
            bytes: 0,
            numbers: 0,
            evicted: 0,
        }
    }

    pub(super) fn lease(&mut self, caller: &str, now: Instant) -> Lease {
        self.tick(now);
        Lease::new(self.boot, self.time.max(self.floor_of(caller)))
    }

    pub(super) fn begin(&mut self, attempt: &Attempt<'_>, now: Instant) -> Found<A> {
        self.tick(now);
        self.sweep(attempt.caller);
        let newest = self.time.max(self.floor_of(attempt.caller));
        let stamp = attempt.lease.and_then(|lease| lease.stamp_of(&self.boot));
        // None is from the future: nobody was given one.
        let stamp = stamp.filter(|stamp| *stamp <= newest);
        let book = self.books.get_mut(attempt.caller);
        // Whatever is remembered does not run again, whichever lease it comes with.
        if let Some(found) = book.and_then(|book| book.find(attempt, stamp)) {
            return found;
        }
        let oldest = self.horizon().max(self.floor_of(attempt.caller));
        match stamp {
            Some(stamp) if stamp >= oldest => self.add(attempt, stamp),
            _ => Found::Stale(Lease::new(self.boot, newest)),
        }
    }

    pub(super) fn settle(&mut self, caller: &str, id: MessageId, number: u64, how: Settled<A>) {
        let Some(book) = self.books.get_mut(caller) else {
            return;
        };
        let hash_map::Entry::Occupied(mut entry) = book.entries.entry(id) else {
            return;
        };
        // Forgotten while it ran, and begun anew.
        if entry.get().number != number {
            return;
        }
        let (state, bytes) = match how {
            Settled::Released => {
                let entry = entry.remove();
                book.order.remove(&(entry.stamp, entry.number));
                self.entries -= 1;
                return;
            }
            Settled::Answered(answer, bytes) if bytes <= self.config.max_answer_bytes => {
                (State::Answered(answer), bytes)
            }
            Settled::Answered(..) | Settled::Lost => (State::Lost, 0),
            Settled::Unknown => (State::Unknown, 0),
        };
        let entry = entry.get_mut();
        (entry.state, entry.bytes) = (state, bytes);
        book.bytes += bytes;
        self.bytes += bytes;
        while self.bytes > self.config.max_bytes && self.evict(|_, book| book.bytes) {}
    }

    pub(super) fn snapshot(&mut self, now: Instant) -> Snapshot {
        self.tick(now);
        self.sweep("");
        Snapshot {
            entries: self.entries,
            bytes: self.bytes,
            callers: self.books.len(),
        }
    }

    /// How many were forgotten early since this was asked last.
    pub(super) fn take_evicted(&mut self) -> u32 {
        std::mem::take(&mut self.evicted)
    }

    fn tick(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.start).as_millis();
        self.time = self.time.max(u64::try_from(since).unwrap_or(u64::MAX));
    }

    /// What was accepted under a stamp below this is over.
    fn horizon(&self) -> u64 {
        // The lease that is given at the very beginning lasts a whole window too.
        (self.time + 1).saturating_sub(millis(self.config.window))
    }

    fn floor_of(&self, caller: &str) -> u64 {
        let book = self.books.get(caller);
        book.map_or(self.floor, |book| book.floor)
    }

    fn add(&mut self, attempt: &Attempt<'_>, stamp: u64) -> Found<A> {
        // Whoever asks counts with what it asks for: at equal shares it makes room itself.
        let size = |caller: &str, book: &Book<A>| {
            book.entries.len() + usize::from(caller == attempt.caller)
        };
        while self.entries >= self.config.max_entries.get() && self.evict(size) {}
        self.numbers += 1;
        let number = self.numbers;
        let floor = self.floor;
        let book = self.books.entry(Arc::from(attempt.caller));
        let book = book.or_insert_with(|| Book::new(floor));
        let entry = Entry {
            fingerprint: attempt.fingerprint,
            stamp,
            number,
            bytes: 0,
            state: State::Running(None),
        };
        book.entries.insert(attempt.id, entry);
        book.order.insert((stamp, number), attempt.id);
        self.entries += 1;
        Found::First(number)
    }

    /// Forgets the oldest of whoever has most, before its time.
    fn evict(&mut self, size: impl Fn(&str, &Book<A>) -> usize) -> bool {
        let greediest = self
            .books
            .iter_mut()
            .filter(|(_, book)| !book.entries.is_empty())
            .max_by_key(|(caller, book)| size(caller, book));
        let Some((_, book)) = greediest else {
            return false;
        };
        let Some((stamp, bytes)) = book.forget_oldest() else {
            return false;
        };
        // What is forgotten before its time must not run again.
        book.floor = book.floor.max(stamp + 1);
        self.entries -= 1;
        self.bytes -= bytes;
        self.evicted = self.evicted.saturating_add(1);
        true
    }

    /// Forgets what is over: of `caller` now, of all now and then.
    fn sweep(&mut self, caller: &str) {
        let horizon = self.horizon();
        if let Some(book) = self.books.get_mut(caller) {
            let (entries, bytes) = book.forget_before(horizon);
            self.entries -= entries;
            self.bytes -= bytes;
        }
        if self.time < self.swept + SWEEP_EVERY {
            return;
        }
        self.swept = self.time;
        let (mut entries, mut bytes, mut empty) = (0, 0, 0);
        let (most_empty, mut floor) = (self.config.max_entries.get(), self.floor);
        self.books.retain(|_, book| {
            book.forget_before(horizon);
            entries += book.entries.len();
            bytes += book.bytes;
            if !book.entries.is_empty() {
                return true;
            }
            // What it lost early can still be repeated, so its floor outlives it: in a book, or as everybody's.
            empty += 1;
            let is_needed = book.floor > horizon;
            if is_needed && empty > most_empty {
                floor = floor.max(book.floor);
                return false;
            }
            is_needed
        });
        (self.floor, self.entries, self.bytes) = (floor, entries, bytes);
    }
}

impl<A> Book<A> {
    fn new(floor: u64) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            floor,
            bytes: 0,
        }
    }

    /// What is remembered of the call of an attempt, which from now on counts for its lease too.
    fn find(&mut self, attempt: &Attempt<'_>, stamp: Option<u64>) -> Option<Found<A>> {
        let entry = self.entries.get_mut(&attempt.id)?;
        if entry.fingerprint != attempt.fingerprint {
            return Some(Found::Mismatch);
        }
        // Else a repeat under this lease would run once the older one is over.
        if let Some(stamp) = stamp
            && stamp > entry.stamp
        {
            self.order.remove(&(entry.stamp, entry.number));
            entry.stamp = stamp;
            self.order.insert((stamp, entry.number), attempt.id);
        }
        Some(match &mut entry.state {
            State::Running(waker) => Found::Running(
                waker
                    .get_or_insert_with(|| watch::Sender::new(()))
                    .subscribe(),
            ),
            State::Answered(answer) => Found::Answered(Arc::clone(answer)),
            State::Lost => Found::Lost,
            State::Unknown => Found::Unknown,
        })
    }

    /// Forgets all that was accepted under stamps below `horizon`; gives how many calls and bytes.
    fn forget_before(&mut self, horizon: u64) -> (usize, usize) {
        let (mut entries, bytes) = (0, self.bytes);
        while let Some((&(stamp, _), _)) = self.order.first_key_value()
            && stamp < horizon
        {
            self.forget_oldest();
            entries += 1;
        }
        (entries, bytes - self.bytes)
    }

    fn forget_oldest(&mut self) -> Option<(u64, usize)> {
        let ((stamp, _), id) = self.order.pop_first()?;
        let bytes = self.entries.remove(&id).map_or(0, |entry| entry.bytes);
        self.bytes -= bytes;
        Some((stamp, bytes))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// In milliseconds. It goes through all callers.
const SWEEP_EVERY: u64 = 1000;

#[cfg(test)]
mod tests;
