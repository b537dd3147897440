//! From the application to other nodes.

use std::sync::Arc;

use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_resilience::classify::Outcome;
use mesh_transport::tls::LivePeer;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::carry::Carried;
use super::carry::Plain;
use super::carry::carry;
use crate::node::Shared;
use crate::stack::endpoints::Pick;
use crate::stack::outbound::Service;
use crate::stack::outbound::chain;

/// Serves one connection of the application to `service`.
pub(crate) async fn serve_application(shared: &Arc<Shared>, service: &Service, near: TcpStream) {
    let mut near = Plain::new(near);
    let Some((far, mut live)) = connect(service).await else {
        return note(
            shared,
            service,
            "refused",
            Some("no endpoint could be reached"),
        );
    };
    note(shared, service, "opened", None);
    let series = shared
        .outbound
        .recorder
        .telemetry
        .tcp
        .of(service.series.ends());
    series.opened.inc();
    let counts = Carried::default();
    let ended = tokio::select! {
        carried = carry(near.stream(), far, (&series, &counts)) => carried.err().map(|error| error.to_string()),
        lost = live.ended() => Some(chain(&lost)),
    };
    near.end(ended.as_ref());
    series.closed.inc();
    note(shared, service, "closed", ended.as_deref());
}

/// A connection to an endpoint; nothing was sent to those that could not be reached, so the next is tried.
async fn connect(service: &Service) -> Option<(TlsStream<TcpStream>, LivePeer)> {
    service.answered().await;
    let list = service.endpoints.current();
    let mut tried = Vec::new();
    while tried.len() < ATTEMPTS {
        let pick = Pick {
            tried: &tried,
            ..Pick::default()
        };
        let (member, mut in_flight) = list.pick(&pick).ok()?;
        match member.stream().await {
            Ok(connected) => {
                in_flight.record(Outcome::Success, String::new);
                return Some(connected);
            }
            Err(error) => {
                in_flight.failed(&error);
                tracing::warn!(service = %service.name, error = %chain(&error), "could not connect");
                tried.push(in_flight.index());
            }
        }
    }
    None
}

fn note(shared: &Shared, service: &Service, verdict: &'static str, error: Option<&str>) {
    let Some(auditor) = &shared.auditor else {
        return;
    };
    let event = Event::new(EventKind::Connection)
        .with("direction", "outbound")
        .with("service", &*service.name)
        .with("verdict", verdict);
    auditor.note(match error {
        Some(error) => event.with("error", error),
        None => event,
    });
}

/// As many endpoints as an HTTP call tries by default.
const ATTEMPTS: usize = 3;
