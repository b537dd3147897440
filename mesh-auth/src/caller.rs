//! Who calls: the workload that the connection's certificate proves, and the user that a credential proves.
//!
//! Policies see these and nothing else; how they were proved is the business of `svid` and `token`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::spiffe::SpiffeId;

/// Who calls.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Caller {
    /// The identity in the peer's verified certificate.
    pub spiffe_id: Option<SpiffeId>,
    /// Who a verified credential of the request itself names: a JWT of a trusted issuer, a consumer's token, an API key.
    pub user: Option<Arc<User>>,
}

impl Caller {
    /// A caller known by certificate, by credential, by both, or not at all.
    pub fn new(spiffe_id: Option<SpiffeId>, user: Option<Arc<User>>) -> Self {
        Self { spiffe_id, user }
    }

    /// Whether anything proves who calls.
    pub fn is_authenticated(&self) -> bool {
        self.spiffe_id.is_some() || self.user.is_some()
    }
}

/// What a verified credential says of who sent the request.
///
/// A mesh's own service tokens never become one: whoever shares their secret could write any group into them.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct User {
    /// Who vouches: `iss` of an issuer's token; of a consumer's token or API key the consumer's name.
    pub issuer: Arc<str>,
    /// Who it is, unique with its issuer: `sub` of a token, the consumer.
    pub subject: Arc<str>,
    /// Groups of the access control list, for rules that say `group:NAME`.
    pub groups: Vec<Arc<str>>,
    /// Roles that the configuration maps claims to, for rules that say `role:NAME`.
    pub roles: Vec<Arc<str>>,
    /// All claims, for rules that say `claim:NAME=VALUE` and for conditions.
    pub claims: BTreeMap<Box<str>, ClaimValue>,
}

impl User {
    /// A user without groups, roles and claims.
    pub fn new(issuer: &str, subject: &str) -> Self {
        Self {
            issuer: issuer.into(),
            subject: subject.into(),
            ..Self::default()
        }
    }

    /// Sets the groups.
    #[must_use]
    pub fn with_groups(mut self, groups: &[&str]) -> Self {
        self.groups = groups.iter().map(|&group| group.into()).collect();
        self
    }

    /// Sets the roles.
    #[must_use]
    pub fn with_roles(mut self, roles: &[&str]) -> Self {
        self.roles = roles.iter().map(|&role| role.into()).collect();
        self
    }

    /// Adds a claim.
    #[must_use]
    pub fn with_claim(mut self, name: &str, value: impl Into<ClaimValue>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// Whether the user is in a group.
    pub fn has_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| **own == *group)
    }

    /// Whether the user has a role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| **own == *role)
    }
}

/// The value of a claim: what JSON can say.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ClaimValue {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(Arc<str>),
    /// Values in order.
    List(Vec<Self>),
    /// Values by name.
    Map(BTreeMap<Box<str>, Self>),
}

impl From<&str> for ClaimValue {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<bool> for ClaimValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for ClaimValue {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl<T: Into<Self>> From<Vec<T>> for ClaimValue {
    fn from(values: Vec<T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}
