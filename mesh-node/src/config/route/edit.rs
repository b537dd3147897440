//! What a route changes in requests and answers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// Changes path or host before a call is sent. At least one of them is there.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewriteConfig {
    /// The new path; `/v2/*` replaces what stands before the star of `match.path`. The query stays. Default: the old one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub path: Option<String>,
    /// The new host, with or without a port. Default: the old one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub host: Option<String>,
}

/// Answers with a redirect. At least one of `scheme`, `host` and `path` is there.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedirectConfig {
    /// 301, 302, 303, 307 or 308. Default 308.
    pub status: u16,
    /// `http` or `https`. Default: that of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub scheme: Option<String>,
    /// The host, with or without a port. Default: that of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub host: Option<String>,
    /// The path; `/v2/*` replaces what stands before the star of `match.path`. The query stays. Default: that of the
    /// request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub path: Option<String>,
}

impl Default for RedirectConfig {
    fn default() -> Self {
        Self {
            status: PERMANENT_REDIRECT,
            scheme: None,
            host: None,
            path: None,
        }
    }
}

/// Changes of header fields, in this order: `remove`, `set`, `add`.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderEditsConfig {
    /// Fields that have this value afterwards and no other.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Fields that have this value too.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
    /// Fields that are dropped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// Keeps the method and the body (RFC 9110 section 15.4.9).
const PERMANENT_REDIRECT: u16 = 308;
