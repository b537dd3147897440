//! Which limit a descriptor falls under: a tree of keys and values, walked entry by entry.

use std::collections::HashMap;
use std::collections::HashSet;

use super::answer::CurrentLimit;
use super::answer::Status;
use super::config::DescriptorConfig;
use super::config::DomainConfig;
use super::config::RateConfig;
use super::question::Descriptor;
use super::question::MAX_TEXT;
use super::question::Question;
use super::unit::Unit;
use crate::limit::Verdict;

/// The rules of several domains, ready to be asked.
#[derive(Debug, Default)]
pub struct Rules {
    domains: HashMap<Box<str>, Level>,
    limits: HashSet<(u32, Unit)>,
    count: usize,
}

/// The rules that stand under one entry, by the key of the next one.
#[derive(Debug, Default)]
struct Level {
    keys: HashMap<Box<str>, Key>,
}

/// The rules for entries with one key.
#[derive(Debug, Default)]
struct Key {
    exact: HashMap<Box<str>, Place>,
    /// Values that end with `*`, without it, in the order of the file.
    prefixes: Vec<(Box<str>, Place)>,
    any: Option<Box<Place>>,
}

/// What stands behind an entry that matched.
#[derive(Debug, Default)]
struct Place {
    rule: Option<Rule>,
    below: Level,
}

/// A rule that has a limit.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Where it stands, such as `orders.tenant_acme.path`.
    pub label: Box<str>,
    /// What it allows in any stretch of a unit; nothing where there is no limit.
    pub limit: Option<(u32, Unit)>,
    /// Whether it lets all pass.
    pub is_shadow: bool,
    name: Box<str>,
    replaces: Vec<Box<str>>,
}

/// What is to be done about one descriptor of a question.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step<'a> {
    /// The descriptor.
    pub descriptor: &'a Descriptor,
    /// The rule that applies, where one does.
    pub rule: Option<&'a Rule>,
    /// What is to be counted: so many calls of the descriptor's entries in any stretch of a unit.
    pub count: Option<(u32, Unit)>,
    /// How many calls; 0 only asks.
    pub hits: u32,
}

impl Rules {
    /// Makes rules of what people wrote.
    ///
    /// # Errors
    ///
    /// [`RulesError`], the first that is found.
    pub fn new(domains: &[DomainConfig]) -> Result<Self, RulesError> {
        let mut rules = Self::default();
        for (config, index) in domains.iter().zip(0..) {
            let wrong = |key: &str, reason| RulesError {
                domain: index,
                key: key.to_owned(),
                reason,
            };
            if config.domain.is_empty() {
                return Err(wrong("domain", Reason::Empty));
            }
            if rules.domains.contains_key(config.domain.as_str()) {
                return Err(wrong("domain", Reason::Duplicate));
            }
            if config.domain.len() > MAX_TEXT {
                return Err(wrong("domain", Reason::TooLong { max: MAX_TEXT }));
            }
            let mut level = Level::default();
            let path = Path {
                key: String::new(),
                label: config.domain.clone(),
                depth: 1,
            };
            rules
                .add(&mut level, &config.descriptors, &path)
                .map_err(|(key, reason)| wrong(&key, reason))?;
            rules.domains.insert(config.domain.as_str().into(), level);
        }
        Ok(rules)
    }

    /// How many entries there are in all domains.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none, so that all passes.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The different limits in them.
    pub(super) fn limits(&self) -> impl Iterator<Item = (u32, Unit)> {
        self.limits.iter().copied()
    }

    /// The rule that `descriptor` falls under: every entry must match, from the first, and the last must have a limit.
    /// Of entries at one level the one with the very value matches before those with a `*`, in the order of the file,
    /// and these before one without a value. There is no way back from an entry that matched.
    pub fn find(&self, domain: &str, descriptor: &Descriptor) -> Option<&Rule> {
        let mut level = self.domains.get(domain)?;
        let (last, first) = descriptor.entries.split_last()?;
        for entry in first {
            level = &level.find(&entry.key, &entry.value)?.below;
        }
        level.find(&last.key, &last.value)?.rule.as_ref()
    }

    /// What is to be done about each descriptor of `question`, in its order.
    pub fn plan<'a>(&'a self, question: &'a Question) -> Vec<Step<'a>> {
        let is_known = self.domains.contains_key(question.domain.as_str());
        let step = |descriptor: &'a Descriptor| {
            // A limit that comes with the descriptor stands above the rules, in a domain that has any.
            let own = descriptor.limit.filter(|_| is_known);
            let rule = match own {
                Some(_) => None,
                None => self.find(&question.domain, descriptor),
            };
            let hits = descriptor.hits.map(u32::try_from);
            Step {
                descriptor,
                rule,
                count: own.or_else(|| rule?.limit),
                hits: hits.map_or(question.hits, |hits| hits.unwrap_or(u32::MAX)),
            }
        };
        let mut steps: Vec<_> = question.descriptors.iter().map(step).collect();
        let found = steps.iter().filter_map(|step| step.rule);
        let replaced: Vec<&str> = found
            .flat_map(|rule| &rule.replaces)
            .map(|name| &**name)
            .collect();
        if !replaced.is_empty() {
            for step in &mut steps {
                if step
                    .rule
                    .is_some_and(|rule| replaced.contains(&&*rule.name))
                {
                    (step.rule, step.count) = (None, None);
                }
            }
        }
        steps
    }

    fn add(
        &mut self,
        level: &mut Level,
        descriptors: &[DescriptorConfig],
        path: &Path,
    ) -> Result<(), (String, Reason)> {
        for (config, index) in descriptors.iter().zip(0..) {
            let place_key = format!("{}descriptors[{index}]", path.key);
            let wrong = |key: &str, reason| (format!("{place_key}.{key}"), reason);
            self.count += 1;
            if self.count > MAX_RULES {
                return Err((place_key, Reason::TooMany { max: MAX_RULES }));
            }
            if path.depth > MAX_DEPTH {
                return Err((place_key, Reason::TooDeep { max: MAX_DEPTH }));
            }
            if config.key.is_empty() {
                return Err(wrong("key", Reason::Empty));
            }
            let value = config.value.as_deref().filter(|value| !value.is_empty());
            for (key, text) in [("key", Some(&*config.key)), ("value", value)] {
                if text.is_some_and(|text| text.len() > MAX_TEXT) {
                    return Err(wrong(key, Reason::TooLong { max: MAX_TEXT }));
                }
            }
            let label = match value {
                Some(value) => format!("{}.{}_{value}", path.label, config.key),
                None => format!("{}.{}", path.label, config.key),
            };
            let rule = config.rate_limit.as_ref().map(|limit| {
                let rule = Rule::new(limit, label.as_str().into(), config.shadow_mode);
                rule.map_err(|(key, reason)| wrong(&format!("rate_limit{key}"), reason))
            });
            let rule = rule.transpose()?;
            self.limits
                .extend(rule.as_ref().and_then(|rule| rule.limit));
            if self.limits.len() > MAX_LIMITS {
                let reason = Reason::TooManyLimits { max: MAX_LIMITS };
                return Err(wrong("rate_limit", reason));
            }
            let mut place = Place {
                rule,
                below: Level::default(),
            };
            let deeper = Path {
                key: format!("{place_key}."),
                label,
                depth: path.depth + 1,
            };
            self.add(&mut place.below, &config.descriptors, &deeper)?;
            if !level.insert(&config.key, value, place) {
                let key = if value.is_some() { "value" } else { "key" };
                return Err(wrong(key, Reason::Duplicate));
            }
        }
        Ok(())
    }
}

/// Where the rules are that are added.
struct Path {
    key: String,
    label: String,
    depth: usize,
}

impl Level {
    fn find(&self, key: &str, value: &str) -> Option<&Place> {
        let Key {
            exact,
            prefixes,
            any,
        } = self.keys.get(key)?;
        let by_prefix = || {
            let mut fitting = prefixes.iter();
            let found = fitting.find(|(prefix, _)| value.starts_with(&**prefix));
            found.map(|(_, place)| place)
        };
        exact.get(value).or_else(by_prefix).or(any.as_deref())
    }

    /// Adds a place; false where there is one already.
    fn insert(&mut self, key: &str, value: Option<&str>, place: Place) -> bool {
        let key = self.keys.entry(key.into()).or_default();
        match value.map(|value| (value, value.strip_suffix('*'))) {
            None => {
                let is_new = key.any.is_none();
                key.any = Some(Box::new(place));
                is_new
            }
            Some((_, Some(prefix))) => {
                let is_new = key.prefixes.iter().all(|(other, _)| **other != *prefix);
                key.prefixes.push((prefix.into(), place));
                is_new
            }
            Some((value, None)) => key.exact.insert(value.into(), place).is_none(),
        }
    }
}

impl Rule {
    fn new(
        config: &RateConfig,
        label: Box<str>,
        is_shadow: bool,
    ) -> Result<Self, (String, Reason)> {
        let limit = match (config.unlimited, config.requests_per_unit, config.unit) {
            (false, Some(requests), Some(unit)) => Some((requests, unit)),
            (false, None, _) => return Err((".requests_per_unit".to_owned(), Reason::Missing)),
            (false, _, None) => return Err((".unit".to_owned(), Reason::Missing)),
            (true, None, None) => None,
            (true, Some(_), _) => return Err((".requests_per_unit".to_owned(), Reason::Unlimited)),
            (true, _, Some(_)) => return Err((".unit".to_owned(), Reason::Unlimited)),
        };
        if limit.is_some_and(|(requests, _)| requests > MAX_REQUESTS) {
            let reason = Reason::TooLarge { max: MAX_REQUESTS };
            return Err((".requests_per_unit".to_owned(), reason));
        }
        let name = config.name.as_deref().unwrap_or_default();
        for (replaced, index) in config.replaces.iter().zip(0..) {
            let reason = match &*replaced.name {
                "" => Reason::Empty,
                other if other == name => Reason::ReplacesItself,
                _ => continue,
            };
            return Err((format!(".replaces[{index}].name"), reason));
        }
        Ok(Self {
            label,
            limit,
            is_shadow,
            name: name.into(),
            replaces: config
                .replaces
                .iter()
                .map(|replaced| replaced.name.as_str().into())
                .collect(),
        })
    }
}

impl Step<'_> {
    /// What is answered about it, given what counting said where it had to be counted.
    pub fn status(&self, verdict: Option<&Verdict>) -> Status {
        match (self.count, self.rule, verdict) {
            (Some((requests, unit)), rule, Some(verdict)) => {
                let name = rule.map_or("", |rule| &rule.name).to_owned();
                let limit = CurrentLimit::new(requests, unit, name);
                let mut status = Status::counted(limit, verdict);
                if rule.is_some_and(|rule| rule.is_shadow) {
                    status.code = super::answer::Code::Ok;
                }
                status
            }
            (None, Some(_), _) => Status::unlimited(),
            _ => Status::pass(),
        }
    }
}

/// A rule that can't be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{key} {reason}")]
#[non_exhaustive]
pub struct RulesError {
    /// In which of the domains that were given, counted from 0.
    pub domain: usize,
    /// Where in it, such as `descriptors[2].rate_limit.unit`.
    pub key: String,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with a rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// A text that says something must stand here.
    #[error("must not be empty")]
    Empty,
    /// A key is needed.
    #[error("is missing; a limit needs unit and requests_per_unit, or unlimited: true")]
    Missing,
    /// It is there twice.
    #[error("is there already; each must be there once")]
    Duplicate,
    /// It contradicts `unlimited`.
    #[error("has no meaning with unlimited: true")]
    Unlimited,
    /// A limit replaces itself.
    #[error("is the name of this limit itself")]
    ReplacesItself,
    /// A limit is too large to be counted.
    #[error("is more than {max}; make the unit smaller, or say unlimited: true")]
    TooLarge {
        /// The largest.
        max: u32,
    },
    /// A text is too long.
    #[error("is longer than {max} bytes")]
    TooLong {
        /// The longest.
        max: usize,
    },
    /// There are too many rules.
    #[error("is one too many: there can be {max} entries in all domains together")]
    TooMany {
        /// How many there can be.
        max: usize,
    },
    /// There are too many different limits.
    #[error("is a limit too many: there can be {max} different ones in all domains together")]
    TooManyLimits {
        /// How many there can be.
        max: usize,
    },
    /// Rules stand in each other too deep.
    #[error("is too deep: entries can stand {max} deep in each other")]
    TooDeep {
        /// How deep.
        max: usize,
    },
}

/// Some 20 MB of rules.
const MAX_RULES: usize = 100_000;
/// Each costs a table of counts.
const MAX_LIMITS: usize = 256;
/// Nobody sends descriptors with as many entries.
const MAX_DEPTH: usize = 16;
/// What a [`Limiter`](crate::limit::Limiter) can count.
const MAX_REQUESTS: u32 = 6_000_000;

#[cfg(test)]
mod tests;
