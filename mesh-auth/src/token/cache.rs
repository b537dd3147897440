//! Tokens verified once and issued once, then reused.
//!
//! An HMAC and three JSON parses cost some microseconds, a look-up a fraction of one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::remember::{Fingerprint, Remembered};
use super::{Claims, Expect, Issuer, ServiceClaims, TokenError, Verifier};

/// A [`Verifier`] that remembers the tokens it accepted until they expire or their key is retired.
///
/// Tokens are kept as SHA-256 hashes, so the cache holds nothing that could be replayed. Refusals
/// are not remembered. Audience, issuer and times are checked on every call. A hit takes one hash of
/// the token and one uncontended lock of one of 16 shards, and allocates nothing.
#[derive(Debug)]
pub struct CachedVerifier {
    verifier: Verifier,
    accepted: Remembered<Entry>,
}

impl CachedVerifier {
    /// Remembers at most about `capacity` tokens (at least 32); 4,096 is a good start, at about 500
    /// bytes each.
    pub fn new(verifier: Verifier, capacity: usize) -> Self {
        Self {
            verifier,
            accepted: Remembered::new(capacity),
        }
    }

    /// As [`Verifier::verify`], from memory where possible.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify(&self, token: &str, expect: &Expect<'_>) -> Result<Arc<Claims>, TokenError> {
        let digest: Fingerprint = Sha256::digest(token.as_bytes()).into();
        let known = self.accepted.get(&digest);
        if let Some(entry) = known.filter(|entry| expect.now < entry.until) {
            entry.claims.check(expect)?;
            return Ok(entry.claims);
        }
        let (claims, until) = self.verifier.verify_until(token, expect)?;
        let claims = Arc::new(claims);
        let entry = Entry {
            claims: Arc::clone(&claims),
            until,
        };
        self.accepted.insert(digest, entry);
        Ok(claims)
    }

    /// Number of tokens remembered.
    pub fn len(&self) -> usize {
        self.accepted.len()
    }

    /// Whether no token is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Debug)]
struct Entry {
    claims: Arc<Claims>,
    until: u64,
}

/// An [`Issuer`] that writes one token per audience and uses it until three quarters of its life
/// have passed.
#[derive(Debug)]
pub struct CachedIssuer {
    issuer: Issuer,
    template: ServiceClaims,
    tokens: Mutex<HashMap<Box<str>, Issued>>,
}

impl CachedIssuer {
    /// Issues what `template` says, to whichever audience is asked for.
    pub fn new(issuer: Issuer, template: ServiceClaims) -> Self {
        Self {
            issuer,
            template,
            tokens: Mutex::default(),
        }
    }

    /// A token for `audience`, in seconds since the Unix epoch `now`.
    ///
    /// At most 1,024 audiences are remembered; past that, all are forgotten and issued again.
    ///
    /// # Errors
    /// As [`Issuer::issue`].
    pub fn token(&self, audience: &str, now: u64) -> Result<Arc<str>, TokenError> {
        let mut tokens = self.tokens.lock();
        if let Some(issued) = tokens.get(audience).filter(|issued| issued.counts_at(now)) {
            return Ok(Arc::clone(&issued.token));
        }
        let claims = ServiceClaims {
            audience: audience.to_owned(),
            ..self.template.clone()
        };
        let (token, expires) = self.issuer.issue_until(&claims, now)?;
        let token: Arc<str> = token.into();
        let life = expires.saturating_sub(now);
        let renew_at = now.saturating_add(life / 4 * 3);
        if tokens.len() >= MAX_AUDIENCES {
            tokens.clear();
        }
        tokens.insert(
            audience.into(),
            Issued {
                token: Arc::clone(&token),
                since: now,
                renew_at,
            },
        );
        Ok(token)
    }
}

struct Issued {
    token: Arc<str>,
    since: u64,
    renew_at: u64,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("renew_at", &self.renew_at)
            .finish_non_exhaustive()
    }
}

impl Issued {
    /// Also renews when the clock was set back, so that a token from the future is not kept.
    fn counts_at(&self, now: u64) -> bool {
        self.since <= now && now < self.renew_at
    }
}

const MAX_AUDIENCES: usize = 1024;
