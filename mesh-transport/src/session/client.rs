//! The calling side: agrees on a session over a connection and sends requests sealed in it.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header;
use http_body::Body as _;
use http_body_util::BodyExt;
use http_body_util::Limited;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::Local;
use mesh_session::PeerKey;
use mesh_session::Resuming;
use mesh_session::Sealer;
use mesh_session::Session;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;
use parking_lot::Mutex;

use crate::body::Body;
use crate::connect::Failures;
use crate::error::BoxError;
use crate::error::Error;
use crate::peer::PeerConnection;
use crate::peer::PeerPool;
use crate::peer::Unsent;
use crate::session::BUSY;
use crate::session::CALL_PATH;
use crate::session::CLOSE_ROUTE;
use crate::session::HANDSHAKE_PATH;
use crate::session::MAX_HANDSHAKE_BYTES;
use crate::session::MESH_PROCESSED;
use crate::session::MESH_SERVICE;
use crate::session::NO_SESSION;
use crate::session::STREAM_PATH;
use crate::session::TokenFor;
use crate::session::frame;
use crate::session::frame::Decoder;
use crate::session::head;
use crate::session::instant;
use crate::session::open;
use crate::session::open::Length;
use crate::session::open::OpenedBody;
use crate::session::open::Records;
use crate::session::pause::Pause;
use crate::session::pause::PeerBusy;
use crate::session::pause::is_busy;
use crate::session::seal::SealedBody;
use crate::session::seal::Side;
use crate::tasks::Tasks;

/// Agrees on sessions in the name of this node.
#[derive(Clone)]
pub struct SessionClient {
    local: Arc<ArcSwap<Local>>,
    token: Arc<TokenFor>,
    timeout: Duration,
    clock: fn() -> SystemTime,
    tasks: Tasks,
}

/// The connections to one endpoint, each with a session of its own.
#[derive(Debug)]
pub struct SessionPool {
    client: SessionClient,
    connections: PeerPool,
    verifier: Arc<dyn VerifyPeerDebug>,
    /// Whether the other end of the connection may be somebody else than that of the session.
    doubts_unsealed: bool,
    /// The peer's key, verified before: saves a round trip until it is refused.
    known: Mutex<Option<Known>>,
    /// The session agreed on last: another connection's session can follow it without a private key.
    last: Mutex<Option<Last>>,
    open: ArcSwap<Vec<Kept>>,
    handshaking: tokio::sync::Mutex<()>,
    failures: Failures,
    pause: Pause,
}

/// A verifier that can stand in a structure with `Debug`.
pub trait VerifyPeerDebug: VerifyPeer + fmt::Debug {}
impl<T: VerifyPeer + fmt::Debug> VerifyPeerDebug for T {}

/// A key that was verified under one generation of our trust, and is verified anew when a session would be.
#[derive(Clone, Debug)]
struct Known {
    key: PeerKey,
    generation: u64,
    until: SystemTime,
}

/// A session of one generation of our trust: what follows it inherits that trust, so it ends with it.
#[derive(Clone, Debug)]
struct Last {
    session: Arc<Session>,
    generation: u64,
}

/// A session that is kept for the next call. It does not keep its connection: one that leaves its pool is to close.
#[derive(Clone, Debug)]
struct Kept {
    connection: Weak<PeerConnection>,
    session: Arc<Session>,
    until: SystemTime,
}

struct Entry {
    connection: Arc<PeerConnection>,
    session: Arc<Session>,
}

impl SessionClient {
    /// A client for the identity in `local`. `token` gives what is shown to a peer by its name; sessions are given
    /// up after `timeout`.
    pub fn new(
        local: Arc<ArcSwap<Local>>,
        token: Arc<TokenFor>,
        (timeout, clock): (Duration, fn() -> SystemTime),
        tasks: Tasks,
    ) -> Self {
        Self {
            local,
            token,
            timeout,
            clock,
            tasks,
        }
    }

    /// A pool of sessions over `connections` with a peer that `verifier` accepts.
    pub fn pool(&self, connections: PeerPool, verifier: Arc<dyn VerifyPeerDebug>) -> SessionPool {
        SessionPool {
            client: self.clone(),
            connections,
            verifier,
            doubts_unsealed: false,
            known: Mutex::new(None),
            last: Mutex::new(None),
            open: ArcSwap::default(),
            handshaking: tokio::sync::Mutex::new(()),
            failures: Failures::default(),
            pause: Pause::default(),
        }
    }
}

impl fmt::Debug for SessionClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionClient")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl SessionPool {
    /// Believes nothing that comes unsealed: for a peer whose key is pinned.
    ///
    /// A node refuses what it can't open before there is a session to seal the refusal in: `no_session` after a restart, a
    /// change of its trust or too long a time, or a record that is not accepted; or it leaves, and says so by HTTP/2. What
    /// came of the request then is said by whoever ends the TLS of the connection.
    ///
    /// Where the certificate of that connection is also what vouches for the key of the session, this is nobody else: who
    /// has its private key, could have ended the session as well, and said the same in it, sealed. So it is believed, and a
    /// request that is not safe to repeat outlives the end of a session. A key that is pinned is trusted for more than a
    /// certificate; there a hop with the certificate could pass the request on, say that nothing was done, and have it done
    /// twice. No honest refusal can be told from that one, so none is believed: such a request fails, and may have been
    /// done.
    #[must_use]
    pub fn doubting_unsealed(self) -> Self {
        Self {
            doubts_unsealed: true,
            ..self
        }
    }

    /// Sends `request` to `service`, sealed. Where the peer was leaving just then, so that the connection took nothing
    /// more, it goes out on another one.
    ///
    /// # Errors
    ///
    /// [`Unsent`], with the request where not a byte of it was sent.
    pub async fn send(
        &self,
        service: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, Unsent> {
        match self.send_once(service, request).await {
            Err(Unsent {
                error: Error::Unprocessed { .. },
                request: Some(request),
            }) => self.send_once(service, *request).await,
            other => other,
        }
    }

    async fn send_once(
        &self,
        service: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, Unsent> {
        let entry = match self.entry().await {
            Ok(entry) => entry,
            Err(error) => return Err(Unsent::whole(error, request)),
        };
        let sent = self.exchange(&entry, service, request).await;
        if let Err(Unsent {
            error: Error::Session { .. },
            ..
        }) = &sent
        {
            self.forget(&entry);
        }
        sent
    }

    async fn exchange(
        &self,
        entry: &Entry,
        service: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, Unsent> {
        let connection = &entry.connection;
        let failed = |source: BoxError| Error::Session {
            destination: connection.destination().to_owned(),
            source,
        };
        let (parts, body) = request.into_parts();
        let is_to_head = parts.method == http::Method::HEAD;
        let mut sealed_head = BytesMut::with_capacity(HEAD_CAPACITY);
        if let Err(source) = head::put_request(&mut sealed_head, &parts) {
            let source = source.into();
            let request = Request::from_parts(parts, body);
            return Err(Unsent::whole(Error::Unsealable { source }, request));
        }
        let (sealer, opener) = match entry.session.begin(service.as_bytes(), instant()) {
            Ok(pair) => pair,
            Err(source) => {
                let request = Request::from_parts(parts, body);
                return Err(Unsent::whole(failed(source.into()), request));
            }
        };
        // Both carry the same records; a body that is over with its head is sure to fit into one.
        let path = if body.is_end_stream() {
            CALL_PATH
        } else {
            STREAM_PATH
        };
        let sealed_body = SealedBody::new(Side::Request, sealed_head, body, sealer);
        let body = Body::wrapped(Box::new(sealed_body));
        let request =
            outer(path, Some(service), body).map_err(|source| Error::Unsealable { source })?;
        let response = match connection.send(request).await {
            Ok(response) => response,
            Err(unsent) => {
                let outer = unsent.request.map(|outer| outer.into_body());
                return Err(match outer.and_then(Body::unwrapped) {
                    Some(body) => Unsent::whole(unsent.error, Request::from_parts(parts, body)),
                    // Some of it was sent: that nothing was done is what the other end says.
                    None => self.doubt(unsent.error).into(),
                });
            }
        };
        if let Err(source) = refusal(&response) {
            // Only what says so was refused before anything was done; the rest must not be repeated (threat 43).
            let said = response.headers().get(MESH_PROCESSED);
            if said.is_none_or(|said| said != "no") {
                return Err(Error::Exchange { source }.into());
            }
            self.forget(entry);
            return Err(self.doubt(failed(source)).into());
        }
        answer(response.into_body(), opener, is_to_head)
            .await
            .map_err(|source| Error::Exchange { source }.into())
    }

    /// What is left of `error` where what comes unsealed is not believed.
    fn doubt(&self, error: Error) -> Error {
        match error {
            Error::Session { source, .. } | Error::Unprocessed { source }
                if self.doubts_unsealed =>
            {
                Error::Exchange { source }
            }
            error => error,
        }
    }

    /// The connections below the sessions.
    pub fn connections(&self) -> &PeerPool {
        &self.connections
    }

    async fn entry(&self) -> Result<Entry, Error> {
        let connection = self.connections.connection().await?;
        if let Some(entry) = self.find(&connection) {
            return Ok(entry);
        }
        // Boxed, so that the future of each request is not as large as a handshake.
        Box::pin(self.agree_anew(connection)).await
    }

    async fn agree_anew(&self, connection: Arc<PeerConnection>) -> Result<Entry, Error> {
        let failures = self.failures.count();
        let _handshaking = self.handshaking.lock().await;
        if let Some(entry) = self.find(&connection) {
            return Ok(entry);
        }
        if let Some(error) = self.failures.since(failures) {
            return Err(error);
        }
        // Taken before anything is verified: what is agreed on while our trust changes counts as of the trust before.
        let generation = self.connections.generation();
        let handshake = self.handshake_in_time(&connection);
        let agreed = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
        let agreed = agreed.unwrap_or_else(|elapsed| Err(failed(&connection, elapsed)));
        let session = Arc::new(agreed.inspect_err(|error| self.failures.note(error))?);
        *self.last.lock() = Some(Last {
            session: Arc::clone(&session),
            generation,
        });
        let kept = Kept {
            connection: Arc::downgrade(&connection),
            session: Arc::clone(&session),
            until: self.until(&session),
        };
        self.keep(|open| {
            // The session that this one follows on the same connection is used up.
            open.retain(|other| !other.connection.ptr_eq(&kept.connection));
            open.push(kept.clone());
        });
        Ok(Entry {
            connection,
            session,
        })
    }

    /// Resumption does not make a session older than a handshake would.
    fn until(&self, session: &Session) -> SystemTime {
        let since = Duration::from_millis(session.authenticated().as_millis());
        SystemTime::UNIX_EPOCH
            .checked_add(since + self.client.timeout)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Tells the peer that nothing more comes in the open sessions, so that it forgets them. What the peer answers, or
    /// that it does not, changes nothing.
    pub async fn close(&self) {
        let open = self.open.swap(Arc::default());
        *self.last.lock() = None;
        for kept in &**open {
            let Some(connection) = kept.connection.upgrade() else {
                continue;
            };
            if let Err(error) = close(&connection, &kept.session).await {
                tracing::debug!(error = %error, "the peer was not told that a session is over");
            }
        }
    }

    fn find(&self, connection: &Arc<PeerConnection>) -> Option<Entry> {
        let open = self.open.load();
        let kept = open
            .iter()
            .find(|kept| kept.connection.as_ptr() == Arc::as_ptr(connection))?;
        let is_over = kept.session.is_exhausted() || kept.until <= (self.client.clock)();
        (!is_over).then(|| Entry {
            connection: Arc::clone(connection),
            session: Arc::clone(&kept.session),
        })
    }

    fn forget(&self, entry: &Entry) {
        self.keep(|open| open.retain(|other| !Arc::ptr_eq(&other.session, &entry.session)));
    }

    fn keep(&self, change: impl Fn(&mut Vec<Kept>)) {
        let now = (self.client.clock)();
        self.open.rcu(|open| {
            let mut open = Vec::clone(open);
            open.retain(|kept| {
                let connection = kept.connection.upgrade();
                kept.until > now
                    && connection.is_some_and(|connection| self.connections.is_usable(&connection))
            });
            change(&mut open);
            open
        });
    }

    /// A handshake, begun no earlier than the peer wants it: where it is busy, one of this pool's callers asks again and
    /// the others wait (threat 32).
    async fn handshake_in_time(&self, connection: &PeerConnection) -> Result<Session, Error> {
        let mut left = BUSY_ATTEMPTS;
        loop {
            self.pause
                .over()
                .await
                .map_err(|busy| failed(connection, busy))?;
            left -= 1;
            match self.handshake(connection).await {
                Err(Error::Session { source, .. }) if left > 0 && source.is::<PeerBusy>() => {}
                agreed => return agreed,
            }
        }
    }

    /// One round trip where there was a session or the peer's key is known, else two.
    async fn handshake(&self, connection: &PeerConnection) -> Result<Session, Error> {
        let generation = self.connections.generation();
        let last = self.last.lock().clone();
        let is_young = |last: &Last| {
            last.generation == generation && self.until(&last.session) > (self.client.clock)()
        };
        if let Some(Last { session, .. }) = last.filter(is_young) {
            match self.resume(connection, session).await {
                Ok(session) => return Ok(session),
                Err(error) if is_busy(&error) => return Err(error),
                // It may have restarted, or forgotten the session.
                Err(error) => {
                    tracing::debug!(%error, "the session before could not be resumed");
                    *self.last.lock() = None;
                }
            }
        }
        let known = self.known.lock().clone();
        let is_fresh =
            |known: &Known| known.generation == generation && known.until > (self.client.clock)();
        if let Some(Known { key, .. }) = known.filter(is_fresh) {
            match self.agree(connection, key).await {
                Ok(session) => return Ok(session),
                Err(error) if is_busy(&error) => return Err(error),
                // It may have restarted with another key or offer.
                Err(error) => {
                    tracing::debug!(%error, "handshake with the key known before failed");
                    *self.known.lock() = None;
                }
            }
        }
        let offer = self.round_trip(connection, Bytes::new()).await?;
        let local = self.client.local.load_full();
        let verifier = Arc::clone(&self.verifier);
        let judged = self
            .client
            .tasks
            .blocking(move || PeerKey::from_offer(&local, &offer, &*verifier))
            .await;
        let key = judged
            .map_err(|source| failed(connection, source))?
            .map_err(|source| failed(connection, source))?;
        let agreed = self.agree(connection, key.clone()).await;
        // A busy peer's key is as good later.
        if agreed.as_ref().err().is_none_or(is_busy) {
            let until = (self.client.clock)() + self.client.timeout;
            *self.known.lock() = Some(Known {
                key,
                generation,
                until,
            });
        }
        agreed
    }

    /// One message of a handshake to the peer and one back.
    async fn round_trip(
        &self,
        connection: &PeerConnection,
        message: Bytes,
    ) -> Result<Bytes, Error> {
        round_trip(connection, message).await.map_err(|source| {
            self.pause.note(&source, tokio::time::Instant::now());
            failed(connection, source)
        })
    }

    /// A session that follows `session`, without a private key.
    async fn resume(
        &self,
        connection: &PeerConnection,
        session: Arc<Session>,
    ) -> Result<Session, Error> {
        let local = self.client.local.load_full();
        let token = (self.client.token)(session.peer_name());
        let clock = self.client.clock;
        let (resuming, message) = Resuming::start(&local, &session, &token, unix(clock()))
            .map_err(|source| failed(connection, source))?;
        let reply = self.round_trip(connection, Bytes::from(message)).await?;
        resuming
            .finish(&reply, &*self.verifier, unix(clock()))
            .map_err(|source| failed(connection, source))
    }

    async fn agree(&self, connection: &PeerConnection, key: PeerKey) -> Result<Session, Error> {
        let local = self.client.local.load_full();
        let token = (self.client.token)(key.name());
        let clock = self.client.clock;
        // Private-key work stays off the request threads.
        let started = self
            .client
            .tasks
            .blocking(move || Initiator::start(&local, &key, &token, unix(clock())))
            .await;
        let (initiator, init) = started
            .map_err(|source| failed(connection, source))?
            .map_err(|source| failed(connection, source))?;
        let reply = self.round_trip(connection, Bytes::from(init)).await?;
        let verifier = Arc::clone(&self.verifier);
        let finished = self
            .client
            .tasks
            .blocking(move || initiator.finish(&reply, &*verifier, unix(clock())))
            .await;
        finished
            .map_err(|source| failed(connection, source))?
            .map_err(|source| failed(connection, source))
    }
}

fn failed(connection: &PeerConnection, source: impl Into<BoxError>) -> Error {
    Error::Session {
        destination: connection.destination().to_owned(),
        source: source.into(),
    }
}

/// One message of a handshake to the peer and one back.
async fn round_trip(connection: &PeerConnection, message: Bytes) -> Result<Bytes, BoxError> {
    let request = outer(HANDSHAKE_PATH, None, Body::from(frame::message(&message)))?;
    let response = connection
        .send(request)
        .await
        .map_err(|unsent| unsent.error)?;
    refusal(&response)?;
    let body = Limited::new(response.into_body(), MAX_HANDSHAKE_BYTES)
        .collect()
        .await?;
    let mut decoder = Decoder::default();
    decoder.push(body.to_bytes());
    Ok(decoder
        .next()?
        .ok_or("the peer sent no handshake message")?
        .freeze())
}

/// Ends a session at the peer: an exchange on a route of its own, with nothing in it.
async fn close(connection: &PeerConnection, session: &Arc<Session>) -> Result<(), BoxError> {
    let (mut sealer, _) = session.begin(CLOSE_ROUTE.as_bytes(), instant())?;
    let mut record = BytesMut::zeroed(Sealer::HEADER_ROOM);
    sealer.seal(Flags::END, &mut record)?;
    let body = Body::from(frame::message(&record));
    let request = outer(CALL_PATH, Some(CLOSE_ROUTE), body)?;
    let sent = tokio::time::timeout(CLOSE_TIMEOUT, connection.send(request)).await?;
    sent.map(|_| ()).map_err(|unsent| unsent.error.into())
}

async fn answer(
    body: Body,
    mut opener: mesh_session::Opener,
    is_to_head: bool,
) -> Result<Response<Body>, BoxError> {
    let mut records = Records::new(body);
    let first = poll_fn(|cx| records.poll_next(cx)).await?;
    let mut first = first.ok_or("the peer ended the exchange without an answer")?;
    let flags = opener.open(&mut first)?;
    let mut first = open::parts(flags, first)?;
    if first.is_end {
        poll_fn(|cx| records.poll_end(cx)).await;
    }
    let mut head = head::answer(&first.head.take().ok_or(head::HeadError)?)?;
    let length = Length::of(&mut head.headers)?;
    // Such an answer speaks of the length that a body would have, and has none (RFC 9110 sections 9.3.2 and 15.4.5).
    let body = if is_to_head || head.status == http::StatusCode::NOT_MODIFIED {
        Body::empty()
    } else {
        OpenedBody::body(records, opener, first, length)?
    };
    Ok(Response::from_parts(head, body))
}

fn outer(path: &'static str, service: Option<&str>, body: Body) -> Result<Request<Body>, BoxError> {
    let mut request = Request::post(path).body(body)?;
    let headers = request.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Some(service) = service {
        headers.insert(MESH_SERVICE, HeaderValue::try_from(service)?);
    }
    Ok(request)
}

/// A peer that refuses says so in the header block.
fn refusal(response: &Response<Body>) -> Result<(), BoxError> {
    let status = response.headers().get("grpc-status");
    if response.status() == http::StatusCode::OK && status.is_none_or(|status| status == "0") {
        return Ok(());
    }
    let text = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let code = text("x-mesh-error");
    if code == BUSY {
        return Err(PeerBusy::of(response.headers()).into());
    }
    let message = if code == NO_SESSION {
        "the peer does not know the session any more"
    } else {
        text("grpc-message")
    };
    Err(format!(
        "the peer refused ({}, {code}): {message}",
        response.status()
    )
    .into())
}

fn unix(time: SystemTime) -> UnixTime {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A node that leaves does not wait for one that does not answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Long enough for a called node that has some more handshakes before this one, each a few milliseconds of RSA.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Times that a busy peer is asked before calls are told.
const BUSY_ATTEMPTS: u32 = 4;
/// Most heads fit.
const HEAD_CAPACITY: usize = 512;
