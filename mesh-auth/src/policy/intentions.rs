//! Consul's intentions as a source of policy.
//!
//! # What they decide
//!
//! Of the intentions about a caller and a called service one alone decides, that of highest precedence:
//!
//! | source | destination | Consul's precedence |
//! |---|---|--:|
//! | name | name | 9 |
//! | `*` | name | 8 |
//! | name | `*` | 6 |
//! | `*` | `*` | 5 |
//!
//! Where it has permissions, the first that matches the request decides; a request that none matches is left to the rules
//! and the default, which stands for Consul's `default_policy`. A connection that is not HTTP is refused by an intention
//! with permissions: Consul allows these for HTTP services only, and nothing of them could be checked.
//!
//! What an intention denies is denied, whatever the rules say. What it allows counts as allowed by a rule. Decisions name it
//! `intention:SOURCE=>DESTINATION`.
//!
//! # Who is the source
//!
//! A workload of our own trust domain, by its service: the last part of an id as Consul's CA writes it
//! (`/ns/default/dc/DC/svc/NAME`, also below `/ap/default`), or the whole path of any other id. `*` as a source allows
//! every such workload, and denies every caller, also from elsewhere or without a certificate.
//!
//! # Where this is stricter than Consul
//!
//! A permission that denies covers a path with and without its trailing slash, as our deny rules do, and looks at each
//! value of a repeated header: one that matches is enough. A permission that allows needs all values to match. Paths are
//! compared in their canonical form with escapes undone. Regular expressions, namespaces, partitions and peers are refused.
//!
//! # Sources
//! - Consul, "Service intentions", <https://developer.hashicorp.com/consul/docs/connect/intentions>, section
//!   "Precedence and match order", and "Service intentions configuration entry reference", `Permissions`.

mod config;
mod permission;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use http::HeaderName;
use thiserror::Error;

pub use self::config::{IntentionAction, IntentionConfig, IntentionHeader, IntentionPermission};

use self::permission::Permission;
use super::source::ANY;
use super::{Call, PathError};
use crate::caller::Caller;
use crate::spiffe::{SpiffeId, TrustDomain};

/// Most intentions of a policy.
pub const MAX_INTENTIONS: usize = 10_000;

/// Most permissions of an intention: they are gone through in order.
pub const MAX_PERMISSIONS: usize = 64;

/// The intentions of a policy, by whom they are about.
#[derive(Debug, Default)]
pub(super) struct Intentions {
    all: Vec<Intention>,
    named: HashMap<Box<str>, BySource>,
    every: BySource,
}

#[derive(Debug, Default)]
struct BySource {
    named: HashMap<Box<str>, usize>,
    every: Option<usize>,
}

#[derive(Debug)]
struct Intention {
    name: Arc<str>,
    /// As written, for explanations.
    config: IntentionConfig,
    effect: Effect,
}

#[derive(Debug)]
enum Effect {
    Always(IntentionAction),
    FirstOf(Vec<Permission>),
}

impl Intentions {
    pub(super) fn compile(
        configs: &[IntentionConfig],
        own: &TrustDomain,
    ) -> Result<Self, (String, IntentionError)> {
        let mut compiled = Self::default();
        for config in configs {
            let name = format!("intention:{}=>{}", config.source, config.destination);
            if let Err(error) = compiled.add(&name, config, own) {
                return Err((name, error));
            }
        }
        Ok(compiled)
    }

    fn add(
        &mut self,
        name: &str,
        config: &IntentionConfig,
        own: &TrustDomain,
    ) -> Result<(), IntentionError> {
        for service in [&config.source, &config.destination] {
            if service != ANY && SpiffeId::for_service(own, service).is_err() {
                return Err(IntentionError::Service {
                    service: service.clone(),
                });
            }
        }
        let effect = Effect::compile(config)?;
        let by_source = if config.destination == ANY {
            &mut self.every
        } else {
            self.named
                .entry(config.destination.as_str().into())
                .or_default()
        };
        let position = self.all.len();
        let is_new = if config.source == ANY {
            by_source.every.replace(position).is_none()
        } else {
            match by_source.named.entry(config.source.as_str().into()) {
                Entry::Occupied(_) => false,
                Entry::Vacant(entry) => {
                    entry.insert(position);
                    true
                }
            }
        };
        if !is_new {
            return Err(IntentionError::Duplicate);
        }
        self.all.push(Intention {
            name: name.into(),
            config: config.clone(),
            effect,
        });
        Ok(())
    }

    /// What the intention that decides about a call says, and its place; none where it leaves the call to the rules.
    pub(super) fn decide(
        &self,
        call: &Call<'_>,
        own: &TrustDomain,
    ) -> Option<(usize, IntentionAction)> {
        if self.all.is_empty() {
            return None;
        }
        let service = service_of(call.caller, own);
        let position = [self.named.get(call.service), Some(&self.every)]
            .into_iter()
            .flatten()
            .find_map(|by_source| {
                let named = service.and_then(|service| by_source.named.get(service));
                named.copied().or(by_source.every)
            })?;
        let action = match &self.all.get(position)?.effect {
            Effect::Always(action) => *action,
            Effect::FirstOf(permissions) => match &call.http {
                Some(http) => permissions.iter().find_map(|one| one.decide(http))?,
                None => IntentionAction::Deny,
            },
        };
        // Only `*` is about callers who are no service of ours, and it lets none of them in.
        if action == IntentionAction::Allow && service.is_none() {
            return None;
        }
        Some((position, action))
    }

    pub(super) fn name(&self, position: usize) -> Option<Arc<str>> {
        let intention = self.all.get(position)?;
        Some(Arc::clone(&intention.name))
    }

    /// All of them, as written.
    pub(super) fn configs(&self) -> impl Iterator<Item = &IntentionConfig> {
        self.all.iter().map(|intention| &intention.config)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Headers that permissions read.
    pub(super) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.all.iter().flat_map(|intention| {
            let permissions = match &intention.effect {
                Effect::Always(_) => &[][..],
                Effect::FirstOf(permissions) => permissions,
            };
            permissions.iter().flat_map(Permission::headers)
        })
    }
}

impl Effect {
    fn compile(config: &IntentionConfig) -> Result<Self, IntentionError> {
        match (config.action, &*config.permissions) {
            (Some(action), []) => Ok(Self::Always(action)),
            (None, permissions) if !permissions.is_empty() => {
                if permissions.len() > MAX_PERMISSIONS {
                    return Err(IntentionError::TooManyPermissions {
                        permissions: permissions.len(),
                    });
                }
                let permissions = permissions.iter().map(Permission::compile);
                Ok(Self::FirstOf(permissions.collect::<Result<_, _>>()?))
            }
            _ => Err(IntentionError::Effect),
        }
    }
}

/// The service that a workload of our own trust domain runs.
pub(super) fn service_of<'a>(caller: &'a Caller, own: &TrustDomain) -> Option<&'a str> {
    let id = caller.spiffe_id.as_ref()?;
    if id.trust_domain() != own {
        return None;
    }
    let path = id.service();
    let consul = path.strip_prefix("ap/default/").unwrap_or(path);
    if !consul.starts_with("ns/") && !consul.starts_with("ap/") {
        return Some(path);
    }
    let (_, service) = consul.strip_prefix("ns/default/dc/")?.split_once("/svc/")?;
    (!service.contains('/')).then_some(service)
}

/// What is wrong with an intention.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IntentionError {
    /// A source or destination is not a service's name.
    #[error("{service:?} is not a service; write its name, or \"*\" alone for every service")]
    Service {
        /// What is written.
        service: String,
    },
    /// Another intention has the same source and destination.
    #[error("another intention has the same source and destination")]
    Duplicate,
    /// There is neither an action nor permissions, or both.
    #[error("it has either an action or permissions")]
    Effect,
    /// There are too many permissions.
    #[error("{permissions} permissions are more than the limit of {MAX_PERMISSIONS}")]
    TooManyPermissions {
        /// How many.
        permissions: usize,
    },
    /// A method is not one that a request can have.
    #[error("no request has the method {method:?}; methods are written in upper case, such as GET")]
    Method {
        /// The method as written.
        method: String,
    },
    /// A permission has two kinds of path.
    #[error("a permission has an exact path or the beginning of one, not both")]
    TwoPaths,
    /// No request can match a path.
    #[error("no request can match the path {path:?}")]
    Path {
        /// The path as written.
        path: String,
        /// What is wrong with it.
        source: PathError,
    },
    /// A header's name is none, or the header holds a secret.
    #[error("{name:?} is not the name of a header, or of one that holds a secret")]
    Header {
        /// The name as written.
        name: String,
    },
    /// A header has no condition, or several.
    #[error("the header {name} needs one of present, exact, prefix, suffix and contains")]
    HeaderMatch {
        /// The header.
        name: String,
    },
}

#[cfg(test)]
mod tests;
