//! What a rate limit promises, said as plainly as possible: a list of every admitted call, and a leaky bucket in fractions.

use mesh_resilience::limit::LimitConfig;
use mesh_resilience::limit::Verdict;

/// All admitted calls of one key. Times are nanoseconds.
#[derive(Debug)]
pub(crate) struct Reference {
    config: LimitConfig,
    admitted: Vec<(u64, u32)>,
    /// What is in the bucket, each call being as many parts as its period has nanoseconds.
    level: u128,
    drained_at: u64,
    /// By how much a bucket's interval may be longer than it should be, in nanoseconds.
    rounding: u128,
}

impl Reference {
    pub(crate) fn new(config: &LimitConfig, rounding: u128) -> Self {
        Self {
            config: config.clone(),
            admitted: Vec::new(),
            level: 0,
            drained_at: 0,
            rounding,
        }
    }

    /// Checks what a call was told, and counts it if it was admitted. Time never goes back.
    #[track_caller]
    pub(crate) fn judge(&mut self, now: u64, cost: u32, verdict: &Verdict) {
        let fits = self.windows_allow(now, cost, false) && self.bucket_allows(now, cost, 0);
        if verdict.allowed {
            assert!(fits, "one too many at {now}: {verdict:?} {self:?}");
            self.admitted.push((now, cost));
            self.pour(now, cost);
        } else {
            let might =
                self.windows_allow(now, cost, true) && self.bucket_allows(now, cost, self.rounding);
            assert!(
                !might,
                "refused without need at {now}: {verdict:?} {self:?}"
            );
            assert!(verdict.retry_after.as_nanos() > 0, "{verdict:?}");
        }
    }

    /// Whether every window has room. A strict judge counts a 500th of the period longer, and a hundredth of the calls more.
    fn windows_allow(&self, now: u64, cost: u32, is_strict: bool) -> bool {
        self.config.windows.iter().all(|window| {
            let period = u64::try_from(window.period.as_nanos()).unwrap();
            let limit = window.max_requests.get();
            let (stretch, spare) = if is_strict {
                (period + period / 500 + 4_000, limit / 100)
            } else {
                (period, 0)
            };
            let recent = self.admitted.iter().rev();
            let recent = recent.take_while(|(at, _)| now - at < stretch);
            let counted: u64 = recent.map(|(_, cost)| u64::from(*cost)).sum();
            counted + u64::from(cost) + u64::from(spare) <= u64::from(limit)
        })
    }

    fn bucket_allows(&self, now: u64, cost: u32, rounding: u128) -> bool {
        let Some(bucket) = &self.config.bucket else {
            return true;
        };
        let (rate, period) = (u128::from(bucket.rate.get()), bucket.period.as_nanos());
        let burst = u128::from(bucket.burst.get());
        let level = self
            .level
            .saturating_sub(u128::from(now - self.drained_at) * rate);
        // A bucket whose intervals are rounded up may be behind by that much for each call in it.
        level + u128::from(cost) * period + rounding * rate * burst <= burst * period
    }

    fn pour(&mut self, now: u64, cost: u32) {
        if let Some(bucket) = &self.config.bucket {
            let drained = u128::from(now - self.drained_at) * u128::from(bucket.rate.get());
            self.level =
                self.level.saturating_sub(drained) + u128::from(cost) * bucket.period.as_nanos();
        }
        self.drained_at = now;
    }
}
