//! Policies of every shape that could make a decision slow, and for each the calls that are the worst for it.

use std::sync::Arc;

use http::Request;
use mesh_auth::caller::Caller;
use mesh_auth::caller::User;
use mesh_auth::policy::Action;
use mesh_auth::policy::PolicyConfig;
use mesh_auth::policy::RuleConfig;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;

/// The service that is called in every shape.
pub const SERVICE: &str = "order-service";

/// The time of every call.
pub const NOW: u64 = 1_800_000_000;

/// A policy, and calls to decide about.
#[derive(Debug)]
#[non_exhaustive]
pub struct Shape {
    /// What is many in it.
    pub name: &'static str,
    /// The rules.
    pub policy: PolicyConfig,
    /// Calls, each with what it is and whether it is allowed.
    pub calls: Vec<Call>,
}

/// A call.
#[derive(Debug)]
#[non_exhaustive]
pub struct Call {
    /// `allow`, or why it is denied.
    pub name: &'static str,
    /// Whether it is allowed.
    pub is_allowed: bool,
    /// Who calls.
    pub caller: Caller,
    /// The port.
    pub port: u16,
    /// The request.
    pub request: CanonicalRequest,
}

/// Every shape, with `rules` rules each.
///
/// # Panics
/// Where one of them is not what it says, which is a mistake in here.
#[must_use]
pub fn shapes(rules: usize) -> Vec<Shape> {
    let last = rules - 1;
    let path = |name, path: String| {
        let pattern = move |n: usize| path.replace('#', &n.to_string());
        let allowed = pattern(last).replace("{id}", "42").replace('*', "/x/y");
        let shape = shape(name, rules, |n, rule| rule.with_paths(&[&pattern(n)]));
        let longer = format!("{allowed}/and/more");
        shape
            .call("allow", caller(0), "GET", &allowed)
            .call("miss", caller(0), "GET", "/internal/metrics")
            .call("near_miss", caller(0), "GET", &longer)
    };
    vec![
        shape("callers", rules, |n, rule| {
            by(&format!("caller-{n}"), rule).with_paths(&["/api/*"])
        })
        .call("allow", caller(last), "GET", "/api/orders/42")
        .call("miss", caller(last), "GET", "/internal/metrics"),
        path("paths_exact", "/api/v1/area-#/list".to_owned()),
        path("paths_template", "/api/v1/{id}/area-#".to_owned()),
        path("paths_suffix", "*/area-#.json".to_owned()),
        mixed_paths(rules),
        methods_and_ports(rules),
        credentials("groups", rules, |n| format!("group:team-{n}")),
        credentials("roles", rules, |n| format!("role:team-{n}")),
        credentials("claims", rules, |n| format!("claim:team=team-{n}")),
        deny_heavy(rules),
        crossed(rules),
        ended(rules),
    ]
}

/// A quarter each of exact paths, prefixes, templates and suffixes.
fn mixed_paths(rules: usize) -> Shape {
    let pattern = |n: usize| match n % 4 {
        0 => format!("/api/v1/area-{n}"),
        1 => format!("/api/v1/area-{n}/*"),
        2 => format!("/api/{{version}}/area-{n}/{{id}}"),
        _ => format!("*/area-{n}.json"),
    };
    shape("paths_mixed", rules, |n, rule| {
        rule.with_paths(&[&pattern(n)])
    })
    .call("allow_exact", caller(0), "GET", "/api/v1/area-4")
    .call("allow_prefix", caller(0), "GET", "/api/v1/area-5/x%3Ay/z")
    .call("allow_template", caller(0), "GET", "/api/v9/area-6/42")
    .call(
        "allow_suffix",
        caller(0),
        "GET",
        "/reports/2027/area-7.json",
    )
    .call("miss", caller(0), "GET", "/api/v1/area-x/42/and/more")
}

/// One caller, one path; each rule has another method or port.
fn methods_and_ports(rules: usize) -> Shape {
    let port = |n: usize| u16::try_from(1 + n / 2).unwrap_or(1);
    let method = |n: usize| if n.is_multiple_of(2) { "GET" } else { "POST" };
    let mut shape = shape("methods_ports", rules, |n, rule| {
        rule.with_methods(&[method(n)]).with_ports(&[port(n)])
    })
    .call("allow", caller(0), "POST", "/api/orders")
    .call("miss_method", caller(0), "PUT", "/api/orders")
    .call("miss_port", caller(0), "POST", "/api/orders");
    let last = port(rules - 1);
    for call in &mut shape.calls {
        call.port = if call.name == "miss_port" {
            u16::MAX
        } else {
            last
        };
    }
    shape
}

/// Each rule is for another group, role or value of a claim, of which the caller has twenty.
fn credentials(name: &'static str, rules: usize, from: impl Fn(usize) -> String) -> Shape {
    let with = |first: usize| {
        let own: Vec<String> = (first..first + 20).map(|n| format!("team-{n}")).collect();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let user = User::new("https://login.example.org", "ada")
            .with_groups(&own)
            .with_roles(&own)
            .with_claim("team", own);
        Caller::new(None, Some(Arc::new(user)))
    };
    shape(name, rules, |n, rule| by(&from(n), rule))
        .call("allow", with(rules - 10), "GET", "/api/orders")
        .call("miss", with(rules), "GET", "/api/orders")
}

/// One rule allows everything, all others deny another path.
fn deny_heavy(rules: usize) -> Shape {
    let last = rules - 1;
    shape("deny_heavy", rules, |n, rule| match n {
        0 => rule,
        _ => rule
            .with_action(Action::Deny)
            .with_paths(&[&format!("/secret/{n}/*")]),
    })
    .call("allow", caller(0), "GET", "/api/orders")
    .call("deny", caller(0), "GET", &format!("/secret/{last}/x"))
}

/// One half matches by caller and path, the other by method and port, none by all.
fn crossed(rules: usize) -> Shape {
    shape("crossed", rules, |n, rule| {
        let action = if n.is_multiple_of(3) {
            Action::Deny
        } else {
            Action::Allow
        };
        let rule = rule.with_action(action);
        if n.is_multiple_of(2) {
            rule.with_paths(&["/api/*", "/{any}/orders"])
                .with_methods(&["PUT"])
                .with_ports(&[9])
        } else {
            by("spiffe://example.org/*", rule)
                .with_paths(&["/other/*"])
                .with_methods(&["GET"])
        }
    })
    .call("miss", caller(0), "GET", "/api/orders")
}

/// All have ended but the last.
fn ended(rules: usize) -> Shape {
    let last = rules - 1;
    shape("ended", rules, |n, rule| {
        if n == last {
            rule
        } else {
            rule.with_expires("2026-01-01")
        }
    })
    .call("allow", caller(0), "GET", "/api/orders")
}

fn by(source: &str, mut rule: RuleConfig) -> RuleConfig {
    rule.from = vec![source.to_owned()];
    rule
}

fn shape(
    name: &'static str,
    rules: usize,
    change: impl Fn(usize, RuleConfig) -> RuleConfig,
) -> Shape {
    let rule = |n: usize| {
        change(
            n,
            RuleConfig::new(&format!("rule-{n}"), &["caller-0"], SERVICE),
        )
    };
    Shape {
        name,
        policy: (0..rules)
            .map(rule)
            .fold(PolicyConfig::default(), PolicyConfig::with_rule),
        calls: Vec::new(),
    }
}

impl Shape {
    /// Adds a call, which is allowed where its name begins so.
    fn call(mut self, name: &'static str, caller: Caller, method: &str, path: &str) -> Self {
        self.calls.push(Call {
            name,
            is_allowed: name.starts_with("allow"),
            caller,
            port: 50_051,
            request: request(method, path),
        });
        self
    }
}

#[expect(clippy::expect_used, reason = "a benchmark may panic")]
fn caller(number: usize) -> Caller {
    let id = format!("spiffe://{DOMAIN}/caller-{number}");
    Caller::new(Some(SpiffeId::parse(&id).expect("an id")), None)
}

#[expect(clippy::expect_used, reason = "a benchmark may panic")]
fn request(method: &str, path: &str) -> CanonicalRequest {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", SERVICE);
    let parts = request.body(()).expect("a request").into_parts().0;
    CanonicalRequest::new(parts, &Limits::default()).expect("a canonical request")
}

/// The trust domain of every shape.
///
/// # Panics
/// Never: its name is one.
#[expect(clippy::expect_used, reason = "a benchmark may panic")]
#[must_use]
pub fn domain() -> TrustDomain {
    TrustDomain::parse(DOMAIN).expect("a trust domain")
}

const DOMAIN: &str = "example.org";
