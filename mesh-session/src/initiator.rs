//! The side that wants to talk: first message out, reply in.

use std::sync::Arc;

use mesh_crypto::Engine;
use mesh_crypto::Fingerprint;
use mesh_crypto::Random;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::Secret;
use mesh_crypto::agreement::X25519Key;

use crate::Error;
use crate::Local;
use crate::PeerKey;
use crate::Role;
use crate::Session;
use crate::Suite;
use crate::TokenContext;
use crate::UnixTime;
use crate::VerifyPeer;
use crate::init;
use crate::schedule;
use crate::schedule::SessionKeys;
use crate::session::Peer;
use crate::wire;
use crate::wire::Reader;

/// A handshake that waits for the reply.
///
/// Both steps cost one private RSA operation (1.7 ms each at 4096 bits): run them on a blocking pool.
#[derive(Debug)]
pub struct Initiator {
    engine: Arc<dyn Engine>,
    random: Arc<dyn Random>,
    key: Arc<RsaKeyPair>,
    name: String,
    peer: PeerKey,
    suite: Suite,
    max_blocks: u64,
    init: Vec<u8>,
    secret: Secret,
    share: X25519Key,
    agreed_offer: Secret,
}

impl Initiator {
    /// Makes the first message to `peer`. `token` is shown to the peer alone; it may be empty.
    ///
    /// # Errors
    ///
    /// [`Error::Suite`] if the peer offers nothing that is accepted here, [`Error::TooLong`] if the token has more
    /// than 8,192 bytes, [`Error::Open`] if the peer's share is worthless, [`Error::Crypto`] if the engine fails.
    pub fn start(
        local: &Local,
        peer: &PeerKey,
        token: &[u8],
        now: UnixTime,
    ) -> Result<(Self, Vec<u8>), Error> {
        let (engine, random) = (&*local.engine, &*local.random);
        let suite = peer.choose_suite(&local.config.suites)?;
        wire::check_len("the token", token.len(), wire::MAX_TOKEN)?;
        let secret = Secret::random(schedule::SECRET_LEN, random).map_err(Error::Crypto)?;
        let share = engine.x25519_key(random).map_err(Error::Crypto)?;
        let agreed_offer = share.agree(&peer.share).or(Err(Error::Open))?;
        let mut nonce = [0; 32];
        random.fill(&mut nonce).map_err(Error::Crypto)?;
        let ciphertext = peer
            .key
            .encrypt_oaep(secret.expose(), schedule::OAEP_TO_RESPONDER)
            .map_err(Error::Crypto)?;
        let mut init = init::clear(
            suite,
            (&peer.offer_hash, now),
            (&nonce, share.share()),
            &ciphertext,
        )?;
        let transcript = schedule::transcript_init(engine, &init);

        let identity = &local.identity;
        let mut inner = Vec::new();
        wire::put(&mut inner, "the name", identity.name().as_bytes())?;
        wire::put(&mut inner, "the key", identity.key().public().spki_der())?;
        wire::put(&mut inner, "the attestation", identity.attestation())?;
        wire::put(&mut inner, "the token", token)?;
        let message = schedule::to_sign(engine, schedule::SIGN_INIT, &transcript, &inner);
        let signature = identity.key().sign_pss(&message).map_err(Error::Crypto)?;
        wire::put(&mut inner, "the signature", &signature)?;
        let sealed =
            schedule::init_box(engine, &transcript, [&secret, &agreed_offer])?.seal(inner)?;
        wire::put(&mut init, "the sealed part", &sealed)?;

        let started = Self {
            engine: Arc::clone(&local.engine),
            random: Arc::clone(&local.random),
            key: identity.shared_key(),
            name: identity.name().to_owned(),
            peer: peer.clone(),
            suite,
            max_blocks: local.config.max_blocks,
            init: init.clone(),
            secret,
            share,
            agreed_offer,
        };
        Ok((started, init))
    }

    /// Takes the reply and makes the session, if the reply is the peer's and the verifier accepts its token.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`], [`Error::Version`] or [`Error::Suite`] if it is no reply to this, [`Error::Open`] if it
    /// is not authentic, [`Error::Refused`] if the verifier refuses the token.
    pub fn finish(
        self,
        reply: &[u8],
        verifier: &dyn VerifyPeer,
        now: UnixTime,
    ) -> Result<Session, Error> {
        let engine = &*self.engine;
        let mut reader = Reader::message("reply", wire::KIND_REPLY, reply)?;
        if Suite::from_code(u16::from_be_bytes(reader.array()?)) != Some(self.suite) {
            return Err(Error::Suite);
        }
        let _random: [u8; 32] = reader.array()?;
        let share = reader.array()?;
        let ciphertext = reader.field(wire::MAX_RSA)?;
        let clear = reader.so_far();
        let sealed = reader.field(usize::from(u16::MAX))?;
        reader.end()?;

        let transcript = schedule::transcript_reply(engine, &self.init, clear);
        let secret = self
            .key
            .decrypt_oaep_or_random(
                ciphertext,
                schedule::OAEP_TO_INITIATOR,
                schedule::SECRET_LEN,
                &*self.random,
            )
            .map_err(Error::Crypto)?;
        let agreed = self.share.agree(&share).or(Err(Error::Open))?;
        let secrets = [&self.secret, &secret, &self.agreed_offer, &agreed];
        let master = schedule::master(engine, &transcript, secrets);
        let inner = schedule::reply_box(engine, &master, &transcript)?.open(sealed)?;
        let token = self.read_inner(&transcript, &inner).or(Err(Error::Open))?;
        let context = TokenContext {
            peer_role: Role::Responder,
            fingerprint: self.peer_fingerprint(),
            audience: &self.name,
            now,
        };
        verifier
            .verify_token(self.peer.name(), token, &context)
            .map_err(Error::Refused)?;

        let transcript = schedule::transcript_session(engine, &transcript, sealed);
        let role = Role::Initiator;
        let keys = SessionKeys::derive(engine, &master, &transcript, (self.suite, role, 0))?;
        let peer = Peer {
            name: self.peer.name().into(),
            fingerprint: self.peer_fingerprint(),
        };
        Ok(Session::new(
            Arc::clone(&self.engine),
            keys,
            (role, self.suite, peer),
            (now, self.max_blocks),
        ))
    }

    /// The key that the reply must come from.
    pub fn peer_fingerprint(&self) -> Fingerprint {
        self.peer.fingerprint()
    }

    fn read_inner<'a>(&self, transcript: &[u8; 32], inner: &'a Secret) -> Result<&'a [u8], Error> {
        let mut reader = Reader::new("sealed part of the reply", inner.expose());
        let token = reader.field(wire::MAX_TOKEN)?;
        let signed = reader.so_far();
        let signature = reader.field(wire::MAX_RSA)?;
        reader.end()?;
        let message = schedule::to_sign(&*self.engine, schedule::SIGN_REPLY, transcript, signed);
        self.peer
            .key
            .verify_pss(&message, signature)
            .or(Err(Error::Open))?;
        Ok(token)
    }
}
