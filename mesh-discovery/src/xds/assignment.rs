//! An assignment: the endpoints of a cluster.
//!
//! # Sources
//!
//! `envoy/config/endpoint/v3/endpoint.proto` and `endpoint_components.proto`; gRFC A27, "EDS", for what makes an assignment
//! wrong as a whole (a priority that is skipped, sums of weights past 2^32-1).

mod endpoint;
mod metadata;
mod weigh;

use std::time::Duration;

use self::endpoint::LbEndpoint;
use self::weigh::Weighing;
use super::drops::DropOverload;
use super::fields::CLUSTER_LOAD_ASSIGNMENT;
use super::fields::DROP_OVERLOAD;
use super::fields::DURATION;
use super::fields::FRACTIONAL_PERCENT;
use super::fields::LB_ENDPOINT_LIST;
use super::fields::LOCALITY;
use super::fields::LOCALITY_LB_ENDPOINTS;
use super::fields::POLICY;
use super::fields::UINT32_VALUE;
use super::ignored::Ignored;
use super::wire::Field;
use super::wire::Wrong;
use super::wire::fields;
use crate::endpoint::Endpoint;
use crate::endpoint::MAX_ENDPOINTS_PER_SERVICE;

/// The endpoints of a cluster, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Assignment {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) drops: Vec<DropOverload>,
    /// After this time without another assignment, this one is not to be trusted; zero is never.
    pub(super) stale_after: Duration,
    weighing: Weighing,
}

/// The name of an assignment.
pub(super) fn name(bytes: &[u8]) -> Option<&str> {
    fields(&CLUSTER_LOAD_ASSIGNMENT, bytes)
        .map_while(Result::ok)
        .filter(|field| field.tag == 1)
        .last()?
        .text()
        .ok()
}

pub(super) fn decode(bytes: &[u8], ignored: &mut Ignored) -> Result<Assignment, Wrong> {
    let mut assignment = Assignment::default();
    assignment.merge(bytes, ignored)?;
    assignment.checked()
}

impl Assignment {
    /// Adds what a message says; [`Self::checked`] when there is no more.
    pub(super) fn merge(&mut self, bytes: &[u8], ignored: &mut Ignored) -> Result<(), Wrong> {
        for field in fields(&CLUSTER_LOAD_ASSIGNMENT, bytes) {
            let field = field?;
            match field.tag {
                // The name; who asked for it has looked.
                1 => {}
                2 => self.add_locality(&field, ignored)?,
                4 => self.merge_policy(field.bytes()?, ignored)?,
                _ => ignored.note(&field),
            }
        }
        Ok(())
    }

    /// Checks what can only be seen in the whole, and makes one weight of those of endpoints and localities.
    pub(super) fn checked(mut self) -> Result<Self, Wrong> {
        self.weighing.apply(&mut self.endpoints)?;
        self.weighing = Weighing::default();
        Ok(self)
    }

    fn add_locality(&mut self, field: &Field<'_>, ignored: &mut Ignored) -> Result<(), Wrong> {
        let mut zone = Zone::default();
        let mut weight = None;
        let mut priority = 0;
        let bytes = field.bytes()?;
        // What all endpoints of a locality have in common may stand behind them.
        for field in fields(&LOCALITY_LB_ENDPOINTS, bytes) {
            let field = field?;
            match field.tag {
                1 => zone.merge(field.bytes()?, ignored)?,
                2 | 7 => {}
                3 => weight = Some(wrapped(&field)?),
                5 => priority = within(&field, MAX_PRIORITY)?,
                // Ignoring it would make a list empty that is only elsewhere.
                8 => return Err(field.wrong("is not followed; give the endpoints themselves")),
                _ => ignored.note(&field),
            }
        }
        let zone = zone.name();
        // threat 51: every endpoint of the locality gets a copy.
        if zone.as_ref().is_some_and(|zone| zone.len() > MAX_ZONE) {
            let reason = format!("has a name of more than {MAX_ZONE} bytes");
            return Err(Wrong::new(&LOCALITY_LB_ENDPOINTS, 1, reason));
        }
        let priority = u16::try_from(priority).unwrap_or(u16::MAX);
        self.weighing.enter_locality(priority, weight);
        for field in fields(&LOCALITY_LB_ENDPOINTS, bytes) {
            let field = field?;
            match field.tag {
                2 => self.add_endpoint(&field, (priority, zone.as_deref()), ignored)?,
                7 => {
                    for field in fields(&LB_ENDPOINT_LIST, field.bytes()?) {
                        let field = field?;
                        match field.tag {
                            1 => self.add_endpoint(&field, (priority, zone.as_deref()), ignored)?,
                            _ => ignored.note(&field),
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add_endpoint(
        &mut self,
        field: &Field<'_>,
        (priority, zone): (u16, Option<&str>),
        ignored: &mut Ignored,
    ) -> Result<(), Wrong> {
        // threat 51: before anything is made of it, for two bytes are enough for an endpoint on the wire.
        if self.endpoints.len() >= MAX_ENDPOINTS_PER_SERVICE {
            return Err(field.wrong(format!(
                "makes more than {MAX_ENDPOINTS_PER_SERVICE} endpoints"
            )));
        }
        let (mut endpoint, weight) = LbEndpoint::read(field.bytes()?, ignored)?.into_endpoint()?;
        self.weighing.add_endpoint(weight);
        endpoint.priority = priority;
        if endpoint.zone.is_none() {
            endpoint.zone = zone.map(str::to_owned);
        }
        self.endpoints.push(endpoint);
        Ok(())
    }

    fn merge_policy(&mut self, bytes: &[u8], ignored: &mut Ignored) -> Result<(), Wrong> {
        for field in fields(&POLICY, bytes) {
            let field = field?;
            match field.tag {
                2 => {
                    if self.drops.len() >= MAX_DROPS {
                        return Err(field.wrong(format!("has more than {MAX_DROPS} elements")));
                    }
                    self.drops.push(drop_overload(field.bytes()?, ignored)?);
                }
                4 => self.stale_after = duration(&field)?,
                _ => ignored.note(&field),
            }
        }
        Ok(())
    }
}

/// `region/zone/sub_zone`, from left to right as far as they are given.
#[derive(Debug, Default)]
struct Zone<'a>([&'a str; 3]);

impl<'a> Zone<'a> {
    fn merge(&mut self, bytes: &'a [u8], ignored: &mut Ignored) -> Result<(), Wrong> {
        let Self([region, zone, sub_zone]) = self;
        for field in fields(&LOCALITY, bytes) {
            let field = field?;
            match field.tag {
                1 => *region = field.text()?,
                2 => *zone = field.text()?,
                3 => *sub_zone = field.text()?,
                _ => ignored.note(&field),
            }
        }
        Ok(())
    }

    fn name(&self) -> Option<String> {
        let parts: Vec<_> = self
            .0
            .iter()
            .copied()
            .filter(|part| !part.is_empty())
            .collect();
        (!parts.is_empty()).then(|| parts.join("/"))
    }
}

fn drop_overload(bytes: &[u8], ignored: &mut Ignored) -> Result<DropOverload, Wrong> {
    let mut category = "";
    let mut per_million = 0;
    for field in fields(&DROP_OVERLOAD, bytes) {
        let field = field?;
        match field.tag {
            1 => category = field.text()?,
            2 => per_million = fraction(field.bytes()?, ignored)?,
            _ => ignored.note(&field),
        }
    }
    if category.is_empty() || category.len() > MAX_CATEGORY || category.contains(char::is_control) {
        let reason = "must be 1 to 256 bytes without control characters";
        return Err(Wrong::new(&DROP_OVERLOAD, 1, reason));
    }
    Ok(DropOverload {
        category: category.to_owned(),
        per_million,
    })
}

/// Parts of a million; more than all is all, as gRFC A27 says.
fn fraction(bytes: &[u8], ignored: &mut Ignored) -> Result<u32, Wrong> {
    let mut numerator = 0;
    let mut scale = PER_HUNDRED;
    for field in fields(&FRACTIONAL_PERCENT, bytes) {
        let field = field?;
        match field.tag {
            1 => numerator = field.uint32()?,
            2 => {
                scale = match field.uint32()? {
                    0 => PER_HUNDRED,
                    1 => PER_TEN_THOUSAND,
                    2 => 1,
                    _ => return Err(field.wrong("is no denominator")),
                }
            }
            _ => ignored.note(&field),
        }
    }
    Ok(numerator.saturating_mul(scale).min(MILLION))
}

/// A `google.protobuf.Duration` that is not negative.
fn duration(field: &Field<'_>) -> Result<Duration, Wrong> {
    let mut whole = Duration::ZERO;
    for inner in fields(&DURATION, field.bytes()?) {
        let inner = inner?;
        match inner.tag {
            1 => whole += Duration::from_secs(u64::from(within(&inner, MAX_SECONDS)?)),
            2 => whole += Duration::from_nanos(u64::from(within(&inner, 999_999_999)?)),
            _ => return Err(inner.wrong("is no part of a duration")),
        }
    }
    Ok(whole)
}

/// A `google.protobuf.UInt32Value`.
fn wrapped(field: &Field<'_>) -> Result<u32, Wrong> {
    let mut number = 0;
    for inner in fields(&UINT32_VALUE, field.bytes()?) {
        let inner = inner?;
        match inner.tag {
            1 => number = inner.uint32()?,
            _ => return Err(inner.wrong("is no part of a number")),
        }
    }
    Ok(number)
}

fn within(field: &Field<'_>, limit: u32) -> Result<u32, Wrong> {
    let number = field.uint64()?;
    u32::try_from(number)
        .ok()
        .filter(|number| *number <= limit)
        .ok_or_else(|| field.wrong(format!("is {number}, more than {limit} or less than 0")))
}

/// The limit of `LocalityLbEndpoints.priority`.
const MAX_PRIORITY: u32 = 128;
/// 100 years: a protobuf duration may be 10,000, which no clock can be set to.
const MAX_SECONDS: u32 = 100 * 366 * 86_400;
/// Drop categories are a handful; a request goes through all of them.
const MAX_DROPS: usize = 64;
const MAX_CATEGORY: usize = 256;
/// As long as the zone of an endpoint may be.
const MAX_ZONE: usize = 512;
const MILLION: u32 = 1_000_000;
const PER_HUNDRED: u32 = 10_000;
const PER_TEN_THOUSAND: u32 = 100;

#[cfg(test)]
mod tests;
