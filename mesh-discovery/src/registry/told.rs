//! What was said of endpoints that are left out, so that an answer that differs each time does not fill the log.

use std::time::Duration;
use std::time::Instant;

use crate::endpoint::Refused;

/// What was logged last, and when.
#[derive(Debug, Default)]
pub(super) struct Told {
    refused: Refused,
    at: Option<Instant>,
}

impl Told {
    /// True when this is to be logged now: it differs from what was, and that is some time ago.
    pub(super) fn is_news(&mut self, now: Instant, refused: &Refused) -> bool {
        if refused.count == 0 {
            self.refused = Refused::default();
            return false;
        }
        let is_early = |at| now.saturating_duration_since(at) < PAUSE;
        if *refused == self.refused || self.at.is_some_and(is_early) {
            return false;
        }
        self.refused = refused.clone();
        self.at = Some(now);
        true
    }
}

/// Between two lines about one service.
const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    // threat 51
    #[test]
    fn endpoints_that_are_left_out_are_logged_when_they_change_and_at_most_each_ten_seconds() {
        let start = tokio::time::Instant::now().into_std();
        let refused = |count| Refused {
            count,
            first: Some(Error::field("a", "port", "use another")),
        };
        let mut told = Told::default();
        for (second, count, expected) in [
            (0, 0, false),
            (1, 1, true),
            (2, 2, false),
            (3, 3, false),
            (10, 4, false),
            (11, 4, true),
            (30, 4, false),
            (31, 0, false),
            (32, 4, true),
            (33, 0, false),
            (34, 4, false),
            (42, 4, true),
        ] {
            let (now, refused) = match count {
                0 => (start, Refused::default()),
                count => (start, refused(count)),
            };
            let now = now + Duration::from_secs(second);
            assert_eq!(told.is_news(now, &refused), expected, "{second}");
        }
    }
}
