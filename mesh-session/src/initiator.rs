//! The side that wants to talk: first message out, reply in.

use std::sync::Arc;

use mesh_crypto::Fingerprint;
use mesh_crypto::Secret;
use mesh_crypto::agreement::MlKem768Key;

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
use crate::schedule::Agreed;
use crate::schedule::BoxOf;
use crate::schedule::SealedBox;
use crate::session::Peer;
use crate::session::Times;
use crate::session::epoch::Setting;
use crate::shares::Shares;
use crate::shares::encapsulate;
use crate::shares::hybrid_field;
use crate::wire;
use crate::wire::Reader;

/// A handshake that waits for the reply.
///
/// Both steps cost one private RSA operation (1.7 ms each at 4096 bits): run them on a blocking pool.
#[derive(Debug)]
pub struct Initiator {
    local: Local,
    peer: PeerKey,
    suite: Suite,
    init: Vec<u8>,
    secret: Secret,
    shares: Shares,
    agreed_offer: Secret,
    kem_offer: Option<Secret>,
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
        let shares = Shares::new(engine, random, suite.is_hybrid())?;
        let agreed_offer = shares.agree(&peer.share)?;
        let ek = suite.is_hybrid().then_some(peer.ek.as_slice());
        let (to_offer, kem_offer) = encapsulate(engine, random, ek)?;
        let mut nonce = [0; 32];
        random.fill(&mut nonce).map_err(Error::Crypto)?;
        let ciphertext = peer
            .key
            .encrypt_oaep(secret.expose(), schedule::OAEP_TO_RESPONDER, random)
            .map_err(Error::Crypto)?;
        let mut init = init::clear(
            suite,
            (&peer.offer_hash, now),
            (&nonce, &shares),
            (&to_offer, &ciphertext),
        )?;
        let transcript = schedule::transcript_init(engine, &init);

        let identity = &local.identity;
        let key = identity.key().public();
        let mut inner = schedule::room_for(&[
            identity.name().len(),
            key.spki_der().len(),
            identity.attestation().len(),
            token.len(),
            key.bits().modulus_len(),
        ]);
        wire::put(&mut inner, "the name", identity.name().as_bytes())?;
        wire::put(&mut inner, "the key", key.spki_der())?;
        wire::put(&mut inner, "the attestation", identity.attestation())?;
        wire::put(&mut inner, "the token", token)?;
        let message = schedule::to_sign(engine, schedule::SIGN_INIT, &transcript, &inner);
        let signature = identity
            .key()
            .sign_pss(&message, random)
            .map_err(Error::Crypto)?;
        wire::put(&mut inner, "the signature", &signature)?;
        let secrets: Vec<_> = [&secret, &agreed_offer]
            .into_iter()
            .chain(&kem_offer)
            .collect();
        let prk = schedule::extract(engine, &transcript, &secrets);
        let sealed = SealedBox::derive(engine, &prk, BoxOf::Init, &transcript)?.seal(inner)?;
        wire::put(&mut init, "the sealed part", &sealed)?;

        let started = Self {
            local: local.clone(),
            peer: peer.clone(),
            suite,
            init: init.clone(),
            secret,
            shares,
            agreed_offer,
            kem_offer,
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
        let (engine, random) = (&*self.local.engine, &*self.local.random);
        let mut reader = Reader::message("reply", wire::KIND_REPLY, reply)?;
        if Suite::from_code(u16::from_be_bytes(reader.array()?)) != Some(self.suite) {
            return Err(Error::Suite);
        }
        let _random: [u8; 32] = reader.array()?;
        let share = reader.array()?;
        let hybrid = self.suite.is_hybrid();
        let kem = hybrid_field(&mut reader, hybrid, MlKem768Key::CIPHERTEXT_LEN)?;
        let ciphertext = reader.field(wire::MAX_RSA)?;
        let clear = reader.so_far();
        let sealed = reader.field(usize::from(u16::MAX))?;
        reader.end()?;

        let transcript = schedule::transcript_reply(engine, &self.init, clear);
        let secret = self
            .local
            .identity
            .key()
            .decrypt_oaep_or_random(
                ciphertext,
                schedule::OAEP_TO_INITIATOR,
                schedule::SECRET_LEN,
                random,
            )
            .map_err(Error::Crypto)?;
        let agreed = self.shares.agree(&share)?;
        let kem = self.shares.decapsulate(kem)?;
        let secrets: Vec<_> = [&self.secret, &secret, &self.agreed_offer, &agreed]
            .into_iter()
            .chain(&self.kem_offer)
            .chain(&kem)
            .collect();
        let prk = schedule::extract(engine, &transcript, &secrets);
        let inner = SealedBox::derive(engine, &prk, BoxOf::Reply, &transcript)?.open(sealed)?;
        let token = self.read_inner(&transcript, &inner).or(Err(Error::Open))?;
        let context = TokenContext {
            peer_role: Role::Responder,
            fingerprint: self.peer_fingerprint(),
            audience: self.local.identity.name(),
            now,
        };
        verifier
            .verify_token(self.peer.name(), token, &context)
            .map_err(Error::Refused)?;

        let transcript = schedule::transcript_session(engine, &transcript, sealed);
        let setting = Setting {
            engine: Arc::clone(&self.local.engine),
            suite: self.suite,
            role: Role::Initiator,
            limits: self.local.config.epoch,
        };
        let peer = Peer {
            name: self.peer.name().into(),
            fingerprint: self.peer_fingerprint(),
        };
        let times = Times {
            created: now,
            authenticated: now,
        };
        let agreed = Agreed::derive(&prk, &transcript)?;
        Session::new(setting, agreed, (peer, times), self.local.config.window)
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
        let message = schedule::to_sign(
            &*self.local.engine,
            schedule::SIGN_REPLY,
            transcript,
            signed,
        );
        self.peer
            .key
            .verify_pss(&message, signature)
            .or(Err(Error::Open))?;
        Ok(token)
    }
}
