//! What conditions decide, what they refuse, and what they cost.

use std::sync::Arc;

use http::Request;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::caller::{Caller, User};
use crate::policy::{
    Action, Decision, Policy, PolicyConfig, PolicyError, Query, RuleConfig, Verdict,
};
use crate::request::{CanonicalRequest, Limits};
use crate::spiffe::SpiffeId;

const NOW: u64 = 1_800_000_000;

fn own() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn rule(action: Action, when: &str) -> RuleConfig {
    RuleConfig::new(action.as_str(), &["*"], "orders")
        .with_action(action)
        .with_when(when)
}

fn policy(rules: &[RuleConfig]) -> Result<Policy, PolicyError> {
    let config = rules.iter().cloned();
    Policy::build(
        &config.fold(PolicyConfig::default(), PolicyConfig::with_rule),
        &own(),
    )
}

fn refused(when: &str) -> ConditionError {
    match policy(&[rule(Action::Allow, when)]).unwrap_err() {
        PolicyError::When { source, .. } => source,
        other => panic!("{when}: {other}"),
    }
}

fn request(path: &str, headers: &[(&str, &str)]) -> CanonicalRequest {
    let mut builder = Request::get(path).header("host", "Pay.Example.org:8443");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    CanonicalRequest::new(builder.body(()).unwrap().into_parts().0, &Limits::default()).unwrap()
}

fn ada() -> User {
    User::new("https://login.example.org", "ada")
        .with_groups(&["shop", "garden"])
        .with_roles(&["auditor"])
        .with_claim("level", 3)
        .with_claim("teams", vec!["a", "b"])
        .with_claim("is_staff", true)
}

fn workload(user: Option<User>) -> Caller {
    let id = SpiffeId::parse("spiffe://example.org/shop").unwrap();
    Caller::new(Some(id), user.map(Arc::new))
}

fn decide(rules: &[RuleConfig], caller: &Caller, request: &CanonicalRequest) -> Decision {
    let query = Query::new(caller, "orders", NOW).with_port(80);
    let policy = policy(rules).unwrap();
    let decision = policy.decide(&query.with_request(request));
    assert_eq!(
        policy.explain(&query.with_request(request)).decision,
        decision
    );
    decision
}

/// Whether a rule with the condition matches, when it allows and when it denies.
fn matches(when: &str, caller: &Caller, request: &CanonicalRequest) -> (bool, bool) {
    let open = RuleConfig::new("open", &["*"], "orders");
    let allows = decide(&[rule(Action::Allow, when)], caller, request).is_allowed();
    let denies = !decide(&[rule(Action::Deny, when), open], caller, request).is_allowed();
    (allows, denies)
}

const TRUE: (bool, bool) = (true, true);
const FALSE: (bool, bool) = (false, false);
/// What can't be evaluated: whatever passes less.
const FAILED: (bool, bool) = (false, true);

#[test]
fn reads_every_variable() {
    let caller = workload(Some(ada()));
    let request = request("/pay/x%3Ay", &[("x-tenant", "blue")]);
    for when in [
        "source.spiffe_id == 'spiffe://example.org/shop'",
        "source.trust_domain == 'example.org' && source.service == 'shop'",
        "destination.service == 'orders' && destination.port == 80",
        "request.method == 'GET' && request.path == '/pay/x:y'",
        "request.host == 'pay.example.org'",
        "request.headers['x-tenant'] == 'blue'",
        "'x-tenant' in request.headers && !('x-debug' in request.headers)",
        "user.issuer.startsWith('https://') && user.subject == \"ada\"",
        "'shop' in user.groups && user.roles == ['auditor']",
        "user.groups.exists(group, group.endsWith('den'))",
        "user.groups.all(group, size(group) > 3)",
        "user.groups.filter(group, group != 'shop').size() == 1",
        "user.groups.map(group, size(group)) == [4, 6]",
        "user.groups.exists_one(group, group == 'shop')",
        "user.claims['level'] >= 3 && user.claims.level < 4",
        "'b' in user.claims.teams && user.claims.is_staff",
        "has(user.claims.teams) && !has(user.claims.tenant)",
        "now > 1700000000 && now % 86400 / 3600 == 8",
        "user.subject == 'eve' ? false : request.path.contains('y')",
    ] {
        assert_eq!(matches(when, &caller, &request), TRUE, "{when}");
        let not = format!("!({when})");
        assert_eq!(matches(&not, &caller, &request), FALSE, "{not}");
    }
}

#[test]
fn what_can_not_be_evaluated_lets_less_pass() {
    let caller = workload(None);
    let request = request("/", &[]);
    for when in [
        "user.subject == 'ada'",
        "!(user.subject == 'ada')",
        "!('admin' in user.groups)",
        "user.claims.level != 3",
        "request.headers['x-tenant'] != 'blue'",
        "request.path < 3",
        "1 / (destination.port - 80) > 0",
        "int(request.path) > 3",
        "destination.port + 9223372036854775807 > 0",
    ] {
        assert_eq!(matches(when, &caller, &request), FAILED, "{when}");
    }
    // What is absent can be asked for.
    assert_eq!(matches("has(user.subject)", &caller, &request), FALSE);
    assert_eq!(matches("!has(source.service)", &caller, &request), FALSE);
    assert_eq!(
        matches(
            "user.subject == 'ada' || request.path == '/'",
            &caller,
            &request
        ),
        TRUE
    );
    assert_eq!(
        matches(
            "user.subject == 'ada' && request.path == '/x'",
            &caller,
            &request
        ),
        FALSE
    );
}

#[test]
fn another_domain_has_no_service_of_ours() {
    let id = SpiffeId::parse("spiffe://other.org/shop").unwrap();
    let caller = Caller::new(Some(id), None);
    assert_eq!(
        matches("source.service == 'shop'", &caller, &request("/", &[])),
        FAILED
    );
}

// threat 12
#[test]
fn a_header_that_occurs_twice_neither_dodges_a_deny_nor_earns_an_allow() {
    let caller = workload(None);
    let when = "request.headers['x-role'] == 'guest'";
    for (roles, expected) in [
        (&["guest"][..], TRUE),
        (&["guest", "guest"], TRUE),
        (&["admin"], FALSE),
        // One of them: a deny rule matches, an allow rule does not, in whatever order they come.
        (&["guest", "admin"], FAILED),
        (&["admin", "guest"], FAILED),
        (&["admin", "guest", "admin"], FAILED),
        (&["admin", "root"], FALSE),
        // What is joined in one line is another text.
        (&["guest, admin"], FALSE),
    ] {
        let headers: Vec<(&str, &str)> = roles.iter().map(|role| ("x-role", *role)).collect();
        let request = request("/", &headers);
        assert_eq!(matches(when, &caller, &request), expected, "{roles:?}");
        let not = matches("request.headers['x-role'] != 'guest'", &caller, &request);
        let expected = if expected == FAILED {
            FAILED
        } else {
            (!expected.0, !expected.1)
        };
        assert_eq!(not, expected, "{roles:?}");
    }
}

// threat 12
#[test]
fn more_repeated_headers_than_are_looked_at_let_less_pass() {
    let caller = workload(None);
    let values: Vec<String> = (0..=MAX_CHOICES).map(|n| n.to_string()).collect();
    let headers: Vec<(&str, &str)> = values.iter().map(|value| ("x-a", value.as_str())).collect();
    let when = "request.headers['x-a'] != 'nothing'";
    assert_eq!(matches(when, &caller, &request("/", &headers)), FAILED);
    assert_eq!(
        matches(
            when,
            &caller,
            &request("/", headers.split_first().unwrap().1)
        ),
        TRUE
    );
    let two: Vec<(&str, &str)> = headers
        .iter()
        .take(5)
        .flat_map(|(_, v)| [("x-a", *v), ("x-b", *v)])
        .collect();
    let both = "request.headers['x-a'] != 'nothing' && request.headers['x-b'] != 'nothing'";
    assert_eq!(matches(both, &caller, &request("/", &two)), FAILED);
}

// threat 10
#[test]
fn conditions_see_the_canonical_path() {
    let caller = workload(None);
    let when = "request.path.startsWith('/admin:x')";
    for path in [
        "/admin:x",
        "/admin%3Ax",
        "/admin%3ax/",
        "//admin:x",
        "/x/../admin:x",
        "/./%61dmin:x/y",
    ] {
        assert_eq!(matches(when, &caller, &request(path, &[])), TRUE, "{path}");
    }
    assert_eq!(matches(when, &caller, &request("/admin.x", &[])), FALSE);
}

#[test]
fn a_connection_that_is_not_http_has_no_request() {
    let caller = workload(None);
    let connect = |rules: &[RuleConfig]| {
        policy(rules)
            .unwrap()
            .decide(&Query::new(&caller, "orders", NOW).with_port(5432))
            .verdict
    };
    let open = || RuleConfig::new("open", &["*"], "orders");
    let path = "request.path == '/x'";
    assert_eq!(connect(&[rule(Action::Allow, path)]), Verdict::Deny);
    assert_eq!(connect(&[rule(Action::Deny, path), open()]), Verdict::Deny);
    let port = "destination.port == 5432";
    assert_eq!(connect(&[rule(Action::Allow, port)]), Verdict::Allow);
    let none = "has(request.path)";
    assert_eq!(connect(&[rule(Action::Deny, none), open()]), Verdict::Allow);
}

#[test]
fn large_values_let_less_pass() {
    let many: Vec<String> = (0..=MAX_ELEMENTS).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let user = ada().with_groups(&many).with_claim("many", many.clone());
    let caller = workload(Some(user));
    let long = "x".repeat(9_000);
    let request = request("/", &[("x-long", &long)]);
    for when in [
        "'1' in user.groups",
        "'1' in user.claims.many",
        "request.headers['x-long'] != ''",
    ] {
        assert_eq!(matches(when, &caller, &request), FAILED, "{when}");
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn names_what_is_unknown_and_what_comes_nearest() {
    for (when, expected) in [
        (
            "request.pth == '/'",
            "there is no request.pth; did you mean request.path?",
        ),
        (
            "reqest.path == '/'",
            "there is no reqest; did you mean request?",
        ),
        ("path == '/'", "there is no path"),
        (
            "user.group == 'a'",
            "there is no user.group; did you mean user.groups?",
        ),
        ("request.path.size == 3", "there is no request.path.size"),
        (
            "request.path.startswith('/')",
            "there is no function startswith; did you mean startsWith?",
        ),
        (
            "request.path.matches('^/a')",
            "there is no function matches",
        ),
        (
            "user.groups.exist(g, g == 'a')",
            "there is no function exist; did you mean exists?",
        ),
        (
            "request == 1",
            "request can't be read as a whole; name one of its fields: method, path, host, headers",
        ),
        (
            "size(request.headers) > 1",
            "request.headers needs a name in quotes, such as request.headers['x']",
        ),
        (
            "request.headers[request.path] == 'a'",
            "request.headers needs a name in quotes, such as request.headers['x']",
        ),
        (
            "user.claims.exists(c, c == 'a')",
            "user.claims needs a name in quotes, such as user.claims['x']",
        ),
        (
            "request.headers['X-Tenant'] == 'a'",
            "no header is named \"X-Tenant\"; names are in lower case",
        ),
        (
            "request.headers['authorization'] != ''",
            "the header authorization holds a secret; read what it proves from user",
        ),
        (
            "request.path",
            "it is neither true nor false; compare it with something",
        ),
        (
            "1 + 1",
            "it is neither true nor false; compare it with something",
        ),
        (
            "user.groups.map(g, g)",
            "it is neither true nor false; compare it with something",
        ),
        (
            "timestamp(now) > timestamp(0)",
            "there is no function timestamp",
        ),
        ("Foo{a: 1} == Foo{a: 1}", "there is no Foo"),
        (
            "user.groups.exists(a, user.groups.exists(b, a == b + a))",
            "texts and lists can't be put together in a loop",
        ),
        (
            "user.groups.map(a, [a, a]).map(b, [b, b]) == []",
            "texts and lists can't be put together in a loop",
        ),
    ] {
        assert_eq!(refused(when).to_string(), expected, "{when}");
    }
    assert!(matches!(
        refused("request.path =="),
        ConditionError::Syntax { line: 1, .. }
    ));
    assert!(matches!(
        refused("request.?path == ''"),
        ConditionError::Syntax { .. }
    ));
}

#[test]
fn the_text_bounds_the_work() {
    let loops = "user.groups.exists(a, user.roles.exists(b, a == b))";
    assert!(matches!(refused(loops), ConditionError::TooMuchWork { .. }));
    policy(&[rule(
        Action::Allow,
        "user.groups.exists(a, ['x', 'y'].exists(b, a == b))",
    )])
    .unwrap();
    let long = format!("request.path == '{}'", "x".repeat(MAX_CONDITION_BYTES));
    assert!(matches!(refused(&long), ConditionError::TooLong { .. }));
    let (half, quarter) = (MAX_CONDITION_BYTES / 2, MAX_CONDITION_BYTES / 4);
    for deep in [
        "(".repeat(half),
        format!("{}true{}", "(".repeat(17), ")".repeat(17)),
        "[".repeat(half),
        "{1:".repeat(quarter),
        format!("{}true", "!".repeat(half)),
        format!("{}1 < 0", "-".repeat(half)),
        format!("{}true", "true?".repeat(half / 4)),
        format!("now{} > 0", "+1".repeat(quarter)),
        format!("now{} > 0", "+1".repeat(100)),
        format!("user.claims.a{}", ".b".repeat(half - 20)),
        format!("user.claims.a{}", ".b".repeat(100)),
        format!("now{}", "<1".repeat(quarter)),
    ] {
        assert!(matches!(refused(&deep), ConditionError::TooDeep), "{deep}");
    }
    let many: Vec<String> = (0..60).map(|n| format!("request.path == '/{n}'")).collect();
    policy(&[rule(Action::Allow, &many.join(" || "))]).unwrap();
}

#[test]
fn needs_are_what_conditions_read() {
    let policy = policy(&[rule(
        Action::Allow,
        "request.headers['x-b'] == 'a' && 'x-a' in request.headers && user.claims.level > 3 && 'teams' in user.claims",
    )])
    .unwrap();
    let headers: Vec<&str> = policy
        .needs()
        .headers
        .iter()
        .map(http::HeaderName::as_str)
        .collect();
    assert_eq!(headers, ["x-a", "x-b"]);
    assert_eq!(*policy.needs().claims, ["level".into(), "teams".into()]);
}

#[test]
fn only_so_many_rules_have_conditions() {
    let rules: Vec<RuleConfig> = (0..=crate::policy::MAX_CONDITIONS)
        .map(|n| RuleConfig::new(&n.to_string(), &["*"], "orders").with_when("now > 0"))
        .collect();
    let error = policy(&rules).unwrap_err();
    assert!(
        matches!(error, PolicyError::TooManyConditions { .. }),
        "{error}"
    );
}

/// Pieces that make expressions, right and wrong ones.
fn pieces() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "request",
        ".path",
        ".headers",
        "['x-a']",
        "user",
        ".groups",
        ".claims",
        ".level",
        "now",
        "source",
        ".service",
        " == ",
        " in ",
        " && ",
        " || ",
        "!",
        "-",
        " + ",
        " < ",
        "?",
        ":",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        "'a'",
        "\"b\"",
        "r'\\'",
        "'''",
        "\\",
        "1",
        "0x",
        "1u",
        "1e9",
        "9223372036854775808",
        "null",
        "true",
        ".exists(g, ",
        ".all(x, ",
        ".map(x, ",
        ".filter(x, ",
        "has(",
        "g",
        "x",
        "size(",
        ".size()",
        ".startsWith('a')",
        "//",
        "\n",
        "`",
        "\u{e9}",
        "@",
        "b'\\x00'",
        "'\\u0000'",
        "int(",
        "/",
        "%",
        "*",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_text_makes_the_parser_or_an_evaluation_panic(when in prop_oneof![pieces(), ".{0,64}"]) {
        let caller = workload(Some(ada()));
        let request = request("/a", &[("x-a", "a"), ("x-a", "b")]);
        if policy(&[rule(Action::Allow, &when)]).is_ok() {
            let (allows, denies) = matches(&when, &caller, &request);
            prop_assert!(denies || !allows, "what allows has to deny too: {}", when);
        }
    }
}
