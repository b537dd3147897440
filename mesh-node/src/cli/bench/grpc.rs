//! Sealed calls as nodes make them: the secure-session service over gRPC, one HTTP/2 connection, mutual TLS.
//!
//! There is no application behind either end: the answerer's handler gives back the bytes of the request.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use mesh_session::LimiterConfig;
use mesh_session::Responders;
use mesh_session::SessionTable;
use mesh_session::TableConfig;
use mesh_transport::Body;
use mesh_transport::BoxError;
use mesh_transport::drain;
use mesh_transport::drain::Drain;
use mesh_transport::listen::Accepted;
use mesh_transport::listen::Listener;
use mesh_transport::peer::Dialer;
use mesh_transport::peer::PeerConfig;
use mesh_transport::server::Protocol;
use mesh_transport::server::Server;
use mesh_transport::server::ServerConfig;
use mesh_transport::session::HANDSHAKE_PATH;
use mesh_transport::session::Opened;
use mesh_transport::session::SessionClient;
use mesh_transport::session::SessionConfig;
use mesh_transport::session::SessionPool;
use mesh_transport::session::SessionServer;
use mesh_transport::session::TokenFor;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::PeerId;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Measured;
use super::Plan;
use super::ends::ANSWERER;
use super::ends::Ends;
use super::ends::Pinned;
use super::latency::Latencies;
use super::peer::PeerProcess;
use super::peer::now;
use crate::node::wall_clock;

/// Answers connections until it is dropped; `ready` is told where.
pub(super) async fn serve(
    ends: &Ends,
    ready: impl FnOnce(SocketAddr) -> io::Result<()>,
) -> Result<(), BoxError> {
    let tasks = Tasks::new(Handle::current());
    let responders = Responders::new(Arc::clone(&ends.local), OFFER_OVERLAP)?;
    let table = SessionTable::new(TableConfig::default(), now())?;
    let sessions = SessionServer::new(
        Arc::new(responders),
        (Arc::<Pinned>::clone(&ends.pinned), no_token()),
        Arc::new(table),
        (unlimited(), wall_clock),
        tasks.clone(),
    );
    let gate = Arc::new(Gate {
        tls: Arc::clone(&ends.tls),
        sessions,
        server: Server::new(&ServerConfig::default(), tasks.clone()),
    });
    let listener = Listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), MAX_CONNECTIONS)?;
    ready(listener.address()?)?;
    let (_signal, drain) = drain::channel();
    let for_connections = drain.clone();
    listener
        .run(drain, |accepted| {
            tasks.start(Arc::clone(&gate).serve(accepted, for_connections.clone()));
        })
        .await;
    Ok(())
}

/// How long it takes to connect, with TLS, to agree on a session, and to make the first call.
pub(super) async fn set_up(ends: &Ends) -> Result<Duration, BoxError> {
    let begin = now();
    call(&pool(ends), Bytes::new()).await?;
    Ok(now().saturating_duration_since(begin))
}

/// Keeps calls in flight and measures them.
pub(super) async fn load(
    ends: &Ends,
    peer: &mut PeerProcess,
    plan: Plan,
) -> Result<Measured, BoxError> {
    let pool = Arc::new(pool(ends));
    call(&pool, Bytes::new()).await?;
    let phase = Arc::new(AtomicU8::new(WARM));
    let request = Bytes::from(vec![b'm'; plan.size]);
    let mut callers = JoinSet::new();
    for _ in 0..plan.in_flight {
        callers.spawn(caller(
            Arc::clone(&pool),
            request.clone(),
            Arc::clone(&phase),
        ));
    }
    tokio::time::sleep(plan.warm).await;
    let begin = peer.begin()?;
    phase.store(MEASURED, Ordering::Relaxed);
    tokio::time::sleep(plan.measured).await;
    phase.store(OVER, Ordering::Relaxed);
    let end = peer.end()?;
    let mut latencies = Latencies::new();
    while let Some(ended) = callers.join_next().await {
        latencies.add(&ended??);
    }
    Ok(Measured::new(latencies, &begin, &end))
}

/// Makes one call after the other, and gives back how long those took that ended in time.
async fn caller(
    pool: Arc<SessionPool>,
    request: Bytes,
    phase: Arc<AtomicU8>,
) -> Result<Latencies, BoxError> {
    let mut latencies = Latencies::new();
    loop {
        let begin = now();
        call(&pool, request.clone()).await?;
        match phase.load(Ordering::Relaxed) {
            WARM => {}
            MEASURED => latencies.record(now().saturating_duration_since(begin)),
            _ => return Ok(latencies),
        }
    }
}

async fn call(pool: &SessionPool, request: Bytes) -> Result<(), BoxError> {
    let len = request.len();
    let request = Request::post("/bench/echo").body(Body::from(request))?;
    let sent = pool.send(ANSWERER, request).await;
    let answer = sent.map_err(|unsent| unsent.error)?;
    let answer = answer.into_body().collect().await?.to_bytes();
    if answer.len() == len {
        Ok(())
    } else {
        Err("an answer is not as long as its request".into())
    }
}

/// The way to the answerer, with nothing open yet.
fn pool(ends: &Ends) -> SessionPool {
    let tasks = Tasks::new(Handle::current());
    let client = SessionClient::new(
        Arc::new(ArcSwap::new(Arc::clone(&ends.local))),
        no_token(),
        (
            TableConfig::default().max_age,
            wall_clock as fn() -> SystemTime,
        ),
        tasks.clone(),
    );
    let connections = Dialer::new(Arc::clone(&ends.tls), PeerConfig::default(), tasks)
        .pool(ends.address.to_string(), ends.peer.clone());
    client.pool(connections, Arc::<Pinned>::clone(&ends.pinned))
}

/// Sessions are made in a row here to see how long one takes.
fn unlimited() -> SessionConfig {
    let limits = LimiterConfig::default().with_rate(NonZeroU32::MAX, NonZeroU32::MAX);
    SessionConfig::default().with_limits(limits)
}

fn no_token() -> Arc<TokenFor> {
    Arc::new(|_| Vec::new())
}

/// The way in: TLS, who the caller is, its session, and the handler.
struct Gate {
    tls: Arc<mesh_transport::tls::TlsStore>,
    sessions: SessionServer,
    server: Server,
}

impl Gate {
    async fn serve(self: Arc<Self>, accepted: Accepted, drain: Drain) {
        let acceptor = TlsAcceptor::from(Arc::clone(self.tls.current().server()));
        // The caller is told why by its own end.
        let Ok(stream) = acceptor.accept(accepted.stream).await else {
            return;
        };
        let shown = stream.get_ref().1.peer_certificates();
        let leaf = shown.and_then(<[_]>::first);
        let Some(Ok(caller)) = leaf.map(|leaf| self.tls.identify(leaf)) else {
            return;
        };
        let gate = Arc::clone(&self);
        let service = service_fn(move |request: Request<Incoming>| {
            let (gate, caller) = (Arc::clone(&gate), caller.clone());
            async move {
                let answered = gate.answer(&caller, request.map(Body::from)).await;
                Ok::<_, Infallible>(answered.unwrap_or_else(|error| refusal(&error)))
            }
        });
        self.server
            .serve(stream, Protocol::Http2, service, drain)
            .await;
        drop(accepted.slot);
    }

    async fn answer(
        &self,
        caller: &PeerId,
        request: Request<Body>,
    ) -> Result<Response<Body>, BoxError> {
        if request.uri().path() == HANDSHAKE_PATH {
            return Ok(self.sessions.handshake(caller, request).await?);
        }
        let opened = self.sessions.open(caller, request).await?;
        let (request, _, sealer) = opened.into_parts();
        let body = request.into_body().collect().await?.to_bytes();
        Opened::seal(sealer, Response::new(Body::from(body)))
    }
}

fn refusal(error: &BoxError) -> Response<Body> {
    let mut response = Response::new(Body::from(error.to_string()));
    *response.status_mut() = http::StatusCode::BAD_GATEWAY;
    response
}

const WARM: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;
const MAX_CONNECTIONS: usize = 64;
/// The identity does not change here.
const OFFER_OVERLAP: Duration = Duration::from_mins(1);
