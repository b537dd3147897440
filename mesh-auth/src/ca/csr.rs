//! Signing requests: a key asks for a certificate, and proves that its holder has it.
//!
//! Whoever signs decides everything but the key. What a request asks for beside it (a subject, names,
//! extensions) is not even looked at, so nothing that stands there can end up in a certificate.
//!
//! # Sources
//! - RFC 2986 (PKCS #10) sections 3 and 4.
//! - FIPS 186-5 appendix A.1.1: RSA exponents above 2^16; SP 800-57 part 1 table 2: RSA from 2048 bits.

use std::fmt;

use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PKCS_RSA_SHA256, PublicKeyData, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::oid_registry::{
    OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ED25519, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use zeroize::Zeroizing;

use super::{CaError, subject};
use crate::hex::hex;

/// The longest request that is read, in bytes of PEM. One with an RSA-8192 key takes some 3,000.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// A request whose holder has proven to hold its key.
pub struct SigningRequest {
    public_key: SubjectPublicKeyInfo,
    fingerprint: String,
}

impl SigningRequest {
    /// Reads the first request of a PEM text and checks its proof.
    ///
    /// # Errors
    /// As [`Self::from_der`], and when the text is longer than [`MAX_REQUEST_BYTES`] or holds no request.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CsrError> {
        if pem.len() > MAX_REQUEST_BYTES {
            return Err(CsrError::TooLong { bytes: pem.len() });
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(CsrError::Pem)?;
        Self::from_der(&der)
    }

    /// Reads a request in DER and checks its proof: that it is signed with the key that it holds.
    ///
    /// Keys are ECDSA P-256 or P-384, Ed25519, or RSA of at least 2048 bits with an exponent of at
    /// least 65537.
    ///
    /// # Errors
    /// When it is no request, its key is none of these, or the signature is not that of its key.
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_REQUEST_BYTES {
            return Err(CsrError::TooLong { bytes: der.len() });
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|error| match error {
                x509_parser::nom::Err::Error(cause) | x509_parser::nom::Err::Failure(cause) => {
                    CsrError::Der(cause)
                }
                x509_parser::nom::Err::Incomplete(_) => CsrError::Der(X509Error::Generic),
            })?;
        if !rest.is_empty() {
            return Err(CsrError::TrailingBytes { bytes: rest.len() });
        }
        let spki = &request.certification_request_info.subject_pki;
        // Cheap checks first: a signature is only looked at where the key is one that we would sign.
        let public_key = check_key(spki)?;
        let is_whole = request.signature_value.unused_bits == 0;
        if !is_whole || !SIGNATURES.contains(&request.signature_algorithm.algorithm) {
            return Err(CsrError::Signature);
        }
        request.verify_signature().or(Err(CsrError::Signature))?;
        Ok(Self {
            fingerprint: hex(&Sha256::digest(spki.raw)),
            public_key,
        })
    }

    /// SHA-256 of the public key (its `SubjectPublicKeyInfo`), in hex.
    pub fn key_fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(super) fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.public_key
    }
}

impl fmt::Debug for SigningRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningRequest")
            .field("key_fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// A fresh key (ECDSA P-256) that waits for its certificate.
pub struct PendingKey(KeyPair);

impl PendingKey {
    /// Makes a key.
    ///
    /// # Errors
    /// [`CaError::Key`] when the system gives no random bytes.
    pub fn generate() -> Result<Self, CaError> {
        KeyPair::generate().map(Self).map_err(CaError::Key)
    }

    /// The request for its certificate, PEM. It names nobody: who we are decides whoever signs.
    ///
    /// # Errors
    /// [`CaError::Sign`] when the key can't sign.
    pub fn request_pem(&self) -> Result<String, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("mesh workload");
        let request = params.serialize_request(&self.0).map_err(CaError::Sign)?;
        request.pem().map_err(CaError::Sign)
    }

    /// The key, PEM (PKCS#8).
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }
}

impl fmt::Debug for PendingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingKey").finish_non_exhaustive()
    }
}

/// Why a request is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CsrError {
    /// It is too long.
    #[error("a request of {bytes} bytes is longer than the limit of {MAX_REQUEST_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The text holds no request.
    #[error("the text holds no certificate request in pem")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// The bytes are not a request.
    #[error("the bytes are no certificate request")]
    Der(#[source] X509Error),
    /// Other bytes follow the request.
    #[error("the certificate request is followed by {bytes} other bytes")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// The key is of no known kind.
    #[error("the key is of no known kind; use ecdsa p-256 or p-384, ed25519, or rsa")]
    KeyType(#[source] rcgen::Error),
    /// The key is of no kind that is signed.
    #[error("the key is of no kind that is signed; use ecdsa p-256 or p-384, ed25519, or rsa")]
    KeyKind,
    /// The elliptic point is compressed or has stray bits.
    #[error("the key's point is not written in full")]
    Point,
    /// The RSA key is too short, too long, or has a small exponent.
    #[error(
        "an rsa key of {bits} bits with exponent {exponent} is outside of 2048 to 8192 bits and 65537 or more"
    )]
    WeakRsa {
        /// Bits of its modulus.
        bits: usize,
        /// Its exponent; 0 where that is longer than 64 bits.
        exponent: u64,
    },
    /// The signature is not that of the request's own key, or of no kind that is taken.
    #[error("the request is not signed with the key that it holds")]
    Signature,
}

fn check_key(
    spki: &x509_parser::x509::SubjectPublicKeyInfo<'_>,
) -> Result<SubjectPublicKeyInfo, CsrError> {
    let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(CsrError::KeyType)?;
    if !KEYS.contains(&key.algorithm()) {
        return Err(CsrError::KeyKind);
    }
    if spki.subject_public_key.unused_bits != 0 {
        return Err(CsrError::Point);
    }
    match spki.parsed().map_err(CsrError::Der)? {
        PublicKey::RSA(key) => {
            let (bits, exponent) = (key.key_size(), key.try_exponent().unwrap_or(0));
            let is_odd = exponent % 2 == 1;
            if !(2048..=8192).contains(&bits) || exponent < 65_537 || !is_odd {
                return Err(CsrError::WeakRsa { bits, exponent });
            }
        }
        // 4 says that both coordinates stand there (SEC 1 section 2.3.3).
        PublicKey::EC(point) if point.data().first() != Some(&4) => return Err(CsrError::Point),
        _ => {}
    }
    Ok(key)
}

/// No SHA-1 among them, which the parser would accept.
const SIGNATURES: [Oid<'static>; 7] = [
    OID_PKCS1_RSASSAPSS,
    OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ED25519,
];

/// Of an RSA key the hash does not matter: it is a key for certificates, whoever uses it later chooses.
static KEYS: [&rcgen::SignatureAlgorithm; 4] = [
    &PKCS_ECDSA_P256_SHA256,
    &PKCS_ECDSA_P384_SHA384,
    &PKCS_ED25519,
    &PKCS_RSA_SHA256,
];

#[cfg(test)]
mod tests;
