//! A diff has every change and no other.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::caller::{Caller, User};
use crate::policy::{Action, DefaultAction, Needs, Policy, PolicyConfig, Query, RuleConfig};
use crate::request::{CanonicalRequest, Limits};
use crate::spiffe::{SpiffeId, TrustDomain};

fn policy() -> impl Strategy<Value = Policy> {
    let rule = (
        select(vec!["*", "web", "claim:tenant=acme"]),
        subsequence(vec!["GET", "POST"], 0..2),
        subsequence(vec!["/x", "/x/*"], 0..2),
        select(vec![Action::Allow, Action::Allow, Action::Deny]),
    );
    let default = select(vec![DefaultAction::Deny, DefaultAction::Audit]);
    (prop::collection::vec(rule, 0..5), default).prop_map(|(rules, default)| {
        let mut config = PolicyConfig::default().with_default(default);
        for ((from, methods, paths, action), number) in rules.into_iter().zip(0..) {
            let rule = RuleConfig::new(&format!("r{number}"), &[from], "orders");
            config = config.with_rule(
                rule.with_methods(&methods)
                    .with_paths(&paths)
                    .with_action(action),
            );
        }
        Policy::build(&config, &TrustDomain::parse("example.org").unwrap()).unwrap()
    })
}

/// A call, and whether the claim that rules read was recorded.
fn call() -> impl Strategy<Value = (Caller, CanonicalRequest, bool)> {
    (
        select(vec!["web", "report"]),
        proptest::option::of(select(vec!["acme", "globex"])),
        select(vec!["GET", "POST"]),
        select(vec!["/x", "/x/y", "/z"]),
        any::<bool>(),
    )
        .prop_map(|(id, tenant, method, path, is_recorded)| {
            let id = SpiffeId::parse(&format!("spiffe://example.org/{id}")).unwrap();
            let user =
                tenant.map(|tenant| User::new("i", "ada").with_claim("tenant", tenant).into());
            let request = http::Request::builder()
                .method(method)
                .uri(path)
                .header("host", "h");
            let parts = request.body(()).unwrap().into_parts().0;
            let request = CanonicalRequest::new(parts, &Limits::default()).unwrap();
            (Caller::new(Some(id), user), request, is_recorded)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn lists_every_call_whose_verdict_differs_and_no_other(
        before in policy(),
        after in policy(),
        calls in prop::collection::vec(call(), 0..16),
    ) {
        let needs = before.needs().clone().and(after.needs());
        let (mut facts, mut expected, mut unknown) = (Vec::new(), Vec::new(), 0);
        for ((caller, request, is_recorded), number) in calls.iter().zip(0..) {
            let query = Query::new(caller, "orders", 1_800_000_000).with_request(request);
            let needs = if *is_recorded { &needs } else { &Needs::default() };
            let recorded = Facts::of(&format!("{number}"), &query, needs);
            let is_open = [&before, &after].iter().any(|policy| {
                matches!(recorded.decide(policy), Replayed::Undecidable { .. })
            });
            prop_assert!(!is_open || !is_recorded);
            if is_open {
                unknown += 1;
            } else if before.decide(&query).verdict != after.decide(&query).verdict {
                expected.push(recorded.decision.clone());
            }
            facts.push(recorded);
        }
        let found = diff(&before, &after, &facts);
        let listed: Vec<_> = found.differences.iter().map(|difference| difference.facts.decision.clone()).collect();
        prop_assert_eq!(listed, expected);
        prop_assert_eq!(found.undecidable, unknown);
        prop_assert_eq!(found.compared + unknown, u64::try_from(facts.len()).unwrap());
        prop_assert_eq!(diff(&before, &before, &facts).differences, []);
    }
}
