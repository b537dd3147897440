//! The memory itself: a state machine without a clock of its own.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::held::{Amount, Held};
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
    held: Held,
    numbers: u64,
    evicted: u32,
}

/// What is remembered of one caller.
#[derive(Debug)]
struct Book<A> {
    caller: Arc<str>,
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
            held: Held::default(),
            numbers: 0,
            evicted: 0,
        }
    }

    pub(super) fn lease(&mut self, caller: &str, now: Instant) -> Lease {
        self.tick(now);
        Lease::new(self.boot, self.time.max(self.floor_of(caller)))
    }

    /// What is found about an attempt; where nothing is and `admit` lets it, it begins.
    pub(super) fn begin_if<E>(
        &mut self,
        attempt: &Attempt<'_>,
        now: Instant,
        admit: impl FnOnce() -> Result<(), E>,
    ) -> Result<Found<A>, E> {
        self.tick(now);
        self.sweep(attempt.caller);
        let newest = self.time.max(self.floor_of(attempt.caller));
        let stamp = attempt.lease.and_then(|lease| lease.stamp_of(&self.boot));
        // None is from the future: nobody was given one.
        let stamp = stamp.filter(|stamp| *stamp <= newest);
        let book = self.books.get_mut(attempt.caller);
        // Whatever is remembered does not run again, whichever lease it comes with.
        if let Some(found) = book.and_then(|book| book.find(attempt, stamp)) {
            return Ok(found);
        }
        let oldest = self.horizon().max(self.floor_of(attempt.caller));
        match stamp {
            Some(stamp) if stamp >= oldest => {
                // Before room is made for it: what is not admitted takes nothing from anybody.
                admit()?;
                Ok(self.add(attempt, stamp))
            }
            _ => Ok(Found::Stale(Lease::new(self.boot, newest))),
        }
    }

    pub(super) fn settle(&mut self, caller: &str, id: MessageId, number: u64, how: Settled<A>) {
        let most = self.config.max_answer_bytes;
        self.change(caller, |book| book.settle(id, number, how, most));
        while self.held.all().bytes > self.config.max_bytes
            && let Some(greediest) = self.held.most_bytes()
        {
            self.evict(&greediest);
        }
    }

    pub(super) fn snapshot(&mut self, now: Instant) -> Snapshot {
        self.tick(now);
        self.sweep("");
        let Amount { entries, bytes } = self.held.all();
        Snapshot {
            entries,
            bytes,
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
        while self.held.all().entries >= self.config.max_entries.get()
            && let Some((most, greediest)) = self.held.most_entries()
        {
            let own = self.books.get(attempt.caller);
            // Whoever asks counts with what it asks for: at equal shares it makes room itself.
            if own.is_some_and(|own| own.entries.len() == most) {
                self.evict(attempt.caller);
            } else {
                self.evict(&greediest);
            }
        }
        self.numbers += 1;
        let number = self.numbers;
        let floor = self.floor;
        if !self.books.contains_key(attempt.caller) {
            let caller: Arc<str> = Arc::from(attempt.caller);
            let book = Book::new(Arc::clone(&caller), floor);
            self.books.insert(caller, book);
        }
        let entry = Entry {
            fingerprint: attempt.fingerprint,
            stamp,
            number,
            bytes: 0,
            state: State::Running(None),
        };
        self.change(attempt.caller, |book| {
            book.entries.insert(attempt.id, entry);
            book.order.insert((stamp, number), attempt.id);
        });
        Found::First(number)
    }

    /// Forgets the oldest call of `caller`, before its time.
    fn evict(&mut self, caller: &str) {
        self.change(caller, |book| {
            if let Some(stamp) = book.forget_oldest() {
                // What is forgotten before its time must not run again.
                book.floor = book.floor.max(stamp + 1);
            }
        });
        self.evicted = self.evicted.saturating_add(1);
    }

    /// Changes what is remembered of `caller`, if something is.
    fn change(&mut self, caller: &str, change: impl FnOnce(&mut Book<A>)) {
        if let Some(book) = self.books.get_mut(caller) {
            let before = book.amount();
            change(book);
            self.held.change(&book.caller, before, book.amount());
        }
    }

    /// Forgets what is over: of `caller` now, of all now and then.
    fn sweep(&mut self, caller: &str) {
        let horizon = self.horizon();
        self.change(caller, |book| book.forget_before(horizon));
        if self.time < self.swept + SWEEP_EVERY {
            return;
        }
        self.swept = self.time;
        let most_empty = self.config.max_entries.get();
        let (mut empty, floor, held) = (0, &mut self.floor, &mut self.held);
        self.books.retain(|caller, book| {
            let before = book.amount();
            book.forget_before(horizon);
            held.change(caller, before, book.amount());
            if !book.entries.is_empty() {
                return true;
            }
            // What it lost early can still be repeated, so its floor outlives it: in a book, or as everybody's.
            empty += 1;
            let is_needed = book.floor > horizon;
            if is_needed && empty > most_empty {
                *floor = book.floor.max(*floor);
                return false;
            }
            is_needed
        });
    }
}

impl<A> Book<A> {
    fn new(caller: Arc<str>, floor: u64) -> Self {
        Self {
            caller,
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

    /// Takes in how the call ended that began under `number`; an answer of more than `most` bytes is not kept.
    fn settle(&mut self, id: MessageId, number: u64, how: Settled<A>, most: usize) {
        let hash_map::Entry::Occupied(mut entry) = self.entries.entry(id) else {
            return;
        };
        // Forgotten while it ran, and begun anew.
        if entry.get().number != number {
            return;
        }
        let (state, bytes) = match how {
            Settled::Released => {
                let entry = entry.remove();
                self.order.remove(&(entry.stamp, entry.number));
                return;
            }
            Settled::Answered(answer, bytes) if bytes <= most => (State::Answered(answer), bytes),
            Settled::Answered(..) | Settled::Lost => (State::Lost, 0),
            Settled::Unknown => (State::Unknown, 0),
        };
        let entry = entry.get_mut();
        (entry.state, entry.bytes) = (state, bytes);
        self.bytes += bytes;
    }

    fn amount(&self) -> Amount {
        Amount {
            entries: self.entries.len(),
            bytes: self.bytes,
        }
    }

    /// Forgets all that was accepted under stamps below `horizon`.
    fn forget_before(&mut self, horizon: u64) {
        while let Some((&(stamp, _), _)) = self.order.first_key_value()
            && stamp < horizon
        {
            self.forget_oldest();
        }
    }

    /// Forgets the call of the oldest stamp; gives that.
    fn forget_oldest(&mut self) -> Option<u64> {
        let ((stamp, _), id) = self.order.pop_first()?;
        let bytes = self.entries.remove(&id).map_or(0, |entry| entry.bytes);
        self.bytes -= bytes;
        Some(stamp)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// In milliseconds. It goes through all callers.
const SWEEP_EVERY: u64 = 1000;

#[cfg(test)]
mod tests;
