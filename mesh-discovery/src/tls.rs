//! TLS to a registry: whom to believe, and who we are.
//!
//! TLS 1.2 and 1.3, with the cipher suites and key exchanges of aws-lc-rs. The system's roots are never used: what a
//! registry says decides where calls go, so it is named as exactly as a peer is.
//!
//! # Sources
//!
//! - RFC 6125 and RFC 9525: the server's name is checked against the subject alternative names of its certificate.
//! - RFC 7301: application protocols.

use std::fmt;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

/// How a registry is reached by TLS.
#[derive(Clone)]
#[non_exhaustive]
pub struct TlsConfig {
    /// PEM certificates; the server's must lead to one of them.
    pub roots: Vec<u8>,
    /// What is shown to a server that asks who we are. Default nothing.
    pub identity: Option<TlsIdentity>,
    /// The name that the server's certificate must have. Default the host that is connected to.
    pub server_name: Option<String>,
}

impl TlsConfig {
    /// Believes servers whose certificate leads to one of `roots` (PEM), and shows nothing.
    pub fn new(roots: impl Into<Vec<u8>>) -> Self {
        Self {
            roots: roots.into(),
            identity: None,
            server_name: None,
        }
    }

    /// Shows `identity` to a server that asks.
    #[must_use]
    pub fn with_identity(self, identity: TlsIdentity) -> Self {
        Self {
            identity: Some(identity),
            ..self
        }
    }

    /// Expects `name` in the server's certificate, such as `server.dc1.consul`, whatever host is connected to.
    #[must_use]
    pub fn with_server_name(self, name: impl Into<String>) -> Self {
        Self {
            server_name: Some(name.into()),
            ..self
        }
    }

    /// The configuration for rustls, offering the application protocols `alpn`, the preferred first; none where it is
    /// empty.
    ///
    /// # Errors
    ///
    /// [`TlsError`], where the PEM texts can't be used.
    pub fn client_config(&self, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.roots) {
            let certificate = certificate.map_err(|source| TlsError::Roots {
                source: Some(source.into()),
            })?;
            roots.add(certificate).map_err(|source| TlsError::Roots {
                source: Some(source.into()),
            })?;
        }
        if roots.is_empty() {
            return Err(TlsError::Roots { source: None });
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Unusable { source })?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.read()?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|source| TlsError::Identity { source })?
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// The name that the certificate of the server at `host` must have.
    ///
    /// # Errors
    ///
    /// [`TlsError::ServerName`].
    pub fn expected_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let bare = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        ServerName::try_from(bare.unwrap_or(name).to_owned()).map_err(|source| {
            TlsError::ServerName {
                name: name.chars().take(MAX_SHOWN).collect(),
                source,
            }
        })
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("identity", &self.identity)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// A certificate and its key, to show to a registry. The key is wiped when this is dropped.
#[derive(Clone)]
pub struct TlsIdentity {
    certificates: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl TlsIdentity {
    /// A PEM chain, our certificate first, and its PEM key: PKCS#8, PKCS#1 or SEC1. Both may be one text.
    pub fn new(certificates: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self {
            certificates: certificates.into(),
            key: Zeroizing::new(key.into()),
        }
    }

    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain =
            CertificateDer::pem_slice_iter(&self.certificates).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|source| TlsError::Certificate {
            source: Some(source),
        })?;
        if chain.is_empty() {
            return Err(TlsError::Certificate { source: None });
        }
        let key =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| TlsError::Key { source })?;
        Ok((chain, key))
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

/// Why there can be no TLS to a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The roots can't be read, or there are none.
    #[error(
        "the roots of the registry are unusable; give the certificate of its authority as PEM text (BEGIN CERTIFICATE)"
    )]
    Roots {
        /// Why; none where there is no certificate in the text.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },

    /// Our certificate can't be read, or there is none.
    #[error(
        "our certificate for the registry is unusable; give a chain as PEM text, our own certificate first"
    )]
    Certificate {
        /// Why; none where there is no certificate in the text.
        source: Option<pem::Error>,
    },

    /// Our key can't be read.
    #[error(
        "our key for the registry is unusable; give an unencrypted key as PEM text (PKCS#8, PKCS#1 or SEC1)"
    )]
    Key {
        /// Why.
        source: pem::Error,
    },

    /// The key is of a kind that is not known, or of another certificate.
    #[error(
        "our certificate for the registry and its key can't be used together; give the key that belongs to it"
    )]
    Identity {
        /// Why.
        source: rustls::Error,
    },

    /// The name that is to be expected is none.
    #[error(
        "{name:?} is no name that a registry's certificate can have; give a host name or an address"
    )]
    ServerName {
        /// The beginning of it.
        name: String,
        /// Why.
        source: rustls_pki_types::InvalidDnsNameError,
    },

    /// What this program was built with offers no TLS.
    #[error("tls can't be set up with the cryptography of this build")]
    Unusable {
        /// Why.
        source: rustls::Error,
    },
}

/// A name may come from a file and end in a log.
const MAX_SHOWN: usize = 100;

#[cfg(test)]
mod tests;
