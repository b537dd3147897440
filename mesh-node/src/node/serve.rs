//! What happens on one accepted connection of each listener.

mod plaintext;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderValue;
use http::Request;
use http::Response;
use http::Version;
use http::header;
use hyper::body::Incoming;
use hyper::service::service_fn;
use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_auth::caller::Caller;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomainAliases;
use mesh_resilience::limit::Limiter;
use mesh_session::LimiterStats;
use mesh_session::TableStats;
use mesh_transport::Body;
use mesh_transport::app::is_grpc;
use mesh_transport::drain::Drain;
use mesh_transport::drain::Phase;
use mesh_transport::listen::Accepted;
use mesh_transport::server::Protocol;
use mesh_transport::server::Server;
use mesh_transport::session::CALL_PATH;
use mesh_transport::session::CLOSE_ROUTE;
use mesh_transport::session::HANDSHAKE_PATH;
use mesh_transport::session::MESH_SERVICE;
use mesh_transport::session::Opened;
use mesh_transport::session::RETRY_PUSHBACK;
use mesh_transport::session::Refused;
use mesh_transport::session::STREAM_PATH;
use mesh_transport::session::SessionServer;
use mesh_transport::tls::LivePeer;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;
use parking_lot::Mutex;
use parking_lot::RwLock;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

pub(crate) use self::plaintext::series_of_nobody;
use self::plaintext::serve_inbound;
use crate::config::Alpn;
use crate::consul::names::Names;
use crate::node::Shared;
use crate::rate_limits;
use crate::rate_limits::RateLimits;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::respond::X_MESH_ERROR;
use crate::stack::inbound::Inbound;
use crate::stack::inbound::Peer;
use crate::stack::now;
use crate::stack::outbound::Service;
use crate::stack::outbound::To;
use crate::stack::outbound::chain;
use crate::tcp;
use crate::tcp::TcpApp;
use crate::telemetry::Ends;
use crate::telemetry::ListenerLabel;
use crate::telemetry::PairSeries;
use crate::telemetry::Telemetry;

/// Which listener a connection came in on.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Inbound,
    Outbound(Option<Arc<Service>>),
    /// To an application that does not speak HTTP.
    TcpInbound(Arc<TcpApp>),
    /// To a service that does not.
    TcpOutbound(Arc<Service>),
    Admin,
    /// To Envoy's rate limit service.
    RateLimits(Arc<RateLimits>),
}

/// The way in for other nodes: TLS, who they are, their sessions, and the inbound stack behind.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) inbound: Inbound,
    pub(crate) tls: Arc<TlsStore>,
    pub(crate) own_principal: Arc<str>,
    /// Whether a peer must offer its protocol by ALPN, and whether that counts.
    pub(crate) alpn: Alpn,
    /// Where plaintext is taken: what counts it.
    pub(crate) plaintext: Option<Arc<PairSeries>>,
    /// Who may probe (`security.probe`).
    pub(crate) prober: Option<SpiffeId>,
    pub(crate) names: Names,
    /// Trust domains that count as ours in rules.
    pub(crate) aliases: TrustDomainAliases,
    /// Where calls must be sealed end to end; a call that is not is refused, so nobody can downgrade.
    pub(crate) sessions: Option<Arc<SessionServer>>,
    pub(crate) peers: RwLock<HashMap<PeerId, Arc<Peer>>>,
    pub(crate) server: Server,
    /// Sessions and handshakes that the metrics have counted.
    pub(crate) counted: Mutex<(u64, LimiterStats)>,
    /// How many refused connections are written down.
    pub(crate) refusals: Limiter,
}

/// A connection that its listener's gauge counts, until it is dropped, however its task ends.
struct Open(Gauge);

impl Open {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Entry {
    fn label(&self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound(_) => "outbound",
            Self::TcpInbound(_) => "tcp_inbound",
            Self::TcpOutbound(_) => "tcp_outbound",
            Self::Admin => "admin",
            Self::RateLimits(_) => "rate_limits",
        }
    }
}

impl Shared {
    /// Whether nothing is waited for any more before calls are taken (`discovery.cache.on_start`).
    pub(crate) fn is_settled(&self) -> bool {
        if !self.is_waiting.load(Ordering::Relaxed) {
            return true;
        }
        let is_settled = self.outbound.services.unanswered().is_empty();
        if is_settled {
            // A registry that goes away later leaves the lists that it gave.
            self.is_waiting.store(false, Ordering::Relaxed);
        }
        is_settled
    }

    /// Serves one connection in the background until it ends.
    pub(crate) fn accept(self: &Arc<Self>, accepted: Accepted, entry: Entry, drain: Drain) {
        let shared = Arc::clone(self);
        self.tasks.start(async move {
            let label = ListenerLabel {
                listener: entry.label(),
            };
            let open = shared
                .outbound
                .recorder
                .telemetry
                .connections
                .get_or_create(&label)
                .clone();
            let _open = Open::new(open);
            let Accepted {
                stream, slot, from, ..
            } = accepted;
            // Boxed, so that what an idle connection holds, and what each request moves, is small.
            match entry {
                Entry::Inbound => Box::pin(serve_inbound(&shared, stream, from, drain)).await,
                Entry::Outbound(bound) => {
                    Box::pin(shared.serve_application(stream, bound, drain)).await;
                }
                // They end by themselves, or with the drain's deadline: nothing can ask them to.
                Entry::TcpInbound(app) => {
                    Box::pin(tcp::serve_peer(&shared, &app, (stream, from))).await;
                    drop(drain);
                }
                Entry::TcpOutbound(service) => {
                    Box::pin(tcp::serve_application(&shared, &service, stream)).await;
                    drop(drain);
                }
                Entry::RateLimits(limits) => {
                    Box::pin(rate_limits::serve(&shared, &limits, (stream, from), drain)).await;
                }
                Entry::Admin => shared.serve_admin(stream, drain).await,
            }
            drop(slot);
        });
    }

    async fn serve_peer(
        self: &Arc<Self>,
        stream: TcpStream,
        from: std::net::SocketAddr,
        drain: Drain,
    ) {
        let identity = Arc::clone(&self.gate.tls.current());
        let acceptor = TlsAcceptor::from(Arc::clone(identity.server()));
        let accepted = tokio::time::timeout(TLS_DEADLINE, acceptor.accept(stream)).await;
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.refused_connection(from, &chain(&error)),
            Err(_) => return self.refused_connection(from, "the TLS handshake took too long"),
        };
        let live = match self.gate.tls.client(&identity, stream.get_ref().1) {
            Ok(live) => live,
            Err(error) => return self.refused_connection(from, &chain(&error)),
        };
        drop(identity);
        let alpn = stream.get_ref().1.alpn_protocol();
        let protocol = match self.gate.alpn {
            Alpn::Ignored => Some(Protocol::Detect),
            rule => Protocol::agreed(alpn, rule == Alpn::Required),
        };
        let Some(protocol) = protocol else {
            let reason = format!("{} offered no protocol by ALPN (security.alpn)", live.id());
            return self.refused_connection(from, &reason);
        };
        let peer = match self.gate.peer(live.id(), &self.outbound.recorder.telemetry) {
            Ok(peer) => peer,
            Err(error) => return self.refused_connection(from, &error),
        };
        if let Some(auditor) = &self.auditor {
            let event = Event::new(EventKind::Connection)
                .with("peer", &*peer.shown)
                .with_display("from", &from);
            auditor.note(event.with("verdict", "accepted"));
        }
        let over = self.until_ended(live);
        let shared = Arc::clone(self);
        let service = service_fn(move |request: Request<Incoming>| {
            let (shared, peer) = (Arc::clone(&shared), Arc::clone(&peer));
            Box::pin(async move {
                let version = request.version();
                let mut response = shared.gate.handle(&peer, request.map(Body::from)).await;
                if is_malformed(&response) {
                    close_after(&mut response, version);
                }
                Ok::<_, Infallible>(response)
            })
        });
        self.gate
            .server
            .serve_until((stream, protocol), service, drain, over)
            .await;
    }

    /// Waits until the certificate of a peer is over, or what vouched for it is trusted no more.
    pub(crate) async fn until_ended(&self, mut live: LivePeer) {
        let ended = live.ended().await;
        tracing::info!(peer.id = %ended.peer, reason = %ended.source, "a connection ends: its peer is not vouched for any more");
        if let Some(auditor) = &self.auditor {
            let event = Event::new(EventKind::Connection).with_display("peer", &ended.peer);
            auditor.note(
                event
                    .with("verdict", "ended")
                    .with("error", &*chain(&ended)),
            );
        }
    }

    /// Whoever reaches the port can have a connection refused, so no more than a few a second are written down; the
    /// metric counts them all (threat 59).
    pub(crate) fn refused_connection(&self, from: std::net::SocketAddr, error: &str) {
        self.outbound.recorder.telemetry.refused_peers.inc();
        if !self.gate.refusals.check(&(), now()).allowed {
            return;
        }
        tracing::info!(%from, error, "connection refused");
        if let Some(auditor) = &self.auditor {
            let event = Event::new(EventKind::Connection).with_display("from", &from);
            auditor.note(event.with("verdict", "refused").with("error", error));
        }
    }

    async fn serve_application(
        self: &Arc<Self>,
        stream: TcpStream,
        bound: Option<Arc<Service>>,
        drain: Drain,
    ) {
        let (shared, phase) = (Arc::clone(self), drain.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (shared, bound, phase) = (Arc::clone(&shared), bound.clone(), phase.clone());
            Box::pin(async move {
                let version = request.version();
                let to = bound.as_ref().map_or(To::Host, To::Service);
                let mut response = shared.outbound.handle(request.map(Body::from), to).await;
                if phase.phase() >= Phase::Leaving || is_malformed(&response) {
                    close_after(&mut response, version);
                }
                Ok::<_, Infallible>(response)
            })
        });
        self.gate
            .server
            .serve(stream, Protocol::Detect, service, drain)
            .await;
    }

    async fn serve_admin(self: &Arc<Self>, stream: TcpStream, drain: Drain) {
        let shared = Arc::clone(self);
        let service = service_fn(move |request: Request<Incoming>| {
            let shared = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(shared.admin.answer(&request, &shared)) }
        });
        self.gate
            .server
            .serve(stream, Protocol::Http1, service, drain)
            .await;
    }
}

/// Whether the request was refused for its form: where it ends, and what follows it, is then anybody's guess (threat 13).
fn is_malformed(response: &Response<Body>) -> bool {
    response
        .headers()
        .get(X_MESH_ERROR)
        .is_some_and(|code| code == Code::BadRequest.as_str())
}

/// Takes no further request from the connection that `response` goes out on; over HTTP/2 streams do not run into each other.
fn close_after(response: &mut Response<Body>, version: Version) {
    if version < Version::HTTP_2 {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

impl Gate {
    /// What is known of the peer that proved to be `id`.
    pub(crate) fn peer(
        &self,
        id: &PeerId,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Arc<Peer>, String> {
        if let Some(peer) = self.peers.read().get(id) {
            return Ok(Arc::clone(peer));
        }
        let spiffe: SpiffeId = id.as_str().parse().ok().ok_or("the name is no spiffe id")?;
        // Only now, that it is verified by the roots of its own trust domain, may it count as one of ours.
        let ours = self.aliases.canonical(&spiffe);
        let ours = ours.map_err(|error| error.to_string())?;
        let header = HeaderValue::try_from(id.as_str())
            .ok()
            .ok_or("the name does not fit a header")?;
        let known_as = self.names.known_as(&ours);
        let known_as = known_as.map_err(|error| error.to_string())?;
        let name: Arc<str> = Arc::from(known_as.path().trim_start_matches('/'));
        let ends = Ends {
            reporter: "destination",
            source: Arc::clone(&name),
            source_principal: Arc::from(id.as_str()),
            destination: Arc::clone(&self.inbound.name),
            destination_principal: Arc::clone(&self.own_principal),
            security: "mutual_tls",
        };
        let series = Arc::new(PairSeries::new(ends, Arc::clone(telemetry)));
        let peer = Arc::new(Peer {
            caller: Caller::new(Some(known_as), None),
            shown: Arc::from(id.as_str()),
            is_prober: self.prober.as_ref() == Some(&spiffe),
            id: Some(spiffe),
            tls_id: Some(id.clone()),
            name,
            header: Some(header),
            series,
        });
        let mut peers = self.peers.write();
        // Names come out of verified certificates, so whoever fills this holds as many; still it is bounded.
        if peers.len() >= MAX_PEERS {
            peers.clear();
        }
        peers.insert(id.clone(), Arc::clone(&peer));
        Ok(peer)
    }

    async fn handle(&self, peer: &Arc<Peer>, request: Request<Body>) -> Response<Body> {
        let Some(sessions) = &self.sessions else {
            return self.inbound.handle(peer, None, request).await;
        };
        let is_exchange = matches!(request.uri().path(), CALL_PATH | STREAM_PATH);
        let is_handshake = request.uri().path() == HANDSHAKE_PATH;
        if !(is_exchange || is_handshake) {
            let message = "this node takes sealed calls only (security.encryption: hybrid)";
            self.note_refusal(peer, "the call was not sealed");
            return self.refuse(Refusal::new(Code::Denied, message), is_grpc(&request));
        }
        let Some(id) = &peer.tls_id else {
            let message = "a session is between two nodes that show certificates";
            return self.refuse(Refusal::new(Code::Unauthenticated, message), true);
        };
        let named = request.headers().get(MESH_SERVICE);
        if is_exchange && named.is_some_and(|named| named == CLOSE_ROUTE) {
            return match sessions.close(id, request).await {
                Ok(response) => response,
                Err(error) => self.refuse_session(peer, &error),
            };
        }
        if is_exchange && named.is_none_or(|named| named.as_bytes() != self.inbound.name.as_bytes())
        {
            let message = format!(
                "this is {}; the call is for another service",
                self.inbound.name
            );
            return self.refuse(Refusal::new(Code::NoRoute, message), true);
        }
        if is_handshake {
            return match sessions.handshake(id, request).await {
                Ok(response) => {
                    self.count_sessions();
                    response
                }
                Err(error) => self.refuse_session(peer, &error),
            };
        }
        let (request, session, sealer) = match sessions.open(id, request).await {
            Ok(opened) => opened.into_parts(),
            Err(error) => return self.refuse_session(peer, &error),
        };
        let answer = self
            .inbound
            .handle(peer, Some(&session.id()), request)
            .await;
        Opened::seal(sealer, answer).unwrap_or_else(|error| {
            tracing::warn!(%error, "could not seal an answer");
            let refusal = Refusal::new(
                Code::UpstreamFailed,
                "the answer's head is too large to be sealed",
            );
            self.refuse(refusal.maybe_processed(), true)
        })
    }

    fn refuse_session(&self, peer: &Peer, error: &Refused) -> Response<Body> {
        self.inbound.recorder.telemetry.refused_peers.inc();
        // Whoever floods must not make us write about it (threats 32 and 59).
        if self.refusals.check(&*peer.shown, now()).allowed {
            let error = chain(error);
            tracing::info!(peer.id = %peer.shown, error, "session refused");
            self.inbound.note_error(peer, &error);
        }
        let refusal = match error {
            Refused::NoSession => Refusal::new(
                Code::NoSession,
                "the session is not known here; agree on a new one",
            ),
            Refused::Busy(limited) => busy(limited.retry_after()),
            // One answer for all else: which check failed is for our log alone.
            _ => Refusal::new(Code::Unauthenticated, "the message was not accepted"),
        };
        self.refuse(refusal, true)
    }

    /// Brings the metrics of sessions and handshakes up to date; a request for the key offer is no session.
    pub(crate) fn count_sessions(&self) {
        let Some(sessions) = &self.sessions else {
            return;
        };
        let telemetry = &self.inbound.recorder.telemetry;
        let counted = &mut *self.counted.lock();
        let now = (sessions.table().stats().inserted, sessions.handshakes());
        telemetry.handshakes.inc_by(now.0.saturating_sub(counted.0));
        telemetry.count_handshakes(&counted.1, &now.1);
        *counted = now;
    }

    /// Writes down what was refused before the inbound stack saw it, a few a second for each peer (threat 59).
    fn note_refusal(&self, peer: &Peer, what: &str) {
        if self.refusals.check(&*peer.shown, now()).allowed {
            self.inbound.note_error(peer, what);
        }
    }

    fn refuse(&self, refusal: Refusal, is_grpc: bool) -> Response<Body> {
        self.inbound.recorder.refused(refusal.code());
        refusal.into_response(is_grpc, None)
    }

    /// Drops expired sessions and updates their gauge.
    pub(crate) fn sweep(&self, telemetry: &Telemetry) {
        if let Some(sessions) = &self.sessions {
            sessions.sweep();
            telemetry
                .sessions
                .set(i64::try_from(sessions.table().stats().sessions).unwrap_or(i64::MAX));
        }
    }

    /// What the session table holds, where there is one.
    pub(crate) fn session_stats(&self) -> Option<TableStats> {
        self.sessions
            .as_ref()
            .map(|sessions| sessions.table().stats())
    }
}

/// Says when to come again, also in milliseconds: most may come much earlier than in a second.
fn busy(after: Duration) -> Refusal {
    let message = "no handshake is begun now; try again later";
    let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    Refusal::new(Code::Overloaded, message)
        .with_retry_after(after)
        .with_header(RETRY_PUSHBACK, HeaderValue::from(millis.saturating_add(1)))
}

/// A TLS handshake takes a few milliseconds; who needs longer is slow on purpose (threat 33).
pub(crate) const TLS_DEADLINE: Duration = Duration::from_secs(5);
/// More services than a mesh of this kind has.
const MAX_PEERS: usize = 10_000;
