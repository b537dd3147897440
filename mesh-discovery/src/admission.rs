//! Who may be where: what the caller lets a registry say.

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::name::ServiceName;

/// Judges every endpoint that a registry gives, before anything else sees it.
///
/// A registry says where a service is. Whether it may also say who answers there, or send calls back to the caller itself,
/// is for the caller to say. An endpoint that is not let in counts as one that can't be read: it is left out and named, and
/// an answer of which nothing is left is a failure of the registry, so that the last good list stays.
pub trait Admission: Send + Sync {
    /// Looks at one endpoint.
    ///
    /// # Errors
    ///
    /// [`Error::NotAdmitted`], made by [`Error::not_admitted`], when it must not be used.
    fn admit(&self, service: &ServiceName, endpoint: &Endpoint) -> Result<(), Error>;
}

/// Lets in every endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn admit(&self, _service: &ServiceName, _endpoint: &Endpoint) -> Result<(), Error> {
        Ok(())
    }
}
