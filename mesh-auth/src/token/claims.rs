//! What a token says.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Expect, LEEWAY_SECONDS, TokenError};
use crate::spiffe::SpiffeId;

/// What to write into a token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceClaims {
    /// The caller (`sub`).
    pub subject: SpiffeId,
    /// The called service (`aud`).
    pub audience: String,
    /// The session the token belongs to (`sid`).
    pub session: Option<String>,
    /// Groups of the caller (`groups`), for rules that name `group:…`.
    pub groups: Vec<String>,
    /// A name for this token alone (`jti`), where replay matters.
    pub id: Option<String>,
    /// How long the token counts. Default 1 h.
    pub lifetime: Duration,
}

impl ServiceClaims {
    /// Claims of `subject` towards `audience`, with the default lifetime of an hour.
    pub fn new(subject: SpiffeId, audience: &str) -> Self {
        Self {
            subject,
            audience: audience.to_owned(),
            session: None,
            groups: Vec::new(),
            id: None,
            lifetime: LIFETIME,
        }
    }

    /// Sets the session.
    #[must_use]
    pub fn with_session(mut self, session: &str) -> Self {
        self.session = Some(session.to_owned());
        self
    }

    /// Sets the groups.
    #[must_use]
    pub fn with_groups(mut self, groups: Vec<String>) -> Self {
        self.groups = groups;
        self
    }

    /// Sets the token's own name.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// Sets how long the token counts.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }
}

/// What a verified token says.
///
/// Only a verifier makes values of this type.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Claims {
    /// Who wrote the token (`iss`).
    pub issuer: String,
    /// The caller (`sub`).
    pub subject: SpiffeId,
    /// The called service (`aud`).
    pub audience: String,
    /// When it expires (`exp`), in seconds since the Unix epoch.
    pub expires_at: u64,
    /// From when on it counts (`nbf`).
    pub not_before: Option<u64>,
    /// When it was written (`iat`).
    pub issued_at: Option<u64>,
    /// The token's own name (`jti`).
    pub id: Option<String>,
    /// The session it belongs to (`sid`).
    pub session: Option<String>,
    /// Groups of the caller (`groups`).
    pub groups: Vec<Arc<str>>,
}

impl Claims {
    /// Binds the token to the peer of the connection.
    ///
    /// # Errors
    /// [`TokenError::NotThePeer`] when the token belongs to someone else.
    pub fn require_subject(&self, peer: &SpiffeId) -> Result<(), TokenError> {
        if self.subject == *peer {
            return Ok(());
        }
        Err(TokenError::NotThePeer {
            subject: self.subject.clone(),
            peer: peer.clone(),
        })
    }

    /// Whether the caller is in a group.
    pub fn has_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| **own == *group)
    }

    pub(super) fn check(&self, expect: &Expect<'_>) -> Result<(), TokenError> {
        if expect.now >= self.expires_at.saturating_add(LEEWAY_SECONDS) {
            return Err(TokenError::Expired {
                seconds: expect.now.saturating_sub(self.expires_at),
            });
        }
        let earliest = self.not_before.unwrap_or(0);
        if expect.now.saturating_add(LEEWAY_SECONDS) < earliest {
            return Err(TokenError::NotYetValid {
                seconds: earliest.saturating_sub(expect.now),
            });
        }
        if self.audience != expect.audience {
            return Err(TokenError::Audience {
                audience: self.audience.clone(),
            });
        }
        if self.issuer != expect.issuer {
            return Err(TokenError::Issuer {
                issuer: self.issuer.clone(),
            });
        }
        Ok(())
    }
}

/// The claims as they travel. serde refuses a known claim that stands twice; claims that are not
/// named here are not read.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct WireClaims<'a> {
    iss: Cow<'a, str>,
    sub: Cow<'a, str>,
    aud: Cow<'a, str>,
    exp: u64,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    nbf: Option<u64>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    iat: Option<u64>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    jti: Option<Cow<'a, str>>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    sid: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    groups: Vec<Cow<'a, str>>,
}

impl<'a> WireClaims<'a> {
    pub(super) fn of(claims: &'a ServiceClaims, issuer: &'a str, now: u64, expires: u64) -> Self {
        Self {
            iss: issuer.into(),
            sub: claims.subject.as_str().into(),
            aud: claims.audience.as_str().into(),
            exp: expires,
            nbf: Some(now),
            iat: Some(now),
            jti: claims.id.as_deref().map(Cow::from),
            sid: claims.session.as_deref().map(Cow::from),
            groups: claims
                .groups
                .iter()
                .map(|group| Cow::from(group.as_str()))
                .collect(),
        }
    }

    pub(super) fn into_claims(self) -> Result<Claims, TokenError> {
        Ok(Claims {
            subject: SpiffeId::parse(&self.sub).map_err(TokenError::Subject)?,
            issuer: self.iss.into_owned(),
            audience: self.aud.into_owned(),
            expires_at: self.exp,
            not_before: self.nbf,
            issued_at: self.iat,
            id: self.jti.map(Cow::into_owned),
            session: self.sid.map(Cow::into_owned),
            groups: self
                .groups
                .into_iter()
                .map(|group| Arc::from(&*group))
                .collect(),
        })
    }
}

/// A claim may be missing but not `null`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

const LIFETIME: Duration = Duration::from_hours(1);
