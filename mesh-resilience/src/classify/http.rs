//! Judging HTTP and gRPC answers by their status.
//!
//! # Sources
//!
//! - RFC 9110 section 15 (status codes), 10.2.3 (`Retry-After`).
//! - gRPC over HTTP/2, "Responses" (a Trailers-Only answer carries `grpc-status` in its header block).

use std::time::Duration;

use http::header::{HeaderName, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};

use super::{Classified, Classify, Outcome, Retryable};
use crate::error::BoxError;

/// Judges anything with an HTTP status: errors and 5xx are failures, 4xx are the caller's and not counted.
///
/// - 502, 503 and 504 may be repeated if the request is idempotent, and so may 429; other answers are final.
/// - `Retry-After` is read as seconds; a date there is ignored, since that needs a wall clock.
/// - A gRPC answer without a body is judged by its `grpc-status`: UNKNOWN, `DEADLINE_EXCEEDED`, INTERNAL, UNAVAILABLE
///   and `DATA_LOSS` are failures (as Linkerd counts them), and UNAVAILABLE may be repeated if idempotent. A status that
///   comes in trailers after a body is not seen here.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpClassifier;

impl HttpClassifier {
    /// Creates the classifier.
    pub const fn new() -> Self {
        Self
    }
}

impl<B> Classify<Response<B>> for HttpClassifier {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Classified {
        let response = match result {
            Ok(response) => response,
            Err(error) => return Classified::of_error(error),
        };
        let judged = of_status(response.status(), response.headers());
        match retry_after(response.headers()) {
            Some(wait) if judged.retryable != Retryable::Never => judged.with_retry_after(wait),
            _ => judged,
        }
    }
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

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    // `parse` alone would take a leading plus sign, which the grammar does not.
    if !seconds.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    seconds.parse().ok().map(Duration::from_secs)
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, header: Option<(&'static str, &'static str)>, expected: Classified) {
        let mut response = Response::builder().status(status);
        if let Some((name, value)) = header {
            response = response.header(name, value);
        }
        assert_eq!(
            HttpClassifier.classify(Ok(&response.body(()).unwrap())),
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
}
