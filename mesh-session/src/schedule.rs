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
use crate::Suite;
use crate::wire::Reader;

pub(crate) const OAEP_TO_RESPONDER: &[u8] = b"mesh-session v1 secret to responder";
pub(crate) const OAEP_TO_INITIATOR: &[u8] = b"mesh-session v1 secret to initiator";
pub(crate) const SIGN_OFFER: &[u8] = b"mesh-session v1 offer signature\0";
pub(crate) const SIGN_INIT: &[u8] = b"mesh-session v1 initiator signature\0";
pub(crate) const SIGN_REPLY: &[u8] = b"mesh-session v1 responder signature\0";
const HASH_INIT: &[u8] = b"mesh-session v1 init\0";
const HASH_REPLY: &[u8] = b"mesh-session v1 reply\0";
const HASH_SESSION: &[u8] = b"mesh-session v1 session\0";
const INFO_INIT_BOX: &[u8] = b"mesh-session v1 init box\0";
const INFO_REPLY_BOX: &[u8] = b"mesh-session v1 reply box\0";
const INFO_SESSION: &[u8] = b"mesh-session v1 session keys\0";

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

/// The two secrets that protect the first message: one to the responder's RSA key, one to its offered share.
pub(crate) fn init_box(
    engine: &dyn Engine,
    transcript: &Transcript,
    [secret_i, agreed_offer]: [&Secret; 2],
) -> Result<SealedBox, Error> {
    let prk = Prk::extract(
        engine,
        transcript,
        &[secret_i.expose(), agreed_offer.expose()],
    );
    SealedBox::derive(engine, &prk, INFO_INIT_BOX, transcript)
}

/// All four secrets: each side's, and X25519 with the offered and with the fresh share.
pub(crate) fn master(engine: &dyn Engine, transcript: &Transcript, secrets: [&Secret; 4]) -> Prk {
    Prk::extract(engine, transcript, &secrets.map(Secret::expose))
}

pub(crate) fn reply_box(
    engine: &dyn Engine,
    master: &Prk,
    transcript: &Transcript,
) -> Result<SealedBox, Error> {
    SealedBox::derive(engine, master, INFO_REPLY_BOX, transcript)
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
    fn derive(
        engine: &dyn Engine,
        prk: &Prk,
        info: &[u8],
        transcript: &Transcript,
    ) -> Result<Self, Error> {
        let mut okm = Zeroizing::new([0; 32 + AeadKey::IV_LEN + 32]);
        prk.expand(&[info], okm.as_mut_slice())
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

/// The keys of a session as one side holds them.
#[derive(Debug)]
pub(crate) struct SessionKeys {
    pub(crate) id: [u8; 16],
    pub(crate) sealing: Arc<SealingKey>,
    pub(crate) sealing_mac: MacKey,
    pub(crate) opening: OpeningKey,
    pub(crate) opening_mac: MacKey,
}

impl SessionKeys {
    /// Derives them: 16 bytes of id, then key, IV and MAC key from initiator to responder, then the same back.
    pub(crate) fn derive(
        engine: &dyn Engine,
        master: &Prk,
        transcript: &Transcript,
        (suite, role, window): (Suite, Role, u32),
    ) -> Result<Self, Error> {
        let mut okm = Zeroizing::new([0; 16 + 2 * DIRECTION_LEN]);
        master
            .expand(
                &[INFO_SESSION, transcript, &[FIRST_EPOCH]],
                okm.as_mut_slice(),
            )
            .map_err(Error::Crypto)?;
        let mut okm = Reader::new("key material", okm.as_slice());
        let id = okm.array()?;
        let (forth, back) = (okm.take(DIRECTION_LEN)?, okm.take(DIRECTION_LEN)?);
        let (to_peer, from_peer) = match role {
            Role::Initiator => (forth, back),
            Role::Responder => (back, forth),
        };
        let (key, iv, sealing_mac) = direction(engine, suite, to_peer)?;
        let sealing = match role {
            Role::Initiator => SealingKey::counting(key, iv),
            Role::Responder => SealingKey::claiming(key, iv, window),
        };
        let (key, iv, opening_mac) = direction(engine, suite, from_peer)?;
        Ok(Self {
            id,
            sealing: Arc::new(sealing),
            sealing_mac,
            opening: OpeningKey::new(key, iv),
            opening_mac,
        })
    }
}

fn direction(
    engine: &dyn Engine,
    suite: Suite,
    okm: &[u8],
) -> Result<(AeadKey, [u8; AeadKey::IV_LEN], MacKey), Error> {
    let mut okm = Reader::new("key material", okm);
    let mut key = Reader::new("key material", okm.take(32)?);
    let key = engine
        .aead_key(suite.aead(), key.take(suite.aead().key_len())?)
        .map_err(Error::Crypto)?;
    Ok((key, okm.array()?, engine.mac_key(okm.take(32)?)))
}

/// The epoch of a session's first keys.
pub(crate) const FIRST_EPOCH: u8 = 0;
/// A key of up to 32 bytes (shorter ones take its beginning), an IV, a MAC key.
const DIRECTION_LEN: usize = 32 + AeadKey::IV_LEN + 32;
