//! What is kept of HTTP, by the sections of RFC 9111 and 5861.

use super::*;

fn request(method: Method, fields: &[(&'static str, &'static str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri("/rates?of=EUR");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn key(fields: &[(&'static str, &'static str)]) -> Option<HttpKey> {
    let request = request(Method::GET, fields);
    Keep::<_, Response<Vec<u8>>>::key(&HttpKeep::new(), &request)
}

fn answer(fields: &[(&'static str, &'static str)]) -> Response<Vec<u8>> {
    let mut answer = Response::builder();
    for (name, value) in fields {
        answer = answer.header(*name, *value);
    }
    answer.body(b"1.08".to_vec()).unwrap()
}

fn weigh(answer: &Response<Vec<u8>>) -> Option<Weight> {
    let key = key(&[]).unwrap();
    Keep::<Request<()>, _>::weigh(&HttpKeep::new(), &key, answer)
}

#[test]
fn only_what_anybody_may_read_and_that_has_no_body_has_a_key() {
    assert!(key(&[]).is_some());
    for name in [
        "authorization",
        "proxy-authorization",
        "cookie",
        "range",
        "cache-control",
        "pragma",
    ] {
        assert!(key(&[(name, "x")]).is_none(), "{name}");
    }
    for (name, value) in [
        ("content-length", "1"),
        ("content-length", "x"),
        ("transfer-encoding", "chunked"),
        ("content-type", "application/json"),
    ] {
        assert!(key(&[(name, value)]).is_none(), "{name} {value}");
    }
    assert!(key(&[("content-length", "0"), ("content-length", "1")]).is_none());
    assert_eq!(key(&[("content-length", "0")]), key(&[]));
    for method in [Method::POST, Method::HEAD, Method::PUT] {
        let request = request(method, &[]);
        let key = Keep::<_, Response<Vec<u8>>>::key(&HttpKeep::new(), &request);
        assert!(key.is_none());
    }
}

#[test]
fn requests_that_may_be_answered_differently_have_different_keys() {
    let differing = [
        key(&[]),
        key(&[("host", "a")]),
        key(&[("host", "b")]),
        key(&[("accept", "a")]),
        key(&[("accept", "a"), ("accept", "b")]),
        key(&[("accept", "a"), ("accept-encoding", "b")]),
    ];
    for (place, one) in differing.iter().enumerate() {
        assert!(!differing[..place].contains(one), "{place}");
    }
    assert_eq!(key(&[("user-agent", "a")]), key(&[("user-agent", "b")]));
    let keep = HttpKeep::new().with_field(HeaderName::from_static("x-api-key"));
    let of = |value| {
        let request = request(Method::GET, &[("x-api-key", value)]);
        Keep::<_, Response<Vec<u8>>>::key(&keep, &request)
    };
    assert_ne!(of("a"), of("b"));
}

#[test]
fn an_answer_for_one_or_that_must_not_be_given_stale_is_not_kept() {
    assert!(weigh(&answer(&[])).is_some());
    assert!(weigh(&answer(&[("vary", "Accept, origin")])).is_some());
    for (name, value) in [
        ("cache-control", "max-age=5, No-Store"),
        ("cache-control", "private"),
        ("cache-control", "private=\"x-user\""),
        ("cache-control", "no-cache"),
        ("cache-control", "must-revalidate"),
        ("cache-control", "proxy-revalidate"),
        ("cache-control", "s-maxage=5"),
        ("set-cookie", "a=b"),
        ("vary", "*"),
        ("vary", "accept, x-user"),
        ("x-mesh-stale", "5"),
    ] {
        assert!(weigh(&answer(&[(name, value)])).is_none(), "{name} {value}");
    }
    let mut gone = answer(&[]);
    *gone.status_mut() = StatusCode::NO_CONTENT;
    assert!(weigh(&gone).is_none());
}

#[test]
fn how_long_it_is_given_is_what_it_says() {
    let said = |value| {
        let weight = weigh(&answer(&[("cache-control", value)])).unwrap();
        weight.life
    };
    assert_eq!(said("max-age=60"), Duration::MAX);
    assert_eq!(said("stale-if-error=30"), Duration::from_secs(30));
    assert_eq!(
        said("max-age=60, stale-if-error=\"30\""),
        Duration::from_secs(90)
    );
    assert_eq!(
        said("stale-if-error=30, stale-if-error=20"),
        Duration::from_secs(20)
    );
    for nothing in [
        "stale-if-error",
        "stale-if-error=-1",
        "stale-if-error=0",
        "stale-if-error=x",
    ] {
        assert_eq!(said(nothing), Duration::ZERO, "{nothing}");
    }
    let aged = |value| weigh(&answer(&[("age", value)])).unwrap().age;
    assert_eq!(aged("7"), Duration::from_secs(7));
    for broken in ["-7", "x", "", "99999999999999999999999"] {
        assert_eq!(aged(broken), Duration::from_secs(u64::MAX), "{broken}");
    }
}

#[test]
fn a_copy_has_nothing_of_its_connection_or_call_and_is_marked_with_its_whole_age() {
    let mut original = answer(&[
        ("age", "7"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "1"),
        ("x-mesh-retry", "never"),
        ("x-request-id", "1"),
        ("x-correlation-id", "1"),
        ("traceparent", "1"),
        ("tracestate", "1"),
        ("traceresponse", "1"),
        ("baggage", "1"),
        ("b3", "1"),
        ("x-b3-traceid", "1"),
        ("server-timing", "1"),
        ("x-circuit-breaker-state", "CLOSED"),
        ("retry-after", "1"),
        ("x-ratelimit-remaining", "1"),
        ("ratelimit-policy", "1"),
        ("etag", "\"1\""),
    ]);
    original.extensions_mut().insert("a permit");
    let keep = HttpKeep::new();
    let mut copy = Keep::<Request<()>, _>::copy(&keep, &original);
    assert_eq!(copy.headers().len(), 2);
    assert!(copy.extensions().is_empty());
    Keep::<Request<()>, _>::mark(&keep, &mut copy, Duration::from_millis(5900));
    assert_eq!(copy.headers()["age"], "12");
    assert_eq!(copy.headers()["x-mesh-stale"], "12");
    assert_eq!(copy.headers()["etag"], "\"1\"");
    assert_eq!(copy.body(), b"1.08");
}
