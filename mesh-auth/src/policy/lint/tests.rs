//! What is found, and that what covers a rule really does.

use http::Request;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::caller::Caller;
use crate::policy::{Policy, Query, RuleConfig};
use crate::request::{CanonicalRequest, Limits};
use crate::spiffe::SpiffeId;

const NOW: u64 = 1_800_000_000;

fn own() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn surroundings() -> Surroundings {
    Surroundings::new(&own(), NOW)
        .with_federated(&TrustDomain::parse("partner.org").unwrap())
        .with_service("shop", KnownService::http(&[80]))
        .with_service("orders", KnownService::http(&[80, 81]))
        .with_service("postgres", KnownService::tcp(&[5432]))
}

fn rule(name: &str, from: &str, service: &str) -> RuleConfig {
    RuleConfig::new(name, &[from], service).with_owner("team")
}

fn narrow(name: &str) -> RuleConfig {
    rule(name, "shop", "orders")
        .with_methods(&["GET"])
        .with_paths(&["/api/list"])
}

fn found(
    rules: &[RuleConfig],
    surroundings: &Surroundings,
) -> Vec<(String, FindingKind, Severity)> {
    let config = rules
        .iter()
        .cloned()
        .fold(PolicyConfig::default(), PolicyConfig::with_rule);
    let findings = lint(&config, surroundings);
    findings
        .into_iter()
        .map(|finding| (finding.rule, finding.kind, finding.severity))
        .collect()
}

fn of_one(rule: RuleConfig) -> Vec<(FindingKind, Severity)> {
    found(&[rule], &surroundings())
        .into_iter()
        .map(|(_, kind, severity)| (kind, severity))
        .collect()
}

use FindingKind as Kind;
use Severity::{Error, Note, Warning};

#[test]
fn a_narrow_rule_of_known_parties_is_fine() {
    assert_eq!(of_one(narrow("r")), []);
    assert_eq!(
        of_one(rule("r", "shop", "postgres").with_ports(&[5432])),
        []
    );
    assert_eq!(of_one(rule("r", "*", "*").with_action(Action::Deny)), []);
}

#[test]
fn finds_who_can_not_exist() {
    let nobody = [(Kind::MatchesNobody, Error)];
    let from = |from: &[&str]| {
        let mut rule = narrow("r");
        rule.from = from.iter().map(|&from| from.to_owned()).collect();
        of_one(rule)
    };
    assert_eq!(from(&["stock"]), nobody);
    assert_eq!(from(&["spiffe://stranger.org/*"]), nobody);
    assert_eq!(from(&["spiffe://stranger.org/team/*"]), nobody);
    assert_eq!(from(&["spiffe://stranger.org/shop"]), nobody);
    assert_eq!(from(&["group:admin"]), nobody);
    assert_eq!(from(&["shop", "stock"]), [(Kind::MatchesNobody, Warning)]);
    assert_eq!(
        from(&["spiffe://partner.org/anything", "spiffe://partner.org/*"]),
        []
    );
    assert_eq!(of_one(narrow("r").with_users(&["*"])), nobody);
    let with = surroundings().with_credentials(true);
    assert_eq!(found(&[narrow("r").with_users(&["*"])], &with), []);
}

#[test]
fn finds_what_can_not_be_enforced() {
    assert_eq!(
        of_one(narrow("r").with_ports(&[82])),
        [(Kind::Unenforceable, Error)]
    );
    assert_eq!(
        of_one(narrow("r").with_ports(&[80, 82])),
        [(Kind::Unenforceable, Warning)]
    );
    let mut unknown = narrow("r");
    unknown.to.service = "stock".to_owned();
    assert_eq!(of_one(unknown), [(Kind::UnknownService, Error)]);
    let tcp = rule("r", "shop", "postgres");
    for rule in [
        tcp.clone().with_methods(&["GET"]),
        tcp.clone().with_paths(&["/x"]),
        tcp.clone().with_when("request.path == '/x'"),
    ] {
        assert_eq!(of_one(rule.clone()), [(Kind::Unenforceable, Error)]);
        assert_eq!(
            of_one(rule.with_action(Action::Deny)),
            [(Kind::Unenforceable, Warning)]
        );
    }
    assert_eq!(of_one(tcp.with_when("destination.port == 5432")), []);
}

#[test]
fn finds_what_is_wide_and_for_ever() {
    assert_eq!(
        of_one(rule("r", "*", "orders").with_methods(&["GET"])),
        [(Kind::Wide, Warning)]
    );
    assert_eq!(
        of_one(rule("r", "shop", "*").with_methods(&["GET"])),
        [(Kind::Wide, Warning)]
    );
    assert_eq!(of_one(rule("r", "shop", "orders")), [(Kind::Wide, Note)]);
    assert_eq!(of_one(rule("r", "*", "*").with_expires("2027-12-31")), []);
}

#[test]
fn finds_what_ends_and_whom_nobody_answers_for() {
    assert_eq!(
        of_one(narrow("r").with_expires("2027-01-14")),
        [(Kind::Expired, Warning)]
    );
    assert_eq!(
        of_one(narrow("r").with_expires("2027-01-28")),
        [(Kind::Expiring, Warning)]
    );
    assert_eq!(of_one(narrow("r").with_expires("2027-01-30")), []);
    let mut lonely = narrow("r");
    lonely.owner = None;
    assert_eq!(of_one(lonely), [(Kind::NoOwner, Note)]);
}

#[test]
fn finds_rules_that_others_make_superfluous() {
    let find = |rules: &[RuleConfig]| -> Vec<(String, FindingKind)> {
        let shadowed = |kind: &FindingKind| matches!(kind, Kind::Redundant | Kind::Dead);
        let all = found(rules, &surroundings()).into_iter();
        all.map(|(rule, kind, _)| (rule, kind))
            .filter(|(_, kind)| shadowed(kind))
            .collect()
    };
    let redundant = vec![("narrow".to_owned(), Kind::Redundant)];
    let below = narrow("wide").with_paths(&["/api/*"]);
    assert_eq!(find(&[below.clone(), narrow("narrow")]), redundant);
    assert_eq!(find(&[narrow("narrow"), below.clone()]), redundant);
    assert_eq!(find(&[narrow("same"), narrow("narrow")]), redundant);
    assert_eq!(find(&[rule("wide", "*", "*"), narrow("narrow")]), redundant);
    let dead = vec![("narrow".to_owned(), Kind::Dead)];
    let deny = below.clone().with_action(Action::Deny);
    assert_eq!(find(&[narrow("narrow"), deny.clone()]), dead);
    assert_eq!(
        find(&[narrow("narrow").with_action(Action::Audit), deny.clone()]),
        dead
    );
    assert_eq!(
        find(&[narrow("narrow").with_action(Action::Deny), below.clone()]),
        []
    );
    for other in [
        deny.clone().with_methods(&["PUT"]),
        deny.clone().with_ports(&[80]),
        deny.clone().with_users(&["*"]),
        deny.clone().with_when("now > 0"),
        deny.clone().with_expires("2027-06-01"),
        deny.with_paths(&["/api"]),
    ] {
        assert_eq!(find(&[narrow("narrow"), other]), []);
    }
    let message = lint(
        &PolicyConfig::default()
            .with_rule(below)
            .with_rule(narrow("narrow")),
        &surroundings(),
    );
    assert_eq!(
        message.first().unwrap().to_string(),
        "warning: rule narrow: the rule wide covers it: without it nothing would change"
    );
}

fn any_rule() -> impl Strategy<Value = RuleConfig> {
    (
        subsequence(
            vec![
                "*",
                "shop",
                "spiffe://example.org",
                "spiffe://example.org/team/*",
                "team/a",
            ],
            1..3,
        ),
        select(vec!["orders", "*"]),
        subsequence(vec!["GET", "PUT"], 0..2),
        subsequence(
            vec!["/a", "/a/", "/a/*", "/*", "*b", "*/b", "/{x}", "/a/{x}"],
            0..3,
        ),
        subsequence(vec![80_u16, 81], 0..2),
        select(vec![Action::Allow, Action::Deny, Action::Audit]),
    )
        .prop_map(|(from, service, methods, paths, ports, action)| {
            RuleConfig::new("", &from, service)
                .with_methods(&methods)
                .with_paths(&paths)
                .with_ports(&ports)
                .with_action(action)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn without_a_rule_that_is_superfluous_no_verdict_changes(
        rules in prop::collection::vec(any_rule(), 1..6),
        id in select(vec!["shop", "stock", "team/a", "team/b"]),
        http in proptest::option::of((select(vec!["GET", "PUT"]), select(vec!["/", "/a", "/a/", "/a/b", "/b", "/c"]))),
        port in select(vec![80_u16, 81]),
    ) {
        let name = |(n, rule): (usize, RuleConfig)| RuleConfig { name: format!("r{n}"), ..rule };
        let rules: Vec<RuleConfig> = rules.into_iter().enumerate().map(name).collect();
        let config = rules.iter().cloned().fold(PolicyConfig::default(), PolicyConfig::with_rule);
        let caller = Caller::new(Some(SpiffeId::parse(&format!("spiffe://example.org/{id}")).unwrap()), None);
        let request = http.map(|(method, path)| {
            let parts = Request::builder().method(method).uri(path).header("host", "orders").body(()).unwrap();
            CanonicalRequest::new(parts.into_parts().0, &Limits::default()).unwrap()
        });
        let verdict = |config: &PolicyConfig| {
            let query = Query::new(&caller, "orders", NOW).with_port(port);
            let query = request.as_ref().map_or(query, |request| query.with_request(request));
            let decision = Policy::build(config, &own()).unwrap().decide(&query);
            (decision.verdict, decision.would_deny.is_some())
        };
        for finding in lint(&config, &Surroundings::new(&own(), NOW)) {
            if matches!(finding.kind, Kind::Redundant | Kind::Dead) {
                let mut without = config.clone();
                without.rules.retain(|rule| rule.name != finding.rule);
                prop_assert_eq!(verdict(&without), verdict(&config), "{}", finding);
            }
        }
    }
}
