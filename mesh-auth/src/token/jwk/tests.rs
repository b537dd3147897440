//! Which keys of an issuer are used, left out or refused.

use aws_lc_rs::rsa::KeySize;
use serde_json::{Value, json};

use super::super::forge::{Signer, b64, jwks};
use super::*;

fn parse(keys: &[Value]) -> Result<KeySet, KeySetError> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

fn with(mut key: Value, name: &str, value: Value) -> Value {
    key[name] = value;
    key
}

#[test]
fn a_key_carries_its_algorithm() {
    let (rsa, ec, ed) = (
        Signer::rs256("r", KeySize::Rsa2048),
        Signer::es256("e"),
        Signer::ed25519("d"),
    );
    let set = KeySet::parse(&jwks(&[&rsa, &ec, &ed])).unwrap();
    let found: Vec<_> = set.keys().collect();
    let expected = [
        ("d", KeyAlgorithm::EdDsa),
        ("e", KeyAlgorithm::Es256),
        ("r", KeyAlgorithm::Rs256),
    ];
    assert_eq!(found, expected);
    assert!(set.left_out().is_empty());
    for (kid, own) in [("r", "RS256"), ("e", "ES256"), ("d", "EdDSA")] {
        let key = set.key(kid).unwrap();
        for alg in [
            "none", "HS256", "RS256", "RS384", "PS256", "ES256", "ES384", "EdDSA", "rs256", "",
        ] {
            assert_eq!(key.signs_as(alg), alg == own, "{kid} {alg}");
        }
    }
}

// threat 16
#[test]
fn keys_that_are_not_for_our_algorithms_are_left_out_and_named() {
    let ec = |kid: &str| Signer::es256(kid).jwk();
    let ed = |kid: &str| Signer::ed25519(kid).jwk();
    let mut nameless = ec("x");
    nameless.as_object_mut().unwrap().remove("kid");
    let short = "AQ";
    for (key, why) in [
        (nameless, "has no kid"),
        (with(ec("x"), "kid", json!(7)), "has no kid"),
        (
            with(ec("x"), "kid", json!("")),
            "has an empty kid, or one longer than 256 bytes",
        ),
        (
            with(ec("x"), "kid", json!("k".repeat(257))),
            "has an empty kid, or one longer than 256 bytes",
        ),
        (
            with(ec("x"), "use", json!("enc")),
            "is not for signatures (use)",
        ),
        (
            with(ec("x"), "use", json!(["sig"])),
            "is not for signatures (use)",
        ),
        (
            with(ec("x"), "key_ops", json!(["encrypt"])),
            "is not for signatures (key_ops)",
        ),
        (
            with(ec("x"), "alg", json!("ES384")),
            "is for an algorithm other than RS256, ES256 and EdDSA",
        ),
        (
            with(ec("x"), "alg", json!("HS256")),
            "is for an algorithm other than RS256, ES256 and EdDSA",
        ),
        (
            with(ec("x"), "alg", json!("none")),
            "is for an algorithm other than RS256, ES256 and EdDSA",
        ),
        (
            with(ec("x"), "crv", json!("P-384")),
            "is neither RSA, P-256 nor Ed25519",
        ),
        (
            with(ec("x"), "crv", json!("Ed25519")),
            "is neither RSA, P-256 nor Ed25519",
        ),
        (
            with(ec("x"), "kty", json!("ec")),
            "is neither RSA, P-256 nor Ed25519",
        ),
        (
            with(ed("x"), "crv", json!("X25519")),
            "is neither RSA, P-256 nor Ed25519",
        ),
        (with(ec("x"), "x", json!(short)), INCOMPLETE),
        // Not on the curve.
        (with(ec("x"), "y", json!(b64(&[7; 32]))), INCOMPLETE),
        (
            with(ec("x"), "y", json!(format!("{}=", b64(&[7; 32])))),
            INCOMPLETE,
        ),
        (with(ed("x"), "x", json!(short)), INCOMPLETE),
    ] {
        check_left_out(key, why);
    }
}

// threat 16
#[test]
fn weak_and_broken_rsa_keys_are_left_out() {
    for (key, why) in [
        (
            json!({ "kty": "RSA", "kid": "x", "n": b64(&[0xff; 255]), "e": "AQAB" }),
            "is an RSA key of less than 2048 bits",
        ),
        (
            json!({ "kty": "RSA", "kid": "x", "n": b64(&[&[0x7f], &[0xff; 255][..]].concat()), "e": "AQAB" }),
            "is an RSA key of less than 2048 bits",
        ),
        (
            json!({ "kty": "RSA", "kid": "x", "n": b64(&[&[0], &[0xff; 255][..]].concat()), "e": "AQAB" }),
            INCOMPLETE,
        ),
        (
            json!({ "kty": "RSA", "kid": "x", "n": b64(&[0xff; 1025]), "e": "AQAB" }),
            "is an RSA key of more than 8192 bits",
        ),
        (
            json!({ "kty": "RSA", "kid": "x", "n": b64(&[0xff; 256]), "e": "AQ" }),
            INCOMPLETE,
        ),
        (
            json!({ "kty": "RSA", "kid": "x", "n": b64(&[0xff; 256]), "e": "AQAC" }),
            INCOMPLETE,
        ),
        (
            json!({ "kty": "RSA", "kid": "x", "n": b64(&[0xff; 256]), "e": "AQABAQAB" }),
            INCOMPLETE,
        ),
        (
            json!({ "kty": "RSA", "kid": "x", "n": b64(&[0xfe; 256]), "e": "AQAB" }),
            INCOMPLETE,
        ),
        (
            json!({ "kty": "RSA", "kid": "x", "n": b64(&[0xff; 256]) }),
            INCOMPLETE,
        ),
    ] {
        check_left_out(key, why);
    }
}

fn check_left_out(key: Value, why: &'static str) {
    let good = Signer::es256("good");
    let set = parse(&[key.clone(), good.jwk()]).unwrap();
    assert_eq!(set.left_out(), [LeftOut { index: 0, why }], "{key}");
    assert_eq!(set.len(), 1, "{key}");
    let alone = parse(&[key]).unwrap_err();
    assert!(
        matches!(alone, KeySetError::Empty { left_out: 1 }),
        "{alone}"
    );
}

// threat 23
#[test]
fn a_set_that_shows_a_secret_or_a_name_twice_is_refused_whole() {
    let good = Signer::es256("good").jwk();
    for (name, value) in [("d", "AQAB"), ("k", "AQAB"), ("p", "AQAB"), ("oth", "")] {
        let error = parse(&[
            good.clone(),
            with(Signer::es256("x").jwk(), name, json!(value)),
        ]);
        let error = error.unwrap_err();
        assert!(
            matches!(error, KeySetError::Secret { index: 1, member } if member == name),
            "{error}"
        );
    }
    let secret = parse(&[json!({ "kty": "oct", "kid": "s", "k": b64(&[7; 32]) })]).unwrap_err();
    assert!(
        matches!(
            secret,
            KeySetError::Secret {
                index: 0,
                member: "k"
            }
        ),
        "{secret}"
    );
    let twice = parse(&[good.clone(), Signer::ed25519("good").jwk()]).unwrap_err();
    assert!(
        matches!(twice, KeySetError::DuplicateKid { index: 1 }),
        "{twice}"
    );
}

// threat 23
#[test]
fn a_set_that_is_empty_or_no_set_is_refused() {
    assert!(matches!(
        parse(&[]),
        Err(KeySetError::Empty { left_out: 0 })
    ));
    for (text, is_expected) in [
        ("", false),
        ("{}", true),
        ("{\"keys\":{}}", true),
        ("{\"keys\":[],\"keys\":[]}", false),
    ] {
        let error = KeySet::parse(text.as_bytes()).unwrap_err();
        assert_eq!(
            matches!(error, KeySetError::NoList),
            is_expected,
            "{text}: {error}"
        );
    }
    let number = KeySet::parse(b"{\"keys\":[1]}").unwrap_err();
    assert!(
        matches!(number, KeySetError::Entry { index: 0 }),
        "{number}"
    );
}

// threat 22
#[test]
fn a_set_is_bounded_in_bytes_and_keys() {
    let many: Vec<Value> = (0..=MAX_SET_KEYS).map(|at| json!({ "kid": at })).collect();
    let error = parse(&many).unwrap_err();
    assert!(
        matches!(error, KeySetError::TooMany { keys: 65 }),
        "{error}"
    );
    let large = vec![b' '; MAX_SET_BYTES + 1];
    let error = KeySet::parse(&large).unwrap_err();
    assert!(matches!(error, KeySetError::TooLarge { .. }), "{error}");
}

#[test]
fn the_same_keys_are_the_same_set_in_any_order() {
    let (a, b) = (Signer::es256("a"), Signer::ed25519("b"));
    let set = |signers: &[&Signer]| KeySet::parse(&jwks(signers)).unwrap();
    assert!(set(&[&a, &b]).is_same(&set(&[&b, &a])));
    assert!(!set(&[&a, &b]).is_same(&set(&[&a])));
    // The same name for another key.
    assert!(!set(&[&a]).is_same(&set(&[&Signer::es256("a")])));
}
