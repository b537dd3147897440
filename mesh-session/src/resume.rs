//! A new session out of an old one, without a private RSA key: fresh shares, mixed with a secret of the old session.
//!
//! # Sources
//!
//! RFC 8446 section 2.2 (resumption with a pre-shared key and a fresh share, `psk_dhe_ke`).

use std::sync::Arc;

use mesh_crypto::Secret;
use mesh_crypto::agreement::MlKem768Key;

use crate::Error;
use crate::Local;
use crate::Responder;
use crate::Role;
use crate::Session;
use crate::SessionId;
use crate::TokenContext;
use crate::UnixTime;
use crate::VerifyPeer;
use crate::schedule;
use crate::schedule::Agreed;
use crate::schedule::BoxOf;
use crate::schedule::SealedBox;
use crate::session::Times;
use crate::session::epoch::Setting;
use crate::shares::Shares;
use crate::shares::encapsulate;
use crate::shares::hybrid_field;
use crate::wire;
use crate::wire::Reader;

/// A resumption that waits for the reply. Neither step uses an RSA key: both cost a tenth of a millisecond.
#[derive(Debug)]
pub struct Resuming {
    local: Local,
    session: Arc<Session>,
    message: Vec<u8>,
    shares: Shares,
}

impl Resuming {
    /// Asks for a session that follows `session`. `token` is shown to the peer alone; it may be empty.
    ///
    /// # Errors
    ///
    /// [`Error::Role`] if this is not the initiator's end, [`Error::TooLong`] if the token has more than 8,192 bytes,
    /// [`Error::Crypto`] if the engine fails.
    pub fn start(
        local: &Local,
        session: &Arc<Session>,
        token: &[u8],
        now: UnixTime,
    ) -> Result<(Self, Vec<u8>), Error> {
        if session.role() != Role::Initiator {
            return Err(Error::Role);
        }
        wire::check_len("the token", token.len(), wire::MAX_TOKEN)?;
        let (engine, random) = (&*local.engine, &*local.random);
        let shares = Shares::new(engine, random, session.suite().is_hybrid())?;
        let mut nonce = [0; 32];
        random.fill(&mut nonce).map_err(Error::Crypto)?;
        let mut message = vec![wire::VERSION, wire::KIND_RESUME];
        message.extend_from_slice(session.id().as_bytes());
        message.extend_from_slice(&now.as_millis().to_be_bytes());
        message.extend_from_slice(&nonce);
        message.extend_from_slice(shares.share());
        message.extend_from_slice(shares.ek());
        let transcript = schedule::transcript_resume(engine, &message);
        let prk = schedule::extract(engine, &transcript, &[session.resumption()]);
        let sealed = SealedBox::derive(engine, &prk, BoxOf::Resume, &transcript)?
            .seal(token_inner(token)?)?;
        wire::put(&mut message, "the sealed part", &sealed)?;
        let resuming = Self {
            local: local.clone(),
            session: Arc::clone(session),
            message: message.clone(),
            shares,
        };
        Ok((resuming, message))
    }

    /// Takes the reply and makes the new session, if the reply is the peer's and the verifier accepts its token. The
    /// old session stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] or [`Error::Version`] if it is no reply to this, [`Error::Open`] if it is not authentic,
    /// [`Error::Refused`] if the verifier refuses the token.
    pub fn finish(
        self,
        reply: &[u8],
        verifier: &dyn VerifyPeer,
        now: UnixTime,
    ) -> Result<Session, Error> {
        let engine = &*self.local.engine;
        let mut reader = Reader::message("reply to a resumption", wire::KIND_RESUMED, reply)?;
        let _random: [u8; 32] = reader.array()?;
        let share = reader.array()?;
        let is_hybrid = self.session.suite().is_hybrid();
        let kem = hybrid_field(&mut reader, is_hybrid, MlKem768Key::CIPHERTEXT_LEN)?;
        let clear = reader.so_far();
        let sealed = reader.field(usize::from(u16::MAX))?;
        reader.end()?;
        let transcript = schedule::transcript_resumed(engine, &self.message, clear);
        let agreed = self.shares.agree(&share)?;
        let kem = self.shares.decapsulate(kem)?;
        let secrets: Vec<_> = [self.session.resumption(), &agreed]
            .into_iter()
            .chain(&kem)
            .collect();
        let prk = schedule::extract(engine, &transcript, &secrets);
        let inner = SealedBox::derive(engine, &prk, BoxOf::Resumed, &transcript)?.open(sealed)?;
        let session = &self.session;
        verify_token(
            &self.local,
            (session, Role::Responder),
            &inner,
            verifier,
            now,
        )?;
        let setting = Setting {
            engine: Arc::clone(&self.local.engine),
            suite: session.suite(),
            role: Role::Initiator,
            limits: self.local.config.epoch,
        };
        let transcript = schedule::transcript_session(engine, &transcript, sealed);
        let agreed = Agreed::derive(&prk, &transcript)?;
        let times = Times {
            created: now,
            authenticated: session.authenticated(),
        };
        Session::new(
            setting,
            agreed,
            (session.peer().clone(), times),
            self.local.config.window,
        )
    }
}

/// The session that a resumption message says it follows, to find it in a table; `None` if the message is none. Nothing
/// of it is authentic yet.
pub fn resumed_session_of(message: &[u8]) -> Option<SessionId> {
    let mut reader = Reader::message("resumption", wire::KIND_RESUME, message).ok()?;
    reader.array().ok().map(SessionId::from_bytes)
}

/// What [`Responder::resume`] does.
pub(crate) fn answer(
    responder: &Responder,
    (session, message): (&Session, &[u8]),
    token: &[u8],
    verifier: &dyn VerifyPeer,
    now: UnixTime,
) -> Result<(Vec<u8>, Session), Error> {
    if session.role() != Role::Responder {
        return Err(Error::Role);
    }
    wire::check_len("the token", token.len(), wire::MAX_TOKEN)?;
    let (engine, random) = (&*responder.local.engine, &*responder.local.random);
    let config = &responder.local.config;
    let (suite, is_hybrid) = (session.suite(), session.suite().is_hybrid());
    let mut reader = Reader::message("resumption", wire::KIND_RESUME, message)?;
    let id = SessionId::from_bytes(reader.array()?);
    let time = UnixTime::from_millis(u64::from_be_bytes(reader.array()?));
    let nonce = reader.array()?;
    let share = reader.array()?;
    let ek = hybrid_field(&mut reader, is_hybrid, MlKem768Key::EK_LEN)?;
    let clear = reader.so_far();
    let sealed = reader.field(usize::from(u16::MAX))?;
    reader.end()?;
    if id != session.id() {
        return Err(Error::Open);
    }
    if !config.suites.contains(&suite) {
        return Err(Error::Suite);
    }
    if now.since(session.authenticated()) >= config.resumption_age {
        return Err(Error::TooOld);
    }
    responder.check_time(time, now)?;
    if responder.resumed.contains(&nonce) {
        return Err(Error::Replayed);
    }
    let transcript = schedule::transcript_resume(engine, clear);
    let prk = schedule::extract(engine, &transcript, &[session.resumption()]);
    let inner = SealedBox::derive(engine, &prk, BoxOf::Resume, &transcript)?.open(sealed)?;
    verify_token(
        &responder.local,
        (session, Role::Initiator),
        &inner,
        verifier,
        now,
    )?;
    responder.resumed.insert(nonce, now)?;

    let shares = Shares::new(engine, random, false)?;
    let agreed = shares.agree(&share)?;
    let (kem_ciphertext, kem) = encapsulate(engine, random, ek)?;
    let mut nonce = [0; 32];
    random.fill(&mut nonce).map_err(Error::Crypto)?;
    let mut out = vec![wire::VERSION, wire::KIND_RESUMED];
    out.extend_from_slice(&nonce);
    out.extend_from_slice(shares.share());
    out.extend_from_slice(&kem_ciphertext);
    let transcript = schedule::transcript_resumed(engine, message, &out);
    let secrets: Vec<_> = [session.resumption(), &agreed]
        .into_iter()
        .chain(&kem)
        .collect();
    let prk = schedule::extract(engine, &transcript, &secrets);
    let sealed =
        SealedBox::derive(engine, &prk, BoxOf::Resumed, &transcript)?.seal(token_inner(token)?)?;
    wire::put(&mut out, "the sealed part", &sealed)?;
    let transcript = schedule::transcript_session(engine, &transcript, &sealed);
    let agreed = Agreed::derive(&prk, &transcript)?;
    let times = Times {
        created: now,
        authenticated: session.authenticated(),
    };
    let (setting, peer) = (responder.setting(suite), session.peer().clone());
    let resumed = Session::new(setting, agreed, (peer, times), config.window)?;
    Ok((out, resumed))
}

fn token_inner(token: &[u8]) -> Result<Vec<u8>, Error> {
    let mut inner = schedule::room_for(&[token.len()]);
    wire::put(&mut inner, "the token", token)?;
    Ok(inner)
}

fn verify_token(
    local: &Local,
    (session, peer_role): (&Session, Role),
    inner: &Secret,
    verifier: &dyn VerifyPeer,
    now: UnixTime,
) -> Result<(), Error> {
    let mut reader = Reader::new("sealed part of a resumption", inner.expose());
    let token = reader.field(wire::MAX_TOKEN).or(Err(Error::Open))?;
    reader.end().or(Err(Error::Open))?;
    let context = TokenContext {
        peer_role,
        fingerprint: session.peer_fingerprint(),
        audience: local.identity.name(),
        now,
    };
    verifier
        .verify_token(session.peer_name(), token, &context)
        .map_err(Error::Refused)
}
