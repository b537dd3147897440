//! The answers of the Workload API, made once for each identity.
//!
//! The messages have few fields, all of one wire type, so they are written here by hand (Protocol Buffers encoding, wire
//! type 2).

use std::fmt;

use bytes::Bytes;
use mesh_auth::spiffe::SpiffeId;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::identity::Material;

/// What programs on this machine are told, as gRPC messages. Wiped from memory when dropped.
pub(crate) struct Page {
    svids: Bytes,
    bundles: Bytes,
}

impl Page {
    /// The answers for the identity `id`, which is `material`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when the key is of a form that has no PKCS#8 here.
    pub(crate) fn new(id: &SpiffeId, material: &Material) -> Result<Self, Error> {
        let own = id.trust_domain();
        let bundle = material.bundles.get(own).map(|roots| joined(roots));
        let mut svid = Zeroizing::new(Vec::new());
        field(&mut svid, 1, id.as_str().as_bytes());
        field(&mut svid, 2, &joined(&material.chain));
        field(&mut svid, 3, &pkcs8(&material.key)?);
        field(&mut svid, 4, &bundle.unwrap_or_default());
        let mut svids = Zeroizing::new(Vec::new());
        field(&mut svids, 1, &svid);
        let mut bundles = Vec::new();
        for (domain, roots) in &material.bundles {
            let mut entry = Vec::new();
            field(&mut entry, 1, domain.id().as_str().as_bytes());
            field(&mut entry, 2, &joined(roots));
            if domain != own {
                field(&mut svids, 3, &entry);
            }
            field(&mut bundles, 2, &entry);
        }
        Ok(Self {
            svids: message(&svids)?,
            bundles: message(&bundles)?,
        })
    }

    /// An `X509SVIDResponse`.
    pub(crate) fn svids(&self) -> Bytes {
        self.svids.clone()
    }

    /// An `X509BundlesResponse`.
    pub(crate) fn bundles(&self) -> Bytes {
        self.bundles.clone()
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

/// Several certificates are one after the other, as the Workload API wants them.
fn joined(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    certificates
        .iter()
        .flat_map(|der| der.iter().copied())
        .collect()
}

/// A gRPC message: not compressed, its length, itself.
fn message(content: &[u8]) -> Result<Bytes, Error> {
    let length = u32::try_from(content.len())
        .map_err(|source| Error::config("the trust bundles are too large to serve", source))?;
    let mut message = Zeroizing::new(Vec::with_capacity(content.len() + 5));
    message.push(0);
    message.extend(length.to_be_bytes());
    message.extend(content);
    Ok(Bytes::from_owner(message))
}

fn field(message: &mut Vec<u8>, number: u8, content: &[u8]) {
    // Room at once, so that no copy of a key stays behind in memory that was outgrown.
    message.reserve_exact(content.len() + 11);
    message.push(number << 3 | 2);
    varint(message, content.len());
    message.extend(content);
}

fn varint(message: &mut Vec<u8>, mut number: usize) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            message.push(low);
            return;
        }
        message.push(low | 0x80);
    }
}

/// The key as PKCS#8 (RFC 5958), which the Workload API wants.
fn pkcs8(key: &PrivateKeyDer<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (algorithm, key): (&[u8], &[u8]) = match key {
        PrivateKeyDer::Pkcs8(key) => {
            return Ok(Zeroizing::new(key.secret_pkcs8_der().to_vec()));
        }
        PrivateKeyDer::Pkcs1(key) => (RSA, key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => {
            let der = key.secret_sec1_der();
            (curve(der).ok_or_else(unknown)?, der)
        }
        _ => return Err(unknown()),
    };
    let mut inner = Zeroizing::new(VERSION.to_vec());
    inner.reserve_exact(algorithm.len() + key.len() + 8);
    inner.extend(algorithm);
    element(&mut inner, 0x04, key);
    let mut outer = Zeroizing::new(Vec::new());
    element(&mut outer, 0x30, &inner);
    Ok(outer)
}

fn unknown() -> Error {
    Error::missing("the key is of a kind that the Workload API can't carry; use PKCS#8".to_owned())
}

/// The algorithm of a SEC1 key (RFC 5915) by the length of its secret: the curve's name in it is optional.
fn curve(sec1: &[u8]) -> Option<&'static [u8]> {
    let at = sec1
        .windows(4)
        .take(8)
        .position(|part| part.starts_with(&[0x02, 0x01, 0x01, 0x04]))?;
    match sec1.get(at + 4)? {
        32 => Some(P256),
        48 => Some(P384),
        _ => None,
    }
}

/// A DER element with a length in its shortest form.
fn element(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    let bytes = content.len().to_be_bytes();
    let significant = bytes
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(bytes.len() - 1);
    let length = bytes.get(significant..).unwrap_or_default();
    out.reserve_exact(content.len() + length.len() + 2);
    out.push(tag);
    if content.len() >= 0x80 {
        // As many as a number here has: eight at most.
        out.extend(length.iter().zip(0x81_u8..).last().map(|(_, form)| form));
    }
    out.extend(length);
    out.extend(content);
}

/// `INTEGER 0`.
const VERSION: &[u8] = &[0x02, 0x01, 0x00];
/// `rsaEncryption`, `NULL`.
const RSA: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
/// `id-ecPublicKey`, `prime256v1`.
const P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
/// `id-ecPublicKey`, `secp384r1`.
const P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];

#[cfg(test)]
mod tests;
