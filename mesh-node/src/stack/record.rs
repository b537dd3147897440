//! What is remembered of a request while it passes, and told when it is over: metrics, access log, totals.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use mesh_transport::Body;
use mesh_transport::body::Watch;

use crate::access_log::AccessLog;
use crate::access_log::Entry;
use crate::access_log::millis;
use crate::access_log::rfc3339;
use crate::respond::X_MESH_ERROR;
use crate::stack::now;
use crate::stack::route::X_MESH_FALLBACK;
use crate::telemetry::CodeLabel;
use crate::telemetry::Outcome;
use crate::telemetry::PairSeries;
use crate::telemetry::Telemetry;
use crate::trace::trace_id;

/// Where the record of a request goes.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) clock: fn() -> SystemTime,
}

/// One request under way. Told to the recorder when it is dropped: with the answer's body, or before there was one.
pub(crate) struct Record<K> {
    recorder: Arc<Recorder>,
    started: Instant,
    is_grpc: bool,
    line: Option<Box<Line>>,
    pair: Option<Arc<PairSeries>>,
    status: StatusCode,
    grpc_status: Option<u16>,
    bytes: u64,
    is_complete: bool,
    /// Released with the record: permits, guards.
    keep: Option<K>,
}

/// What only the access log needs.
pub(crate) struct Line {
    direction: &'static str,
    peer: Arc<str>,
    service: Arc<str>,
    route: Option<Arc<str>>,
    method: Method,
    path: String,
    headers: [Option<HeaderValue>; 4],
    error: Option<HeaderValue>,
    fallback: Option<HeaderValue>,
}

/// The header fields that the access log repeats: request id, trace context, user and correlation id.
const LOGGED: [&str; 4] = [
    "x-request-id",
    "traceparent",
    "x-user-id",
    "x-correlation-id",
];

impl Recorder {
    /// Counts an answer that the mesh made itself.
    pub(crate) fn refused(&self, code: crate::respond::Code) {
        self.telemetry
            .refusals
            .get_or_create(&CodeLabel {
                code: code.as_str(),
            })
            .inc();
    }

    /// The access-log part of a record, where there is an access log.
    pub(crate) fn line(
        &self,
        direction: &'static str,
        (peer, service): (&Arc<str>, &Arc<str>),
        request: &mesh_auth::request::CanonicalRequest,
    ) -> Option<Box<Line>> {
        self.access_log.as_ref()?;
        Some(Box::new(Line {
            direction,
            peer: Arc::clone(peer),
            service: Arc::clone(service),
            route: None,
            method: request.method().clone(),
            path: request.path().to_owned(),
            headers: LOGGED.map(|name| request.headers().get(name).cloned()),
            error: None,
            fallback: None,
        }))
    }
}

impl Line {
    /// Says which route the request took.
    pub(crate) fn with_route(mut self: Box<Self>, route: Option<&Arc<str>>) -> Box<Self> {
        self.route = route.cloned();
        self
    }
}

impl<K: Send + Sync + 'static> Record<K> {
    /// Begins when the request came in. Until there is an answer it stands for a call that its caller gave up.
    pub(crate) fn new(
        recorder: &Arc<Recorder>,
        started: Instant,
        is_grpc: bool,
        (line, pair): (Option<Box<Line>>, Option<Arc<PairSeries>>),
    ) -> Self {
        Self {
            recorder: Arc::clone(recorder),
            started,
            is_grpc,
            line,
            pair,
            status: client_closed(),
            grpc_status: None,
            bytes: 0,
            is_complete: false,
            keep: None,
        }
    }

    /// Rides on `response` until its body is over, and `keep` with it.
    pub(crate) fn attach(mut self, response: Response<Body>, keep: K) -> Response<Body> {
        self.keep = Some(keep);
        self.status = response.status();
        self.grpc_status = grpc_status(response.headers());
        if let Some(line) = &mut self.line {
            line.error = response.headers().get(X_MESH_ERROR).cloned();
            let fallback = || response.headers().get(X_MESH_FALLBACK).cloned();
            line.fallback = line.route.as_ref().and_then(|_| fallback());
        }
        response.map(|body| body.with_watch(Box::new(self)))
    }
}

impl<K: Send + Sync> Watch for Record<K> {
    fn data(&mut self, len: usize) {
        self.bytes += len as u64;
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.grpc_status = grpc_status(trailers).or(self.grpc_status);
    }

    fn end(&mut self, complete: bool) {
        self.is_complete = complete;
    }
}

impl<K> Drop for Record<K> {
    fn drop(&mut self) {
        let took = now().saturating_duration_since(self.started);
        // As Linkerd counts them: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
        let grpc_failed = matches!(self.grpc_status, Some(2 | 4 | 13 | 14 | 15));
        let is_failure = self.status.is_server_error() || grpc_failed;
        if let Some(pair) = &self.pair {
            let outcome = Outcome {
                is_grpc: self.is_grpc,
                code: self.status,
                is_failure,
            };
            pair.record(outcome, took);
        } else {
            let totals = &self.recorder.telemetry.totals;
            totals.requests.fetch_add(1, Ordering::Relaxed);
            let failed = u64::from(is_failure);
            totals.failed.fetch_add(failed, Ordering::Relaxed);
        }
        let (Some(log), Some(line)) = (&self.recorder.access_log, &self.line) else {
            return;
        };
        let text = |value: &Option<HeaderValue>| {
            value
                .as_ref()
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let [request_id, traceparent, user_id, correlation_id] = &line.headers;
        log.write(&Entry {
            timestamp: rfc3339((self.recorder.clock)()),
            direction: line.direction,
            peer: &line.peer,
            service: &line.service,
            route: line.route.as_deref(),
            method: line.method.as_str(),
            path: capped(&line.path),
            protocol: if self.is_grpc { "grpc" } else { "http" },
            response_code: self.status.as_u16(),
            grpc_status: self.grpc_status,
            error: text(&line.error).as_deref(),
            fallback: text(&line.fallback).as_deref(),
            duration_ms: millis(took),
            bytes_sent: self.bytes,
            complete: self.is_complete,
            request_id: text(request_id).as_deref().unwrap_or_default(),
            trace_id: traceparent.as_ref().and_then(trace_id).unwrap_or_default(),
            user_id: text(user_id).as_deref(),
            correlation_id: text(correlation_id).as_deref(),
        });
    }
}

/// The status that access logs give a request whose client left before there was an answer (nginx's 499).
pub(crate) fn client_closed() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A path is the caller's to choose; a line of the log is ours to keep short (threat 56).
fn capped(path: &str) -> &str {
    path.get(..path.floor_char_boundary(MAX_LOGGED_PATH))
        .unwrap_or_default()
}

const MAX_LOGGED_PATH: usize = 1024;
