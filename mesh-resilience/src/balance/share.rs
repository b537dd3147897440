//! How the calls are shared between priorities and zones. Everything here is pure.
//!
//! A priority that has lost part of its endpoints keeps all its calls until what is left, times 1.4, is less than the
//! whole; then the next priority takes the rest, so that the survivors of one are not buried.
//!
//! # Sources
//!
//! Envoy, "Priority levels" (the overprovisioning factor 1.4; shares normalised where all levels together are short),
//! "Panic threshold", "Zone aware routing".

/// How much of the calls the endpoints of one priority can take, in thousandths.
pub(super) fn health(healthy: usize, total: usize) -> u32 {
    let health = healthy.saturating_mul(OVERPROVISIONING) / total.max(1);
    u32::try_from(health).unwrap_or(WHOLE).min(WHOLE)
}

/// The part of the calls that goes to a priority, where `whole` is the health of all together and `before` went to those
/// before it.
pub(super) fn part(health: u32, whole: u32, before: u32) -> u32 {
    // Less than the whole in all together: each takes its part of what there is.
    let part = if whole < WHOLE {
        health * WHOLE / whole.max(1)
    } else {
        health
    };
    part.min(WHOLE.saturating_sub(before))
}

/// Whether the health of a priority is ignored: see [`BalanceConfig`](super::BalanceConfig).
pub(super) fn is_panic(healthy: usize, total: usize, whole: u32, threshold: f64) -> bool {
    whole == 0 || (whole < WHOLE && count(healthy) < count(total) * threshold)
}

/// The part of the calls that stays in the zone, in thousandths: see [`ZoneAware`](super::ZoneAware).
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is between 0 and 1,000"
)]
pub(super) fn near(near: u64, all: u64, zones: usize, factor: f64) -> u32 {
    if near == 0 {
        return 0;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "sums of weights are far below 2^53"
    )]
    let part = near as f64 / all.max(near) as f64;
    (part * count(zones) * factor * f64::from(WHOLE))
        .clamp(0.0, f64::from(WHOLE))
        .round() as u32
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a service has far fewer than 2^53 endpoints"
)]
pub(super) const fn count(endpoints: usize) -> f64 {
    endpoints as f64
}

pub(super) const WHOLE: u32 = 1000;
/// Envoy's default factor, 1.4, in thousandths.
const OVERPROVISIONING: usize = 1400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_priority_takes_what_the_first_can_not() {
        for (levels, expected) in [
            (&[(3, 3)][..], &[1000][..]),
            (&[(3, 3), (2, 2)], &[1000, 0]),
            // 8 of 10 times 1.4 is more than the whole.
            (&[(8, 10), (2, 2)], &[1000, 0]),
            (&[(5, 10), (2, 2)], &[700, 300]),
            (&[(0, 5), (2, 2)], &[0, 1000]),
            // 28 % and 28 % of what they have: each takes half.
            (&[(1, 5), (1, 5)], &[500, 500]),
            (&[(0, 4), (0, 4)], &[0, 0]),
        ] {
            let health = |(healthy, total): &(usize, usize)| health(*healthy, *total);
            let whole = levels.iter().map(health).sum();
            let mut before = 0;
            let parts: Vec<u32> = levels
                .iter()
                .map(|level| {
                    let part = part(health(level), whole, before);
                    before += part;
                    part
                })
                .collect();
            assert_eq!(parts, expected, "{levels:?}");
        }
    }

    #[test]
    fn a_zone_keeps_what_it_can_take_and_gives_the_rest_away() {
        for (weights, zones, factor, expected) in [
            // Alike: all stays, and would with a third less.
            ((3, 9), 3, 1.0, 1000),
            ((2, 8), 3, 1.0, 750),
            ((2, 8), 3, 1.4, 1000),
            ((1, 7), 3, 1.4, 600),
            ((0, 6), 3, 1.4, 0),
            ((0, 0), 3, 1.4, 0),
            ((1, 100), 2, 1000.0, 1000),
            ((5, 5), 1, 1.0, 1000),
            ((3, 9), 3, 0.0, 0),
        ] {
            let (local, all) = weights;
            assert_eq!(near(local, all, zones, factor), expected, "{weights:?}");
        }
    }

    #[test]
    fn health_is_ignored_only_where_there_is_too_little_of_it_anywhere() {
        assert!(is_panic(0, 4, 0, 0.0), "nobody is usable");
        assert!(!is_panic(1, 4, 350, 0.0));
        assert!(is_panic(1, 4, 350, 0.5));
        assert!(!is_panic(2, 4, 700, 0.5));
        assert!(!is_panic(1, 4, 1350, 0.5), "others can take it");
    }
}
