//! What is known of an endpoint from elsewhere than the registry.

use crate::endpoint::Endpoint;
use crate::health::Status;
use crate::name::ServiceName;

/// What active and passive checks know of endpoints; asked when a registry says something that is hard to believe.
pub trait Evidence: Send + Sync {
    /// [`Status::Healthy`] only when it was seen to work lately, [`Status::Unhealthy`] only when it was seen not to.
    fn status(&self, service: &ServiceName, endpoint: &Endpoint) -> Status;
}

/// Nothing is known of any endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoEvidence;

impl Evidence for NoEvidence {
    fn status(&self, _service: &ServiceName, _endpoint: &Endpoint) -> Status {
        Status::Unknown
    }
}
