//! The engine against a reader that knows nothing of indexes: every rule, every condition, as written.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

const SOURCES: [&str; 9] = [
    "*",
    "a",
    "b",
    "team/a",
    "spiffe://example.org/team/*",
    "spiffe://example.org",
    "spiffe://other.org/*",
    "spiffe://other.org/a",
    "group:admin",
];
const CALLERS: [&str; 5] = [
    "spiffe://example.org/a",
    "spiffe://example.org/b",
    "spiffe://example.org/team/a",
    "spiffe://other.org/a",
    "spiffe://third.org/a",
];
const PATTERNS: [&str; 5] = ["/x", "/x/*", "*/y", "/{s}/y", "/x/{s}/*"];
const PATHS: [&str; 8] = ["/x", "/x/", "/x/y", "/x/y/", "/z/y", "/x/y/z", "/z", "/%78"];
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
const SERVICES: [&str; 3] = ["orders", "stock", "*"];

fn rule() -> impl Strategy<Value = RuleConfig> {
    let ends = select(vec![None, Some("2027-01-15T08:00:00Z"), Some("2027-01-15")]);
    (
        subsequence(SOURCES.to_vec(), 1..3),
        select(SERVICES.to_vec()),
        subsequence(METHODS.to_vec(), 0..3),
        subsequence(PATTERNS.to_vec(), 0..3),
        subsequence(vec![80, 81], 0..2),
        select(vec![
            Action::Allow,
            Action::Allow,
            Action::Deny,
            Action::Audit,
        ]),
        ends,
    )
        .prop_map(|(from, service, methods, paths, ports, action, expires)| {
            let mut rule = RuleConfig::new("", &from, service)
                .with_action(action)
                .with_methods(&methods);
            rule.expires = expires.map(str::to_owned);
            rule.with_paths(&paths).with_ports(&ports)
        })
}

fn caller() -> impl Strategy<Value = Caller> {
    let id = || proptest::option::of(select(CALLERS.to_vec()));
    let groups = select(vec![vec![], vec!["admin"], vec!["user", "admin"]]);
    (id(), any::<bool>(), groups).prop_map(|(id, has_user, groups)| {
        let id = id.map(|id| SpiffeId::parse(id).unwrap());
        Caller::new(id, has_user.then(|| user(&groups)))
    })
}

fn covers_source(source: &str, caller: &Caller) -> bool {
    let id = caller.spiffe_id.as_ref().map(ToString::to_string);
    if source == "*" {
        return id.is_some() || caller.user.is_some();
    }
    if let Some(group) = source.strip_prefix("group:") {
        return caller
            .user
            .as_ref()
            .is_some_and(|user| user.has_group(group));
    }
    let Some(id) = id else { return false };
    match (source.strip_prefix("spiffe://"), source.strip_suffix('*')) {
        (None, _) => id == format!("spiffe://example.org/{source}"),
        (Some(_), Some(prefix)) => id.starts_with(prefix),
        (Some(rest), None) if !rest.contains('/') => id.starts_with(&format!("{source}/")),
        (Some(_), None) => id == source,
    }
}

fn covers_path(pattern: &str, path: &str, action: Action) -> bool {
    let exactly = |path: &str| match pattern {
        "/x" => path == "/x",
        "/x/*" => path.starts_with("/x/"),
        "*/y" => path.ends_with("/y"),
        "/{s}/y" => path.split('/').count() == 3 && path.ends_with("/y") && !path.starts_with("//"),
        "/x/{s}/*" => {
            path.starts_with("/x/") && path.split('/').count() >= 4 && !path.starts_with("/x//")
        }
        _ => unreachable!(),
    };
    let other = path
        .strip_suffix('/')
        .map_or(format!("{path}/"), str::to_owned);
    exactly(path) || (action != Action::Allow && exactly(&other))
}

fn covers(
    rule: &RuleConfig,
    caller: &Caller,
    service: &str,
    port: u16,
    http: Option<(&str, &str)>,
) -> bool {
    let (to, refuses) = (&rule.to, rule.action != Action::Allow);
    let method = http.map_or(refuses || to.methods.is_empty(), |(method, _)| {
        to.methods.is_empty() || to.methods.iter().any(|own| own == method)
    });
    let path = http.map_or(refuses || to.paths.is_empty(), |(_, path)| {
        to.paths.is_empty()
            || to
                .paths
                .iter()
                .any(|own| covers_path(own, path, rule.action))
    });
    (to.service == "*" || to.service == service)
        && rule.from.iter().any(|source| covers_source(source, caller))
        && (to.ports.is_empty() || to.ports.contains(&port))
        && rule.expires.as_deref() != Some("2027-01-15T08:00:00Z")
        && method
        && path
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn decides_as_a_plain_reading_of_the_rules_and_explains_the_same(
        rules in prop::collection::vec(rule(), 0..8),
        default in select(vec![DefaultAction::Deny, DefaultAction::Audit]),
        caller in caller(),
        service in select(vec!["orders", "stock", "other"]),
        port in select(vec![80_u16, 81]),
        http in proptest::option::of((select(METHODS.to_vec()), select(PATHS.to_vec()))),
    ) {
        let rules: Vec<RuleConfig> =
            rules.into_iter().enumerate().map(|(n, rule)| RuleConfig { name: format!("r{n}"), ..rule }).collect();
        let policy = Policy::build(&PolicyConfig { default, rules: rules.clone(), ..PolicyConfig::default() }, &own()).unwrap();

        let plain = http.map(|(method, path)| (method, if path == "/%78" { "/x" } else { path }));
        let first = |action| rules.iter().find(|rule| rule.action == action && covers(rule, &caller, service, port, plain));
        let expected = match (first(Action::Deny), first(Action::Allow), first(Action::Audit)) {
            (Some(deny), _, _) => (Verdict::Deny, Some(deny.name.as_str()), None),
            (None, Some(allow), audit) => (Verdict::Allow, Some(allow.name.as_str()), audit.map(|rule| rule.name.as_str())),
            (None, None, _) if default == DefaultAction::Audit && (caller.spiffe_id.is_some() || caller.user.is_some()) => {
                (Verdict::Allow, None, Some(DEFAULT_RULE))
            }
            _ => (Verdict::Deny, None, None),
        };

        let query = Query::new(&caller, service, NOW).with_port(port);
        let (decision, explanation) = match http {
            Some((method, path)) => {
                let request = request(method, path);
                (policy.decide(&query.with_request(&request)), policy.explain(&query.with_request(&request)))
            }
            None => (policy.decide(&query), policy.explain(&query)),
        };
        prop_assert_eq!((decision.verdict, decision.rule.as_deref(), decision.would_deny.as_deref()), expected);
        prop_assert_eq!(&explanation.decision, &decision);
        let verdict = if decision.is_allowed() { Verdict::Allow } else { Verdict::Deny };
        prop_assert_eq!(verdict, decision.verdict);
        prop_assert_eq!(explanation.nearest.is_some() && decision.rule.is_some(), false);
    }
}
