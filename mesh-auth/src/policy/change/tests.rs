//! The change that is suggested turns the verdict, and leaves others alone.

use std::sync::Arc;

use http::Request;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::caller::{Caller, User};
use crate::policy::{
    Action, Decision, DefaultAction, IntentionAction, IntentionPermission, Policy, Query,
};
use crate::request::{CanonicalRequest, Limits};
use crate::spiffe::{SpiffeId, TrustDomain};

const NOW: u64 = 1_800_000_000;
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
const PATHS: [&str; 7] = ["/x", "/x/", "/x/y", "/z/y", "/x/y/z", "/*", "/a%20{b}"];

#[derive(Clone, Debug)]
struct Sent {
    caller: Caller,
    service: &'static str,
    port: u16,
    http: Option<(&'static str, &'static str)>,
}

impl Sent {
    fn decide(&self, policy: &Policy) -> Decision {
        self.ask(|query| policy.decide(query))
    }

    fn change(&self, policy: &Policy) -> Result<Change, NoChange> {
        self.ask(|query| policy.explain(query).change)
    }

    fn ask<T>(&self, ask: impl FnOnce(&Query<'_>) -> T) -> T {
        let query = Query::new(&self.caller, self.service, NOW).with_port(self.port);
        let Some((method, path)) = self.http else {
            return ask(&query);
        };
        let uri = http::uri::PathAndQuery::try_from(path).unwrap();
        let request = Request::builder().method(method).uri(http::Uri::from(uri));
        let parts = request.header("host", "h").body(()).unwrap().into_parts().0;
        let request = CanonicalRequest::new(parts, &Limits::default()).unwrap();
        ask(&query.with_request(&request))
    }

    /// Whether a rule about `explained` alone is about this call too. What `explained` does not have, a rule can't ask for:
    /// a user, a port, a request. And a rule that refuses looks at no trailing slash, and refuses what is not HTTP.
    fn is_covered_with(&self, explained: &Self, refuses: bool) -> bool {
        let is_request = match (self.http, explained.http) {
            (_, None) => true,
            (None, Some(_)) => refuses,
            (Some((method, path)), Some((own_method, own_path))) => {
                let folded = |path: &'static str| {
                    if refuses {
                        path.trim_end_matches('/')
                    } else {
                        path
                    }
                };
                method == own_method && folded(path) == folded(own_path)
            }
        };
        let is_caller = match &explained.caller.spiffe_id {
            None => self.caller.user.is_some(),
            id => self.caller.spiffe_id == *id,
        };
        let subject = |sent: &Self| {
            sent.caller
                .user
                .as_ref()
                .map(|user| Arc::clone(&user.subject))
        };
        let issuer = |sent: &Self| {
            sent.caller
                .user
                .as_ref()
                .map(|user| Arc::clone(&user.issuer))
        };
        let is_user = explained.caller.user.is_none()
            || subject(self) == subject(explained)
                && (explained.caller.spiffe_id.is_some() || issuer(self) == issuer(explained));
        is_caller
            && is_user
            && self.service == explained.service
            && (explained.port == 0 || self.port == explained.port)
            && is_request
    }
}

fn own() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn build(config: &PolicyConfig) -> Policy {
    Policy::build(config, &own()).unwrap()
}

fn rule() -> impl Strategy<Value = RuleConfig> {
    let sources = vec![
        "*",
        "a",
        "b",
        "spiffe://example.org/team/*",
        "spiffe://other.org",
        "group:admin",
        "issuer:i",
    ];
    let patterns = vec!["/x", "/x/*", "*/y", "/{s}/y", "/%2A"];
    let actions = vec![Action::Allow, Action::Allow, Action::Deny, Action::Audit];
    let conditions = vec![
        "request.method == 'GET'",
        "user.subject == 'ada'",
        "has(user.subject) && request.path != '/x'",
        "now < 1",
        "destination.port == 80 || source.service == 'a'",
    ];
    let ends = vec![None, None, Some("2027-01-01"), Some("2028-01-01")];
    (
        subsequence(sources, 1..3),
        subsequence(vec!["*", "role:r", "subject:ada"], 0..2),
        select(vec!["orders", "orders", "*"]),
        subsequence(METHODS.to_vec(), 0..3),
        subsequence(patterns, 0..3),
        subsequence(vec![80, 81], 0..2),
        (
            select(actions),
            select(ends),
            proptest::option::weighted(0.3, select(conditions)),
        ),
    )
        .prop_map(
            |(from, users, service, methods, paths, ports, (action, end, when))| {
                let mut rule = RuleConfig::new("", &from, service)
                    .with_action(action)
                    .with_users(&users)
                    .with_methods(&methods)
                    .with_paths(&paths)
                    .with_ports(&ports);
                rule.expires = end.map(str::to_owned);
                rule.when = when.map(str::to_owned);
                rule
            },
        )
}

fn policy() -> impl Strategy<Value = PolicyConfig> {
    let defaults = vec![
        DefaultAction::Deny,
        DefaultAction::Deny,
        DefaultAction::Audit,
    ];
    let intentions = prop::collection::vec(intention(), 0..3);
    (
        prop::collection::vec(rule(), 0..7),
        intentions,
        select(defaults),
    )
        .prop_map(|(rules, intentions, default)| {
            let mut config = PolicyConfig::default().with_default(default);
            for (number, mut rule) in rules.into_iter().enumerate() {
                rule.name = format!("r{number}");
                config = config.with_rule(rule);
            }
            for intention in intentions {
                set(&mut config.intentions, &intention);
            }
            config
        })
}

fn intention() -> impl Strategy<Value = IntentionConfig> {
    use IntentionAction::{Allow, Deny};
    let permission = (
        select(vec![Allow, Deny]),
        subsequence(METHODS.to_vec(), 0..2),
        proptest::option::of(select(vec!["/x", "/z/y"])),
    )
        .prop_map(|(action, methods, path)| {
            let mut permission = IntentionPermission::new(action).with_methods(&methods);
            permission.path_exact = path.map(str::to_owned);
            permission
        });
    (
        select(vec!["a", "c", "team/a", "*"]),
        select(vec!["orders", "*"]),
        select(vec![Allow, Deny]),
        prop::collection::vec(permission, 0..3),
    )
        .prop_map(|(source, destination, action, permissions)| {
            if permissions.is_empty() {
                IntentionConfig::new(source, destination, action)
            } else {
                IntentionConfig::with_permissions(source, destination, permissions)
            }
        })
}

fn sent() -> impl Strategy<Value = Sent> {
    let ids = vec![
        None,
        Some("spiffe://example.org/a"),
        Some("spiffe://example.org/c"),
        Some("spiffe://example.org/team/a"),
        Some("spiffe://other.org/a"),
    ];
    let user = (
        select(vec!["i", "https://j"]),
        select(vec!["ada", "bob \"b\""]),
        subsequence(vec!["admin"], 0..2),
        subsequence(vec!["r"], 0..2),
    )
        .prop_map(|(issuer, subject, groups, roles)| {
            Arc::new(
                User::new(issuer, subject)
                    .with_groups(&groups)
                    .with_roles(&roles),
            )
        });
    (
        select(ids),
        proptest::option::of(user),
        select(vec!["orders", "stock"]),
        select(vec![0_u16, 80, 81]),
        proptest::option::weighted(0.9, (select(METHODS.to_vec()), select(PATHS.to_vec()))),
    )
        .prop_map(|(id, user, service, port, http)| Sent {
            caller: Caller::new(id.map(|id| SpiffeId::parse(id).unwrap()), user),
            service,
            port,
            http,
        })
}

/// Whether an edit has anything to do with a call: whatever it has nothing to do with must stay as it was.
fn concerns(edit: &Edit, before: &PolicyConfig, explained: &Sent, other: &Sent) -> bool {
    let is_deny = |name: &str| {
        let rule = before.rules.iter().find(|rule| rule.name == name);
        rule.is_some_and(|rule| rule.action != Action::Allow)
    };
    match edit {
        Edit::AddRule(rule) => other.is_covered_with(explained, rule.action == Action::Deny),
        Edit::RemoveRule { rule } => matches_alone(before, rule, other),
        // Intentions know no users and no ports.
        Edit::SetIntention(_) => {
            other.caller.spiffe_id == explained.caller.spiffe_id
                && other.service == explained.service
                && other.http == explained.http
        }
        Edit::Rule { rule, edit } => match edit {
            RuleEdit::Add { list, .. } => match list {
                List::From => other.caller.spiffe_id == explained.caller.spiffe_id,
                List::Users => {
                    let subject = |sent: &Sent| {
                        sent.caller
                            .user
                            .as_ref()
                            .map(|user| Arc::clone(&user.subject))
                    };
                    subject(other) == subject(explained)
                }
                List::Methods => other.http.map(|it| it.0) == explained.http.map(|it| it.0),
                List::Paths => other.http.map(|it| it.1) == explained.http.map(|it| it.1),
                List::Ports => other.port == explained.port,
            },
            RuleEdit::Remove { .. } => matches_alone(before, rule, other),
            RuleEdit::End { .. } => !is_deny(rule),
            RuleEdit::When { .. } => other.is_covered_with(explained, true),
        },
    }
}

/// Whether a rule alone, as an allow rule or as it refuses, is about a call.
fn matches_alone(config: &PolicyConfig, name: &str, sent: &Sent) -> bool {
    let Some(rule) = config.rules.iter().find(|rule| rule.name == name) else {
        return false;
    };
    let default = match rule.action {
        Action::Allow => DefaultAction::Deny,
        _ => DefaultAction::Audit,
    };
    let alone = PolicyConfig::default()
        .with_default(default)
        .with_rule(rule.clone());
    let decision = sent.decide(&build(&alone));
    decision.rule.as_deref() == Some(name) || decision.would_deny.as_deref() == Some(name)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    // What holds: the change turns the verdict about the call. Of all other calls, those that none of its edits is about keep
    // their verdict, and whatever changes does so in the same direction.
    #[test]
    fn the_suggested_change_turns_the_verdict_and_no_verdict_that_it_is_not_about(
        config in policy(),
        explained in sent(),
        others in prop::collection::vec(sent(), 24),
    ) {
        let before = build(&config);
        let was = explained.decide(&before).verdict;
        let change = match explained.change(&before) {
            Ok(change) => change,
            Err(why) => {
                // An intention names workloads of the own trust domain and requests, and nothing else.
                let id = explained.caller.spiffe_id.as_ref();
                let is_foreign = id.is_none_or(|id| *id.trust_domain() != own());
                let is_intended = is_foreign || explained.http.is_none();
                match why {
                    NoChange::Unauthenticated => prop_assert!(!explained.caller.is_authenticated()),
                    NoChange::Intention { .. } => prop_assert!(is_intended),
                    _ => prop_assert!(false, "{why}"),
                }
                return Ok(());
            }
        };
        prop_assert!(change.turns_to != was);
        let changed = change.apply(&config);
        let after = build(&changed);
        prop_assert_eq!(explained.decide(&after).verdict, change.turns_to, "{}", change);
        for rule in &change.rules {
            prop_assert!(changed.rules.contains(rule));
        }
        for intention in &change.intentions {
            prop_assert!(changed.intentions.contains(intention));
        }
        let widened = |rules: &[RuleConfig]| rules.iter().flat_map(|rule| &rule.from).filter(|from| *from == "*").count();
        prop_assert!(widened(&changed.rules) <= widened(&config.rules));
        for other in others {
            let (old, new) = (other.decide(&before).verdict, other.decide(&after).verdict);
            if old != new {
                prop_assert_eq!(new, change.turns_to, "{:?}: {}", other, change);
                let is_meant = change.edits.iter().any(|edit| concerns(edit, &config, &explained, &other));
                prop_assert!(is_meant, "{:?}: {}", other, change);
            }
        }
    }
}

fn web(method: &'static str, path: &'static str) -> Sent {
    let id = SpiffeId::parse("spiffe://example.org/web").unwrap();
    Sent {
        caller: Caller::new(Some(id), None),
        service: "orders",
        port: 80,
        http: Some((method, path)),
    }
}

fn allow(name: &str, from: &[&str]) -> RuleConfig {
    RuleConfig::new(name, from, "orders")
}

fn said(rules: &[RuleConfig], sent: &Sent) -> String {
    let config = rules
        .iter()
        .cloned()
        .fold(PolicyConfig::default(), PolicyConfig::with_rule);
    match sent.change(&build(&config)) {
        Ok(change) => change.to_string(),
        Err(why) => why.to_string(),
    }
}

#[test]
fn prefers_an_entry_where_little_else_comes_with_it() {
    let reads = || {
        allow("reads", &["web"])
            .with_methods(&["GET"])
            .with_paths(&["/api/*"])
    };
    assert_eq!(
        said(&[reads()], &web("POST", "/api/x")),
        "add POST to to.methods of the rule reads"
    );
    assert_eq!(
        said(&[reads()], &web("GET", "/z")),
        "add /z to to.paths of the rule reads"
    );
    let narrow = reads().with_ports(&[81]);
    assert_eq!(
        said(&[narrow], &web("GET", "/api/x")),
        "add 80 to to.ports of the rule reads"
    );
    let others = RuleConfig {
        from: vec!["report".into()],
        ..reads()
    };
    assert_eq!(
        said(&[others], &web("GET", "/api/x")),
        "add web to from of the rule reads"
    );
    let ended = reads().with_expires("2027-01-01");
    assert_eq!(
        said(&[ended], &web("GET", "/api/x")),
        "let the rule reads end 2027-01-22 instead"
    );
}

#[test]
fn prefers_a_rule_about_the_call_alone_where_an_entry_would_let_much_else_pass() {
    let wide = || allow("wide", &["report"]);
    assert_eq!(
        said(&[wide()], &web("GET", "/x")),
        "add the rule allow-web-get-orders, which is about this call alone"
    );
    let all = allow("all", &["*"]).with_methods(&["GET"]);
    assert_eq!(
        said(&[all], &web("POST", "/x")),
        "add the rule allow-web-post-orders, which is about this call alone"
    );
    let config = PolicyConfig::default().with_rule(wide());
    let change = web("GET", "/x*").change(&build(&config)).unwrap();
    let Some(Edit::AddRule(rule)) = change.edits.first() else {
        panic!("{change}");
    };
    assert_eq!(
        rule.to_yaml(),
        "name: allow-web-get-orders\nfrom: [web]\n\
         to: { service: orders, methods: [GET], paths: [\"/x%2A\"], ports: [80] }\naction: allow\n"
    );
}

#[test]
fn a_taken_name_gets_a_number() {
    let taken = allow("allow-web-get-orders", &["report"]);
    let numbered = allow("allow-web-get-orders-2", &["report"]);
    assert!(
        said(&[taken, numbered], &web("GET", "/x"))
            .starts_with("add the rule allow-web-get-orders-3,")
    );
}

#[test]
fn undoes_every_deny_and_then_allows() {
    let deny = |name: &str| {
        allow(name, &["web", "report"])
            .with_action(Action::Deny)
            .with_methods(&["GET"])
            .with_paths(&["/x"])
    };
    assert_eq!(
        said(&[deny("one"), deny("two")], &web("GET", "/x")),
        "take web out of from of the rule one, and take web out of from of the rule two, and \
         add the rule allow-web-get-orders, which is about this call alone"
    );
    let many: Vec<RuleConfig> = (0..MAX_EDITS).map(|n| deny(&format!("r{n}"))).collect();
    assert_eq!(
        said(&many, &web("GET", "/x")),
        "16 rules deny it, more than the 16 that a suggestion changes"
    );
}

#[test]
fn denies_by_the_narrowest_rule_or_by_tightening_what_is_narrower_still() {
    assert_eq!(
        said(&[allow("all", &["*"])], &web("GET", "/x")),
        "add the rule deny-web-get-orders, which is about this call alone"
    );
    let two = allow("two", &["web"])
        .with_methods(&["GET"])
        .with_paths(&["/x", "/y"]);
    assert_eq!(
        said(&[two], &web("GET", "/x")),
        "take /x out of to.paths of the rule two"
    );
}

#[test]
fn leaves_one_call_out_of_a_deny_rule_that_others_need() {
    let deny = allow("vault", &["*"])
        .with_action(Action::Deny)
        .with_paths(&["/x/*"]);
    let all = allow("all", &["*"]);
    let config = PolicyConfig::default().with_rule(deny).with_rule(all);
    let change = web("GET", "/x/y").change(&build(&config)).unwrap();
    assert_eq!(
        change.to_string(),
        "leave this one call out of the rule vault by its when"
    );
    let after = build(&change.apply(&config));
    assert!(web("GET", "/x/y").decide(&after).is_allowed());
    assert!(!web("POST", "/x/y").decide(&after).is_allowed());
    assert!(!web("GET", "/x/z").decide(&after).is_allowed());
}

#[test]
fn a_condition_that_does_not_hold_is_left_as_it_is() {
    let only = allow("only", &["web"])
        .with_paths(&["/x"])
        .with_when("has(user.subject)");
    assert!(said(&[only], &web("GET", "/x")).starts_with("add the rule allow-web-get-orders,"));
}

#[test]
fn nothing_is_suggested_for_a_caller_who_proves_nothing() {
    let nobody = Sent {
        caller: Caller::default(),
        ..web("GET", "/x")
    };
    assert!(said(&[], &nobody).contains("does not prove who it is"));
}

// threat 56
#[test]
fn what_a_credential_says_can_not_break_the_line_that_shows_it() {
    let user = User::new("i", "ada\n\u{1b}[2J\u{202e}allowed");
    let sent = Sent {
        caller: Caller::new(web("GET", "/x").caller.spiffe_id, Some(Arc::new(user))),
        ..web("GET", "/x")
    };
    let rule = allow("reads", &["web"])
        .with_users(&["subject:bob"])
        .with_methods(&["GET"])
        .with_paths(&["/x"]);
    let policy = build(&PolicyConfig::default().with_rule(rule));
    let explained = sent.ask(|query| policy.explain(query));
    let mut said = vec![explained.to_string()];
    said.extend(explained.chain.iter().map(ToString::to_string));
    said.extend(explained.change.iter().flat_map(|change| {
        let rules = change.rules.iter().map(RuleConfig::to_yaml);
        rules.chain([change.to_string()]).collect::<Vec<_>>()
    }));
    for text in said {
        let is_bad = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(
            !text.contains(is_bad) && !text.contains("ada\n"),
            "{text:?}"
        );
    }
}
