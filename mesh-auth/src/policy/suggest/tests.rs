//! Drafts allow what was seen, and what differs from it in ids and users of the same issuer alone.

use std::sync::Arc;

use http::Request as HttpRequest;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::caller::{Caller as Who, User};
use crate::policy::{Decision, DefaultAction, Facts, Needs, Policy, PolicyConfig, Query, Replayed};
use crate::request::{CanonicalRequest, Limits};
use crate::spiffe::SpiffeId;

const DAY: u64 = 86_400;
const NOW: u64 = 20_833 * DAY;

fn own() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

#[derive(Clone, Debug, PartialEq)]
struct Sent {
    id: Option<&'static str>,
    user: Option<(&'static str, &'static str)>,
    port: u16,
    http: Option<(&'static str, &'static str)>,
}

impl Sent {
    fn facts(&self, at: u64) -> Facts {
        let user = self
            .user
            .map(|(issuer, subject)| Arc::new(User::new(issuer, subject)));
        let caller = Who::new(self.id.map(|id| SpiffeId::parse(id).unwrap()), user);
        let query = Query::new(&caller, "orders", at).with_port(self.port);
        let request = self.http.map(|(method, path)| {
            let request = HttpRequest::builder()
                .method(method)
                .uri(path)
                .header("host", "h");
            let parts = request.body(()).unwrap().into_parts().0;
            CanonicalRequest::new(parts, &Limits::default()).unwrap()
        });
        match &request {
            Some(request) => Facts::of("1", &query.with_request(request), &Needs::default()),
            None => Facts::of("1", &query, &Needs::default()),
        }
    }

    /// What is left once the parts that a draft folds are out of sight.
    fn folded(&self) -> Self {
        Self {
            user: self.user.map(|(issuer, _)| (issuer, "")),
            http: self.http.map(|(method, path)| {
                let path = match path {
                    "/users/1" | "/users/2" => "/users/{id}",
                    "/users/1/x" | "/users/2/x" => "/users/{id}/x",
                    path => path,
                };
                (method, path)
            }),
            ..self.clone()
        }
    }

    /// Whether a rule drawn from `seen` may be about this call: what was seen without a user or a request asks for none.
    fn is_like(&self, seen: &Self) -> bool {
        let (own, seen) = (self.folded(), seen.folded());
        (seen.id.is_none() || own.id == seen.id)
            && (seen.user.is_none() || own.user == seen.user)
            && (seen.port == 0 || own.port == seen.port)
            && (seen.http.is_none() || own.http == seen.http)
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    let ids = vec![
        None,
        Some("spiffe://example.org/web"),
        Some("spiffe://example.org/anonymous"),
        Some("spiffe://other.org/web"),
    ];
    let users = vec![
        None,
        Some(("i", "ada")),
        Some(("i", "bob")),
        Some(("j", "ada")),
    ];
    let paths = vec![
        "/users/1",
        "/users/2",
        "/users/1/x",
        "/users/2/x",
        "/a*",
        "/",
        "/a%20b/",
    ];
    let http = (select(vec!["GET", "POST"]), select(paths));
    (
        select(ids),
        select(users),
        select(vec![0_u16, 80, 81]),
        proptest::option::weighted(0.9, http),
    )
        .prop_map(|(id, user, port, http)| Sent {
            id,
            user,
            port,
            http,
        })
}

fn recorded(sent: &Sent, at: u64, verdict: Verdict, rule: Option<&str>) -> Recorded {
    let decision = Decision {
        verdict,
        rule: rule.map(Into::into),
        would_deny: None,
    };
    Recorded::new(sent.facts(at), &decision)
}

fn policy(drafts: &[Draft]) -> Policy {
    let rules = drafts.iter().map(|draft| draft.rule.clone());
    let config = PolicyConfig::default().with_default(DefaultAction::Deny);
    Policy::build(&rules.fold(config, PolicyConfig::with_rule), &own()).unwrap()
}

fn is_allowed(policy: &Policy, sent: &Sent) -> bool {
    match sent.facts(NOW).decide(policy) {
        Replayed::Decided(decision) => decision.is_allowed(),
        Replayed::Undecidable { missing } => panic!("{missing:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn drafts_allow_exactly_what_they_were_drawn_from_but_for_ids_and_users(
        seen in prop::collection::vec(sent(), 0..12),
        others in prop::collection::vec(sent(), 24),
    ) {
        let mut drafter = Drafter::new(&own());
        let mut backwards = Drafter::new(&own());
        for (sent, at) in seen.iter().zip(0..12) {
            drafter.add(&recorded(sent, NOW + at * DAY, Verdict::Allow, Some("r")));
        }
        for (sent, at) in seen.iter().zip(0..12).collect::<Vec<_>>().into_iter().rev() {
            backwards.add(&recorded(sent, NOW + at * DAY, Verdict::Allow, Some("r")));
        }
        let drafts = drafter.drafts();
        prop_assert_eq!(&drafts, &backwards.drafts());
        let policy = policy(&drafts);
        let seen: Vec<Sent> = seen.into_iter().filter(|sent| sent.id.is_some() || sent.user.is_some()).collect();
        for sent in &seen {
            prop_assert!(is_allowed(&policy, sent), "{:?}", sent);
        }
        let counted: u64 = drafts.iter().map(|draft| draft.seen.calls).sum();
        prop_assert_eq!(counted, u64::try_from(seen.len()).unwrap());
        for other in others {
            if is_allowed(&policy, &other) {
                prop_assert!(seen.iter().any(|seen| other.is_like(seen)), "{:?}", other);
            }
        }
    }
}

fn web(method: &'static str, path: &'static str) -> Sent {
    Sent {
        id: Some("spiffe://example.org/web"),
        user: None,
        port: 0,
        http: Some((method, path)),
    }
}

#[test]
fn a_draft_says_what_it_was_drawn_from() {
    let mut drafter = Drafter::new(&own());
    for (day, path) in [(3, "/users/1"), (0, "/users/2"), (1, "/users/2")] {
        let at = NOW + day * DAY;
        drafter.add(&recorded(&web("GET", path), at, Verdict::Deny, None));
        drafter.add(&recorded(&web("PUT", path), at, Verdict::Allow, Some("r")));
    }
    let drafts = drafter.drafts();
    let [draft] = &*drafts else {
        panic!("{drafts:?}")
    };
    assert_eq!(
        draft.rule.to_yaml(),
        "name: web-get-put-orders\nfrom: [web]\n\
         to: { service: orders, methods: [GET, PUT], paths: [\"/users/{id}\"] }\naction: allow\n\
         reason: \"6 call(s) seen from 2027-01-15 to 2027-01-18, 3 of them denied by default\"\n"
    );
}

#[test]
fn what_a_deny_rule_refused_and_who_proves_nothing_is_counted_and_not_drafted() {
    let mut drafter = Drafter::new(&own());
    drafter.add(&recorded(&web("GET", "/"), NOW, Verdict::Deny, Some("no")));
    let nobody = Sent {
        id: None,
        ..web("GET", "/")
    };
    drafter.add(&recorded(&nobody, NOW, Verdict::Deny, None));
    assert_eq!(drafter.drafts(), []);
    assert_eq!((drafter.refused(), drafter.unauthenticated()), (1, 1));
}

#[test]
fn names_are_unique() {
    let mut drafter = Drafter::new(&own());
    for port in [1, 2, 3] {
        let sent = Sent {
            port,
            ..web("GET", "/")
        };
        drafter.add(&recorded(&sent, NOW, Verdict::Allow, None));
    }
    let names: Vec<String> = drafter
        .drafts()
        .into_iter()
        .map(|draft| draft.rule.name)
        .collect();
    assert_eq!(
        names,
        ["web-get-orders", "web-get-orders.2", "web-get-orders.3"]
    );
}
