//! Requests from the local application to other services, outermost layer first.
//!
//! | # | layer | refuses with | why here |
//! |--:|---|---|---|
//! | 1 | normalise | `bad_request`, `headers_too_large` | what is routed is what is sent |
//! | 2 | route | `no_route` | all below is per service |
//! | 3 | token | – | after identity headers of the caller are gone |
//! | 4 | drop | `overloaded` | a share that a control plane asks for; no attempt, so no retry and no failure of the service |
//! | 5 | timeout | `timeout` | one deadline over all attempts |
//! | 6 | retry | – | each attempt passes the breaker anew |
//! | 7 | breaker | `circuit_open` | spares a service that fails, and our bulkhead |
//! | 8 | attempt timeout | `timeout` | below the breaker, so that silence counts as a failure |
//! | 9 | bulkhead | `overloaded` | holds its place until the answer's body is over |
//! | 10 | send | `no_endpoints`, `upstream_failed` | picks, connects, seals |

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::header;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;
use mesh_auth::request::strip_identity_headers;
use mesh_resilience::breaker::BreakerOpen;
use mesh_resilience::bulkhead::BulkheadFull;
use mesh_resilience::find_cause;
use mesh_resilience::timeout::Deadline;
use mesh_resilience::timeout::TimedOut;
use mesh_transport::Body;
use mesh_transport::BoxError;
use mesh_transport::app::is_grpc;

use crate::discovery::control_planes::ControlPlanes;
use crate::discovery::control_planes::Dropped;
use crate::discovery::services::FIRST_ANSWER;
use crate::discovery::services::NotFound;
use crate::discovery::services::Services;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::respond::X_MESH_PROCESSED;
use crate::respond::X_REQUEST_ID;
use crate::service_token::ServiceTokens;
use crate::stack::endpoints::Endpoints;
use crate::stack::endpoints::Unpicked;
use crate::stack::headers::strip_hop_by_hop;
use crate::stack::headers::trailer_rule;
use crate::stack::lane::Lane;
use crate::stack::now;
use crate::stack::once::Writes;
use crate::stack::once::outcome_unknown;
use crate::stack::record::Record;
use crate::stack::record::Recorder;
use crate::stack::send::Answer;
use crate::stack::send::CallerBrokeOff;
use crate::stack::send::OutboundCall;
use crate::telemetry::PairSeries;
use crate::trace::Ids;

/// The breaker of the service that was called, as DESIGN section 8 names the states.
pub(crate) const X_CIRCUIT_BREAKER_STATE: HeaderName =
    HeaderName::from_static("x-circuit-breaker-state");
/// The service token of a call.
pub(crate) const X_MESH_TOKEN: HeaderName = HeaderName::from_static("x-mesh-token");
/// Where JSON calls go: `POST /v1/call/SERVICE/METHOD`.
pub(crate) const CALL_PREFIX: &str = "/v1/call/";

/// Everything between the outbound listeners and the connections to peers.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) own_name: Arc<str>,
    pub(crate) services: Services<Service>,
    /// What control planes want dropped.
    pub(crate) control_planes: ControlPlanes,
    pub(crate) limits: Limits,
    pub(crate) ids: Ids,
    pub(crate) token: Option<Arc<ServiceTokens>>,
    pub(crate) recorder: Arc<Recorder>,
    /// What gives ids to writes, where they can be sent again.
    pub(crate) writes: Option<Writes>,
}

/// Where a request of this node's application is meant to go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To<'a> {
    /// Where its host or its path says.
    Host,
    /// To the service of that name, whatever its host says.
    Name(&'a str),
    /// To the service of a listener that has one of its own.
    Service(&'a Arc<Service>),
}

/// One service that can be called, with the state that all calls to it share.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: Arc<str>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) series: Arc<PairSeries>,
    /// The way of calls that no route has anything else in mind for.
    pub(crate) lane: Lane,
}

impl Service {
    /// Waits a while for the first answer of the source of its endpoints; at once where it has answered.
    pub(crate) async fn answered(&self) {
        if !self.endpoints.is_answered() {
            let answered = tokio::time::timeout(FIRST_ANSWER, self.endpoints.answered());
            // Without an answer there is no endpoint, which is what the call then fails with.
            drop(Box::pin(answered).await);
        }
    }

    /// Brings the gauge of the breaker's state up to date.
    pub(crate) fn show_breaker(&self) {
        self.series.show_breaker(self.lane.breaker.state(now()));
    }
}

impl Outbound {
    /// Ends the sessions with all services.
    pub(crate) async fn close_sessions(&self) {
        for service in self.services.all() {
            service.endpoints.close().await;
        }
    }

    /// Answers one request of the local application.
    pub(crate) async fn handle(&self, request: Request<Body>, to: To<'_>) -> Response<Body> {
        let started = now();
        let is_grpc = is_grpc(&request);
        let (parts, body) = request.into_parts();
        let mut request = match CanonicalRequest::new(parts, &self.limits) {
            Ok(request) => request,
            Err(error) => return self.refuse(&malformed(&error), is_grpc, None),
        };
        strip_identity_headers(request.headers_mut(), &[]);
        self.ids.ensure(request.headers_mut());
        let id = request.headers().get(X_REQUEST_ID).cloned();
        let service = match self.route(&mut request, to).await {
            Ok(service) => service,
            Err(refusal) => return self.refuse(&refusal, is_grpc, id.as_ref()),
        };
        service.answered().await;
        if let Err(refusal) = self.add_token(&service, request.headers_mut()) {
            return self.refuse(&refusal, is_grpc, id.as_ref());
        }
        let line = self
            .recorder
            .line("outbound", (&self.own_name, &service.name), &request);
        let seen = (line, Some(Arc::clone(&service.series)));
        let record = Record::new(&self.recorder, started, is_grpc, seen);
        let parts = request.into_parts();
        let deadline =
            grpc_timeout(&parts.headers).map(|timeout| Deadline::after(started, timeout));
        let body = body.with_trailer_rule(trailer_rule);
        let call = OutboundCall::new(parts, body, deadline).with_write(self.writes.as_ref());
        let write = call.write();
        let may_be_processed = call.may_be_processed();
        let result = match self.control_planes.drops(&service.endpoints) {
            None => service.lane.send(call).await,
            Some(dropped) => {
                self.recorder.telemetry.discovery.dropped(&dropped);
                Err(dropped.into())
            }
        };
        // What one attempt proved says nothing of the others.
        let is_unprocessed = !may_be_processed.load(Ordering::Relaxed);
        let (mut response, keep) = match result {
            Ok(Answer {
                response,
                in_flight,
                permit,
                ..
            }) => {
                let mut response = response.map(|body| body.with_trailer_rule(trailer_rule));
                strip_hop_by_hop(response.headers_mut());
                if !is_unprocessed {
                    response.headers_mut().remove(X_MESH_PROCESSED);
                }
                (response, Some((in_flight, permit)))
            }
            Err(error) => {
                let refusal = failed(&service, &error);
                let refusal = if is_unprocessed {
                    refusal
                } else if write.is_some_and(|write| write.is_bound()) {
                    outcome_unknown(refusal.message())
                } else {
                    refusal.maybe_processed()
                };
                (self.refuse(&refusal, is_grpc, id.as_ref()), None)
            }
        };
        let state = service.lane.breaker.state(now());
        service.series.show_breaker(state);
        response.headers_mut().insert(
            X_CIRCUIT_BREAKER_STATE,
            HeaderValue::from_static(state.as_str()),
        );
        record.attach(response, keep)
    }

    /// Which service a request is for: the one that was said, the host's, or the one that a JSON call names.
    async fn route(
        &self,
        request: &mut CanonicalRequest,
        to: To<'_>,
    ) -> Result<Arc<Service>, Refusal> {
        match to {
            To::Service(service) => return Ok(Arc::clone(service)),
            To::Name(name) => return self.named(name).await,
            To::Host => {}
        }
        if let Some(service) = self.services.get(request.host()) {
            return Ok(service);
        }
        if let Some(call) = request.path().strip_prefix(CALL_PREFIX) {
            let (service, method) = call.split_once('/').unwrap_or((call, ""));
            let (service, method) = (self.named(service).await?, format!("/{method}"));
            if request.method() != Method::POST {
                let refusal = Refusal::new(Code::MethodNotAllowed, "calls are made with POST");
                return Err(refusal.with_header(header::ALLOW, HeaderValue::from_static("POST")));
            }
            if method == "/" {
                return Err(Refusal::new(
                    Code::NoRoute,
                    "a call names its method: POST /v1/call/SERVICE/METHOD",
                ));
            }
            if !is_json(request.headers_mut()) {
                return Err(Refusal::new(
                    Code::UnsupportedMediaType,
                    "calls take JSON: content-type application/json",
                ));
            }
            let target = request
                .query()
                .map_or_else(|| method.clone(), |query| format!("{method}?{query}"));
            let unnamed = |error: mesh_auth::request::RequestError| malformed(&error);
            request.set_path_and_query(&target).map_err(unnamed)?;
            request.set_authority(&service.name).map_err(unnamed)?;
            return Ok(service);
        }
        self.named(request.host()).await
    }

    async fn named(&self, name: &str) -> Result<Arc<Service>, Refusal> {
        if let Some(service) = self.services.get(name) {
            return Ok(service);
        }
        // Boxed: it is rare, and must not make every call larger.
        let found = Box::pin(self.services.find(name)).await;
        found.map_err(|why| {
            let name: String = name.chars().take(MAX_NAME_SHOWN).collect();
            match why {
                NotFound::Unknown => {
                    let known = self.services.known();
                    let message = format!("no service is named {name:?}; known here: {known}");
                    Refusal::new(Code::NoRoute, message)
                }
                NotFound::NoAnswer(why) => {
                    let message = format!("no registry tells yet where {name:?} is: {why}");
                    Refusal::new(Code::NoEndpoints, message)
                }
                NotFound::TooMany => {
                    let message = format!(
                        "too many services are looked up to look for {name:?}; try again later"
                    );
                    Refusal::new(Code::Overloaded, message).with_retry_after(LOOK_UP_AGAIN)
                }
            }
        })
    }

    fn add_token(&self, service: &Service, headers: &mut HeaderMap) -> Result<(), Refusal> {
        let Some(tokens) = &self.token else {
            return Ok(());
        };
        let token = tokens.for_call(&service.name, unix_seconds((self.recorder.clock)()));
        let value = token
            .ok()
            .and_then(|token| HeaderValue::try_from(&*token).ok());
        let mut value = value.ok_or_else(|| {
            Refusal::new(Code::Unauthenticated, "could not issue a service token")
        })?;
        value.set_sensitive(true);
        headers.insert(X_MESH_TOKEN, value);
        Ok(())
    }

    fn refuse(&self, refusal: &Refusal, is_grpc: bool, id: Option<&HeaderValue>) -> Response<Body> {
        self.recorder.refused(refusal.code());
        refusal.clone().into_response(is_grpc, id)
    }
}

/// A request that can't be carried as it is.
pub(crate) fn malformed(error: &mesh_auth::request::RequestError) -> Refusal {
    let code = match error.status().as_u16() {
        413 => Code::TooLarge,
        431 | 414 => Code::HeadersTooLarge,
        _ => Code::BadRequest,
    };
    Refusal::new(code, error.to_string())
}

/// The one table from what the stack failed with to what the application sees.
fn failed(service: &Service, error: &BoxError) -> Refusal {
    let name = &service.name;
    if let Some(open) = find_cause::<BreakerOpen>(error) {
        let message = format!(
            "the circuit breaker of {name} is open after repeated failures; try again later"
        );
        return Refusal::new(Code::CircuitOpen, message).with_retry_after(open.retry_after);
    }
    if find_cause::<BulkheadFull>(error).is_some() {
        let message = format!("too many requests to {name} are under way; try again later");
        return Refusal::new(Code::Overloaded, message).with_retry_after(Duration::from_secs(1));
    }
    if let Some(dropped) = find_cause::<Dropped>(error) {
        let refusal = Refusal::new(Code::Overloaded, dropped.to_string());
        return refusal.with_retry_after(Duration::from_secs(1));
    }
    if let Some(timed_out) = find_cause::<TimedOut>(error) {
        let message = format!("{name} gave no answer within {:?}", timed_out.after);
        return Refusal::new(Code::Timeout, message);
    }
    if let Some(broke_off) = find_cause::<CallerBrokeOff>(error) {
        return Refusal::new(Code::BadRequest, broke_off.to_string());
    }
    if let Some(unpicked) = find_cause::<Unpicked>(error) {
        let message = match unpicked {
            Unpicked::NoEndpoints => {
                format!("no endpoint of {name} is known; look at discovery.sources")
            }
            Unpicked::Gone => format!("the instance of {name} that took the call before is gone"),
        };
        return Refusal::new(Code::NoEndpoints, message);
    }
    tracing::warn!(service = %name, error = %chain(error.as_ref()), "call failed");
    // The local application may know why: it is on this side of the trust boundary.
    let message = format!("{name} could not answer: {}", chain(error.as_ref()));
    Refusal::new(Code::UpstreamFailed, message)
}

/// An error and all its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// `grpc-timeout` of gRPC over HTTP/2: at most eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Whether a call's body is JSON; a call that does not say is taken to be.
fn is_json(headers: &mut HeaderMap) -> bool {
    let json = HeaderValue::from_static("application/json");
    let given = headers.entry(header::CONTENT_TYPE).or_insert(json);
    let kind = given
        .as_bytes()
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Names of lookups are forgotten after a minute.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(10);
/// Enough to recognise a mistyped name by.
const MAX_NAME_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_as_the_specification_says() {
        for (text, expected) in [
            ("1H", Some(Duration::from_hours(1))),
            ("20S", Some(Duration::from_secs(20))),
            ("100m", Some(Duration::from_millis(100))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("123456789n", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("5s", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            assert_eq!(grpc_timeout(&headers), expected, "{text:?}");
        }
    }

    #[test]
    fn only_json_is_taken_for_a_call() {
        for (given, taken) in [
            (None, true),
            (Some("application/json; charset=utf-8"), true),
            (Some("text/plain"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers
                .extend(given.map(|kind| (header::CONTENT_TYPE, HeaderValue::from_static(kind))));
            assert_eq!(is_json(&mut headers), taken, "{given:?}");
        }
    }
}
