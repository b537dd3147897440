//! What the node records and shows.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::value;

/// The tamper-evident audit log.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Whether an audit log is written. Default `true`.
    pub enabled: bool,
    /// The log file. Default `logs/mesh-audit.log`.
    pub path: PathBuf,
    /// What is recorded: `connection`, `message`, `error`, `key_rotation`. Default all four.
    pub events: Vec<AuditEvent>,
    /// `durable`: an answer waits until its record is on disk, a few milliseconds that all requests under way share.
    /// `async`: it does not, and a crash may lose the records of the last moments. Default `durable`.
    pub durability: Durability,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            path: PathBuf::from("logs/mesh-audit.log"),
            events: vec![
                AuditEvent::Connection,
                AuditEvent::Message,
                AuditEvent::Error,
                AuditEvent::KeyRotation,
            ],
            durability: Durability::default(),
        }
    }
}

/// A kind of audit record.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditEvent {
    /// A peer connected or was refused.
    Connection,
    /// A call passed or was refused.
    Message,
    /// Something failed.
    Error,
    /// A key was replaced.
    KeyRotation,
}

/// Whether a request waits for its audit record.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The record is on disk before the answer leaves.
    #[default]
    Durable,
    /// The record is written soon after.
    Async,
}

/// One line for each request.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLogConfig {
    /// Whether requests are logged. Default `false`.
    pub enabled: bool,
    /// The log file; `-` is standard output. Default `-`.
    pub path: PathBuf,
}

impl AccessLogConfig {
    /// Whether the log goes to standard output.
    pub fn is_stdout(&self) -> bool {
        self.path.as_os_str() == "-"
    }
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            path: PathBuf::from("-"),
        }
    }
}

/// Metrics for Prometheus, on the admin listener.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Whether metrics are served. Default `true`.
    pub enabled: bool,
    /// Path on the admin listener. Default `/metrics`.
    #[serde(deserialize_with = "value::url_path")]
    pub endpoint: String,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            endpoint: "/metrics".to_owned(),
        }
    }
}

/// The admin listener.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Address of the admin pages; whoever reaches it can drain the node. Default `127.0.0.1:9090`.
    #[serde(deserialize_with = "value::socket_addr")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT)),
        }
    }
}

/// The node's own log, on standard error.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Least severe level that is shown: `error`, `warn`, `info`, `debug` or `trace`. Default `info`.
    pub level: LogLevel,
}

/// How severe a log line is.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// An operator must act.
    Error,
    /// Degraded, but handled.
    Warn,
    /// The node's life: started, draining, stopped.
    #[default]
    Info,
    /// Each connection.
    Debug,
    /// Each frame.
    Trace,
}

impl LogLevel {
    /// The name as it stands in the file, which is also what `tracing` calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// DESIGN section 8.
const ADMIN_PORT: u16 = 9090;
