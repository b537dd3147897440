//! What is recorded of a decision, and that it decides the same again.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::policy::{PolicyConfig, RuleConfig, Verdict};
use crate::spiffe::TrustDomain;

const NOW: u64 = 1_800_000_000;

fn needs() -> Needs {
    Needs {
        headers: vec![
            HeaderName::from_static("x-region"),
            HeaderName::from_static("x-tenant"),
        ],
        claims: vec!["level".into(), "tenant".into()],
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> CanonicalRequest {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "Orders:8080");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let parts = request.body(()).unwrap().into_parts().0;
    CanonicalRequest::new(parts, &Limits::default()).unwrap()
}

fn ada() -> User {
    User::new("https://login.example.org", "ada")
        .with_groups(&["admin", "a \"quoted\" one"])
        .with_roles(&["reader"])
        .with_claim("tenant", vec!["acme", "globex"])
        .with_claim("password_hint", "the usual")
}

fn caller(user: Option<User>) -> Caller {
    let id = SpiffeId::parse("spiffe://example.org/web").unwrap();
    Caller::new(Some(id), user.map(Arc::new))
}

fn written(facts: &Facts) -> HashMap<String, String> {
    let fields = facts.to_fields().into_iter();
    fields.map(|(name, text)| (name.to_owned(), text)).collect()
}

fn read(fields: &HashMap<String, String>) -> Result<Facts, FactsError> {
    Facts::from_fields(|name| fields.get(name).map(String::as_str))
}

#[test]
fn a_record_reads_as_what_was_written() {
    let caller = caller(Some(ada()));
    let sent = [
        ("x-tenant", "acme"),
        ("x-tenant", "b"),
        ("cookie", "secret"),
    ];
    let request = request("POST", "/orders/caf%c3%a9?card=4111", &sent);
    let query = Query::new(&caller, "orders", NOW)
        .with_port(8080)
        .with_request(&request);
    let facts = Facts::of("01J9Z", &query, &needs());
    let fields = written(&facts);
    let field = |name: &str| fields.get(name).map(String::as_str);
    assert_eq!(field("decision"), Some("01J9Z"));
    assert_eq!(field("peer"), Some("spiffe://example.org/web"));
    assert_eq!(field("port"), Some("8080"));
    assert_eq!(field("path"), Some("/orders/caf%C3%A9"));
    assert_eq!(field("host"), Some("orders"));
    assert_eq!(field("groups"), Some(r#"["admin","a \"quoted\" one"]"#));
    assert_eq!(
        field("claims"),
        Some(r#"{"level":[],"tenant":[["acme","globex"]]}"#)
    );
    assert_eq!(
        field("headers"),
        Some(r#"{"x-region":[],"x-tenant":["acme","b"]}"#)
    );
    assert_eq!(read(&fields).unwrap(), facts);
}

// threat 60
#[test]
fn nothing_that_no_rule_reads_is_recorded() {
    let caller = caller(Some(ada()));
    let sent = [("authorization", "Bearer abc"), ("cookie", "session=1")];
    let request = request("GET", "/pay?card=4111", &sent);
    let query = Query::new(&caller, "orders", NOW).with_request(&request);
    let text = format!("{:?}", Facts::of("1", &query, &needs()).to_fields());
    for secret in ["Bearer", "session", "4111", "the usual", "password_hint"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

// threat 56
#[test]
fn what_is_too_long_is_left_out_and_said_to_be() {
    let groups: Vec<String> = (0..400).map(|n| format!("group-number-{n}")).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let long = "x".repeat(MAX_FIELD_BYTES);
    let user = ada().with_groups(&groups).with_claim("level", &*long);
    let caller = caller(Some(user));
    let request = request("GET", "/", &[("x-region", &long), ("x-tenant", "a")]);
    let query = Query::new(&caller, "orders", NOW).with_request(&request);
    let fields = written(&Facts::of("1", &query, &needs()));
    assert!(fields.values().all(|text| text.len() <= MAX_FIELD_BYTES));
    let facts = read(&fields).unwrap();
    let missing = facts.missing(&needs());
    assert_eq!(missing, ["groups", "claim level", "header x-region"]);
    let any = RuleConfig::new("any", &["*"], "orders");
    let own = TrustDomain::parse("example.org").unwrap();
    let policy = Policy::build(&PolicyConfig::default().with_rule(any), &own).unwrap();
    let missing = vec!["groups".to_owned()];
    assert_eq!(facts.decide(&policy), Replayed::Undecidable { missing });
}

#[test]
fn a_record_that_is_not_whole_is_refused_by_name() {
    let caller = caller(Some(ada()));
    let request = request("GET", "/", &[]);
    let query = Query::new(&caller, "orders", NOW).with_request(&request);
    let fields = written(&Facts::of("1", &query, &needs()));
    let with = |name: &str, text: &str| {
        let mut fields = fields.clone();
        fields.insert(name.to_owned(), text.to_owned());
        read(&fields).unwrap_err().to_string()
    };
    for (name, text) in [
        ("decision", ""),
        ("service", ""),
        ("at", "soon"),
        ("port", "65536"),
        ("peer", "web"),
        ("method", "G T"),
        ("path", "no-slash"),
        ("path", "/a/../b"),
        ("groups", "[1]"),
        ("claims", r#"{"tenant":["a","b"]}"#),
        ("headers", r#"{"x y":["a"]}"#),
        ("headers", r#"{"x-y":[1]}"#),
        ("headers", "{"),
    ] {
        let said = with(name, text);
        assert!(said.contains(name), "{name}={text}: {said}");
    }
    assert!(with("path.cut", "17").contains("not complete"));
    assert!(with("omitted", "2").contains("not complete"));
}

#[test]
fn a_header_that_was_not_recorded_leaves_a_call_undecidable_and_one_that_was_absent_does_not() {
    let caller = caller(None);
    let request = request("GET", "/", &[]);
    let query = Query::new(&caller, "orders", NOW).with_request(&request);
    let facts = Facts::of("1", &query, &needs());
    assert_eq!(facts.missing(&needs()), [""; 0]);
    let narrow = Facts::of("1", &query, &Needs::default());
    let missing = narrow.missing(&needs());
    assert_eq!(missing, ["header x-region", "header x-tenant"]);
}

#[test]
fn what_a_rule_reads_that_has_no_say_about_the_call_need_not_be_recorded() {
    let caller = caller(Some(ada()));
    let request = request("GET", "/x", &[("x-name", "Zo\u{eb}")]);
    let query = Query::new(&caller, "orders", NOW).with_request(&request);
    let facts = Facts::of("1", &query, &Needs::default());
    let own = TrustDomain::parse("example.org").unwrap();
    let decide = |facts: &Facts, rules: &[RuleConfig]| {
        let rules = rules.iter().cloned();
        let config = rules.fold(PolicyConfig::default(), PolicyConfig::with_rule);
        facts.decide(&Policy::build(&config, &own).unwrap())
    };
    let reads = |name: &str, path: &str| {
        let rule = RuleConfig::new(name, &["claim:tenant=acme"], "orders").with_paths(&[path]);
        rule.with_when("request.headers['x-name'] == 'Zo\u{eb}'")
    };
    let elsewhere = RuleConfig::new("other", &["claim:tenant=acme"], "stock");
    let decided = decide(&facts, &[elsewhere, reads("r", "/y")]);
    assert!(matches!(decided, Replayed::Decided(_)), "{decided:?}");
    let missing = vec!["claim tenant".to_owned(), "header x-name".to_owned()];
    assert_eq!(
        decide(&facts, &[reads("r", "/x")]),
        Replayed::Undecidable { missing }
    );
    // A header in UTF-8 is recorded as conditions read it.
    let needs = Needs {
        headers: vec![HeaderName::from_static("x-name")],
        claims: vec!["tenant".into()],
    };
    let facts = Facts::of("1", &query, &needs);
    let again = read(&written(&facts)).unwrap();
    match decide(&again, &[reads("r", "/x")]) {
        Replayed::Decided(decision) => assert!(decision.is_allowed()),
        undecidable @ Replayed::Undecidable { .. } => panic!("{undecidable:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_recorded_call_is_decided_as_the_call_itself_was(
        id in select(vec![None, Some("spiffe://example.org/web"), Some("spiffe://other.org/a/b")]),
        groups in proptest::option::of(subsequence(vec!["admin", "user", "ä\u{202e}\n"], 0..3)),
        http in proptest::option::of((
            select(vec!["GET", "POST", "PURGE"]),
            select(vec!["/", "/x", "/x/", "//x", "/%78/y", "/a%20b", "/caf%C3%A9", "/a:b?q", "*"]),
            select(vec!["orders", "ORDERS:80", "[::1]", ""]),
            subsequence(vec![("x-tenant", "a"), ("x-tenant", "ü"), ("x-region", ""), ("cookie", "c")], 0..4),
        )),
        port in select(vec![0_u16, 80]),
        from in select(vec!["*", "web", "group:admin", "spiffe://other.org/*"]),
        paths in subsequence(vec!["/x", "/x/*", "*/y", "/{s}"], 0..2),
        methods in subsequence(vec!["GET", "PURGE"], 0..2),
    ) {
        let user = groups.map(|groups| Arc::new(User::new("i", "s\u{7}").with_groups(&groups)));
        let caller = Caller::new(id.map(|id| SpiffeId::parse(id).unwrap()), user);
        let rule = RuleConfig::new("r", &[from], "orders").with_paths(&paths).with_methods(&methods);
        let own = TrustDomain::parse("example.org").unwrap();
        let policy = Policy::build(&PolicyConfig::default().with_rule(rule), &own).unwrap();
        let request = http.and_then(|(method, path, host, headers)| {
            let mut request = Request::builder().method(method).uri(path);
            request = if host.is_empty() { request.version(Version::HTTP_10) } else { request.header("host", host) };
            for (name, value) in headers {
                request = request.header(name, value);
            }
            CanonicalRequest::new(request.body(()).unwrap().into_parts().0, &Limits::default()).ok()
        });
        let query = Query::new(&caller, "orders", NOW).with_port(port);
        let query = match &request { Some(request) => query.with_request(request), None => query };
        let facts = Facts::of("id", &query, &needs());
        let again = read(&written(&facts)).unwrap();
        prop_assert_eq!(&again, &facts);
        let decision = policy.decide(&query);
        prop_assert_eq!(again.decide(&policy), Replayed::Decided(decision.clone()));
        let explained = again.explain(&policy).unwrap().decision;
        prop_assert_eq!(explained.verdict == Verdict::Allow, decision.is_allowed());
    }
}
