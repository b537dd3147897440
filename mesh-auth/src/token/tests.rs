//! Tokens that count, and the many that must not.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, encode};
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"6kQ2v!x9Lr0#pWz7Tn4@dYc8Hs1$gMb5";
const OTHER: &[u8] = b"Zt3&nV6^jKf0*qRe9(uXw2)aSo5_hDi8";

fn ring() -> Arc<Ring> {
    Arc::new(Ring::single(SECRET).unwrap())
}

fn caller() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/user-service").unwrap()
}

fn claims() -> ServiceClaims {
    ServiceClaims::new(caller(), "order-service")
        .with_session("s-1")
        .with_groups(vec!["user".to_owned()])
        .with_id("t-1")
}

fn expect(now: u64) -> Expect<'static> {
    Expect {
        audience: "order-service",
        issuer: "example.org",
        now,
    }
}

fn issue() -> String {
    Issuer::new(ring(), "example.org")
        .issue(&claims(), NOW)
        .unwrap()
}

fn verify(token: &str, now: u64) -> Result<Claims, TokenError> {
    Verifier::new(ring()).verify(token, &expect(now))
}

fn payload() -> Value {
    json!({"iss": "example.org", "sub": "spiffe://example.org/user-service", "aud": "order-service", "exp": NOW + 60})
}

/// Signs an arbitrary header and payload with the right secret.
fn sign(header: &str, payload: &str) -> String {
    install_provider();
    let message = format!("{}.{}", base64url(header), base64url(payload));
    let signature = jsonwebtoken::crypto::sign(
        message.as_bytes(),
        &EncodingKey::from_secret(SECRET),
        Algorithm::HS256,
    )
    .unwrap();
    format!("{message}.{signature}")
}

fn base64url(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            out.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    out
}

#[test]
fn what_was_issued_verifies() {
    let claims = verify(&issue(), NOW).unwrap();
    assert_eq!(claims.subject, caller());
    assert_eq!(claims.session.as_deref(), Some("s-1"));
    assert_eq!(claims.id.as_deref(), Some("t-1"));
    assert_eq!(
        (claims.expires_at, claims.not_before, claims.issued_at),
        (NOW + 3600, Some(NOW), Some(NOW))
    );
    assert!(claims.has_group("user") && !claims.has_group("admin"));
}

// threat 18
#[test]
fn a_token_counts_for_one_audience_one_issuer_and_one_peer() {
    let verifier = Verifier::new(ring());
    let elsewhere = Expect {
        audience: "billing",
        ..expect(NOW)
    };
    assert!(matches!(
        verifier.verify(&issue(), &elsewhere),
        Err(TokenError::Audience { .. })
    ));
    let foreign = Expect {
        issuer: "example.com",
        ..expect(NOW)
    };
    assert!(matches!(
        verifier.verify(&issue(), &foreign),
        Err(TokenError::Issuer { .. })
    ));
    let claims = verifier.verify(&issue(), &expect(NOW)).unwrap();
    claims.require_subject(&caller()).unwrap();
    let thief = SpiffeId::parse("spiffe://example.org/user-service2").unwrap();
    assert!(matches!(
        claims.require_subject(&thief),
        Err(TokenError::NotThePeer { .. })
    ));
}

#[test]
fn times_hold_to_the_second_of_the_leeway() {
    let token = issue();
    verify(&token, NOW - LEEWAY_SECONDS).unwrap();
    assert!(matches!(
        verify(&token, NOW - LEEWAY_SECONDS - 1),
        Err(TokenError::NotYetValid { .. })
    ));
    verify(&token, NOW + 3600 + LEEWAY_SECONDS - 1).unwrap();
    assert!(matches!(
        verify(&token, NOW + 3600 + LEEWAY_SECONDS),
        Err(TokenError::Expired { .. })
    ));
}

// threat 16
#[test]
fn only_the_key_says_how_a_token_is_signed() {
    let payload = payload().to_string();
    verify(&sign(r#"{"alg":"HS256"}"#, &payload), NOW).unwrap();
    verify(&sign(r#"{"alg":"HS256","typ":"JWT"}"#, &payload), NOW).unwrap();
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","b64":true}"#,
        r#"{"alg":"HS256","jku":"https://evil.example/jwks"}"#,
        r#"{"alg":"HS256","x5u":"https://evil.example/x5u"}"#,
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#,
        r#"{"alg":"HS256","x5c":["AAAA"]}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","typ":"at+jwt"}"#,
        r#"{"alg":"HS256","kid":"../../dev/null"}"#,
        r#"{"alg":"HS256","kid":1}"#,
        r"{}",
    ] {
        assert!(verify(&sign(header, &payload), NOW).is_err(), "{header}");
    }
    let token = issue();
    let (message, signature) = token.rsplit_once('.').unwrap();
    for bad in [
        format!("{message}."),
        format!("{message}.{}", signature.get(2..).unwrap()),
        message.to_owned(),
        format!("{token}.{signature}"),
        String::new(),
        "..".to_owned(),
    ] {
        assert!(verify(&bad, NOW).is_err(), "{bad}");
    }
    let forged = encode(
        &Header::new(Algorithm::HS256),
        &self::payload(),
        &EncodingKey::from_secret(OTHER),
    )
    .unwrap();
    assert!(matches!(
        verify(&forged, NOW),
        Err(TokenError::BadSignature)
    ));
}

// threat 17
#[test]
fn claims_are_there_once_and_of_their_type() {
    let header = r#"{"alg":"HS256"}"#;
    for (claim, value) in [
        ("exp", json!("1800000060")),
        ("exp", json!(1_800_000_060.5)),
        ("exp", json!(-1)),
        ("exp", json!(null)),
        ("exp", json!(true)),
        ("nbf", json!("0")),
        ("nbf", json!(null)),
        ("nbf", json!(NOW + 3600)),
        ("iat", json!([])),
        ("aud", json!(["order-service"])),
        ("aud", json!(1)),
        ("iss", json!(null)),
        ("sub", json!("user-service")),
        ("sub", json!({})),
        ("groups", json!("admin")),
        ("groups", json!([1])),
        ("sid", json!(7)),
        ("jti", json!(null)),
    ] {
        let mut wrong = payload();
        wrong[claim] = value.clone();
        assert!(
            verify(&sign(header, &wrong.to_string()), NOW).is_err(),
            "{claim}: {value}"
        );
    }
    for claim in ["exp", "aud", "iss", "sub"] {
        let mut missing = payload();
        missing.as_object_mut().unwrap().remove(claim);
        assert!(
            matches!(
                verify(&sign(header, &missing.to_string()), NOW),
                Err(TokenError::Claims(_))
            ),
            "{claim}"
        );
        let twice =
            payload()
                .to_string()
                .replacen('{', &format!("{{\"{claim}\":{},", payload()[claim]), 1);
        assert!(
            matches!(
                verify(&sign(header, &twice), NOW),
                Err(TokenError::Claims(_))
            ),
            "{claim}"
        );
    }
}

// threat 21
#[test]
fn a_huge_token_is_not_looked_at() {
    assert!(matches!(
        verify(&"a".repeat(MAX_TOKEN_BYTES + 1), NOW),
        Err(TokenError::TooLarge { .. })
    ));
    let groups = (0..2000).map(|n| format!("group-{n}")).collect();
    let issued = Issuer::new(ring(), "i").issue(&claims().with_groups(groups), NOW);
    assert!(matches!(issued, Err(TokenError::TooLarge { .. })));
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(3000), "]".repeat(3000));
    verify(&sign(r#"{"alg":"HS256"}"#, &deep), NOW).unwrap_err();
}

// threat 20
#[test]
fn secrets_that_can_be_guessed_are_refused_and_never_printed() {
    let refused = |secret: &[u8]| Ring::single(secret).unwrap_err();
    assert_eq!(refused(b"short"), RingError::TooShort { bytes: 5 });
    assert_eq!(refused(&[7; 64]), RingError::Guessable);
    assert_eq!(
        refused(b"0123456789abcdef0123456789abcdef"),
        RingError::Guessable
    );
    assert_eq!(
        refused(b"abababababababababababababababababab"),
        RingError::Guessable
    );
    assert_eq!(refused(&(0..64).collect::<Vec<u8>>()), RingError::Guessable);
    assert_eq!(
        refused(b"your-super-secret-CHANGE-ME-2-jwt-key"),
        RingError::Placeholder
    );
    assert_eq!(
        refused(b"your-secret-key-for-jwt-2026-production"),
        RingError::Placeholder
    );
    let printed = format!("{:?} {:?}", ring(), Verifier::new(ring()));
    assert!(
        !printed.contains("6kQ2") && !printed.contains("54, 107"),
        "{printed}"
    );
}

#[test]
fn old_and_new_secret_overlap_in_a_rotation() {
    let old = RingKey::new(SECRET)
        .unwrap()
        .with_kid("old")
        .with_not_after(NOW + 1000);
    let new = RingKey::new(OTHER)
        .unwrap()
        .with_kid("new")
        .with_not_before(NOW + 100);
    let ring = Arc::new(Ring::new(vec![old.clone(), new.clone()]).unwrap());
    let (issuer, verifier) = (
        Issuer::new(Arc::clone(&ring), "example.org"),
        Verifier::new(Arc::clone(&ring)),
    );
    let kid = |token: &str| jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let before = issuer.issue(&claims(), NOW).unwrap();
    let after = issuer.issue(&claims(), NOW + 100).unwrap();
    assert_eq!(
        (kid(&before).as_str(), kid(&after).as_str()),
        ("old", "new")
    );
    assert_eq!(
        verifier
            .verify(&before, &expect(NOW + 999))
            .unwrap()
            .expires_at,
        NOW + 1000
    );
    assert!(matches!(
        verifier.verify(&before, &expect(NOW + 1000)),
        Err(TokenError::UnknownKey)
    ));
    verifier.verify(&after, &expect(NOW + 1000)).unwrap();
    // A token without kid can only mean the only key.
    assert!(matches!(
        verifier.verify(
            &sign(r#"{"alg":"HS256"}"#, &payload().to_string()),
            &expect(NOW)
        ),
        Err(TokenError::UnknownKey)
    ));
    assert_eq!(
        Ring::new(vec![old.clone(), old.clone()]).unwrap_err(),
        RingError::DuplicateKid {
            kid: "old".to_owned()
        }
    );
    assert_eq!(Ring::new(vec![]).unwrap_err(), RingError::Size { keys: 0 });
    assert_eq!(
        Ring::new(vec![old.with_not_before(NOW + 1000)]).unwrap_err(),
        RingError::NeverValid {
            kid: "old".to_owned()
        }
    );
    assert_eq!(
        Ring::new(vec![new.with_kid("")]).unwrap_err(),
        RingError::Kid
    );
}

#[test]
fn a_remembered_token_is_still_checked_and_ends_with_its_key() {
    let key = RingKey::new(SECRET).unwrap().with_not_after(NOW + 10);
    let ring = Arc::new(Ring::new(vec![key]).unwrap());
    let token = Issuer::new(Arc::clone(&ring), "example.org")
        .issue(&claims(), NOW)
        .unwrap();
    let cache = CachedVerifier::new(Verifier::new(ring), 64);
    let first = cache.verify(&token, &expect(NOW)).unwrap();
    let second = cache.verify(&token, &expect(NOW + 9)).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    let elsewhere = Expect {
        audience: "billing",
        ..expect(NOW)
    };
    cache.verify(&token, &elsewhere).unwrap_err();
    cache.verify(&token, &expect(NOW - 31)).unwrap_err();
    assert!(matches!(
        cache.verify(&token, &expect(NOW + 10)),
        Err(TokenError::UnknownKey)
    ));
}

#[test]
fn the_cache_stays_within_its_bound_and_does_not_remember_refusals() {
    let cache = CachedVerifier::new(Verifier::new(ring()), 64);
    let issuer = Issuer::new(ring(), "example.org");
    for n in 0..500 {
        let token = issuer
            .issue(&claims().with_id(&n.to_string()), NOW)
            .unwrap();
        cache.verify(&token, &expect(NOW)).unwrap();
        cache
            .verify(&format!("{token}x"), &expect(NOW))
            .unwrap_err();
        assert!(cache.len() <= 64);
    }
    assert!(cache.len() >= 32);
}

#[test]
fn an_issued_token_is_reused_for_three_quarters_of_its_life() {
    let issuer = CachedIssuer::new(
        Issuer::new(ring(), "example.org"),
        claims().with_lifetime(Duration::from_secs(100)),
    );
    let at = |now| issuer.token("order-service", now).unwrap();
    let first = at(NOW);
    assert!(Arc::ptr_eq(&first, &at(NOW + 74)));
    let renewed = at(NOW + 75);
    assert_ne!(first, renewed);
    assert_ne!(renewed, at(NOW), "a clock that was set back renews");
    assert_ne!(renewed, issuer.token("billing", NOW + 75).unwrap());
    assert!(!format!("{issuer:?}").contains(&*renewed));
    verify(&renewed, NOW + 75).unwrap();
}

#[test]
fn the_dangerous_reader_reads_without_judging() {
    let claims =
        dangerous::decode_unverified(&sign(r#"{"alg":"HS256"}"#, r#"{"anything":[1]}"#)).unwrap();
    assert_eq!(claims["anything"], json!([1]));
    dangerous::decode_unverified("a.b").unwrap_err();
}
