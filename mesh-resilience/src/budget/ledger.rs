//! The books of a retry budget: requests and retries of the last window, in tenths of it.

use std::time::Instant;

use super::{BudgetConfig, BudgetSnapshot};

/// Counts in slots of a tenth of the window.
///
/// ```text
///   oldest │ s1 │ s2 │ … │ s10      a window that ends inside s10 reaches back into the oldest slot:
///   └──────── window ───────┘       its retries count, its requests don't, so the bound always holds
/// ```
#[derive(Debug)]
pub(super) struct Ledger {
    config: BudgetConfig,
    start: Option<Instant>,
    newest: u64,
    slots: [Counts; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: u32,
    retries: u32,
}

impl Ledger {
    pub(super) fn new(config: BudgetConfig) -> Self {
        Self {
            config,
            start: None,
            newest: 0,
            slots: [Counts::default(); SLOTS],
        }
    }

    pub(super) fn record_request(&mut self, now: Instant) {
        self.move_to(now);
        let slot = &mut self.slots[index(self.newest)];
        slot.requests = slot.requests.saturating_add(1);
    }

    pub(super) fn try_retry(&mut self, now: Instant) -> bool {
        let window = self.snapshot(now);
        let is_allowed = window.retries < window.allowed;
        if is_allowed {
            self.slots[index(self.newest)].retries += 1;
        }
        is_allowed
    }

    pub(super) fn snapshot(&mut self, now: Instant) -> BudgetSnapshot {
        self.move_to(now);
        let oldest = index(self.newest + 1);
        let mut requests = 0_u64;
        let mut retries = 0_u64;
        for (place, slot) in self.slots.iter().enumerate() {
            retries += u64::from(slot.retries);
            requests += if place == oldest {
                0
            } else {
                u64::from(slot.requests)
            };
        }
        BudgetSnapshot {
            requests,
            retries,
            allowed: earned(requests, self.config.ratio).max(u64::from(self.config.reserve)),
        }
    }

    fn move_to(&mut self, now: Instant) {
        let start = *self.start.get_or_insert(now);
        let slot_nanos = self.config.window.as_nanos().div_ceil(TENTHS).max(1);
        let reached = now.saturating_duration_since(start).as_nanos() / slot_nanos;
        // Readings of several threads may arrive out of order; time here never goes back.
        let reached = u64::try_from(reached)
            .unwrap_or(u64::MAX - 1)
            .max(self.newest);
        for step in 1..=(reached - self.newest).min(SLOTS as u64) {
            self.slots[index(self.newest + step)] = Counts::default();
        }
        self.newest = reached;
    }
}

/// The whole retries that `requests` calls earn.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "call counts are far below 2^53, and the ratio is not negative"
)]
fn earned(requests: u64, ratio: f64) -> u64 {
    (requests as f64 * ratio) as u64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the remainder is below the number of slots"
)]
const fn index(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

const TENTHS: u128 = 10;
/// Ten tenths, and the one that the window has partly left.
const SLOTS: usize = 11;

#[cfg(test)]
mod tests;
