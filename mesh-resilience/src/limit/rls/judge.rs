//! Counts what the rules say, and so knows what to answer.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::RwLock;

use super::answer::Answer;
use super::answer::Code;
use super::config::DomainConfig;
use super::question::Entry;
use super::question::Question;
use super::rules::Rules;
use super::rules::RulesError;
use super::rules::Step;
use super::unit::Unit;
use crate::limit::LimitConfig;
use crate::limit::Limiter;
use crate::limit::Verdict;
use crate::limit::Window;

/// Answers questions by its rules, and counts in its own memory.
///
/// Each descriptor is counted on its own, under all its entries; one that is over its limit does not keep the others from
/// being counted. Calls beyond a limit use up what is left of it, and are counted no further.
pub struct Judge {
    rules: Rules,
    counts: Counts,
    observer: Option<Arc<dyn Observe>>,
}

/// Sees what a [`Judge`] answers.
pub trait Observe: Send + Sync {
    /// A limit was applied: that of `rule`, or one that came with the descriptor where there is none. `is_shadowed` where
    /// the calls pass although they are over it.
    fn decided(&self, domain: &str, rule: Option<&str>, code: Code, is_shadowed: bool) {
        let _ = (domain, rule, code, is_shadowed);
    }
}

/// One table of counts for each limit: so many calls in a unit.
struct Counts {
    of_rules: HashMap<(u32, Unit), Limiter>,
    /// Those that come with descriptors, as they come.
    of_callers: RwLock<HashMap<(u32, Unit), Arc<Limiter>>>,
    max_keys: NonZeroUsize,
}

/// What calls are counted by.
#[derive(Hash)]
struct Key<'a> {
    domain: &'a str,
    entries: &'a [Entry],
}

impl Judge {
    /// A judge by the rules of these domains, which remembers `max_keys` descriptors for each different limit in them. A
    /// limit takes 10 bytes for each of them from the start, and 300 more at most for each that is there.
    ///
    /// # Errors
    ///
    /// [`RulesError`].
    pub fn new(domains: &[DomainConfig], max_keys: NonZeroUsize) -> Result<Self, RulesError> {
        let rules = Rules::new(domains)?;
        let mut of_rules = HashMap::new();
        for (limit, unit) in rules.limits() {
            if let Some(limiter) = limiter((limit, unit), max_keys) {
                of_rules.insert((limit, unit), limiter);
            }
        }
        let counts = Counts {
            of_rules,
            of_callers: RwLock::default(),
            max_keys,
        };
        Ok(Self {
            rules,
            counts,
            observer: None,
        })
    }

    /// Tells `observer` of every limit that is applied.
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observe>) -> Self {
        Self {
            observer: Some(observer),
            ..self
        }
    }

    /// Its rules.
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// How many descriptors are remembered.
    pub fn keys(&self) -> usize {
        let of_callers = self.counts.of_callers.read();
        let of_callers = of_callers.values().map(|limiter| limiter.keys());
        let of_rules = self.counts.of_rules.values().map(Limiter::keys);
        of_rules.chain(of_callers).sum()
    }

    /// Counts the calls of a question, and says whether they may pass.
    ///
    /// # Errors
    ///
    /// [`JudgeError`]; then nothing was counted.
    pub fn judge(&self, question: &Question, now: Instant) -> Result<Answer, JudgeError> {
        let steps = self.rules.plan(question);
        for step in &steps {
            self.counts.make_room(step)?;
        }
        let statuses = steps.iter().map(|step| {
            let verdict = self.counts.count(&question.domain, step, now);
            let status = step.status(verdict.as_ref());
            if let (Some(observer), Some(verdict)) = (&self.observer, &verdict) {
                let is_shadowed = !verdict.allowed && status.code == Code::Ok;
                let rule = step.rule.map(|rule| &*rule.label);
                observer.decided(&question.domain, rule, status.code, is_shadowed);
            }
            status
        });
        Ok(Answer::new(statuses.collect()))
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge")
            .field("rules", &self.rules.len())
            .field("keys", &self.keys())
            .finish_non_exhaustive()
    }
}

impl Counts {
    /// Makes a table for a limit that a caller brings along, as long as there are not too many.
    fn make_room(&self, step: &Step<'_>) -> Result<(), JudgeError> {
        let Some(limit) = step.count.filter(|_| step.rule.is_none()) else {
            return Ok(());
        };
        if self.of_callers.read().contains_key(&limit) {
            return Ok(());
        }
        let Some(limiter) = limiter(limit, self.max_keys) else {
            // None passes, or the limit is beyond what can be counted.
            return if limit.0 == 0 {
                Ok(())
            } else {
                Err(JudgeError::TooLarge { limit: limit.0 })
            };
        };
        let mut of_callers = self.of_callers.write();
        if of_callers.len() >= MAX_CALLERS_LIMITS && !of_callers.contains_key(&limit) {
            return Err(JudgeError::TooManyLimits {
                max: MAX_CALLERS_LIMITS,
            });
        }
        of_callers.entry(limit).or_insert_with(|| Arc::new(limiter));
        Ok(())
    }

    fn count(&self, domain: &str, step: &Step<'_>, now: Instant) -> Option<Verdict> {
        let limit = step.count?;
        let entries = &step.descriptor.entries;
        let key = Key { domain, entries };
        let verdict = if step.rule.is_some() {
            let limiter = self.of_rules.get(&limit);
            limiter.map(|limiter| count(limiter, &key, step.hits, now))
        } else {
            let limiter = self.of_callers.read().get(&limit).cloned();
            limiter.map(|limiter| count(&limiter, &key, step.hits, now))
        };
        Some(verdict.unwrap_or_else(|| none_pass(limit.1)))
    }
}

/// Counts so many calls, all or none of which may pass.
fn count(limiter: &Limiter, key: &Key<'_>, hits: u32, now: Instant) -> Verdict {
    let Some(hits) = NonZeroU32::new(hits) else {
        return limiter.peek(key, now);
    };
    let verdict = limiter.check_n(key, hits, now);
    if !verdict.allowed
        && let Some(rest) = NonZeroU32::new(verdict.remaining)
    {
        // What is over the limit uses up the rest, as with envoyproxy/ratelimit: calls that are counted only when their
        // cost is known, at their end, would else never come to the limit.
        let rest = limiter.check_n(key, rest, now);
        return Verdict {
            allowed: false,
            retry_after: verdict.retry_after,
            ..rest
        };
    }
    verdict
}

/// Nothing for a limit of none, and for one that can't be counted.
fn limiter((limit, unit): (u32, Unit), max_keys: NonZeroUsize) -> Option<Limiter> {
    let window = Window::new(NonZeroU32::new(limit)?, unit.period());
    let config = LimitConfig::default()
        .with_windows(vec![window])
        .with_max_keys(max_keys);
    Limiter::new(&config).ok()
}

/// The limit is 0.
const fn none_pass(unit: Unit) -> Verdict {
    Verdict {
        allowed: false,
        limit: 0,
        remaining: 0,
        reset_after: Duration::ZERO,
        retry_after: unit.period(),
    }
}

/// Why nothing was counted: the limits that callers bring along are too much.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JudgeError {
    /// There are too many different ones.
    #[error("callers brought more than {max} different limits along, write them into the rules")]
    TooManyLimits {
        /// How many there may be.
        max: usize,
    },
    /// One is too large.
    #[error("a limit of {limit} is too large to be counted, make its unit smaller")]
    TooLarge {
        /// The limit.
        limit: u32,
    },
}

/// Each costs a table. More than a deployment has; callers do not make them up as they go.
const MAX_CALLERS_LIMITS: usize = 64;
