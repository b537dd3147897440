//! The rate limit service: what it counts, over its own client and server without a network.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::future::Future;
use std::num::NonZeroU32;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use mesh_resilience::BoxError;
use mesh_resilience::limit::LimitConfig;
use mesh_resilience::limit::Window;
use mesh_resilience::limit::rls::Answer;
use mesh_resilience::limit::rls::Code;
use mesh_resilience::limit::rls::DecidedBy;
use mesh_resilience::limit::rls::Descriptor;
use mesh_resilience::limit::rls::DescriptorConfig;
use mesh_resilience::limit::rls::DomainConfig;
use mesh_resilience::limit::rls::Entry;
use mesh_resilience::limit::rls::Judge;
use mesh_resilience::limit::rls::JudgeError;
use mesh_resilience::limit::rls::Observe;
use mesh_resilience::limit::rls::Question;
use mesh_resilience::limit::rls::QuestionError;
use mesh_resilience::limit::rls::RateConfig;
use mesh_resilience::limit::rls::RlsClient;
use mesh_resilience::limit::rls::RlsError;
use mesh_resilience::limit::rls::RlsLimiter;
use mesh_resilience::limit::rls::RlsServer;
use mesh_resilience::limit::rls::Unit;
use mesh_resilience::limit::rls::WhenAway;
use mesh_resilience::random::SplitMix64;
use tower::Service;
use tower::ServiceExt;
use tower::service_fn;

fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Ten a minute for each tenant, none for one of them, three for another in shadow mode.
fn config() -> DomainConfig {
    let tenant = |requests| {
        DescriptorConfig::new("tenant").with_limit(RateConfig::new(requests, Unit::Minute))
    };
    let descriptors = vec![
        tenant(10),
        tenant(0).with_value("banned"),
        tenant(3).with_value("shady").in_shadow_mode(),
        DescriptorConfig::new("path").with_limit(RateConfig::new(4, Unit::Second)),
    ];
    DomainConfig::new("orders", descriptors)
}

fn judge() -> Judge {
    Judge::new(&[config()], NonZeroUsize::new(1000).unwrap()).unwrap()
}

fn descriptor(key: &str, value: &str) -> Descriptor {
    Descriptor::new(vec![Entry::new(key, value)])
}

fn question(descriptors: &[(&str, &str)]) -> Question {
    let descriptors = descriptors
        .iter()
        .map(|(key, value)| descriptor(key, value));
    Question::new("orders", descriptors.collect())
}

#[track_caller]
fn ask(judge: &Judge, question: &Question, now: Instant) -> Answer {
    judge.judge(question, now).unwrap()
}

#[test]
fn each_value_is_counted_on_its_own_until_its_limit() {
    let (judge, now) = (judge(), start());
    for value in ["acme", "globex"] {
        let asked = question(&[("tenant", value)]);
        for left in (0..10).rev() {
            let answer = ask(&judge, &asked, now);
            assert_eq!(
                (answer.code, answer.statuses[0].remaining),
                (Code::Ok, left)
            );
        }
        let refused = ask(&judge, &asked, now);
        assert_eq!(refused.code, Code::OverLimit);
        let verdict = refused.verdict().unwrap();
        assert_eq!((verdict.limit, verdict.remaining), (10, 0));
        assert!(ask(&judge, &asked, now + verdict.retry_after).code == Code::Ok);
    }
    assert_eq!(judge.keys(), 2);
}

#[test]
fn what_no_rule_is_for_passes_and_is_not_remembered() {
    let (judge, now) = (judge(), start());
    let answer = ask(&judge, &question(&[("unknown", "x")]), now);
    assert_eq!((answer.code, answer.verdict()), (Code::Ok, None));
    let mut elsewhere = question(&[("tenant", "acme")]);
    elsewhere.domain = "another".to_owned();
    assert_eq!(ask(&judge, &elsewhere, now).statuses[0].limit, None);
    assert_eq!(judge.keys(), 0);
}

#[test]
fn a_limit_of_none_lets_none_pass_and_shadow_mode_lets_all() {
    let (judge, now) = (judge(), start());
    let banned = ask(&judge, &question(&[("tenant", "banned")]), now);
    assert_eq!(
        banned
            .verdict()
            .map(|verdict| (verdict.allowed, verdict.limit)),
        Some((false, 0))
    );
    for remaining in [2, 1, 0, 0, 0] {
        let answer = ask(&judge, &question(&[("tenant", "shady")]), now);
        assert_eq!(
            (answer.code, answer.statuses[0].remaining),
            (Code::Ok, remaining)
        );
    }
}

#[test]
fn one_descriptor_over_its_limit_is_enough_and_all_are_counted() {
    let (judge, now) = (judge(), start());
    let both = question(&[("tenant", "acme"), ("path", "/pay")]);
    let answers: Vec<_> = (0..6).map(|_| ask(&judge, &both, now)).collect();
    assert!(answers[..4].iter().all(|answer| answer.code == Code::Ok));
    let last = &answers[5];
    assert_eq!(last.code, Code::OverLimit);
    let codes: Vec<_> = last.statuses.iter().map(|status| status.code).collect();
    assert_eq!(codes, [Code::Ok, Code::OverLimit]);
    assert_eq!(
        last.statuses[0].remaining, 4,
        "the tenant's calls are counted all the same"
    );
    let verdict = last.verdict().unwrap();
    assert_eq!((verdict.allowed, verdict.limit), (false, 4));
}

#[test]
fn hits_count_together_and_what_is_over_the_limit_uses_up_the_rest() {
    let (judge, now) = (judge(), start());
    let asked = question(&[("tenant", "acme")]);
    assert_eq!(
        ask(&judge, &asked.clone().with_hits(7), now).statuses[0].remaining,
        3
    );
    // Asks only.
    let mut peek = asked.clone();
    peek.descriptors[0].hits = Some(0);
    for _ in 0..3 {
        assert_eq!(ask(&judge, &peek, now).statuses[0].remaining, 3);
    }
    let over = ask(&judge, &asked.clone().with_hits(4), now);
    assert_eq!(
        (over.code, over.statuses[0].remaining),
        (Code::OverLimit, 0)
    );
    assert_eq!(ask(&judge, &peek, now).code, Code::OverLimit);
    assert_eq!(ask(&judge, &asked, now).code, Code::OverLimit);
}

#[test]
fn callers_bring_a_few_limits_along_and_no_more() {
    let (judge, now) = (judge(), start());
    let with_limit = |limit| {
        let mut asked = question(&[("tenant", "acme")]);
        asked.descriptors[0].limit = Some((limit, Unit::Hour));
        asked
    };
    assert_eq!(ask(&judge, &with_limit(1), now).code, Code::Ok);
    assert_eq!(ask(&judge, &with_limit(1), now).code, Code::OverLimit);
    assert_eq!(ask(&judge, &with_limit(0), now).code, Code::OverLimit);
    for limit in 2..=64 {
        ask(&judge, &with_limit(limit), now);
    }
    let error = judge.judge(&with_limit(65), now).unwrap_err();
    assert_eq!(error, JudgeError::TooManyLimits { max: 64 });
    assert_eq!(ask(&judge, &with_limit(64), now).code, Code::Ok);
    let error = judge.judge(&with_limit(7_000_000), now).unwrap_err();
    assert_eq!(error, JudgeError::TooLarge { limit: 7_000_000 });
}

/// What a judge told.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<Decision>>);

/// Domain, rule, what is answered, and whether that is because of shadow mode.
type Decision = (String, Option<String>, Code, bool);

impl Observe for Told {
    fn decided(&self, domain: &str, rule: Option<&str>, code: Code, is_shadowed: bool) {
        let told = (
            domain.to_owned(),
            rule.map(str::to_owned),
            code,
            is_shadowed,
        );
        self.0.lock().unwrap().push(told);
    }
}

#[test]
fn an_observer_sees_each_limit_that_is_applied() {
    let told = Arc::new(Told::default());
    let judge = judge().with_observer(Arc::clone(&told) as Arc<_>);
    let now = start();
    ask(
        &judge,
        &question(&[("tenant", "banned"), ("unknown", "x")]),
        now,
    );
    ask(&judge, &question(&[("tenant", "shady")]).with_hits(4), now);
    let told = told.0.lock().unwrap();
    let label = |name: &str| Some(format!("orders.tenant_{name}"));
    assert_eq!(
        *told,
        [
            ("orders".to_owned(), label("banned"), Code::OverLimit, false),
            ("orders".to_owned(), label("shady"), Code::Ok, true),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_learns_from_the_server_what_the_judge_says() {
    let client = RlsClient::new(RlsServer::new(Arc::new(judge())));
    let asked = question(&[("tenant", "acme"), ("path", "/pay")]);
    let answer = client.ask(asked.clone()).await.unwrap();
    let verdict = answer.verdict().unwrap();
    assert_eq!(
        (verdict.allowed, verdict.limit, verdict.remaining),
        (true, 4, 3)
    );
    assert_eq!(
        answer.statuses[0].limit.as_ref().unwrap().unit,
        Some(Unit::Minute)
    );
    let refused = client.ask(asked.clone().with_hits(5)).await.unwrap();
    assert_eq!(refused.code, Code::OverLimit);
    let verdict = refused.verdict().unwrap();
    assert!(verdict.retry_after > Duration::ZERO && verdict.retry_after <= Duration::from_secs(1));
    tokio::time::advance(verdict.retry_after).await;
    assert_eq!(
        client
            .ask(question(&[("path", "/pay")]))
            .await
            .unwrap()
            .code,
        Code::Ok
    );
    let wrong = client.ask(Question::new("", vec![])).await.unwrap_err();
    assert!(matches!(wrong, RlsError::Refused { .. }), "{wrong:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_slow_or_gone_is_no_answer() {
    let slow = service_fn(|_: http::Request<tonic::body::Body>| {
        std::future::pending::<Result<http::Response<tonic::body::Body>, std::io::Error>>()
    });
    let error = RlsClient::new(slow)
        .ask(question(&[("tenant", "a")]))
        .await
        .unwrap_err();
    assert!(matches!(error, RlsError::Timeout { limit } if limit == Duration::from_millis(20)));
    let gone = service_fn(|_: http::Request<tonic::body::Body>| async {
        Err::<http::Response<tonic::body::Body>, _>(std::io::Error::other("gone"))
    });
    let error = RlsClient::new(gone)
        .ask(question(&[("tenant", "a")]))
        .await
        .unwrap_err();
    assert!(matches!(error, RlsError::Failed { .. }), "{error:?}");
}

#[test]
fn a_question_has_bounds() {
    use prost::Message as _;

    // As in `rls.proto`: domain 1, descriptors 2 (entries 1 (key 1, value 2)).
    #[derive(Clone, PartialEq, prost::Message)]
    struct Asked {
        #[prost(string, tag = "1")]
        domain: String,
        #[prost(message, repeated, tag = "2")]
        descriptors: Vec<Described>,
        #[prost(uint32, tag = "99")]
        of_the_future: u32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Described {
        #[prost(message, repeated, tag = "1")]
        entries: Vec<Pair>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Pair {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(string, tag = "2")]
        value: String,
    }
    let pair = |key: &str, value: &str| Pair {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let asked = |domain: &str, entries: Vec<Pair>, count| Asked {
        domain: domain.to_owned(),
        descriptors: vec![Described { entries }; count],
        of_the_future: 7,
    };
    let read = |asked: Asked| Question::decode(&asked.encode_to_vec());
    let good = read(asked("d", vec![pair("k", "")], 64)).unwrap();
    assert_eq!((good.hits, good.descriptors.len()), (1, 64));
    let long = "x".repeat(4097);
    let cases = [
        (
            asked("", vec![pair("k", "")], 1),
            "the question names no domain",
        ),
        (asked("d", vec![], 0), "the question has no descriptor"),
        (asked("d", vec![], 1), "a descriptor has no entry"),
        (asked("d", vec![pair("", "v")], 1), "an entry has no key"),
        (
            asked("d", vec![pair("k", "")], 65),
            "65 descriptors are too many, at most 64 are taken",
        ),
        (
            asked("d", vec![pair("k", ""); 33], 1),
            "33 entries in a descriptor are too many, at most 32 are taken",
        ),
        (
            asked("d", vec![pair("k", &long)], 1),
            "a value is 4097 bytes long, at most 4096 are taken",
        ),
    ];
    for (asked, expected) in cases {
        assert_eq!(read(asked).unwrap_err().to_string(), expected);
    }
    let malformed = Question::decode(&[0xff]).unwrap_err();
    assert!(matches!(malformed, QuestionError::Malformed { .. }));
}

/// A service that answers as a judge does, or not at all.
#[derive(Clone)]
struct Flaky {
    server: RlsServer,
    is_gone: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Flaky {
    fn new() -> Self {
        Self {
            server: RlsServer::new(Arc::new(judge())),
            is_gone: Arc::default(),
            asked: Arc::default(),
        }
    }

    fn limiter(&self, when_away: &WhenAway) -> RlsLimiter<Self> {
        let random = Arc::new(SplitMix64::new(7));
        RlsLimiter::new(RlsClient::new(self.clone()), when_away, random, None).unwrap()
    }

    fn leave(&self, is_gone: bool) {
        self.is_gone.store(is_gone, Ordering::Relaxed);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Service<http::Request<tonic::body::Body>> for Flaky {
    type Response = http::Response<tonic::body::Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_gone.load(Ordering::Relaxed) {
            return Box::pin(async { Err("gone".into()) });
        }
        let answer = self.server.clone().oneshot(request);
        Box::pin(async { Ok(answer.await?) })
    }
}

fn share() -> WhenAway {
    let window = Window::new(NonZeroU32::new(4).unwrap(), Duration::from_mins(1));
    WhenAway::LocalShare(LimitConfig::default().with_windows(vec![window]))
}

#[tokio::test(start_paused = true)]
async fn while_the_service_is_away_calls_pass_or_not_by_choice() {
    let acme = || question(&[("tenant", "acme")]);
    for (when_away, allowed, decided_by) in [
        (WhenAway::Open, [true; 6], DecidedBy::Nobody),
        (WhenAway::Closed, [false; 6], DecidedBy::Nobody),
        (
            share(),
            [true, true, true, true, false, false],
            DecidedBy::LocalShare,
        ),
    ] {
        let service = Flaky::new();
        let limiter = service.limiter(&when_away);
        service.leave(true);
        let mut passed = Vec::new();
        for _ in 0..6 {
            let decision = limiter.check(acme(), "acme").await;
            assert_eq!(decision.decided_by, decided_by);
            assert_eq!(decision.allowed, decision.retry_after.is_zero());
            passed.push(decision.allowed);
        }
        assert_eq!(passed, allowed, "{when_away:?}");
        assert_eq!(service.asked(), 3, "three in vain, and none waits any more");
        assert!(limiter.is_away());
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_decides_again_once_it_is_back() {
    let service = Flaky::new();
    let limiter = service.limiter(&WhenAway::Open);
    service.leave(true);
    for _ in 0..3 {
        limiter.check(question(&[("tenant", "a")]), "a").await;
    }
    service.leave(false);
    tokio::time::advance(Duration::from_millis(1_200)).await;
    for _ in 0..3 {
        let decision = limiter.check(question(&[("tenant", "banned")]), "a").await;
        assert_eq!(
            (decision.allowed, decision.decided_by),
            (false, DecidedBy::Service)
        );
    }
    assert!(!limiter.is_away());
}

#[tokio::test(start_paused = true)]
async fn a_share_is_used_up_by_what_passed_before_the_service_went() {
    let service = Flaky::new();
    let limiter = service.limiter(&share());
    for _ in 0..3 {
        assert!(
            limiter
                .check(question(&[("tenant", "acme")]), "acme")
                .await
                .allowed
        );
    }
    service.leave(true);
    let mut passed = 0;
    for _ in 0..6 {
        let decision = limiter.check(question(&[("tenant", "acme")]), "acme").await;
        passed += u32::from(decision.allowed);
    }
    assert_eq!(passed, 1);
}

// threat 47
#[tokio::test(start_paused = true)]
async fn questions_that_are_refused_do_not_send_the_service_away() {
    let service = Flaky::new();
    let limiter = service.limiter(&WhenAway::Closed);
    let long = "x".repeat(5_000);
    for _ in 0..10 {
        let decision = limiter.check(question(&[("tenant", &long)]), "a").await;
        assert_eq!(
            (decision.allowed, decision.decided_by),
            (false, DecidedBy::Nobody)
        );
    }
    let decision = limiter.check(question(&[("tenant", "acme")]), "a").await;
    assert_eq!(
        (decision.allowed, decision.decided_by),
        (true, DecidedBy::Service)
    );
    assert_eq!(decision.verdict.map(|verdict| verdict.remaining), Some(9));
    // Nothing to ask about is nothing that is limited.
    let asked = service.asked();
    assert!(limiter.check(question(&[]), "a").await.allowed);
    assert_eq!(service.asked(), asked);
}
