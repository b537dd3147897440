//! What an operator, or somebody in their name, may write into a policy: nothing that stops a node or takes it long.

use std::str;
use std::sync::Arc;

use http::Request;
use mesh_auth::caller::Caller;
use mesh_auth::caller::User;
use mesh_auth::policy::Action;
use mesh_auth::policy::Policy;
use mesh_auth::policy::PolicyConfig;
use mesh_auth::policy::Query;
use mesh_auth::policy::RuleConfig;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;

/// A rule in lines: caller, user, service, method, path, end. What builds decides and explains the same, and what an
/// allow rule lets pass, a deny rule of the same text stops.
pub fn policy(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (from, user, service) = (line(), line(), line());
    let (method, path, end) = (line(), line(), line());
    let mut rule = RuleConfig::new("rule", &[from], service);
    if !user.is_empty() {
        rule = rule.with_users(&[user]);
    }
    if !method.is_empty() {
        rule = rule.with_methods(&[method]);
    }
    if !path.is_empty() {
        rule = rule.with_paths(&[path]);
    }
    if !end.is_empty() {
        rule = rule.with_expires(end);
    }
    decide(&rule);
}

/// The text of a condition.
pub fn condition(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        decide(&RuleConfig::new("rule", &["*"], "orders").with_when(text));
    }
}

fn decide(rule: &RuleConfig) {
    let own = TrustDomain::parse("example.org").expect("a trust domain");
    let build = |rules: [RuleConfig; 2]| {
        let config = rules
            .into_iter()
            .fold(PolicyConfig::default(), PolicyConfig::with_rule);
        Policy::build(&config, &own)
    };
    let open = RuleConfig::new("open", &["*"], "*");
    let elsewhere = RuleConfig::new("elsewhere", &["*"], "elsewhere");
    let forbidden = rule.clone().with_action(Action::Deny);
    // A rule about anonymous callers can only allow.
    let (Ok(allows), Ok(denies)) = (build([elsewhere, rule.clone()]), build([open, forbidden]))
    else {
        return;
    };
    let user = User::new("https://login.example.org", "ada")
        .with_groups(&["shop", "garden"])
        .with_claim("level", 3);
    let id = SpiffeId::parse("spiffe://example.org/shop").expect("an id");
    let caller = Caller::new(Some(id), Some(Arc::new(user)));
    for path in ["/", "/a/b%3Ac/", "/x.json"] {
        let request = Request::get(path)
            .header("host", "orders")
            .header("x-a", "a")
            .header("x-a", "b");
        let parts = request.body(()).expect("a request").into_parts().0;
        let request =
            CanonicalRequest::new(parts, &Limits::default()).expect("a canonical request");
        let query = Query::new(&caller, "orders", 1_800_000_000)
            .with_port(80)
            .with_request(&request);
        let decision = allows.decide(&query);
        assert_eq!(allows.explain(&query).decision, decision, "{rule:?}");
        if decision.is_allowed() {
            assert!(!denies.decide(&query).is_allowed(), "{rule:?}");
        }
    }
}
