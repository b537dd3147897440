//! What a node shows of itself, loaded as a pair or not at all.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::error::Error;
use crate::tls::MAX_INTERMEDIATES;
use crate::tls::provider;
use crate::tls::verify;

/// What a node shows of itself: its certificate chain and key.
#[derive(Clone)]
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    pub(super) key: Arc<CertifiedKey>,
}

impl Credentials {
    /// From PEM: the chain with the leaf first, and its private key (PKCS#8, SEC1 or PKCS#1, not encrypted). Other
    /// blocks than certificates in the one, and than keys in the other, are passed over, so both may be one file.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when either can't be read, there is more than one key, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        let keys: Result<Vec<_>, _> = PrivateKeyDer::pem_slice_iter(key).collect();
        let keys =
            keys.map_err(|source| Error::identity("the private key is damaged PEM", source))?;
        let [key] = <[_; 1]>::try_from(keys).map_err(|keys| {
            Error::misfit(match keys.len() {
                0 => "there is no private key in the PEM text that can be read: PKCS#8, SEC1 or PKCS#1, not encrypted"
                    .to_owned(),
                keys => format!("there are {keys} private keys in the PEM text; leave that of the certificate"),
            })
        })?;
        Self::new(certificates(chain)?, key)
    }

    /// From the chain, leaf first, and the leaf's private key.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when they do not belong together, or the chain is longer than peers take.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Error> {
        if chain.len() > 1 + MAX_INTERMEDIATES {
            return Err(Error::misfit(format!(
                "the chain has {} certificates; peers take a leaf and at most {MAX_INTERMEDIATES} above it",
                chain.len()
            )));
        }
        let key = provider().key_provider.load_private_key(key);
        let key = key.map_err(|source| Error::identity("the private key is not usable", source))?;
        let certified = CertifiedKey::new(chain.clone(), key);
        if let Err(source) = certified.keys_match() {
            return Err(Error::identity(misfit(&certified), source));
        }
        Ok(Self {
            chain,
            key: Arc::new(certified),
        })
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Signs `message` with the leaf's key: ECDSA P-256 with SHA-256 in the mesh's own certificates.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when the key offers none of the schemes that peers verify.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signer = self
            .key
            .key
            .choose_scheme(verify::SIGNATURE_SCHEMES)
            .ok_or_else(|| Error::Identity {
                what: "the certificate's key is of no supported type; use ECDSA P-256".to_owned(),
                source: None,
            })?;
        let scheme = u16::from(signer.scheme()).to_be_bytes();
        let signature = signer
            .sign(message)
            .map_err(|source| Error::identity("could not sign", source))?;
        Ok([&scheme, signature.as_slice()].concat())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}

/// Says what is wrong with a key that is not the first certificate's.
fn misfit(certified: &CertifiedKey) -> String {
    let fits = |one: &CertificateDer<'static>| {
        CertifiedKey::new(vec![one.clone()], Arc::clone(&certified.key))
            .keys_match()
            .is_ok()
    };
    match certified.cert.iter().position(fits) {
        Some(at) => format!(
            "the private key is that of certificate {} in the chain; put that one first, then those above it in order",
            at + 1
        ),
        None => "the certificate and the private key do not belong together".to_owned(),
    }
}

/// Reads all certificates of a PEM text.
///
/// # Errors
///
/// [`Error::Identity`] when it holds none or one is damaged.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|source| Error::identity("a certificate is damaged PEM", source))?;
    if read.is_empty() {
        return Err(Error::Identity {
            what: "there is no certificate in the PEM text".to_owned(),
            source: None,
        });
    }
    Ok(read)
}
