//! The rules of the X509-SVID specification that a chain verifier does not know.
//!
//! webpki checks the chain: signatures, validity, path length, critical extensions, extended key
//! usage. It knows nothing of URI names, and a certificate that chains to the right root can still
//! name two identities or sign others. Both checks are needed; these come after the chain's.
//!
//! # Sources
//! - X509-SVID 1.0: sections 2 (SPIFFE ID), 3 (hierarchy), 4 (constraints and usage), 5.2 (leaf validation).
//! - RFC 5280 sections 4.2.1.3 (key usage), 4.2.1.6 (alternative names), 4.2.1.9, 4.2.1.10, 4.2.1.12.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, NameConstraints};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

use crate::hex::hex;
use crate::spiffe::{SpiffeId, SpiffeIdError, TrustDomain};

/// The identity of a workload's certificate, given in DER.
///
/// The certificate has exactly one URI name, which is a SPIFFE id with a path; it is no CA; its key
/// may sign (`digitalSignature`) but neither certificates nor revocation lists; and where it has an
/// extended key usage, that allows both ends of TLS. Other kinds of names do not matter.
///
/// # Errors
/// The first rule that the certificate breaks.
pub fn leaf_identity(der: &[u8]) -> Result<SpiffeId, SvidError> {
    identity_of_leaf(&parse(der)?)
}

/// The trust domain of a signing certificate, given in DER, where it names one.
///
/// The certificate is a CA, its key may sign certificates (`keyCertSign`), it has at most one URI
/// name, which is a SPIFFE id without a path, and it does not constrain URI names, which verifiers
/// disagree about. A root that was not made for SPIFFE has no URI name: it gives `None`, and may have
/// no key usage, as the roots that `openssl req -x509` makes.
///
/// # Errors
/// The first rule that the certificate breaks.
pub fn signing_identity(der: &[u8]) -> Result<Option<TrustDomain>, SvidError> {
    let certificate = parse(der)?;
    if !is_ca(&certificate)? {
        return Err(SvidError::NotACa);
    }
    let uris = Names::of(&certificate)?.uris;
    match certificate.key_usage().map_err(SvidError::Extension)? {
        Some(usage) if !usage.value.key_cert_sign() => {
            return Err(SvidError::CannotSignCertificates);
        }
        None if !uris.is_empty() => return Err(SvidError::NoKeyUsage),
        _ => {}
    }
    if let Some(constraints) = certificate
        .name_constraints()
        .map_err(SvidError::Extension)?
        && constrains_uris(constraints.value)
    {
        return Err(SvidError::UriConstraint);
    }
    match uris.as_slice() {
        [] => Ok(None),
        [uri] => {
            let id = SpiffeId::parse(uri).map_err(SvidError::SpiffeId)?;
            if id.path().is_empty() {
                Ok(Some(id.trust_domain().clone()))
            } else {
                Err(SvidError::SignerWithPath)
            }
        }
        several => Err(SvidError::UriCount {
            count: several.len(),
        }),
    }
}

/// The first and the last moment at which a certificate, given in DER, is valid.
///
/// # Errors
/// When the bytes are no certificate.
pub fn validity(der: &[u8]) -> Result<(SystemTime, SystemTime), SvidError> {
    let certificate = parse(der)?;
    let validity = certificate.validity();
    Ok((
        system_time(validity.not_before),
        system_time(validity.not_after),
    ))
}

/// What a certificate says, for people to look at.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CertificateFacts {
    /// The SPIFFE id, where there is exactly one URI name and it is one.
    pub spiffe_id: Option<SpiffeId>,
    /// Every URI name as it stands.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// Serial number in hex, bytes separated by colons.
    pub serial: String,
    /// Subject, in RFC 4514's way.
    pub subject: String,
    /// Issuer, in RFC 4514's way.
    pub issuer: String,
    /// First moment of validity.
    pub not_before: SystemTime,
    /// Last moment of validity.
    pub not_after: SystemTime,
    /// Whether it is a CA.
    pub is_ca: bool,
    /// Kind and size of the key, such as `EC 256 bit`.
    pub key: String,
    /// SHA-256 of the certificate, in hex.
    pub fingerprint: String,
    /// The rule that keeps this certificate from being a workload's (or a signer's, for a CA).
    pub violation: Option<SvidError>,
}

/// Reads a certificate, given in DER, without judging it.
///
/// # Errors
/// [`SvidError::Der`] or [`SvidError::Extension`] when it can't be read at all.
pub fn inspect(der: &[u8]) -> Result<CertificateFacts, SvidError> {
    let certificate = parse(der)?;
    let is_ca = is_ca(&certificate)?;
    let names = Names::of(&certificate)?;
    let violation = if is_ca {
        signing_identity(der).err()
    } else {
        identity_of_leaf(&certificate).err()
    };
    let spiffe_id = match names.uris.as_slice() {
        [uri] => SpiffeId::parse(uri).ok(),
        _ => None,
    };
    let fingerprint = hex(&Sha256::digest(der));
    Ok(CertificateFacts {
        spiffe_id,
        uris: names.uris.iter().map(ToString::to_string).collect(),
        dns_names: names.dns,
        ip_addresses: names.ips,
        serial: certificate.raw_serial_as_string(),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        not_before: system_time(certificate.validity().not_before),
        not_after: system_time(certificate.validity().not_after),
        is_ca,
        key: key_of(&certificate),
        fingerprint,
        violation,
    })
}

/// Which rule a certificate breaks.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum SvidError {
    /// The bytes are not one X.509 certificate.
    #[error("the bytes are not a certificate")]
    Der(#[source] X509Error),
    /// The certificate is followed by other bytes.
    #[error("the certificate is followed by {bytes} other bytes")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// The certificate is not of version 3, so it has no extensions.
    #[error("the certificate is not of version 3")]
    Version,
    /// An extension is malformed or stands twice.
    #[error("an extension of the certificate is malformed or stands twice")]
    Extension(#[source] X509Error),
    /// An alternative name is malformed.
    #[error("an alternative name of the certificate is malformed")]
    MalformedName,
    /// There is no URI name, or there are several.
    #[error("the certificate has {count} uri names; an x509-svid has exactly one")]
    UriCount {
        /// How many.
        count: usize,
    },
    /// The URI name is not a SPIFFE id.
    #[error("the uri name of the certificate is not a spiffe id")]
    SpiffeId(#[source] SpiffeIdError),
    /// A workload's id has no path.
    #[error(
        "the spiffe id of the certificate has no path, so it names a trust domain and not a workload"
    )]
    LeafWithoutPath,
    /// A signer's id has a path.
    #[error(
        "the spiffe id of the signing certificate has a path, so it names a workload and not a trust domain"
    )]
    SignerWithPath,
    /// A CA certificate is used as a workload's.
    #[error("the certificate is a ca; a workload's has basic constraints CA:FALSE")]
    LeafIsCa,
    /// A workload's certificate is used as a CA.
    #[error("the certificate is not a ca; a signer has basic constraints CA:TRUE")]
    NotACa,
    /// There is no key usage.
    #[error("the certificate has no key usage")]
    NoKeyUsage,
    /// A workload's key may not sign.
    #[error("the key usage of the certificate lacks digitalSignature")]
    CannotSign,
    /// A workload's key may sign certificates or revocation lists.
    #[error(
        "the key usage of the certificate has keyCertSign or cRLSign, which a workload must not have"
    )]
    LeafSigns,
    /// A signer's key may not sign certificates.
    #[error("the key usage of the signing certificate lacks keyCertSign")]
    CannotSignCertificates,
    /// The extended key usage does not allow both ends of TLS.
    #[error(
        "the extended key usage of the certificate lacks serverAuth or clientAuth; an x509-svid has both or no such extension"
    )]
    ExtendedKeyUsage,
    /// A signer constrains URI names.
    #[error("the signing certificate constrains uri names, which verifiers disagree about")]
    UriConstraint,
}

fn identity_of_leaf(certificate: &X509Certificate<'_>) -> Result<SpiffeId, SvidError> {
    let uris = Names::of(certificate)?.uris;
    let &[uri] = uris.as_slice() else {
        return Err(SvidError::UriCount { count: uris.len() });
    };
    let id = SpiffeId::parse(uri).map_err(SvidError::SpiffeId)?;
    if id.path().is_empty() {
        return Err(SvidError::LeafWithoutPath);
    }
    if is_ca(certificate)? {
        return Err(SvidError::LeafIsCa);
    }
    let usage = certificate
        .key_usage()
        .map_err(SvidError::Extension)?
        .ok_or(SvidError::NoKeyUsage)?
        .value;
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(SvidError::LeafSigns);
    }
    if !usage.digital_signature() {
        return Err(SvidError::CannotSign);
    }
    match certificate
        .extended_key_usage()
        .map_err(SvidError::Extension)?
    {
        Some(extended) if !(extended.value.server_auth && extended.value.client_auth) => {
            Err(SvidError::ExtendedKeyUsage)
        }
        _ => Ok(id),
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, SvidError> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| match error {
        x509_parser::nom::Err::Error(cause) | x509_parser::nom::Err::Failure(cause) => {
            SvidError::Der(cause)
        }
        x509_parser::nom::Err::Incomplete(_) => SvidError::Der(X509Error::InvalidCertificate),
    })?;
    if !rest.is_empty() {
        return Err(SvidError::TrailingBytes { bytes: rest.len() });
    }
    if certificate.version() != X509Version::V3 {
        return Err(SvidError::Version);
    }
    // Refuses an extension that stands twice: two readers might look at different ones.
    drop(certificate.extensions_map().map_err(SvidError::Extension)?);
    Ok(certificate)
}

fn is_ca(certificate: &X509Certificate<'_>) -> Result<bool, SvidError> {
    let constraints = certificate
        .basic_constraints()
        .map_err(SvidError::Extension)?;
    Ok(constraints.is_some_and(|constraints| constraints.value.ca))
}

#[derive(Default)]
struct Names<'a> {
    uris: Vec<&'a str>,
    dns: Vec<String>,
    ips: Vec<IpAddr>,
}

impl<'a> Names<'a> {
    fn of(certificate: &'a X509Certificate<'_>) -> Result<Self, SvidError> {
        let mut names = Self::default();
        let Some(extension) = certificate
            .subject_alternative_name()
            .map_err(SvidError::Extension)?
        else {
            return Ok(names);
        };
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(uri) => names.uris.push(uri),
                GeneralName::DNSName(dns) => names.dns.push((*dns).to_owned()),
                GeneralName::IPAddress(bytes) => names
                    .ips
                    .push(address(bytes).ok_or(SvidError::MalformedName)?),
                GeneralName::Invalid(..) => return Err(SvidError::MalformedName),
                _ => {}
            }
        }
        Ok(names)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn constrains_uris(constraints: &NameConstraints<'_>) -> bool {
    let subtrees = [
        &constraints.permitted_subtrees,
        &constraints.excluded_subtrees,
    ];
    subtrees
        .into_iter()
        .flatten()
        .flatten()
        .any(|subtree| matches!(subtree.base, GeneralName::URI(_)))
}

fn key_of(certificate: &X509Certificate<'_>) -> String {
    match certificate.public_key().parsed() {
        Ok(PublicKey::EC(point)) => format!("EC {} bit", point.key_size()),
        Ok(PublicKey::RSA(key)) => format!("RSA {} bit", key.key_size()),
        _ => format!("algorithm {}", certificate.public_key().algorithm.algorithm),
    }
}

/// Times beyond what the platform can hold, as only a hostile certificate has them, become the epoch.
fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
    let moved = if time.timestamp() < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    moved.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
