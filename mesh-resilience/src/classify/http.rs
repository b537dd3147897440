//! Judging HTTP and gRPC answers by their status.
//!
//! # Sources
//!
//! - RFC 9110 section 15 (status codes), 10.2.3 (`Retry-After`).
//! - RFC 9110 section 5.6.7 (the three forms of a date).
//! - gRPC proposal A6, "Client Retries" (`grpc-retry-pushback-ms`).
//! - gRPC over HTTP/2, "Responses" (a Trailers-Only answer carries `grpc-status` in its header block).

use std::fmt;
use std::time::{Duration, SystemTime};

use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};

use super::{Classified, Classify, Outcome, Retryable};
use crate::error::BoxError;

/// Judges anything with an HTTP status: errors and 5xx are failures, 4xx are the caller's and not counted.
///
/// - 502, 503 and 504 may be repeated if the request is idempotent, and so may 429; other answers are final.
/// - `Retry-After` is read as seconds, and as a date by a classifier [with a clock](Self::with_clock).
/// - An answer with [`X_MESH_RETRY`] `never` is final, and so is one with a negative `grpc-retry-pushback-ms`; a positive
///   one is read like `Retry-After`.
/// - A gRPC answer without a body is judged by its `grpc-status`: UNKNOWN, `DEADLINE_EXCEEDED`, INTERNAL, UNAVAILABLE
///   and `DATA_LOSS` are failures (as Linkerd counts them), and UNAVAILABLE may be repeated if idempotent. A status that
///   comes in trailers after a body is not seen here.
#[non_exhaustive]
#[derive(Clone, Copy, Default)]
pub struct HttpClassifier {
    clock: Option<fn() -> SystemTime>,
}

impl HttpClassifier {
    /// Creates the classifier. It ignores a `Retry-After` that is a date.
    pub const fn new() -> Self {
        Self { clock: None }
    }

    /// Reads a `Retry-After` that is a date against `clock`; one in the past asks for no wait.
    #[must_use]
    pub const fn with_clock(mut self, clock: fn() -> SystemTime) -> Self {
        self.clock = Some(clock);
        self
    }

    fn asked_wait(self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        // `parse` alone would take a leading plus sign, which the grammar does not.
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().map(Duration::from_secs);
        }
        let now = self.clock?();
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    }
}

impl fmt::Debug for HttpClassifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClassifier")
            .field("has_clock", &self.clock.is_some())
            .finish()
    }
}

impl<B> Classify<Response<B>> for HttpClassifier {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Classified {
        let response = match result {
            Ok(response) => response,
            Err(error) => return Classified::of_error(error),
        };
        let headers = response.headers();
        let judged = of_status(response.status(), headers);
        if judged.retryable == Retryable::Never {
            return judged;
        }
        let wait = match pushback(headers) {
            _ if headers.get(X_MESH_RETRY) == Some(&RETRY_NEVER) => Err(Final),
            Some(pushback) => pushback.map(Some),
            None => Ok(self.asked_wait(headers)),
        };
        match wait {
            Ok(Some(wait)) => judged.with_retry_after(wait),
            Ok(None) => judged,
            Err(Final) => judged.with_retryable(Retryable::Never),
        }
    }
}

/// The service wants no retry.
struct Final;

/// How long a gRPC server wants to be left alone. What is negative, or no number, means for ever.
fn pushback(headers: &HeaderMap) -> Option<Result<Duration, Final>> {
    let value = headers.get(GRPC_RETRY_PUSHBACK)?;
    let millis = value.to_str().ok().and_then(|text| text.parse().ok());
    Some(millis.map(Duration::from_millis).ok_or(Final))
}

fn of_status(status: StatusCode, headers: &HeaderMap) -> Classified {
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Classified::failure()
        }
        StatusCode::TOO_MANY_REQUESTS => {
            Classified::new(Outcome::CallerError).with_retryable(Retryable::IfIdempotent)
        }
        status if status.is_server_error() => Classified::new(Outcome::Failure),
        status if status.is_client_error() => Classified::new(Outcome::CallerError),
        _ => headers
            .get(GRPC_STATUS)
            .map_or(Classified::success(), |code| of_grpc(code.as_bytes())),
    }
}

/// Codes as in the gRPC documentation, `statuscodes.md`.
fn of_grpc(code: &[u8]) -> Classified {
    match code {
        b"0" => Classified::success(),
        b"14" => Classified::failure(),
        b"2" | b"4" | b"13" | b"15" => Classified::new(Outcome::Failure),
        _ => Classified::new(Outcome::CallerError),
    }
}

/// The field of an answer that says whether the call may be repeated. The only value is [`RETRY_NEVER`].
pub const X_MESH_RETRY: HeaderName = HeaderName::from_static("x-mesh-retry");

/// Value of [`X_MESH_RETRY`]: what failed was tried again further down, or could not be; don't repeat it.
pub const RETRY_NEVER: HeaderValue = HeaderValue::from_static("never");

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, header: Option<(&'static str, &'static str)>, expected: Classified) {
        let mut response = Response::builder().status(status);
        if let Some((name, value)) = header {
            response = response.header(name, value);
        }
        assert_eq!(
            HttpClassifier::new().classify(Ok(&response.body(()).unwrap())),
            expected,
            "{status} {header:?}"
        );
    }

    #[test]
    fn statuses_are_judged_as_documented() {
        let failed = Classified::new(Outcome::Failure);
        let caller = Classified::new(Outcome::CallerError);
        let slow_down = caller.with_retryable(Retryable::IfIdempotent);
        check(200, None, Classified::success());
        check(304, None, Classified::success());
        check(404, None, caller);
        check(429, None, slow_down);
        check(500, None, failed);
        check(501, None, failed);
        for status in [502, 503, 504] {
            check(status, None, Classified::failure());
        }
        check(
            503,
            Some(("retry-after", "7")),
            Classified::failure().with_retry_after(Duration::from_secs(7)),
        );
        check(503, Some(("retry-after", "+7")), Classified::failure());
        check(
            503,
            Some(("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")),
            Classified::failure(),
        );
        check(
            503,
            Some(("retry-after", "99999999999999999999999")),
            Classified::failure(),
        );
        check(500, Some(("retry-after", "7")), failed);
        check(200, Some(("grpc-status", "0")), Classified::success());
        check(200, Some(("grpc-status", "5")), caller);
        check(200, Some(("grpc-status", "13")), failed);
        check(200, Some(("grpc-status", "14")), Classified::failure());
    }

    #[test]
    fn an_answer_that_wants_no_retry_gets_none() {
        let failed = Classified::new(Outcome::Failure);
        check(503, Some(("x-mesh-retry", "never")), failed);
        check(503, Some(("x-mesh-retry", "soon")), Classified::failure());
        check(503, Some(("grpc-retry-pushback-ms", "-1")), failed);
        check(503, Some(("grpc-retry-pushback-ms", "what")), failed);
        let wait = Duration::from_millis(250);
        let pushed = Classified::failure().with_retry_after(wait);
        check(503, Some(("grpc-retry-pushback-ms", "250")), pushed);
        check(500, Some(("grpc-retry-pushback-ms", "250")), failed);
    }

    #[test]
    fn a_date_is_a_wait_for_who_has_a_clock() {
        // 30 s before the date of RFC 9110 section 5.6.7, in its three forms.
        let clock = || SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
        for (date, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 30),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 30),
            ("Sun Nov  6 08:49:37 1994", 30),
            ("Sun, 06 Nov 1994 08:49:00 GMT", 0),
        ] {
            let response = Response::builder().status(503).header("retry-after", date);
            let response = response.body(()).unwrap();
            let judged = HttpClassifier::new()
                .with_clock(clock)
                .classify(Ok(&response));
            assert_eq!(
                judged.retry_after,
                Some(Duration::from_secs(seconds)),
                "{date}"
            );
        }
    }
}
