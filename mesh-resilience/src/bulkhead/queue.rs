//! Who runs and who waits, first come first served: a state machine without a lock of its own.

use std::collections::VecDeque;
use std::task::Waker;

use super::Snapshot;

/// Permits out, and callers waiting for one.
#[derive(Debug)]
pub(super) struct Queue {
    max_running: usize,
    max_waiting: usize,
    /// Permits out, those included that were handed to a waiter who has not picked them up yet.
    running: usize,
    next: u64,
    /// In order of arrival, so sorted by id.
    waiting: VecDeque<Waiter>,
    /// Waiters that own a permit already; at most `max_running`, and mostly none.
    handed: Vec<WaiterId>,
}

#[derive(Debug)]
struct Waiter {
    id: WaiterId,
    waker: Option<Waker>,
}

/// Names one waiter for the life of the queue.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct WaiterId(u64);

/// What an arriving caller is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// It has a permit.
    Run,
    /// It waits.
    Wait(WaiterId),
    /// There is no place.
    Refused,
}

impl Queue {
    pub(super) const fn new(max_running: usize, max_waiting: usize) -> Self {
        Self {
            max_running,
            max_waiting,
            running: 0,
            next: 0,
            waiting: VecDeque::new(),
            handed: Vec::new(),
        }
    }

    /// Takes a permit if one is free; waiters, if any, come first.
    pub(super) fn try_enter(&mut self) -> bool {
        let is_free = self.running < self.max_running && self.waiting.is_empty();
        self.running += usize::from(is_free);
        is_free
    }

    /// Takes a permit, or a place in the queue.
    pub(super) fn enter(&mut self) -> Turn {
        if self.try_enter() {
            return Turn::Run;
        }
        if self.waiting.len() >= self.max_waiting {
            return Turn::Refused;
        }
        let id = WaiterId(self.next);
        self.next += 1;
        self.waiting.push_back(Waiter { id, waker: None });
        Turn::Wait(id)
    }

    /// Gives a permit back: to the first waiter, whose waker is returned, or to the pool.
    pub(super) fn leave(&mut self) -> Option<Waker> {
        let Some(first) = self.waiting.pop_front() else {
            self.running = self.running.saturating_sub(1);
            return None;
        };
        self.handed.push(first.id);
        first.waker
    }

    /// Returns whether it is `id`'s turn, and if so forgets it: the permit is with the caller. Else keeps the waker.
    pub(super) fn poll_turn(&mut self, id: WaiterId, waker: &Waker) -> bool {
        if self.take_handed(id) {
            return true;
        }
        if let Ok(place) = self.waiting.binary_search_by_key(&id, |waiter| waiter.id) {
            let kept = &mut self.waiting[place].waker;
            match kept {
                Some(kept) => kept.clone_from(waker),
                None => *kept = Some(waker.clone()),
            }
        }
        false
    }

    /// Forgets waiter `id`, and returns whether it owned a permit, which the caller must now give back.
    #[must_use]
    pub(super) fn abandon(&mut self, id: WaiterId) -> bool {
        if let Ok(place) = self.waiting.binary_search_by_key(&id, |waiter| waiter.id) {
            self.waiting.remove(place);
            return false;
        }
        self.take_handed(id)
    }

    pub(super) const fn running(&self) -> usize {
        self.running
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            running: self.running,
            waiting: self.waiting.len(),
            max_concurrent: self.max_running,
            max_waiting: self.max_waiting,
        }
    }

    fn take_handed(&mut self, id: WaiterId) -> bool {
        let place = self.handed.iter().position(|handed| *handed == id);
        place.map(|place| self.handed.swap_remove(place)).is_some()
    }
}

#[cfg(test)]
mod tests;
