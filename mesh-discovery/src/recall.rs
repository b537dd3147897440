//! The last good lists, kept beyond the life of the process.

use std::sync::Arc;

use crate::endpoint::Endpoints;
use crate::name::ServiceName;

/// Remembers the last good list of each service, and gives it back after a restart.
///
/// Called while a registry's answer is taken in, so neither may wait for anything: a file is written later, elsewhere, as
/// `Cache` does with the feature `cache`.
pub trait Recall: Send + Sync {
    /// What was remembered of a service of that source, unless it is too old.
    fn recall(&self, source: &Arc<str>, service: &ServiceName) -> Option<Endpoints>;

    /// The source stands by this list now; an empty one is forgotten.
    fn remember(&self, source: &Arc<str>, service: &ServiceName, endpoints: &Endpoints);
}
