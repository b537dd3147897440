//! Rules as an operator writes them.

use super::intentions::IntentionConfig;
use super::yaml;

/// A policy: the rules, and what happens to a request that none of them allows.
///
/// ```yaml
/// default: deny
/// rules:
///   - name: users-read-orders
///     from: [user-service]
///     to: { service: order-service, methods: [GET], paths: ["/api/*"] }
///     action: allow
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct PolicyConfig {
    /// What happens to a request that no rule allows. Default [`DefaultAction::Deny`].
    pub default: DefaultAction,
    /// The rules. Their order does not change a verdict, only which of several matching rules is named.
    pub rules: Vec<RuleConfig>,
    /// Intentions of Consul, which count beside the rules.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub intentions: Vec<IntentionConfig>,
}

impl PolicyConfig {
    /// Adds a rule.
    #[must_use]
    pub fn with_rule(mut self, rule: RuleConfig) -> Self {
        self.rules.push(rule);
        self
    }

    /// The rules and the default as they stand in a policy file, in YAML. Intentions are Consul's and are left out.
    pub fn to_yaml(&self) -> String {
        yaml::policy(self)
    }

    /// Adds an intention.
    #[must_use]
    pub fn with_intention(mut self, intention: IntentionConfig) -> Self {
        self.intentions.push(intention);
        self
    }

    /// Sets what happens to a request that no rule allows.
    #[must_use]
    pub fn with_default(mut self, default: DefaultAction) -> Self {
        self.default = default;
        self
    }
}

/// What happens to a request that no rule allows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum DefaultAction {
    /// It is refused.
    #[default]
    Deny,
    /// It passes, and the decision says that it would have been refused. For migration only: deny
    /// rules hold, everything else is open.
    Audit,
}

/// One rule.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct RuleConfig {
    /// The rule's name, unique in the policy; decisions and audit records carry it.
    pub name: String,
    /// Who calls; one of them must match:
    ///
    /// | written | matches |
    /// |---|---|
    /// | `user-service` | exactly `spiffe://<own trust domain>/user-service` |
    /// | `spiffe://example.org/user-service` | exactly that SPIFFE id |
    /// | `spiffe://example.org/team-a/*` | every id below that path |
    /// | `spiffe://example.org/*` or `spiffe://example.org` | every id of that trust domain |
    /// | `group:admin` | a credential with that group, of the caller itself |
    /// | `role:auditor` | a credential with that role |
    /// | `claim:department=payments` | a credential whose claim is that text, or a list that holds it; a number, true and false count as JSON writes them |
    /// | `issuer:https://login.example.org` | a credential of that issuer |
    /// | `*` | every caller with a SPIFFE id or a credential |
    /// | `anonymous` | callers with neither; only to allow methods and exact paths that the rule lists |
    ///
    /// All are literal: `*`, `[` and `?` elsewhere are refused. The first `=` ends a claim's name.
    pub from: Vec<String>,
    /// Whose credential the call has to carry as well; one of them must match. Beside the forms of `from` from `group:`
    /// on, `*` is every credential and `subject:ada` one with that subject, of whatever issuer. Default: no credential is
    /// asked for.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Vec::is_empty")
    )]
    pub users: Vec<String>,
    /// What is called.
    pub to: DestinationConfig,
    /// What the rule does. Default [`Action::Allow`].
    #[cfg_attr(feature = "serde", serde(default))]
    pub action: Action,
    /// A condition that must hold as well, in the Common Expression Language: `request.host == 'pay.example.org'`.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none")
    )]
    pub when: Option<String>,
    /// Who answers for the rule.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none")
    )]
    pub owner: Option<String>,
    /// Why the rule exists.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none")
    )]
    pub reason: Option<String>,
    /// When the rule ends by itself: `2027-03-31` (the last day it counts, UTC) or
    /// `2027-03-31T18:00:00Z` (the first second it does not). Note that a deny rule that ends opens
    /// what it closed.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none")
    )]
    pub expires: Option<String>,
}

impl RuleConfig {
    /// A rule that allows `from` to call everything of `service`.
    pub fn new(name: &str, from: &[&str], service: &str) -> Self {
        Self {
            name: name.to_owned(),
            from: from.iter().map(|&source| source.to_owned()).collect(),
            to: DestinationConfig {
                service: service.to_owned(),
                ..DestinationConfig::default()
            },
            users: Vec::new(),
            action: Action::default(),
            when: None,
            owner: None,
            reason: None,
            expires: None,
        }
    }

    /// The rule as it stands in a list of rules, without its dash, in YAML.
    pub fn to_yaml(&self) -> String {
        yaml::rule(self)
    }

    /// Sets the action.
    #[must_use]
    pub fn with_action(mut self, action: Action) -> Self {
        self.action = action;
        self
    }

    /// Sets whose credential the call has to carry; none asks for no credential.
    #[must_use]
    pub fn with_users(mut self, users: &[&str]) -> Self {
        self.users = users.iter().map(|&user| user.to_owned()).collect();
        self
    }

    /// Sets the condition.
    #[must_use]
    pub fn with_when(mut self, when: &str) -> Self {
        self.when = Some(when.to_owned());
        self
    }

    /// Sets the methods; none means every method.
    #[must_use]
    pub fn with_methods(mut self, methods: &[&str]) -> Self {
        self.to.methods = methods.iter().map(|&method| method.to_owned()).collect();
        self
    }

    /// Sets the paths; none means every path.
    #[must_use]
    pub fn with_paths(mut self, paths: &[&str]) -> Self {
        self.to.paths = paths.iter().map(|&path| path.to_owned()).collect();
        self
    }

    /// Sets the ports; none means every port.
    #[must_use]
    pub fn with_ports(mut self, ports: &[u16]) -> Self {
        self.to.ports = ports.to_vec();
        self
    }

    /// Sets who answers for the rule.
    #[must_use]
    pub fn with_owner(mut self, owner: &str) -> Self {
        self.owner = Some(owner.to_owned());
        self
    }

    /// Sets why the rule exists.
    #[must_use]
    pub fn with_reason(mut self, reason: &str) -> Self {
        self.reason = Some(reason.to_owned());
        self
    }

    /// Sets when the rule ends.
    #[must_use]
    pub fn with_expires(mut self, expires: &str) -> Self {
        self.expires = Some(expires.to_owned());
        self
    }
}

/// What a rule is about. A list that is empty leaves its part open.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct DestinationConfig {
    /// The called service, or `*` for every service.
    pub service: String,
    /// Methods, in upper case. Default: every method.
    #[cfg_attr(feature = "serde", serde(default))]
    pub methods: Vec<String>,
    /// Paths: `/exact`, `/prefix/*`, `*suffix`, or a template such as `/users/{id}/orders`, where
    /// `{…}` is one segment; a template may end in `/*`. All are literal otherwise. A deny or audit
    /// rule also covers the path with or without its trailing slash. Default: every path.
    #[cfg_attr(feature = "serde", serde(default))]
    pub paths: Vec<String>,
    /// Ports of the called service. Default: every port.
    #[cfg_attr(feature = "serde", serde(default))]
    pub ports: Vec<u16>,
}

/// What a rule does to the requests it matches.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Action {
    /// Lets them pass, unless a deny rule matches too.
    #[default]
    Allow,
    /// Refuses them, whatever else matches.
    Deny,
    /// A deny rule on trial: it refuses nothing, and decisions say what it would have refused.
    Audit,
}

impl Action {
    /// The word used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Audit => "audit",
        }
    }
}
