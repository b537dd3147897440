//! Envoy's rate limit service on a listener of its own (`rate_limit_service`): on loopback in plaintext, or over mutual TLS
//! for those that the configuration names.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use http::Request;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_resilience::limit::rls::Code;
use mesh_resilience::limit::rls::Judge;
use mesh_resilience::limit::rls::Observe;
use mesh_resilience::limit::rls::RlsServer;
use mesh_resilience::limit::rls::RulesError;
use mesh_transport::Body;
use mesh_transport::drain::Drain;
use mesh_transport::server::Protocol;
use mesh_transport::tls::LivePeer;
use mesh_transport::tls::PeerId;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;

use crate::config::RateLimitServiceConfig;
use crate::node::Shared;
use crate::node::serve::TLS_DEADLINE;
use crate::stack::outbound::chain;
use crate::telemetry::Telemetry;

/// The service, and who may ask it.
#[derive(Debug)]
pub(crate) struct RateLimits {
    server: RlsServer,
    /// Nobody where plaintext is taken.
    callers: Vec<String>,
}

impl RateLimits {
    pub(crate) fn new(
        config: &RateLimitServiceConfig,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Self, RulesError> {
        let keys = usize::try_from(config.max_keys.get()).unwrap_or(usize::MAX);
        let keys = NonZeroUsize::new(keys).unwrap_or(NonZeroUsize::MIN);
        let judge = Judge::new(&config.domains, keys)?;
        let judge = judge.with_observer(Arc::new(Counted(Arc::clone(telemetry))));
        Ok(Self {
            server: RlsServer::new(Arc::new(judge)),
            callers: config.callers.clone(),
        })
    }

    fn may_ask(&self, id: &str) -> bool {
        self.callers
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                // What stays ends with a slash.
                Some(above) => id.starts_with(above),
                None => id == pattern,
            })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let answered = self.server.clone().oneshot(request).await;
        let (head, body) = match answered {
            Ok(response) => response.into_parts(),
            Err(never) => match never {},
        };
        // An answer is one message and its trailers, and is there whole.
        match body.collect().await {
            Ok(body) => {
                let body = Body::boxed(body.map_err(|never: Infallible| match never {}));
                Response::from_parts(head, body)
            }
            Err(status) => status.into_http::<()>().map(|()| Body::empty()),
        }
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    limits: &Arc<RateLimits>,
    (stream, from): (TcpStream, SocketAddr),
    drain: Drain,
) {
    let asked = Arc::clone(limits);
    let service = service_fn(move |request: Request<Incoming>| {
        let asked = Arc::clone(&asked);
        async move { Ok::<_, Infallible>(asked.answer(request).await) }
    });
    let server = &shared.gate.server;
    if limits.callers.is_empty() {
        return server.serve(stream, Protocol::Http2, service, drain).await;
    }
    let accepted = tokio::time::timeout(TLS_DEADLINE, accept(shared, limits, stream)).await;
    let accepted = accepted.unwrap_or_else(|_| Err("the TLS handshake took too long".to_owned()));
    let (stream, live) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => return shared.refused_connection(from, &error),
    };
    if let Some(auditor) = &shared.auditor {
        let event = Event::new(EventKind::Connection)
            .with_display("peer", live.id())
            .with_display("from", &from)
            .with("service", "rate_limit_service");
        auditor.note(event.with("verdict", "accepted"));
    }
    let over = shared.until_ended(live);
    server
        .serve_until((stream, Protocol::Http2), service, drain, over)
        .await;
}

/// Who is at the other end, once it is proven that it is one who may ask.
async fn accept(
    shared: &Shared,
    limits: &RateLimits,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, LivePeer), String> {
    let identity = Arc::clone(&shared.gate.tls.current());
    let acceptor = TlsAcceptor::from(Arc::clone(identity.server()));
    let accepted = acceptor.accept(stream).await;
    let stream = accepted.map_err(|error| chain(&error))?;
    let live = shared.gate.tls.client(&identity, stream.get_ref().1);
    let live = live.map_err(|error| chain(&error))?;
    let id: &PeerId = live.id();
    if limits.may_ask(id.as_str()) {
        Ok((stream, live))
    } else {
        Err(format!(
            "{id} is not among rate_limit_service.callers, so it may not ask for limits"
        ))
    }
}

/// Counts what is answered.
struct Counted(Arc<Telemetry>);

impl Observe for Counted {
    fn decided(&self, domain: &str, rule: Option<&str>, code: Code, is_shadowed: bool) {
        let result = match code {
            Code::OverLimit => "over_limit",
            _ if is_shadowed => "shadow",
            _ => "ok",
        };
        self.0.rate_limits.answered(domain, rule, result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_named_exactly_or_from_above() {
        let config = RateLimitServiceConfig::load(Vec::new()).unwrap();
        let mut limits = RateLimits::new(&config, &Arc::new(Telemetry::new())).unwrap();
        limits.callers = vec![
            "spiffe://example.org/edge".to_owned(),
            "spiffe://example.org/team-a/*".to_owned(),
        ];
        for (id, expected) in [
            ("spiffe://example.org/edge", true),
            ("spiffe://example.org/edge/2", false),
            ("spiffe://example.org/team-a/pay", true),
            ("spiffe://example.org/team-a", false),
            ("spiffe://example.org/team-ab", false),
            ("spiffe://example.org.evil/team-a/pay", false),
        ] {
            assert_eq!(limits.may_ask(id), expected, "{id}");
        }
    }
}
