//! Where the calls of a route go.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::value;

/// One of the places that the calls of a route are split between.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteTargetConfig {
    /// The service. Default: the one that was called.
    #[serde(
        deserialize_with = "value::some_service_name",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub service: Option<String>,
    /// Only those of its endpoints that are like this. Default: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SubsetConfig")]
    pub subset: Option<SubsetConfig>,
    /// Its share of the calls, beside the weights of the others; 0 takes none. Default 1.
    pub weight: u32,
}

impl Default for RouteTargetConfig {
    fn default() -> Self {
        Self {
            service: None,
            subset: None,
            weight: 1,
        }
    }
}

/// Some of a service's endpoints: those for which all that is given holds.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubsetConfig {
    /// Their zone. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub zone: Option<String>,
    /// Their version. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub version: Option<String>,
    /// Tags, of which each must be among theirs. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Metadata, of which each must be as theirs. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// By what one caller is known again: exactly one of `header` and `cookie`.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StickyConfig {
    /// The header field whose value decides; calls without it are split anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub header: Option<String>,
    /// A cookie that this node sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StickyCookieConfig")]
    pub cookie: Option<StickyCookieConfig>,
}

/// The cookie that keeps a caller at one target.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StickyCookieConfig {
    /// Its name. Required.
    pub name: String,
    /// How long a caller keeps it. Default: until its browser is closed.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "value::optional_duration"
    )]
    #[schemars(with = "String")]
    pub ttl: Option<Duration>,
}
