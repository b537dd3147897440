//! The rate limit service against peers that nobody here wrote: Python's gRPC with Envoy's own messages.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use mesh_resilience::limit::rls::Code;
use mesh_resilience::limit::rls::Descriptor;
use mesh_resilience::limit::rls::DescriptorConfig;
use mesh_resilience::limit::rls::DomainConfig;
use mesh_resilience::limit::rls::Entry;
use mesh_resilience::limit::rls::Judge;
use mesh_resilience::limit::rls::Question;
use mesh_resilience::limit::rls::RateConfig;
use mesh_resilience::limit::rls::RlsClient;
use mesh_resilience::limit::rls::RlsError;
use mesh_resilience::limit::rls::RlsServer;
use mesh_resilience::limit::rls::Unit;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::transport::Endpoint;
use tonic::transport::Server;

use support::process::free_port;
use support::process::is_open;
use support::process::wait_until;
use support::rls::RateLimits;
use support::rls::ask;
use support::rls::question;

/// Serves rules on a port of this machine, as long as the task lives.
fn serve() -> (u16, JoinSet<()>) {
    let limit = |requests| RateConfig::new(requests, Unit::Hour);
    let tenant = DescriptorConfig::new("tenant").with_limit(limit(3).with_name("per tenant"));
    let free = DescriptorConfig::new("free").with_limit(RateConfig::unlimited());
    let config = DomainConfig::new("orders", vec![tenant, free]);
    let judge = Judge::new(&[config], NonZeroUsize::new(1000).unwrap()).unwrap();
    let port = free_port();
    let server = RlsServer::new(Arc::new(judge));
    let address = ([127, 0, 0, 1], port).into();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let ended = Server::builder().serve(address, server).await;
        ended.unwrap();
    });
    (port, serving)
}

fn channel(port: u16) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    endpoint.connect_lazy()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_another_language_is_limited() {
    let (port, _serving) = serve();
    wait_until("the service listens", || is_open(port));
    let acme = || question("orders", &[("tenant", "acme")]);
    let mut peek = acme();
    peek["descriptors"][0]["hits_addend"] = json!(0);
    let mut two = question("orders", &[("tenant", "globex")]);
    two["hits_addend"] = json!(2);
    let questions = [
        acme(),
        acme(),
        peek,
        acme(),
        acme(),
        two,
        question("orders", &[("free", "x")]),
        question("orders", &[("other", "x")]),
        question("unknown", &[("tenant", "acme")]),
        json!({}),
        json!({"health": ""}),
        json!({"health": "nothing"}),
    ];
    let answers = tokio::task::spawn_blocking(move || ask(port, &questions));
    let Some(answers) = answers.await.unwrap() else {
        return;
    };
    let code = |index: usize| answers[index]["overall_code"].as_str().unwrap_or_default();
    let left = |index: usize| answers[index]["statuses"][0]["limit_remaining"].as_u64();
    let codes: Vec<_> = (0..9).map(code).collect();
    assert_eq!(
        codes,
        ["OK", "OK", "OK", "OK", "OVER_LIMIT", "OK", "OK", "OK", "OK"]
    );
    let remaining: Vec<_> = (0..8).map(left).collect();
    let none = None;
    let expected = [
        Some(2),
        Some(1),
        Some(1),
        none,
        none,
        Some(1),
        Some(u64::from(u32::MAX)),
        none,
    ];
    assert_eq!(remaining, expected, "{answers:?}");
    let refused = &answers[4]["statuses"][0];
    let limit = json!({"name": "per tenant", "requests_per_unit": 3, "unit": "HOUR"});
    assert_eq!(refused["current_limit"], limit);
    let seconds: f64 = refused["duration_until_reset"]
        .as_str()
        .unwrap()
        .trim_end_matches('s')
        .parse()
        .unwrap();
    assert!((3_500.0..=3_601.0).contains(&seconds), "{refused}");
    assert_eq!(answers[8]["statuses"], json!([{"code": "OK"}]));
    assert_eq!(answers[9]["error"], "INVALID_ARGUMENT");
    assert_eq!(answers[10], json!({"status": 1}));
    assert_eq!(answers[11]["error"], "NOT_FOUND");
}

fn asked() -> Question {
    let entries = vec![Entry::new("tenant", "acme"), Entry::new("path", "")];
    let mut own = Descriptor::new(vec![Entry::new("k", "v")]);
    own.limit = Some((5, Unit::Hour));
    own.hits = Some(7);
    Question::new("orders", vec![Descriptor::new(entries), own]).with_hits(2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_of_another_language_is_understood() {
    let dir = TempDir::new().unwrap();
    let Some(service) = RateLimits::start(dir.path()) else {
        return;
    };
    let client = RlsClient::new(channel(service.port)).with_timeout(Duration::from_secs(5));
    assert_eq!(client.ask(asked()).await.unwrap().code, Code::Ok);
    let understood = json!({
        "domain": "orders",
        "hits_addend": 2,
        "descriptors": [
            { "entries": [{ "key": "tenant", "value": "acme" }, { "key": "path" }] },
            { "entries": [{ "key": "k", "value": "v" }], "limit": { "requests_per_unit": 5, "unit": "HOUR" }, "hits_addend": "7" },
        ],
    });
    assert_eq!(service.requests(), [understood]);

    let limit = |name: &str| json!({ "name": name, "requests_per_unit": 5, "unit": "WEEK" });
    let statuses = |code: &str| {
        json!([
            { "code": "OK", "current_limit": limit("a"), "limit_remaining": 4, "duration_until_reset": "3.5s" },
            { "code": code, "current_limit": limit("b"), "limit_remaining": 1, "duration_until_reset": "60s" },
        ])
    };
    let answer = |code: &str, statuses: Value| {
        json!({"answer": {
            "overall_code": code,
            "statuses": statuses,
            "response_headers_to_add": [{ "key": "x-a", "value": "1" }, { "key": "x-b", "raw_value": "Mg==" }, { "key": "bad name", "value": "" }],
            "request_headers_to_add": [{ "key": "x-c", "value": "3" }],
            "raw_body": "bm8=",
            "dynamic_metadata": { "k": "v" },
            "quota": { "requests": 3, "valid_until": "2030-01-01T00:00:00Z", "id": "q" },
        }})
    };
    service.tell(&answer("OK", statuses("OK")));
    let told = client.ask(asked()).await.unwrap();
    let verdict = told.verdict().unwrap();
    let shown = (
        verdict.allowed,
        verdict.limit,
        verdict.remaining,
        verdict.reset_after,
    );
    assert_eq!(shown, (true, 5, 1, Duration::from_mins(1)));
    assert_eq!(
        told.statuses[0].reset_after,
        Some(Duration::from_millis(3_500))
    );
    assert_eq!(
        told.statuses[0].limit.as_ref().unwrap().unit,
        Some(Unit::Week)
    );
    let headers: Vec<_> = told
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    assert_eq!(headers, [("x-a", &b"1"[..]), ("x-b", b"2")]);

    service.tell(&answer("OVER_LIMIT", statuses("OVER_LIMIT")));
    let verdict = client.ask(asked()).await.unwrap().verdict().unwrap();
    let shown = (verdict.allowed, verdict.remaining, verdict.retry_after);
    assert_eq!(shown, (false, 0, Duration::from_mins(1)));
    service.tell(&answer("OVER_LIMIT", json!([])));
    let bare = client.ask(asked()).await.unwrap();
    assert_eq!((bare.code, bare.verdict()), (Code::OverLimit, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_does_not_say_is_no_answer() {
    let dir = TempDir::new().unwrap();
    let Some(mut service) = RateLimits::start(dir.path()) else {
        return;
    };
    let client = RlsClient::new(channel(service.port)).with_timeout(Duration::from_secs(5));
    service.tell(&json!({"answer": { "overall_code": "UNKNOWN" }}));
    let error = client.ask(asked()).await.unwrap_err();
    assert!(matches!(error, RlsError::Unknown), "{error:?}");
    service.tell(&json!({"error": "INTERNAL"}));
    let error = client.ask(asked()).await.unwrap_err();
    assert!(matches!(error, RlsError::Failed { .. }), "{error:?}");

    let hurried = client.clone().with_timeout(Duration::from_millis(20));
    service.tell(&json!({"silent": true}));
    let error = hurried.ask(asked()).await.unwrap_err();
    assert!(matches!(error, RlsError::Timeout { .. }), "{error:?}");
    service.server.process.freeze();
    let error = hurried.ask(asked()).await.unwrap_err();
    assert!(matches!(error, RlsError::Timeout { .. }), "{error:?}");
    service.server.process.thaw();

    service.server.process.kill();
    let error = client.ask(asked()).await.unwrap_err();
    assert!(
        matches!(
            error,
            RlsError::Failed { .. } | RlsError::Unreachable { .. }
        ),
        "{error:?}"
    );
    service.start_again();
    wait_until("the service is asked again", || is_open(service.port));
    assert_eq!(client.ask(asked()).await.unwrap().code, Code::Ok);
}
