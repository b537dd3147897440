//! Rules that end by themselves: said before, in a metric and once a day in the log.

use std::time::Duration;
use std::time::SystemTime;

use super::Shown;

/// When the log was last told of rules that are about to end.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    said: Option<SystemTime>,
}

impl Ending {
    /// Looks for live rules that end within 14 days.
    pub(crate) fn look(&mut self, policies: &Shown) {
        let now = (policies.clock)();
        let seconds = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let ending = policies.store.expiring(seconds.as_secs());
        let count = i64::try_from(ending.len()).unwrap_or(i64::MAX);
        policies.telemetry.policy.expiring.set(count);
        let is_time = self
            .said
            .is_none_or(|said| now.duration_since(said).is_ok_and(|since| since >= DAY));
        if ending.is_empty() || !is_time {
            return;
        }
        self.said = Some(now);
        let named = ending
            .get(..NAMED.min(ending.len()))
            .unwrap_or_default()
            .join(", ");
        tracing::warn!(
            rules = ending.len(),
            named,
            "rules end within 14 days; prolong or remove them"
        );
    }
}

const DAY: Duration = Duration::from_hours(24);
/// Rules that one line of the log names.
const NAMED: usize = 20;
