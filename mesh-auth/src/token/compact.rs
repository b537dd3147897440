//! The three parts of a token that somebody sends, before anything of them is believed.
//!
//! # Sources
//! - RFC 7515 sections 3.1, 4.1 and 7.1; RFC 7519 section 4.1; RFC 8725 sections 3.1, 3.10 and 3.11.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::json::{self, Object};
use super::{LEEWAY_SECONDS, MAX_TOKEN_BYTES, UserTokenError};
use crate::caller::ClaimValue;

/// A token taken apart. Nothing in it is verified.
pub(super) struct Compact<'a> {
    /// What the signature covers.
    pub(super) signed: &'a str,
    pub(super) signature: Vec<u8>,
    pub(super) alg: Arc<str>,
    pub(super) kid: Option<Arc<str>>,
    pub(super) claims: Object,
}

impl<'a> Compact<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, UserTokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(UserTokenError::TooLarge { bytes: token.len() });
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(UserTokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(UserTokenError::Malformed)?;
        // A dot is no base64url, so a fourth part is refused here.
        let part = |text: &str| {
            URL_SAFE_NO_PAD
                .decode(text)
                .map_err(|_error| UserTokenError::Malformed)
        };
        let header = json::object(&part(header)?).map_err(UserTokenError::Header)?;
        if let Some(name) = REFUSED.into_iter().find(|name| header.contains_key(*name)) {
            return Err(UserTokenError::HeaderParameter { name });
        }
        let text = |name: &'static str| match header.get(name) {
            None => Ok(None),
            Some(ClaimValue::Text(text)) => Ok(Some(Arc::clone(text))),
            Some(_) => Err(UserTokenError::HeaderParameter { name }),
        };
        let typ = text("typ")?;
        let is_access = |typ: &str| TYPES.iter().any(|known| typ.eq_ignore_ascii_case(known));
        if !typ.as_deref().is_none_or(is_access) {
            return Err(UserTokenError::HeaderParameter { name: "typ" });
        }
        Ok(Self {
            signed,
            signature: part(signature)?,
            alg: text("alg")?.ok_or(UserTokenError::HeaderParameter { name: "alg" })?,
            kid: text("kid")?,
            claims: json::object(&part(payload)?).map_err(UserTokenError::Payload)?,
        })
    }

    /// `iss`, which chooses whose keys may have signed.
    pub(super) fn issuer(&self) -> Result<&Arc<str>, UserTokenError> {
        text(&self.claims, "iss")?.ok_or(UserTokenError::Claim { name: "iss" })
    }
}

/// The claims that every token must have, each of its one type.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) subject: Arc<str>,
    pub(super) id: Option<Arc<str>>,
    /// The first second in which the token counts, leeway counted.
    pub(super) from: u64,
    /// The first second in which it counts no more, leeway counted.
    pub(super) until: u64,
}

impl Registered {
    /// Checks the registered claims of a token for one of `audiences` at `now`.
    pub(super) fn check(
        claims: &Object,
        audiences: &[&str],
        now: u64,
    ) -> Result<Self, UserTokenError> {
        let missing = |name| UserTokenError::Claim { name };
        let subject = text(claims, "sub")?.filter(|subject| !subject.is_empty());
        let subject = Arc::clone(subject.ok_or(missing("sub"))?);
        check_audience(claims, audiences)?;
        let expires = seconds(claims, "exp")?.ok_or(missing("exp"))?;
        let until = expires.saturating_add(LEEWAY_SECONDS);
        if now >= until {
            return Err(UserTokenError::Expired {
                seconds: now.saturating_sub(expires),
            });
        }
        let not_before = seconds(claims, "nbf")?.unwrap_or(0);
        let issued_at = seconds(claims, "iat")?.unwrap_or(0);
        let from = not_before.max(issued_at).saturating_sub(LEEWAY_SECONDS);
        if now < from {
            return Err(UserTokenError::NotYetValid {
                seconds: not_before.max(issued_at).saturating_sub(now),
            });
        }
        let id = text(claims, "jti")?.cloned();
        Ok(Self {
            subject,
            id,
            from,
            until,
        })
    }
}

/// `aud` is one text or a list of texts (RFC 7519 section 4.1.3).
fn check_audience(claims: &Object, audiences: &[&str]) -> Result<(), UserTokenError> {
    let wrong = UserTokenError::Claim { name: "aud" };
    let is_ours = |audience: &Arc<str>| audiences.contains(&&**audience);
    let found = match claims.get("aud") {
        Some(ClaimValue::Text(audience)) => is_ours(audience),
        Some(ClaimValue::List(all)) => {
            let mut found = false;
            for audience in all {
                let ClaimValue::Text(audience) = audience else {
                    return Err(wrong);
                };
                found |= is_ours(audience);
            }
            found
        }
        _ => return Err(wrong),
    };
    if found {
        Ok(())
    } else {
        Err(UserTokenError::Audience)
    }
}

/// A claim that is text where it is there.
fn text<'a>(
    claims: &'a Object,
    name: &'static str,
) -> Result<Option<&'a Arc<str>>, UserTokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(ClaimValue::Text(text)) => Ok(Some(text)),
        Some(_) => Err(UserTokenError::Claim { name }),
    }
}

/// A claim that is a time in whole seconds since the Unix epoch where it is there.
fn seconds(claims: &Object, name: &'static str) -> Result<Option<u64>, UserTokenError> {
    let wrong = UserTokenError::Claim { name };
    match claims.get(name) {
        None => Ok(None),
        Some(ClaimValue::Int(seconds)) => {
            u64::try_from(*seconds).map(Some).map_err(|_negative| wrong)
        }
        Some(_) => Err(wrong),
    }
}

/// Parameters that bring or name a key, or change what is signed. Others choose nothing and are passed over
/// (RFC 7515 section 4).
const REFUSED: [&str; 8] = ["jwk", "jku", "x5u", "x5c", "crit", "b64", "enc", "zip"];

/// A token of another kind, such as a logout token, must not pass for one of access (RFC 8725 section 3.11, RFC 9068
/// section 2.1).
const TYPES: [&str; 3] = ["JWT", "at+jwt", "application/at+jwt"];
