//! Faults that a route makes on purpose: a delay, an answer in place of the service's.
//!
//! They come before the deadline and every layer below it, so no breaker, budget or endpoint counts them.
//!
//! # Sources
//!
//! - gRPC, "HTTP to gRPC Status Code Mapping" (`doc/http-grpc-status-mapping.md`).
//! - `google/rpc/code.proto`, the "HTTP Mapping" of each code, for the other direction.

use http::StatusCode;

use crate::respond::Code;
use crate::respond::Refusal;

/// The answer of a call that a route lets fail, by a status of HTTP.
pub(super) fn aborted(status: StatusCode) -> Refusal {
    refusal(status, grpc_of_http(status))
}

/// The answer of a call that a route lets fail, by a status of gRPC.
pub(super) fn aborted_grpc(status: u16) -> Refusal {
    refusal(http_of_grpc(status), status)
}

fn refusal(status: StatusCode, grpc_status: u16) -> Refusal {
    let message = "a route of this node lets a share of these calls fail on purpose; look at `fault` in its routes";
    Refusal::new(Code::FaultInjected, message).with_status(status, grpc_status)
}

fn grpc_of_http(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

fn http_of_grpc(status: u16) -> StatusCode {
    let status = match status {
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_caller_gets_a_status_of_its_own() {
        for (refusal, http, grpc) in [
            (aborted(StatusCode::SERVICE_UNAVAILABLE), 503, "14"),
            (aborted(StatusCode::IM_A_TEAPOT), 418, "2"),
            (aborted_grpc(14), 503, "14"),
            (aborted_grpc(5), 404, "5"),
        ] {
            let answer = refusal.clone().into_response(false, None);
            assert_eq!(answer.status().as_u16(), http);
            assert_eq!(answer.headers()["x-mesh-error"], "fault_injected");
            let answer = refusal.into_response(true, None);
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["grpc-status"], grpc);
            assert_eq!(answer.headers()["x-mesh-error"], "fault_injected");
        }
    }
}
