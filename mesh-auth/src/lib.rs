//! SPIFFE identities, service tokens and a policy engine that explains itself

pub mod policy;
pub mod request;
pub mod spiffe;
pub mod token;
