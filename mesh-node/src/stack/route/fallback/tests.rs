//! What is replaced, and what is not.

use http::StatusCode;

use super::*;

fn answer(status: u16, fields: &[(&'static str, &'static str)]) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in fields {
        let value = HeaderValue::from_static(value);
        answer.headers_mut().append(*name, value);
    }
    answer
}

#[test]
fn what_may_have_been_executed_is_replaced_only_where_the_method_allows_it_twice() {
    for (came, often, once, bound) in [
        (Came::Final, false, false, false),
        (Came::Unprocessed, true, true, false),
        (Came::Failed, true, false, false),
    ] {
        assert_eq!(is_replaced(came, Runs::Often), often, "{came:?}");
        assert_eq!(is_replaced(came, Runs::Once), once, "{came:?}");
        assert_eq!(is_replaced(came, Runs::Bound), bound, "{came:?}");
    }
}

#[test]
fn another_service_gets_no_write_with_a_key_and_no_retry_that_the_first_one_got() {
    let attempt = ("x-mesh-attempt", "2");
    let key = ("idempotency-key", "k");
    for (method, fields, sent, unsent) in [
        (Method::GET, &[][..], true, true),
        (Method::POST, &[], true, true),
        (Method::POST, &[("x-mesh-attempt", "1")], true, true),
        (Method::POST, &[key], false, false),
        (Method::PATCH, &[key, attempt], false, false),
        (Method::PUT, &[key], true, true),
        (Method::GET, &[attempt], false, true),
        (Method::POST, &[attempt], false, true),
    ] {
        let headers = answer(200, fields).headers().clone();
        let tied = Tied::new(&method, &headers);
        let found = (tied.lets_go(true), tied.lets_go(false));
        assert_eq!(found, (sent, unsent), "{method} {fields:?}");
    }
}

#[test]
fn an_answer_is_judged_by_what_its_caller_would_see() {
    let no = ("x-mesh-processed", "no");
    for (answer, expected) in [
        (answer(200, &[]), Came::Final),
        (answer(304, &[]), Came::Final),
        (answer(404, &[]), Came::Final),
        (answer(429, &[]), Came::Final),
        (answer(403, &[no]), Came::Final),
        (answer(500, &[]), Came::Failed),
        (answer(503, &[]), Came::Failed),
        (answer(503, &[no]), Came::Unprocessed),
        // A node that has too much to do says nothing of its service.
        (
            answer(503, &[no, ("x-mesh-error", "overloaded")]),
            Came::Unprocessed,
        ),
        (answer(200, &[("grpc-status", "5")]), Came::Final),
        (answer(200, &[("grpc-status", "13")]), Came::Failed),
    ] {
        let told = format!("{answer:?}");
        assert_eq!(Came::to_answer(&answer), expected, "{told}");
    }
}

#[test]
fn a_refusal_is_judged_as_an_answer_but_an_unknown_outcome_is_told() {
    let refusal = |code| Refusal::new(code, "");
    let fault = |status: u16, grpc| {
        let status = StatusCode::from_u16(status).unwrap();
        refusal(Code::FaultInjected).with_status(status, grpc)
    };
    for (refusal, expected) in [
        (refusal(Code::CircuitOpen), Came::Unprocessed),
        (refusal(Code::Overloaded), Came::Unprocessed),
        (refusal(Code::NoEndpoints), Came::Unprocessed),
        (refusal(Code::UpstreamFailed), Came::Unprocessed),
        (
            refusal(Code::UpstreamFailed).maybe_processed(),
            Came::Failed,
        ),
        (refusal(Code::Timeout).maybe_processed(), Came::Failed),
        (fault(503, 14), Came::Unprocessed),
        (fault(404, 5), Came::Final),
        (refusal(Code::RateLimited), Came::Final),
        (refusal(Code::BadRequest), Came::Final),
        (refusal(Code::NoRoute), Came::Final),
        (refusal(Code::Unauthenticated), Came::Final),
        (refusal(Code::OutcomeUnknown).maybe_processed(), Came::Final),
        (refusal(Code::OutcomeUnknown), Came::Final),
    ] {
        for is_grpc in [false, true] {
            let came = Came::to_refusal(&refusal, is_grpc);
            assert_eq!(came, expected, "{refusal:?}");
        }
    }
}
