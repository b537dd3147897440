//! Copies of calls, and faults that are made on purpose.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::StatusCode;

use super::field::HeaderRule;
use crate::config::Percent;
use crate::config::SubsetConfig;

/// Where copies go.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Mirror {
    /// The service; none where it is the one that was called.
    pub service: Option<Arc<str>>,
    /// Which of its endpoints.
    pub subset: Option<Arc<SubsetConfig>>,
    /// The share of the calls that is copied.
    pub percent: Percent,
    /// Copies under way at a time.
    pub max_concurrent: NonZeroU32,
    /// How long a copy may take.
    pub timeout: Duration,
}

/// Faults that are made on purpose.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fault {
    /// Makes calls wait before they are sent.
    pub delay: Option<Delay>,
    /// Answers calls instead of sending them; after the delay, where a call gets both.
    pub abort: Option<Abort>,
    pub(super) headers: Box<[HeaderRule]>,
}

/// A delay.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Delay {
    /// How long.
    pub time: Duration,
    /// The share of the calls that waits.
    pub percent: Percent,
}

/// An error instead of an answer.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Abort {
    /// Which.
    pub status: FaultStatus,
    /// The share of the calls that is answered so.
    pub percent: Percent,
}

/// The status of an abort.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FaultStatus {
    /// Of HTTP, 400 to 599.
    Http(StatusCode),
    /// Of gRPC, 1 to 16.
    Grpc(u8),
}

impl Fault {
    /// Whether calls with these header fields get any of it.
    pub fn is_for(&self, headers: &HeaderMap) -> bool {
        self.headers.iter().all(|rule| rule.holds(headers))
    }
}
