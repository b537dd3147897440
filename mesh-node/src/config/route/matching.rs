//! What a call must be so that a route takes it.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// What a call must be. All that is given must hold.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteMatchConfig {
    /// Services as they are called: by host, or by name in `/v1/call/`. Default: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Methods, in upper case. Default: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The path: `/exact`, `/prefix/*`, `*suffix`, or a template such as `/users/{id}`. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub path: Option<String>,
    /// A regular expression that is looked for in the path; `^` and `$` tie it to the ends. Not together with `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub path_regex: Option<String>,
    /// Header fields. Default: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<FieldMatchConfig>,
    /// Parameters of the query. Default: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<FieldMatchConfig>,
}

/// What a header field or a parameter of the query must be: exactly one of `equals`, `prefix`, `regex` and `present`.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FieldMatchConfig {
    /// Its name. Required.
    pub name: String,
    /// The whole value; upper and lower case differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub equals: Option<String>,
    /// What the value begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub prefix: Option<String>,
    /// A regular expression that is looked for in the value; `^` and `$` tie it to the ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub regex: Option<String>,
    /// Whether it must be there, or must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub present: Option<bool>,
}
