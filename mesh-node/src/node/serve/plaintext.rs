//! Permissive mode: the port for other nodes takes plaintext too, while a mesh is introduced. Who calls in plaintext is
//! nobody, whatever the call claims; only rules about anonymous callers, or a credential of the call, let it pass.

use std::convert::Infallible;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_auth::caller::Caller;
use mesh_transport::Body;
use mesh_transport::drain::Drain;
use mesh_transport::server::Protocol;
use tokio::net::TcpStream;

use super::TLS_DEADLINE;
use super::close_after;
use super::is_malformed;
use crate::node::Shared;
use crate::stack::inbound::Peer;
use crate::stack::now;
use crate::telemetry::Ends;
use crate::telemetry::PairSeries;

/// Serves a connection to the port for other nodes.
pub(super) async fn serve_inbound(
    shared: &Arc<Shared>,
    stream: TcpStream,
    from: SocketAddr,
    drain: Drain,
) {
    let Some(series) = &shared.gate.plaintext else {
        return shared.serve_peer(stream, from, drain).await;
    };
    match first_byte(&stream).await {
        Some(TLS_HANDSHAKE) => shared.serve_peer(stream, from, drain).await,
        Some(_) => {
            let peer = Arc::new(nobody(from.ip(), series));
            serve_nobody(shared, stream, (from, peer), drain).await;
        }
        None => shared.refused_connection(from, "nothing was said in time"),
    }
}

async fn serve_nobody(
    shared: &Arc<Shared>,
    stream: TcpStream,
    (from, peer): (SocketAddr, Arc<Peer>),
    drain: Drain,
) {
    let gate = &shared.gate;
    // Whoever reaches the port can do this, so no more than a few a second are written down (threat 59).
    if let Some(auditor) = &shared.auditor
        && gate.refusals.check(&*peer.shown, now()).allowed
    {
        let event = Event::new(EventKind::Connection).with_display("from", &from);
        auditor.note(event.with("verdict", "plaintext"));
    }
    let shared = Arc::clone(shared);
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, peer) = (Arc::clone(&shared), Arc::clone(&peer));
        Box::pin(async move {
            let version = request.version();
            let inbound = &shared.gate.inbound;
            inbound.recorder.telemetry.policy.plaintext.inc();
            let mut response = inbound.handle(&peer, None, request.map(Body::from)).await;
            if is_malformed(&response) {
                close_after(&mut response, version);
            }
            Ok::<_, Infallible>(response)
        })
    });
    gate.server
        .serve(stream, Protocol::Detect, service, drain)
        .await;
}

/// The series of all that comes in plaintext; the names are Istio's for callers without identity.
pub(crate) fn series_of_nobody(
    (service, principal): (&Arc<str>, &Arc<str>),
    telemetry: &Arc<crate::telemetry::Telemetry>,
) -> Arc<PairSeries> {
    let ends = Ends {
        reporter: "destination",
        source: Arc::from("unknown"),
        source_principal: Arc::from("unknown"),
        destination: Arc::clone(service),
        destination_principal: Arc::clone(principal),
        security: "none",
    };
    Arc::new(PairSeries::new(ends, Arc::clone(telemetry)))
}

/// Whoever calls from `address` in plaintext. All of an IPv6 network of a subscriber count as one (threat 47).
fn nobody(address: IpAddr, series: &Arc<PairSeries>) -> Peer {
    let shown = match address.to_canonical() {
        IpAddr::V4(address) => format!("plaintext from {address}"),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("plaintext from {a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    };
    Peer {
        is_prober: false,
        caller: Caller::new(None, None),
        shown: Arc::from(shown),
        id: None,
        tls_id: None,
        name: Arc::from("unknown"),
        header: None,
        series: Arc::clone(series),
    }
}

/// What a connection begins with, left where it is; nothing where it ends or stays silent.
async fn first_byte(stream: &TcpStream) -> Option<u8> {
    let mut first = [0];
    let peeked = tokio::time::timeout(TLS_DEADLINE, stream.peek(&mut first)).await;
    match peeked {
        Ok(Ok(1)) => first.first().copied(),
        _ => None,
    }
}

/// The content type of a handshake record (RFC 8446 section 5.1), with which every TLS connection begins; no HTTP method
/// does.
const TLS_HANDSHAKE: u8 = 0x16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    #[test]
    fn callers_in_plaintext_are_told_apart_by_their_network_alone() {
        // threat 47
        let (service, principal) = (Arc::from("a"), Arc::from("spiffe://b/a"));
        let series = series_of_nobody((&service, &principal), &Arc::new(Telemetry::new()));
        let shown = |address: &str| nobody(address.parse().unwrap(), &series).shown.to_string();
        assert_eq!(shown("10.0.0.7"), "plaintext from 10.0.0.7");
        assert_eq!(shown("::ffff:10.0.0.7"), "plaintext from 10.0.0.7");
        let network = "plaintext from 2001:db8:1:2::/64";
        assert_eq!(shown("2001:db8:1:2::1"), network);
        assert_eq!(shown("2001:db8:1:2:ffff:ffff:ffff:ffff"), network);
    }
}
