//! Intentions against a small model of Consul's, and beside rules.

use http::Request;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::policy::{
    Action, Decision, NoChange, Policy, PolicyConfig, PolicyError, Query, RuleConfig, Verdict,
};
use crate::request::{CanonicalRequest, Limits};
use IntentionAction::{Allow, Deny};

const NOW: u64 = 1_800_000_000;

fn policy(intentions: &[IntentionConfig], rules: &[RuleConfig]) -> Result<Policy, PolicyError> {
    let config = PolicyConfig {
        intentions: intentions.to_vec(),
        rules: rules.to_vec(),
        ..PolicyConfig::default()
    };
    Policy::build(&config, &TrustDomain::parse("example.org").unwrap())
}

fn refused(intention: IntentionConfig) -> IntentionError {
    match policy(&[intention], &[]).unwrap_err() {
        PolicyError::Intention { source, .. } => source,
        other => panic!("{other}"),
    }
}

fn peer(path: &str) -> Caller {
    let id = format!("spiffe://example.org/{path}");
    Caller::new(Some(SpiffeId::parse(&id).unwrap()), None)
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> CanonicalRequest {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "orders");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    CanonicalRequest::new(builder.body(()).unwrap().into_parts().0, &Limits::default()).unwrap()
}

/// The decision, of which the explanation tells too.
fn decide(policy: &Policy, caller: &Caller, service: &str, request: &CanonicalRequest) -> Decision {
    let query = Query::new(caller, service, NOW)
        .with_port(80)
        .with_request(request);
    let decision = policy.decide(&query);
    let explanation = policy.explain(&query);
    assert_eq!(explanation.decision, decision);
    if let Some(name) = &decision.rule {
        assert!(explanation.because.contains(&**name), "{explanation}");
    }
    decision
}

fn said(decision: &Decision) -> (bool, Option<&str>) {
    (decision.is_allowed(), decision.rule.as_deref())
}

#[test]
fn an_intention_counts_beside_the_rules() {
    let web = [IntentionConfig::new("web", "orders", Allow).with_id("ed16555f")];
    let no_web = [IntentionConfig::new("web", "orders", Deny)];
    let allow = RuleConfig::new("allow", &["*"], "orders");
    let deny = allow.clone().with_action(Action::Deny);
    let get = request("GET", "/", &[]);
    let said = |intentions: &[IntentionConfig], rules: &[RuleConfig], caller: &str| {
        let decision = decide(
            &policy(intentions, rules).unwrap(),
            &peer(caller),
            "orders",
            &get,
        );
        (
            decision.is_allowed(),
            decision.rule.map(|rule| rule.to_string()),
        )
    };
    let named = |allowed, name: &str| (allowed, Some(name.to_owned()));
    let one = std::slice::from_ref;
    assert_eq!(said(&web, &[], "web"), named(true, "intention:web=>orders"));
    assert_eq!(said(&web, &[], "shop"), (false, None));
    assert_eq!(said(&web, one(&deny), "web"), named(false, "allow"));
    assert_eq!(said(&web, one(&allow), "web"), named(true, "allow"));
    assert_eq!(
        said(&no_web, one(&allow), "web"),
        named(false, "intention:web=>orders")
    );
    assert_eq!(said(&no_web, one(&allow), "shop"), named(true, "allow"));
    let audit = allow.with_action(Action::Audit);
    let decision = decide(
        &policy(&web, one(&audit)).unwrap(),
        &peer("web"),
        "orders",
        &get,
    );
    assert_eq!(decision.would_deny.as_deref(), Some("allow"));
}

#[test]
fn the_source_is_the_service_of_a_workload_of_ours() {
    let get = request("GET", "/", &[]);
    let allowed = |source: &str, caller: &Caller| {
        let policy = policy(&[IntentionConfig::new(source, "orders", Allow)], &[]).unwrap();
        decide(&policy, caller, "orders", &get).is_allowed()
    };
    for path in [
        "web",
        "ns/default/dc/dc1/svc/web",
        "ap/default/ns/default/dc/dc1/svc/web",
    ] {
        assert!(
            allowed("web", &peer(path)) && allowed("*", &peer(path)),
            "{path}"
        );
    }
    for path in [
        "shop",
        "svc/web",
        "ns/other/dc/dc1/svc/web",
        "ap/other/ns/default/dc/dc1/svc/web",
        "ns/default/dc/dc1/svc/web/x",
        "ns/default/svc/web",
        "ns/default/dc/dc1/agent/web",
    ] {
        assert!(!allowed("web", &peer(path)), "{path}");
    }
    let elsewhere = Caller::new(
        Some(SpiffeId::parse("spiffe://other.org/web").unwrap()),
        None,
    );
    assert!(!allowed("web", &elsewhere) && !allowed("*", &elsewhere));
    assert!(!allowed("*", &Caller::default()));
}

#[test]
fn a_deny_for_everybody_is_for_everybody() {
    let get = request("GET", "/", &[]);
    let open = RuleConfig::new("open", &["*"], "orders");
    let policy = policy(&[IntentionConfig::new("*", "orders", Deny)], &[open]).unwrap();
    let elsewhere = Caller::new(
        Some(SpiffeId::parse("spiffe://other.org/web").unwrap()),
        None,
    );
    assert_eq!(
        said(&decide(&policy, &elsewhere, "orders", &get)),
        (false, Some("intention:*=>orders"))
    );
}

// threat 10
#[test]
fn permissions_are_about_the_canonical_path() {
    let permissions = vec![
        IntentionPermission::new(Deny).with_path_exact("/admin"),
        IntentionPermission::new(Deny).with_path_prefix("/internal/"),
        IntentionPermission::new(Allow).with_path_prefix("/"),
    ];
    let policy = policy(
        &[IntentionConfig::with_permissions(
            "web",
            "orders",
            permissions,
        )],
        &[],
    )
    .unwrap();
    let allowed =
        |path| decide(&policy, &peer("web"), "orders", &request("GET", path, &[])).is_allowed();
    for path in [
        "/admin",
        "/admin/",
        "//admin",
        "/x/../admin",
        "/%61dmin",
        "/internal",
        "/internal/x",
        "/./internal/",
    ] {
        assert!(!allowed(path), "{path}");
    }
    assert!(allowed("/") && allowed("/administrator") && allowed("/admin/x"));
}

// threat 12
#[test]
fn a_repeated_header_neither_dodges_a_deny_nor_earns_an_allow() {
    let debug = || IntentionHeader::exact("x-debug", "yes");
    let denies = IntentionPermission::new(Deny).with_header(debug());
    let allows = IntentionPermission::new(Allow);
    let deny = IntentionConfig::with_permissions("web", "orders", vec![denies, allows]);
    let only = IntentionPermission::new(Allow).with_header(debug());
    let allow = IntentionConfig::with_permissions("web", "orders", vec![only]);
    let policies = [deny, allow].map(|intention| policy(&[intention], &[]).unwrap());
    for (values, denied, allowed) in [
        (&["yes"][..], true, true),
        (&["no", "yes"], true, false),
        (&["yes", "no"], true, false),
        (&["no"], false, false),
        (&[], false, false),
    ] {
        let headers: Vec<(&str, &str)> = values.iter().map(|value| ("x-debug", *value)).collect();
        let request = request("GET", "/", &headers);
        let passes = policies
            .each_ref()
            .map(|policy| decide(policy, &peer("web"), "orders", &request).is_allowed());
        assert_eq!(passes, [!denied, allowed], "{values:?}");
    }
}

#[test]
fn headers_match_as_written() {
    let matches = |header: IntentionHeader, value: Option<&str>| {
        let permission = IntentionPermission::new(Allow).with_header(header);
        let intention = IntentionConfig::with_permissions("web", "orders", vec![permission]);
        let headers: Vec<(&str, &str)> = value.map(|value| ("x-a", value)).into_iter().collect();
        decide(
            &policy(&[intention], &[]).unwrap(),
            &peer("web"),
            "orders",
            &request("GET", "/", &headers),
        )
        .is_allowed()
    };
    let header = |change: fn(&mut IntentionHeader)| {
        let mut header = IntentionHeader {
            name: "X-A".to_owned(),
            ..IntentionHeader::default()
        };
        change(&mut header);
        header
    };
    let prefix = header(|h| h.prefix = Some("ab".to_owned()));
    assert!(matches(prefix.clone(), Some("abc")) && !matches(prefix, Some("Abc")));
    let suffix = header(|h| (h.suffix, h.ignore_case) = (Some("bC".to_owned()), true));
    assert!(matches(suffix.clone(), Some("aBc")) && !matches(suffix, Some("c")));
    let contains = header(|h| h.contains = Some("b".to_owned()));
    assert!(matches(contains.clone(), Some("abc")) && !matches(contains, Some("aBc")));
    let absent = header(|h| (h.present, h.invert) = (true, true));
    assert!(matches(absent.clone(), None) && !matches(absent, Some("")));
    let present = IntentionHeader::present("x-a");
    assert!(matches(present.clone(), Some("")) && !matches(present, None));
}

#[test]
fn permissions_refuse_what_is_not_http() {
    let allow = vec![IntentionPermission::new(Allow)];
    let policy = policy(
        &[
            IntentionConfig::with_permissions("web", "orders", allow),
            IntentionConfig::new("shop", "orders", Allow),
        ],
        &[RuleConfig::new("open", &["*"], "orders")],
    )
    .unwrap();
    let connect = |caller| policy.decide(&Query::new(&peer(caller), "orders", NOW).with_port(5432));
    assert_eq!(
        said(&connect("web")),
        (false, Some("intention:web=>orders"))
    );
    assert_eq!(said(&connect("shop")), (true, Some("open")));
}

#[test]
fn what_an_intention_denies_another_one_can_allow_for_one_request_and_caller() {
    let every = IntentionConfig::new("*", "*", Deny).with_id("7");
    let config = PolicyConfig::default().with_intention(every);
    let own = TrustDomain::parse("example.org").unwrap();
    let policy = Policy::build(&config, &own).unwrap();
    let ask = |policy: &Policy, caller, path| {
        let request = request("GET", path, &[]);
        policy.explain(&Query::new(&peer(caller), "orders", NOW).with_request(&request))
    };
    let change = ask(&policy, "web", "/x").change.unwrap();
    let changed = Policy::build(&change.apply(&config), &own).unwrap();
    let is_allowed = |caller, path| ask(&changed, caller, path).decision.is_allowed();
    assert!(is_allowed("web", "/x"));
    assert!(!is_allowed("web", "/y") && !is_allowed("shop", "/x"));
    assert_eq!(
        change.to_string(),
        "let the intention of web for orders allow this request first"
    );
    // What is not HTTP, and who is from elsewhere, no permission can name.
    let connection = policy.explain(&Query::new(&peer("web"), "orders", NOW));
    assert!(matches!(connection.change, Err(NoChange::Intention { .. })));
}

#[test]
fn needs_are_the_headers_of_permissions() {
    let permission =
        IntentionPermission::new(Allow).with_header(IntentionHeader::present("X-Tenant"));
    let policy = policy(
        &[IntentionConfig::with_permissions(
            "web",
            "orders",
            vec![permission],
        )],
        &[],
    )
    .unwrap();
    assert_eq!(
        policy.needs().headers,
        [HeaderName::from_static("x-tenant")]
    );
}

#[test]
fn refuses_what_can_not_be_enforced() {
    let with = |permission| {
        refused(IntentionConfig::with_permissions(
            "web",
            "orders",
            vec![permission],
        ))
    };
    let permission = || IntentionPermission::new(Allow);
    assert!(matches!(
        refused(IntentionConfig::new("we*", "orders", Allow)),
        IntentionError::Service { .. }
    ));
    assert!(matches!(
        refused(IntentionConfig::new("web", "", Allow)),
        IntentionError::Service { .. }
    ));
    assert!(matches!(
        refused(IntentionConfig::with_permissions("web", "orders", vec![])),
        IntentionError::Effect
    ));
    let mut both = IntentionConfig::new("web", "orders", Allow);
    both.permissions.push(permission());
    assert!(matches!(refused(both), IntentionError::Effect));
    let many = vec![permission(); MAX_PERMISSIONS + 1];
    let many = refused(IntentionConfig::with_permissions("web", "orders", many));
    assert!(matches!(many, IntentionError::TooManyPermissions { .. }));
    assert!(matches!(
        with(permission().with_methods(&["get"])),
        IntentionError::Method { .. }
    ));
    assert!(matches!(
        with(permission().with_path_exact("/a").with_path_prefix("/b")),
        IntentionError::TwoPaths
    ));
    for path in ["", "a", "/a/../b", "/a?b", "/a%2fb", "//a"] {
        assert!(
            matches!(
                with(permission().with_path_exact(path)),
                IntentionError::Path { .. }
            ),
            "{path}"
        );
        assert!(
            matches!(
                with(permission().with_path_prefix(path)),
                IntentionError::Path { .. }
            ),
            "{path}"
        );
    }
    for name in ["", "a b", "authorization"] {
        let header = IntentionHeader::present(name);
        assert!(
            matches!(
                with(permission().with_header(header)),
                IntentionError::Header { .. }
            ),
            "{name}"
        );
    }
}

#[test]
fn refuses_what_could_be_read_in_two_ways() {
    let mut two = IntentionHeader::exact("x-a", "a");
    two.present = true;
    let permission = IntentionPermission::new(Allow).with_header(two);
    let intention = IntentionConfig::with_permissions("web", "orders", vec![permission]);
    assert!(matches!(
        refused(intention),
        IntentionError::HeaderMatch { .. }
    ));
    let twice = vec![
        IntentionConfig::new("web", "*", Allow),
        IntentionConfig::new("web", "*", Deny),
    ];
    let error = policy(&twice, &[]).unwrap_err();
    assert!(
        matches!(
            error,
            PolicyError::Intention {
                source: IntentionError::Duplicate,
                ..
            }
        ),
        "{error}"
    );
}

fn permission() -> impl Strategy<Value = IntentionPermission> {
    let path = select(vec![
        (None, None),
        (Some("/a"), None),
        (Some("/b"), None),
        (None, Some("/a")),
    ]);
    let methods = select(vec![&[][..], &["GET"], &["POST", "GET"]]);
    (select(vec![Allow, Deny]), path, methods).prop_map(|(action, (exact, prefix), methods)| {
        let mut permission = IntentionPermission::new(action).with_methods(methods);
        permission.path_exact = exact.map(str::to_owned);
        permission.path_prefix = prefix.map(str::to_owned);
        permission
    })
}

fn intention() -> impl Strategy<Value = IntentionConfig> {
    let name = || select(vec!["*", "a", "b"]);
    let effect = (
        select(vec![Allow, Deny]),
        prop::collection::vec(permission(), 0..3),
    );
    (name(), name(), effect).prop_map(|(source, destination, (action, permissions))| {
        if permissions.is_empty() {
            IntentionConfig::new(source, destination, action)
        } else {
            IntentionConfig::with_permissions(source, destination, permissions)
        }
    })
}

/// Consul's way: sort by precedence, take the first whose names match, then its first permission that matches.
fn model(
    all: &[IntentionConfig],
    source: &str,
    destination: &str,
    method: &str,
    path: &str,
) -> Option<IntentionAction> {
    let mut sorted: Vec<&IntentionConfig> = all.iter().collect();
    sorted.sort_by_key(
        |one| match (one.source.as_str(), one.destination.as_str()) {
            ("*", "*") => 4,
            (_, "*") => 3,
            ("*", _) => 2,
            _ => 1,
        },
    );
    let names = |own: &str, given: &str| own == "*" || own == given;
    let one = sorted
        .into_iter()
        .find(|one| names(&one.source, source) && names(&one.destination, destination))?;
    if one.permissions.is_empty() {
        return one.action;
    }
    let fits = |own: &&IntentionPermission| {
        let slash = |text: &str| text.trim_end_matches('/').to_owned();
        let exact = own.path_exact.as_deref().is_none_or(|own_path| {
            own_path == path || own.action == Deny && slash(own_path) == slash(path)
        });
        let prefix = own
            .path_prefix
            .as_deref()
            .is_none_or(|prefix| path.starts_with(prefix));
        exact && prefix && (own.methods.is_empty() || own.methods.iter().any(|own| own == method))
    };
    one.permissions.iter().find(fits).map(|one| one.action)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn decides_as_consul_does(
        intentions in prop::collection::vec(intention(), 0..6),
        source in select(vec!["a", "b", "c"]),
        destination in select(vec!["a", "b", "c"]),
        method in select(vec!["GET", "PUT"]),
        path in select(vec!["/a", "/a/", "/ab", "/b", "/c"]),
    ) {
        let mut seen = std::collections::HashSet::new();
        let intentions: Vec<IntentionConfig> = intentions
            .into_iter()
            .filter(|one| seen.insert((one.source.clone(), one.destination.clone())))
            .collect();
        let policy = policy(&intentions, &[]).unwrap();
        let decision = decide(&policy, &peer(source), destination, &request(method, path, &[]));
        let expected = model(&intentions, source, destination, method, path);
        prop_assert_eq!(decision.verdict == Verdict::Allow, expected == Some(Allow));
        prop_assert_eq!(decision.rule.is_some(), expected.is_some());
    }
}
