//! What a rate limit service answers.

use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;

use super::messages;
use super::unit::Unit;
use crate::limit::Verdict;

/// Whether calls may pass.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Over all descriptors.
    pub code: Code,
    /// Of each descriptor, in the order of the question.
    pub statuses: Vec<Status>,
    /// Headers that the service wants on the answer to the call; at most 64.
    pub headers: HeaderMap,
}

impl Answer {
    pub(super) fn new(statuses: Vec<Status>) -> Self {
        let is_over = statuses.iter().any(|status| status.code == Code::OverLimit);
        Self {
            code: if is_over { Code::OverLimit } else { Code::Ok },
            statuses,
            headers: HeaderMap::new(),
        }
    }

    /// What it says of the limit that is nearest to its end; nothing where no limit applies.
    ///
    /// Over the limit the service says when the next call can pass, where it is one of this crate, or when its unit of
    /// time ends, where it counts by the clock; both make [`Verdict::retry_after`].
    pub fn verdict(&self) -> Option<Verdict> {
        let is_over = self.code == Code::OverLimit;
        let limited = self.statuses.iter().filter(|status| {
            status.limit.is_some() && (status.code == Code::OverLimit || !is_over)
        });
        // Of several that are over their limit, the one that is so for longest.
        let tightest = limited.min_by_key(|status| {
            let remaining = if is_over { 0 } else { status.remaining };
            (remaining, std::cmp::Reverse(status.reset()))
        })?;
        let limit = tightest.limit.as_ref()?;
        let reset_after = tightest.reset();
        Some(Verdict {
            allowed: !is_over,
            limit: limit.requests_per_unit,
            remaining: if is_over { 0 } else { tightest.remaining },
            reset_after,
            retry_after: if is_over { reset_after } else { Duration::ZERO },
        })
    }

    pub(super) fn from_message(message: messages::RateLimitResponse) -> Self {
        let mut headers = HeaderMap::new();
        for field in message
            .response_headers_to_add
            .into_iter()
            .take(MAX_HEADERS)
        {
            let value = if field.raw_value.is_empty() {
                field.value.into_bytes()
            } else {
                field.raw_value
            };
            // What is no header can't be sent, and is no reason to let no call pass.
            if let (Ok(name), Ok(value)) = (
                HeaderName::try_from(field.key),
                HeaderValue::try_from(value),
            ) {
                headers.append(name, value);
            }
        }
        let statuses = message.statuses.into_iter();
        Self {
            code: Code::from_wire(message.overall_code),
            statuses: statuses.map(Status::from_message).collect(),
            headers,
        }
    }

    pub(super) fn into_message(self) -> messages::RateLimitResponse {
        let headers = self.headers.iter().map(|(name, value)| {
            let text = value.to_str().unwrap_or_default();
            messages::HeaderField {
                key: name.as_str().to_owned(),
                value: text.to_owned(),
                raw_value: if text.is_empty() {
                    value.as_bytes().to_vec()
                } else {
                    Vec::new()
                },
            }
        });
        messages::RateLimitResponse {
            overall_code: self.code.to_wire(),
            response_headers_to_add: headers.collect(),
            statuses: self
                .statuses
                .into_iter()
                .map(Status::into_message)
                .collect(),
        }
    }
}

/// Whether a limit is kept.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Code {
    /// The service does not say.
    Unknown,
    /// It is.
    Ok,
    /// It is not: the calls must not pass.
    OverLimit,
}

impl Code {
    const fn from_wire(number: i32) -> Self {
        match number {
            1 => Self::Ok,
            2 => Self::OverLimit,
            _ => Self::Unknown,
        }
    }

    const fn to_wire(self) -> i32 {
        match self {
            Self::Unknown => 0,
            Self::Ok => 1,
            Self::OverLimit => 2,
        }
    }
}

/// What is said of one descriptor.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Whether its limit is kept.
    pub code: Code,
    /// The limit that applies, where one does.
    pub limit: Option<CurrentLimit>,
    /// Calls that would pass now, after these; [`u32::MAX`] where there is no end to them.
    pub remaining: u32,
    /// Time until the limit is as it was before all calls; over the limit, until the next call can pass.
    pub reset_after: Option<Duration>,
}

impl Status {
    /// No rule applies.
    pub(super) const fn pass() -> Self {
        Self {
            code: Code::Ok,
            limit: None,
            remaining: 0,
            reset_after: None,
        }
    }

    /// A rule says that there is no limit.
    pub(super) fn unlimited() -> Self {
        Self {
            remaining: u32::MAX,
            ..Self::pass()
        }
    }

    pub(super) const fn counted(limit: CurrentLimit, verdict: &Verdict) -> Self {
        let (code, reset_after) = if verdict.allowed {
            (Code::Ok, verdict.reset_after)
        } else {
            (Code::OverLimit, verdict.retry_after)
        };
        Self {
            code,
            limit: Some(limit),
            remaining: verdict.remaining,
            reset_after: Some(reset_after),
        }
    }

    /// Where the service does not say, it is at most the unit.
    fn reset(&self) -> Duration {
        let unit = || {
            let unit = self.limit.as_ref().and_then(|limit| limit.unit);
            unit.map_or(Duration::from_secs(1), Unit::period)
        };
        self.reset_after.unwrap_or_else(unit)
    }

    fn from_message(message: messages::DescriptorStatus) -> Self {
        let limit = message.current_limit.map(|limit| CurrentLimit {
            requests_per_unit: limit.requests_per_unit,
            unit: Unit::from_wire(limit.unit),
            name: limit.name,
        });
        let reset_after = message.duration_until_reset.map(|wire| {
            let nanos = u32::try_from(wire.nanos).unwrap_or_default();
            let seconds = u64::try_from(wire.seconds).unwrap_or_default();
            Duration::new(seconds.min(MAX_SECONDS), nanos.min(999_999_999))
        });
        Self {
            code: Code::from_wire(message.code),
            limit,
            remaining: message.limit_remaining,
            reset_after,
        }
    }

    fn into_message(self) -> messages::DescriptorStatus {
        messages::DescriptorStatus {
            code: self.code.to_wire(),
            current_limit: self.limit.map(|limit| messages::RateLimit {
                requests_per_unit: limit.requests_per_unit,
                unit: limit.unit.map_or(0, Unit::to_wire),
                name: limit.name,
            }),
            limit_remaining: self.remaining,
            duration_until_reset: self.reset_after.map(|after| messages::WireDuration {
                seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(after.subsec_nanos()).unwrap_or_default(),
            }),
        }
    }
}

/// A limit.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CurrentLimit {
    /// Calls allowed in a unit.
    pub requests_per_unit: u32,
    /// The unit, where the service names one.
    pub unit: Option<Unit>,
    /// Its name; may be empty.
    pub name: String,
}

impl CurrentLimit {
    pub(super) const fn new(requests_per_unit: u32, unit: Unit, name: String) -> Self {
        Self {
            requests_per_unit,
            unit: Some(unit),
            name,
        }
    }
}

/// More is more than a service has to say.
const MAX_HEADERS: usize = 64;
/// Longer than the longest unit, and far from where times overflow.
const MAX_SECONDS: u64 = 10 * 365 * 24 * 3600;
