//! The examples of `envoyproxy/ratelimit`'s README, and what rules can't be.

use super::*;
use crate::limit::rls::Code;
use crate::limit::rls::Entry;

fn rate(requests: u32, unit: Unit) -> RateConfig {
    RateConfig::new(requests, unit)
}

fn rules(domain: &str, descriptors: Vec<DescriptorConfig>) -> Rules {
    Rules::new(&[DomainConfig::new(domain, descriptors)]).unwrap()
}

fn descriptor(entries: &[(&str, &str)]) -> Descriptor {
    Descriptor::new(
        entries
            .iter()
            .map(|(key, value)| Entry::new(*key, *value))
            .collect(),
    )
}

/// What the rule for these entries allows.
fn found(rules: &Rules, domain: &str, entries: &[(&str, &str)]) -> Option<(u32, Unit)> {
    rules.find(domain, &descriptor(entries))?.limit
}

/// Example 2.
fn messaging() -> Rules {
    let per_number =
        |requests| DescriptorConfig::new("to_number").with_limit(rate(requests, Unit::Day));
    rules(
        "messaging",
        vec![
            DescriptorConfig::new("message_type")
                .with_value("marketing")
                .with_descriptors(vec![per_number(5)]),
            per_number(100),
        ],
    )
}

#[test]
fn a_value_has_its_own_limit_and_others_have_none() {
    let database = |value| {
        DescriptorConfig::new("database")
            .with_value(value)
            .with_limit(rate(500, Unit::Second))
    };
    let rules = rules("mongo_cps", vec![database("users"), database("default")]);
    let expected = Some((500, Unit::Second));
    assert_eq!(
        found(&rules, "mongo_cps", &[("database", "users")]),
        expected
    );
    assert_eq!(found(&rules, "mongo_cps", &[("database", "other")]), None);
    assert_eq!(found(&rules, "mongo_cps", &[("Database", "users")]), None);
    assert_eq!(found(&rules, "another", &[("database", "users")]), None);
}

#[test]
fn entries_without_a_value_match_any_and_nested_ones_match_in_order() {
    let rules = messaging();
    let find = |entries: &[(&str, &str)]| found(&rules, "messaging", entries);
    let (marketing, number) = (("message_type", "marketing"), ("to_number", "2061111111"));
    assert_eq!(find(&[marketing, number]), Some((5, Unit::Day)));
    assert_eq!(find(&[number]), Some((100, Unit::Day)));
    assert_eq!(find(&[number, marketing]), None);
    assert_eq!(find(&[marketing]), None);
    assert_eq!(find(&[("message_type", "other"), number]), None);
    let rule = rules.find("messaging", &descriptor(&[marketing, number]));
    assert_eq!(
        &*rule.unwrap().label,
        "messaging.message_type_marketing.to_number"
    );
}

#[test]
fn the_very_value_matches_before_one_that_begins_so_and_that_before_any() {
    let remote = |value: &str, requests| {
        let config =
            DescriptorConfig::new("remote_address").with_limit(rate(requests, Unit::Second));
        if value.is_empty() {
            config
        } else {
            config.with_value(value)
        }
    };
    let rules = rules(
        "edge",
        vec![
            remote("", 10),
            remote("50.0.*", 5),
            remote("50.0.0.*", 6),
            remote("50.0.0.5", 0),
        ],
    );
    let find = |value| found(&rules, "edge", &[("remote_address", value)]);
    assert_eq!(find("50.0.0.5"), Some((0, Unit::Second)));
    assert_eq!(
        find("50.0.0.51"),
        Some((5, Unit::Second)),
        "the first in the file"
    );
    assert_eq!(find("50.0.1.1"), Some((5, Unit::Second)));
    assert_eq!(find("51.0.0.5"), Some((10, Unit::Second)));
    assert_eq!(find(""), Some((10, Unit::Second)));
}

#[test]
fn as_many_entries_must_be_asked_about_as_the_rule_is_deep() {
    let limit = rate(300, Unit::Second);
    let top = DescriptorConfig::new("key").with_value("value");
    let shallow = rules("example4", vec![top.clone().with_limit(limit.clone())]);
    let asked = [("key", "value"), ("subkey", "subvalue")];
    assert_eq!(found(&shallow, "example4", &asked), None);
    let sub = DescriptorConfig::new("subkey").with_limit(limit);
    let deep = rules("example4", vec![top.with_descriptors(vec![sub])]);
    assert_eq!(found(&deep, "example4", &asked), Some((300, Unit::Second)));
}

#[test]
fn there_is_no_way_back_from_an_entry_that_matched() {
    let below = vec![DescriptorConfig::new("b").with_limit(rate(1, Unit::Day))];
    let rules = rules(
        "d",
        vec![
            DescriptorConfig::new("a").with_descriptors(below),
            DescriptorConfig::new("a").with_value("x"),
        ],
    );
    assert_eq!(
        found(&rules, "d", &[("a", "y"), ("b", "")]),
        Some((1, Unit::Day))
    );
    assert_eq!(found(&rules, "d", &[("a", "x"), ("b", "")]), None);
}

#[test]
fn no_limit_is_a_rule_of_its_own() {
    let ldap = DescriptorConfig::new("ldap").with_limit(RateConfig::unlimited());
    let rules = rules("internal", vec![ldap]);
    let question = Question::new(
        "internal",
        vec![descriptor(&[("ldap", "1")]), descriptor(&[("azure", "1")])],
    );
    let steps = rules.plan(&question);
    let statuses: Vec<_> = steps.iter().map(|step| step.status(None)).collect();
    assert_eq!(
        (statuses[0].code, statuses[0].remaining),
        (Code::Ok, u32::MAX)
    );
    assert_eq!((statuses[1].code, statuses[1].remaining), (Code::Ok, 0));
    assert!(steps.iter().all(|step| step.count.is_none()));
}

#[test]
fn a_limit_that_is_replaced_in_the_same_question_does_not_count() {
    let user = |limit| {
        vec![
            DescriptorConfig::new("user")
                .with_value("bkthomps")
                .with_limit(limit),
        ]
    };
    let key = |key: &str, value: &str, limit| {
        DescriptorConfig::new(key)
            .with_value(value)
            .with_descriptors(user(limit))
    };
    let five = rate(5, Unit::Second).with_name("specific_limit");
    let ten = rate(10, Unit::Second).replacing("specific_limit");
    let rules = rules(
        "example7",
        vec![key("key_1", "value_1", five), key("key_2", "value_2", ten)],
    );
    let of = |asked: &[(&str, &str)]| {
        let descriptors = asked
            .iter()
            .map(|entry| descriptor(&[*entry, ("user", "bkthomps")]));
        let question = Question::new("example7", descriptors.collect());
        rules
            .plan(&question)
            .iter()
            .map(|step| step.count)
            .collect::<Vec<_>>()
    };
    let (one, two) = (("key_1", "value_1"), ("key_2", "value_2"));
    assert_eq!(of(&[one]), [Some((5, Unit::Second))]);
    assert_eq!(of(&[two]), [Some((10, Unit::Second))]);
    assert_eq!(of(&[one, two]), [None, Some((10, Unit::Second))]);
}

#[test]
fn a_limit_that_comes_with_a_descriptor_stands_above_the_rules_of_a_known_domain() {
    let rules = messaging();
    let mut own = descriptor(&[("to_number", "1")]);
    own.limit = Some((7, Unit::Hour));
    own.hits = Some(0);
    for (domain, expected) in [("messaging", Some((7, Unit::Hour))), ("another", None)] {
        let question = Question::new(domain, vec![own.clone()]).with_hits(3);
        let steps = rules.plan(&question);
        assert_eq!((steps[0].count, steps[0].hits), (expected, 0), "{domain}");
    }
}

#[test]
fn entries_are_not_run_together() {
    let a = DescriptorConfig::new("a").with_value("b_c");
    let rules = rules("d", vec![a.with_limit(rate(1, Unit::Hour))]);
    assert_eq!(found(&rules, "d", &[("a", "b_c")]), Some((1, Unit::Hour)));
    assert_eq!(found(&rules, "d", &[("a_b", "c")]), None);
}

#[test]
fn what_no_rule_can_be_is_named_with_its_place() {
    let one = || DescriptorConfig::new("k").with_limit(rate(1, Unit::Day));
    let mut deep = one();
    for _ in 0..MAX_DEPTH {
        deep = DescriptorConfig::new("k").with_descriptors(vec![deep]);
    }
    let mut no_unit = rate(1, Unit::Day);
    no_unit.unit = None;
    let mut both = RateConfig::unlimited();
    both.unit = Some(Unit::Day);
    let limit = |limit| vec![DescriptorConfig::new("k").with_limit(limit)];
    let cases = [
        (
            vec![one(), DescriptorConfig::new("")],
            "descriptors[1].key must not be empty",
        ),
        (
            vec![one(), one()],
            "descriptors[1].key is there already; each must be there once",
        ),
        (
            vec![one().with_value("v*"), one().with_value("v*")],
            "descriptors[1].value is there already; each must be there once",
        ),
        (
            limit(no_unit),
            "descriptors[0].rate_limit.unit is missing; a limit needs unit and requests_per_unit, or unlimited: true",
        ),
        (
            limit(both),
            "descriptors[0].rate_limit.unit has no meaning with unlimited: true",
        ),
        (
            limit(rate(6_000_001, Unit::Day)),
            "descriptors[0].rate_limit.requests_per_unit is more than 6000000; make the unit smaller, or say unlimited: true",
        ),
        (
            limit(rate(1, Unit::Day).with_name("n").replacing("n")),
            "descriptors[0].rate_limit.replaces[0].name is the name of this limit itself",
        ),
    ];
    for (descriptors, expected) in cases {
        let error = Rules::new(&[DomainConfig::new("d", descriptors)]).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let error = Rules::new(&[DomainConfig::new("d", vec![deep])]).unwrap_err();
    assert_eq!(error.reason, Reason::TooDeep { max: MAX_DEPTH });
    let twice = [
        DomainConfig::new("d", vec![]),
        DomainConfig::new("d", vec![]),
    ];
    let error = Rules::new(&twice).unwrap_err();
    assert_eq!(
        (error.domain, &*error.key, error.reason),
        (1, "domain", Reason::Duplicate)
    );
}
