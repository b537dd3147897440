//! Decisions of the policy engine, and the canonical request that they are about.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::sync::Arc;

use benches::policies;
use benches::policies::NOW;
use benches::policies::SERVICE;
use criterion::BatchSize;
use criterion::BenchmarkId;
use criterion::Criterion;
use http::request::Parts;
use mesh_auth::caller::Caller;
use mesh_auth::caller::User;
use mesh_auth::policy::Policy;
use mesh_auth::policy::PolicyConfig;
use mesh_auth::policy::Query;
use mesh_auth::policy::RuleConfig;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;
use mesh_auth::spiffe::SpiffeId;

fn main() {
    let mut criterion = benches::criterion();
    decide(&mut criterion);
    condition(&mut criterion);
    canonicalise(&mut criterion);
    criterion.final_summary();
}

/// Every shape of policy and its worst calls. Evaluating a condition stands beside: it allocates.
fn decide(criterion: &mut Criterion) {
    let domain = policies::domain();
    let mut group = criterion.benchmark_group("policy_decide");
    for rules in [10, 10_000] {
        for shape in policies::shapes(rules) {
            let policy = Policy::build(&shape.policy, &domain).unwrap();
            for call in &shape.calls {
                let query = Query::new(&call.caller, SERVICE, NOW)
                    .with_port(call.port)
                    .with_request(&call.request);
                let decide = || policy.decide(black_box(&query));
                assert_eq!(
                    decide().is_allowed(),
                    call.is_allowed,
                    "{} {}",
                    shape.name,
                    call.name
                );
                let id = BenchmarkId::new(format!("{}/{}", shape.name, call.name), rules);
                group.bench_function(id, |b| b.iter(decide));
            }
        }
    }
    group.finish();
}

fn condition(criterion: &mut Criterion) {
    let domain = policies::domain();
    let mut group = criterion.benchmark_group("policy_condition");
    let id = SpiffeId::for_service(&domain, "shop").unwrap();
    let user = User::new("https://login.example.org", "ada").with_groups(&["shop", "garden"]);
    let caller = Caller::new(Some(id), Some(Arc::new(user)));
    let parts = parts("/api/v1/orders/42");
    let request = CanonicalRequest::new(parts, &Limits::default()).unwrap();
    for (name, when) in [
        ("path", "request.path.startsWith('/api/')"),
        ("header", "request.headers['accept'] == 'application/json'"),
        ("loop", "user.groups.exists(group, group.endsWith('den'))"),
    ] {
        let rule = RuleConfig::new("rule", &["*"], SERVICE).with_when(when);
        let config = PolicyConfig::default().with_rule(rule);
        let policy = Policy::build(&config, &domain).unwrap();
        let query = Query::new(&caller, SERVICE, NOW).with_request(&request);
        let decide = || policy.decide(black_box(&query));
        assert!(decide().is_allowed(), "{name}");
        group.bench_function(name, |b| b.iter(decide));
    }
    group.finish();
}

fn canonicalise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    let limits = Limits::default();
    // The second has to be rewritten: dots, an escape that is none, an empty segment.
    for (name, path) in [
        ("plain", "/api/v1/orders/42?page=3"),
        ("rewritten", "/api/./v1//x/../%6frders/42?page=3"),
    ] {
        let parts = parts(path);
        group.bench_function(BenchmarkId::new("canonicalise", name), |b| {
            b.iter_batched(
                || parts.clone(),
                |parts| CanonicalRequest::new(black_box(parts), &limits).unwrap(),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A request as a browser's proxy or an SDK sends it.
fn parts(path: &str) -> Parts {
    let request = http::Request::get(path)
        .header("host", "order-service")
        .header("accept", "application/json")
        .header("accept-encoding", "gzip, deflate, br")
        .header("user-agent", "shop-frontend/2.31.0 (linux; x86_64)")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .header("x-request-id", "7b1f0c52-6c0e-4d0a-9f5e-0f4f5c1b8d11")
        .header(
            "cookie",
            "session=0123456789abcdef0123456789abcdef; theme=dark",
        );
    request.body(()).unwrap().into_parts().0
}
