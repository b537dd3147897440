//! Tokens: of services, signed with a secret that the mesh shares, and of users, vouched for by an issuer's public keys.
//!
//! A service token says who calls whom, in which session (HS256). It is evidence beside the mTLS identity, never in its place: everyone who holds the secret
//! can write any subject, so a verifier must also call [`Claims::require_subject`] with the id from
//! the peer's certificate.
//!
//! A user's token, consumer's token or API key names a [`User`](crate::caller::User): see [`UserVerifier`], [`KeySet`]
//! and [`Jwks`].
//!
//! Verification is strict. The key carries its algorithm; of the header only `kid` chooses anything,
//! in an exact map; a header with anything but `alg`, `typ` and `kid` is refused. `exp`, `aud`,
//! `iss` and `sub` are required, each claim has one type, and no claim may stand twice.
//!
//! Time is an argument everywhere, in seconds since the Unix epoch.
//!
//! # Sources
//! - RFC 7519 (JWT), RFC 7515 (JWS), RFC 8725 (best current practices; sections 3.1, 3.8 to 3.11).

mod cache;
mod claims;
mod compact;
mod consumer;
pub mod dangerous;
mod external;
#[cfg(test)]
mod forge;
mod json;
mod jwk;
mod jwks;
mod remember;
mod replay;
mod ring;
mod user;

use std::sync::Arc;

use jsonwebtoken::{Algorithm, Header};
use thiserror::Error;

pub use self::cache::{CachedIssuer, CachedVerifier};
pub use self::claims::{Claims, ServiceClaims};
pub use self::consumer::{ApiKey, ApiKeyError, ApiKeyHash, Consumer, RANDOM_BYTES};
pub use self::external::{IssuerConfig, RoleCondition, RoleMapping};
pub use self::jwk::{KeyAlgorithm, KeySet, KeySetError, LeftOut, MAX_SET_BYTES, MAX_SET_KEYS};
pub use self::jwks::{Jwks, JwksConfig, JwksError, Next};
pub use self::ring::{MAX_KEYS, MIN_SECRET_BYTES, Ring, RingError, RingKey};
pub use self::user::{UserConfigError, UserTokenError, UserVerifier};

use self::claims::WireClaims;
use crate::spiffe::{SpiffeId, SpiffeIdError};

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How far clocks may differ, in seconds: a token counts from this long before `nbf` until this
/// long after `exp`.
pub const LEEWAY_SECONDS: u64 = 30;

/// Writes tokens with the newest key of a ring.
#[derive(Clone, Debug)]
pub struct Issuer {
    ring: Arc<Ring>,
    name: Arc<str>,
}

impl Issuer {
    /// An issuer that writes `name` into `iss`.
    pub fn new(ring: Arc<Ring>, name: &str) -> Self {
        install_provider();
        Self {
            ring,
            name: name.into(),
        }
    }

    /// Writes a token that counts from `now` for the lifetime that `claims` name, or until its key
    /// is retired, whichever is sooner.
    ///
    /// # Errors
    /// [`TokenError::NoSigningKey`] when no key of the ring is in force at `now`, and
    /// [`TokenError::TooLarge`] when the claims make a token that no verifier would look at.
    pub fn issue(&self, claims: &ServiceClaims, now: u64) -> Result<String, TokenError> {
        self.issue_until(claims, now).map(|(token, _expires)| token)
    }

    fn issue_until(&self, claims: &ServiceClaims, now: u64) -> Result<(String, u64), TokenError> {
        let key = self.ring.signing_key(now).ok_or(TokenError::NoSigningKey)?;
        let expires = now
            .saturating_add(claims.lifetime.as_secs())
            .min(key.not_after());
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(key.kid().to_owned());
        let wire = WireClaims::of(claims, &self.name, now, expires);
        let token =
            jsonwebtoken::encode(&header, &wire, key.encoding()).map_err(TokenError::Sign)?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLarge { bytes: token.len() });
        }
        Ok((token, expires))
    }
}

/// What the verifier of a token expects.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a verifier that expects more is another verifier"
)]
pub struct Expect<'a> {
    /// Our own name: `aud` must be exactly this.
    pub audience: &'a str,
    /// The issuer: `iss` must be exactly this.
    pub issuer: &'a str,
    /// The time, in seconds since the Unix epoch.
    pub now: u64,
}

/// Checks tokens against the keys of a ring.
#[derive(Clone, Debug)]
pub struct Verifier {
    ring: Arc<Ring>,
}

impl Verifier {
    /// A verifier for tokens signed with a key of `ring`.
    pub fn new(ring: Arc<Ring>) -> Self {
        install_provider();
        Self { ring }
    }

    /// Checks a token and gives its claims. The caller must still bind them to the peer with
    /// [`Claims::require_subject`] where there is one.
    ///
    /// # Errors
    /// The first rule that the token breaks. A caller learns from it no more than "refused": all of
    /// these are 401 to the outside.
    pub fn verify(&self, token: &str, expect: &Expect<'_>) -> Result<Claims, TokenError> {
        self.verify_until(token, expect)
            .map(|(claims, _until)| claims)
    }

    /// Also gives the second from which on the token must not be accepted any more.
    fn verify_until(&self, token: &str, expect: &Expect<'_>) -> Result<(Claims, u64), TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLarge { bytes: token.len() });
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        if message.bytes().filter(|&b| b == b'.').count() != 1 {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(TokenError::Header)?;
        check_header(&header)?;
        let key = self
            .ring
            .verifying_key(header.kid.as_deref(), expect.now)
            .ok_or(TokenError::UnknownKey)?;
        let is_genuine = jsonwebtoken::crypto::verify(
            signature,
            message.as_bytes(),
            key.decoding(),
            Algorithm::HS256,
        )
        .map_err(TokenError::Signature)?;
        if !is_genuine {
            return Err(TokenError::BadSignature);
        }
        let wire: WireClaims<'static> =
            jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(TokenError::Claims)?;
        let claims = wire.into_claims()?;
        claims.check(expect)?;
        let until = claims
            .expires_at
            .saturating_add(LEEWAY_SECONDS)
            .min(key.not_after());
        Ok((claims, until))
    }
}

/// Why a token was refused or could not be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The token is too long to look at.
    #[error("a token of {bytes} bytes is larger than the limit of {MAX_TOKEN_BYTES}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The token is not three parts separated by dots.
    #[error("the token is not a signed JWT")]
    Malformed,
    /// The header can't be read, or names an unknown algorithm.
    #[error("the header of the token can't be read")]
    Header(#[source] jsonwebtoken::errors::Error),
    /// The header names another algorithm than the key has.
    #[error("the token is not signed with HS256, the only algorithm of its key")]
    Algorithm,
    /// The header has more than `alg`, `typ` and `kid`, such as `crit`, `jwk`, `jku`, `x5u` or `b64`.
    #[error("the header of the token has parameters other than alg, typ and kid")]
    HeaderParameter,
    /// No key in force has this `kid`.
    #[error("no key in force signed this token; check that both nodes have the same secrets")]
    UnknownKey,
    /// The signature can't be read.
    #[error("the signature of the token can't be read")]
    Signature(#[source] jsonwebtoken::errors::Error),
    /// The signature is not that of the key.
    #[error("the signature of the token is wrong")]
    BadSignature,
    /// A claim is missing, repeated or of the wrong type.
    #[error("a claim of the token is missing, repeated or of the wrong type")]
    Claims(#[source] jsonwebtoken::errors::Error),
    /// The subject is not a SPIFFE id.
    #[error("the subject of the token is not a spiffe id")]
    Subject(#[source] SpiffeIdError),
    /// The token has expired.
    #[error("the token expired {seconds} s ago")]
    Expired {
        /// How long ago, leeway not counted.
        seconds: u64,
    },
    /// The token does not count yet.
    #[error("the token is not valid for another {seconds} s")]
    NotYetValid {
        /// In how long it will count, leeway not counted.
        seconds: u64,
    },
    /// The token is for someone else.
    #[error("the token is for audience {audience}")]
    Audience {
        /// Who it is for.
        audience: String,
    },
    /// The token is from another issuer.
    #[error("the token is from issuer {issuer}")]
    Issuer {
        /// Who it is from.
        issuer: String,
    },
    /// The peer that presents the token is not its subject.
    #[error("the token belongs to {subject}, not to the peer {peer}")]
    NotThePeer {
        /// The token's subject.
        subject: SpiffeId,
        /// The peer of the connection.
        peer: SpiffeId,
    },
    /// No key of the ring is in force, so nothing can be signed.
    #[error("no key of the ring is in force; add one whose time has come")]
    NoSigningKey,
    /// The token could not be signed.
    #[error("the token could not be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

fn check_header(header: &Header) -> Result<(), TokenError> {
    if header.alg != Algorithm::HS256 {
        return Err(TokenError::Algorithm);
    }
    let mut plain = Header::new(Algorithm::HS256);
    plain.kid.clone_from(&header.kid);
    plain.typ.clone_from(&header.typ);
    let is_jwt = header
        .typ
        .as_deref()
        .is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
    if is_jwt && *header == plain {
        Ok(())
    } else {
        Err(TokenError::HeaderParameter)
    }
}

/// `jsonwebtoken` panics at first use where a build holds none or both of its backends and none was
/// installed; features unify over a whole build, so we always say which. An error means that
/// someone else did already, which serves as well.
fn install_provider() {
    let _installed_before = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

#[cfg(test)]
mod tests;
