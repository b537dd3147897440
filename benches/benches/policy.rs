//! Decisions of the policy engine, and the canonical request that they are about.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;

use criterion::BatchSize;
use criterion::BenchmarkId;
use criterion::Criterion;
use http::request::Parts;
use mesh_auth::caller::Caller;
use mesh_auth::policy::Policy;
use mesh_auth::policy::PolicyConfig;
use mesh_auth::policy::Query;
use mesh_auth::policy::RuleConfig;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;

fn main() {
    let mut criterion = benches::criterion();
    decide(&mut criterion);
    canonicalise(&mut criterion);
    criterion.final_summary();
}

/// `callers`: each rule is for another caller, as in a mesh of many services. `paths`: all are for one caller, each for
/// another path, as for a service with a large interface; the index by caller is of no help there.
fn decide(criterion: &mut Criterion) {
    let domain = TrustDomain::parse("example.org").unwrap();
    let mut group = criterion.benchmark_group("policy_decide");
    for rules in [10_usize, 1_000] {
        let last = rules - 1;
        let shapes = [
            (
                "callers",
                of_callers(rules),
                format!("caller-{last}"),
                "/api/orders/42".to_owned(),
            ),
            (
                "paths",
                of_paths(rules),
                "caller-0".to_owned(),
                format!("/api/v1/area-{last}/42"),
            ),
        ];
        for (shape, config, name, path) in shapes {
            let policy = Policy::build(&config, &domain).unwrap();
            let caller = Caller::new(Some(SpiffeId::for_service(&domain, &name).unwrap()), None);
            for (verdict, path) in [("allow", &*path), ("deny", "/internal/metrics")] {
                let request = CanonicalRequest::new(parts(path), &Limits::default()).unwrap();
                let query = Query::new(&caller, "order-service", NOW)
                    .with_port(50051)
                    .with_request(&request);
                let decide = || policy.decide(black_box(&query));
                assert_eq!(
                    decide().is_allowed(),
                    verdict == "allow",
                    "the case is what it says"
                );
                let id = BenchmarkId::new(format!("{shape}_{verdict}"), rules);
                group.bench_function(id, |b| b.iter(decide));
            }
        }
    }
    group.finish();
}

fn of_callers(rules: usize) -> PolicyConfig {
    (0..rules).fold(PolicyConfig::default(), |policy, number| {
        let rule = RuleConfig::new(
            &format!("rule-{number}"),
            &[&format!("caller-{number}")],
            "order-service",
        );
        policy.with_rule(rule.with_methods(&["GET", "POST"]).with_paths(&["/api/*"]))
    })
}

fn of_paths(rules: usize) -> PolicyConfig {
    (0..rules).fold(PolicyConfig::default(), |policy, number| {
        let rule = RuleConfig::new(&format!("rule-{number}"), &["caller-0"], "order-service");
        let path = format!("/api/v1/area-{number}/*");
        policy.with_rule(rule.with_methods(&["GET", "POST"]).with_paths(&[&path]))
    })
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

const NOW: u64 = 1_800_000_000;
