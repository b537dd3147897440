//! Trust bundles: the roots of one trust domain, as PEM and in the format that SPIFFE servers publish.
//!
//! A published bundle is a JWK set; of its keys only those count whose `use` is `x509-svid`, and of those only the
//! certificate in `x5c`, as it says more than the bare key does.
//!
//! # Sources
//! - SPIFFE Trust Domain and Bundle 1.0: sections 4.1 (JWK set), 4.2 (JWK).
//! - X509-SVID 1.0: sections 6.1 (publishing), 6.2 (consuming).
//! - RFC 7517 section 4.7 (`x5c`: base64, not base64url), RFC 7518 sections 6.2 and 6.3, RFC 8037 section 2 (parameters of keys).

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value, json};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::spiffe::TrustDomain;
use crate::svid::{self, SvidError};

/// Most bytes of a bundle that is read: a thousand large roots.
pub const MAX_BUNDLE_BYTES: usize = 4 << 20;

/// Most roots of one bundle.
pub const MAX_ROOTS: usize = 1_000;

/// The roots of one trust domain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bundle {
    trust_domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    sequence: Option<u64>,
    refresh_hint: Option<Duration>,
}

impl Bundle {
    /// `roots` of `trust_domain`, in DER; one that stands twice is taken once. Without roots nobody of the domain is to be
    /// trusted, which is what a domain says that has taken all of them back.
    ///
    /// # Errors
    /// When there are more than [`MAX_ROOTS`], or one is no authority or names another trust domain.
    pub fn new(
        trust_domain: TrustDomain,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        let mut bundle = Self {
            trust_domain,
            roots: Vec::new(),
            sequence: None,
            refresh_hint: None,
        };
        for (index, root) in roots.into_iter().enumerate() {
            if index == MAX_ROOTS {
                return Err(BundleError::TooManyRoots);
            }
            let named = svid::signing_identity(&root);
            let named = named.map_err(|source| BundleError::Root { index, source })?;
            if let Some(found) = named.filter(|named| *named != bundle.trust_domain) {
                let expected = bundle.trust_domain;
                return Err(BundleError::OtherDomain {
                    index,
                    found,
                    expected,
                });
            }
            if !bundle.roots.contains(&root) {
                bundle.roots.push(root);
            }
        }
        Ok(bundle)
    }

    /// Reads a bundle in either form: JSON where it begins with a brace, else PEM.
    ///
    /// # Errors
    /// Those of [`Self::from_json`] and [`Self::from_pem`].
    pub fn parse(trust_domain: TrustDomain, bytes: &[u8]) -> Result<Self, BundleError> {
        match bytes.trim_ascii_start().first() {
            Some(b'{') => Self::from_json(trust_domain, bytes),
            _ => Self::from_pem(trust_domain, bytes),
        }
    }

    /// Reads the certificates of a PEM text.
    ///
    /// # Errors
    /// When it is too long, damaged or has no certificate, and as [`Self::new`].
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        check_length(pem)?;
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem)
            .take(MAX_ROOTS + 1)
            .collect();
        let roots = roots.map_err(BundleError::Pem)?;
        if roots.is_empty() {
            return Err(BundleError::NoCertificate);
        }
        Self::new(trust_domain, roots)
    }

    /// Reads the format that SPIFFE servers publish. Keys for other uses and of unknown types are passed over, as the
    /// specification asks.
    ///
    /// # Errors
    /// When it is too long or no such document, a certificate in it can't be read, and as [`Self::new`].
    pub fn from_json(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        check_length(json)?;
        let document: Map<String, Value> =
            serde_json::from_slice(json).map_err(BundleError::Json)?;
        let keys = document.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or(BundleError::Field { name: "keys" })?;
        let mut roots = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            if let Some(text) = root_of(key) {
                let der = STANDARD.decode(text);
                let der = der.map_err(|source| BundleError::Base64 { index, source })?;
                roots.push(CertificateDer::from(der));
            }
        }
        let mut bundle = Self::new(trust_domain, roots)?;
        bundle.sequence = whole(&document, "spiffe_sequence")?;
        bundle.refresh_hint = whole(&document, "spiffe_refresh_hint")?.map(Duration::from_secs);
        Ok(bundle)
    }

    /// With the number of this version of the bundle: it is to grow with each change.
    #[must_use]
    pub fn with_sequence(mut self, sequence: u64) -> Self {
        self.sequence = Some(sequence);
        self
    }

    /// With how often to look for a new version, in whole seconds.
    #[must_use]
    pub fn with_refresh_hint(mut self, every: Duration) -> Self {
        self.refresh_hint = Some(Duration::from_secs(every.as_secs()));
        self
    }

    /// Whose roots these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots, in DER. None means that nobody of the trust domain is to be trusted.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The number of this version (`spiffe_sequence`).
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// How often the publisher wants to be asked (`spiffe_refresh_hint`). Where it says nothing, the specification
    /// suggests five minutes.
    pub fn refresh_hint(&self) -> Option<Duration> {
        self.refresh_hint
    }

    /// The roots as PEM, one after the other.
    pub fn to_pem(&self) -> String {
        let mut pem = String::new();
        for root in &self.roots {
            pem.push_str("-----BEGIN CERTIFICATE-----\n");
            let text = STANDARD.encode(root);
            let mut rest = text.as_str();
            while let Some((line, after)) = rest.split_at_checked(64) {
                pem.push_str(line);
                pem.push('\n');
                rest = after;
            }
            if !rest.is_empty() {
                pem.push_str(rest);
                pem.push('\n');
            }
            pem.push_str("-----END CERTIFICATE-----\n");
        }
        pem
    }

    /// The bundle in the format that SPIFFE servers publish.
    ///
    /// # Errors
    /// [`BundleError::Key`] when a root's key is neither RSA nor on P-256, P-384 or P-521 nor Ed25519.
    pub fn to_json(&self) -> Result<String, BundleError> {
        let mut document = Map::new();
        if let Some(sequence) = self.sequence {
            document.insert("spiffe_sequence".to_owned(), sequence.into());
        }
        if let Some(every) = self.refresh_hint {
            document.insert("spiffe_refresh_hint".to_owned(), every.as_secs().into());
        }
        let keys = self.roots.iter().enumerate().map(|(index, root)| {
            let mut key = jwk(root).ok_or(BundleError::Key { index })?;
            key.insert("use".to_owned(), X509_SVID.into());
            key.insert("x5c".to_owned(), json!([STANDARD.encode(root)]));
            Ok(Value::Object(key))
        });
        let keys = keys.collect::<Result<Vec<_>, BundleError>>()?;
        document.insert("keys".to_owned(), keys.into());
        Ok(Value::Object(document).to_string())
    }
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} roots of {}", self.roots.len(), self.trust_domain)
    }
}

/// Why a trust bundle can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// It is longer than [`MAX_BUNDLE_BYTES`].
    #[error("a trust bundle of {bytes} bytes is longer than the limit of {MAX_BUNDLE_BYTES}")]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// It has more roots than [`MAX_ROOTS`].
    #[error("the trust bundle has more roots than the limit of {MAX_ROOTS}")]
    TooManyRoots,
    /// A block of PEM is damaged.
    #[error("a certificate of the trust bundle is damaged pem")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// There is no certificate in it.
    #[error("there is no certificate in the trust bundle")]
    NoCertificate,
    /// It is no JSON object.
    #[error("the trust bundle is not a json object")]
    Json(#[source] serde_json::Error),
    /// A parameter of the JWK set is missing or of the wrong type.
    #[error("the parameter {name} of the trust bundle is missing or of the wrong type")]
    Field {
        /// Which.
        name: &'static str,
    },
    /// A certificate in `x5c` is not base64.
    #[error("the certificate of key {index} in the trust bundle is not base64")]
    Base64 {
        /// Which of `keys`, from 0.
        index: usize,
        /// Why.
        source: base64::DecodeError,
    },
    /// A certificate is no root.
    #[error("certificate {index} of the trust bundle is no root")]
    Root {
        /// Which, from 0.
        index: usize,
        /// The rule that it breaks.
        source: SvidError,
    },
    /// A certificate names another trust domain.
    #[error("certificate {index} of the trust bundle signs for {found}, not for {expected}")]
    OtherDomain {
        /// Which, from 0.
        index: usize,
        /// Whom it names.
        found: TrustDomain,
        /// Whose bundle this is.
        expected: TrustDomain,
    },
    /// The key of a root has no form as a JWK here.
    #[error(
        "the key of root {index} has no form as a jwk here: rsa, p-256, p-384, p-521 and ed25519 do"
    )]
    Key {
        /// Which, from 0.
        index: usize,
    },
}

/// The certificate of a key that is a root of X.509-SVIDs, in base64.
fn root_of(key: &Value) -> Option<&str> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let is_known = text("kty").is_some_and(|kty| ["RSA", "EC", "OKP"].contains(&kty));
    if !is_known || text("use") != Some(X509_SVID) {
        return None;
    }
    key.get("x5c")?.as_array()?.first()?.as_str()
}

/// A parameter that is a whole number where it is there.
fn whole(document: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, BundleError> {
    let Some(value) = document.get(name) else {
        return Ok(None);
    };
    let number = value.as_u64().ok_or(BundleError::Field { name })?;
    Ok(Some(number))
}

fn check_length(bytes: &[u8]) -> Result<(), BundleError> {
    let bytes = bytes.len();
    if bytes > MAX_BUNDLE_BYTES {
        return Err(BundleError::TooLong { bytes });
    }
    Ok(())
}

/// The public key of a certificate as a JWK, which readers look at before they look at `x5c`.
fn jwk(der: &[u8]) -> Option<Map<String, Value>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let key = certificate.public_key();
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = match key.parsed().ok()? {
        PublicKey::RSA(rsa) => {
            let (n, e) = (unsigned(rsa.modulus), unsigned(rsa.exponent));
            json!({ "kty": "RSA", "n": number(n), "e": number(e) })
        }
        PublicKey::EC(point) => {
            let curve = key
                .algorithm
                .parameters
                .as_ref()?
                .as_oid()
                .ok()?
                .to_id_string();
            let (_, crv, size) = CURVES.iter().find(|(oid, ..)| *oid == curve)?;
            let (form, coordinates) = point.data().split_first()?;
            let (x, y) = coordinates.split_at_checked(*size)?;
            if *form != UNCOMPRESSED || y.len() != *size {
                return None;
            }
            json!({ "kty": "EC", "crv": crv, "x": number(x), "y": number(y) })
        }
        _ if key.algorithm.algorithm.to_id_string() == ED25519 => {
            json!({ "kty": "OKP", "crv": "Ed25519", "x": number(&key.subject_public_key.data) })
        }
        _ => return None,
    };
    match jwk {
        Value::Object(jwk) => Some(jwk),
        _ => None,
    }
}

/// Without the zero that keeps a DER integer from being negative.
fn unsigned(integer: &[u8]) -> &[u8] {
    match integer {
        [0, rest @ ..] if !rest.is_empty() => rest,
        whole => whole,
    }
}

const X509_SVID: &str = "x509-svid";
/// Object identifier, name and bytes of a coordinate (RFC 5480 section 2.1.1.1, RFC 7518 section 6.2.1.1).
const CURVES: &[(&str, &str, usize)] = &[
    ("1.2.840.10045.3.1.7", "P-256", 32),
    ("1.3.132.0.34", "P-384", 48),
    ("1.3.132.0.35", "P-521", 66),
];
/// RFC 8410 section 3.
const ED25519: &str = "1.3.101.112";
/// SEC 1 section 2.3.3.
const UNCOMPRESSED: u8 = 4;

#[cfg(test)]
mod tests;
