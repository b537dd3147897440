//! Connections to other nodes: HTTP/2 over mutual TLS, shared by many requests, replaced when identity changes.

mod lent;

use std::fmt;
use std::sync::Arc;
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
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::app::absolute;
use crate::body::Body;
use crate::coalesce::Coalesce;
use crate::connect::Failures;
use crate::connect::h2_client;
use crate::connect::tcp;
use crate::error::Error;
use crate::peer::lent::Lender;
use crate::peer::lent::lend;
use crate::tasks::Tasks;
use crate::tls::PeerId;
use crate::tls::TlsStore;

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
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            max_connections: 1,
            streams_before_next: 32,
            connect_timeout: Duration::from_secs(5),
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
}

/// The connections to one endpoint. The pool key of the mesh is all in it: destination, expected peer, and,
/// through the generation, our own certificate and trust bundle.
pub struct PeerPool {
    dialer: Dialer,
    destination: String,
    expected: PeerId,
    open: ArcSwap<Vec<Arc<PeerConnection>>>,
    dialing: tokio::sync::Mutex<()>,
    failures: Failures,
    turn: AtomicUsize,
}

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
        Self { tls, config, tasks }
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
            open: ArcSwap::default(),
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
        let limit = self.config.connect_timeout;
        let dialed = tokio::time::timeout(limit, self.dial_unbounded(destination, expected)).await;
        dialed.unwrap_or_else(|elapsed| Err(refused(destination, elapsed)))
    }

    async fn dial_unbounded(
        &self,
        destination: &str,
        expected: &PeerId,
    ) -> Result<PeerConnection, Error> {
        let current = self.tls.current();
        let stream = tcp(destination, self.config.connect_timeout).await?;
        // The name is not what is verified (a SPIFFE id is); TLS only asks that there be one.
        let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
        let connector = TlsConnector::from(Arc::clone(current.client()));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|source| refused(destination, source))?;
        let leaf = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first);
        let found = leaf
            .ok_or("the peer showed no certificate")
            .map_err(|none| refused(destination, none))?;
        let peer = self
            .tls
            .identify(found)
            .map_err(|source| refused(destination, source))?;
        if peer != *expected {
            return Err(Error::WrongPeer {
                destination: destination.to_owned(),
                found: peer.to_string(),
                expected: expected.to_string(),
            });
        }
        let stream = TokioIo::new(Coalesce::new(stream, true));
        let handshake = h2_client(&self.tasks).handshake(stream).await;
        let (sender, connection) = handshake.map_err(|source| refused(destination, source))?;
        self.tasks.start(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a peer ended");
            }
        });
        let destination = destination.to_owned();
        Ok(PeerConnection {
            sender,
            peer,
            destination,
            generation: current.generation(),
            streams: Arc::new(()),
        })
    }
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
        let dialed = self.dialer.dial(&self.destination, &self.expected).await;
        let fresh = Arc::new(dialed.inspect_err(|error| self.failures.note(error))?);
        let generation = self.dialer.tls.current().generation();
        let mut open: Vec<_> = self
            .open
            .load()
            .iter()
            .filter(|one| one.is_usable(generation))
            .cloned()
            .collect();
        open.push(Arc::clone(&fresh));
        self.open.store(Arc::new(open));
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
