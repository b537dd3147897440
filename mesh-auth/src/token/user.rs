//! Users: who a request's own credential names, be it a token of a trusted issuer, a consumer's token or an API key.
//!
//! What proves the user is chosen by us: `iss` is looked up among the issuers and consumers that were configured, the
//! key decides the algorithm, and of the header only `kid` chooses, in an exact map. A user is never a workload: a
//! subject that looks like a SPIFFE id stays text.
//!
//! # Sources
//! - RFC 7519, RFC 7515, RFC 8725 (sections 3.1, 3.8 to 3.12).

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::MAX_TOKEN_BYTES;
use super::compact::{Compact, Registered};
use super::consumer::{ApiKeyHash, Consumer, id_of, is_spiffe};
use super::external::{External, IssuerConfig};
use super::json::Object;
use super::jwk::{KeyAlgorithm, KeySet};
use super::remember::{Fingerprint, Remembered};
use super::replay::UsedOnce;
use crate::caller::User;

/// Checks the credentials of users, and remembers the tokens it accepted.
///
/// Tokens are remembered as SHA-256 hashes until they expire; when an issuer's keys change or run out, all that was
/// remembered of it counts no more, so a key that left the set stops its tokens at once. Tokens that count once are not
/// remembered as valid, only as used.
#[derive(Debug)]
pub struct UserVerifier {
    trusted: HashMap<Box<str>, Trusted>,
    api_keys: HashMap<Box<str>, (ApiKeyHash, Arc<User>)>,
    accepted: Remembered<Accepted>,
    used: UsedOnce,
}

/// Whose tokens an `iss` means. One `iss` never has both kinds of key.
#[derive(Debug)]
enum Trusted {
    External(Arc<External>),
    Consumer(Box<Consumer>),
}

#[derive(Clone, Debug)]
struct Accepted {
    user: Arc<User>,
    from: u64,
    until: u64,
    /// Which of whose keys vouched; a consumer's don't change.
    vouched: Option<(Arc<External>, u64)>,
}

impl Accepted {
    fn counts(&self, now: u64) -> bool {
        let is_vouched = match &self.vouched {
            Some((external, generation)) => external.is_current(*generation),
            None => true,
        };
        self.from <= now && now < self.until && is_vouched
    }
}

impl UserVerifier {
    /// Trusts nobody yet; remembers about `capacity` tokens, at about 1 KiB each with an ordinary number of claims.
    pub fn new(capacity: usize) -> Self {
        Self {
            trusted: HashMap::new(),
            api_keys: HashMap::new(),
            accepted: Remembered::new(capacity),
            used: UsedOnce::new(MAX_USED),
        }
    }

    /// Trusts an issuer, once [`UserVerifier::put_keys`] gave its keys.
    ///
    /// # Errors
    /// [`UserConfigError`] when the name is empty or taken.
    pub fn add_issuer(&mut self, config: IssuerConfig) -> Result<(), UserConfigError> {
        let name = config.issuer.clone();
        self.add(&name, Trusted::External(Arc::new(External::new(config))))
    }

    /// Trusts a consumer's tokens.
    ///
    /// # Errors
    /// [`UserConfigError`] when its key is empty or taken.
    pub fn add_consumer(&mut self, consumer: Consumer) -> Result<(), UserConfigError> {
        let key = Arc::clone(&consumer.key);
        self.add(&key, Trusted::Consumer(Box::new(consumer)))
    }

    /// Trusts an API key of the consumer `name`, who is in `groups`.
    ///
    /// # Errors
    /// [`UserConfigError::Taken`] when another key has the same id.
    pub fn add_api_key(
        &mut self,
        hash: ApiKeyHash,
        name: &str,
        groups: &[&str],
    ) -> Result<(), UserConfigError> {
        let user = Arc::new(User::new(name, name).with_groups(groups));
        let id = hash.id().into();
        match self.api_keys.insert(id, (hash, user)) {
            None => Ok(()),
            Some((hash, _user)) => Err(UserConfigError::Taken {
                name: hash.id().to_owned(),
            }),
        }
    }

    fn add(&mut self, name: &str, trusted: Trusted) -> Result<(), UserConfigError> {
        if name.is_empty() {
            return Err(UserConfigError::Nameless);
        }
        if self.trusted.contains_key(name) {
            return Err(UserConfigError::Taken {
                name: name.to_owned(),
            });
        }
        self.trusted.insert(name.into(), trusted);
        Ok(())
    }

    /// Replaces all keys of an issuer; with `None` none of its tokens is accepted. Gives whether the issuer is known.
    pub fn put_keys(&self, issuer: &str, keys: Option<Arc<KeySet>>) -> bool {
        match self.trusted.get(issuer) {
            Some(Trusted::External(external)) => {
                external.put(keys);
                true
            }
            _ => false,
        }
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.trusted.is_empty() && self.api_keys.is_empty()
    }

    /// Number of tokens remembered.
    pub fn remembered(&self) -> usize {
        self.accepted.len()
    }

    /// Checks a token that was sent to `service` at `now`, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// The first rule that the token breaks. A caller learns from it no more than "refused": all of these are 401 to the
    /// outside. [`UserTokenError::UnknownKey`] is also a reason to ask the issuer for its keys.
    pub fn verify(
        &self,
        token: &str,
        service: &str,
        now: u64,
    ) -> Result<Arc<User>, UserTokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(UserTokenError::TooLarge { bytes: token.len() });
        }
        let key = fingerprint(token, service);
        if let Some(known) = self.accepted.get(&key).filter(|known| known.counts(now)) {
            return Ok(known.user);
        }
        let token = Compact::parse(token)?;
        let issuer = Arc::clone(token.issuer()?);
        let accepted = match self.trusted.get(&*issuer) {
            Some(Trusted::External(external)) => {
                let accepted = external_user(external, token, (service, now))?;
                if external.config.single_use {
                    let id = accepted.id.ok_or(UserTokenError::Claim { name: "jti" })?;
                    let times = (now, accepted.accepted.until);
                    self.used.claim(&issuer, &id, times)?;
                    return Ok(accepted.accepted.user);
                }
                accepted.accepted
            }
            Some(Trusted::Consumer(consumer)) => consumer_user(consumer, &token, (service, now))?,
            None => return Err(UserTokenError::UnknownIssuer),
        };
        let user = Arc::clone(&accepted.user);
        self.accepted.insert(key, accepted);
        Ok(user)
    }

    /// Checks an API key.
    ///
    /// # Errors
    /// [`UserTokenError::ApiKey`] when it is not one that was added.
    pub fn verify_api_key(&self, key: &str) -> Result<Arc<User>, UserTokenError> {
        let known = id_of(key).and_then(|id| self.api_keys.get(id));
        match known {
            Some((hash, user)) if hash.is_of(key) => Ok(Arc::clone(user)),
            _ => Err(UserTokenError::ApiKey),
        }
    }
}

/// What was accepted, and the token's own name.
struct Named {
    accepted: Accepted,
    id: Option<Arc<str>>,
}

fn external_user(
    external: &Arc<External>,
    token: Compact<'_>,
    (service, now): (&str, u64),
) -> Result<Named, UserTokenError> {
    let keys = external.keys();
    let set = keys.set.ok_or_else(|| UserTokenError::NoKeys {
        issuer: external.config.issuer.clone(),
    })?;
    let kid = token.kid.as_deref().ok_or(UserTokenError::NoKid)?;
    let key = set.key(kid).ok_or_else(|| UserTokenError::UnknownKey {
        issuer: external.config.issuer.clone(),
    })?;
    if !key.signs_as(&token.alg) {
        return Err(UserTokenError::Algorithm {
            algorithm: key.algorithm(),
        });
    }
    if !key.verifies(token.signed.as_bytes(), &token.signature) {
        return Err(UserTokenError::BadSignature);
    }
    let configured: Vec<&str> = match external.config.audiences.as_slice() {
        [] => vec![service],
        all => all.iter().map(String::as_str).collect(),
    };
    let registered = Registered::check(&token.claims, &configured, now)?;
    let groups = external.groups(&token.claims)?;
    let roles = external.roles(&token.claims);
    let user = user_of(&external.config.issuer, &registered, groups, token.claims);
    let accepted = Accepted {
        user: Arc::new(User { roles, ..user }),
        from: registered.from,
        until: registered.until,
        vouched: Some((Arc::clone(external), keys.generation)),
    };
    Ok(Named {
        accepted,
        id: registered.id,
    })
}

fn consumer_user(
    consumer: &Consumer,
    token: &Compact<'_>,
    (service, now): (&str, u64),
) -> Result<Accepted, UserTokenError> {
    if &*token.alg != "HS256" {
        return Err(UserTokenError::NotHs256);
    }
    if !consumer.verifies(token.signed.as_bytes(), &token.signature) {
        return Err(UserTokenError::BadSignature);
    }
    let registered = Registered::check(&token.claims, &[service], now)?;
    if is_spiffe(&registered.subject) {
        return Err(UserTokenError::SpiffeSubject);
    }
    // What the consumer says of itself is no more than that it is the consumer: it could write anything.
    let mut user = User::new(&consumer.name, &consumer.name);
    user.groups.clone_from(&consumer.groups);
    Ok(Accepted {
        user: Arc::new(user),
        from: registered.from,
        until: registered.until,
        vouched: None,
    })
}

fn user_of(issuer: &str, registered: &Registered, groups: Vec<Arc<str>>, claims: Object) -> User {
    User {
        issuer: issuer.into(),
        subject: Arc::clone(&registered.subject),
        groups,
        roles: Vec::new(),
        claims,
    }
}

fn fingerprint(token: &str, service: &str) -> Fingerprint {
    Sha256::new()
        .chain_update(service.len().to_le_bytes())
        .chain_update(service)
        .chain_update(token)
        .finalize()
        .into()
}

/// Why a credential of a user was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UserTokenError {
    /// The token is too long to look at.
    #[error("a token of {bytes} bytes is larger than the limit of {MAX_TOKEN_BYTES}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The token is not three parts of base64url separated by dots.
    #[error("the token is not a signed JWT")]
    Malformed,
    /// The header is not JSON as it should be.
    #[error("the header of the token is not one JSON object with each name once")]
    Header(#[source] serde_json::Error),
    /// The header brings a key, changes what is signed, or says what a header can't.
    #[error("the header parameter {name} of the token is missing or not accepted")]
    HeaderParameter {
        /// The parameter.
        name: &'static str,
    },
    /// The claims are not JSON as they should be.
    #[error("the claims of the token are not one JSON object with each name once")]
    Payload(#[source] serde_json::Error),
    /// No issuer and no consumer's key has the name that `iss` says.
    #[error(
        "the token is of an issuer that is not trusted here; add it to auth.issuers or auth.consumers"
    )]
    UnknownIssuer,
    /// The issuer's keys could not be read, or not for too long.
    #[error(
        "no keys of {issuer} are known, or they are too old; check auth.issuers and that its key set can be read"
    )]
    NoKeys {
        /// The issuer.
        issuer: String,
    },
    /// The token does not say which key signed it.
    #[error("the token names no key (kid)")]
    NoKid,
    /// The issuer's set has no key of that name.
    #[error("the token names a key that {issuer} does not have")]
    UnknownKey {
        /// The issuer.
        issuer: String,
    },
    /// The token names another algorithm than its key has.
    #[error("the token is not signed with {algorithm}, the only algorithm of its key")]
    Algorithm {
        /// The key's.
        algorithm: KeyAlgorithm,
    },
    /// A consumer's token names another algorithm.
    #[error("the consumer's token is not signed with HS256")]
    NotHs256,
    /// The signature is not that of the key.
    #[error("the signature of the token is wrong")]
    BadSignature,
    /// A claim is missing or of the wrong type.
    #[error("the claim {name} of the token is missing or of the wrong type")]
    Claim {
        /// The claim.
        name: &'static str,
    },
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
    /// The token is for somebody else.
    #[error("the token is not for this service (aud)")]
    Audience,
    /// A consumer wrote a workload's name into its token.
    #[error(
        "the consumer's token names a spiffe id as its subject, which only a certificate proves"
    )]
    SpiffeSubject,
    /// The token counts once, and did.
    #[error("the token was used before and counts once")]
    Replayed,
    /// So many tokens that count once are in use that no more can be told from replays.
    #[error(
        "{tokens} tokens that count once are in use, and no more can be kept apart; shorten their life"
    )]
    TooManyInUse {
        /// How many.
        tokens: usize,
    },
    /// The API key is not one of ours.
    #[error("the api key is unknown or wrong")]
    ApiKey,
}

/// Why an issuer or consumer can't be trusted as configured.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum UserConfigError {
    /// An issuer or a consumer's key has no name.
    #[error("an issuer or consumer key is empty")]
    Nameless,
    /// Two have the same name, so a token of one could pass for one of the other.
    #[error(
        "{name} stands twice among issuers, consumer keys or api key ids; each must be there once"
    )]
    Taken {
        /// The name.
        name: String,
    },
}

/// Tokens that count once and have not expired: 6 MiB.
const MAX_USED: usize = 65_536;

#[cfg(test)]
mod tests;
