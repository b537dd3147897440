//! The grammar of SPIFFE ids, rule by rule, and against a second parser.

use std::borrow::Cow;

use proptest::prelude::*;

use super::SpiffeIdError as E;
use super::*;

/// Refuses each of `ids` for the rule that it stands beside.
fn refused(ids: &[(&str, E)]) {
    for (id, rule) in ids {
        assert_eq!(SpiffeId::parse(id).as_ref(), Err(rule), "{id:?}");
    }
}

fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

#[test]
fn accepts_the_ids_of_the_specification() {
    for (text, domain, path) in [
        ("spiffe://example.org", "example.org", ""),
        (
            "spiffe://staging.example.com/payments/mysql",
            "staging.example.com",
            "/payments/mysql",
        ),
        (
            "spiffe://staging.example.com/payments/web-fe",
            "staging.example.com",
            "/payments/web-fe",
        ),
        (
            "spiffe://k8s-west.example.com/ns/staging/sa/default",
            "k8s-west.example.com",
            "/ns/staging/sa/default",
        ),
        (
            "spiffe://example.org/9eebccd2-12bf-40a6-b262-65fe0487d453",
            "example.org",
            "/9eebccd2-12bf-40a6-b262-65fe0487d453",
        ),
    ] {
        let parsed = id(text);
        assert_eq!(
            (parsed.trust_domain().as_str(), parsed.path()),
            (domain, path)
        );
        assert_eq!(parsed.to_string(), text);
    }
}

// threat 7
#[test]
fn the_scheme_is_spiffe_in_lower_case() {
    refused(&[
        ("", E::Scheme),
        ("spiffe", E::Scheme),
        ("spiffe:example.org/a", E::Scheme),
        ("spiffe:/example.org/a", E::Scheme),
        ("spiffe//example.org/a", E::Scheme),
        ("SPIFFE://example.org/a", E::Scheme),
        ("Spiffe://example.org/a", E::Scheme),
        ("spiffes://example.org/a", E::Scheme),
        ("https://example.org/a", E::Scheme),
        (" spiffe://example.org/a", E::Scheme),
        ("\u{feff}spiffe://example.org/a", E::Scheme),
        ("//example.org/a", E::Scheme),
        ("example.org/a", E::Scheme),
    ]);
}

// threat 7
#[test]
fn a_trust_domain_is_never_empty() {
    refused(&[
        ("spiffe://", E::EmptyTrustDomain),
        ("spiffe:///", E::EmptyTrustDomain),
        ("spiffe:///a", E::EmptyTrustDomain),
        ("spiffe:////a", E::EmptyTrustDomain),
    ]);
    assert_eq!(TrustDomain::parse(""), Err(E::EmptyTrustDomain));
}

// threat 7
#[test]
fn a_trust_domain_has_neither_user_information_nor_a_port() {
    refused(&[
        (
            "spiffe://user@example.org/a",
            E::TrustDomainCharacter { at: 4 },
        ),
        (
            "spiffe://user:pw@example.org/a",
            E::TrustDomainCharacter { at: 4 },
        ),
        ("spiffe://@example.org/a", E::TrustDomainCharacter { at: 0 }),
        (
            "spiffe://example.org:80/a",
            E::TrustDomainCharacter { at: 11 },
        ),
        (
            "spiffe://example.org:/a",
            E::TrustDomainCharacter { at: 11 },
        ),
    ]);
}

// threat 7
#[test]
fn a_trust_domain_is_in_lower_case() {
    refused(&[
        ("spiffe://Example.org/a", E::TrustDomainCharacter { at: 0 }),
        ("spiffe://example.orG/a", E::TrustDomainCharacter { at: 10 }),
    ]);
}

// threat 7
#[test]
fn a_trust_domain_is_not_percent_encoded() {
    refused(&[
        (
            "spiffe://exam%70le.org/a",
            E::TrustDomainCharacter { at: 4 },
        ),
        (
            "spiffe://example.org%2fa",
            E::TrustDomainCharacter { at: 11 },
        ),
        ("spiffe://%00/a", E::TrustDomainCharacter { at: 0 }),
    ]);
}

// threat 7
#[test]
fn a_trust_domain_holds_letters_digits_dots_dashes_and_underscores() {
    // Every byte that there is, alone.
    for byte in 0..=0x7f_u8 {
        let name = char::from(byte).to_string();
        let is_allowed = name.contains(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            || [".", "-", "_"].contains(&name.as_str());
        assert_eq!(TrustDomain::parse(&name).is_ok(), is_allowed, "{name:?}");
    }
    refused(&[
        ("spiffe://exämple.org/a", E::TrustDomainCharacter { at: 2 }),
        // A Cyrillic a.
        (
            "spiffe://ex\u{430}mple.org/a",
            E::TrustDomainCharacter { at: 2 },
        ),
        (
            "spiffe://example.org\\a",
            E::TrustDomainCharacter { at: 11 },
        ),
        (
            "spiffe://example.org\0/a",
            E::TrustDomainCharacter { at: 11 },
        ),
        ("spiffe://[::1]/a", E::TrustDomainCharacter { at: 0 }),
    ]);
    for name in [
        "1.2.3.4",
        "_",
        "a..b",
        "-a",
        "a-",
        ".",
        "xn--exmple-cua.org",
    ] {
        assert_eq!(domain(name).as_str(), name);
    }
}

// threat 7
#[test]
fn an_id_has_neither_query_nor_fragment() {
    refused(&[
        ("spiffe://example.org?q", E::TrustDomainCharacter { at: 11 }),
        ("spiffe://example.org#f", E::TrustDomainCharacter { at: 11 }),
        ("spiffe://example.org/a?q", E::PathCharacter { at: 2 }),
        ("spiffe://example.org/a?", E::PathCharacter { at: 2 }),
        ("spiffe://example.org/a#f", E::PathCharacter { at: 2 }),
        ("spiffe://example.org/a#", E::PathCharacter { at: 2 }),
    ]);
}

// threat 7
#[test]
fn a_path_is_not_percent_encoded() {
    refused(&[
        ("spiffe://example.org/%61", E::PathCharacter { at: 1 }),
        ("spiffe://example.org/a%2fb", E::PathCharacter { at: 2 }),
        ("spiffe://example.org/%2e%2e/b", E::PathCharacter { at: 1 }),
        ("spiffe://example.org/a%", E::PathCharacter { at: 2 }),
    ]);
}

// threat 7
#[test]
fn a_path_has_no_empty_segment() {
    refused(&[
        ("spiffe://example.org//", E::EmptySegment),
        ("spiffe://example.org//a", E::EmptySegment),
        ("spiffe://example.org/a//b", E::EmptySegment),
    ]);
}

// threat 7
#[test]
fn a_path_has_no_trailing_slash() {
    refused(&[
        ("spiffe://example.org/", E::EmptySegment),
        ("spiffe://example.org/a/", E::EmptySegment),
        ("spiffe://example.org/a/b//", E::EmptySegment),
    ]);
}

// threat 7
#[test]
fn a_path_segment_is_neither_dot_nor_dot_dot() {
    refused(&[
        ("spiffe://example.org/.", E::DotSegment),
        ("spiffe://example.org/..", E::DotSegment),
        ("spiffe://example.org/./b", E::DotSegment),
        ("spiffe://example.org/a/../b", E::DotSegment),
    ]);
    for path in ["/...", "/.a", "/a.", "/..a", "/a/.../b"] {
        assert_eq!(id(&format!("spiffe://example.org{path}")).path(), path);
    }
}

// threat 7
#[test]
fn a_path_segment_holds_letters_digits_dots_dashes_and_underscores() {
    for byte in 0..=0x7f_u8 {
        let text = format!("spiffe://example.org/a{}b", char::from(byte));
        let is_allowed = byte.is_ascii_alphanumeric() || b".-_/".contains(&byte);
        assert_eq!(SpiffeId::parse(&text).is_ok(), is_allowed, "{text:?}");
    }
    refused(&[
        ("spiffe://example.org/ä", E::PathCharacter { at: 1 }),
        ("spiffe://example.org/a;p", E::PathCharacter { at: 2 }),
        ("spiffe://example.org/a\0", E::PathCharacter { at: 2 }),
        ("spiffe://example.org/a\n", E::PathCharacter { at: 2 }),
    ]);
}

// threat 7
#[test]
fn a_path_is_case_sensitive() {
    assert_ne!(id("spiffe://example.org/a"), id("spiffe://example.org/A"));
}

// threat 7
#[test]
fn a_trust_domain_has_at_most_255_bytes() {
    let longest = "d".repeat(MAX_TRUST_DOMAIN_BYTES);
    assert_eq!(domain(&longest).as_str().len(), 255);
    assert_eq!(
        TrustDomain::parse(&format!("{longest}d")),
        Err(E::TrustDomainTooLong { bytes: 256 })
    );
    refused(&[(
        &format!("spiffe://{longest}d/a"),
        E::TrustDomainTooLong { bytes: 256 },
    )]);
}

// threat 7
#[test]
fn an_id_has_at_most_2048_bytes_scheme_included() {
    let longest = format!("spiffe://d/{}", "a".repeat(MAX_ID_BYTES - 11));
    assert_eq!(id(&longest).as_str().len(), 2048);
    refused(&[(&format!("{longest}a"), E::TooLong { bytes: 2049 })]);
}

#[test]
fn names_a_service_in_its_domain() {
    let domain = domain("example.org");
    let id = SpiffeId::for_service(&domain, "order-service").unwrap();
    assert_eq!(id.as_str(), "spiffe://example.org/order-service");
    assert_eq!(id.service(), "order-service");
    assert_eq!(id.trust_domain(), &domain);
    assert_eq!(id.trust_domain().id(), domain.id());
    assert_eq!(domain.id().as_str(), "spiffe://example.org");
    assert_eq!(SpiffeId::for_service(&domain, ""), Err(E::EmptySegment));
    assert_eq!(SpiffeId::for_service(&domain, "../x"), Err(E::DotSegment));
}

#[test]
fn an_alias_counts_as_ours_and_every_other_domain_as_itself() {
    let aliases = [domain("old.example.org"), domain("cluster.local")];
    let aliases = TrustDomainAliases::new(domain("example.org"), &aliases).unwrap();
    for (from, to) in [
        ("spiffe://old.example.org/a/b", "spiffe://example.org/a/b"),
        ("spiffe://cluster.local/a", "spiffe://example.org/a"),
        ("spiffe://cluster.local", "spiffe://example.org"),
        ("spiffe://example.org/a", "spiffe://example.org/a"),
        ("spiffe://partner.org/a", "spiffe://partner.org/a"),
        // Neither a suffix nor a prefix of an alias is one.
        (
            "spiffe://older.example.org/a",
            "spiffe://older.example.org/a",
        ),
        (
            "spiffe://local/cluster.local",
            "spiffe://local/cluster.local",
        ),
        (
            "spiffe://cluster.local.evil/a",
            "spiffe://cluster.local.evil/a",
        ),
    ] {
        let from = id(from);
        let canonical = aliases.canonical(&from).unwrap();
        assert_eq!(canonical.as_str(), to);
        let is_borrowed = matches!(canonical, Cow::Borrowed(_));
        assert_eq!(is_borrowed, from.as_str() == to, "{from}");
    }
}

#[test]
fn what_an_alias_would_make_too_long_has_no_name() {
    let aliases = TrustDomainAliases::new(domain("example.org"), &[domain("o")]).unwrap();
    let long = format!("spiffe://o/{}", "a".repeat(MAX_ID_BYTES - 21));
    assert_eq!(
        aliases.canonical(&id(&long)).unwrap().as_str().len(),
        MAX_ID_BYTES
    );
    assert_eq!(
        aliases.canonical(&id(&format!("{long}a"))),
        Err(E::TooLong { bytes: 2049 })
    );
}

#[test]
fn aliases_are_bounded_and_not_our_own_domain() {
    let own = domain("example.org");
    assert_eq!(
        TrustDomainAliases::new(own.clone(), &[domain("a"), own.clone()]),
        Err(E::OwnAlias {
            domain: own.clone()
        })
    );
    let many: Vec<_> = (0..=MAX_ALIASES)
        .map(|n| domain(&format!("d{n}")))
        .collect();
    assert_eq!(
        TrustDomainAliases::new(own, &many),
        Err(E::TooManyAliases {
            aliases: MAX_ALIASES + 1
        })
    );
}

/// The grammar of the specification once more, as one set of allowed characters for each part:
/// `"spiffe://" 1*255( a-z / 0-9 / "." / "-" / "_" ) *( "/" segment )`, of which no segment is `.` or `..`.
fn follows_the_grammar(text: &str) -> bool {
    let in_set = |part: &str, set: &str| !part.is_empty() && part.chars().all(|c| set.contains(c));
    let lower = "abcdefghijklmnopqrstuvwxyz0123456789.-_";
    let segment = format!("{lower}ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    let mut parts = text.split('/');
    text.len() <= 2048
        && parts.next() == Some("spiffe:")
        && parts.next() == Some("")
        && parts
            .next()
            .is_some_and(|domain| domain.len() <= 255 && in_set(domain, lower))
        && parts.all(|part| in_set(part, &segment) && part != "." && part != "..")
}

/// Ids that are right, and such as are nearly so.
fn nearly_an_id() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![8 => Just("spiffe://"), 1 => Just("spiffe:/"), 1 => Just("SPIFFE://")];
    let domain =
        prop_oneof![4 => "[a-z0-9._-]{1,12}", 1 => "[a-zA-Z0-9.:@%_ä-]{0,8}", 1 => "d{250,260}"];
    let segment = prop_oneof![
        8 => "[a-zA-Z0-9._-]{1,6}",
        1 => "[a-z%?#\\x00 ä]{0,4}",
        1 => "\\.{1,3}",
        1 => "a{2020,2040}",
    ];
    let path = proptest::collection::vec(segment, 0..4).prop_map(|segments| {
        segments
            .iter()
            .flat_map(|segment| ["/", segment])
            .collect::<String>()
    });
    (scheme, domain, path).prop_map(|(scheme, domain, path)| format!("{scheme}{domain}{path}"))
}

proptest! {
    // threat 7
    #[test]
    fn accepts_what_follows_the_grammar_and_nothing_else(text in nearly_an_id()) {
        prop_assert_eq!(SpiffeId::parse(&text).is_ok(), follows_the_grammar(&text), "{}", text);
    }

    // threat 7
    #[test]
    fn accepts_of_any_text_only_what_follows_the_grammar(text in "\\PC{0,32}") {
        prop_assert_eq!(SpiffeId::parse(&text).is_ok(), follows_the_grammar(&text), "{}", text);
    }

    #[test]
    fn what_is_printed_parses_to_the_same(text in nearly_an_id()) {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert_eq!(SpiffeId::parse(&id.to_string()), Ok(id.clone()));
            prop_assert_eq!(id.trust_domain().id().as_str().len() + id.path().len(), text.len());
        }
    }
}
