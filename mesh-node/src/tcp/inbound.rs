//! From other nodes to the application.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_transport::peer::TCP_PROTOCOL;
use mesh_transport::tls::LivePeer;
use mesh_transport::tls::PeerId;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::carry::Carried;
use super::carry::Plain;
use super::carry::carry;
use crate::audit::Auditor;
use crate::audit::decided;
use crate::node::Shared;
use crate::node::serve::TLS_DEADLINE;
use crate::stack::inbound::Authorizer;
use crate::stack::inbound::Peer;
use crate::stack::now;
use crate::stack::outbound::chain;

/// An application that speaks its own protocol.
#[derive(Debug)]
pub(crate) struct TcpApp {
    /// Host and port.
    pub(crate) address: String,
    pub(crate) authorizer: Authorizer,
}

/// Serves one connection of another node.
pub(crate) async fn serve_peer(
    shared: &Arc<Shared>,
    app: &TcpApp,
    (stream, from): (TcpStream, SocketAddr),
) {
    let accepted = tokio::time::timeout(TLS_DEADLINE, accept(shared, stream)).await;
    let accepted = accepted.unwrap_or_else(|_| Err("the TLS handshake took too long".to_owned()));
    let (stream, peer, mut live) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => return shared.refused_connection(from, &error),
    };
    if !admit(shared, app, (&peer, from)).await {
        return;
    }
    let connected = tokio::time::timeout(CONNECT, TcpStream::connect(&app.address)).await;
    let called = match connected
        .map_err(std::io::Error::other)
        .and_then(|found| found)
    {
        Ok(called) => called,
        Err(error) => {
            tracing::warn!(%error, app = app.address, "the application can't be reached");
            let inbound = &shared.gate.inbound;
            return inbound.note_error(&peer, "the application can't be reached");
        }
    };
    let mut called = Plain::new(called);
    if let Err(error) = called.stream().set_nodelay(true) {
        tracing::debug!(%error, "could not switch off Nagle's algorithm");
    }
    let series = shared
        .outbound
        .recorder
        .telemetry
        .tcp
        .of(peer.series.ends());
    series.opened.inc();
    let (counts, since) = (Carried::default(), now());
    let ended = tokio::select! {
        carried = carry(stream, called.stream(), (&series, &counts)) => carried.err().map(|error| error.to_string()),
        lost = live.ended() => Some(chain(&lost)),
    };
    called.end(ended.as_ref());
    series.closed.inc();
    if let Some(auditor) = &shared.auditor {
        let event = Event::new(EventKind::Connection)
            .with("direction", "inbound")
            .with("peer", &*peer.shown)
            .with("service", &*app.authorizer.service)
            .with("port", app.authorizer.port)
            .with("verdict", "closed")
            .with("received_bytes", counts.received.into_inner())
            .with("sent_bytes", counts.sent.into_inner())
            .with("seconds", now().saturating_duration_since(since).as_secs());
        let event = match &ended {
            Some(error) => event.with("error", error),
            None => event,
        };
        auditor.note(event);
    }
}

/// Who is at the other end, once it is proven.
async fn accept(
    shared: &Arc<Shared>,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, Arc<Peer>, LivePeer), String> {
    let identity = Arc::clone(&shared.gate.tls.current());
    let acceptor = TlsAcceptor::from(identity.server_for(TCP_PROTOCOL));
    let accepted = acceptor.accept(stream).await;
    let stream = accepted.map_err(|error| chain(&error))?;
    let session = stream.get_ref().1;
    // Who offers nothing is not refused by TLS, and may mean another protocol.
    if session.alpn_protocol() != Some(TCP_PROTOCOL) {
        return Err("the peer does not speak mesh-tcp/1".to_owned());
    }
    let live = shared.gate.tls.client(&identity, session);
    let live = live.map_err(|error| chain(&error))?;
    let telemetry = &shared.outbound.recorder.telemetry;
    let peer = shared.gate.peer(live.id(), telemetry)?;
    Ok((stream, peer, live))
}

/// Everything that must hold before the application is called.
async fn admit(shared: &Shared, app: &TcpApp, (peer, from): (&Peer, SocketAddr)) -> bool {
    let inbound = &shared.gate.inbound;
    if shared.auditor.as_ref().is_some_and(Auditor::has_failed)
        || inbound.limit(peer, None).await.is_err()
    {
        shared.refused_connection(
            from,
            "the caller made too many calls, or nothing can be recorded",
        );
        return false;
    }
    if peer.is_prober {
        let error = format!("{} may probe, and reaches no application", peer.shown);
        shared.refused_connection(from, &error);
        return false;
    }
    let at = (inbound.recorder.clock)();
    let judgement = app.authorizer.judge((&peer.caller, &peer.shown), None, at);
    if let Some(auditor) = &shared.auditor {
        let event = Event::new(EventKind::Connection)
            .with("direction", "inbound")
            .with_display("from", &from);
        let certificate = peer.tls_id.as_ref().map(PeerId::as_str);
        let event = decided(event, &judgement.told, certificate);
        if let Err(error) = auditor.record(event).await {
            inbound.recorder.telemetry.audit_failures.inc();
            tracing::error!(
                error = error.message(),
                "a connection was not recorded, so it ends"
            );
            return false;
        }
    }
    judgement.is_allowed
}

/// An application on this machine answers within milliseconds; one elsewhere within a few round trips.
const CONNECT: Duration = Duration::from_secs(5);
