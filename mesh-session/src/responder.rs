//! The side that is talked to: offers its key, checks first messages, answers them.

use std::sync::Arc;

use mesh_crypto::RsaPublicKey;
use mesh_crypto::Secret;
use mesh_crypto::agreement::X25519Key;

use crate::Error;
use crate::KeyClaim;
use crate::Local;
use crate::Role;
use crate::Session;
use crate::TokenContext;
use crate::UnixTime;
use crate::VerifyPeer;
use crate::init::Init;
use crate::init::Inner;
use crate::offer;
use crate::replay::ReplayCache;
use crate::schedule;
use crate::schedule::SessionKeys;
use crate::session::Peer;
use crate::wire;

/// The long-lived answering side: one for each identity key, shared by all connections.
///
/// Each has an X25519 share of its own in its offer, which lives only in memory. So a first message made for one
/// responder opens at no other, not even at the same node after a restart, and stealing the RSA key later does not
/// open recorded first messages. While an identity key is being replaced, keep the old responder beside the new one
/// and try both.
#[derive(Debug)]
pub struct Responder {
    local: Arc<Local>,
    offer: Vec<u8>,
    offer_hash: [u8; 32],
    share: X25519Key,
    seen: ReplayCache,
}

/// A first message that passed the cheap checks.
#[derive(Clone, Debug)]
pub struct Checked {
    init: Vec<u8>,
}

impl Responder {
    /// A responder with a fresh offer, signed once here.
    ///
    /// # Errors
    ///
    /// [`Error::Crypto`] if the engine fails.
    pub fn new(local: Arc<Local>) -> Result<Self, Error> {
        let share = local
            .engine
            .x25519_key(&*local.random)
            .map_err(Error::Crypto)?;
        let offer = offer::build(&local, &share)?;
        let offer_hash = local.engine.sha256(&[&offer]);
        let seen = ReplayCache::new(local.config.clock_tolerance, local.config.replay_capacity);
        Ok(Self {
            local,
            offer,
            offer_hash,
            share,
            seen,
        })
    }

    /// The key offer, for whoever asks.
    pub fn offer(&self) -> &[u8] {
        &self.offer
    }

    /// Checks what can be told from the bytes alone: form, suite, offer, time, and whether it was seen before. It
    /// uses no key and computes no hash.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`], [`Error::Version`], [`Error::Suite`], [`Error::StaleOffer`] (the initiator should fetch
    /// the offer again), [`Error::Clock`], [`Error::Replayed`].
    pub fn check(&self, init: &[u8], now: UnixTime) -> Result<Checked, Error> {
        let parsed = self.parse(init)?;
        self.check_time(&parsed, now)?;
        if self.seen.contains(&parsed.random) {
            return Err(Error::Replayed);
        }
        Ok(Checked {
            init: init.to_vec(),
        })
    }

    /// Answers a checked first message: the reply to send, and the session. It costs two private RSA operations
    /// (3.5 ms at 4096 bits): run it on a bounded blocking pool. `token` is shown to the peer alone; it may be empty.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if the message is not authentic, [`Error::KeyTooSmall`], [`Error::Refused`] if the verifier
    /// refuses key or token, [`Error::Replayed`] if the same message was answered meanwhile, [`Error::Busy`] if the
    /// replay cache is full, [`Error::TooLong`] if the own token has more than 8,192 bytes, [`Error::Crypto`] if the
    /// engine fails, and what [`check`](Self::check) gives.
    pub fn respond(
        &self,
        checked: &Checked,
        token: &[u8],
        verifier: &dyn VerifyPeer,
        now: UnixTime,
    ) -> Result<(Vec<u8>, Session), Error> {
        wire::check_len("the token", token.len(), wire::MAX_TOKEN)?;
        let init = self.parse(&checked.init)?;
        // It may have waited long for its turn.
        self.check_time(&init, now)?;
        let (engine, random) = (&*self.local.engine, &*self.local.random);
        let transcript = schedule::transcript_init(engine, init.clear);
        let key = self.local.identity.key();
        let secret = key
            .decrypt_oaep_or_random(
                init.ciphertext,
                schedule::OAEP_TO_RESPONDER,
                schedule::SECRET_LEN,
                random,
            )
            .map_err(Error::Crypto)?;
        let agreed_offer = self.share.agree(&init.share).or(Err(Error::Open))?;
        let inner =
            schedule::init_box(engine, &transcript, [&secret, &agreed_offer])?.open(init.sealed)?;
        let inner = Inner::parse(&inner).or(Err(Error::Open))?;
        let peer_key = self.verify(&transcript, &inner, verifier, now)?;
        self.seen.insert(init.random, now)?;
        self.reply(
            &init,
            [&secret, &agreed_offer],
            (&peer_key, inner.name),
            (token, now),
        )
    }

    fn reply(
        &self,
        init: &Init<'_>,
        [secret_i, agreed_offer]: [&Secret; 2],
        (peer_key, peer_name): (&RsaPublicKey, &str),
        (token, now): (&[u8], UnixTime),
    ) -> Result<(Vec<u8>, Session), Error> {
        let (engine, random) = (&*self.local.engine, &*self.local.random);
        let secret = Secret::random(schedule::SECRET_LEN, random).map_err(Error::Crypto)?;
        let share = engine.x25519_key(random).map_err(Error::Crypto)?;
        let agreed = share.agree(&init.share).or(Err(Error::Open))?;
        let mut nonce = [0; 32];
        random.fill(&mut nonce).map_err(Error::Crypto)?;
        let ciphertext = peer_key
            .encrypt_oaep(secret.expose(), schedule::OAEP_TO_INITIATOR)
            .map_err(Error::Crypto)?;
        let mut out = vec![wire::VERSION, wire::KIND_REPLY];
        out.extend_from_slice(&init.suite.code().to_be_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(share.share());
        wire::put(&mut out, "the ciphertext", &ciphertext)?;
        let transcript = schedule::transcript_reply(engine, init.bytes, &out);
        let master = schedule::master(
            engine,
            &transcript,
            [secret_i, &secret, agreed_offer, &agreed],
        );

        let mut inner = Vec::new();
        wire::put(&mut inner, "the token", token)?;
        let message = schedule::to_sign(engine, schedule::SIGN_REPLY, &transcript, &inner);
        let signature = self
            .local
            .identity
            .key()
            .sign_pss(&message)
            .map_err(Error::Crypto)?;
        wire::put(&mut inner, "the signature", &signature)?;
        let sealed = schedule::reply_box(engine, &master, &transcript)?.seal(inner)?;
        wire::put(&mut out, "the sealed part", &sealed)?;

        let transcript = schedule::transcript_session(engine, &transcript, &sealed);
        let (role, config) = (Role::Responder, &self.local.config);
        let keys = SessionKeys::derive(
            engine,
            &master,
            &transcript,
            (init.suite, role, config.window),
        )?;
        let peer = Peer {
            name: peer_name.into(),
            fingerprint: peer_key.fingerprint(),
        };
        let engine = Arc::clone(&self.local.engine);
        let session = Session::new(
            engine,
            keys,
            (role, init.suite, peer),
            (now, config.max_blocks),
        );
        Ok((out, session))
    }

    /// Key, signature, then what the verifier says of key and token.
    fn verify(
        &self,
        transcript: &[u8; 32],
        inner: &Inner<'_>,
        verifier: &dyn VerifyPeer,
        now: UnixTime,
    ) -> Result<RsaPublicKey, Error> {
        let engine = &*self.local.engine;
        let key = RsaPublicKey::from_spki_der(engine, inner.spki).or(Err(Error::Open))?;
        let message = schedule::to_sign(engine, schedule::SIGN_INIT, transcript, inner.signed);
        key.verify_pss(&message, inner.signature)
            .or(Err(Error::Open))?;
        self.local.check_bits(key.bits().bits())?;
        let (name, fingerprint) = (inner.name, key.fingerprint());
        let claim = KeyClaim {
            name,
            spki: inner.spki,
            fingerprint,
            attestation: inner.attestation,
        };
        verifier.verify_key(&claim).map_err(Error::Refused)?;
        let audience = self.local.identity.name();
        let context = TokenContext {
            peer_role: Role::Initiator,
            fingerprint,
            audience,
            now,
        };
        verifier
            .verify_token(name, inner.token, &context)
            .map_err(Error::Refused)?;
        Ok(key)
    }

    fn parse<'a>(&self, init: &'a [u8]) -> Result<Init<'a>, Error> {
        let parsed = Init::parse(init)?;
        if !self.local.config.suites.contains(&parsed.suite) {
            return Err(Error::Suite);
        }
        if parsed.offer_hash != self.offer_hash {
            return Err(Error::StaleOffer);
        }
        if parsed.ciphertext.len() != self.local.identity.key().public().bits().modulus_len() {
            return Err(Error::Malformed {
                what: "ciphertext in the first message",
            });
        }
        Ok(parsed)
    }

    fn check_time(&self, init: &Init<'_>, now: UnixTime) -> Result<(), Error> {
        let off = init.time.distance(now);
        if off > self.local.config.clock_tolerance {
            return Err(Error::Clock {
                off_by_millis: u64::try_from(off.as_millis()).unwrap_or(u64::MAX),
            });
        }
        Ok(())
    }
}
