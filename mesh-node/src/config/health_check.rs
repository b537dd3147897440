//! Active checks of the endpoints that are called.

use std::num::NonZeroU32;
use std::time::Duration;

use mesh_discovery::HealthConfig;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::value;

/// Active checks of the endpoints of every service that is called, beside what registries say of them and what calls show.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheckConfig {
    /// What is asked: `none`; `tls`, a whole handshake with a check of who answers; `http`, a GET that the application
    /// answers with 200 to 399; `grpc`, gRPC's health protocol. The last two are calls, which the peer's policy must allow.
    /// Each caller asks each endpoint, so a check costs a fleet callers times endpoints. Default `none`.
    pub protocol: HealthProtocol,
    /// Path of an `http` check. Default `/health`.
    #[serde(deserialize_with = "value::url_path")]
    pub path: String,
    /// Service that a `grpc` check asks for. Default the server as a whole.
    pub grpc_service: String,
    /// From one check of an endpoint to the next, give or take a tenth by chance. Default `10s`, range 100 ms to 1 h.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// How long one may take, at most the interval. Default `3s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Successes in a row that make an unhealthy endpoint healthy. Default 2.
    pub rise: NonZeroU32,
    /// Failures in a row that make an endpoint unhealthy. Default 3.
    pub fall: NonZeroU32,
    /// Checks that run at a time, over all services; each holds a connection. Default 64.
    pub max_concurrent: NonZeroU32,
}

/// What an active check asks.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthProtocol {
    /// Nothing: there are no checks.
    #[default]
    None,
    /// That the node is there and proves to be who it must be.
    Tls,
    /// A path of the application, by GET.
    Http,
    /// gRPC's health protocol, version 1, of the application.
    Grpc,
}

impl HealthCheckConfig {
    /// When to check.
    pub(crate) fn schedule(&self) -> HealthConfig {
        HealthConfig::default()
            .with_interval(self.interval)
            .with_timeout(self.timeout)
            .with_thresholds(self.rise, self.fall)
    }
}

impl Default for HealthCheckConfig {
    fn default() -> Self {
        let schedule = HealthConfig::default();
        Self {
            protocol: HealthProtocol::None,
            path: PATH.to_owned(),
            grpc_service: String::new(),
            interval: schedule.interval,
            timeout: schedule.timeout,
            rise: schedule.rise,
            fall: schedule.fall,
            max_concurrent: value::nonzero(MAX_CONCURRENT),
        }
    }
}

const PATH: &str = "/health";
/// A tenth of the file descriptors that a process commonly has.
const MAX_CONCURRENT: u32 = 64;
