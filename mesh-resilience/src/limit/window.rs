//! The log of groups: which calls of one key still count, in a fixed number of 16-bit words.
//!
//! Record of one window:
//!
//! ```text
//!   word 0          word 1    words 2 … 2 + capacity
//!   first │ full    partial   ring of ticks, one for each full group: when its last call was admitted
//! ```
//!
//! `group` calls make a full group. The `partial` calls since then are as old as the last call, which the windows of a
//! key share. A tick is a 32,000th of the period, so that twice a period fits 16 bits: whatever has left the window is
//! removed before its tick could be mistaken for a new one.

use std::time::Duration;

use super::{Verdict, Window};
use crate::error::ConfigError;

/// One window as the log sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    limit: u32,
    /// Calls in a full group.
    group: u32,
    /// Full groups that fit the limit.
    capacity: u16,
    period_micros: u64,
    /// Where this window's words begin in a record.
    offset: usize,
}

impl Rule {
    pub(super) fn new(window: &Window, offset: usize) -> Result<Self, ConfigError> {
        let limit = window.max_requests.get();
        ConfigError::check_range("max_requests", f64::from(limit), 1.0, MAX_LIMIT)?;
        ConfigError::check_range(
            "period (in seconds)",
            window.period.as_secs_f64(),
            MIN_PERIOD,
            MAX_PERIOD,
        )?;
        let period_micros = u64::try_from(window.period.as_micros()).unwrap_or(u64::MAX);
        // The largest group with `limit - group + 1 >= 0.99 * limit`.
        let group = limit / 100 + 1;
        let capacity = u16::try_from(limit / group).unwrap_or(u16::MAX);
        Ok(Self {
            limit,
            group,
            capacity,
            period_micros,
            offset,
        })
    }

    pub(super) fn words(&self) -> usize {
        HEAD + usize::from(self.capacity)
    }

    /// Returns the time that a tick is, rounded down. 16 bits of it are kept.
    fn tick(&self, micros: u64) -> u64 {
        u64::try_from(u128::from(micros) * TICKS / u128::from(self.period_micros))
            .unwrap_or(u64::MAX)
    }

    fn micros(&self, ticks: u64) -> u64 {
        let micros = (u128::from(ticks) * u128::from(self.period_micros)).div_ceil(TICKS);
        u64::try_from(micros).unwrap_or(u64::MAX)
    }
}

/// Decides about a call at `now` and counts it if it is admitted; times are microseconds of the limiter's clock.
pub(super) fn check(rules: &[Rule], record: &mut [u16], last: &mut u64, now: u64) -> Verdict {
    // Readings of several threads may arrive out of order; time here never goes back.
    let now = now.max(*last);
    let mut tightest: Option<(&Rule, Verdict)> = None;
    for rule in rules {
        let mut log = Log::new(rule, record);
        log.expire(*last, now);
        let verdict = log.verdict(*last, now);
        let is_tighter = tightest.is_none_or(|(_, other)| {
            (verdict.remaining, other.retry_after) < (other.remaining, verdict.retry_after)
        });
        if is_tighter {
            tightest = Some((rule, verdict));
        }
    }
    match tightest {
        Some((rule, verdict)) if verdict.allowed => {
            for rule in rules {
                Log::new(rule, record).admit(now);
            }
            *last = now;
            Verdict {
                allowed: true,
                ..Log::new(rule, record).verdict(now, now)
            }
        }
        Some((_, verdict)) => verdict,
        // Not reached: a limiter has at least one window. Refusing is the safe answer.
        None => Verdict {
            allowed: false,
            limit: 0,
            remaining: 0,
            reset_after: Duration::ZERO,
            retry_after: Duration::ZERO,
        },
    }
}

/// The calls of one key in one window.
struct Log<'a> {
    rule: &'a Rule,
    words: &'a mut [u16],
}

impl<'a> Log<'a> {
    fn new(rule: &'a Rule, record: &'a mut [u16]) -> Self {
        Self {
            rule,
            words: &mut record[rule.offset..rule.offset + rule.words()],
        }
    }

    /// Removes what has left the window; `last` is the time of the last admitted call.
    fn expire(&mut self, last: u64, now: u64) {
        let (mut first, mut full) = self.head();
        if now - last >= self.rule.period_micros {
            // Also keeps the ages below 2 * TICKS, so that 16 bits tell them apart.
            self.words[PARTIAL] = 0;
            full = 0;
        }
        let tick = low_bits(self.rule.tick(now));
        while full > 0 && tick.wrapping_sub(self.words[HEAD + first]) > LAST_AGE {
            first = (first + 1) % usize::from(self.rule.capacity);
            full -= 1;
        }
        self.set_head(first, full);
    }

    /// Counts a call; there is room, since the one window that allows no more would have refused it.
    fn admit(&mut self, now: u64) {
        self.words[PARTIAL] += 1;
        let (first, full) = self.head();
        let capacity = usize::from(self.rule.capacity);
        if u32::from(self.words[PARTIAL]) < self.rule.group || full >= capacity {
            return;
        }
        self.words[PARTIAL] = 0;
        self.words[HEAD + (first + full) % capacity] = low_bits(self.rule.tick(now));
        self.set_head(first, full + 1);
    }

    fn verdict(&self, last: u64, now: u64) -> Verdict {
        let counted = self.counted();
        let remaining = self.rule.limit.saturating_sub(counted);
        let until_free = (last + self.rule.period_micros).saturating_sub(now);
        let reset_after = Duration::from_micros(if counted == 0 { 0 } else { until_free });
        let allowed = remaining > 0;
        let retry_after = if allowed {
            Duration::ZERO
        } else {
            self.until_next(now).min(reset_after)
        };
        Verdict {
            allowed,
            limit: self.rule.limit,
            remaining,
            reset_after,
            retry_after,
        }
    }

    fn counted(&self) -> u32 {
        let (_, full) = self.head();
        let full = u32::try_from(full).unwrap_or(u32::MAX);
        full.saturating_mul(self.rule.group)
            .saturating_add(u32::from(self.words[PARTIAL]))
    }

    /// Returns the time until the oldest group leaves the window.
    fn until_next(&self, now: u64) -> Duration {
        let (first, _) = self.head();
        let tick = self.rule.tick(now);
        let age = low_bits(tick).wrapping_sub(self.words[HEAD + first]);
        let leaves_at = self
            .rule
            .micros(tick + u64::from((LAST_AGE + 1).saturating_sub(age)));
        Duration::from_micros(leaves_at.saturating_sub(now))
    }

    /// Returns where the ring begins and how many groups are in it.
    fn head(&self) -> (usize, usize) {
        let [first, full] = self.words[0].to_be_bytes();
        (usize::from(first), usize::from(full))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "both are at most the capacity, which is at most 100"
    )]
    fn set_head(&mut self, first: usize, full: usize) {
        self.words[0] = u16::from_be_bytes([first as u8, full as u8]);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "ages are taken modulo 2^16"
)]
const fn low_bits(tick: u64) -> u16 {
    tick as u16
}

const TICKS: u128 = 32_000;
/// Ticks that a call counts, rounded up so that it never counts too short.
const LAST_AGE: u16 = 32_000;
/// Words before the ring.
const HEAD: usize = 2;
/// The word that counts calls since the last full group.
const PARTIAL: usize = 1;
/// Keeps a group below 2^16 calls.
const MAX_LIMIT: f64 = 6_000_000.0;
const MIN_PERIOD: f64 = 0.001;
const MAX_PERIOD: f64 = 86_400.0 * 3_652.0;
