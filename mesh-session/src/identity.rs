//! Who this side is, and how it judges who the other side is.

use std::fmt;
use std::sync::Arc;

use mesh_crypto::Engine;
use mesh_crypto::Fingerprint;
use mesh_crypto::Random;
use mesh_crypto::RsaKeyPair;

use crate::Config;
use crate::Error;
use crate::wire;

/// Name, key, and what shows that the key belongs to the name.
#[derive(Clone, Debug)]
pub struct LocalIdentity {
    name: String,
    key: Arc<RsaKeyPair>,
    attestation: Vec<u8>,
}

impl LocalIdentity {
    /// An identity. `name` is what peers call us (a SPIFFE id, say); `attestation` is whatever the peers' verifier
    /// wants to see (a certificate chain and its signature over the key, say), or empty where the key is pinned.
    pub fn new(name: String, key: Arc<RsaKeyPair>, attestation: Vec<u8>) -> Self {
        Self {
            name,
            key,
            attestation,
        }
    }

    /// What peers call us.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Our RSA key.
    pub fn key(&self) -> &RsaKeyPair {
        &self.key
    }

    /// What shows that the key is ours.
    pub fn attestation(&self) -> &[u8] {
        &self.attestation
    }
}

/// All that a handshake needs of this side: identity, policy, engine and randomness.
#[derive(Clone, Debug)]
pub struct Local {
    pub(crate) config: Config,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) identity: LocalIdentity,
}

impl Local {
    /// Puts the parts together and checks the policy and what the identity is made of.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a setting is out of its range or the name is empty, [`Error::KeyTooSmall`] if the own key
    /// is smaller than what is asked of peers, [`Error::TooLong`] if name or attestation do not fit a message.
    pub fn new(
        config: Config,
        engine: Arc<dyn Engine>,
        random: Arc<dyn Random>,
        identity: LocalIdentity,
    ) -> Result<Self, Error> {
        config.check()?;
        if identity.name.is_empty() {
            return Err(Error::Config {
                what: "the own name must not be empty",
            });
        }
        wire::check_len("the name", identity.name.len(), wire::MAX_NAME)?;
        wire::check_len(
            "the attestation",
            identity.attestation.len(),
            wire::MAX_ATTESTATION,
        )?;
        let local = Self {
            config,
            engine,
            random,
            identity,
        };
        local.check_bits(local.identity.key.public().bits().bits())?;
        Ok(local)
    }

    /// Who this side is.
    pub fn identity(&self) -> &LocalIdentity {
        &self.identity
    }

    pub(crate) fn check_bits(&self, bits: usize) -> Result<(), Error> {
        let minimum = self.config.min_rsa_bits.bits();
        if bits < minimum {
            Err(Error::KeyTooSmall { bits, minimum })
        } else {
            Ok(())
        }
    }
}

/// Decides whether a key belongs to a name, and whether a token is good.
///
/// A key that merely arrives is not trusted: the implementation knows which keys are pinned, or which attestation
/// proves one, and which name was expected at the other end of this connection.
pub trait VerifyPeer: Send + Sync {
    /// Accepts or refuses that `claim.fingerprint` is the key of `claim.name`. The peer has proved that it holds the
    /// private key, and nothing else.
    ///
    /// # Errors
    ///
    /// [`PeerRefused`] with the reason.
    fn verify_key(&self, claim: &KeyClaim<'_>) -> Result<(), PeerRefused>;

    /// Accepts or refuses the token of the peer called `name`, whose key was accepted before.
    ///
    /// # Errors
    ///
    /// [`PeerRefused`] with the reason.
    fn verify_token(
        &self,
        name: &str,
        token: &[u8],
        context: &TokenContext<'_>,
    ) -> Result<(), PeerRefused>;
}

/// What a peer says of its key.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct KeyClaim<'a> {
    /// Who it says it is.
    pub name: &'a str,
    /// The key as `SubjectPublicKeyInfo` in DER.
    pub spki: &'a [u8],
    /// SHA-256 of `spki`.
    pub fingerprint: Fingerprint,
    /// What it shows for the key being its own; any bytes, perhaps none.
    pub attestation: &'a [u8],
}

/// In which handshake a token was shown.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TokenContext<'a> {
    /// What the peer is in this handshake.
    pub peer_role: Role,
    /// The peer's key, for tokens that are bound to one.
    pub fingerprint: Fingerprint,
    /// Our own name, which the token should be for.
    pub audience: &'a str,
    /// The caller's clock.
    pub now: crate::UnixTime,
}

/// The two ends of a session.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Role {
    /// It sent the first message, and it begins exchanges.
    Initiator,
    /// It answered, and it accepts exchanges.
    Responder,
}

/// A verifier's no, with the reason, which is for the local log and not for the peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerRefused {
    reason: String,
}

impl PeerRefused {
    /// A refusal for this reason: lower case, no period, no secrets.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

impl fmt::Display for PeerRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for PeerRefused {}
