//! When somebody should hear that no new certificate came (threat 5).

use std::time::Duration;
use std::time::SystemTime;

use crate::identity::Validity;

/// How near the end of a certificate is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Nearness {
    /// There is time.
    Far,
    /// A new one should have come: four fifths of its life are over.
    Near,
    /// It has ended, and peers refuse it.
    Over,
}

pub(super) fn nearness(validity: Validity, now: SystemTime) -> Nearness {
    if now >= validity.not_after {
        Nearness::Over
    } else if now >= due(validity) {
        Nearness::Near
    } else {
        Nearness::Far
    }
}

/// How long until that is to be looked at again: when it changes, and in between often enough to be heard.
pub(super) fn look_after(validity: Validity, now: SystemTime) -> Duration {
    let until = |then: SystemTime| then.duration_since(now).unwrap_or_default();
    let again = (life(validity) / 100).clamp(OFTENEST, RAREST);
    match nearness(validity, now) {
        Nearness::Far => until(due(validity)),
        Nearness::Near => again.min(until(validity.not_after)),
        Nearness::Over => again,
    }
}

fn due(validity: Validity) -> SystemTime {
    validity.not_before + life(validity) * 4 / 5
}

fn life(validity: Validity) -> Duration {
    let life = validity.not_after.duration_since(validity.not_before);
    life.unwrap_or_default()
}

const OFTENEST: Duration = Duration::from_mins(1);
const RAREST: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    // threat 5
    #[test]
    fn warns_from_four_fifths_of_the_life_on_and_again_each_minute() {
        let hour = Validity {
            not_before: at(0),
            not_after: at(3600),
        };
        for (now, nearness_then, seconds) in [
            (0, Nearness::Far, 2880),
            (2879, Nearness::Far, 1),
            (2880, Nearness::Near, 60),
            (3590, Nearness::Near, 10),
            (3600, Nearness::Over, 60),
            (9999, Nearness::Over, 60),
        ] {
            assert_eq!(nearness(hour, at(now)), nearness_then, "{now}");
            assert_eq!(look_after(hour, at(now)).as_secs(), seconds, "{now}");
        }
        let year = Validity {
            not_before: at(0),
            not_after: at(365 * 86_400),
        };
        assert_eq!(look_after(year, at(300 * 86_400)).as_secs(), 86_400);
    }
}
