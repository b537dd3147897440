//! The table of `mesh-node policy test`: calls, and what should be decided about them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::ConfigError;
use super::Environment;
use super::decode;
use super::expand;
use super::read_text;
use super::tree::Node;

/// A table that was read and whose rows can still be found.
pub(crate) struct TestDocument {
    file: String,
    root: Node,
}

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    tests: Vec<TestConfig>,
}

/// One row: a call and what is expected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestConfig {
    /// What it is about.
    pub(crate) name: String,
    /// Who calls: a service, or a SPIFFE id; absent for a caller without a certificate.
    #[serde(default)]
    pub(crate) from: Option<String>,
    /// The user that a credential names.
    #[serde(default)]
    pub(crate) user: Option<ExpectedUser>,
    /// The called service.
    pub(crate) to: String,
    #[serde(default)]
    pub(crate) port: Option<u16>,
    #[serde(default)]
    pub(crate) method: Option<String>,
    #[serde(default)]
    pub(crate) path: Option<String>,
    /// The host; the called service where it is absent.
    #[serde(default)]
    pub(crate) host: Option<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// When; now where it is absent.
    #[serde(default)]
    pub(crate) at: Option<String>,
    pub(crate) expect: ExpectedVerdict,
    /// The rule that has to decide, or `default`.
    #[serde(default)]
    pub(crate) rule: Option<String>,
}

impl TestConfig {
    /// Whether the call is a request; else it is a connection that is not HTTP.
    pub(crate) fn is_http(&self) -> bool {
        let has_target = self.method.is_some() || self.path.is_some();
        has_target || self.host.is_some() || !self.headers.is_empty()
    }
}

/// The user of a call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedUser {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    #[serde(default)]
    pub(crate) roles: Vec<String>,
    /// Claims; a value that reads as JSON is that, all else a text.
    #[serde(default)]
    pub(crate) claims: BTreeMap<String, serde_json::Value>,
}

/// A verdict that is expected.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExpectedVerdict {
    Allow,
    Deny,
}

impl TestDocument {
    /// Reads the table at `path`, with `environment` for its variables.
    ///
    /// # Errors
    ///
    /// The file can't be read, is no YAML, or names a variable that is not set.
    pub(crate) fn read(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = read_text(path).map_err(|source| ConfigError {
            message: "could not read the table".to_owned(),
            ..ConfigError::unreadable(&file, source)
        })?;
        let mut root = Node::parse(&text, &file)?;
        expand::expand(&mut root, environment, &file)?;
        Ok(Self { file, root })
    }

    /// The rows.
    ///
    /// # Errors
    ///
    /// An unknown or missing key, or a value that is not allowed.
    pub(crate) fn tests(&self) -> Result<Vec<TestConfig>, ConfigError> {
        decode::decode(&self.root, &self.file).map(|table: Table| table.tests)
    }

    /// An error about `key`, such as `tests[2].from`, at its place.
    pub(crate) fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::new(&self.file, self.root.place_of(key), key, message)
    }
}
