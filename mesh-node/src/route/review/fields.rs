//! Header fields and parameters that one route wants and its rivals do not.
//!
//! For each name at most two values have to be tried. Where the route itself wants a text or a beginning, it is that text,
//! or the longest beginning and something fresh behind it: whatever else it were, no fewer rivals would match. Where the
//! route does not care, it is nothing, or something fresh.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;

use crate::route::Route;
use crate::route::field::FieldRule;
use crate::route::matcher::Matcher;

/// A header field, or a parameter of the query.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Key<'a> {
    Header(&'a str),
    Query(&'a str),
}

/// What a matcher wants of fields and parameters.
pub(super) fn rules(matcher: &Matcher) -> impl Iterator<Item = (Key<'_>, &FieldRule)> {
    let headers = matcher.headers.iter();
    let headers = headers.map(|rule| (Key::Header(rule.name.as_str()), &rule.rule));
    let query = matcher.query.iter();
    headers.chain(query.map(|rule| (Key::Query(&rule.name), &rule.rule)))
}

/// What the header fields and the query of a call are.
type Answer = (HeaderMap, Option<String>);

/// The values of one name that have to be tried.
struct Choice<'a> {
    key: Key<'a>,
    values: Vec<Option<Vec<u8>>>,
}

/// The search for values.
pub(super) struct Fields<'a> {
    choices: Vec<Choice<'a>>,
    rivals: &'a [&'a Route],
    /// Who takes the calls that were tried.
    pub(super) takers: Vec<usize>,
    /// Whether a rival matched by a regular expression, which another value might not do.
    pub(super) is_open: bool,
}

impl<'a> Fields<'a> {
    /// None where the route wants what no value is.
    pub(super) fn new((route, rivals): (&'a Route, &'a [&'a Route]), fresh: &str) -> Option<Self> {
        let mut wanted: BTreeMap<Key<'_>, (Vec<&FieldRule>, Vec<&FieldRule>)> = BTreeMap::new();
        for (key, rule) in rules(&route.matcher) {
            wanted.entry(key).or_default().0.push(rule);
        }
        for (key, rule) in rivals.iter().flat_map(|rival| rules(&rival.matcher)) {
            wanted.entry(key).or_default().1.push(rule);
        }
        let mut is_open = false;
        let mut choices = Vec::with_capacity(wanted.len());
        for (key, (own, others)) in wanted {
            let mut values = values(&own, &others, fresh.as_bytes());
            values.retain(|value| {
                own.iter().all(|rule| rule.holds(value.as_deref()))
                    && can_be_sent(key, value.as_deref())
            });
            if values.is_empty() {
                // Which value a regular expression wants is not known here; without one there is none.
                is_open = own.iter().any(|rule| matches!(rule, FieldRule::Regex(_)));
                if !is_open {
                    return None;
                }
            }
            choices.push(Choice { key, values });
        }
        Some(Self {
            choices,
            rivals,
            takers: Vec::new(),
            is_open,
        })
    }

    /// Values with which no rival matches.
    pub(super) fn solve(&mut self, steps: &mut usize) -> Option<Answer> {
        let mut chosen = Vec::with_capacity(self.choices.len());
        self.descend(&mut chosen, steps)
            .then(|| self.answer(&chosen))
    }

    /// Tries the values of the next name; `chosen` are the places of those of the names before. As deep as there are names.
    fn descend(&mut self, chosen: &mut Vec<usize>, steps: &mut usize) -> bool {
        *steps = steps.saturating_sub(1 + self.rivals.len() / 16);
        if *steps == 0 {
            return false;
        }
        if let Some(taker) = self
            .rivals
            .iter()
            .find(|rival| self.is_taken_by(rival, chosen))
        {
            self.takers.push(taker.index);
            let is_regex = |(_, rule): (Key<'_>, &FieldRule)| matches!(rule, FieldRule::Regex(_));
            self.is_open |= rules(&taker.matcher).any(is_regex);
            return false;
        }
        let Some(choice) = self.choices.get(chosen.len()) else {
            return true;
        };
        for value in 0..choice.values.len() {
            chosen.push(value);
            if self.descend(chosen, steps) {
                return true;
            }
            chosen.pop();
        }
        false
    }

    /// Whether a rival matches whatever the other values are.
    fn is_taken_by(&self, rival: &Route, chosen: &[usize]) -> bool {
        rules(&rival.matcher).all(|(key, rule)| {
            let place = self.choices.binary_search_by_key(&key, |choice| choice.key);
            let value = place.ok().and_then(|place| {
                let choice = self.choices.get(place)?;
                choice.values.get(*chosen.get(place)?)
            });
            value.is_some_and(|value| rule.holds(value.as_deref()))
        })
    }

    fn answer(&self, chosen: &[usize]) -> Answer {
        let (mut headers, mut query) = (HeaderMap::new(), None::<String>);
        for (choice, value) in self.choices.iter().zip(chosen) {
            let Some(Some(value)) = choice.values.get(*value) else {
                continue;
            };
            match choice.key {
                Key::Header(name) => {
                    let name = HeaderName::try_from(name).ok();
                    if let Some((name, value)) = name.zip(HeaderValue::from_bytes(value).ok()) {
                        headers.insert(name, value);
                    }
                }
                Key::Query(name) => {
                    let query = query.get_or_insert_default();
                    if !query.is_empty() {
                        query.push('&');
                    }
                    query.push_str(&escaped(name.as_bytes()));
                    query.push('=');
                    query.push_str(&escaped(value));
                }
            }
        }
        (headers, query)
    }
}

/// The values that have to be tried, where the route wants what is `own` and its rivals want `others`.
fn values(own: &[&FieldRule], others: &[&FieldRule], fresh: &[u8]) -> Vec<Option<Vec<u8>>> {
    let text = own.iter().find_map(|rule| match rule {
        FieldRule::Equals(text) => Some(text.to_vec()),
        _ => None,
    });
    if let Some(text) = text {
        return vec![Some(text)];
    }
    if own.iter().any(|rule| **rule == FieldRule::Present(false)) {
        return vec![None];
    }
    if !own.is_empty() {
        let prefixes = own.iter().filter_map(|rule| match rule {
            FieldRule::Prefix(text) => Some(&**text),
            _ => None,
        });
        let longest = prefixes.max_by_key(|text| text.len()).unwrap_or_default();
        return vec![Some([longest, fresh].concat())];
    }
    let fresh = Some(fresh.to_vec());
    if others.iter().any(|rule| rule.holds(None)) {
        vec![None, fresh]
    } else {
        vec![None]
    }
}

/// Whether a field or parameter can have that value.
fn can_be_sent(key: Key<'_>, value: Option<&[u8]>) -> bool {
    match (key, value) {
        (Key::Header(_), Some(value)) => HeaderValue::from_bytes(value).is_ok(),
        _ => true,
    }
}

fn escaped(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for &byte in text {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}
