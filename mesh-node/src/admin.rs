//! The admin pages: metrics, health, statistics and the configuration, for people and scripts on this machine.

mod here;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use hyper::body::Incoming;
use mesh_transport::Body;
use serde_json::Value;
use serde_json::json;

use crate::config::NodeConfig;
use crate::discovery::view::View;
use crate::discovery::view::page;
use crate::node::Addresses;
use crate::node::Shared;
use crate::stack::now;
use crate::stack::outbound::Service;

/// What the admin pages tell that does not change.
#[derive(Debug)]
pub(crate) struct Admin {
    metrics: Option<String>,
    config: Value,
    addresses: Value,
    service: String,
    started: Instant,
    is_ready: Arc<AtomicBool>,
}

impl Admin {
    pub(crate) fn new(
        config: &NodeConfig,
        is_ready: Arc<AtomicBool>,
        addresses: &Addresses,
    ) -> Self {
        let upstreams = addresses
            .upstreams
            .iter()
            .map(|(service, address)| json!({ "service": service, "bind": address }));
        Self {
            metrics: config
                .metrics
                .enabled
                .then(|| config.metrics.endpoint.clone()),
            config: config.redacted(),
            addresses: json!({
                "inbound": addresses.inbound,
                "outbound": addresses.outbound,
                "upstreams": upstreams.collect::<Vec<_>>(),
                "admin": addresses.admin,
            }),
            service: config.service.id.clone(),
            started: now(),
            is_ready,
        }
    }

    /// Answers one request.
    pub(crate) fn answer(&self, request: &Request<Incoming>, shared: &Shared) -> Response<Body> {
        // A page in a browser may be made to ask us under a name of its own (DNS rebinding, threat 55).
        if !is_local_name(request.headers().get(header::HOST)) {
            return text(StatusCode::FORBIDDEN, "ask by IP address or as localhost\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "these pages are read with GET\n",
            );
        }
        let path = request.uri().path();
        if self.metrics.as_deref() == Some(path) {
            return metrics(shared);
        }
        match path {
            "/health" => self.health(shared),
            "/health/live" => text(StatusCode::OK, "live\n"),
            "/health/ready" if self.is_ready(shared) => text(StatusCode::OK, "ready\n"),
            "/health/ready" => text(StatusCode::SERVICE_UNAVAILABLE, &Self::not_ready(shared)),
            "/health/services" => json_page(StatusCode::OK, &each_service(shared, page::summary)),
            "/services" => {
                let control_planes = &shared.outbound.control_planes;
                let whole = |view: &View| page::whole(view, control_planes, MOST_ENDPOINTS);
                let services = each_service(shared, whole);
                let page = json!({
                    "services": services,
                    "controlPlanes": control_planes.page(),
                    "routes": here::routes(shared),
                    "inbound": here::inbound(shared),
                });
                json_page(StatusCode::OK, &page)
            }
            _ if path.starts_with(SERVICES) => service(path, shared),
            "/stats" => json_page(StatusCode::OK, &self.stats(shared)),
            "/config" => json_page(StatusCode::OK, &self.config),
            "/decisions" => json_page(
                StatusCode::OK,
                &shared.gate.inbound.authorizer.recent.page(),
            ),
            _ if path.starts_with(DECISIONS) => decision(path, shared),
            _ => text(StatusCode::NOT_FOUND, &self.index()),
        }
    }

    /// A node whose certificate has ended can do nothing, so nobody should send it anything (threat 5).
    fn is_ready(&self, shared: &Shared) -> bool {
        let recorder = &shared.outbound.recorder;
        self.is_ready.load(Ordering::Acquire)
            && shared.is_settled()
            && recorder.telemetry.has_certificate((recorder.clock)())
    }

    /// Why it is not ready.
    fn not_ready(shared: &Shared) -> String {
        let recorder = &shared.outbound.recorder;
        if !recorder.telemetry.has_certificate((recorder.clock)()) {
            return "not ready: our certificate has ended, and peers refuse it; see /health\n"
                .to_owned();
        }
        if shared.is_settled() {
            return "not ready\n".to_owned();
        }
        let silent = shared.outbound.services.unanswered().join(", ");
        format!("not ready: no registry has answered yet about {silent}; see /health/services\n")
    }

    fn index(&self) -> String {
        let metrics = self.metrics.as_deref().unwrap_or_default();
        format!(
            "here are: {metrics} /health /health/live /health/ready /health/services /services /stats /config /decisions\n"
        )
    }

    fn health(&self, shared: &Shared) -> Response<Body> {
        let is_recorded = shared
            .auditor
            .as_ref()
            .is_none_or(|auditor| !auditor.log().stats().is_failed);
        let is_degraded = shared.health.is_degraded();
        let status = match (self.is_ready(shared), is_recorded) {
            (true, true) if is_degraded => "degraded",
            (true, true) => "ok",
            (true, false) => "audit log failed",
            (false, _) => "not ready",
        };
        // A node that goes on with what it had still does its work.
        let code = if matches!(status, "ok" | "degraded") {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        json_page(
            code,
            &json!({
                "status": status,
                "service": self.service,
                "listen": self.addresses,
                "parts": shared.health.page(),
            }),
        )
    }

    fn stats(&self, shared: &Shared) -> Value {
        let telemetry = &shared.outbound.recorder.telemetry;
        let [total, failed, micros] = [
            &telemetry.totals.requests,
            &telemetry.totals.failed,
            &telemetry.totals.micros,
        ]
        .map(|counter| counter.load(Ordering::Relaxed));
        let average = micros.checked_div(total).unwrap_or(0);
        let sessions = shared.gate.session_stats();
        let audit = shared.auditor.as_ref().map(|auditor| {
            let (stats, head) = (auditor.log().stats(), auditor.log().head());
            json!({ "appended": stats.appended, "queued": stats.queued, "failures": stats.failures, "head": head.to_string() })
        });
        json!({
            "service": self.service,
            "uptimeSeconds": now().saturating_duration_since(self.started).as_secs(),
            "totalRequests": total,
            "successfulRequests": total.saturating_sub(failed),
            "failedRequests": failed,
            "averageLatency": std::time::Duration::from_micros(average).as_secs_f64() * 1e3,
            "activeConnections": telemetry.open_connections(),
            "activeSessions": sessions.as_ref().map_or(0, |sessions| sessions.sessions),
            "audit": audit,
        })
    }
}

/// What `tell` says of each service.
fn each_service(shared: &Shared, tell: impl Fn(&View) -> Value) -> Value {
    let services = shared.outbound.services.all();
    services
        .iter()
        .map(|service| tell(&view(service, shared)))
        .collect()
}

fn view(service: &Arc<Service>, shared: &Shared) -> View {
    let reports = shared.outbound.services.reports(&service.name);
    View::new(Arc::clone(service), reports, now())
}

/// One service with all its endpoints.
fn service(path: &str, shared: &Shared) -> Response<Body> {
    let name = path.trim_start_matches(SERVICES);
    // Looking at it is not calling it.
    let services = shared.outbound.services.all();
    match services.iter().find(|service| &*service.name == name) {
        Some(service) => json_page(
            StatusCode::OK,
            &page::whole(
                &view(service, shared),
                &shared.outbound.control_planes,
                usize::MAX,
            ),
        ),
        None => text(
            StatusCode::NOT_FOUND,
            "no service of that name is called here; see /services\n",
        ),
    }
}

/// The explanation of one of the last decisions.
fn decision(path: &str, shared: &Shared) -> Response<Body> {
    let id = path.trim_start_matches(DECISIONS);
    let authorizer = &shared.gate.inbound.authorizer;
    let found = authorizer
        .recent
        .explain(id, &authorizer.policies.current());
    match found {
        Some(page) => json_page(StatusCode::OK, &page),
        None => text(
            StatusCode::NOT_FOUND,
            "not one of the last denials here; `mesh-node explain ID` looks in the audit log\n",
        ),
    }
}

fn metrics(shared: &Shared) -> Response<Body> {
    shared.gate.count_sessions();
    let telemetry = &shared.outbound.recorder.telemetry;
    let _one_at_a_time = telemetry.showing.lock();
    telemetry.discovery.begin();
    telemetry.resilience.begin();
    here::measure(shared);
    for service in shared.outbound.services.all() {
        view(&service, shared).measure(telemetry);
    }
    let Ok(page) = shared.outbound.recorder.telemetry.text() else {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics can't be written\n",
        );
    };
    page_of(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        page,
    )
}

fn text(status: StatusCode, page: &str) -> Response<Body> {
    page_of(status, "text/plain; charset=utf-8", page.to_owned())
}

fn json_page(status: StatusCode, page: &Value) -> Response<Body> {
    page_of(status, "application/json", format!("{page:#}\n"))
}

fn page_of(status: StatusCode, kind: &'static str, page: String) -> Response<Body> {
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether a request names us by address or as `localhost`; HTTP/1.0 names nobody.
fn is_local_name(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host else { return true };
    let Ok(authority) = http::uri::Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let name = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

const DECISIONS: &str = "/decisions/";
const SERVICES: &str = "/services/";
/// Of each service, where all are shown.
const MOST_ENDPOINTS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_somebody_else_controls_are_refused() {
        // threat 55
        for (host, is_allowed) in [
            ("127.0.0.1:9090", true),
            ("[::1]:9090", true),
            ("localhost", true),
            ("evil.example:9090", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            assert_eq!(
                is_local_name(Some(&HeaderValue::from_static(host))),
                is_allowed,
                "{host:?}"
            );
        }
    }
}
