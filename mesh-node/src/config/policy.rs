//! Who may call what.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::value;
use super::value::Timestamp;

/// Who may call what. Without rules nobody may.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// What holds where no rule says otherwise: `deny`. Default `deny`.
    pub default: PolicyDefault,
    /// The rules; their order does not matter, and a deny wins over an allow. Default none.
    pub rules: Vec<RuleConfig>,
}

/// What holds where no rule says otherwise.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyDefault {
    /// Refuse.
    #[default]
    Deny,
}

/// One rule.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Name, unique, shown in every decision that the rule makes. Required.
    pub name: String,
    /// Callers: service names or SPIFFE ids. Required, at least one.
    pub from: Vec<String>,
    /// What is called. Default: everything of this service.
    #[serde(default)]
    pub to: RuleTarget,
    /// `allow`, `deny`, or `audit` (only logs what would have been denied). Required.
    pub action: RuleAction,
    /// Who answers for the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub owner: Option<String>,
    /// Why it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub reason: Option<String>,
    /// When it ends by itself: `2027-01-31` (its first moment, UTC) or `2027-01-31T12:00:00Z`. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub expires: Option<Timestamp>,
}

/// What a rule is about. What is left out matches everything.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleTarget {
    /// Service that is called. Absent: any.
    #[serde(
        deserialize_with = "value::some_service_name",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub service: Option<String>,
    /// HTTP methods or method names. Default: any.
    pub methods: Vec<String>,
    /// Paths: exact, or a prefix ending in `*`, such as `/api/*`. Default: any.
    pub paths: Vec<String>,
    /// Ports that were called. Default: any.
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
    /// The call passes as without this rule; that the rule matched is logged.
    Audit,
}
