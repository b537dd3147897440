//! Somebody who recorded a sealed call sends it once more.
//!
//! A relay ends the prober's own TLS with the prober's own certificate, so that the sealed bytes inside can be written
//! down; each sealed call is then sent twice to the node, over connections of the same verified peer.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http::Response;
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
use mesh_transport::session::CALL_PATH;
use mesh_transport::session::STREAM_PATH;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::respond::X_MESH_ERROR;

/// The relay, once it listens.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    again: Arc<Mutex<Vec<String>>>,
}

impl Relay {
    /// Listens on a free port of loopback for calls to `target`, which proves `name`.
    pub(super) async fn start(
        target: SocketAddr,
        (tls, name): (&Arc<TlsStore>, PeerId),
        tasks: &Tasks,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let again = Arc::new(Mutex::new(Vec::new()));
        let (tls, kept, inner) = (Arc::clone(tls), Arc::clone(&again), tasks.clone());
        tasks.start(async move {
            // One connection is enough for one call.
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            if let Err(error) = serve(stream, (target, &name), &tls, (kept, inner)).await {
                tracing::debug!(error, "the relay's connection ended");
            }
        });
        Ok(Self { address, again })
    }

    /// What the node answered to each sealed call that came a second time.
    pub(super) fn answers(&self) -> Vec<String> {
        self.again.lock().clone()
    }
}

async fn serve(
    stream: TcpStream,
    (target, name): (SocketAddr, &PeerId),
    tls: &Arc<TlsStore>,
    (again, tasks): (Arc<Mutex<Vec<String>>>, Tasks),
) -> Result<(), BoxError> {
    let stream = TlsAcceptor::from(Arc::clone(tls.current().server()))
        .accept(stream)
        .await?;
    let dialer = Dialer::new(Arc::clone(tls), PeerConfig::default(), tasks.clone());
    let onward = Arc::new(dialer.dial(&target.to_string(), name).await?);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (onward, again) = (Arc::clone(&onward), Arc::clone(&again));
        async move {
            let passed = pass(request.map(Body::from), &onward, &again).await;
            Ok::<_, Infallible>(passed.unwrap_or_else(|error| {
                tracing::debug!(error, "an exchange through the relay failed");
                let mut response = Response::new(Body::empty());
                *response.status_mut() = http::StatusCode::BAD_GATEWAY;
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
    again: &Mutex<Vec<String>>,
) -> Result<Response<Body>, BoxError> {
    let (mut parts, body) = request.into_parts();
    // The connection onward makes a URI of its own.
    parts.uri = parts.uri.path().parse()?;
    let is_sealed = matches!(parts.uri.path(), CALL_PATH | STREAM_PATH);
    let bytes = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .await?
        .to_bytes();
    let send = async |parts| {
        let sent = onward
            .send(Request::from_parts(parts, whole(bytes.clone())))
            .await;
        sent.map_err(|unsent| Box::new(unsent.error) as BoxError)
    };
    let (head, body) = send(parts.clone()).await?.into_parts();
    // Read to its end, trailers and all, so that the call is over before it comes again.
    let collected = Limited::new(body, MAX_BODY_BYTES).collect().await?;
    let trailers = collected.trailers().cloned();
    let answer = Full::new(collected.to_bytes())
        .with_trailers(async move { trailers.map(Ok) })
        .map_err(|never: Infallible| match never {});
    if is_sealed {
        let second = send(parts).await;
        again.lock().push(match second {
            Ok(response) => match response.headers().get(X_MESH_ERROR) {
                Some(code) => String::from_utf8_lossy(code.as_bytes()).into_owned(),
                None => format!("{} {ANSWERED}", response.status().as_u16()),
            },
            Err(error) => error.to_string(),
        });
    }
    Ok(Response::from_parts(head, Body::boxed(answer)))
}

fn whole(bytes: Bytes) -> Body {
    Body::boxed(Full::new(bytes).map_err(|never: Infallible| match never {}))
}

/// How an answer to a replayed call ends that is no refusal.
pub(super) const ANSWERED: &str = "answered";
const MAX_BODY_BYTES: usize = 1 << 20;
