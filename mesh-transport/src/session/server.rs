//! The called side: answers handshakes, bounded, and opens sealed requests.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Limited;
use mesh_session::Responder;
use mesh_session::Sealer;
use mesh_session::Session;
use mesh_session::SessionTable;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;
use mesh_session::session_id_of;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::body::Body;
use crate::error::BoxError;
use crate::session::MAX_HANDSHAKE_BYTES;
use crate::session::MESH_SERVICE;
use crate::session::TokenFor;
use crate::session::frame;
use crate::session::frame::Decoder;
use crate::session::head;
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
    /// Handshakes whose private-key work may run at once. Default 1: with two cores, one stays for calls.
    pub max_handshakes: usize,
    /// Handshakes of one peer that may be under way at once. Default 8.
    pub max_handshakes_per_peer: usize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            max_handshakes: 1,
            max_handshakes_per_peer: 8,
        }
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
    /// Too many handshakes are under way.
    #[error("too many handshakes are under way")]
    Busy,
    /// It could not be opened, or is not of the form it must have.
    #[error("the message was not accepted")]
    NotAccepted(#[source] BoxError),
}

/// Answers the secure-session service for one node.
pub struct SessionServer {
    responder: Arc<ArcSwap<Responder>>,
    verifier: Arc<dyn VerifyPeer>,
    token: Arc<TokenFor>,
    table: Arc<SessionTable>,
    slots: Arc<Semaphore>,
    config: SessionConfig,
    under_way: Arc<Mutex<HashMap<PeerId, usize>>>,
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
    /// A server for what `responder` holds; peers are judged by `verifier`, sessions kept in `table`, and `token`
    /// gives what is shown to a peer by its name.
    pub fn new(
        responder: Arc<ArcSwap<Responder>>,
        (verifier, token): (Arc<dyn VerifyPeer>, Arc<TokenFor>),
        table: Arc<SessionTable>,
        (config, clock): (SessionConfig, fn() -> SystemTime),
        tasks: Tasks,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(config.max_handshakes));
        Self {
            responder,
            verifier,
            token,
            table,
            slots,
            config,
            under_way: Arc::default(),
            clock,
            tasks,
        }
    }

    /// The sessions.
    pub fn table(&self) -> &Arc<SessionTable> {
        &self.table
    }

    /// Answers one message of a handshake from `peer`, whose certificate is verified.
    ///
    /// # Errors
    ///
    /// [`Refused`]; what it says to the peer is the same for all that fails after the cheap checks.
    pub async fn handshake<B>(
        &self,
        peer: &PeerId,
        request: Request<B>,
    ) -> Result<Response<Body>, Refused>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let not_accepted = |source: BoxError| Refused::NotAccepted(source);
        let body = Limited::new(request.into_body(), MAX_HANDSHAKE_BYTES)
            .collect()
            .await
            .map_err(not_accepted)?;
        let mut decoder = Decoder::default();
        decoder.push(body.to_bytes());
        let message = decoder
            .next()
            .map_err(|source| not_accepted(source.into()))?
            .unwrap_or_default();
        let responder = self.responder.load_full();
        if message.is_empty() {
            return Ok(grpc(Body::from(frame::message(responder.offer()))));
        }
        // Cheap checks first, then a place: the private-key work costs sixty times what it costs to ask for.
        let checked = responder
            .check(&message, self.now())
            .map_err(|source| not_accepted(source.into()))?;
        let place = self.place(peer)?;
        let slots = Arc::clone(&self.slots);
        let slot = slots
            .acquire_owned()
            .await
            .map_err(|source| not_accepted(source.into()))?;
        let (verifier, now) = (Arc::clone(&self.verifier), self.now());
        let token = (self.token)(peer.as_str());
        let work = move || {
            // Given back by the work itself: it goes on where the peer has reset its stream, and a peer that does so at
            // once must not get another place for that (threats 32 and 34).
            let _places = (place, slot);
            responder.respond(&checked, &token, &*verifier, now)
        };
        let answered = self
            .tasks
            .blocking(work)
            .await
            .map_err(|source| not_accepted(source.into()))?;
        let (reply, session) = answered.map_err(|source| not_accepted(source.into()))?;
        if session.peer_name() != peer.as_str() {
            return Err(Refused::WrongPeer);
        }
        drop(self.table.insert(Arc::new(session), instant()));
        Ok(grpc(Body::from(frame::message(&reply))))
    }

    /// Opens the request in an exchange from `peer`.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub async fn open(&self, peer: &PeerId, request: Request<Body>) -> Result<Opened, Refused> {
        let not_accepted = |source: BoxError| Refused::NotAccepted(source);
        let (outer, body) = request.into_parts();
        let mut records = Records::new(body);
        let first = poll_fn(|cx| records.poll_next(cx))
            .await
            .map_err(not_accepted)?;
        let mut first = first.ok_or_else(|| not_accepted("the exchange has no record".into()))?;
        let id = session_id_of(&first).map_err(|source| not_accepted(source.into()))?;
        let session = self.table.get(&id, instant()).ok_or(Refused::NoSession)?;
        if session.peer_name() != peer.as_str() {
            return Err(Refused::WrongPeer);
        }
        let route = outer
            .headers
            .get(MESH_SERVICE)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        let accepted = session
            .accept(route, &mut first)
            .map_err(|source| not_accepted(source.into()))?;
        let (sealer, opener, record) = accepted;
        let request = assemble(records, opener, (record.flags, first))
            .map_err(|source| not_accepted(source.into()))?;
        Ok(Opened {
            request,
            session,
            sealer,
        })
    }

    fn place(&self, peer: &PeerId) -> Result<Place, Refused> {
        let mut under_way = self.under_way.lock();
        let count = under_way.entry(peer.clone()).or_default();
        if *count >= self.config.max_handshakes_per_peer {
            return Err(Refused::Busy);
        }
        *count += 1;
        Ok(Place {
            under_way: Arc::clone(&self.under_way),
            peer: peer.clone(),
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
            .field("config", &self.config)
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

/// One handshake of a peer under way.
struct Place {
    under_way: Arc<Mutex<HashMap<PeerId, usize>>>,
    peer: PeerId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock();
        if let Some(count) = under_way.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.peer);
            }
        }
    }
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

fn instant() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
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
