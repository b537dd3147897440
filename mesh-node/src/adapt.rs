//! Where one crate needs an ability of another: the traits that the one declares, implemented with the other.

pub(crate) mod address;
pub(crate) mod peer_key;
pub(crate) mod policy;
