//! Tokens of services and users: issued, verified, and remembered.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::token::CachedIssuer;
use mesh_auth::token::CachedVerifier;
use mesh_auth::token::Expect;
use mesh_auth::token::Issuer;
use mesh_auth::token::IssuerConfig;
use mesh_auth::token::KeySet;
use mesh_auth::token::Ring;
use mesh_auth::token::ServiceClaims;
use mesh_auth::token::UserVerifier;
use mesh_auth::token::Verifier;

fn main() {
    let mut criterion = benches::criterion();
    token(&mut criterion);
    user(&mut criterion);
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

/// Tokens of issuers. The cache knows a token by the service it came to, so another service is another token.
fn user(criterion: &mut Criterion) {
    let mut verifier = UserVerifier::new(10_000);
    let issuer = IssuerConfig::new("https://login.example.org/").with_audiences(&["orders"]);
    verifier.add_issuer(issuer).unwrap();
    let keys = KeySet::parse(KEYS.as_bytes()).unwrap();
    verifier.put_keys("https://login.example.org/", Some(Arc::new(keys)));
    let mut group = criterion.benchmark_group("user_token");
    for (name, token) in [("rs256_2048", RS256), ("es256", ES256), ("eddsa", EDDSA)] {
        let mut number = 0_u32;
        group.bench_function(name, |b| {
            b.iter(|| {
                number += 1;
                let service = number.to_string();
                verifier
                    .verify(black_box(token), &service, NOW + 1)
                    .unwrap()
            });
        });
    }
    group.bench_function("remembered", |b| {
        b.iter(|| {
            verifier
                .verify(black_box(ES256), "orders", NOW + 1)
                .unwrap()
        });
    });
    group.bench_function("key_set", |b| {
        b.iter(|| KeySet::parse(black_box(KEYS.as_bytes())).unwrap());
    });
    group.finish();
}

/// For this benchmark alone.
const SECRET: &[u8] = b"pB8tZ1qXw0V7nKc3RyJm5sLf9aHdUe2gTi4oQk6xCbNv";
const NOW: u64 = 1_800_000_000;
const AUDIENCE: &str = "order-service";
const ISSUER: &str = "example.org";
/// An issuer's keys and what they signed, made by `PyJWT`; nobody has the private ones.
const KEYS: &str = r#"{"keys": [{"kty": "RSA", "n": "vfzGDH2IH-sDmZA3G9_-QvmLsfJfpmAjOLeU2rTvDlbzPK_B9VvM9sOSI35CTrdZlTSiH1kCsAikGrNXeaeDUzZH10y3H0JCmdRTcntG7hyO8MT81RyCApqQWtwdziz5bBejfymZr8hmRar0StEdtNeqwAsFmHx2C9EykJffa9SrLXALuTX9zJVHfiS-HyKK4WcdXPP9iCKELckPQ5lnvbejvPhKZL6eho7NgI2dqa6Bzuaiz9h6LeAUNDREwQFAeusa2YzpmR7UXX8u8rwfNSCsRdQeoTVKs8pq4aiaZhKg9Q0KlIUX4aEFcmG16J9Cf5UnYgab3FskIW5JihsUNw", "e": "AQAB", "kid": "RS256", "use": "sig", "alg": "RS256"}, {"kty": "EC", "crv": "P-256", "x": "QV1XqmKrMxefFGYInyMYaO0JEgwViG_YVt03kf8TDU8", "y": "fUyI2T3XT44CRhP7jjcr8E2aJf8lksheOl4asxB8OrQ", "kid": "ES256", "use": "sig", "alg": "ES256"}, {"x": "VdhuBvkWNgUU2P8b0i-JqDza2HJDYoqT2302b5noP0Q", "kty": "OKP", "crv": "Ed25519", "kid": "EdDSA", "use": "sig", "alg": "EdDSA"}]}"#;
const RS256: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IlJTMjU2IiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUub3JnLyIsInN1YiI6ImFsaWNlIiwiYXVkIjoib3JkZXJzIiwiZXhwIjoxODAwMDAzNjAwLCJpYXQiOjE4MDAwMDAwMDAsImdyb3VwcyI6WyJ0ZWxsZXIiLCJ1c2VyIl19.EWmxSCrBSScZePuV7qaKfdaUB0dp58eHQRJg1aEc4-Fhrx2skDqrlvOGb6nwNQ4a4fQd31D8P29xSZOlq9qH1bH0woJegT4aIFGjVHFmK1Z8_XYDNZDjJnQoT2znigbH8D59zOh2Ubjv6LpziShVfoP7cctHphHLE7-cOctB2GoB3URxSUdDJMWiIV4cJ8GmivytQDtQNaXo0jtcq9VhtJoIUeo0ia_B5U2nQES_N993uZprjhCRkghdcMhmeD8-IGqEDqaNlV2QMfndXEWFq6vYzFXOdhFO9O1deFGg4GmqRo-CjJml45e0QAdnoeOGxAuJpztXC4FkSR8NMcjYhg";
const ES256: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IkVTMjU2IiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUub3JnLyIsInN1YiI6ImFsaWNlIiwiYXVkIjoib3JkZXJzIiwiZXhwIjoxODAwMDAzNjAwLCJpYXQiOjE4MDAwMDAwMDAsImdyb3VwcyI6WyJ0ZWxsZXIiLCJ1c2VyIl19.2hYfu9M4Ot8OdTIX9XI6_WzeFV5zPede_QxEKLMwRZxq_l3JsHLRtFYjQTGnTV4pvit0nUbIvV-dhoy008zBtg";
const EDDSA: &str = "eyJhbGciOiJFZERTQSIsImtpZCI6IkVkRFNBIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUub3JnLyIsInN1YiI6ImFsaWNlIiwiYXVkIjoib3JkZXJzIiwiZXhwIjoxODAwMDAzNjAwLCJpYXQiOjE4MDAwMDAwMDAsImdyb3VwcyI6WyJ0ZWxsZXIiLCJ1c2VyIl19.cYOgtUeaXqBT0NKBKdSLVTUQaVtqfWL0q3EFhcRBW5uehfFrx5IyqvxE5HRoLSwetwEWD_PgaXBvciB_2Vc4BQ";
