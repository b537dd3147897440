//! The side that is talked to: offers its key, checks first messages, answers them.

use std::sync::Arc;

use mesh_crypto::RsaPublicKey;
use mesh_crypto::Secret;

use crate::Error;
use crate::KeyClaim;
use crate::Local;
use crate::Role;
use crate::Session;
use crate::Suite;
use crate::TokenContext;
use crate::UnixTime;
use crate::VerifyPeer;
use crate::init::Init;
use crate::init::Inner;
use crate::offer;
use crate::replay::ReplayCache;
use crate::resume;
use crate::schedule;
use crate::schedule::Agreed;
use crate::schedule::BoxOf;
use crate::schedule::SealedBox;
use crate::session::Peer;
use crate::session::Times;
use crate::session::epoch::Setting;
use crate::shares::Shares;
use crate::shares::encapsulate;
use crate::wire;

/// The long-lived answering side: one for each identity key, shared by all connections.
///
/// Each has shares of its own in its offer, which live only in memory. So a first message made for one
/// responder opens at no other, not even at the same node after a restart, and stealing the RSA key later does not
/// open recorded first messages. While an identity key is being replaced, keep the old responder beside the new one
/// and try both.
#[derive(Debug)]
pub struct Responder {
    pub(crate) local: Arc<Local>,
    offer: Vec<u8>,
    offer_hash: [u8; 32],
    shares: Shares,
    seen: ReplayCache,
    /// Resumptions are not made for an offer: what answers under another one must remember them too.
    pub(crate) resumed: Arc<ReplayCache>,
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
        let seen = ReplayCache::new(local.config.clock_tolerance, local.config.replay_capacity);
        Self::remembering(local, Arc::new(seen))
    }

    /// A responder with a fresh offer for another identity or policy of the same node, to be used instead of this one,
    /// or beside it for as long as first messages for the old offer may come.
    ///
    /// # Errors
    ///
    /// [`Error::Crypto`] if the engine fails.
    pub fn renewed(&self, local: Arc<Local>) -> Result<Self, Error> {
        Self::remembering(local, Arc::clone(&self.resumed))
    }

    fn remembering(local: Arc<Local>, resumed: Arc<ReplayCache>) -> Result<Self, Error> {
        let config = &local.config;
        let is_hybrid = config.suites.iter().any(|suite| suite.is_hybrid());
        let shares = Shares::new(&*local.engine, &*local.random, is_hybrid)?;
        let offer = offer::build(&local, &shares)?;
        let offer_hash = local.engine.sha256(&[&offer]);
        let seen = ReplayCache::new(config.clock_tolerance, config.replay_capacity);
        Ok(Self {
            local,
            offer,
            offer_hash,
            shares,
            seen,
            resumed,
        })
    }

    /// Who this responder is.
    pub fn local(&self) -> &Arc<Local> {
        &self.local
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
        self.check_time(parsed.time, now)?;
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
        self.check_time(init.time, now)?;
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
        let agreed_offer = self.shares.agree(&init.share)?;
        let kem_offer = self.shares.decapsulate(init.to_offer)?;
        let secrets: Vec<_> = [&secret, &agreed_offer]
            .into_iter()
            .chain(&kem_offer)
            .collect();
        let prk = schedule::extract(engine, &transcript, &secrets);
        let inner = SealedBox::derive(engine, &prk, BoxOf::Init, &transcript)?.open(init.sealed)?;
        let inner = Inner::parse(&inner).or(Err(Error::Open))?;
        let peer_key = self.verify(&transcript, &inner, verifier, now)?;
        self.seen.insert(init.random, now)?;
        self.reply(
            &init,
            ([&secret, &agreed_offer], kem_offer.as_ref()),
            (&peer_key, inner.name),
            (token, now),
        )
    }

    fn reply(
        &self,
        init: &Init<'_>,
        ([secret_i, agreed_offer], kem_offer): ([&Secret; 2], Option<&Secret>),
        (peer_key, peer_name): (&RsaPublicKey, &str),
        (token, now): (&[u8], UnixTime),
    ) -> Result<(Vec<u8>, Session), Error> {
        let (engine, random) = (&*self.local.engine, &*self.local.random);
        let secret = Secret::random(schedule::SECRET_LEN, random).map_err(Error::Crypto)?;
        let shares = Shares::new(engine, random, false)?;
        let agreed = shares.agree(&init.share)?;
        let (kem_ciphertext, kem) = encapsulate(engine, random, init.ek)?;
        let mut nonce = [0; 32];
        random.fill(&mut nonce).map_err(Error::Crypto)?;
        let ciphertext = peer_key
            .encrypt_oaep(secret.expose(), schedule::OAEP_TO_INITIATOR, random)
            .map_err(Error::Crypto)?;
        let mut out = vec![wire::VERSION, wire::KIND_REPLY];
        out.extend_from_slice(&init.suite.code().to_be_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(shares.share());
        out.extend_from_slice(&kem_ciphertext);
        wire::put(&mut out, "the ciphertext", &ciphertext)?;
        let transcript = schedule::transcript_reply(engine, init.bytes, &out);
        let secrets: Vec<_> = [secret_i, &secret, agreed_offer, &agreed]
            .into_iter()
            .chain(kem_offer)
            .chain(&kem)
            .collect();
        let prk = schedule::extract(engine, &transcript, &secrets);

        let key = self.local.identity.key();
        let signature_len = key.public().bits().modulus_len();
        let mut inner = schedule::room_for(&[token.len(), signature_len]);
        wire::put(&mut inner, "the token", token)?;
        let message = schedule::to_sign(engine, schedule::SIGN_REPLY, &transcript, &inner);
        let signature = key.sign_pss(&message, random).map_err(Error::Crypto)?;
        wire::put(&mut inner, "the signature", &signature)?;
        let sealed = SealedBox::derive(engine, &prk, BoxOf::Reply, &transcript)?.seal(inner)?;
        wire::put(&mut out, "the sealed part", &sealed)?;

        let transcript = schedule::transcript_session(engine, &transcript, &sealed);
        let setting = self.setting(init.suite);
        let peer = Peer {
            name: peer_name.into(),
            fingerprint: peer_key.fingerprint(),
        };
        let times = Times {
            created: now,
            authenticated: now,
        };
        let agreed = Agreed::derive(&prk, &transcript)?;
        let session = Session::new(setting, agreed, (peer, times), self.local.config.window)?;
        Ok((out, session))
    }

    /// Answers a resumption of `session`, which the message names: the reply to send, and the new session. It uses no
    /// RSA key. `token` is shown to the peer alone; it may be empty.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] or [`Error::Version`] if it is no resumption, [`Error::Open`] if it is not authentic or of
    /// another session, [`Error::Clock`], [`Error::Replayed`], [`Error::Busy`] as for a first message, [`Error::Suite`]
    /// if the session's suite is no longer accepted, [`Error::TooOld`] if the full handshake is longer ago than
    /// [`Config::resumption_age`](crate::Config::resumption_age), [`Error::Refused`] if the verifier refuses the token,
    /// [`Error::Role`] if `session` is not the responder's end.
    pub fn resume(
        &self,
        (session, message): (&Session, &[u8]),
        token: &[u8],
        verifier: &dyn VerifyPeer,
        now: UnixTime,
    ) -> Result<(Vec<u8>, Session), Error> {
        resume::answer(self, (session, message), token, verifier, now)
    }

    pub(crate) fn setting(&self, suite: Suite) -> Setting {
        Setting {
            engine: Arc::clone(&self.local.engine),
            suite,
            role: Role::Responder,
            limits: self.local.config.epoch,
        }
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

    pub(crate) fn check_time(&self, time: UnixTime, now: UnixTime) -> Result<(), Error> {
        let off = time.distance(now);
        if off > self.local.config.clock_tolerance {
            return Err(Error::Clock {
                off_by_millis: u64::try_from(off.as_millis()).unwrap_or(u64::MAX),
            });
        }
        Ok(())
    }
}
