//! Requests between two services, under Istio's names for them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::ServiceLabel;
use super::Telemetry;

/// The ends of a request as labels; one set a pair of services.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// `source` at the calling node, `destination` at the called one.
    pub(crate) reporter: &'static str,
    pub(crate) source: Arc<str>,
    pub(crate) source_principal: Arc<str>,
    pub(crate) destination: Arc<str>,
    pub(crate) destination_principal: Arc<str>,
    /// What protects the connection: `mutual_tls`, or `none`.
    pub(crate) security: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct RequestLabels {
    reporter: &'static str,
    source_app: Arc<str>,
    source_workload: Arc<str>,
    source_principal: Arc<str>,
    destination_app: Arc<str>,
    destination_workload: Arc<str>,
    destination_service: Arc<str>,
    destination_principal: Arc<str>,
    request_protocol: &'static str,
    pub(super) response_code: u16,
    connection_security_policy: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct ClientLabels {
    pub(super) service: Arc<str>,
    pub(super) code: u16,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) is_grpc: bool,
    pub(crate) code: StatusCode,
    pub(crate) is_failure: bool,
}

/// The series of one pair of services, looked up once and then only counted up. Those of a service that is called are gone
/// when the last one of these for it is.
pub(crate) struct PairSeries {
    ends: Ends,
    telemetry: Arc<Telemetry>,
    by_outcome: RwLock<Vec<(bool, u16, Series)>>,
}

#[derive(Clone)]
struct Series {
    requests: Counter,
    duration: Histogram,
    client: Option<(Counter, Histogram)>,
}

impl PairSeries {
    pub(crate) fn new(ends: Ends, telemetry: Arc<Telemetry>) -> Self {
        if ends.reporter == "source" {
            let mut called = telemetry.called.lock();
            called
                .entry(Arc::clone(&ends.destination))
                .or_default()
                .holders += 1;
        }
        Self {
            ends,
            telemetry,
            by_outcome: RwLock::default(),
        }
    }

    /// The two services.
    pub(crate) fn ends(&self) -> &Ends {
        &self.ends
    }

    /// Counts one finished request.
    pub(crate) fn record(&self, outcome: Outcome, took: Duration) {
        let Outcome {
            is_grpc,
            code,
            is_failure,
        } = outcome;
        let series = self.series(is_grpc, code.as_u16());
        series.requests.inc();
        series.duration.observe(took.as_secs_f64() * 1e3);
        if let Some((requests, duration)) = &series.client {
            requests.inc();
            duration.observe(took.as_secs_f64());
            if is_failure {
                let label = ServiceLabel {
                    service: Arc::clone(&self.ends.destination),
                };
                self.telemetry.client_failures.get_or_create(&label).inc();
            }
        }
        let totals = &self.telemetry.totals;
        totals.requests.fetch_add(1, Ordering::Relaxed);
        totals
            .failed
            .fetch_add(u64::from(is_failure), Ordering::Relaxed);
        totals.micros.fetch_add(
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    fn series(&self, is_grpc: bool, code: u16) -> Series {
        let matching = |known: &Vec<(bool, u16, Series)>| {
            known
                .iter()
                .find(|(grpc, status, _)| (*grpc, *status) == (is_grpc, code))
                .map(|(_, _, series)| series.clone())
        };
        if let Some(series) = matching(&self.by_outcome.read()) {
            return series;
        }
        let ends = &self.ends;
        let labels = RequestLabels {
            reporter: ends.reporter,
            source_app: Arc::clone(&ends.source),
            source_workload: Arc::clone(&ends.source),
            source_principal: Arc::clone(&ends.source_principal),
            destination_app: Arc::clone(&ends.destination),
            destination_workload: Arc::clone(&ends.destination),
            destination_service: Arc::clone(&ends.destination),
            destination_principal: Arc::clone(&ends.destination_principal),
            request_protocol: if is_grpc { "grpc" } else { "http" },
            response_code: code,
            connection_security_policy: ends.security,
        };
        let telemetry = &self.telemetry;
        let client = (ends.reporter == "source").then(|| {
            let mut called = telemetry.called.lock();
            if let Some(one) = called.get_mut(&ends.destination) {
                one.seen.insert(labels.clone());
            }
            drop(called);
            let service = Arc::clone(&ends.destination);
            let requests = telemetry.client_requests.get_or_create(&ClientLabels {
                service: Arc::clone(&service),
                code,
            });
            let duration = telemetry
                .client_durations
                .get_or_create(&ServiceLabel { service });
            (requests.clone(), duration.clone())
        });
        let requests = telemetry.requests.get_or_create(&labels).clone();
        let duration = telemetry.durations.get_or_create(&labels).clone();
        let series = Series {
            requests,
            duration,
            client,
        };
        let mut known = self.by_outcome.write();
        if matching(&known).is_none() {
            known.push((is_grpc, code, series.clone()));
        }
        series
    }
}

impl Drop for PairSeries {
    fn drop(&mut self) {
        if self.ends.reporter == "source" {
            self.telemetry.forget(&self.ends.destination);
        }
    }
}

impl fmt::Debug for PairSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairSeries")
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}
