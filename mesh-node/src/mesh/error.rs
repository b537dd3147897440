//! Why a call gave no answer.

use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use http::StatusCode;
use http::header;
use mesh_transport::BoxError;

use crate::respond::Code;
use crate::respond::X_MESH_ERROR;
use crate::respond::X_MESH_PROCESSED;
use crate::respond::X_REQUEST_ID;

/// Why a call gave no answer: what the mesh, the other side or this one said, with what to do about it.
#[derive(Debug)]
#[non_exhaustive]
pub struct CallError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    call: String,
    status: Option<StatusCode>,
    code: String,
    message: String,
    request_id: Option<String>,
    retry_after: Option<Duration>,
    is_unprocessed: bool,
    source: Option<BoxError>,
}

impl CallError {
    /// The HTTP status, where there was an answer.
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// A stable code to decide on. From the mesh, as in `x-mesh-error`: `denied`, `unauthenticated`, `no_route`,
    /// `rate_limited`, `no_endpoints`, `circuit_open`, `overloaded`, `timeout`, `upstream_failed`, `handler_failed` and
    /// so on. From the other side's application itself: `application`. From this side: `invalid_input`,
    /// `invalid_answer`, `answer_too_large`, `answer_broken_off`, `stopped`.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// What went wrong and what to do, for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Names the call in the logs of both nodes.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// When another try makes sense, where the mesh said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the same call may be made again later, whatever it does: the handler provably did not see this one, and
    /// the reason may pass. The mesh has already retried what it could.
    pub fn is_retryable(&self) -> bool {
        self.0.is_unprocessed && PASSING.iter().any(|code| code.as_str() == self.0.code)
    }

    fn local(call: String, code: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            call,
            status: None,
            code: code.to_owned(),
            message: message.into(),
            request_id: None,
            retry_after: None,
            is_unprocessed: true,
            source: None,
        }))
    }

    pub(super) fn unknown_service(service: &str, known: &str) -> Self {
        let message = format!(
            "no discovery source knows this service (known: {known}); add it under discovery.sources"
        );
        Self::local(service.to_owned(), Code::NoRoute.as_str(), message)
    }

    pub(super) fn stopped(service: &str) -> Self {
        Self::local(
            service.to_owned(),
            "stopped",
            "this node was shut down; start it again to call",
        )
    }

    pub(super) fn bad_method(call: String, source: impl Into<BoxError>) -> Self {
        let message =
            "the method's name can't stand in a path; use letters, digits, '-', '_', '.' and '/'";
        Self::local(call, "invalid_input", message).with_source(source)
    }

    pub(super) fn bad_input(call: String, source: impl Into<BoxError>) -> Self {
        Self::local(call, "invalid_input", "the input can't be written as JSON").with_source(source)
    }

    /// Something is wrong with an answer whose head has come.
    pub(super) fn bad_answer(
        call: String,
        (status, headers): (StatusCode, &HeaderMap),
        (code, message): (&str, String),
        source: impl Into<BoxError>,
    ) -> Self {
        let mut error = Self::local(call, code, message).with_source(source);
        error.0.status = Some(status);
        error.0.request_id = text(headers, &X_REQUEST_ID);
        error.0.is_unprocessed = false;
        error
    }

    /// An answer that says that the call failed: the mesh's own, or the application's.
    pub(super) fn refused(
        call: String,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let code = text(headers, &X_MESH_ERROR);
        let is_mesh = code.is_some();
        let said = serde_json::from_slice::<serde_json::Value>(body).ok();
        let said = said
            .as_ref()
            .and_then(|said| said.pointer("/error/message")?.as_str());
        let message = match said {
            Some(said) if is_mesh => said.to_owned(),
            _ => excerpt(body),
        };
        let seconds = text(headers, &header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
        Self(Box::new(Inner {
            call,
            status: Some(status),
            code: code.unwrap_or_else(|| "application".to_owned()),
            message,
            request_id: text(headers, &X_REQUEST_ID),
            retry_after: seconds.map(Duration::from_secs),
            is_unprocessed: is_mesh
                && headers
                    .get(X_MESH_PROCESSED)
                    .is_some_and(|value| value == "no"),
            source: None,
        }))
    }

    fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            call,
            status,
            code,
            message,
            ..
        } = &*self.0;
        match status {
            Some(status) => write!(
                f,
                "{call} failed with {} {code}: {message}",
                status.as_u16()
            ),
            None => write!(f, "{call} failed with {code}: {message}"),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source: &(dyn std::error::Error + 'static) = self.0.source.as_deref()?;
        Some(source)
    }
}

fn text(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The beginning of what an application said, in one line.
fn excerpt(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body.get(..MAX_EXCERPT).unwrap_or(body));
    let words: Vec<&str> = body.split_whitespace().collect();
    if words.is_empty() {
        "the application gave no reason".to_owned()
    } else {
        words.join(" ")
    }
}

/// Refusals whose reason may pass by itself.
const PASSING: [Code; 8] = [
    Code::RateLimited,
    Code::LimitUnavailable,
    Code::Overloaded,
    Code::CircuitOpen,
    Code::NoEndpoints,
    Code::UpstreamFailed,
    Code::NoSession,
    Code::AuditUnavailable,
];
/// Enough to recognise what it is about.
const MAX_EXCERPT: usize = 256;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::respond::Refusal;

    fn of(refusal: &Refusal) -> CallError {
        let id = HeaderValue::from_static("r-1");
        let (head, _) = refusal.clone().into_response(false, Some(&id)).into_parts();
        let body = format!(r#"{{"error":{{"message":"{}"}}}}"#, refusal.message());
        CallError::refused(
            "order-service/list".to_owned(),
            head.status,
            &head.headers,
            body.as_bytes(),
        )
    }

    #[test]
    fn says_what_the_mesh_said() {
        let error = of(&Refusal::new(Code::CircuitOpen, "try again later")
            .with_retry_after(Duration::from_secs(7)));
        assert_eq!(
            error.to_string(),
            "order-service/list failed with 503 circuit_open: try again later"
        );
        assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(
            (error.code(), error.request_id()),
            ("circuit_open", Some("r-1"))
        );
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert!(error.is_retryable());
    }

    #[test]
    fn is_retryable_only_if_unseen_and_the_reason_may_pass() {
        for (refusal, expected) in [
            (Refusal::new(Code::Overloaded, ""), true),
            (Refusal::new(Code::UpstreamFailed, ""), true),
            (
                Refusal::new(Code::UpstreamFailed, "").maybe_processed(),
                false,
            ),
            (Refusal::new(Code::Timeout, "").maybe_processed(), false),
            (Refusal::new(Code::Denied, ""), false),
            (Refusal::new(Code::NoRoute, ""), false),
            (
                Refusal::new(Code::HandlerFailed, "").maybe_processed(),
                false,
            ),
        ] {
            let code = refusal.code();
            assert_eq!(of(&refusal).is_retryable(), expected, "{code:?}");
        }
    }

    #[test]
    fn an_application_s_own_error_shows_its_text_and_never_counts_as_unseen() {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.headers
            .insert(X_MESH_PROCESSED, HeaderValue::from_static("no"));
        let error = CallError::refused(
            "a/b".to_owned(),
            StatusCode::NOT_FOUND,
            &head.headers,
            b"no such\n  order \xff",
        );
        assert_eq!(
            (error.code(), error.message()),
            ("application", "no such order \u{fffd}")
        );
        assert!(!error.is_retryable());
    }
}
