//! Connections to other nodes: HTTP/2 over mutual TLS, shared by many requests, replaced when identity changes.

mod lent;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Request;
use http::Response;
use http::request::Parts;
use http_body::Body as _;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::app::absolute;
use crate::body::Body;
use crate::coalesce::Coalesce;
use crate::connect::Failures;
pub use crate::connect::JudgeAddress;
use crate::connect::h2_client;
use crate::connect::tcp;
use crate::error::Error;
use crate::peer::lent::Lender;
use crate::peer::lent::lend;
use crate::server::LAST_WORDS;
use crate::tasks::Tasks;
use crate::tls::LivePeer;
use crate::tls::PeerId;
use crate::tls::TlsIdentity;
use crate::tls::TlsStore;

/// The protocol (ALPN) of connections between nodes that carry the bytes of an application as they are.
pub const TCP_PROTOCOL: &[u8] = b"mesh-tcp/1";

/// How connections to peers are made and kept.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PeerConfig {
    /// Connections kept to one endpoint; a second is opened when the first carries many streams. Default 1.
    pub max_connections: usize,
    /// Streams on the connections there are that make another one worth its handshake. Default 32 each.
    pub streams_before_next: usize,
    /// How long connecting and the TLS handshake may take together. Default 5 s.
    pub connect_timeout: Duration,
    /// Whether the peer must choose `h2` by ALPN. Only proxies that pass on TCP without a look inside need `false`; then
    /// HTTP/2 is spoken to a peer that chose nothing. Default true.
    pub requires_alpn: bool,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            max_connections: 1,
            streams_before_next: 32,
            connect_timeout: Duration::from_secs(5),
            requires_alpn: true,
        }
    }
}

/// A request that got no answer.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unsent {
    /// What went wrong.
    pub error: Error,
    /// The request whole, where not a byte of it was sent.
    pub request: Option<Box<Request<Body>>>,
}

impl Unsent {
    /// `request` is whole: nothing of it was sent.
    pub(crate) fn whole(error: Error, request: Request<Body>) -> Self {
        Self {
            error,
            request: Some(Box::new(request)),
        }
    }
}

impl From<Error> for Unsent {
    fn from(error: Error) -> Self {
        Self {
            error,
            request: None,
        }
    }
}

/// Makes connections to peers with one identity.
#[derive(Clone, Debug)]
pub struct Dialer {
    tls: Arc<TlsStore>,
    config: PeerConfig,
    tasks: Tasks,
    judge: Option<Arc<dyn JudgeAddress>>,
}

/// The connections to one endpoint. The pool key of the mesh is all in it: destination, expected peer, settings, and,
/// through the generation, our own certificate and trust bundle.
pub struct PeerPool {
    dialer: Dialer,
    destination: String,
    expected: PeerId,
    open: Arc<Open>,
    dialing: tokio::sync::Mutex<()>,
    failures: Failures,
    turn: AtomicUsize,
}

/// The connections of a pool that new calls may use.
type Open = ArcSwap<Vec<Arc<PeerConnection>>>;

/// One connection to a peer whose identity is verified.
pub struct PeerConnection {
    sender: http2::SendRequest<Body>,
    peer: PeerId,
    destination: String,
    generation: u64,
    streams: Arc<()>,
}

impl Dialer {
    /// A dialer that presents what `tls` holds at the time of each connection.
    pub fn new(tls: Arc<TlsStore>, config: PeerConfig, tasks: Tasks) -> Self {
        Self {
            tls,
            config,
            tasks,
            judge: None,
        }
    }

    /// With a judge of where names of destinations may lead. Default anywhere.
    #[must_use]
    pub fn with_judge(self, judge: Arc<dyn JudgeAddress>) -> Self {
        Self {
            judge: Some(judge),
            ..self
        }
    }

    /// The identity that connections are made with.
    pub fn tls(&self) -> &Arc<TlsStore> {
        &self.tls
    }

    /// The pool for the endpoint at `destination` (host and port), which must prove to be `expected`. Opens nothing yet.
    pub fn pool(&self, destination: impl Into<String>, expected: PeerId) -> PeerPool {
        PeerPool {
            dialer: self.clone(),
            destination: destination.into(),
            expected,
            open: Arc::default(),
            dialing: tokio::sync::Mutex::new(()),
            failures: Failures::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Connects to `destination`, which must prove to be `expected`.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`], or [`Error::WrongPeer`] when somebody else answers. Nothing was sent in either case.
    pub async fn dial(
        &self,
        destination: &str,
        expected: &PeerId,
    ) -> Result<PeerConnection, Error> {
        self.dial_for(&Arc::default(), destination, expected).await
    }

    /// A connection that leaves `pool` by itself once new calls must not use it.
    async fn dial_for(
        &self,
        pool: &Arc<Open>,
        destination: &str,
        expected: &PeerId,
    ) -> Result<PeerConnection, Error> {
        let limit = self.config.connect_timeout;
        let dialed = self.dial_unbounded(pool, destination, expected);
        let dialed = tokio::time::timeout(limit, dialed).await;
        dialed.unwrap_or_else(|elapsed| Err(refused(destination, elapsed)))
    }

    async fn dial_unbounded(
        &self,
        pool: &Arc<Open>,
        destination: &str,
        expected: &PeerId,
    ) -> Result<PeerConnection, Error> {
        let current = self.tls.current();
        let client = Arc::clone(current.client());
        let (stream, live) = self
            .verified((&current, client), destination, expected)
            .await?;
        // TLS itself refuses a choice that was not offered.
        if self.config.requires_alpn && stream.get_ref().1.alpn_protocol().is_none() {
            return Err(refused(destination, "the peer chose no protocol by ALPN"));
        }
        let (cut, is_cut) = oneshot::channel();
        let stream = TokioIo::new(Coalesce::new(stream, true).with_cut(is_cut));
        let handshake = h2_client(&self.tasks).handshake(stream).await;
        let (sender, connection) = handshake.map_err(|source| refused(destination, source))?;
        let (peer, streams) = (live.id().clone(), Arc::new(()));
        let place = Place {
            pool: Arc::downgrade(pool),
            streams: Arc::downgrade(&streams),
        };
        self.tasks.start(drive(connection, live, place, cut));
        let destination = destination.to_owned();
        Ok(PeerConnection {
            sender,
            peer,
            destination,
            generation: current.generation(),
            streams,
        })
    }

    /// A connection of its own to `destination`, which must prove to be `expected`, for bytes that are not HTTP: both ends
    /// have agreed on [`TCP_PROTOCOL`]. What comes with it says when the peer is not vouched for any more.
    ///
    /// # Errors
    ///
    /// Those of [`Self::dial`].
    pub async fn stream(
        &self,
        destination: &str,
        expected: &PeerId,
    ) -> Result<(TlsStream<TcpStream>, LivePeer), Error> {
        let current = Arc::clone(&self.tls.current());
        let client = current.client_for(TCP_PROTOCOL);
        let verified = self.verified((&current, client), destination, expected);
        let verified = tokio::time::timeout(self.config.connect_timeout, verified).await;
        let (stream, live) =
            verified.unwrap_or_else(|elapsed| Err(refused(destination, elapsed)))?;
        if stream.get_ref().1.alpn_protocol() != Some(TCP_PROTOCOL) {
            return Err(refused(destination, "the peer carries no plain TCP there"));
        }
        Ok((stream, live))
    }

    /// Makes sure that whoever answers at `destination` proves to be `expected`, for HTTP or for bytes that are not: a whole
    /// TLS handshake, and nothing after it. Whether the peer accepts us it does not tell.
    ///
    /// # Errors
    ///
    /// Those of [`Self::dial`].
    pub async fn verify(&self, destination: &str, expected: &PeerId) -> Result<(), Error> {
        let current = Arc::clone(&self.tls.current());
        let client = current.client_for_each(&[b"h2", TCP_PROTOCOL]);
        let verified = self.verified((&current, client), destination, expected);
        let verified = tokio::time::timeout(self.config.connect_timeout, verified).await;
        let (mut stream, _) =
            verified.unwrap_or_else(|elapsed| Err(refused(destination, elapsed)))?;
        // A courtesy, so that the peer's log has no broken connection.
        drop(stream.shutdown().await);
        Ok(())
    }

    async fn verified(
        &self,
        (current, client): (&TlsIdentity, Arc<ClientConfig>),
        destination: &str,
        expected: &PeerId,
    ) -> Result<(TlsStream<TcpStream>, LivePeer), Error> {
        let limit = self.config.connect_timeout;
        let stream = tcp(destination, limit, self.judge.as_deref()).await?;
        // The name is not what is verified (a SPIFFE id is); TLS only asks that there be one.
        let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
        let connector = TlsConnector::from(client);
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|source| refused(destination, source))?;
        let live = self
            .tls
            .server(current, stream.get_ref().1)
            .map_err(|source| refused(destination, source))?;
        if live.id() != expected {
            return Err(Error::WrongPeer {
                destination: destination.to_owned(),
                found: live.id().to_string(),
                expected: expected.to_string(),
            });
        }
        Ok((stream, live))
    }
}

/// Where a connection stands in its pool.
struct Place {
    pool: Weak<Open>,
    streams: Weak<()>,
}

impl Place {
    /// No new call gets the connection any more. Once those that hold it are done it closes.
    fn leave(&self) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        pool.rcu(|open| {
            let mut open = Vec::clone(open);
            open.retain(|one| Arc::as_ptr(&one.streams) != self.streams.as_ptr());
            open
        });
    }
}

/// Runs `connection` until its stream is gone, which `cut` tells, or [`LAST_WORDS`] after its peer is not vouched for any
/// more. Dropping `cut` cuts the stream.
///
/// `connection` itself ends when nobody can send on it any more; what is in flight then goes on in tasks of the library.
async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    mut live: LivePeer,
    place: Place,
    mut cut: oneshot::Sender<()>,
) {
    let replaced = live.replaced();
    let work = async {
        let sending = async {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a peer ended");
            }
            place.leave();
        };
        // It was made with an identity that is not ours any more: what is in flight finishes.
        let current = async {
            replaced.await;
            place.leave();
        };
        tokio::join!(sending, current);
        std::future::pending::<()>().await;
    };
    let mut work = pin!(work);
    let lost = tokio::select! {
        () = &mut work => return,
        () = cut.closed() => return place.leave(),
        lost = live.ended() => lost,
    };
    place.leave();
    tracing::info!(peer.id = %lost.peer, reason = %lost.source, "a connection ends: its peer is not vouched for any more");
    tokio::select! {
        () = &mut work => {}
        () = cut.closed() => {}
        () = tokio::time::sleep(LAST_WORDS) => {}
    }
    drop(cut);
}

impl PeerPool {
    /// A connection with room, opened first where there is none.
    ///
    /// # Errors
    ///
    /// Those of [`Dialer::dial`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a connection half made is dropped, the next caller starts anew.
    pub async fn connection(&self) -> Result<Arc<PeerConnection>, Error> {
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        // Boxed, so that the future of each request is not as large as a TLS handshake.
        Box::pin(self.open_another()).await
    }

    async fn open_another(&self) -> Result<Arc<PeerConnection>, Error> {
        let failures = self.failures.count();
        let _dialing = self.dialing.lock().await;
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        if let Some(error) = self.failures.since(failures) {
            return Err(error);
        }
        let (pool, destination) = (&self.open, &self.destination);
        let dialed = self
            .dialer
            .dial_for(pool, destination, &self.expected)
            .await;
        let fresh = Arc::new(dialed.inspect_err(|error| self.failures.note(error))?);
        self.open.rcu(|open| {
            let mut open = Vec::clone(open);
            open.push(Arc::clone(&fresh));
            open
        });
        // One whose time was over before it got here has left already, and is not to come back.
        self.open.rcu(|open| {
            let generation = self.dialer.tls.current().generation();
            let mut open = Vec::clone(open);
            open.retain(|one| one.is_usable(generation));
            open
        });
        Ok(fresh)
    }

    /// Sends `request` on a connection with room. Where the peer was leaving just then, so that the connection took
    /// nothing more, it goes out on another one.
    ///
    /// # Errors
    ///
    /// [`Unsent`], with the request where not a byte of it was sent.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Unsent> {
        match self.send_once(request).await {
            Err(Unsent {
                error: Error::Unprocessed { .. },
                request: Some(request),
            }) => self.send_once(*request).await,
            other => other,
        }
    }

    async fn send_once(&self, request: Request<Body>) -> Result<Response<Body>, Unsent> {
        match self.connection().await {
            Ok(connection) => connection.send(request).await,
            Err(error) => Err(Unsent::whole(error, request)),
        }
    }

    fn ready(&self) -> Option<Arc<PeerConnection>> {
        let open = self.open.load();
        let generation = self.dialer.tls.current().generation();
        let config = &self.dialer.config;
        let start = if open.len() > 1 {
            self.turn.fetch_add(1, Ordering::Relaxed)
        } else {
            0
        };
        let usable = (0..open.len()).filter_map(|offset| open.get((start + offset) % open.len()));
        let mut usable = usable.filter(|one| one.is_usable(generation));
        let first = usable.next()?;
        let is_busy = first.streams() >= config.streams_before_next;
        if is_busy
            && open.len() < config.max_connections
            && usable.all(|one| one.streams() >= config.streams_before_next)
        {
            return None;
        }
        Some(Arc::clone(first))
    }

    /// Whether `connection` is open and was made with the identity in use now.
    #[cfg(feature = "session")]
    pub(crate) fn is_usable(&self, connection: &PeerConnection) -> bool {
        connection.is_usable(self.dialer.tls.current().generation())
    }

    /// A connection of its own for bytes that are not HTTP; see [`Dialer::stream`].
    ///
    /// # Errors
    ///
    /// Those of [`Dialer::dial`].
    pub async fn stream(&self) -> Result<(TlsStream<TcpStream>, LivePeer), Error> {
        self.dialer.stream(&self.destination, &self.expected).await
    }

    /// Lets no new call use the connections there are; each closes once those that use it are done.
    pub fn retire(&self) {
        self.open.store(Arc::default());
    }

    /// Who makes the connections.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Host and port.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// The generation of our own identity and trust.
    #[cfg(feature = "session")]
    pub(crate) fn generation(&self) -> u64 {
        self.dialer.tls.current().generation()
    }

    /// Who must answer there.
    pub fn expected(&self) -> &PeerId {
        &self.expected
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.open
            .load()
            .iter()
            .filter(|one| !one.sender.is_closed())
            .count()
    }
}

impl fmt::Debug for PeerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerPool")
            .field("destination", &self.destination)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl PeerConnection {
    /// Sends `request` to the peer.
    ///
    /// # Errors
    ///
    /// [`Unsent`], which tells whether the peer may have acted on it and gives back a request that was not sent.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Unsent> {
        let _stream = Arc::clone(&self.streams);
        *request.version_mut() = http::Version::HTTP_2;
        absolute(&mut request, "peer");
        let (head, lender, request) = lend_body(request);
        let mut sender = self.sender.clone();
        let mut failed = match sender.try_send_request(request).await {
            Ok(response) => return Ok(response.map(Body::from)),
            Err(failed) => failed,
        };
        let returned = failed.take_message();
        let error = failed.into_error();
        let error = if returned.is_some() {
            Error::Unprocessed {
                source: Box::new(error),
            }
        } else {
            Error::exchange(error)
        };
        let is_unprocessed = error.is_unprocessed();
        // The head from here and the body from where it was lent: the library may have dropped both.
        let request = match (lender, returned) {
            (None, returned) => returned,
            (Some(lender), _) if is_unprocessed => lender
                .take_back()
                .map(|body| Request::from_parts(head, body)),
            (Some(_), _) => None,
        };
        Err(Unsent {
            error,
            request: request.map(Box::new),
        })
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// Host and port that were dialed.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// Whether nothing more can be sent on it.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    fn is_usable(&self, generation: u64) -> bool {
        self.generation == generation && !self.sender.is_closed()
    }

    fn streams(&self) -> usize {
        Arc::strong_count(&self.streams) - 1
    }
}

impl fmt::Debug for PeerConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerConnection")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Keeps the means to make a request with a body again: HTTP/2 peers that leave would cost it otherwise.
fn lend_body(request: Request<Body>) -> (Parts, Option<Lender>, Request<Body>) {
    let (head, body) = request.into_parts();
    if body.is_end_stream() {
        let (spare, ()) = Request::new(()).into_parts();
        return (spare, None, Request::from_parts(head, body));
    }
    let (lender, body) = lend(body);
    (head.clone(), Some(lender), Request::from_parts(head, body))
}

fn refused(destination: &str, source: impl Into<crate::error::BoxError>) -> Error {
    Error::Connect {
        destination: destination.to_owned(),
        source: source.into(),
    }
}
