//! Credentials of users: what is accepted, and what attackers try.

#![expect(
    clippy::string_slice,
    reason = "a test may panic, and tokens are ASCII"
)]

use aws_lc_rs::rsa::KeySize;
use serde_json::{Value, json};

use super::super::LEEWAY_SECONDS;
use super::super::consumer::{ApiKey, ApiKeyError, RANDOM_BYTES};
use super::super::external::{RoleCondition, RoleMapping};
use super::super::forge::{ISSUER, NOW, SECRET, SERVICE, Signer, b64, claims, hs256, jwks, with};
use super::*;
use crate::caller::ClaimValue;

/// A verifier that trusts `ISSUER` with the keys of `signers`, and the consumer `app` with the key `app-key`.
fn verifier_with(config: IssuerConfig, signers: &[&Signer]) -> UserVerifier {
    let mut verifier = UserVerifier::new(64);
    verifier.add_issuer(config).unwrap();
    let app = Consumer::new("app", "app-key", SECRET).unwrap();
    verifier.add_consumer(app.with_groups(&["user"])).unwrap();
    verifier.put_keys(
        ISSUER,
        Some(Arc::new(KeySet::parse(&jwks(signers)).unwrap())),
    );
    verifier
}

fn verifier(signers: &[&Signer]) -> UserVerifier {
    verifier_with(IssuerConfig::new(ISSUER), signers)
}

fn app_claims() -> Value {
    with("iss", json!("app-key"))
}

fn app_token(claims: &Value) -> String {
    hs256(SECRET, &json!({ "alg": "HS256", "typ": "JWT" }), claims)
}

#[test]
fn a_token_of_each_algorithm_names_its_user() {
    let signers = [
        Signer::rs256("r", KeySize::Rsa2048),
        Signer::es256("e"),
        Signer::ed25519("d"),
    ];
    let verifier = verifier(&[&signers[0], &signers[1], &signers[2]]);
    for signer in &signers {
        let mut claims = claims();
        claims["groups"] = json!(["admin", "user"]);
        claims["tenant"] = json!({ "id": 7 });
        let user = verifier
            .verify(&signer.token(&claims), SERVICE, NOW)
            .unwrap();
        assert_eq!((&*user.issuer, &*user.subject), (ISSUER, "alice"));
        assert!(user.has_group("admin") && user.has_group("user") && !user.has_group("root"));
        assert_eq!(user.claims["sub"], ClaimValue::from("alice"));
        assert!(
            matches!(&user.claims["tenant"], ClaimValue::Map(map) if map["id"] == ClaimValue::Int(7))
        );
    }
}

// threat 16
#[test]
fn the_key_decides_the_algorithm_and_never_the_token() {
    let signers = [
        Signer::rs256("r", KeySize::Rsa2048),
        Signer::es256("e"),
        Signer::ed25519("d"),
    ];
    let verifier = verifier(&[&signers[0], &signers[1], &signers[2]]);
    for signer in &signers {
        for alg in [
            "none", "None", "HS256", "RS256", "RS384", "PS256", "ES256", "ES256K", "EdDSA",
        ] {
            if alg == signer.alg() {
                continue;
            }
            let header = json!({ "alg": alg, "kid": signer.kid });
            let renamed = signer.sign(&header.to_string(), &claims().to_string());
            let error = verifier.verify(&renamed, SERVICE, NOW).unwrap_err();
            assert!(
                matches!(error, UserTokenError::Algorithm { .. }),
                "{alg}: {error}"
            );
        }
        // The public key as the secret of an HMAC.
        let header = json!({ "alg": "HS256", "kid": signer.kid });
        let confused = hs256(&signer.public_der(), &header, &claims());
        let error = verifier.verify(&confused, SERVICE, NOW).unwrap_err();
        assert!(matches!(error, UserTokenError::Algorithm { .. }), "{error}");
        // No signature at all.
        let unsigned = format!(
            "{}.{}.",
            b64(json!({ "alg": "none", "kid": signer.kid })
                .to_string()
                .as_bytes()),
            b64(claims().to_string().as_bytes())
        );
        verifier.verify(&unsigned, SERVICE, NOW).unwrap_err();
        // Somebody else's key under this name.
        let forged = Signer {
            kid: signer.kid.clone(),
            ..Signer::es256("x")
        };
        verifier
            .verify(&forged.token(&claims()), SERVICE, NOW)
            .unwrap_err();
    }
}

// threat 16
#[test]
fn a_header_brings_no_key_and_changes_nothing_that_is_signed() {
    let signer = Signer::es256("e");
    let verifier = verifier(&[&signer]);
    let own = Signer::es256("e");
    for (name, value) in [
        ("jwk", own.jwk()),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("enc", json!("A256GCM")),
        ("zip", json!("DEF")),
        ("typ", json!("logout+jwt")),
        ("typ", json!(1)),
        ("kid", json!(["e"])),
        ("alg", json!(null)),
    ] {
        for signer in [&signer, &own] {
            let mut header = signer.header();
            header[name] = value.clone();
            let token = signer.sign(&header.to_string(), &claims().to_string());
            let error = verifier.verify(&token, SERVICE, NOW).unwrap_err();
            let is_named =
                matches!(error, UserTokenError::HeaderParameter { name: found } if found == name);
            assert!(is_named, "{name}: {error}");
        }
    }
    // What only describes is passed over.
    let mut header = signer.header();
    header["x5t"] = json!("abc");
    header["typ"] = json!("at+JWT");
    let token = signer.sign(&header.to_string(), &claims().to_string());
    verifier.verify(&token, SERVICE, NOW).unwrap();
}

// threat 16
#[test]
fn kid_is_looked_up_whole_and_never_guessed() {
    let (one, two) = (Signer::es256("one"), Signer::es256("two"));
    let verifier = verifier(&[&one]);
    let error = verifier
        .verify(&two.token(&claims()), SERVICE, NOW)
        .unwrap_err();
    assert!(matches!(error, UserTokenError::UnknownKey { issuer } if issuer == ISSUER));
    for kid in ["ONE", "one ", "on", "../one", "one\u{0}"] {
        let other = Signer {
            kid: kid.to_owned(),
            ..Signer::es256("x")
        };
        let error = verifier
            .verify(&other.token(&claims()), SERVICE, NOW)
            .unwrap_err();
        assert!(matches!(error, UserTokenError::UnknownKey { .. }), "{kid}");
    }
    // Not even where there is only one.
    let nameless = one.sign(r#"{"alg":"ES256"}"#, &claims().to_string());
    let error = verifier.verify(&nameless, SERVICE, NOW).unwrap_err();
    assert!(matches!(error, UserTokenError::NoKid));
}

// threat 17
#[test]
fn a_claim_that_is_missing_null_twice_or_of_another_type_is_refused() {
    let signer = Signer::ed25519("d");
    let verifier = verifier(&[&signer]);
    let refusal = |claims: &str| {
        let token = signer.sign(&signer.header().to_string(), claims);
        verifier.verify(&token, SERVICE, NOW).unwrap_err()
    };
    for name in ["exp", "aud", "iss", "sub"] {
        let error = refusal(&with(name, Value::Null).to_string());
        assert!(
            matches!(error, UserTokenError::Claim { name: found } if found == name),
            "{name}: {error}"
        );
    }
    let texts = [json!(1), json!(true), json!(["x"]), json!({}), json!(1.5)];
    let times = [
        json!("1800000600"),
        json!(1_800_000_600.5),
        json!(-1),
        json!([1]),
        json!(true),
    ];
    for (name, wrong) in [
        ("iss", &texts[..]),
        ("sub", &texts[..]),
        ("jti", &texts[..]),
        ("exp", &times[..]),
        ("nbf", &times[..]),
        ("iat", &times[..]),
        (
            "aud",
            &[json!(1), json!({}), json!([SERVICE, 1]), json!([[SERVICE]])][..],
        ),
        (
            "groups",
            &[json!(1), json!({ "admin": true }), json!(["a", 1])][..],
        ),
    ] {
        for value in wrong {
            let error = refusal(&with(name, value.clone()).to_string());
            assert!(
                matches!(error, UserTokenError::Claim { name: found } if found == name),
                "{name}: {value}: {error}"
            );
        }
        // Null is not the same as missing.
        let mut null = claims();
        null[name] = Value::Null;
        let error = refusal(&null.to_string());
        assert!(
            matches!(error, UserTokenError::Claim { .. }),
            "{name}: {error}"
        );
        let twice = claims()
            .to_string()
            .replacen('{', &format!("{{\"{name}\":1,\"{name}\":1,"), 1);
        assert!(
            matches!(refusal(&twice), UserTokenError::Payload(_)),
            "{name}"
        );
    }
    assert!(matches!(
        refusal(&with("sub", json!("")).to_string()),
        UserTokenError::Claim { name: "sub" }
    ));
    assert!(matches!(refusal("[]"), UserTokenError::Payload(_)));
    assert!(matches!(refusal("{}{}"), UserTokenError::Payload(_)));
}

// threat 17
#[test]
fn a_token_counts_from_nbf_to_exp_and_the_leeway_around() {
    let signer = Signer::ed25519("d");
    let verifier = verifier(&[&signer]);
    let check = |claims: &Value, now: u64| verifier.verify(&signer.token(claims), SERVICE, now);
    let plain = claims();
    check(&plain, NOW + 600 + LEEWAY_SECONDS - 1).unwrap();
    let late = check(&plain, NOW + 600 + LEEWAY_SECONDS).unwrap_err();
    assert!(matches!(late, UserTokenError::Expired { seconds } if seconds == LEEWAY_SECONDS));
    for name in ["nbf", "iat"] {
        let coming = with(name, json!(NOW + 100));
        let early = check(&coming, NOW + 100 - LEEWAY_SECONDS - 1).unwrap_err();
        assert!(
            matches!(early, UserTokenError::NotYetValid { seconds: 31 }),
            "{name}: {early}"
        );
        check(&coming, NOW + 100 - LEEWAY_SECONDS).unwrap();
        // Also from memory, when the clock was set back.
        check(&coming, NOW + 100 - LEEWAY_SECONDS - 1).unwrap_err();
    }
    let endless = with("exp", json!(i64::MAX));
    check(&endless, NOW).unwrap();
    check(&with("exp", json!(u64::MAX)), NOW).unwrap_err();
}

// threat 18
#[test]
fn a_token_for_somebody_else_is_refused() {
    let signer = Signer::es256("e");
    let for_service = verifier(&[&signer]);
    for other in [
        json!("order"),
        json!("orders2"),
        json!("ORDERS"),
        json!([]),
        json!(["payments", ""]),
        json!(""),
    ] {
        let token = signer.token(&with("aud", other.clone()));
        let error = for_service.verify(&token, SERVICE, NOW).unwrap_err();
        assert!(
            matches!(error, UserTokenError::Audience),
            "{other}: {error}"
        );
    }
    let many = signer.token(&with("aud", json!(["payments", SERVICE])));
    for_service.verify(&many, SERVICE, NOW).unwrap();
    // Remembered for this service, and for no other.
    let error = for_service
        .verify(&signer.token(&claims()), "payments", NOW)
        .unwrap_err();
    assert!(matches!(error, UserTokenError::Audience));
    let token = signer.token(&claims());
    for_service.verify(&token, SERVICE, NOW).unwrap();
    for_service.verify(&token, "payments", NOW).unwrap_err();
    // Audiences that are configured are the only ones.
    let config = IssuerConfig::new(ISSUER).with_audiences(&["https://api.example.org"]);
    let by_config = verifier_with(config, &[&signer]);
    by_config.verify(&token, SERVICE, NOW).unwrap_err();
    let token = signer.token(&with("aud", json!("https://api.example.org")));
    by_config.verify(&token, SERVICE, NOW).unwrap();
    // An app's token is for the called service alone.
    let error = for_service
        .verify(&app_token(&app_claims()), "payments", NOW)
        .unwrap_err();
    assert!(matches!(error, UserTokenError::Audience));
}

// threat 18
#[test]
fn an_issuer_speaks_for_itself_alone() {
    let (ours, theirs) = (Signer::es256("same"), Signer::es256("same"));
    let mut verifier = verifier(&[&ours]);
    verifier
        .add_issuer(IssuerConfig::new("https://other.example/"))
        .unwrap();
    let keys = KeySet::parse(&jwks(&[&theirs])).unwrap();
    assert!(verifier.put_keys("https://other.example/", Some(Arc::new(keys))));
    let error = verifier
        .verify(&theirs.token(&claims()), SERVICE, NOW)
        .unwrap_err();
    assert!(matches!(error, UserTokenError::BadSignature), "{error}");
    for issuer in [
        "https://login.example.org",
        "https://login.example.org/x",
        "HTTPS://login.example.org/",
        "",
    ] {
        let token = ours.token(&with("iss", json!(issuer)));
        let error = verifier.verify(&token, SERVICE, NOW).unwrap_err();
        assert!(
            matches!(error, UserTokenError::UnknownIssuer),
            "{issuer}: {error}"
        );
    }
}

// threat 19
#[test]
fn a_subject_that_looks_like_a_spiffe_id_never_becomes_one() {
    let signer = Signer::es256("e");
    let verifier = verifier(&[&signer]);
    let id = "spiffe://example.org/admin";
    let user = verifier
        .verify(&signer.token(&with("sub", json!(id))), SERVICE, NOW)
        .unwrap();
    assert_eq!(&*user.subject, id);
    let caller = crate::caller::Caller::new(None, Some(user));
    assert_eq!(caller.spiffe_id, None);
    // Who signs with a shared secret may not even say it.
    let mut claims = app_claims();
    claims["sub"] = json!(id);
    let error = verifier
        .verify(&app_token(&claims), SERVICE, NOW)
        .unwrap_err();
    assert!(matches!(error, UserTokenError::SpiffeSubject), "{error}");
}

#[test]
fn a_consumers_token_names_the_consumer_with_the_groups_that_we_gave_it() {
    let verifier = verifier(&[&Signer::es256("e")]);
    let mut claims = app_claims();
    claims["groups"] = json!(["admin"]);
    let user = verifier.verify(&app_token(&claims), SERVICE, NOW).unwrap();
    assert_eq!((&*user.issuer, &*user.subject), ("app", "app"));
    // It could write anything of itself, and a rule about a claim means what an issuer says.
    assert!(user.claims.is_empty());
    assert!(user.has_group("user") && !user.has_group("admin"));
    // threat 16
    for (secret, header) in [
        (&SECRET[1..], json!({ "alg": "HS256" })),
        (SECRET, json!({ "alg": "HS384" })),
        (SECRET, json!({ "alg": "none" })),
        (SECRET, json!({ "alg": "ES256", "kid": "e" })),
    ] {
        verifier
            .verify(&hs256(secret, &header, &app_claims()), SERVICE, NOW)
            .unwrap_err();
    }
    // A key of an issuer does not sign for a consumer, nor the other way round.
    verifier
        .verify(&Signer::es256("e").token(&app_claims()), SERVICE, NOW)
        .unwrap_err();
    let crossed = hs256(
        SECRET,
        &json!({ "alg": "HS256", "kid": "e" }),
        &with("jti", json!("x")),
    );
    verifier.verify(&crossed, SERVICE, NOW).unwrap_err();
}

// threat 16
#[test]
fn one_issuer_never_has_both_kinds_of_key() {
    let mut verifier = UserVerifier::new(64);
    verifier.add_issuer(IssuerConfig::new("a")).unwrap();
    let error = verifier
        .add_consumer(Consumer::new("app", "a", SECRET).unwrap())
        .unwrap_err();
    assert_eq!(
        error,
        UserConfigError::Taken {
            name: "a".to_owned()
        }
    );
    assert_eq!(
        verifier.add_issuer(IssuerConfig::new("")),
        Err(UserConfigError::Nameless)
    );
    assert!(!verifier.put_keys("nobody", None));
}

// threat 20
#[test]
fn a_consumers_secret_is_strong_and_never_shown() {
    assert!(matches!(
        Consumer::new("a", "k", &SECRET[1..]),
        Err(super::super::RingError::TooShort { bytes: 31 })
    ));
    Consumer::new("a", "k", &[7; 40]).unwrap_err();
    let shown = format!("{:?}", verifier(&[&Signer::es256("e")]));
    assert!(
        !shown.contains(std::str::from_utf8(SECRET).unwrap()) && shown.contains("app-key"),
        "{shown}"
    );
    let key = ApiKey::new(&[7; RANDOM_BYTES]);
    assert!(!format!("{key:?}").contains("0707"));
}

// threat 21
#[test]
fn large_deep_and_broken_tokens_are_refused_before_anything_else() {
    let signer = Signer::es256("e");
    let verifier = verifier(&[&signer]);
    let large = verifier
        .verify(&"a".repeat(1 << 20), SERVICE, NOW)
        .unwrap_err();
    assert!(matches!(
        large,
        UserTokenError::TooLarge { bytes: 1_048_576 }
    ));
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(2000), "]".repeat(2000));
    let token = signer.sign(&signer.header().to_string(), &deep);
    assert!(matches!(
        verifier.verify(&token, SERVICE, NOW),
        Err(UserTokenError::Payload(_))
    ));
    let token = signer.sign(&deep, &claims().to_string());
    assert!(matches!(
        verifier.verify(&token, SERVICE, NOW),
        Err(UserTokenError::Header(_))
    ));
    let good = signer.token(&claims());
    for broken in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        &format!("{good}."),
        &format!(".{good}"),
        &format!("{good}="),
        &good[..good.len() - 1],
    ] {
        verifier.verify(broken, SERVICE, NOW).unwrap_err();
    }
    // Base64 with bits left over is another text for the same bytes.
    let changed = format!(
        "{}{}",
        &good[..good.len() - 1],
        if good.ends_with('A') { 'B' } else { 'A' }
    );
    verifier.verify(&changed, SERVICE, NOW).unwrap_err();
}

// threat 23
#[test]
fn a_key_that_leaves_the_set_stops_its_tokens_at_once() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let verifier = verifier(&[&old]);
    let token = old.token(&claims());
    verifier.verify(&token, SERVICE, NOW).unwrap();
    let set = |signers: &[&Signer]| Some(Arc::new(KeySet::parse(&jwks(signers)).unwrap()));
    verifier.put_keys(ISSUER, set(&[&old, &new]));
    verifier.verify(&token, SERVICE, NOW).unwrap();
    verifier.put_keys(ISSUER, set(&[&new]));
    let gone = verifier.verify(&token, SERVICE, NOW).unwrap_err();
    assert!(matches!(gone, UserTokenError::UnknownKey { .. }), "{gone}");
    // Another key of the same name neither.
    verifier.put_keys(ISSUER, set(&[&Signer::es256("old")]));
    let other = verifier.verify(&token, SERVICE, NOW).unwrap_err();
    assert!(matches!(other, UserTokenError::BadSignature), "{other}");
    verifier.put_keys(ISSUER, set(&[&old]));
    verifier.verify(&token, SERVICE, NOW).unwrap();
    verifier.put_keys(ISSUER, None);
    let none = verifier.verify(&token, SERVICE, NOW).unwrap_err();
    assert!(matches!(none, UserTokenError::NoKeys { .. }), "{none}");
}

#[test]
fn a_token_that_counts_once_is_refused_the_second_time() {
    let signer = Signer::es256("e");
    let single = verifier_with(IssuerConfig::new(ISSUER).with_single_use(true), &[&signer]);
    let token = signer.token(&claims());
    single.verify(&token, SERVICE, NOW).unwrap();
    let again = single.verify(&token, SERVICE, NOW).unwrap_err();
    assert!(matches!(again, UserTokenError::Replayed), "{again}");
    // Another signature over the same token is the same token.
    single
        .verify(&signer.token(&claims()), SERVICE, NOW)
        .unwrap_err();
    single
        .verify(&signer.token(&with("jti", json!("t-2"))), SERVICE, NOW)
        .unwrap();
    let nameless = single
        .verify(&signer.token(&with("jti", Value::Null)), SERVICE, NOW)
        .unwrap_err();
    assert!(
        matches!(nameless, UserTokenError::Claim { name: "jti" }),
        "{nameless}"
    );
    // A refused token uses nothing up.
    let mut forged = signer.token(&with("jti", json!("t-3")));
    forged.replace_range(forged.len() - 4.., "AAAA");
    single.verify(&forged, SERVICE, NOW).unwrap_err();
    single
        .verify(&signer.token(&with("jti", json!("t-3"))), SERVICE, NOW)
        .unwrap();
}

#[test]
fn a_full_table_of_used_tokens_refuses_until_some_expire() {
    let used = UsedOnce::new(2);
    used.claim("i", "a", (0, 10)).unwrap();
    used.claim("i", "b", (0, 20)).unwrap();
    let full = used.claim("i", "c", (5, 30)).unwrap_err();
    assert!(
        matches!(full, UserTokenError::TooManyInUse { tokens: 2 }),
        "{full}"
    );
    assert!(matches!(
        used.claim("i", "a", (5, 10)),
        Err(UserTokenError::Replayed)
    ));
    used.claim("i", "c", (10, 30)).unwrap();
    // The same name of another issuer is another token.
    used.claim("j", "c", (20, 30)).unwrap();
}

#[test]
fn memory_of_accepted_tokens_is_bounded() {
    let signer = Signer::ed25519("d");
    let verifier = verifier(&[&signer]);
    for number in 0..500 {
        let token = signer.token(&with("jti", json!(number.to_string())));
        verifier.verify(&token, SERVICE, NOW).unwrap();
    }
    assert!(verifier.remembered() <= 128, "{}", verifier.remembered());
}

#[test]
fn roles_and_groups_come_from_the_claims_that_are_configured() {
    let signer = Signer::es256("e");
    let equals = |text: &str| RoleCondition::Equals(text.to_owned());
    let contains = |text: &str| RoleCondition::Contains(text.to_owned());
    let config = IssuerConfig::new(ISSUER)
        .with_groups_claim("/realm_access/roles")
        .with_role(RoleMapping::new("auditor", "department", equals("audit")))
        .with_role(RoleMapping::new("senior", "level", equals("3")))
        .with_role(RoleMapping::new(
            "verified",
            "email_verified",
            equals("true"),
        ))
        .with_role(RoleMapping::new(
            "writer",
            "scope",
            contains("orders.write"),
        ))
        .with_role(RoleMapping::new(
            "teller",
            "https://example.org/roles",
            contains("teller"),
        ))
        .with_role(RoleMapping::new("slash", "/a~1b/c", equals("yes")));
    let verifier = verifier_with(config, &[&signer]);
    let mut all = claims();
    all["realm_access"] = json!({ "roles": ["one", "two"] });
    all["groups"] = json!(["ignored"]);
    all["department"] = json!("audit");
    all["level"] = json!(3);
    all["email_verified"] = json!(true);
    all["scope"] = json!("orders.read orders.write");
    all["https://example.org/roles"] = json!(["clerk", "teller"]);
    all["a/b"] = json!({ "c": "yes" });
    let user = verifier.verify(&signer.token(&all), SERVICE, NOW).unwrap();
    assert_eq!(user.groups, ["one", "two"].map(Into::into));
    assert_eq!(
        user.roles,
        ["auditor", "senior", "verified", "writer", "teller", "slash"].map(Into::into)
    );
    let mut none = claims();
    none["department"] = json!("auditor");
    none["level"] = json!("33");
    none["email_verified"] = json!(false);
    none["scope"] = json!("orders.write2 xorders.write");
    none["https://example.org/roles"] = json!("tellers");
    let user = verifier.verify(&signer.token(&none), SERVICE, NOW).unwrap();
    assert!(user.roles.is_empty() && user.groups.is_empty(), "{user:?}");
}

#[test]
fn an_api_key_names_its_consumer_and_only_its_hash_is_kept() {
    let (key, other) = (
        ApiKey::new(&[7; RANDOM_BYTES]),
        ApiKey::new(&[8; RANDOM_BYTES]),
    );
    let hash = ApiKeyHash::parse(&key.hash().to_string()).unwrap();
    assert_eq!(hash, key.hash());
    let mut verifier = UserVerifier::new(64);
    verifier.add_api_key(hash, "app", &["user"]).unwrap();
    let user = verifier.verify_api_key(key.expose()).unwrap();
    assert_eq!((&*user.issuer, &*user.subject), ("app", "app"));
    assert!(user.has_group("user"));
    // threat 20
    assert!(!format!("{verifier:?}").contains(&key.expose()[20..]));
    let stolen_id = format!("{}{}", &key.expose()[..20], &other.expose()[20..]);
    for wrong in [
        other.expose(),
        &stolen_id,
        "",
        "mk_",
        "mk__",
        &key.expose()[1..],
        &format!("{}0", key.expose()),
        &key.expose().to_uppercase(),
    ] {
        let error = verifier.verify_api_key(wrong).unwrap_err();
        assert!(matches!(error, UserTokenError::ApiKey), "{wrong}: {error}");
    }
    let twice = verifier.add_api_key(key.hash(), "other", &[]).unwrap_err();
    assert!(matches!(twice, UserConfigError::Taken { .. }), "{twice}");
    for wrong in [
        "",
        "sha256:",
        "sha256:0:0",
        &key.hash().to_string()[1..],
        &format!("{}0", key.hash()),
        &key.hash().to_string().to_uppercase(),
    ] {
        assert_eq!(ApiKeyHash::parse(wrong), Err(ApiKeyError), "{wrong}");
    }
}
