//! A small certificate authority for those who have none: one trust domain, short-lived X.509-SVIDs.
//!
//! An [`Authority`] is a key with its certificate. It makes certificates with a fresh key
//! ([`Authority::issue`]), or for a key that stays where it was made ([`Authority::sign`], which takes
//! a [`csr::SigningRequest`]). [`roots::RootSet`] replaces an authority by another while both are
//! trusted, and [`join`] lets a workload in that has no certificate yet.
//!
//! The authority's own keys are ECDSA P-256. Its certificate carries `spiffe://<trust domain>` and
//! signs workloads directly (path length 0); workloads' certificates follow X509-SVID section 4 and
//! name both ends of TLS. Serial numbers are 158 random bits (RFC 5280 section 4.1.2.2: positive, at
//! most 20 octets, never the same twice). Time is an argument; keys, serial numbers and tokens come
//! from the system's generator.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::hex::hex;
use crate::spiffe::{SpiffeId, SpiffeIdError, TrustDomain};
use crate::svid::{self, CertificateFacts, SvidError};

pub mod csr;
pub mod join;
pub mod roots;
mod validity;

use self::csr::SigningRequest;
use self::validity::Span;

/// How far back a certificate's validity starts, so that a peer whose clock is a little slow accepts
/// it at once.
pub const BACKDATE: Duration = Duration::from_mins(1);

/// Most alternative names that a certificate is issued with.
pub const MAX_NAMES: usize = 100;

/// The service that an authority's own server is: `spiffe://<trust domain>/mesh-ca`. No workload gets
/// this name, or it could pose as the authority.
pub const SERVER: &str = "mesh-ca";

/// A signing key with its certificate.
pub struct Authority {
    trust_domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    facts: CertificateFacts,
}

impl Authority {
    /// Makes a new authority whose certificate is valid from [`BACKDATE`] before `now` for `validity`.
    ///
    /// # Errors
    /// When the validity is zero or ends past the year 9999, or the key can't be made.
    pub fn generate(
        trust_domain: &TrustDomain,
        validity: Duration,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let key = KeyPair::generate().map_err(CaError::Key)?;
        let span = Span::of(now, validity)?;
        let mut params = CertificateParams::default();
        span.write(&mut params);
        params.serial_number = Some(serial_number()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&trust_domain.id())?];
        // Two roots of one domain are trusted while one replaces the other: names that differ spare
        // verifiers from trying both.
        params.distinguished_name = subject(&format!("mesh CA {}", short_name(&key)));
        let certificate = params.self_signed(&key).map_err(CaError::Sign)?;
        let facts = svid::inspect(certificate.der()).map_err(CaError::Certificate)?;
        Ok(Self {
            trust_domain: trust_domain.clone(),
            certificate_pem: certificate.pem(),
            facts,
            issuer: Issuer::new(params, key),
        })
    }

    /// Takes up an authority from its certificate (the first one in the text) and its key (the one
    /// among those in the text that is the certificate's), both PEM.
    ///
    /// # Errors
    /// When either can't be read, the certificate may not sign or names no trust domain, or no key
    /// is the certificate's.
    pub fn from_pem(certificate: &str, keys: &str) -> Result<Self, CaError> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(CaError::Pem)?;
        let trust_domain = svid::signing_identity(&der).map_err(CaError::Certificate)?;
        let trust_domain = trust_domain.ok_or(CaError::NoTrustDomain)?;
        let facts = svid::inspect(&der).map_err(CaError::Certificate)?;
        let key = key_pairs(keys)?
            .into_iter()
            .find(|key| is_key_of(&der, key))
            .ok_or(CaError::KeyMismatch)?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(CaError::Issuer)?;
        Ok(Self {
            trust_domain,
            issuer,
            certificate_pem: certificate.to_owned(),
            facts,
        })
    }

    /// Issues a certificate with a fresh key to a workload, valid from [`BACKDATE`] before `now`
    /// for `lifetime`, but never longer than the authority itself.
    ///
    /// `names` are the DNS names and addresses that clients outside the mesh may ask for; inside the
    /// mesh only the SPIFFE id counts.
    ///
    /// # Errors
    /// When the id is of another trust domain, names no workload or is that of the authority's own
    /// server, a name is no DNS name or address, or the authority is not valid at `now`.
    pub fn issue(
        &self,
        id: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
        names: &[&str],
    ) -> Result<Issued, CaError> {
        self.check_workload(id)?;
        self.issue_to(id, lifetime, now, names)
    }

    /// As [`Self::issue`], for the server that the authority answers with: `spiffe://<trust domain>/`[`SERVER`].
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_to_server(
        &self,
        lifetime: Duration,
        now: SystemTime,
        names: &[&str],
    ) -> Result<Issued, CaError> {
        self.issue_to(&self.server_id()?, lifetime, now, names)
    }

    /// Signs a certificate for the key in `request`, which its holder has proven to hold. Of the
    /// request nothing else is used: the id is `id`, and how long it is valid says `lifetime`.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn sign(
        &self,
        request: &SigningRequest,
        id: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Signed, CaError> {
        self.check_workload(id)?;
        let (params, span) = self.leaf(id, lifetime, now, &[])?;
        let certificate = params
            .signed_by(request.public_key(), &self.issuer)
            .map_err(CaError::Sign)?;
        let facts = svid::inspect(certificate.der()).map_err(CaError::Certificate)?;
        Ok(Signed {
            certificate_pem: self.with_chain(certificate.pem()),
            serial: facts.serial,
            not_after: span.not_after(),
        })
    }

    /// The id of the server that this authority answers with.
    ///
    /// # Errors
    /// When the trust domain's name is so long that no id fits behind it.
    pub fn server_id(&self) -> Result<SpiffeId, CaError> {
        SpiffeId::for_service(&self.trust_domain, SERVER).map_err(CaError::Id)
    }

    /// The authority's certificate, PEM: what peers trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The signing key, PEM (PKCS#8). Keep it where only the authority reads it.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// The trust domain whose workloads it names.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// When its certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.facts.not_after
    }

    /// What its certificate says.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    fn check_workload(&self, id: &SpiffeId) -> Result<(), CaError> {
        if *id.trust_domain() != self.trust_domain || id.path().is_empty() {
            return Err(CaError::NotOurs {
                id: id.clone(),
                trust_domain: self.trust_domain.clone(),
            });
        }
        if id.service() == SERVER {
            return Err(CaError::Reserved { id: id.clone() });
        }
        Ok(())
    }

    fn issue_to(
        &self,
        id: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
        names: &[&str],
    ) -> Result<Issued, CaError> {
        let (params, span) = self.leaf(id, lifetime, now, names)?;
        let key = KeyPair::generate().map_err(CaError::Key)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(CaError::Sign)?;
        Ok(Issued {
            certificate_pem: self.with_chain(certificate.pem()),
            key_pem: Zeroizing::new(key.serialize_pem()),
            not_after: span.not_after(),
        })
    }

    /// What a workload's certificate says, all but its key.
    fn leaf(
        &self,
        id: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
        names: &[&str],
    ) -> Result<(CertificateParams, Span), CaError> {
        if names.len() > MAX_NAMES {
            return Err(CaError::TooManyNames { names: names.len() });
        }
        if now < self.facts.not_before || now >= self.facts.not_after {
            return Err(CaError::NotValidNow);
        }
        let remaining = self.facts.not_after.duration_since(now).unwrap_or_default();
        let span = Span::of(now, lifetime.min(remaining))?.not_before(self.facts.not_before);
        let mut params = CertificateParams::default();
        span.write(&mut params);
        params.serial_number = Some(serial_number()?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.subject_alt_names = vec![uri(id)?];
        for name in names {
            params.subject_alt_names.push(alternative_name(name)?);
        }
        params.distinguished_name = subject("mesh workload");
        Ok((params, span))
    }

    /// Where we are an intermediate, peers need our certificate to reach the root.
    fn with_chain(&self, mut leaf_pem: String) -> String {
        if self.facts.issuer != self.facts.subject {
            leaf_pem.push_str(&self.certificate_pem);
        }
        leaf_pem
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .field("fingerprint", &self.facts.fingerprint)
            .finish_non_exhaustive()
    }
}

/// A certificate and its key, as files hold them.
#[derive(Clone)]
#[non_exhaustive]
pub struct Issued {
    /// The workload's certificate and, where the authority is an intermediate, the authority's, PEM.
    pub certificate_pem: String,
    /// The workload's key, PEM (PKCS#8).
    pub key_pem: Zeroizing<String>,
    /// When the certificate ends.
    pub not_after: SystemTime,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("certificate_pem", &self.certificate_pem)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A certificate for a key that somebody else holds.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Signed {
    /// The workload's certificate and, where the authority is an intermediate, the authority's, PEM.
    pub certificate_pem: String,
    /// The serial number in hex, bytes separated by colons.
    pub serial: String,
    /// When the certificate ends.
    pub not_after: SystemTime,
}

/// Why the authority refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaError {
    /// The PEM text holds no certificate.
    #[error("the text holds no pem certificate")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// The authority's certificate breaks a rule.
    #[error("the certificate can't be an authority's")]
    Certificate(#[source] SvidError),
    /// The authority's certificate names no trust domain.
    #[error(
        "the certificate has no uri name spiffe://<trust domain>, so it can't issue identities"
    )]
    NoTrustDomain,
    /// The key can't be made or read.
    #[error("the key can't be made or read")]
    Key(#[source] rcgen::Error),
    /// The text is no PEM.
    #[error("the key is damaged pem")]
    KeyPem(#[source] rustls_pki_types::pem::Error),
    /// There is no key.
    #[error("the text holds no private key in pem")]
    NoKey,
    /// The key is not that of the certificate.
    #[error("the key is not the certificate's")]
    KeyMismatch,
    /// The authority's certificate has something that can't be taken over.
    #[error("the certificate can't be taken up as an issuer")]
    Issuer(#[source] rcgen::Error),
    /// The id is of another trust domain, or names no workload.
    #[error("{id} is not a workload of {trust_domain}")]
    NotOurs {
        /// The refused id.
        id: SpiffeId,
        /// The authority's trust domain.
        trust_domain: TrustDomain,
    },
    /// The id is that of the authority's own server.
    #[error("{id} is the certificate authority's own name, which no workload gets")]
    Reserved {
        /// The refused id.
        id: SpiffeId,
    },
    /// There are too many alternative names.
    #[error("{names} names are more than the limit of {MAX_NAMES}")]
    TooManyNames {
        /// How many.
        names: usize,
    },
    /// An alternative name is neither a DNS name nor an address.
    #[error("{name:?} is neither a dns name nor an address")]
    Name {
        /// The name.
        name: String,
    },
    /// The authority's own certificate is not valid at this time.
    #[error("the authority's certificate is not valid now; make a new one")]
    NotValidNow,
    /// The lifetime is shorter than a second, or a time is before 1970 or past 9999.
    #[error("the lifetime is shorter than a second, or the time is out of range")]
    Time,
    /// The certificate could not be signed.
    #[error("the certificate could not be signed")]
    Sign(#[source] rcgen::Error),
    /// The system's generator gave nothing.
    #[error("the system gave no random bytes")]
    Random(#[source] getrandom::Error),
    /// The trust domain's name leaves no room for an id.
    #[error("the trust domain's name is too long for an id behind it")]
    Id(#[source] SpiffeIdError),
}

fn uri(id: &SpiffeId) -> Result<SanType, CaError> {
    Ok(SanType::URI(ia5(id.as_str())?))
}

fn alternative_name(name: &str) -> Result<SanType, CaError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let host = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        let is_plain = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&label.len())
            && is_plain
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !host.split('.').all(is_label) {
        return Err(CaError::Name {
            name: name.to_owned(),
        });
    }
    Ok(SanType::DnsName(ia5(name)?))
}

fn ia5(text: &str) -> Result<Ia5String, CaError> {
    Ia5String::try_from(text).map_err(|_not_ascii| CaError::Name {
        name: text.to_owned(),
    })
}

/// Subjects name nobody: identity is in the URI name alone.
fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "mesh");
    name.push(DnType::CommonName, common_name);
    name
}

/// 158 random bits: the highest is 0, so that the number is positive in 20 octets, and the second is
/// 1, so that it is never shorter. (rcgen by itself takes a hash of the key, which comes twice where a
/// key is certified twice.)
fn serial_number() -> Result<SerialNumber, CaError> {
    let mut octets = [0; 20];
    getrandom::fill(&mut octets).map_err(CaError::Random)?;
    octets[0] = (octets[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&octets))
}

fn short_name(key: &KeyPair) -> String {
    let digest = Sha256::digest(key.subject_public_key_info());
    hex(digest.get(..4).unwrap_or_default())
}

fn is_key_of(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, parsed)| *parsed.public_key().subject_public_key.data == *key.der_bytes())
}

/// Every private key of a PEM text.
fn key_pairs(pem: &str) -> Result<Vec<KeyPair>, CaError> {
    let keys: Vec<_> = PrivateKeyDer::pem_slice_iter(pem.as_bytes())
        .map(|key| KeyPair::try_from(&key.map_err(CaError::KeyPem)?).map_err(CaError::Key))
        .collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err(CaError::NoKey);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests;
