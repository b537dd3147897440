//! The engine against a reader that knows nothing of indexes: every rule, every condition, as written.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::caller::ClaimValue;

const SOURCES: [&str; 14] = [
    "*",
    "a",
    "b",
    "team/a",
    "spiffe://example.org/team/*",
    "spiffe://example.org",
    "spiffe://other.org/*",
    "spiffe://other.org/a",
    "group:admin",
    "role:auditor",
    "claim:team=a",
    "claim:teams=b",
    "issuer:https://login.example.org",
    "anonymous",
];
const USERS: [&str; 4] = ["*", "group:admin", "subject:ada", "claim:team=a"];
const CONDITIONS: [&str; 3] = [
    "request.path == '/x'",
    "user.subject == 'ada'",
    "destination.port == 80",
];
const CALLERS: [&str; 5] = [
    "spiffe://example.org/a",
    "spiffe://example.org/b",
    "spiffe://example.org/team/a",
    "spiffe://other.org/a",
    "spiffe://third.org/a",
];
const PATTERNS: [&str; 16] = [
    "/x", "/x/", "/", "/*", "/x/*", "/x/y/*", "/{s}/y", "/{s}/", "/{s}/{t}", "/x/{s}/*",
    "/{s}/y/*", "*y", "*/y", "*x/y", "*/", "*z",
];
const PATHS: [&str; 10] = [
    "/", "/x", "/x/", "/x/y", "/x/y/", "/z/y", "/x/y/z", "/z", "/%78", "/xy",
];
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
const SERVICES: [&str; 3] = ["orders", "stock", "*"];

fn rule() -> impl Strategy<Value = RuleConfig> {
    let ends = select(vec![None, Some("2027-01-15T08:00:00Z"), Some("2027-01-15")]);
    let users = subsequence(USERS.to_vec(), 0..2);
    let when = proptest::option::weighted(0.3, select(CONDITIONS.to_vec()));
    (
        (users, when),
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
        .prop_map(
            |((users, when), from, service, methods, paths, ports, action, expires)| {
                let mut rule = RuleConfig::new("", &from, service)
                    .with_action(action)
                    .with_methods(&methods);
                rule.expires = expires.map(str::to_owned);
                rule.when = when.map(str::to_owned);
                // Nobody without a credential has one to show.
                if !from.contains(&"anonymous") {
                    rule = rule.with_users(&users);
                }
                rule.with_paths(&paths).with_ports(&ports)
            },
        )
}

fn caller() -> impl Strategy<Value = Caller> {
    let id = || proptest::option::of(select(CALLERS.to_vec()));
    let user = (
        select(vec!["ada", "eve"]),
        select(vec![vec![], vec!["admin"], vec!["user", "admin"]]),
        select(vec![vec![], vec!["auditor"]]),
        select(vec![
            ("team", vec!["a"]),
            ("teams", vec!["a", "b"]),
            ("teams", vec![]),
        ]),
    );
    (id(), proptest::option::of(user)).prop_map(|(id, user)| {
        let user = user.map(|(subject, groups, roles, (claim, values))| {
            let user = User::new("https://login.example.org", subject);
            let user = user.with_groups(&groups).with_roles(&roles);
            Arc::new(match (claim, values.first()) {
                ("team", Some(only)) => user.with_claim("team", *only),
                _ => user.with_claim(claim, values),
            })
        });
        Caller::new(id.map(|id| SpiffeId::parse(id).unwrap()), user)
    })
}

fn covers_user(written: &str, caller: &Caller) -> bool {
    let Some(user) = &caller.user else {
        return false;
    };
    let text = |text: &str| ClaimValue::from(text);
    match written {
        "*" | "issuer:https://login.example.org" => true,
        "group:admin" => user.groups.iter().any(|group| &**group == "admin"),
        "role:auditor" => user.roles.iter().any(|role| &**role == "auditor"),
        "subject:ada" => &*user.subject == "ada",
        "claim:team=a" => user.claims.get("team") == Some(&text("a")),
        "claim:teams=b" => {
            matches!(user.claims.get("teams"), Some(ClaimValue::List(all)) if all.contains(&text("b")))
        }
        _ => false,
    }
}

fn covers_source(source: &str, caller: &Caller) -> bool {
    let id = caller.spiffe_id.as_ref().map(ToString::to_string);
    match source {
        "*" => return id.is_some() || caller.user.is_some(),
        "anonymous" => return id.is_none() && caller.user.is_none(),
        _ if source.contains(':') && !source.starts_with("spiffe:") => {
            return covers_user(source, caller);
        }
        _ => {}
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
    let exactly = |path: &str| {
        if let Some(suffix) = pattern.strip_prefix('*') {
            return path.ends_with(suffix);
        }
        let fixed = pattern.strip_suffix("/*");
        let own: Vec<&str> = fixed.unwrap_or(pattern).split('/').collect();
        let given: Vec<&str> = path.split('/').collect();
        let fits = match fixed {
            Some(_) => given.len() > own.len(),
            None => given.len() == own.len(),
        };
        let same = |(own, given): (&&str, &&str)| {
            own == given || own.starts_with('{') && !given.is_empty()
        };
        fits && own.iter().zip(&given).all(same)
    };
    let other = path
        .strip_suffix('/')
        .map_or(format!("{path}/"), str::to_owned);
    exactly(path) || (action != Action::Allow && exactly(&other))
}

/// None where it can't be evaluated.
fn holds(when: &str, caller: &Caller, port: u16, http: Option<(&str, &str)>) -> Option<bool> {
    match when {
        "request.path == '/x'" => http.map(|(_, path)| path == "/x"),
        "user.subject == 'ada'" => caller.user.as_ref().map(|user| &*user.subject == "ada"),
        _ => Some(port == 80),
    }
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
    let condition = rule
        .when
        .as_ref()
        .is_none_or(|when| holds(when, caller, port, http).unwrap_or(refuses));
    condition
        && (to.service == "*" || to.service == service)
        && (rule.users.is_empty() || rule.users.iter().any(|user| covers_user(user, caller)))
        && rule.from.iter().any(|source| covers_source(source, caller))
        && (to.ports.is_empty() || to.ports.contains(&port))
        && rule.expires.as_deref() != Some("2027-01-15T08:00:00Z")
        && method
        && path
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn decides_as_a_plain_reading_of_the_rules_and_explains_the_same(
        // The larger ones take more than one word of 64 rules.
        rules in prop_oneof![31 => prop::collection::vec(rule(), 0..10), 1 => prop::collection::vec(rule(), 120..150)],
        default in select(vec![DefaultAction::Deny, DefaultAction::Audit]),
        caller in caller(),
        service in select(vec!["orders", "stock", "other"]),
        port in select(vec![80_u16, 81]),
        http in proptest::option::of((select(METHODS.to_vec()), select(PATHS.to_vec()))),
    ) {
        let rules: Vec<RuleConfig> =
            rules.into_iter().enumerate().map(|(n, rule)| RuleConfig { name: format!("r{n}"), ..rule }).collect();
        let config = PolicyConfig { default, rules: rules.clone(), ..PolicyConfig::default() };
        let policy = Policy::build_in(&config, &Scope::new(&own()).with_permissive(true)).unwrap();

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
