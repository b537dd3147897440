//! Connections that are not HTTP, under Istio's names for them.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::Ends;
use super::Names;

/// What is counted about connections that are not HTTP; one set of series a pair of services.
pub(crate) struct TcpMetrics {
    opened: Family<TcpLabels, Counter>,
    closed: Family<TcpLabels, Counter>,
    sent: Family<TcpLabels, Counter>,
    received: Family<TcpLabels, Counter>,
}

/// The series of one pair of services.
#[derive(Clone, Debug)]
pub(crate) struct TcpSeries {
    pub(crate) opened: Counter,
    pub(crate) closed: Counter,
    /// Bytes to the caller.
    pub(crate) sent: Counter,
    /// Bytes from the caller.
    pub(crate) received: Counter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct TcpLabels {
    reporter: &'static str,
    source_app: Arc<str>,
    source_workload: Arc<str>,
    source_principal: Arc<str>,
    destination_app: Arc<str>,
    destination_workload: Arc<str>,
    destination_service: Arc<str>,
    destination_principal: Arc<str>,
    request_protocol: &'static str,
    connection_security_policy: &'static str,
}

impl TcpMetrics {
    pub(super) fn new(names: &mut Names<'_>) -> Self {
        Self {
            opened: names.register("istio_tcp_connections_opened", "TCP connections opened"),
            closed: names.register("istio_tcp_connections_closed", "TCP connections closed"),
            sent: names.register(
                "istio_tcp_sent_bytes",
                "Bytes to callers over TCP connections",
            ),
            received: names.register(
                "istio_tcp_received_bytes",
                "Bytes from callers over TCP connections",
            ),
        }
    }

    /// The series of a pair of services.
    pub(crate) fn of(&self, ends: &Ends) -> TcpSeries {
        let labels = TcpLabels {
            reporter: ends.reporter,
            source_app: Arc::clone(&ends.source),
            source_workload: Arc::clone(&ends.source),
            source_principal: Arc::clone(&ends.source_principal),
            destination_app: Arc::clone(&ends.destination),
            destination_workload: Arc::clone(&ends.destination),
            destination_service: Arc::clone(&ends.destination),
            destination_principal: Arc::clone(&ends.destination_principal),
            request_protocol: "tcp",
            connection_security_policy: ends.security,
        };
        let of = |family: &Family<TcpLabels, Counter>| family.get_or_create(&labels).clone();
        TcpSeries {
            opened: of(&self.opened),
            closed: of(&self.closed),
            sent: of(&self.sent),
            received: of(&self.received),
        }
    }
}
