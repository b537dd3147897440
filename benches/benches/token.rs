//! Service tokens: issued, verified, and remembered.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::token::CachedIssuer;
use mesh_auth::token::CachedVerifier;
use mesh_auth::token::Expect;
use mesh_auth::token::Issuer;
use mesh_auth::token::Ring;
use mesh_auth::token::ServiceClaims;
use mesh_auth::token::Verifier;

fn main() {
    let mut criterion = benches::criterion();
    token(&mut criterion);
    criterion.final_summary();
}

fn token(criterion: &mut Criterion) {
    let ring = Arc::new(Ring::single(SECRET).unwrap());
    let subject: SpiffeId = "spiffe://example.org/ns/shop/sa/user-service"
        .parse()
        .unwrap();
    let claims = ServiceClaims::new(subject, AUDIENCE).with_session("4f1d0c4be0a94b1c");
    let issuer = || Issuer::new(Arc::clone(&ring), ISSUER);
    let token = issuer().issue(&claims, NOW).unwrap();
    let expect = Expect {
        audience: AUDIENCE,
        issuer: ISSUER,
        now: NOW + 1,
    };
    let verifier = || Verifier::new(Arc::clone(&ring));

    let mut group = criterion.benchmark_group("token");
    let fresh = issuer();
    group.bench_function("issue", |b| {
        b.iter(|| fresh.issue(black_box(&claims), NOW).unwrap());
    });
    let cached = CachedIssuer::new(issuer(), claims.clone());
    group.bench_function("issue_cached", |b| {
        b.iter(|| cached.token(black_box(AUDIENCE), NOW + 1).unwrap());
    });
    let uncached = verifier();
    group.bench_function("verify", |b| {
        b.iter(|| uncached.verify(black_box(&token), &expect).unwrap());
    });
    let cached = CachedVerifier::new(verifier(), 10_000);
    group.bench_function("verify_cached", |b| {
        b.iter(|| cached.verify(black_box(&token), &expect).unwrap());
    });
    group.finish();
}

/// For this benchmark alone.
const SECRET: &[u8] = b"pB8tZ1qXw0V7nKc3RyJm5sLf9aHdUe2gTi4oQk6xCbNv";
const NOW: u64 = 1_800_000_000;
const AUDIENCE: &str = "order-service";
const ISSUER: &str = "example.org";
