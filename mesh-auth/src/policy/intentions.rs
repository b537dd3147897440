//! Consul's intentions as a source of policy.

mod config;

pub use self::config::{IntentionAction, IntentionConfig, IntentionHeader, IntentionPermission};
