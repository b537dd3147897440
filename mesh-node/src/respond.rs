//! Every answer that the mesh makes itself: one table from what went wrong to what the caller sees.
//!
//! HTTP callers get a status, `x-mesh-error` and a JSON body; gRPC callers the same as a trailers-only status
//! (gRPC over HTTP/2, "Responses").

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use mesh_transport::Body;

/// Stable code of an answer that the mesh made, on every such answer.
pub const X_MESH_ERROR: HeaderName = HeaderName::from_static("x-mesh-error");
/// `no` where the application provably never saw the request, so that any request may be repeated.
pub const X_MESH_PROCESSED: HeaderName = HeaderName::from_static("x-mesh-processed");
/// Names a request through all nodes that it passes.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why the mesh answered in place of the application.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Code {
    /// The request breaks a rule of HTTP or of the canonical form.
    BadRequest,
    /// Who calls is not proven.
    Unauthenticated,
    /// Who calls is known and may not.
    Denied,
    /// No service has that name.
    NoRoute,
    /// The method can't be carried.
    MethodNotAllowed,
    /// The body is larger than allowed.
    TooLarge,
    /// A JSON call came with another content type.
    UnsupportedMediaType,
    /// The caller made more requests than it may.
    RateLimited,
    /// Who counts requests for all nodes is away, and this node may not decide by itself.
    LimitUnavailable,
    /// The header is larger than allowed.
    HeadersTooLarge,
    /// The service was reached, or not, and gave no answer.
    UpstreamFailed,
    /// No endpoint of the service is known.
    NoEndpoints,
    /// The circuit breaker is open.
    CircuitOpen,
    /// Too many requests are under way.
    Overloaded,
    /// The audit log can't be written, and nothing passes unrecorded.
    AuditUnavailable,
    /// The session is unknown or over; a new handshake helps.
    NoSession,
    /// No answer came in time.
    Timeout,
    /// A handler of an embedded node failed.
    HandlerFailed,
    /// A call that must not run twice ran once or not at all, and nobody knows which.
    OutcomeUnknown,
    /// A call ran, and what it was answered was not kept.
    AnswerLost,
    /// An idempotency key came with another request than before.
    KeyReused,
    /// A call that must not run twice came with no lease, or an old one. Between nodes only.
    StaleLease,
    /// A route of the configuration lets a share of the calls fail; the status is the one that it names.
    FaultInjected,
}

impl Code {
    /// The code as it stands in `x-mesh-error`.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The status for HTTP callers.
    pub fn status(self) -> StatusCode {
        self.row().1
    }

    /// The status for gRPC callers (gRPC "Status codes").
    pub fn grpc_status(self) -> u16 {
        self.row().2
    }

    fn row(self) -> (&'static str, StatusCode, u16) {
        match self {
            Self::BadRequest => ("bad_request", StatusCode::BAD_REQUEST, 3),
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED, 16),
            Self::Denied => ("denied", StatusCode::FORBIDDEN, 7),
            Self::NoRoute => ("no_route", StatusCode::NOT_FOUND, 12),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, 12),
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, 8),
            Self::UnsupportedMediaType => (
                "unsupported_media_type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                3,
            ),
            Self::RateLimited => ("rate_limited", StatusCode::TOO_MANY_REQUESTS, 8),
            Self::LimitUnavailable => ("limit_unavailable", StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::HeadersTooLarge => (
                "headers_too_large",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                8,
            ),
            Self::UpstreamFailed => ("upstream_failed", StatusCode::BAD_GATEWAY, 14),
            Self::NoEndpoints => ("no_endpoints", StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::CircuitOpen => ("circuit_open", StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::AuditUnavailable => ("audit_unavailable", StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::NoSession => ("no_session", StatusCode::UNAUTHORIZED, 16),
            Self::Timeout => ("timeout", StatusCode::GATEWAY_TIMEOUT, 4),
            Self::HandlerFailed => ("handler_failed", StatusCode::INTERNAL_SERVER_ERROR, 2),
            Self::OutcomeUnknown => ("outcome_unknown", StatusCode::BAD_GATEWAY, 2),
            Self::AnswerLost => ("answer_lost", StatusCode::BAD_GATEWAY, 2),
            Self::KeyReused => ("key_reused", StatusCode::UNPROCESSABLE_ENTITY, 3),
            Self::StaleLease => ("stale_lease", StatusCode::CONFLICT, 10),
            Self::FaultInjected => ("fault_injected", StatusCode::SERVICE_UNAVAILABLE, 14),
        }
    }
}

/// An answer in place of the application's.
#[derive(Clone, Debug)]
pub struct Refusal {
    code: Code,
    /// HTTP status and gRPC status, where they are not the code's.
    status: Option<(StatusCode, u16)>,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    headers: Vec<(HeaderName, HeaderValue)>,
    is_processed: bool,
}

impl Refusal {
    /// A refusal with a sentence that tells the caller what to do. The application did not see the request.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            status: None,
            message: message.into(),
            retry_after: None,
            headers: Vec::new(),
            is_processed: false,
        }
    }

    /// Says that the application may have acted on the request.
    #[must_use]
    pub fn maybe_processed(mut self) -> Self {
        self.is_processed = true;
        self
    }

    /// Answers with another status than the code's: that for HTTP callers, and that for gRPC callers.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode, grpc_status: u16) -> Self {
        self.status = Some((status, grpc_status));
        self
    }

    /// Says when another try makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Whether the application may have acted on the request.
    pub fn is_processed(&self) -> bool {
        self.is_processed
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The answer: as JSON, or as a gRPC status for a gRPC caller.
    pub fn into_response(self, is_grpc: bool, request_id: Option<&HeaderValue>) -> Response<Body> {
        let mut headers: HeaderMap = self.headers.into_iter().collect();
        headers.insert(X_MESH_ERROR, HeaderValue::from_static(self.code.as_str()));
        if !self.is_processed {
            headers.insert(X_MESH_PROCESSED, HeaderValue::from_static("no"));
        }
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(id) = request_id {
            headers.insert(X_REQUEST_ID, id.clone());
        }
        let own = (self.code.status(), self.code.grpc_status());
        let (http_status, grpc_status) = self.status.unwrap_or(own);
        let (status, body) = if is_grpc {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            headers.insert("grpc-status", HeaderValue::from(grpc_status));
            headers.insert("grpc-message", grpc_message(&self.message));
            (StatusCode::OK, Body::empty())
        } else {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
            let id = request_id.and_then(|id| id.to_str().ok());
            let body = serde_json::json!({
                "error": { "code": self.code.as_str(), "message": self.message, "requestId": id }
            });
            (http_status, Body::from(format!("{body}\n")))
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// `Percent-Byte-Unencoded` of the gRPC protocol: printable ASCII but `%`.
fn grpc_message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for half in [byte >> 4, byte & 15] {
                encoded.push(
                    char::from_digit(u32::from(half), 16)
                        .unwrap_or('0')
                        .to_ascii_uppercase(),
                );
            }
        }
    }
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_design_has_its_status() {
        let table = [
            (Code::Unauthenticated, 401, 16),
            (Code::Denied, 403, 7),
            (Code::NoRoute, 404, 12),
            (Code::TooLarge, 413, 8),
            (Code::RateLimited, 429, 8),
            (Code::HeadersTooLarge, 431, 8),
            (Code::UpstreamFailed, 502, 14),
            (Code::NoEndpoints, 503, 14),
            (Code::CircuitOpen, 503, 14),
            (Code::Overloaded, 503, 14),
            (Code::Timeout, 504, 4),
            (Code::OutcomeUnknown, 502, 2),
            (Code::AnswerLost, 502, 2),
            (Code::KeyReused, 422, 3),
            (Code::StaleLease, 409, 10),
        ];
        for (code, status, grpc) in table {
            assert_eq!(
                (code.status().as_u16(), code.grpc_status()),
                (status, grpc),
                "{code:?}"
            );
        }
    }

    #[test]
    fn a_grpc_caller_gets_a_trailers_only_status() {
        let response =
            Refusal::new(Code::Denied, "no rule allows 100 % of it\n").into_response(true, None);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(
            response.headers()["grpc-message"],
            "no rule allows 100 %25 of it%0A"
        );
        assert_eq!(response.headers()[X_MESH_PROCESSED], "no");
    }

    #[test]
    fn an_answer_says_when_to_come_back_in_whole_seconds() {
        let refusal =
            Refusal::new(Code::CircuitOpen, "").with_retry_after(Duration::from_millis(1200));
        let response = refusal
            .maybe_processed()
            .into_response(false, Some(&HeaderValue::from_static("r-1")));
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[X_REQUEST_ID], "r-1");
        assert!(!response.headers().contains_key(X_MESH_PROCESSED));
    }
}
