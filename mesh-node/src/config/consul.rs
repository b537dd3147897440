//! How the node reaches Consul.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::value;

/// How the node reaches Consul, and as which of its services.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsulConfig {
    /// HTTP API of the Consul agent on this machine, `http://` or `https://`. Default `http://127.0.0.1:8500`.
    pub url: String,
    /// File with the ACL token, on one line; read anew for each request. Default: no token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub token_file: Option<PathBuf>,
    /// PEM roots that Consul's certificate must lead to. Required with `https://`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub ca_file: Option<PathBuf>,
    /// What Consul calls this service. Default `service.id`.
    #[serde(
        deserialize_with = "value::some_service_name",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub service: Option<String>,
}

impl ConsulConfig {
    /// The paths in it.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.token_file, &mut self.ca_file]
            .into_iter()
            .flatten()
    }
}

impl Default for ConsulConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8500".to_owned(),
            token_file: None,
            ca_file: None,
            service: None,
        }
    }
}
