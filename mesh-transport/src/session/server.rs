//! The called side: answers handshakes, bounded, and opens sealed requests.

use std::fmt;
use std::future::poll_fn;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Full;
use mesh_session::HandshakeLimiter;
use mesh_session::Limited;
use mesh_session::LimiterConfig;
use mesh_session::LimiterStats;
use mesh_session::Place;
use mesh_session::Responders;
use mesh_session::Sealer;
use mesh_session::Session;
use mesh_session::SessionId;
use mesh_session::SessionTable;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;
use mesh_session::resumed_session_of;
use tokio::sync::Semaphore;

use crate::body::Body;
use crate::error::BoxError;
use crate::session::CLOSE_ROUTE;
use crate::session::MAX_HANDSHAKE_BYTES;
use crate::session::MESH_SERVICE;
use crate::session::TokenFor;
use crate::session::frame;
use crate::session::frame::Decoder;
use crate::session::head;
use crate::session::instant;
use crate::session::open;
use crate::session::open::Length;
use crate::session::open::OpenedBody;
use crate::session::open::Records;
use crate::session::seal::SealedBody;
use crate::session::seal::Side;
use crate::tasks::Tasks;
use crate::tls::PeerId;

/// How much handshakes may cost this node.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SessionConfig {
    /// Handshakes whose private-key work may run at once. Default 1: with two cores, one stays for calls. More finishes a
    /// rush earlier, as long as there are cores.
    pub max_handshakes: NonZeroU32,
    /// How many handshakes a peer may ask for, and how many may wait.
    pub limits: LimiterConfig,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            max_handshakes: NonZeroU32::MIN,
            limits: LimiterConfig::default(),
        }
    }
}

impl SessionConfig {
    /// Sets how many handshakes' private-key work may run at once.
    #[must_use]
    pub fn with_max_handshakes(self, max_handshakes: NonZeroU32) -> Self {
        Self {
            max_handshakes,
            ..self
        }
    }

    /// Sets how many handshakes a peer may ask for, and how many may wait.
    #[must_use]
    pub fn with_limits(self, limits: LimiterConfig) -> Self {
        Self { limits, ..self }
    }
}

/// Why the other side gets no session or no answer. Nothing of the request reached the application.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The session is not known here, or over.
    #[error("the session is not known here; agree on a new one")]
    NoSession,
    /// The session belongs to somebody else than the connection.
    #[error("the session belongs to another peer")]
    WrongPeer,
    /// The peer asks for too many handshakes, or too many are under way.
    #[error("no handshake is begun now")]
    Busy(#[source] Limited),
    /// It could not be opened, or is not of the form it must have.
    #[error("the message was not accepted")]
    NotAccepted(#[source] BoxError),
}

/// Answers the secure-session service for one node.
pub struct SessionServer {
    responders: Arc<Responders>,
    verifier: Arc<dyn VerifyPeer>,
    token: Arc<TokenFor>,
    table: Arc<SessionTable>,
    /// Counts how often all sessions were ended; see [`SessionServer::end_sessions`].
    trust: AtomicU64,
    slots: Arc<Semaphore>,
    limiter: HandshakeLimiter<PeerId>,
    clock: fn() -> SystemTime,
    tasks: Tasks,
}

/// An opened request and the means to answer it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The request as the calling application made it.
    pub request: Request<Body>,
    /// The session it came in.
    pub session: Arc<Session>,
    sealer: Sealer,
}

impl SessionServer {
    /// A server that answers for `responders`; peers are judged by `verifier`, sessions kept in `table`, and `token`
    /// gives what is shown to a peer by its name.
    pub fn new(
        responders: Arc<Responders>,
        (verifier, token): (Arc<dyn VerifyPeer>, Arc<TokenFor>),
        table: Arc<SessionTable>,
        (config, clock): (SessionConfig, fn() -> SystemTime),
        tasks: Tasks,
    ) -> Self {
        let slots = usize::try_from(config.max_handshakes.get()).unwrap_or(usize::MAX);
        let slots = Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS)));
        Self {
            responders,
            verifier,
            token,
            table,
            trust: AtomicU64::new(0),
            slots,
            limiter: HandshakeLimiter::new(config.limits, instant()),
            clock,
            tasks,
        }
    }

    /// The sessions.
    pub fn table(&self) -> &Arc<SessionTable> {
        &self.table
    }

    /// Drops what is over, sessions and offers, and makes idle sessions small; to be called every few seconds.
    pub fn sweep(&self) {
        self.table.sweep(instant());
        self.responders.sweep(instant());
    }

    /// Ends all sessions, those too that are being agreed on, and says how many there were. To be called after the
    /// verifier's trust has changed: whoever is still trusted makes a new one with a full handshake, and nobody else can
    /// go on, or resume.
    pub fn end_sessions(&self) -> usize {
        // First the count: a session is put in before the count is read again, so either finds the other.
        self.trust.fetch_add(1, Ordering::SeqCst);
        self.table.remove_peers(|_, _| true)
    }

    /// Puts in a session that was agreed on under `trust`, unless that has ended meanwhile.
    fn keep(&self, session: Session, trust: u64) -> Result<(), Refused> {
        let id = session.id();
        drop(self.table.insert(Arc::new(session), instant()));
        if self.trust.load(Ordering::SeqCst) == trust {
            return Ok(());
        }
        drop(self.table.remove(&id));
        Err(Refused::NoSession)
    }

    /// What was asked for in handshakes so far, and what was refused.
    pub fn handshakes(&self) -> LimiterStats {
        self.limiter.stats()
    }

    /// Answers one message of a handshake from `peer`, whose certificate is verified.
    ///
    /// What costs least comes first (threat 32): the peer's limit, whatever the message is; its size and form;
    /// offer, time and replay, of public bytes; a place among those under way, waiting ones too; and then the private key,
    /// off the request threads.
    ///
    /// # Errors
    ///
    /// [`Refused`]; what it says to the peer is the same for all that fails after the cheap checks.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the place back once the private key's work is done, if that had begun; what the peer paid
    /// stays paid.
    pub async fn handshake<B>(
        &self,
        peer: &PeerId,
        request: Request<B>,
    ) -> Result<Response<Body>, Refused>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        if let Err(limited) = self.limiter.admit(peer, instant()) {
            discard(request.into_body()).await;
            return Err(limited.into());
        }
        let message = first_message(request.into_body()).await?;
        if message.is_empty() {
            self.limiter.give_back(peer);
            let responder = self.responders.current();
            return Ok(handshake_answer(responder.offer()));
        }
        if let Some(id) = resumed_session_of(&message) {
            return self.resume(peer, &id, &message);
        }
        let checked = self.responders.check(&message, (self.now(), instant()));
        let (responder, checked) = checked.map_err(|error| {
            // Whoever knew us before a restart can't know better.
            if matches!(error, mesh_session::Error::StaleOffer) {
                self.limiter.give_back(peer);
            }
            not_accepted(error)
        })?;
        let place = self.limiter.begin(peer)?;
        let slots = Arc::clone(&self.slots);
        let slot = slots.acquire_owned().await.map_err(not_accepted)?;
        let trust = self.trust.load(Ordering::SeqCst);
        let (verifier, now) = (Arc::clone(&self.verifier), self.now());
        let (token, peer) = ((self.token)(peer.as_str()), peer.clone());
        let work = move || {
            let answered = responder.respond(&checked, &token, &*verifier, now);
            let answered = answered.map_err(refused).and_then(|(reply, session)| {
                if session.peer_name() == peer.as_str() {
                    Ok((reply, session))
                } else {
                    Err(Refused::WrongPeer)
                }
            });
            // Settled by the work itself: it goes on where the peer has reset its stream, and a peer that does so at once
            // must not get another place for that (threats 32 and 34).
            settle(place, answered.as_ref().err());
            drop(slot);
            answered
        };
        let answered = self.tasks.blocking(work).await.map_err(not_accepted)?;
        let (reply, session) = answered?;
        self.keep(session, trust)?;
        Ok(handshake_answer(&reply))
    }

    /// Answers a resumption: no private key, a tenth of a millisecond, right here.
    fn resume(
        &self,
        peer: &PeerId,
        id: &SessionId,
        message: &[u8],
    ) -> Result<Response<Body>, Refused> {
        let trust = self.trust.load(Ordering::SeqCst);
        let session = self.session_of(peer, id).inspect_err(|refused| {
            // Whoever knew us before a restart can't know better.
            if matches!(refused, Refused::NoSession) {
                self.limiter.give_back(peer);
            }
        })?;
        let token = (self.token)(peer.as_str());
        let responder = self.responders.current();
        let resumed = (&*session, message);
        let (reply, session) = responder
            .resume(resumed, &token, &*self.verifier, self.now())
            .map_err(|error| match error {
                // What was resumed lately may not be forgotten; a handshake is remembered elsewhere.
                mesh_session::Error::Busy => Refused::NoSession,
                other => not_accepted(other),
            })?;
        self.limiter.give_back(peer);
        self.keep(session, trust)?;
        Ok(handshake_answer(&reply))
    }

    /// Ends a session of `peer`, which asks for it with an exchange on [`CLOSE_ROUTE`].
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub async fn close(
        &self,
        peer: &PeerId,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refused> {
        let mut records = Records::new(request.into_body());
        let (session, mut record) = self.first_record(peer, &mut records).await?;
        let (_, opener, _) = session
            .accept(CLOSE_ROUTE.as_bytes(), &mut record, instant())
            .map_err(not_accepted)?;
        if !opener.is_ended() || !record.is_empty() {
            return Err(not_accepted("there is something in the end of the session"));
        }
        drop(self.table.remove(&session.id()));
        let mut response = grpc(Body::empty());
        let ok = HeaderValue::from_static("0");
        response.headers_mut().insert("grpc-status", ok);
        Ok(response)
    }

    /// The first record of an exchange, and the session of `peer` that it says it belongs to.
    ///
    /// Nothing is authentic before the whole of it is there, so what may wait for its end is bounded: by time, and to
    /// peers that have the session which its front names (threat 39).
    async fn first_record(
        &self,
        peer: &PeerId,
        records: &mut Records,
    ) -> Result<(Arc<Session>, BytesMut), Refused> {
        let first = self.first_record_of(peer, records);
        let first = tokio::time::timeout(FIRST_RECORD_DEADLINE, first).await;
        first.map_err(not_accepted)?
    }

    async fn first_record_of(
        &self,
        peer: &PeerId,
        records: &mut Records,
    ) -> Result<(Arc<Session>, BytesMut), Refused> {
        let none = || not_accepted("the exchange has no record");
        let id = poll_fn(|cx| records.poll_session(cx)).await;
        let id = id.map_err(not_accepted)?.ok_or_else(none)?;
        let known = match self.session_of(peer, &id) {
            Ok(session) => session,
            Err(refused) => {
                records.skip().await;
                return Err(refused);
            }
        };
        let mut has_waited = false;
        let first = poll_fn(|cx| {
            let first = records.poll_next(cx);
            has_waited |= first.is_pending();
            first
        });
        let first = first.await.map_err(not_accepted)?.ok_or_else(none)?;
        // It may have ended meanwhile, by the peer's wish or ours.
        let session = if has_waited {
            self.session_of(peer, &id)?
        } else {
            known
        };
        Ok((session, first))
    }

    /// The session with this id, if it is one of `peer`.
    fn session_of(&self, peer: &PeerId, id: &SessionId) -> Result<Arc<Session>, Refused> {
        let session = self.table.get(id, instant()).ok_or(Refused::NoSession)?;
        if session.peer_name() == peer.as_str() {
            Ok(session)
        } else {
            Err(Refused::WrongPeer)
        }
    }

    /// Opens the request in an exchange from `peer`.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub async fn open(&self, peer: &PeerId, request: Request<Body>) -> Result<Opened, Refused> {
        let (outer, body) = request.into_parts();
        let mut records = Records::new(body);
        let (session, mut first) = self.first_record(peer, &mut records).await?;
        let route = outer
            .headers
            .get(MESH_SERVICE)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        let accepted = session
            .accept(route, &mut first, instant())
            .map_err(not_accepted)?;
        let (sealer, opener, record) = accepted;
        let request = assemble(records, opener, (record.flags, first)).map_err(not_accepted)?;
        Ok(Opened {
            request,
            session,
            sealer,
        })
    }

    fn now(&self) -> UnixTime {
        let since = (self.clock)()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Debug for SessionServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionServer")
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}

impl Opened {
    /// Seals `answer` into the exchange that the request came in.
    ///
    /// # Errors
    ///
    /// When the head of the answer is too large to be sealed.
    pub fn seal(sealer: Sealer, answer: Response<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = answer.into_parts();
        let mut sealed_head = BytesMut::with_capacity(HEAD_CAPACITY);
        head::put_answer(&mut sealed_head, &parts)?;
        Ok(grpc(Body::boxed(SealedBody::new(
            Side::Answer,
            sealed_head,
            body,
            sealer,
        ))))
    }

    /// The request, its session, and the sealer of its answer.
    pub fn into_parts(self) -> (Request<Body>, Arc<Session>, Sealer) {
        (self.request, self.session, self.sealer)
    }
}

impl From<Limited> for Refused {
    fn from(limited: Limited) -> Self {
        Self::Busy(limited)
    }
}

/// Lets a message pass by. Answering without that resets the stream, and after a thousand resets the library ends the
/// connection, with all the calls on it (its `max_local_error_reset_streams`).
async fn discard<B>(body: B)
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    let mut body = pin!(http_body_util::Limited::new(body, MAX_HANDSHAKE_BYTES));
    let whole = async { while let Some(Ok(_)) = body.frame().await {} };
    // Who sends no end in time has its stream reset after all.
    tokio::time::timeout(MESSAGE_DEADLINE, whole)
        .await
        .unwrap_or_default();
}

/// The one message of a handshake in a request, in its size and form.
async fn first_message<B>(body: B) -> Result<BytesMut, Refused>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    let whole = http_body_util::Limited::new(body, MAX_HANDSHAKE_BYTES).collect();
    let body = tokio::time::timeout(MESSAGE_DEADLINE, whole)
        .await
        .map_err(not_accepted)?
        .map_err(not_accepted)?;
    let mut decoder = Decoder::default();
    decoder.push(body.to_bytes());
    let message = decoder.next().map_err(not_accepted)?;
    if decoder.is_empty() {
        Ok(message.unwrap_or_default())
    } else {
        Err(not_accepted("there is more than one message in it"))
    }
}

/// Who made the private key work for nothing pays for it; what is our fault, or only took too long here, is not charged.
fn settle(place: Place<PeerId>, refused: Option<&Refused>) {
    match refused {
        Some(Refused::NotAccepted(source)) if !is_ours(source) => place.fail(instant()),
        Some(Refused::WrongPeer) => place.fail(instant()),
        _ => drop(place),
    }
}

/// Too late for its turn, our token too long, or our engine failing. What a peer's bytes do to a key is none of these.
fn is_ours(source: &BoxError) -> bool {
    use mesh_session::Error;
    matches!(
        source.downcast_ref(),
        Some(Error::Clock { .. } | Error::TooLong { .. } | Error::Crypto(_))
    )
}

fn refused(error: mesh_session::Error) -> Refused {
    match error {
        // The replay cache is full: nothing may be forgotten, so nothing more is answered for a while.
        mesh_session::Error::Busy => Refused::Busy(Limited::Busy),
        other => not_accepted(other),
    }
}

fn not_accepted(source: impl Into<BoxError>) -> Refused {
    Refused::NotAccepted(source.into())
}

fn assemble(
    records: Records,
    opener: mesh_session::Opener,
    (flags, first): (mesh_session::Flags, BytesMut),
) -> Result<Request<Body>, head::HeadError> {
    let mut first = open::parts(flags, first)?;
    let mut head = head::request(&first.head.take().ok_or(head::HeadError)?)?;
    let length = Length::of(&mut head.headers)?;
    let body = OpenedBody::body(records, opener, first, length)?;
    Ok(Request::from_parts(head, body))
}

/// One message, then the status that gRPC ends with.
fn handshake_answer(message: &[u8]) -> Response<Body> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let message = Full::new(frame::message(message)).map_err(BoxError::from);
    grpc(Body::boxed(
        message.with_trailers(std::future::ready(Some(Ok(trailers)))),
    ))
}

fn grpc(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    response
}

/// Most heads fit.
const HEAD_CAPACITY: usize = 512;
/// A first message is sent in one piece; who needs longer is slow on purpose (threat 33).
const MESSAGE_DEADLINE: Duration = Duration::from_secs(5);
/// An honest first record is sealed before its first byte is sent, so its time is that of the way alone: at most 128 KiB of
/// head and data, at 13 KiB a second. A body that is slow to come does not hold it up. Twice what a handshake's message has,
/// for it shares the connection with other calls.
const FIRST_RECORD_DEADLINE: Duration = Duration::from_secs(10);
