//! What Consul's CA answers, as it stands on the wire.

use std::fmt;

use serde::Deserialize;

use crate::config::SecretText;

/// A service's certificate and key.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Leaf {
    /// The leaf, its intermediates behind it.
    #[serde(rename = "CertPEM")]
    pub(super) certificates: String,
    #[serde(rename = "PrivateKeyPEM", deserialize_with = "secret")]
    pub(super) key: SecretText,
    #[serde(rename = "ServiceURI")]
    pub(super) uri: String,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SecretText, D::Error> {
    String::deserialize(deserializer).map(SecretText::new)
}

/// All roots that are trusted: the active one, and while it is replaced the one before.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Roots {
    pub(super) trust_domain: String,
    #[serde(default)]
    pub(super) roots: Option<Vec<Root>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Root {
    pub(super) root_cert: String,
}
