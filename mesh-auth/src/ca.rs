//! A small certificate authority for those who have none: one key, one trust domain, short-lived
//! X.509-SVIDs.
//!
//! Keys are ECDSA P-256. The authority's certificate carries `spiffe://<trust domain>` and signs
//! workloads directly (path length 0); workloads' certificates follow X509-SVID section 4 and name
//! both ends of TLS. Time is an argument; key material comes from the system's generator.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::spiffe::{SpiffeId, TrustDomain};
use crate::svid::{self, CertificateFacts, SvidError};

/// How far back a certificate's validity starts, so that a peer whose clock is a little slow accepts
/// it at once.
pub const BACKDATE: Duration = Duration::from_mins(1);

/// Most alternative names that a certificate is issued with.
pub const MAX_NAMES: usize = 100;

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
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&trust_domain.id())?];
        params.distinguished_name = subject("mesh CA");
        let certificate = params.self_signed(&key).map_err(CaError::Sign)?;
        let facts = svid::inspect(certificate.der()).map_err(CaError::Certificate)?;
        Ok(Self {
            trust_domain: trust_domain.clone(),
            certificate_pem: certificate.pem(),
            facts,
            issuer: Issuer::new(params, key),
        })
    }

    /// Takes up an authority from its certificate (the first one in the text) and key, both PEM.
    ///
    /// # Errors
    /// When either can't be read, the certificate may not sign or names no trust domain, or the key
    /// is not the certificate's.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, CaError> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(CaError::Pem)?;
        let trust_domain = svid::signing_identity(&der).map_err(CaError::Certificate)?;
        let trust_domain = trust_domain.ok_or(CaError::NoTrustDomain)?;
        let facts = svid::inspect(&der).map_err(CaError::Certificate)?;
        let key = KeyPair::from_pem(key).map_err(CaError::Key)?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|_unread| CaError::KeyMismatch)?;
        if *parsed.public_key().subject_public_key.data != *key.der_bytes() {
            return Err(CaError::KeyMismatch);
        }
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
    /// When the id is of another trust domain or names no workload, a name is no DNS name or address,
    /// or the authority is not valid at `now`.
    pub fn issue(
        &self,
        id: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
        names: &[&str],
    ) -> Result<Issued, CaError> {
        if *id.trust_domain() != self.trust_domain || id.path().is_empty() {
            return Err(CaError::NotOurs {
                id: id.clone(),
                trust_domain: self.trust_domain.clone(),
            });
        }
        if names.len() > MAX_NAMES {
            return Err(CaError::TooManyNames { names: names.len() });
        }
        if now < self.facts.not_before || now >= self.facts.not_after {
            return Err(CaError::NotValidNow);
        }
        let remaining = self.facts.not_after.duration_since(now).unwrap_or_default();
        let span = Span::of(now, lifetime.min(remaining))?.not_before(self.facts.not_before);
        let key = KeyPair::generate().map_err(CaError::Key)?;
        let mut params = CertificateParams::default();
        span.write(&mut params);
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
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(CaError::Sign)?;
        let mut certificate_pem = certificate.pem();
        if self.facts.issuer != self.facts.subject {
            // We are an intermediate: peers need our certificate to reach the root.
            certificate_pem.push_str(&self.certificate_pem);
        }
        Ok(Issued {
            certificate_pem,
            key_pem: Zeroizing::new(key.serialize_pem()),
            not_after: span.not_after(),
        })
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
}

/// From when to when, in seconds since the Unix epoch.
#[derive(Clone, Copy)]
struct Span {
    from: u64,
    to: u64,
}

impl Span {
    fn of(now: SystemTime, length: Duration) -> Result<Self, CaError> {
        let now = seconds(now).ok_or(CaError::Time)?;
        let to = now
            .checked_add(length.as_secs())
            .filter(|to| *to <= END_OF_TIME)
            .ok_or(CaError::Time)?;
        if to == now {
            return Err(CaError::Time);
        }
        Ok(Self {
            from: now.saturating_sub(BACKDATE.as_secs()),
            to,
        })
    }

    fn not_before(self, earliest: SystemTime) -> Self {
        Self {
            from: self.from.max(seconds(earliest).unwrap_or(0)),
            ..self
        }
    }

    fn not_after(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.to)
    }

    fn write(self, params: &mut CertificateParams) {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(self.from);
        params.not_after = epoch + Duration::from_secs(self.to);
    }
}

fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
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

/// 9999-12-31T23:59:59Z, the last second that X.509 can write (RFC 5280 section 4.1.2.5).
const END_OF_TIME: u64 = 253_402_300_799;

#[cfg(test)]
mod tests;
