//! Which target of a route a call goes to: drawn by weight, or the one that its caller had before.
//!
//! | sticky by | target | endpoint, where the balancer hashes |
//! |---|---|---|
//! | nothing | drawn for each call; retries stay | drawn |
//! | header | follows from the value, the same at every node and after a restart | follows from the value |
//! | cookie | the one that the cookie names, as long as it takes calls; else drawn | follows from the cookie |
//!
//! By header a change of weights moves only callers whose share moved. The value of the cookie is the target's id and a random
//! number, 16 hex digits each: nothing that is worth stealing. One that names no target is as none.
//!
//! # Sources
//!
//! - RFC 6265 sections 4.1 and 5.4 (`Set-Cookie`, `Cookie`).
//! - Fowler, Noll, Vo: FNV-1a, draft-eastlake-fnv; the last mix is that of `SplitMix64`, since the upper bits of FNV-1a are
//!   uneven for short texts.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;
use http::header;
use mesh_resilience::random::Random;

use crate::route::Route;
use crate::route::Sticky;
use crate::route::Targets;

/// What was drawn.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Drawn {
    /// Which target.
    pub(crate) index: usize,
    /// What the caller is known by, for a balancer that hashes.
    pub(crate) hash: Option<u64>,
    /// The cookie to set.
    pub(crate) cookie: Option<HeaderValue>,
}

/// The targets of a route, and what they are called in cookies.
#[derive(Debug)]
pub(super) struct Choice {
    ids: Box<[u64]>,
}

impl Choice {
    /// Of targets that are called so in the configuration, in their order.
    pub(super) fn new(labels: &[Arc<str>]) -> Self {
        let ids = labels.iter().map(|label| hash(label.as_bytes()));
        Self { ids: ids.collect() }
    }

    /// The target of a call with these header fields.
    pub(super) fn draw(&self, route: &Route, headers: &HeaderMap, random: &dyn Random) -> Drawn {
        let targets = &route.targets;
        match &route.sticky {
            None if targets.all().len() == 1 => Drawn::default(),
            None => Drawn {
                index: targets.pick(random.next_u64()),
                ..Drawn::default()
            },
            Some(Sticky::Header(name)) => match headers.get(name) {
                Some(value) => {
                    let hash = hash(value.as_bytes());
                    Drawn {
                        index: targets.pick(hash),
                        hash: Some(hash),
                        cookie: None,
                    }
                }
                None => Drawn {
                    index: targets.pick(random.next_u64()),
                    ..Drawn::default()
                },
            },
            Some(Sticky::Cookie { name, ttl }) => {
                let known = find(headers, name).and_then(|value| self.read(targets, value));
                known.unwrap_or_else(|| self.set((name, *ttl), targets, random))
            }
        }
    }

    /// The target that a cookie names, as long as it takes calls.
    fn read(&self, targets: &Targets, value: &str) -> Option<Drawn> {
        let (id, caller) = value.split_once('-')?;
        let (id, caller) = (hex(id)?, hex(caller)?);
        let mut known = self.ids.iter().zip(targets.all());
        let index = known.position(|(own, target)| *own == id && target.weight > 0)?;
        Some(Drawn {
            index,
            hash: Some(mix(caller)),
            cookie: None,
        })
    }

    /// Draws a target, and makes the cookie that leads back to it.
    fn set(
        &self,
        (name, ttl): (&str, Option<Duration>),
        targets: &Targets,
        random: &dyn Random,
    ) -> Drawn {
        let index = targets.pick(random.next_u64());
        let caller = random.next_u64();
        let id = self.ids.get(index).copied().unwrap_or_default();
        let age = ttl.map(|ttl| format!("; Max-Age={}", ttl.as_secs().max(1)));
        let age = age.unwrap_or_default();
        let text = format!("{name}={id:016x}-{caller:016x}; Path=/; HttpOnly; SameSite=Lax{age}");
        Drawn {
            index,
            hash: Some(mix(caller)),
            cookie: HeaderValue::try_from(text).ok(),
        }
    }
}

/// The value of a cookie; of several of one name the first.
fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).into_iter();
    let mut pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    pairs.find_map(|pair| {
        let (found, value) = pair.trim().split_once('=')?;
        (found == name).then_some(value)
    })
}

fn hex(text: &str) -> Option<u64> {
    let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    mix(bytes.iter().fold(FNV_BASIS, fold))
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests;
