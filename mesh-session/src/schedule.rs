//! The key schedule: from transcripts and secrets to the keys of a handshake's boxes and of a session.
//!
//! # Sources
//!
//! RFC 5869 (HKDF, salted with the transcript), RFC 7366 and Bellare and Namprempre 2000 (encrypt-then-MAC).

use std::sync::Arc;

use mesh_crypto::AeadAlgorithm;
use mesh_crypto::Engine;
use mesh_crypto::MacKey;
use mesh_crypto::Prk;
use mesh_crypto::Secret;
use mesh_crypto::aead::AeadKey;
use mesh_crypto::aead::OpeningKey;
use mesh_crypto::aead::SealingKey;
use zeroize::Zeroizing;

use crate::Error;
use crate::Role;
use crate::SessionId;
use crate::Suite;
use crate::wire::Reader;

pub(crate) const OAEP_TO_RESPONDER: &[u8] = b"mesh-session v1 secret to responder";
pub(crate) const OAEP_TO_INITIATOR: &[u8] = b"mesh-session v1 secret to initiator";
pub(crate) const SIGN_OFFER: &[u8] = b"mesh-session v1 offer signature\0";
pub(crate) const SIGN_INIT: &[u8] = b"mesh-session v1 initiator signature\0";
pub(crate) const SIGN_REPLY: &[u8] = b"mesh-session v1 responder signature\0";
const HASH_INIT: &[u8] = b"mesh-session v1 init\0";
const HASH_REPLY: &[u8] = b"mesh-session v1 reply\0";
const HASH_RESUME: &[u8] = b"mesh-session v1 resume\0";
const HASH_RESUMED: &[u8] = b"mesh-session v1 resumed\0";
const HASH_SESSION: &[u8] = b"mesh-session v1 session\0";
const INFO_INIT_BOX: &[u8] = b"mesh-session v1 init box\0";
const INFO_REPLY_BOX: &[u8] = b"mesh-session v1 reply box\0";
const INFO_RESUME_BOX: &[u8] = b"mesh-session v1 resume box\0";
const INFO_RESUMED_BOX: &[u8] = b"mesh-session v1 resumed box\0";
const INFO_ID: &[u8] = b"mesh-session v1 session id\0";
const INFO_RESUMPTION: &[u8] = b"mesh-session v1 resumption\0";
const INFO_CHAIN: &[u8] = b"mesh-session v1 chain\0";
const INFO_KEYS: &[u8] = b"mesh-session v1 keys\0";
const INFO_NEXT: &[u8] = b"mesh-session v1 next\0";

/// Bytes of each side's secret.
pub(crate) const SECRET_LEN: usize = 32;
/// Bytes that a box adds to what is in it.
const BOX_OVERHEAD: usize = AeadKey::TAG_LEN + MacKey::TAG_LEN;

/// The hash of everything said up to a point.
pub(crate) type Transcript = [u8; 32];

/// After the clear part of the first message, which holds the hash of the offer.
pub(crate) fn transcript_init(engine: &dyn Engine, clear: &[u8]) -> Transcript {
    engine.sha256(&[HASH_INIT, clear])
}

/// After the clear part of the reply.
pub(crate) fn transcript_reply(engine: &dyn Engine, init: &[u8], clear: &[u8]) -> Transcript {
    engine.sha256(&[HASH_REPLY, &engine.sha256(&[init]), clear])
}

/// After the clear part of a resumption message.
pub(crate) fn transcript_resume(engine: &dyn Engine, clear: &[u8]) -> Transcript {
    engine.sha256(&[HASH_RESUME, clear])
}

/// After the clear part of the reply to it.
pub(crate) fn transcript_resumed(engine: &dyn Engine, message: &[u8], clear: &[u8]) -> Transcript {
    engine.sha256(&[HASH_RESUMED, &engine.sha256(&[message]), clear])
}

/// After everything.
pub(crate) fn transcript_session(
    engine: &dyn Engine,
    reply: &Transcript,
    sealed: &[u8],
) -> Transcript {
    engine.sha256(&[HASH_SESSION, reply, sealed])
}

/// What a signature is made over: its purpose, the transcript, and what is sealed beside it.
pub(crate) fn to_sign(
    engine: &dyn Engine,
    purpose: &[u8],
    transcript: &Transcript,
    inner: &[u8],
) -> Vec<u8> {
    [purpose, transcript, &engine.sha256(&[inner])].concat()
}

/// HKDF-Extract of secrets of fixed lengths.
pub(crate) fn extract(engine: &dyn Engine, transcript: &Transcript, secrets: &[&Secret]) -> Prk {
    let mut parts: [&[u8]; MAX_SECRETS] = [&[]; MAX_SECRETS];
    for (part, secret) in parts.iter_mut().zip(secrets) {
        *part = secret.expose();
    }
    Prk::extract(engine, transcript, &parts)
}

/// Room for what is to be sealed: fields of these lengths, and what sealing adds. It never grows, which would leave a copy
/// of what is in it, a token perhaps, in memory that nobody wipes.
pub(crate) fn room_for(fields: &[usize]) -> Vec<u8> {
    let fields = fields.iter().map(|len| len.saturating_add(2));
    Vec::with_capacity(fields.fold(BOX_OVERHEAD, usize::saturating_add))
}

/// Which message a box is in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BoxOf {
    Init,
    Reply,
    Resume,
    Resumed,
}

impl BoxOf {
    const fn info(self) -> &'static [u8] {
        match self {
            Self::Init => INFO_INIT_BOX,
            Self::Reply => INFO_REPLY_BOX,
            Self::Resume => INFO_RESUME_BOX,
            Self::Resumed => INFO_RESUMED_BOX,
        }
    }
}

/// Keys for one message: AES-256-GCM, then HMAC-SHA256, both over the transcript too. The MAC of the reply's box is
/// the responder's key confirmation.
pub(crate) struct SealedBox {
    key: AeadKey,
    iv: [u8; AeadKey::IV_LEN],
    mac: MacKey,
    transcript: Transcript,
}

impl SealedBox {
    pub(crate) fn derive(
        engine: &dyn Engine,
        prk: &Prk,
        of: BoxOf,
        transcript: &Transcript,
    ) -> Result<Self, Error> {
        let mut okm = Zeroizing::new([0; 32 + AeadKey::IV_LEN + 32]);
        prk.expand(&[of.info()], okm.as_mut_slice())
            .map_err(Error::Crypto)?;
        let mut okm = Reader::new("key material", okm.as_slice());
        Ok(Self {
            key: engine
                .aead_key(AeadAlgorithm::Aes256Gcm, okm.take(32)?)
                .map_err(Error::Crypto)?,
            iv: okm.array()?,
            mac: engine.mac_key(okm.take(32)?),
            transcript: *transcript,
        })
    }

    /// Seals one message, which is all that such a key is for.
    pub(crate) fn seal(self, mut text: Vec<u8>) -> Result<Vec<u8>, Error> {
        text.reserve_exact(BOX_OVERHEAD);
        let key = Arc::new(SealingKey::counting(self.key, self.iv));
        let tag = key
            .next_stream()
            .and_then(|mut stream| stream.seal(&self.transcript, &mut text))
            .map_err(Error::Crypto)?;
        text.extend_from_slice(&tag);
        let mac = self.mac.sign(&[&self.transcript, &text]);
        text.extend_from_slice(&mac);
        Ok(text)
    }

    pub(crate) fn open(self, sealed: &[u8]) -> Result<Secret, Error> {
        let (body, mac) = sealed
            .split_last_chunk::<{ MacKey::TAG_LEN }>()
            .ok_or(Error::Open)?;
        self.mac
            .verify(&[&self.transcript, body], mac)
            .or(Err(Error::Open))?;
        let (text, tag) = body
            .split_last_chunk::<{ AeadKey::TAG_LEN }>()
            .ok_or(Error::Open)?;
        let mut text = Zeroizing::new(text.to_vec());
        OpeningKey::new(self.key, self.iv)
            .open((0, 0), &self.transcript, &mut text, tag)
            .or(Err(Error::Open))?;
        Ok(Secret::from_slice(&text))
    }
}

/// What a handshake gives: the session's name and the secrets that everything else of it comes from.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) id: SessionId,
    pub(crate) resumption: Secret,
    pub(crate) chain: Chain,
}

impl Agreed {
    pub(crate) fn derive(prk: &Prk, transcript: &Transcript) -> Result<Self, Error> {
        let mut id = [0; 16];
        prk.expand(&[INFO_ID, transcript], &mut id)
            .map_err(Error::Crypto)?;
        Ok(Self {
            id: SessionId::from_bytes(id),
            resumption: expand_secret(prk, &[INFO_RESUMPTION, transcript])?,
            chain: Chain {
                secret: expand_secret(prk, &[INFO_CHAIN, transcript])?,
            },
        })
    }
}

/// The secret that the keys of one epoch, and the secret of the next, come from. It is wiped when it is dropped.
#[derive(Debug)]
pub(crate) struct Chain {
    secret: Secret,
}

impl Chain {
    /// The secret of the next epoch.
    pub(crate) fn next(&self, engine: &dyn Engine) -> Result<Self, Error> {
        let prk = Prk::from_secret(engine, &self.secret);
        Ok(Self {
            secret: expand_secret(&prk, &[INFO_NEXT])?,
        })
    }

    /// The keys of this epoch, for one side.
    pub(crate) fn keys(
        &self,
        engine: &dyn Engine,
        suite: Suite,
        role: Role,
    ) -> Result<EpochKeys, Error> {
        let mut okm = Zeroizing::new([0; 2 * DIRECTION_LEN]);
        Prk::from_secret(engine, &self.secret)
            .expand(&[INFO_KEYS], okm.as_mut_slice())
            .map_err(Error::Crypto)?;
        let mut okm = Reader::new("key material", okm.as_slice());
        let (forth, back) = (okm.take(DIRECTION_LEN)?, okm.take(DIRECTION_LEN)?);
        let (to_peer, from_peer) = match role {
            Role::Initiator => (forth, back),
            Role::Responder => (back, forth),
        };
        let (sealing, sealing_iv, sealing_mac) = direction(engine, suite, to_peer)?;
        let (opening, iv, opening_mac) = direction(engine, suite, from_peer)?;
        Ok(EpochKeys {
            sealing,
            sealing_iv,
            sealing_mac,
            opening: OpeningKey::new(opening, iv),
            opening_mac,
        })
    }
}

/// The keys of one epoch as one side holds them; the sealing key still needs its numbers.
#[derive(Debug)]
pub(crate) struct EpochKeys {
    pub(crate) sealing: AeadKey,
    pub(crate) sealing_iv: [u8; AeadKey::IV_LEN],
    pub(crate) sealing_mac: MacKey,
    pub(crate) opening: OpeningKey,
    pub(crate) opening_mac: MacKey,
}

fn expand_secret(prk: &Prk, info: &[&[u8]]) -> Result<Secret, Error> {
    let mut out = Zeroizing::new([0; SECRET_LEN]);
    prk.expand(info, out.as_mut_slice())
        .map_err(Error::Crypto)?;
    Ok(Secret::from_slice(out.as_slice()))
}

fn direction(
    engine: &dyn Engine,
    suite: Suite,
    okm: &[u8],
) -> Result<(AeadKey, [u8; AeadKey::IV_LEN], MacKey), Error> {
    let mut okm = Reader::new("key material", okm);
    let mut key = Reader::new("key material", okm.take(32)?);
    let key = engine
        .aead_key(suite.cipher(), key.take(suite.cipher().key_len())?)
        .map_err(Error::Crypto)?;
    Ok((key, okm.array()?, engine.mac_key(okm.take(32)?)))
}

/// A key of up to 32 bytes (shorter ones take its beginning), an IV, a MAC key.
const DIRECTION_LEN: usize = 32 + AeadKey::IV_LEN + 32;
/// Two RSA secrets, two of X25519, two of ML-KEM.
const MAX_SECRETS: usize = 6;
