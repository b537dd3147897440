//! What policies decide, and what they refuse to be.

mod reference;

use http::Request;

use super::*;
use crate::caller::User;
use crate::request::Limits;
use crate::spiffe::SpiffeId;

const NOW: u64 = 1_800_000_000;

fn own() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn build(rules: &[RuleConfig]) -> Result<Policy, PolicyError> {
    Policy::build(
        &PolicyConfig {
            rules: rules.to_vec(),
            ..PolicyConfig::default()
        },
        &own(),
    )
}

fn request(method: &str, path: &str) -> CanonicalRequest {
    let parts = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "orders")
        .body(())
        .unwrap()
        .into_parts()
        .0;
    CanonicalRequest::new(parts, &Limits::default()).unwrap()
}

fn peer(id: &str) -> Caller {
    Caller::new(Some(SpiffeId::parse(id).unwrap()), None)
}

fn users() -> Caller {
    peer("spiffe://example.org/user-service")
}

fn user(groups: &[&str]) -> Arc<User> {
    Arc::new(User::new("https://login.example.org", "ada").with_groups(groups))
}

fn query<'a>(caller: &'a Caller, service: &'a str, request: &'a CanonicalRequest) -> Query<'a> {
    Query::new(caller, service, NOW)
        .with_port(80)
        .with_request(request)
}

/// Decides, checking on the way that the explanation tells of the same decision.
fn decide(policy: &Policy, caller: &Caller, method: &str, path: &str) -> Decision {
    let request = request(method, path);
    let decision = policy.decide(&query(caller, "orders", &request));
    assert_eq!(
        policy.explain(&query(caller, "orders", &request)).decision,
        decision
    );
    decision
}

fn passes(rule: &RuleConfig, caller: &Caller, method: &str, path: &str) -> bool {
    decide(
        &build(std::slice::from_ref(rule)).unwrap(),
        caller,
        method,
        path,
    )
    .is_allowed()
}

fn allow(from: &str) -> RuleConfig {
    RuleConfig::new("r", &[from], "orders")
}

#[test]
fn denies_what_no_rule_allows() {
    let empty = build(&[]).unwrap();
    let decision = decide(&empty, &users(), "GET", "/");
    assert_eq!(
        decision,
        Decision {
            verdict: Verdict::Deny,
            rule: None,
            would_deny: None
        }
    );
    let policy = build(&[allow("user-service")]).unwrap();
    assert!(decide(&policy, &users(), "GET", "/").is_allowed());
    let request = request("GET", "/");
    assert!(
        !policy
            .decide(&query(&users(), "billing", &request))
            .is_allowed()
    );
    assert!(
        !policy
            .decide(&query(&Caller::default(), "orders", &request))
            .is_allowed()
    );
}

#[test]
fn deny_wins_over_any_number_of_allows_in_any_order() {
    let deny = allow("user-service")
        .with_action(Action::Deny)
        .with_methods(&["DELETE"]);
    let named = |name: &str, rule: RuleConfig| RuleConfig {
        name: name.to_owned(),
        ..rule
    };
    for rules in [
        [named("deny", deny.clone()), named("allow", allow("*"))],
        [named("allow", allow("*")), named("deny", deny.clone())],
    ] {
        let policy = build(&rules).unwrap();
        let decision = decide(&policy, &users(), "DELETE", "/");
        assert_eq!(
            (decision.verdict, decision.rule.as_deref()),
            (Verdict::Deny, Some("deny"))
        );
        let decision = decide(&policy, &users(), "GET", "/");
        assert_eq!(
            (decision.verdict, decision.rule.as_deref()),
            (Verdict::Allow, Some("allow"))
        );
    }
}

#[test]
fn an_audit_rule_only_reports() {
    let audit = RuleConfig {
        name: "trial".to_owned(),
        ..allow("*")
            .with_action(Action::Audit)
            .with_methods(&["POST"])
    };
    let policy = build(&[audit.clone(), allow("user-service")]).unwrap();
    let decision = decide(&policy, &users(), "POST", "/");
    assert_eq!(
        (decision.is_allowed(), decision.would_deny.as_deref()),
        (true, Some("trial"))
    );
    assert_eq!(decide(&policy, &users(), "GET", "/").would_deny, None);
    assert!(!decide(&build(&[audit]).unwrap(), &users(), "POST", "/").is_allowed());
}

#[test]
fn the_audit_default_is_open_and_says_so_but_not_to_nobody() {
    let deny = allow("*")
        .with_action(Action::Deny)
        .with_methods(&["DELETE"]);
    let config = PolicyConfig::default()
        .with_default(DefaultAction::Audit)
        .with_rule(deny);
    let policy = Policy::build(&config, &own()).unwrap();
    let decision = decide(&policy, &users(), "GET", "/");
    assert_eq!(
        (decision.is_allowed(), decision.would_deny.as_deref()),
        (true, Some(DEFAULT_RULE))
    );
    assert!(!decide(&policy, &users(), "DELETE", "/").is_allowed());
    assert!(!decide(&policy, &Caller::default(), "GET", "/").is_allowed());
}

// threat 8
#[test]
fn sources_are_literal() {
    let from = |source: &str, id: &str| passes(&allow(source), &peer(id), "GET", "/");
    let user = "spiffe://example.org/user-service";
    for source in [
        "user-service",
        user,
        "spiffe://example.org",
        "spiffe://example.org/*",
        "*",
    ] {
        assert!(from(source, user), "{source}");
    }
    for stranger in [
        "spiffe://example.org/user-service2",
        "spiffe://example.org/user-servic",
        "spiffe://example.com/user-service",
        "spiffe://example.org/x/user-service",
        "spiffe://example.org/user-service/x",
    ] {
        assert!(!from("user-service", stranger), "{stranger}");
    }
    assert!(!from("a.b", "spiffe://example.org/aXb"));
    assert!(!from("spiffe://example.org", "spiffe://sub.example.org/a"));
    assert!(!from("spiffe://example.org/*", "spiffe://example.orgx/a"));
    let team = "spiffe://example.org/team-a/*";
    assert!(
        from(team, "spiffe://example.org/team-a/x")
            && from(team, "spiffe://example.org/team-a/x/y")
    );
    assert!(
        !from(team, "spiffe://example.org/team-a") && !from(team, "spiffe://example.org/team-ab/x")
    );
}

// threat 19
#[test]
fn a_credential_gives_groups_and_never_an_identity() {
    let subject = "spiffe://example.org/user-service";
    let admin = User::new("https://login.example.org", subject).with_groups(&["admin"]);
    let alone = Caller::new(None, Some(Arc::new(admin)));
    let sent_on = Caller::new(users().spiffe_id, Some(user(&["admin"])));
    let group = allow("group:admin");
    assert!(passes(&group, &alone, "GET", "/") && passes(&group, &sent_on, "GET", "/"));
    assert!(!passes(&group, &users(), "GET", "/"));
    assert!(!passes(&allow("group:admi"), &alone, "GET", "/"));
    for source in ["user-service", subject, "spiffe://example.org/*"] {
        assert!(!passes(&allow(source), &alone, "GET", "/"));
    }
    assert!(passes(&allow("*"), &alone, "GET", "/"));
}

// threat 8
#[test]
fn paths_match_exactly_by_prefix_by_suffix_and_by_template() {
    let covers = |pattern: &str, path: &str| {
        passes(&allow("*").with_paths(&[pattern]), &users(), "GET", path)
    };
    for (pattern, yes, no) in [
        (
            "/api",
            &["/api", "/x/../api", "/%61pi", "/api?q=1"][..],
            &["/api/", "/apix", "/API", "/api/x", "/"][..],
        ),
        ("/a.b", &["/a.b"], &["/axb"]),
        (
            "/api/*",
            &["/api/", "/api/x", "/api/x/y"],
            &["/api", "/apix", "/x/api/y", "/api/../x"],
        ),
        ("/*", &["/", "/x"], &[]),
        (
            "*.json",
            &["/a.json", "/a/b.json"],
            &["/a.json/", "/ajson", "/a.jsonx"],
        ),
        (
            "/users/{id}",
            &["/users/7", "/users/a%20b"],
            &["/users", "/users/", "/users/7/", "/users/7/x", "/x/7"],
        ),
        (
            "/users/{id}/orders",
            &["/users/7/orders"],
            &["/users/orders", "/users/7/8/orders", "/users/7/ordersx"],
        ),
        (
            "/users/{id}/*",
            &["/users/7/", "/users/7/x/y"],
            &["/users/7", "/users//7"],
        ),
        ("/{a}/{b}/", &["/x/y/"], &["/x/y", "/x/y/z"]),
        ("/a:b", &["/a:b", "/a%3Ab", "/a%3ab"], &["/ab"]),
        ("/a%3Ab", &["/a:b", "/a%3Ab"], &["/a%253b"][..0]),
        ("/caf%C3%A9", &["/café"], &["/cafe"]),
        ("/café", &["/caf%c3%a9"], &["/cafe"]),
    ] {
        for path in yes {
            assert!(covers(pattern, path), "{pattern} must cover {path}");
        }
        for path in no {
            assert!(!covers(pattern, path), "{pattern} must not cover {path}");
        }
    }
}

// threat 10
#[test]
fn a_deny_rule_can_not_be_passed_by_with_a_slash_or_an_escape() {
    for (pattern, paths) in [
        (
            "/admin",
            &["/admin", "/admin/", "//admin", "/x/../admin/", "/%61dmin"][..],
        ),
        ("/admin/", &["/admin", "/admin/"]),
        ("/admin/*", &["/admin", "/admin/", "/admin/x"]),
        ("/users/{id}", &["/users/7", "/users/7/"]),
        ("/users/{id}/", &["/users/7", "/users/7/"]),
        ("/users/{id}/*", &["/users/7", "/users/7/", "/users/7/x"]),
        ("*.key", &["/a.key", "/a.key/"]),
        ("/a:b", &["/a%3ab/"]),
    ] {
        let deny = RuleConfig {
            name: "deny".to_owned(),
            ..allow("*").with_action(Action::Deny).with_paths(&[pattern])
        };
        let policy = build(&[allow("*"), deny]).unwrap();
        for path in paths {
            assert!(
                !decide(&policy, &users(), "GET", path).is_allowed(),
                "{pattern} must stop {path}"
            );
        }
        assert!(decide(&policy, &users(), "GET", "/public").is_allowed());
    }
}

#[test]
fn a_connection_that_is_not_http_has_no_method_and_no_path() {
    let ports = allow("user-service").with_ports(&[5432]);
    let connect = |rules: &[RuleConfig], port| {
        build(rules)
            .unwrap()
            .decide(&Query::new(&users(), "orders", NOW).with_port(port))
            .is_allowed()
    };
    assert!(
        connect(std::slice::from_ref(&ports), 5432) && !connect(std::slice::from_ref(&ports), 80)
    );
    assert!(
        !connect(&[allow("*").with_methods(&["GET"])], 80)
            && !connect(&[allow("*").with_paths(&["/*"])], 80)
    );
    let deny = RuleConfig {
        name: "deny".to_owned(),
        ..allow("*").with_action(Action::Deny).with_paths(&["/admin"])
    };
    assert!(!connect(&[ports, deny], 5432));
}

#[test]
fn a_credential_matches_by_each_of_its_parts() {
    let ada = User::new("https://login.example.org", "ada")
        .with_groups(&["shop"])
        .with_roles(&["auditor"])
        .with_claim("department", "payments")
        .with_claim("teams", vec!["a", "b"])
        .with_claim("level", 3)
        .with_claim("is_staff", true);
    let caller = Caller::new(None, Some(Arc::new(ada)));
    for yes in [
        "*",
        "group:shop",
        "role:auditor",
        "issuer:https://login.example.org",
        "claim:department=payments",
        "claim:teams=b",
        "claim:level=3",
        "claim:is_staff=true",
    ] {
        assert!(passes(&allow(yes), &caller, "GET", "/"), "{yes}");
        assert!(
            passes(&allow("*").with_users(&[yes]), &caller, "GET", "/"),
            "{yes}"
        );
    }
    for no in [
        "group:sho",
        "group:auditor",
        "role:shop",
        "issuer:https://login.example.or",
        "claim:department=payment",
        "claim:teams=c",
        "claim:teams=a,b",
        "claim:level=03",
        "claim:is_staff=1",
        "claim:sub=ada",
    ] {
        assert!(!passes(&allow(no), &caller, "GET", "/"), "{no}");
        assert!(
            !passes(&allow("*").with_users(&[no]), &caller, "GET", "/"),
            "{no}"
        );
    }
    let subject = allow("*").with_users(&["subject:ada"]);
    assert!(passes(&subject, &caller, "GET", "/"));
    assert!(!passes(
        &allow("*").with_users(&["subject:eve"]),
        &caller,
        "GET",
        "/"
    ));
    let policy = build(&[allow("claim:teams=b").with_users(&["claim:level=3"])]).unwrap();
    assert_eq!(*policy.needs().claims, ["level".into(), "teams".into()]);
}

// threat 8
#[test]
fn what_a_credential_says_is_compared_letter_by_letter() {
    let with = |text: &str| {
        let user = User::new(text, text)
            .with_groups(&[text])
            .with_roles(&[text]);
        Caller::new(None, Some(Arc::new(user.with_claim("name", text))))
    };
    for (written, own) in [
        ("a.b", "axb"),
        ("a|b", "a"),
        ("a+", "aa"),
        ("^a$", "a"),
        ("a,b", "a"),
        ("A", "a"),
        ("a", "a "),
        ("a", "ab"),
        ("(a)", "a"),
        ("a\\.b", "a.b"),
        (".", "x"),
    ] {
        for kind in ["group:", "role:", "issuer:", "claim:name=", "subject:"] {
            let rule = allow("*").with_users(&[&format!("{kind}{written}")]);
            assert!(passes(&rule, &with(written), "GET", "/"), "{kind}{written}");
            assert!(
                !passes(&rule, &with(own), "GET", "/"),
                "{kind}{written} and {own}"
            );
        }
    }
    for kind in ["group:", "role:", "issuer:", "claim:name=", "subject:"] {
        for text in ["", "*", "a*", "*a", "a[bc]", "a?", "a\n"] {
            let error = build(&[allow("*").with_users(&[&format!("{kind}{text}")])]).unwrap_err();
            assert!(
                matches!(error, PolicyError::User { .. }),
                "{kind}{text}: {error}"
            );
        }
    }
}

#[test]
fn users_are_asked_for_beside_the_certificate() {
    let both = allow("user-service").with_users(&["group:shop"]);
    let id = SpiffeId::parse("spiffe://example.org/user-service").unwrap();
    let with = |groups: &[&str]| Caller::new(Some(id.clone()), Some(user(groups)));
    assert!(passes(&both, &with(&["shop"]), "GET", "/"));
    assert!(!passes(&both, &with(&["garden"]), "GET", "/"));
    assert!(!passes(&both, &users(), "GET", "/"));
    assert!(!passes(
        &both,
        &Caller::new(None, Some(user(&["shop"]))),
        "GET",
        "/"
    ));
    let policy = build(&[both]).unwrap();
    let why = policy.explain(&query(&users(), "orders", &request("GET", "/")));
    assert_eq!(why.nearest.unwrap().failed, Condition::User);
}

#[test]
fn whoever_shows_nothing_gets_what_is_listed_by_name() {
    let health = allow("anonymous")
        .with_methods(&["GET"])
        .with_paths(&["/healthz"]);
    let nobody = Caller::default();
    assert!(passes(&health, &nobody, "GET", "/healthz"));
    assert!(!passes(&health, &nobody, "GET", "/healthz/"));
    assert!(!passes(&health, &nobody, "POST", "/healthz"));
    assert!(
        !passes(&health, &users(), "GET", "/healthz"),
        "it is about nobody else"
    );
    let wider = [
        allow("anonymous"),
        allow("anonymous").with_methods(&["GET"]),
        allow("anonymous")
            .with_methods(&["GET"])
            .with_paths(&["/x", "/public/*"]),
        health.clone().with_action(Action::Deny),
    ];
    for rule in wider {
        let error = build(std::slice::from_ref(&rule)).unwrap_err();
        assert!(matches!(error, PolicyError::Anonymous { .. }), "{error}");
        let config = PolicyConfig::default().with_rule(rule);
        Policy::build_in(&config, &Scope::new(&own()).with_permissive(true)).unwrap();
    }
    let error = build(&[health.with_users(&["*"])]).unwrap_err();
    assert!(
        matches!(error, PolicyError::AnonymousUser { .. }),
        "{error}"
    );
}

#[test]
fn a_rule_ends_by_itself() {
    let policy = build(&[allow("*").with_expires("2027-01-15T08:00:00Z")]).unwrap();
    let at = |now| {
        policy
            .decide(
                &Query::new(&users(), "orders", now)
                    .with_port(80)
                    .with_request(&request("GET", "/")),
            )
            .is_allowed()
    };
    assert!(
        at(NOW - 1) && !at(NOW),
        "1800000000 is 2027-01-15T08:00:00Z"
    );
    assert_eq!(policy.expired(NOW).collect::<Vec<_>>(), ["r"]);
    let why = policy.explain(&query(&users(), "orders", &request("GET", "/")));
    assert_eq!(why.nearest.unwrap().failed, Condition::Expired);
}

#[test]
fn explains_in_sentences() {
    let read = allow("user-service")
        .with_methods(&["GET"])
        .with_paths(&["/api/*"])
        .with_reason("the shop reads orders");
    let policy = build(&[
        RuleConfig {
            name: "far".to_owned(),
            ..allow("billing")
        },
        read,
    ])
    .unwrap();
    let say = |caller: &Caller, service, method, path| {
        policy
            .explain(&query(caller, service, &request(method, path)))
            .to_string()
    };
    assert_eq!(
        say(&users(), "orders", "POST", "/api/x"),
        "POST /api/x of orders:80, called by spiffe://example.org/user-service, is denied: no rule allows it. \
         Nearest is rule r: its methods are GET; POST is none of them."
    );
    assert_eq!(
        say(&users(), "orders", "GET", "/api/x"),
        "GET /api/x of orders:80, called by spiffe://example.org/user-service, is allowed by rule r. Its reason: the shop reads orders."
    );
    assert_eq!(
        say(&peer("spiffe://example.org/x"), "orders", "GET", "/"),
        "GET / of orders:80, called by spiffe://example.org/x, is denied: no rule allows it. \
         Nearest is rule far: the caller is none of its from: billing."
    );
    assert!(say(&users(), "stock", "GET", "/").ends_with("is denied: no rule is about stock."));
    assert!(
        say(&Caller::default(), "orders", "GET", "/")
            .contains("neither a certificate nor a credential")
    );
}

#[test]
fn refuses_rules_that_can_not_be_enforced() {
    let one = |rule: RuleConfig| build(&[rule]).unwrap_err();
    assert!(matches!(
        one(RuleConfig {
            from: vec![],
            ..allow("*")
        }),
        PolicyError::NoSource { .. }
    ));
    for name in ["", "default", "a\nb", &"n".repeat(129)] {
        assert!(
            matches!(
                one(RuleConfig {
                    name: name.to_owned(),
                    ..allow("*")
                }),
                PolicyError::Name { .. }
            ),
            "{name}"
        );
    }
    for service in ["", "order*", "a b", "../x"] {
        assert!(
            matches!(
                one(RuleConfig::new("r", &["*"], service)),
                PolicyError::Service { .. }
            ),
            "{service}"
        );
    }
    for method in ["get", "", "G T", "CONNECT"] {
        assert!(
            matches!(
                one(allow("*").with_methods(&[method])),
                PolicyError::Method { .. }
            ),
            "{method}"
        );
    }
    assert!(matches!(
        one(allow("*").with_ports(&[80, 0])),
        PolicyError::Port { .. }
    ));
    assert!(matches!(
        one(allow("*").with_expires("soon")),
        PolicyError::Expires { .. }
    ));
    assert!(matches!(
        build(&[allow("*"), allow("*")]),
        Err(PolicyError::DuplicateName { .. })
    ));
    assert!(matches!(
        build(&vec![allow("*"); MAX_RULES + 1]),
        Err(PolicyError::TooManyRules { .. })
    ));
}

// threat 8
#[test]
fn refuses_sources_that_no_caller_has() {
    for from in [
        "",
        "user-*",
        "*x",
        "User Service",
        "spiffe://Example.org/a",
        "spiffe://example.org/a/",
        "spiffe://example.org/a*",
        "spiffe://*/a",
        "spiffe://",
        "group:",
        "group:*",
        "group:a?",
        "role:",
        "role:[a]",
        "claim:a",
        "claim:a=",
        "claim:=b",
        "claim:a=b*",
        "issuer:",
        "subject:ada",
        "anonymous:x",
        "nobody:x",
        "a/../b",
        "[a-z]",
    ] {
        assert!(
            matches!(
                build(&[allow(from)]).unwrap_err(),
                PolicyError::Source { .. }
            ),
            "{from}"
        );
    }
}

#[test]
fn refuses_paths_that_no_request_has() {
    let one = |rule: RuleConfig| build(&[rule]).unwrap_err();
    for path in [
        "",
        "*",
        "api",
        "/api*",
        "/a/*/b",
        "/a**",
        "**",
        "/{}",
        "/a{b}",
        "/{a}b",
        "/{a",
        "/{*}",
        "/a?b",
        "/a#b",
        "/a/../b",
        "/./a",
        "//a",
        "/a%2fb",
        "/a%5cb",
        "/a%00",
        "/a%2541",
        "/a%",
        "/a\\b",
        "/a//*",
        "/{x}//a",
        "/%2e%2e/a",
        "*/../a",
        "/{x}/..",
    ] {
        assert!(
            matches!(
                one(allow("*").with_paths(&[path])),
                PolicyError::Path { .. }
            ),
            "{path}"
        );
    }
}
