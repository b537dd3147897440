//! What is kept of answers that pass, and for whom.

use std::collections::VecDeque;

use http::HeaderMap;
use http::HeaderValue;
use http_body_util::BodyExt as _;
use mesh_resilience::fallback::stale::StaleConfig;
use parking_lot::Mutex;

use super::*;

/// A body whose frames come one at a time, some of them errors.
struct Frames(Mutex<VecDeque<Result<Frame<Bytes>, BoxError>>>);

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.lock().pop_front())
    }
}

fn frames<const N: usize>(frames: [Result<Frame<Bytes>, BoxError>; N]) -> Body {
    Body::boxed(Frames(Mutex::new(frames.into())))
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

fn kept(fields: &[&'static str]) -> Kept {
    let config = StaleConfig::default()
        .with_max_age(Duration::from_mins(1))
        .with_max_answer_bytes(1000);
    let fields = fields.iter().map(|field| HeaderName::from_static(field));
    let answers = StaleAnswers {
        config,
        fields: fields.collect(),
    };
    let of_node = HeaderName::from_static("x-node-key");
    Kept::new(&answers, [&of_node].into_iter()).unwrap()
}

fn key(kept: &Kept, service: &str, fields: &[(&str, &str)]) -> Option<Key> {
    let mut request = http::Request::get("/rates?of=EUR");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    kept.key(&Arc::from(service), &head)
}

fn answer(status: u16, body: Body) -> Response<Body> {
    let answer = Response::builder().status(status).header("x-own", "1");
    answer.body(body).unwrap()
}

/// What a caller reads; nothing where it breaks off.
async fn read(response: Response<Body>) -> Option<Bytes> {
    let body = response.into_body().collect().await;
    Some(body.ok()?.to_bytes())
}

#[tokio::test]
async fn an_answer_is_kept_when_its_end_was_seen_and_given_with_its_age() {
    let kept = kept(&[]);
    let key = key(&kept, "rates", &[]).unwrap();
    let passing = kept.keep(key.clone(), answer(200, Body::from("1.08")));
    assert!(kept.give(&key).is_none());
    assert_eq!(passing.body().size_hint().exact(), Some(4));
    assert_eq!(read(passing).await.unwrap(), "1.08");
    let old = kept.give(&key).unwrap();
    for (name, value) in [("x-mesh-stale", "0"), ("age", "0"), ("x-own", "1")] {
        assert_eq!(old.headers()[name], value, "{name}");
    }
    assert_eq!(read(old).await.unwrap(), "1.08");
    let later = now() + Duration::from_secs(59);
    let old = kept.memory.give::<Asked<'_>>(&key, later).unwrap();
    let age = old.headers()["x-mesh-stale"].to_str().unwrap();
    assert!(["58", "59"].contains(&age), "{age}");
    // Not when its time is over.
    let later = now() + Duration::from_mins(1);
    assert!(kept.memory.give::<Asked<'_>>(&key, later).is_none());
}

#[tokio::test]
async fn pieces_are_put_together_and_what_breaks_off_leaves_the_last_answer() {
    let kept = kept(&[]);
    let key = key(&kept, "rates", &[]).unwrap();
    let whole = answer(200, frames([Ok(data("1.")), Ok(data("08"))]));
    let passing = kept.keep(key.clone(), whole);
    assert_eq!(read(passing).await.unwrap(), "1.08");
    let given = kept.give(&key).unwrap();
    assert_eq!(read(given).await.unwrap(), "1.08");

    let broken = answer(200, frames([Ok(data("1.")), Err("broken".into())]));
    let passing = kept.keep(key.clone(), broken);
    assert!(read(passing).await.is_none());
    drop(kept.keep(key.clone(), answer(200, frames([Ok(data("2"))]))));
    let given = kept.give(&key).unwrap();
    assert_eq!(read(given).await.unwrap(), "1.08");

    // Trailers would be lost.
    let trailers = Ok(Frame::trailers(HeaderMap::new()));
    let passing = kept.keep(key.clone(), answer(200, frames([Ok(data("3")), trailers])));
    assert_eq!(read(passing).await.unwrap(), "3");
    assert!(kept.give(&key).is_none());
}

#[tokio::test(start_paused = true)]
async fn the_answer_that_began_last_counts_and_its_age_from_there() {
    let second = Duration::from_secs(1);
    let kept = kept(&[]);
    let key = key(&kept, "rates", &[]).unwrap();
    let given = || kept.give(&key).map(Response::into_body);
    let pass = |status, text: &'static str| kept.keep(key.clone(), answer(status, text.into()));
    // One that began before ends after it, and says nothing any more, neither as a good one nor as one that is too large.
    let older = pass(200, "older");
    let large = kept.keep(
        key.clone(),
        answer(
            200,
            frames([Ok(data("x")), Ok(Frame::data(vec![7; 2000].into()))]),
        ),
    );
    let newer = pass(200, "newer");
    tokio::time::advance(5 * second).await;
    assert!(read(newer).await.is_some());
    assert!(read(older).await.is_some());
    assert!(read(large).await.is_some());
    let old = kept.give(&key).unwrap();
    assert_eq!(old.headers()["x-mesh-stale"], "5");
    assert_eq!(read(old).await.unwrap(), "newer");

    // It brings nothing back that was forgotten in between.
    let mut private = answer(200, Body::from("own"));
    let value = HeaderValue::from_static("private");
    private.headers_mut().insert("cache-control", value);
    for last in [answer(404, Body::empty()), private] {
        let older = pass(200, "older");
        drop(kept.keep(key.clone(), last));
        assert!(read(older).await.is_some());
        assert!(given().is_none());
        // What comes after that is kept again.
        assert!(read(pass(200, "new")).await.is_some());
        assert!(given().is_some());
    }

    // The time that its body took counts.
    let slow = pass(200, "slow");
    tokio::time::advance(59 * second).await;
    assert!(read(slow).await.is_some());
    assert_eq!(kept.give(&key).unwrap().headers()["age"], "59");
    tokio::time::advance(second).await;
    assert!(given().is_none());
}

#[tokio::test]
async fn an_old_answer_says_nothing_of_the_call_that_it_was_given_to() {
    let kept = kept(&[]);
    let key = key(&kept, "rates", &[]).unwrap();
    let mut first = answer(200, Body::from("1.08"));
    let others = [
        "x-request-id",
        "x-correlation-id",
        "traceparent",
        "tracestate",
        "retry-after",
        "x-ratelimit-remaining",
    ];
    for name in others {
        let value = HeaderValue::from_static("1");
        first.headers_mut().insert(name, value);
    }
    let passing = kept.keep(key.clone(), first);
    assert_eq!(passing.headers()["x-request-id"], "1");
    assert!(read(passing).await.is_some());
    let old = kept.give(&key).unwrap();
    assert_eq!(old.headers()["x-own"], "1");
    for name in others {
        assert!(!old.headers().contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn what_may_not_be_kept_is_passed_on_and_the_last_answer_is_forgotten_with_it() {
    let kept = kept(&[]);
    let key = key(&kept, "rates", &[]).unwrap();
    let large = || Bytes::from(vec![7; 2000]);
    let mut private = answer(200, Body::from("1.09"));
    let value = HeaderValue::from_static("private");
    private.headers_mut().insert("cache-control", value);
    for (new, is_forgotten) in [
        (answer(200, Body::from(large())), true),
        (answer(200, frames([Ok(Frame::data(large()))])), true),
        (private, true),
        (answer(204, Body::empty()), true),
        (answer(404, Body::empty()), true),
        (answer(304, Body::empty()), false),
        (answer(429, Body::empty()), false),
    ] {
        let told = format!("{new:?}");
        let passing = kept.keep(key.clone(), answer(200, Body::from("1.08")));
        assert!(read(passing).await.is_some());
        let passing = kept.keep(key.clone(), new);
        assert!(read(passing).await.is_some());
        assert_eq!(kept.give(&key).is_none(), is_forgotten, "{told}");
    }
    // Also without a body.
    drop(kept.keep(key.clone(), answer(200, Body::empty())));
    assert_eq!(read(kept.give(&key).unwrap()).await.unwrap(), "");
}

#[test]
fn each_service_and_each_user_has_answers_of_its_own_and_credentials_have_none() {
    let kept = kept(&["x-tenant"]);
    let keys = [
        key(&kept, "rates", &[]),
        key(&kept, "other", &[]),
        key(&kept, "rates", &[("x-user-id", "ann")]),
        key(&kept, "rates", &[("x-user-id", "bob")]),
        key(&kept, "rates", &[("x-api-key", "bob")]),
        key(&kept, "rates", &[("x-tenant", "bob")]),
        key(&kept, "rates", &[("x-node-key", "bob")]),
    ];
    for one in &keys {
        assert!(one.is_some());
        assert_eq!(keys.iter().filter(|other| *other == one).count(), 1);
    }
    assert_eq!(key(&kept, "rates", &[("x-other", "1")]), keys[0]);
    for name in ["authorization", "cookie", "content-type"] {
        assert_eq!(key(&kept, "rates", &[(name, "1")]), None);
    }
}
