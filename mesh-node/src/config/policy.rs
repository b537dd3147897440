//! Who may call what.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::ConsulConfig;

/// Who may call what. Without rules nobody may.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// What happens to a call that no rule allows: `deny`, or `audit`, which lets it pass and records that it would have
    /// been refused (for migration only). Default `deny`.
    pub default: PolicyDefault,
    /// The rules; their order does not matter, and a deny wins over an allow. Default none.
    pub rules: Vec<RuleConfig>,
    /// File that holds `default` and `rules` in place of this section. It is watched: a change counts at once, whole or
    /// not at all. Once it is read, `rules` is what stood in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub rules_file: Option<PathBuf>,
    /// File with a second policy of the same form, which is evaluated beside the first for every call and decides nothing:
    /// metrics, log and record say where it would have decided otherwise. It is watched too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub shadow_file: Option<PathBuf>,
    /// Consul, whose intentions about calls of this service are a part of the policy, beside the rules. Where Consul is away
    /// those that it named last stay in force. Default: none are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ConsulConfig")]
    pub consul: Option<ConsulConfig>,
    /// What stood in `shadow_file`, once it is read.
    #[serde(skip)]
    pub shadow: Option<Box<Self>>,
}

/// What happens to a call that no rule allows.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyDefault {
    /// It is refused.
    #[default]
    Deny,
    /// It passes, and the record says that it would have been refused.
    Audit,
}

/// One rule.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Name, unique, shown in every decision that the rule makes. Required.
    pub name: String,
    /// Callers: a service (`user-service`), a SPIFFE id, all below one (`spiffe://example.org/team-a/*`), a credential
    /// (`group:N`, `role:N`, `claim:NAME=VALUE`, `issuer:ISS`), `*` for every caller with an identity, or `anonymous` for
    /// those without one. Required, at least one.
    pub from: Vec<String>,
    /// Whose credential the call has to carry as well: `group:N`, `role:N`, `claim:NAME=VALUE`, `issuer:ISS`, `subject:S`,
    /// or `*` for any. Default: none is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// What is called. Required.
    pub to: RuleTarget,
    /// `allow`, `deny`, or `audit` (only logs what would have been denied). Required.
    pub action: RuleAction,
    /// A condition that must hold as well, in the Common Expression Language. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub when: Option<String>,
    /// Who answers for the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub owner: Option<String>,
    /// Why it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub reason: Option<String>,
    /// When it ends by itself: `2027-03-31` (the last day it counts, UTC) or `2027-03-31T18:00:00Z`. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub expires: Option<String>,
}

/// What a rule is about. A list that is left out matches everything.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleTarget {
    /// Service that is called, or `*` for every service. Required.
    pub service: String,
    /// HTTP methods, in upper case. Default: any.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Paths: `/exact`, `/prefix/*`, `*suffix`, or a template such as `/users/{id}`. Default: any.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Ports of the called service. Default: any.
    #[serde(default)]
    pub ports: Vec<u16>,
}

/// What a rule does.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleAction {
    /// The call passes unless another rule denies it.
    Allow,
    /// The call is refused.
    Deny,
    /// A deny rule on trial: the call passes, and the record says that it would have been refused.
    Audit,
}
