//! Somebody between two nodes who has the TLS keys of both: ends HTTP/2 and TLS, writes down what is in it, and begins
//! both anew.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_transport::Body;
use mesh_transport::BoxError;
use mesh_transport::peer::Dialer;
use mesh_transport::peer::PeerConfig;
use mesh_transport::peer::PeerConnection;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// The hop, once it listens.
#[derive(Debug)]
pub(super) struct Hop {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One exchange, as the hop can read it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Method, path, and every header.
    pub(super) head: String,
    pub(super) request: Bytes,
    pub(super) answer_head: String,
    pub(super) answer: Bytes,
}

/// What the hop has.
#[derive(Debug)]
pub(super) struct StolenKeys {
    /// Of the node that is called, shown to whoever connects.
    pub(super) called: Arc<TlsStore>,
    /// Of the node that calls, shown to the node that is called.
    pub(super) calling: Arc<TlsStore>,
    /// The name of the node that is called.
    pub(super) name: PeerId,
}

impl Hop {
    /// Listens on a free port of loopback and passes on to `destination` what comes.
    pub(super) async fn start(
        destination: SocketAddr,
        keys: StolenKeys,
        tasks: &Tasks,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (keys, all, inner) = (Arc::new(keys), Arc::clone(&seen), tasks.clone());
        tasks.start(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (keys, all, tasks) = (Arc::clone(&keys), Arc::clone(&all), inner.clone());
                inner.start(async move {
                    if let Err(error) = serve(stream, destination, &keys, (all, tasks)).await {
                        tracing::debug!(error, "a connection through the hop failed");
                    }
                });
            }
        });
        Ok(Self { address, seen })
    }

    /// Every exchange so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

impl Seen {
    /// Everything that could be read of it, in one piece.
    pub(super) fn all(&self) -> Vec<u8> {
        let parts: [&[u8]; 4] = [
            self.head.as_bytes(),
            &self.request,
            self.answer_head.as_bytes(),
            &self.answer,
        ];
        parts.join(&b'\n')
    }
}

async fn serve(
    stream: TcpStream,
    destination: SocketAddr,
    keys: &StolenKeys,
    (all, tasks): (Arc<Mutex<Vec<Seen>>>, Tasks),
) -> Result<(), BoxError> {
    let acceptor = TlsAcceptor::from(Arc::clone(keys.called.current().server()));
    let stream = acceptor.accept(stream).await?;
    let dialer = Dialer::new(
        Arc::clone(&keys.calling),
        PeerConfig::default(),
        tasks.clone(),
    );
    let onward = Arc::new(dialer.dial(&destination.to_string(), &keys.name).await?);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (onward, all) = (Arc::clone(&onward), Arc::clone(&all));
        async move {
            let passed = pass(request.map(Body::from), &onward, &all).await;
            Ok::<_, Infallible>(passed.unwrap_or_else(|error| {
                tracing::debug!(error, "an exchange through the hop failed");
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }))
        }
    });
    hyper::server::conn::http2::Builder::new(tasks)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn pass(
    request: Request<Body>,
    onward: &PeerConnection,
    all: &Mutex<Vec<Seen>>,
) -> Result<Response<Body>, BoxError> {
    let (mut parts, body) = request.into_parts();
    let mut head = format!("{} {}", parts.method, parts.uri.path());
    write_headers(&mut head, &parts.headers)?;
    let (request, body) = read(body).await?;
    // The connection onward makes a URI of its own.
    parts.uri = parts.uri.path().parse()?;
    let sent = onward.send(Request::from_parts(parts, body)).await;
    let (parts, body) = sent.map_err(|unsent| unsent.error)?.into_parts();
    let mut answer_head = parts.status.to_string();
    write_headers(&mut answer_head, &parts.headers)?;
    let (answer, body) = read(body).await?;
    let mut all = all.lock();
    if all.len() < MOST_EXCHANGES {
        all.push(Seen {
            head,
            request,
            answer_head,
            answer,
        });
    }
    drop(all);
    Ok(Response::from_parts(parts, body))
}

/// The body's bytes, and the body again.
async fn read(body: Body) -> Result<(Bytes, Body), BoxError> {
    let collected = Limited::new(body, MAX_BODY_BYTES).collect().await?;
    let trailers = collected.trailers().cloned();
    let bytes = collected.to_bytes();
    let again = Full::new(bytes.clone())
        .with_trailers(async move { trailers.map(Ok) })
        .map_err(|never: Infallible| match never {});
    Ok((bytes, Body::boxed(again)))
}

fn write_headers(text: &mut String, headers: &HeaderMap) -> std::fmt::Result {
    for (name, value) in headers {
        write!(
            text,
            " · {name}: {}",
            String::from_utf8_lossy(value.as_bytes())
        )?;
    }
    Ok(())
}

const MAX_BODY_BYTES: usize = 1 << 20;
/// The demonstration makes three.
const MOST_EXCHANGES: usize = 100;
