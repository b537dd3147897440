//! The node's metrics: what is counted, under which names, and the text that Prometheus reads.
//!
//! Names and labels follow Istio's standard metrics and the gRPC client metrics of DESIGN, so that existing
//! dashboards work; the rest is `mesh_*`. No label takes its value from a request, but for the names of services that a
//! registry knows; what is counted of a service that is called goes when the service is forgotten. So the number of series
//! is bounded by the number of services and of rules.

mod credentials;
mod discovery;
mod limit;
mod once;
mod pair;
mod policy;
mod rate_limits;
mod resilience;
mod route;
mod tcp;

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use std::time::SystemTime;

use mesh_session::LimiterStats;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Metric;
use prometheus_client::registry::Registry;

use self::credentials::CredentialMetrics;
use self::discovery::DiscoveryMetrics;
pub(crate) use self::limit::LimitMetrics;
use self::once::OnceMetrics;
use self::pair::ClientLabels;
pub(crate) use self::pair::Ends;
pub(crate) use self::pair::Outcome;
pub(crate) use self::pair::PairSeries;
use self::pair::RequestLabels;
use self::policy::PolicyMetrics;
use self::rate_limits::RateLimitMetrics;
pub(crate) use self::resilience::LaneLabels;
pub(crate) use self::resilience::ResilienceMetrics;
pub(crate) use self::route::FallbackSeries;
use self::route::RouteMetrics;
pub(crate) use self::route::RouteSeries;
use self::tcp::TcpMetrics;
pub(crate) use self::tcp::TcpSeries;

/// All metrics of a node.
pub(crate) struct Telemetry {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RequestLabels, Histogram, fn() -> Histogram>,
    client_requests: Family<ClientLabels, Counter>,
    client_durations: Family<ServiceLabel, Histogram, fn() -> Histogram>,
    client_failures: Family<ServiceLabel, Counter>,
    retries: Family<ServiceLabel, Counter>,
    hedges: Family<HedgeLabels, Counter>,
    /// The services that are called, by name; held while series of theirs are taken away.
    called: Mutex<HashMap<Arc<str>, Called>>,
    /// What is counted about policy.
    pub(crate) policy: PolicyMetrics,
    /// What is counted about credentials.
    pub(crate) credentials: CredentialMetrics,
    /// What is counted about endpoints.
    pub(crate) discovery: DiscoveryMetrics,
    /// What is counted about writes that can be sent again.
    pub(crate) once: OnceMetrics,
    /// What keeps calls alive, as it stands.
    pub(crate) resilience: ResilienceMetrics,
    /// Held while a page is made, so that two of them do not empty each other.
    pub(crate) showing: Mutex<()>,
    /// What is counted of routes.
    pub(crate) routes: RouteMetrics,
    /// What is counted about the rate limit of callers.
    pub(crate) limit: LimitMetrics,
    /// What the rate limit service answered.
    pub(crate) rate_limits: RateLimitMetrics,
    /// Connections that are not HTTP.
    pub(crate) tcp: TcpMetrics,
    /// Answers that the mesh made itself.
    pub(crate) refusals: Family<CodeLabel, Counter>,
    /// Handshakes of secure sessions that were made.
    pub(crate) handshakes: Counter,
    /// What was asked for in handshakes, and refused.
    handshake_load: HandshakeLoad,
    /// Handshakes, records and certificates that were refused.
    pub(crate) refused_peers: Counter,
    /// Audit records that could not be written.
    pub(crate) audit_failures: Counter,
    /// Sessions in the table.
    pub(crate) sessions: Gauge,
    /// Connections that are open, by listener.
    pub(crate) connections: Family<ListenerLabel, Gauge>,
    /// Identities that were refused, the one before kept.
    pub(crate) refused_identities: Counter,
    /// Times that the source of the identity could give none.
    pub(crate) identity_failures: Counter,
    /// Programs that asked for our identity and may not have it.
    pub(crate) refused_programs: Counter,
    /// When the certificate in use ends, in seconds since 1970.
    certificate_expiry: Gauge,
    /// What `/stats` tells.
    pub(crate) totals: Totals,
}

/// Sums over all requests, for `/stats`.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) requests: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) micros: AtomicU64,
}

/// Whose series are to go with a service.
#[derive(Default)]
struct Called {
    /// More than one while a service that was forgotten is still in use and another one of its name is made.
    holders: usize,
    seen: HashSet<RequestLabels>,
}

/// What was asked for in handshakes, and refused.
struct HandshakeLoad {
    begun: Counter,
    failed: Counter,
    refused: Family<ReasonLabel, Counter>,
    under_way: Gauge,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ServiceLabel {
    service: Arc<str>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct HedgeLabels {
    service: Arc<str>,
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct CodeLabel {
    pub(crate) code: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct ListenerLabel {
    pub(crate) listener: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReasonLabel {
    reason: &'static str,
}

impl Telemetry {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let mut names = Names(&mut registry);
        let millis: fn() -> Histogram = || Histogram::new(MILLIS);
        let seconds: fn() -> Histogram = || Histogram::new(MILLIS.iter().map(|bound| bound / 1e3));
        Self {
            requests: names.register("istio_requests", "Requests, as the reporter saw them"),
            durations: names.histograms(
                "istio_request_duration_milliseconds",
                "Time from request to end of answer",
                millis,
            ),
            client_requests: names.register("grpc_client_requests", "Calls to other services"),
            client_durations: names.histograms(
                "grpc_client_request_duration_seconds",
                "Time of calls to other services",
                seconds,
            ),
            client_failures: names.register(
                "grpc_client_requests_failed",
                "Calls to other services that failed",
            ),
            retries: names.register("mesh_resilience_retries", "Attempts beyond the first"),
            hedges: names.register(
                "mesh_resilience_hedges",
                "Second calls beside slow ones: sent, won (theirs was the answer), refused (beyond the budget)",
            ),
            called: Mutex::default(),
            policy: PolicyMetrics::new(&mut names),
            credentials: CredentialMetrics::new(&mut names),
            discovery: DiscoveryMetrics::new(&mut names),
            limit: LimitMetrics::new(&mut names),
            once: OnceMetrics::new(&mut names),
            resilience: ResilienceMetrics::new(&mut names),
            showing: Mutex::default(),
            routes: RouteMetrics::new(&mut names),
            rate_limits: RateLimitMetrics::new(&mut names),
            tcp: TcpMetrics::new(&mut names),
            refusals: names.register("mesh_node_refusals", "Answers that the mesh made itself"),
            handshakes: names.register("mesh_session_handshakes", "Secure sessions agreed on"),
            handshake_load: HandshakeLoad::new(&mut names),
            refused_peers: names.register(
                "mesh_session_refused",
                "Connections, handshakes and records refused",
            ),
            audit_failures: names.register(
                "mesh_audit_failures",
                "Audit records that could not be written",
            ),
            sessions: names.register("mesh_session_active", "Secure sessions in the table"),
            connections: names.register(
                "mesh_transport_open_connections",
                "Connections that are open",
            ),
            refused_identities: names.register(
                "mesh_identity_refused",
                "New identities that were refused; the one before stayed in use",
            ),
            identity_failures: names.register(
                "mesh_identity_source_failures",
                "Times that the source of the identity could not give one",
            ),
            refused_programs: names.register(
                "mesh_workload_api_refused",
                "Programs on this machine that asked for our identity and may not have it",
            ),
            certificate_expiry: names.register(
                "mesh_transport_certificate_expiry_timestamp_seconds",
                "When the certificate in use ends, in seconds since 1970",
            ),
            totals: Totals::default(),
            registry,
        }
    }

    /// Counts what was asked for in handshakes since `before`.
    pub(crate) fn count_handshakes(&self, before: &LimiterStats, now: &LimiterStats) {
        let load = &self.handshake_load;
        load.begun.inc_by(now.begun.saturating_sub(before.begun));
        load.failed.inc_by(now.failed.saturating_sub(before.failed));
        let refused = [
            ("rate", before.refused_rate, now.refused_rate),
            ("busy", before.refused_busy, now.refused_busy),
        ];
        for (reason, before, now) in refused {
            let series = load.refused.get_or_create(&ReasonLabel { reason });
            series.inc_by(now.saturating_sub(before));
        }
        load.under_way.set(i64::from(now.under_way));
    }

    /// Takes away what was counted of a service that is called no more, unless somebody else calls one of its name.
    // threat 51
    fn forget(&self, service: &Arc<str>) {
        let mut called = self.called.lock();
        let Some(one) = called.get_mut(service) else {
            return;
        };
        one.holders = one.holders.saturating_sub(1);
        if one.holders > 0 {
            return;
        }
        let seen = called.remove(service).unwrap_or_default().seen;
        for labels in &seen {
            self.requests.remove(labels);
            self.durations.remove(labels);
            self.client_requests.remove(&ClientLabels {
                service: Arc::clone(service),
                code: labels.response_code,
            });
        }
        let label = ServiceLabel {
            service: Arc::clone(service),
        };
        self.client_durations.remove(&label);
        self.client_failures.remove(&label);
        self.retries.remove(&label);
        for result in HEDGES {
            let service = Arc::clone(service);
            self.hedges.remove(&HedgeLabels { service, result });
        }
        self.discovery.forget(service);
    }

    /// Counts the retries of calls to one service, whose series must live as long.
    pub(crate) fn retries_of(&self, service: &Arc<str>) -> Retries {
        Retries(
            self.retries
                .get_or_create(&ServiceLabel {
                    service: Arc::clone(service),
                })
                .clone(),
        )
    }

    /// Counts the hedges of calls to one service, whose series must live as long.
    pub(crate) fn hedges_of(&self, service: &Arc<str>) -> Hedges {
        Hedges(HEDGES.map(|result| {
            let service = Arc::clone(service);
            let labels = HedgeLabels { service, result };
            self.hedges.get_or_create(&labels).clone()
        }))
    }

    /// Shows when the certificate in use ends.
    pub(crate) fn show_certificate_end(&self, not_after: SystemTime) {
        let seconds = not_after
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        self.certificate_expiry
            .set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Whether the certificate in use is still good at `now`.
    pub(crate) fn has_certificate(&self, now: SystemTime) -> bool {
        let seconds = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        u64::try_from(self.certificate_expiry.get()).is_ok_and(|end| seconds < end)
    }

    /// Connections open on all listeners.
    pub(crate) fn open_connections(&self) -> i64 {
        ["inbound", "outbound"]
            .map(|listener| {
                self.connections
                    .get_or_create(&ListenerLabel { listener })
                    .get()
            })
            .iter()
            .sum()
    }

    /// All metrics in Prometheus' classic text format (version 0.0.4).
    ///
    /// The library writes OpenMetrics, in which a counter's family is named without the `_total` of its samples;
    /// the classic format wants the same name in both places and knows no end mark.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut open = String::new();
        prometheus_client::encoding::text::encode(&mut open, &self.registry)?;
        classic(&open)
    }
}

/// Gives metrics their names.
struct Names<'a>(&'a mut Registry);

impl Names<'_> {
    fn register<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn histograms<L>(
        &mut self,
        name: &str,
        help: &str,
        new: fn() -> Histogram,
    ) -> Family<L, Histogram, fn() -> Histogram>
    where
        L: EncodeLabelSet + Clone + fmt::Debug + Eq + std::hash::Hash + Send + Sync + 'static,
    {
        let family = Family::new_with_constructor(new);
        self.0.register(name, help, family.clone());
        family
    }
}

impl HandshakeLoad {
    fn new(names: &mut Names<'_>) -> Self {
        Self {
            begun: names.register(
                "mesh_session_handshakes_begun",
                "Handshakes that the private key worked for or waits to",
            ),
            failed: names.register(
                "mesh_session_handshakes_failed",
                "Handshakes that the private key worked for in vain",
            ),
            refused: names.register(
                "mesh_session_handshakes_refused",
                "Handshakes refused for their peer's rate, or because too many were under way",
            ),
            under_way: names.register(
                "mesh_session_handshakes_under_way",
                "Handshakes under way, waiting ones too",
            ),
        }
    }
}

/// Counts retries.
pub(crate) struct Retries(Counter);

impl mesh_resilience::retry::Observe for Retries {
    fn retrying(&self, _: u32, _: Duration) {
        self.0.inc();
    }
}

/// Counts hedges: sent, won, refused.
pub(crate) struct Hedges([Counter; 3]);

impl mesh_resilience::hedge::Observe for Hedges {
    fn hedged(&self, _: Duration) {
        self.0[0].inc();
    }

    fn won(&self) {
        self.0[1].inc();
    }

    fn refused(&self) {
        self.0[2].inc();
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("totals", &self.totals)
            .finish_non_exhaustive()
    }
}

const HEDGES: [&str; 3] = ["sent", "won", "refused"];
/// Istio's buckets for request durations, in milliseconds.
const MILLIS: [f64; 20] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
    7_200_000.0,
];

fn classic(open: &str) -> Result<String, fmt::Error> {
    let mut text = String::with_capacity(open.len() + 256);
    let mut help = "";
    for line in open.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                // The kind comes after the help, and only with it the name is known.
                (Some("HELP"), Some(_), Some(words)) => help = words,
                (Some("TYPE"), Some(name), Some(kind)) => {
                    let suffix = if kind == "counter" { "_total" } else { "" };
                    writeln!(
                        text,
                        "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}"
                    )?;
                }
                _ => {}
            }
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::discovery::control_planes::Dropped;

    fn calls_to(service: &str, telemetry: &Arc<Telemetry>) -> PairSeries {
        let ends = Ends {
            reporter: "source",
            source: "user".into(),
            source_principal: "spiffe://t/user".into(),
            destination: service.into(),
            destination_principal: format!("spiffe://t/{service}").into(),
            security: "mutual_tls",
        };
        PairSeries::new(ends, Arc::clone(telemetry))
    }

    fn call(series: &PairSeries, code: StatusCode) {
        let outcome = Outcome {
            is_grpc: false,
            code,
            is_failure: code.is_server_error(),
        };
        series.record(outcome, Duration::from_millis(3));
    }

    // threat 51
    #[test]
    fn three_thousand_services_that_were_called_and_forgotten_leave_the_page_no_longer() {
        let telemetry = Arc::new(Telemetry::new());
        let before = telemetry.text().unwrap();
        for number in 0..3000 {
            let name = format!("made-up-{number}");
            let series = calls_to(&name, &telemetry);
            let service = Arc::clone(&series.ends().destination);
            call(&series, StatusCode::OK);
            call(&series, StatusCode::BAD_GATEWAY);
            telemetry.resilience.show_health_ignored(&service, true);
            drop(telemetry.retries_of(&service));
            telemetry.discovery.updated(&service, 1);
            telemetry.discovery.checked(&service, true);
            telemetry.discovery.checked(&service, false);
            telemetry.discovery.dropped(&Dropped {
                plane: "xds".into(),
                service,
                category: "lottery".to_owned(),
            });
            if number == 0 {
                assert!(telemetry.text().unwrap().contains(&name));
            }
        }
        telemetry.resilience.begin();
        assert_eq!(telemetry.text().unwrap(), before);
        assert!(telemetry.called.lock().is_empty());
    }

    #[test]
    fn a_service_that_is_made_anew_while_the_one_before_is_still_in_use_keeps_its_series() {
        let telemetry = Arc::new(Telemetry::new());
        let before = calls_to("order", &telemetry);
        call(&before, StatusCode::OK);
        let after = calls_to("order", &telemetry);
        call(&after, StatusCode::NOT_FOUND);
        drop(before);
        call(&after, StatusCode::OK);
        let text = telemetry.text().unwrap();
        let counted = "grpc_client_requests_total{service=\"order\",code=\"200\"} 2\n";
        assert!(text.contains(counted), "{text}");
        drop(after);
        assert!(!telemetry.text().unwrap().contains("order"));
    }

    #[test]
    fn counts_once_for_each_end_and_writes_the_classic_format() {
        let telemetry = Arc::new(Telemetry::new());
        let series = calls_to("order", &telemetry);
        for code in [StatusCode::OK, StatusCode::OK, StatusCode::BAD_GATEWAY] {
            call(&series, code);
        }
        let text = telemetry.text().unwrap();
        assert!(
            text.contains("# TYPE istio_requests_total counter\n"),
            "{text}"
        );
        assert!(
            text.contains("grpc_client_requests_total{service=\"order\",code=\"200\"} 2\n"),
            "{text}"
        );
        assert!(
            text.contains("grpc_client_requests_failed_total{service=\"order\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("istio_request_duration_milliseconds_bucket"),
            "{text}"
        );
        assert!(!text.contains("# EOF"), "{text}");
        assert_eq!(
            text.matches("# TYPE").count(),
            text.matches("# HELP").count()
        );
    }
}
