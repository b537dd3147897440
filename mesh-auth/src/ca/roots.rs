//! The roots of a trust domain, and how one takes the place of another while nothing breaks.
//!
//! | step | signs | trusted | may follow when |
//! |---|---|---|---|
//! | – | A | A | |
//! | [`RootSet::prepare`] | A | A, B | |
//! | [`RootSet::activate`] | B | B, A | every node has heard of B |
//! | [`RootSet::finish`] | B | B | the last certificate that A signed has ended |
//!
//! After each step the set is one text of certificates, the signer's first, and one of keys. Whoever
//! stores them writes keys before certificates where one comes, and after them where one goes: then a
//! crash in between leaves a key too many and never one too few.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Authority, CaError};
use crate::spiffe::TrustDomain;
use crate::svid::{self, CertificateFacts};

/// Most roots that one set holds.
pub const MAX_ROOTS: usize = 16;

/// An authority that signs, and others whose certificates are trusted beside its.
#[derive(Debug)]
pub struct RootSet {
    signer: Authority,
    others: Vec<Root>,
}

/// A root that is trusted and does not sign.
#[derive(Debug)]
#[non_exhaustive]
pub struct Root {
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// What its certificate says.
    pub facts: CertificateFacts,
    /// The authority, where its key is here.
    pub authority: Option<Authority>,
}

impl RootSet {
    /// One authority, which alone is trusted.
    pub fn new(signer: Authority) -> Self {
        Self {
            signer,
            others: Vec::new(),
        }
    }

    /// Reads a set: certificates, the signer's first, and keys in any order, both PEM. Of certificates
    /// behind the first the key may be absent.
    ///
    /// # Errors
    /// When a certificate may not sign or is of another trust domain, the first one's key is absent,
    /// one stands twice, or there are more than [`MAX_ROOTS`].
    pub fn from_pem(certificates: &str, keys: &str) -> Result<Self, RootsError> {
        let mut texts = certificate_texts(certificates);
        let first = texts.next().ok_or(RootsError::Empty)?;
        let signer = Authority::from_pem(&first, keys).map_err(RootsError::Signer)?;
        let mut set = Self::new(signer);
        for text in texts {
            let root = Root::new(text, set.trust_domain(), keys)?;
            set.check_new(&root.facts)?;
            set.others.push(root);
        }
        Ok(set)
    }

    /// Trusts `next` too; the signer stays the same.
    ///
    /// # Errors
    /// When `next` is of another trust domain, is trusted already, or there are too many roots.
    pub fn prepare(&mut self, next: Authority) -> Result<(), RootsError> {
        if next.trust_domain() != self.trust_domain() {
            return Err(RootsError::OtherDomain);
        }
        self.check_new(next.facts())?;
        self.others.push(Root {
            certificate_pem: next.certificate_pem().to_owned(),
            facts: next.facts().clone(),
            authority: Some(next),
        });
        Ok(())
    }

    /// Makes the root with this fingerprint the signer; the one that was stays trusted.
    ///
    /// # Errors
    /// [`RootsError::Unknown`] or [`RootsError::NoKey`].
    pub fn activate(&mut self, fingerprint: &str) -> Result<(), RootsError> {
        let found = self
            .others
            .iter_mut()
            .find(|root| root.facts.fingerprint == fingerprint)
            .ok_or(RootsError::Unknown)?;
        let next = found.authority.take().ok_or(RootsError::NoKey)?;
        let old = std::mem::replace(&mut self.signer, next);
        *found = Root {
            certificate_pem: old.certificate_pem().to_owned(),
            facts: old.facts().clone(),
            authority: Some(old),
        };
        Ok(())
    }

    /// Trusts the root with this fingerprint no more.
    ///
    /// # Errors
    /// [`RootsError::Unknown`], which it also is for the signer; and [`RootsError::StillInUse`] while a
    /// certificate that it signed may be valid, `last_leaf_end` being the last moment of any.
    pub fn finish(
        &mut self,
        fingerprint: &str,
        last_leaf_end: SystemTime,
        now: SystemTime,
    ) -> Result<(), RootsError> {
        let at = self
            .others
            .iter()
            .position(|root| root.facts.fingerprint == fingerprint)
            .ok_or(RootsError::Unknown)?;
        if last_leaf_end >= now {
            return Err(RootsError::StillInUse);
        }
        drop(self.others.remove(at));
        Ok(())
    }

    /// The authority that signs.
    pub fn signer(&self) -> &Authority {
        &self.signer
    }

    /// The roots that are trusted beside the signer's.
    pub fn others(&self) -> &[Root] {
        &self.others
    }

    /// The trust domain that all of them are of.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.signer.trust_domain()
    }

    /// Every certificate that is trusted, the signer's first, PEM.
    pub fn certificates_pem(&self) -> String {
        let others = self.others.iter().map(|root| root.certificate_pem.as_str());
        std::iter::once(self.signer.certificate_pem())
            .chain(others)
            .collect()
    }

    /// Every key, PEM (PKCS#8). Keep it where only the authority reads it.
    pub fn keys_pem(&self) -> Zeroizing<String> {
        let others = self
            .others
            .iter()
            .filter_map(|root| root.authority.as_ref());
        let mut all = Zeroizing::new(String::with_capacity(MAX_ROOTS * KEY_ROOM));
        for authority in std::iter::once(&self.signer).chain(others) {
            all.push_str(&authority.key_pem());
        }
        all
    }

    fn check_new(&self, facts: &CertificateFacts) -> Result<(), RootsError> {
        let others = self.others.iter().map(|root| &root.facts);
        let mut all = std::iter::once(self.signer.facts()).chain(others);
        if all.any(|known| known.fingerprint == facts.fingerprint) {
            return Err(RootsError::Twice);
        }
        if self.others.len() + 1 >= MAX_ROOTS {
            return Err(RootsError::TooMany);
        }
        Ok(())
    }
}

impl Root {
    fn new(
        certificate_pem: String,
        trust_domain: &TrustDomain,
        keys: &str,
    ) -> Result<Self, RootsError> {
        let unusable = |error| RootsError::Signer(CaError::Certificate(error));
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| RootsError::Signer(CaError::Pem(error)))?;
        let domain = svid::signing_identity(&der).map_err(unusable)?;
        // A root above an intermediate need not be made for SPIFFE.
        if domain.is_some_and(|domain| domain != *trust_domain) {
            return Err(RootsError::OtherDomain);
        }
        Ok(Self {
            facts: svid::inspect(&der).map_err(unusable)?,
            authority: Authority::from_pem(&certificate_pem, keys).ok(),
            certificate_pem,
        })
    }
}

/// Why the roots stay as they are.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RootsError {
    /// There is no certificate.
    #[error("the text holds no certificate")]
    Empty,
    /// A certificate or key is not usable.
    #[error("a root is not usable")]
    Signer(#[source] CaError),
    /// A root is of another trust domain.
    #[error("a root is of another trust domain than the signer")]
    OtherDomain,
    /// A root stands there twice.
    #[error("a root stands there twice")]
    Twice,
    /// There are too many.
    #[error("there are more than {MAX_ROOTS} roots")]
    TooMany,
    /// No root beside the signer has this fingerprint.
    #[error("no root beside the signer has this fingerprint")]
    Unknown,
    /// The key of the root is not here.
    #[error("the key of this root is not here, so it can't sign")]
    NoKey,
    /// Certificates that the root signed may still be valid.
    #[error("certificates that this root signed may still be valid")]
    StillInUse,
}

/// Each certificate of a PEM text by itself, without what stands between them.
fn certificate_texts(pem: &str) -> impl Iterator<Item = String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    pem.split(BEGIN).skip(1).map(|rest| {
        let body = rest.split_once(END).map_or(rest, |(body, _)| body);
        format!("{BEGIN}{body}{END}\n")
    })
}

/// An EC key in PEM takes 241 bytes, so that the text never moves and leaves copies behind.
const KEY_ROOM: usize = 512;

#[cfg(test)]
mod tests;
