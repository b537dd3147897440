//! Which endpoints get traffic, and in what order: priorities, and what happens when too few of one work.
//!
//! Levels share the traffic as Envoy's priorities do: a level that has lost part of its endpoints keeps all its traffic
//! until what is left, times 1.4, is less than the whole; then the next level takes the rest, so that the survivors of
//! one level are not buried. Where no endpoint of any level may be used, all are: that is more likely an error of those
//! who say so than the end of the service.
//!
//! # Sources
//!
//! Envoy, "Priority levels" (the overprovisioning factor 1.4, shares normalised where all levels together are short) and
//! "Panic threshold" (here 0: only when nothing is left).

use std::ops::Range;

use mesh_resilience::balance::Endpoint;
use mesh_resilience::balance::Picker;
use mesh_resilience::balance::Policy;
use mesh_resilience::random::Random;

/// Endpoints of one priority, as a range of the list.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) range: Range<usize>,
    pub(super) picker: Picker,
    /// Draws below this, of 1,000, and not below that of the level before, go here first.
    up_to: u32,
}

/// Puts endpoints in order: those that get traffic, by priority, and the rest. `of` gives an endpoint's priority and
/// whether it may be used.
pub(super) fn arrange<E: Endpoint>(
    all: Vec<E>,
    of: impl Fn(&E) -> (u16, bool),
) -> (Vec<E>, Vec<Level>, Vec<E>) {
    let mut totals = std::collections::BTreeMap::<u16, usize>::new();
    for endpoint in &all {
        *totals.entry(of(endpoint).0).or_default() += 1;
    }
    let is_panic = !all.iter().any(|endpoint| of(endpoint).1);
    let (mut usable, spare): (Vec<E>, Vec<E>) = all
        .into_iter()
        .partition(|endpoint| is_panic || of(endpoint).1);
    usable.sort_by_key(|endpoint| of(endpoint).0);
    let mut levels: Vec<(Range<usize>, u32)> = Vec::new();
    let mut begin = 0;
    for (priority, total) in totals {
        let count = usable
            .get(begin..)
            .unwrap_or_default()
            .iter()
            .take_while(|endpoint| of(endpoint).0 == priority)
            .count();
        if count > 0 {
            levels.push((begin..begin + count, health(count, total)));
            begin += count;
        }
    }
    let whole: u32 = levels.iter().map(|(_, health)| health).sum();
    let mut up_to = 0;
    let levels = levels
        .into_iter()
        .map(|(range, health)| {
            // Less than the whole in all levels together: each takes its part of what there is.
            let part = if whole < WHOLE {
                health * WHOLE / whole.max(1)
            } else {
                health
            };
            up_to = WHOLE.min(up_to + part);
            let slice = usable.get(range.clone()).unwrap_or_default();
            let picker = Picker::new(Policy::default(), slice);
            Level {
                range,
                picker,
                up_to,
            }
        })
        .collect();
    (usable, levels, spare)
}

/// The level that a call begins at.
pub(super) fn draw(levels: &[Level], random: &dyn Random) -> usize {
    // Nearly always there is one, or the first takes all.
    if levels.first().is_none_or(|first| first.up_to >= WHOLE) {
        return 0;
    }
    let drawn = u32::try_from(random.next_u64() % u64::from(WHOLE)).unwrap_or_default();
    let found = levels.iter().position(|level| drawn < level.up_to);
    found.unwrap_or_default()
}

/// How much of its traffic a level can take, in thousandths.
fn health(usable: usize, total: usize) -> u32 {
    let health = usable.saturating_mul(OVERPROVISIONING) / total.max(1);
    u32::try_from(health).unwrap_or(WHOLE).min(WHOLE)
}

const WHOLE: u32 = 1000;
/// Envoy's default factor, 1.4, in thousandths.
const OVERPROVISIONING: usize = 1400;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_resilience::balance::EndpointState;
    use mesh_resilience::random::SplitMix64;

    use super::*;

    struct Fake(u16, bool, Arc<EndpointState>);

    impl Endpoint for Fake {
        fn state(&self) -> &EndpointState {
            &self.2
        }
    }

    /// Levels of as many usable and unusable endpoints: each level's part of the traffic, in hundredths.
    fn shares(levels: &[(usize, usize)]) -> Vec<u32> {
        let now = tokio::time::Instant::now().into_std();
        let mut all = Vec::new();
        for (priority, (usable, rest)) in (0..).zip(levels) {
            let fake = |is_usable| Fake(priority, is_usable, Arc::new(EndpointState::new(now)));
            all.extend((0..*usable).map(|_| fake(true)));
            all.extend((0..*rest).map(|_| fake(false)));
        }
        let (_, made, _) = arrange(all, |fake| (fake.0, fake.1));
        let mut before = 0;
        let part = |level: &Level| {
            let part = (level.up_to - before) / 10;
            before = level.up_to;
            part
        };
        made.iter().map(part).collect()
    }

    #[test]
    fn the_next_level_takes_what_the_first_can_not() {
        for (levels, expected) in [
            (&[(3, 0)][..], &[100][..]),
            (&[(3, 0), (2, 0)], &[100, 0]),
            // 8 of 10 times 1.4 is more than the whole.
            (&[(8, 2), (2, 0)], &[100, 0]),
            (&[(5, 5), (2, 0)], &[70, 30]),
            (&[(0, 5), (2, 0)], &[100]),
            // 28 % and 28 % of what they have: each takes half.
            (&[(1, 4), (1, 4)], &[50, 50]),
            // None may be used: all are, in their order.
            (&[(0, 4), (0, 4)], &[100, 0]),
        ] {
            assert_eq!(shares(levels), expected, "{levels:?}");
        }
    }

    #[test]
    fn draws_fall_where_the_shares_say() {
        let level = |up_to| Level {
            range: 0..1,
            picker: Picker::new(
                Policy::default(),
                &[Arc::new(EndpointState::new(
                    tokio::time::Instant::now().into_std(),
                ))],
            ),
            up_to,
        };
        let (levels, random) = ([level(700), level(1000)], SplitMix64::new(7));
        let second = (0..10_000).filter(|_| draw(&levels, &random) == 1).count();
        assert!((2_800..3_200).contains(&second), "{second}");
    }
}
