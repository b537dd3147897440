//! Issuers whose public keys we read, and what their claims mean here.

use std::sync::Arc;

use parking_lot::RwLock;

use super::UserTokenError;
use super::json::Object;
use super::jwk::KeySet;
use crate::caller::ClaimValue;

/// An issuer of tokens that sign with a private key of its own.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct IssuerConfig {
    /// `iss` of its tokens, compared whole.
    pub issuer: String,
    /// Who its tokens are for: one of these must be in `aud`. Empty: the called service.
    pub audiences: Vec<String>,
    /// The claim that lists groups: a name, or a JSON Pointer (RFC 6901) such as `/realm_access/roles`. Default `groups`.
    pub groups_claim: String,
    /// Roles that claims give.
    pub roles: Vec<RoleMapping>,
    /// Whether a token counts once: it must have a `jti`, and a second request with it is refused. Default no.
    pub single_use: bool,
}

impl IssuerConfig {
    /// The issuer that writes `issuer` into `iss`, all else default.
    pub fn new(issuer: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audiences: Vec::new(),
            groups_claim: GROUPS.to_owned(),
            roles: Vec::new(),
            single_use: false,
        }
    }

    /// Sets who its tokens are for.
    #[must_use]
    pub fn with_audiences(mut self, audiences: &[&str]) -> Self {
        self.audiences = audiences.iter().map(|&one| one.to_owned()).collect();
        self
    }

    /// Sets the claim that lists groups.
    #[must_use]
    pub fn with_groups_claim(mut self, claim: &str) -> Self {
        claim.clone_into(&mut self.groups_claim);
        self
    }

    /// Adds a role.
    #[must_use]
    pub fn with_role(mut self, mapping: RoleMapping) -> Self {
        self.roles.push(mapping);
        self
    }

    /// Sets whether a token counts once.
    #[must_use]
    pub fn with_single_use(mut self, is_single: bool) -> Self {
        self.single_use = is_single;
        self
    }
}

/// A role and the claim that gives it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RoleMapping {
    /// The role, for rules that say `role:NAME`.
    pub role: String,
    /// The claim: a name, or a JSON Pointer (RFC 6901).
    pub claim: String,
    /// What the claim must say.
    pub condition: RoleCondition,
}

impl RoleMapping {
    /// Gives `role` to whose `claim` says what `condition` asks.
    pub fn new(role: &str, claim: &str, condition: RoleCondition) -> Self {
        Self {
            role: role.to_owned(),
            claim: claim.to_owned(),
            condition,
        }
    }
}

/// What a claim must say to give a role.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RoleCondition {
    /// This and nothing else: the same text, or a number or truth value that JSON writes like this.
    Equals(String),
    /// This among others: in a list of texts, or between spaces of one text as in `scope` (RFC 8693 section 4.2).
    Contains(String),
}

impl RoleCondition {
    fn holds(&self, value: &ClaimValue) -> bool {
        match (self, value) {
            (Self::Equals(wanted), ClaimValue::Text(text)) => **text == **wanted,
            (Self::Equals(wanted), ClaimValue::Int(number)) => number.to_string() == *wanted,
            (Self::Equals(wanted), ClaimValue::Bool(value)) => value.to_string() == *wanted,
            (Self::Contains(wanted), ClaimValue::Text(words)) => {
                words.split(' ').any(|word| word == wanted)
            }
            (Self::Contains(wanted), ClaimValue::List(all)) => all
                .iter()
                .any(|one| matches!(one, ClaimValue::Text(text) if **text == **wanted)),
            _ => false,
        }
    }
}

/// An issuer and the keys it has now.
#[derive(Debug)]
pub(super) struct External {
    pub(super) config: IssuerConfig,
    keys: RwLock<Keys>,
}

/// The keys in force; the generation counts how often they changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    pub(super) set: Option<Arc<KeySet>>,
    pub(super) generation: u64,
}

impl External {
    pub(super) fn new(config: IssuerConfig) -> Self {
        Self {
            config,
            keys: RwLock::default(),
        }
    }

    pub(super) fn keys(&self) -> Keys {
        self.keys.read().clone()
    }

    /// Whether what was accepted in this generation still counts.
    pub(super) fn is_current(&self, generation: u64) -> bool {
        let keys = self.keys.read();
        keys.set.is_some() && keys.generation == generation
    }

    /// The same keys again change nothing.
    pub(super) fn put(&self, set: Option<Arc<KeySet>>) {
        let mut keys = self.keys.write();
        let is_same = match (&keys.set, &set) {
            (Some(old), Some(new)) => old.is_same(new),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            keys.set = set;
            keys.generation = keys.generation.saturating_add(1);
        }
    }

    /// Groups that the token names: a list of texts, or one text.
    pub(super) fn groups(&self, claims: &Object) -> Result<Vec<Arc<str>>, UserTokenError> {
        let wrong = UserTokenError::Claim { name: "groups" };
        match find(claims, &self.config.groups_claim) {
            None => Ok(Vec::new()),
            Some(ClaimValue::Text(group)) => Ok(vec![Arc::clone(group)]),
            Some(ClaimValue::List(all)) => {
                let text = |one: &ClaimValue| match one {
                    ClaimValue::Text(group) => Some(Arc::clone(group)),
                    _ => None,
                };
                all.iter().map(text).collect::<Option<_>>().ok_or(wrong)
            }
            Some(_) => Err(wrong),
        }
    }

    pub(super) fn roles(&self, claims: &Object) -> Vec<Arc<str>> {
        let mut roles: Vec<Arc<str>> = Vec::new();
        for mapping in &self.config.roles {
            let is_given =
                find(claims, &mapping.claim).is_some_and(|value| mapping.condition.holds(value));
            if is_given && !roles.iter().any(|role| **role == *mapping.role) {
                roles.push(mapping.role.as_str().into());
            }
        }
        roles
    }
}

/// A claim by name, or by JSON Pointer where that begins with `/` (RFC 6901 sections 3 and 4; of arrays no item).
fn find<'a>(claims: &'a Object, name: &str) -> Option<&'a ClaimValue> {
    let Some(path) = name.strip_prefix('/') else {
        return claims.get(name);
    };
    let unescaped = |part: &str| part.replace("~1", "/").replace("~0", "~");
    let mut parts = path.split('/');
    let mut value = claims.get(&*unescaped(parts.next()?))?;
    for part in parts {
        let ClaimValue::Map(inner) = value else {
            return None;
        };
        value = inner.get(&*unescaped(part))?;
    }
    Some(value)
}

const GROUPS: &str = "groups";
