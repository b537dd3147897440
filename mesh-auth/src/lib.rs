//! SPIFFE identities, service tokens and a policy engine that explains itself

#[cfg(feature = "ca")]
pub mod ca;
mod hex;
pub mod policy;
pub mod request;
pub mod spiffe;
pub mod svid;
pub mod token;
