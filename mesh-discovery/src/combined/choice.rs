//! Which of several sources is used: a state machine over what they offer, and time.

use std::time::Duration;
use std::time::Instant;

use crate::combined::CombinedConfig;

/// What a source has of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// It has not answered yet.
    NotYet,
    /// It does not know the service.
    Nothing,
    Stale,
    Fresh,
}

#[derive(Clone, Debug)]
pub(super) struct Choice {
    failover_after: Duration,
    /// Until when a source that has not answered is waited for.
    patient_until: Instant,
    /// For each source.
    stale_since: Vec<Option<Instant>>,
    is_waiting: bool,
    used: Option<usize>,
}

impl Choice {
    pub(super) fn new(config: &CombinedConfig, now: Instant) -> Self {
        Self {
            failover_after: config.failover_after,
            patient_until: now + config.patience,
            stale_since: Vec::new(),
            is_waiting: false,
            used: None,
        }
    }

    /// The source to use, if any is.
    pub(super) fn choose(&mut self, now: Instant, offers: &[Offer]) -> Option<usize> {
        self.stale_since.resize(offers.len(), None);
        for (since, offer) in self.stale_since.iter_mut().zip(offers) {
            *since = (*offer == Offer::Stale).then(|| since.unwrap_or(now));
        }
        self.is_waiting = offers.contains(&Offer::NotYet);
        self.used = self.anew(now, offers);
        self.used
    }

    /// When the choice may change without a change in what is offered.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let stale = self.stale_since.iter().flatten();
        let failovers = stale.map(|since| *since + self.failover_after);
        let patience = self.is_waiting.then_some(self.patient_until);
        failovers.chain(patience).filter(|due| *due > now).min()
    }

    fn anew(&self, now: Instant, offers: &[Offer]) -> Option<usize> {
        for (index, (offer, since)) in offers.iter().zip(&self.stale_since).enumerate() {
            match offer {
                Offer::Fresh => return Some(index),
                Offer::Stale if since.is_some_and(|since| now < since + self.failover_after) => {
                    return Some(index);
                }
                // Later ones wait, unless one of them is in use already.
                Offer::NotYet if now < self.patient_until && self.used.is_none() => return None,
                Offer::NotYet | Offer::Nothing | Offer::Stale => {}
            }
        }
        let is_stale = |index: &usize| offers.get(*index) == Some(&Offer::Stale);
        let used = self.used.filter(is_stale);
        used.or_else(|| (0..offers.len()).find(is_stale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds what is offered second by second (`-` not yet, `0` nothing, `s` stale, `f` fresh) and gives the choices.
    fn trace(seconds: &[(&str, &str)]) {
        let begun = tokio::time::Instant::now().into_std();
        let config = CombinedConfig::default();
        let mut choice = Choice::new(&config, begun);
        let mut now = begun;
        for (step, (offers, expected)) in seconds.iter().enumerate() {
            let offers: Vec<_> = offers
                .chars()
                .map(|offer| match offer {
                    '-' => Offer::NotYet,
                    '0' => Offer::Nothing,
                    's' => Offer::Stale,
                    _ => Offer::Fresh,
                })
                .collect();
            for second in expected.chars() {
                let chosen = choice.choose(now, &offers);
                let chosen = chosen.map_or("-".into(), |index| index.to_string());
                assert_eq!(chosen, second.to_string(), "step {step}, {:?}", now - begun);
                assert!(choice.next_due(now).is_none_or(|due| due > now));
                now += Duration::from_secs(1);
            }
        }
    }

    #[test]
    fn the_first_fresh_source_is_used() {
        trace(&[
            ("ff", "0"),
            ("0f", "1"),
            ("00", "-"),
            ("0f", "1"),
            ("ff", "0"),
        ]);
    }

    #[test]
    fn a_source_that_has_not_answered_is_waited_for_but_not_for_long() {
        trace(&[("--", "-"), ("-f", "-111"), ("ff", "0")]);
        trace(&[("-f", "-"), ("0f", "1")]);
        trace(&[("f-", "0"), ("0-", "--"), ("0f", "1")]);
        trace(&[("-s", "--111"), ("--", "-")]);
    }

    #[test]
    fn a_stale_source_stays_for_ten_seconds_when_another_is_fresh() {
        trace(&[("ff", "0"), ("sf", "00000000001111"), ("ff", "0")]);
        trace(&[
            ("ff", "0"),
            ("sf", "00000"),
            ("ff", "0"),
            ("sf", "00000000001"),
        ]);
    }

    #[test]
    fn the_list_in_use_stays_when_nobody_is_fresh() {
        trace(&[
            ("ff", "0"),
            ("sf", "000000000011"),
            ("ss", "11111111111111"),
            ("sf", "1"),
            ("fs", "0"),
        ]);
        trace(&[("ss", "000000000000")]);
        trace(&[("f0", "0"), ("s0", "0000000000000"), ("s0", "0")]);
    }

    #[test]
    fn a_source_that_was_stale_for_long_is_passed_over() {
        trace(&[("fsf", "00000000000"), ("0sf", "2")]);
        trace(&[("f0s", "00000000000"), ("00s", "2")]);
    }
}
