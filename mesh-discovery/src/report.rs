//! Why the endpoints are these: what a source says of a service, and how fresh that is.

use std::sync::Arc;
use std::time::Instant;

use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::endpoint::Standing;

/// What one source says of one service.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReport {
    /// The source's name.
    pub source: Arc<str>,
    /// How its list stands.
    pub standing: Standing,
    /// How many endpoints it gives.
    pub endpoints: usize,
    /// True when its endpoints are among those in use.
    pub is_used: bool,
    /// When the registry last answered, also to say that nothing has changed; never yet where it is none.
    pub answered_at: Option<Instant>,
    /// When what it says last changed.
    pub changed_at: Option<Instant>,
    /// Why it gives no answer, while it gives none.
    pub failure: Option<Arc<str>>,
    /// How many endpoints of its last answer were left out because they can't be used.
    pub refused: usize,
    /// What is not as the registry says, and why.
    pub exceptions: Vec<Exception>,
}

impl SourceReport {
    /// A report of a list of which no more is known.
    pub fn new(source: &str, endpoints: &Endpoints) -> Self {
        Self {
            source: Arc::from(source),
            standing: endpoints.standing(),
            endpoints: endpoints.len(),
            is_used: false,
            answered_at: None,
            changed_at: None,
            failure: None,
            refused: 0,
            exceptions: Vec::new(),
        }
    }
}

/// An endpoint that is used although the registry does not give it, or not used although it does.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Which one.
    pub endpoint: Arc<Endpoint>,
    /// Why.
    pub reason: ExceptionReason,
    /// Since when.
    pub since: Instant,
}

/// Why an endpoint is not treated as the registry says.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExceptionReason {
    /// Kept: it was withdrawn together with most others, and nothing else says that it is gone.
    WithdrawalNotBelieved,
    /// Left out: it comes and goes too often.
    Flapping,
}
