//! The rules for addresses, for lists from before the start too.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::address::AddressRules;
use crate::admission::Admission;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::name::ServiceName;

/// Lets in what the rules and the caller let in.
pub(super) struct Ruled {
    pub(super) rules: AddressRules,
    pub(super) next: Arc<dyn Admission>,
}

impl Admission for Ruled {
    fn admit(&self, service: &ServiceName, endpoint: &Endpoint) -> Result<(), Error> {
        if let Some(ip) = endpoint.host.ip() {
            let checked = self.rules.check(SocketAddr::new(ip, endpoint.port));
            checked.map_err(|error| Error::not_admitted(&endpoint.id, error.to_string()))?;
        }
        self.next.admit(service, endpoint)
    }
}
