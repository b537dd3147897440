//! Routes as they are written in a file, and the calls that they take.

mod naive;
mod wrong;

use std::path::Path;

use http::Request;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;

use super::*;
use crate::config::Document;
use crate::config::Environment;
use crate::config::Percent;
use crate::config::RouteConfig;

/// A file with these routes, each on a line of its own.
fn file(routes: &[&str]) -> Document {
    let mut text = "\
service: { id: user-service }
identity: { trust_domain: example.org, cert_file: a.crt, key_file: a.key, ca_file: ca.crt }
routes:
"
    .to_owned();
    for route in routes {
        text.push_str("  - ");
        text.push_str(route);
        text.push('\n');
    }
    Document::parse(&text, Path::new("mesh.yaml"), &Environment::new()).unwrap()
}

fn configs(routes: &[&str]) -> Vec<RouteConfig> {
    file(routes).config().unwrap().routes
}

pub(super) fn table(routes: &[&str]) -> RouteTable {
    RouteTable::new(&configs(routes)).unwrap()
}

fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> CanonicalRequest {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let parts = request
        .header("host", "order-service")
        .body(())
        .unwrap()
        .into_parts()
        .0;
    CanonicalRequest::new(parts, &Limits::default()).unwrap()
}

/// The name of the route that takes a call of the order service.
fn found<'a>(table: &'a RouteTable, call: (&str, &str, &[(&str, &str)])) -> Option<&'a str> {
    let request = request(call.0, call.1, call.2);
    let asked = Asked::new("order-service", &request);
    let route = table.find(&asked).route?;
    assert_eq!(table.explain(&asked).len(), route.index);
    Some(&route.name)
}

#[test]
fn a_route_names_the_fields_that_it_tells_calls_apart_by() {
    let table = table(&[
        "{ name: all, sticky: { header: x-user }, match: { headers: [ { name: x-tier, prefix: a }, { name: x-old, present: false } ] }, \
         fault: { headers: [ { name: x-test, equals: '1' } ], abort: { status: 503, percent: 1 } } }",
        "{ name: none, sticky: { cookie: { name: seen } } }",
    ]);
    let of_all = fields_of(&table.routes()[0]).collect::<Vec<_>>();
    assert_eq!(of_all, ["x-tier", "x-old", "x-test", "x-user"]);
    assert_eq!(fields_of(&table.routes()[1]).count(), 0);
}

#[test]
fn the_first_route_that_matches_takes_the_call() {
    let table = table(&[
        "{ name: other, match: { services: [user-service] } }",
        "{ name: canary, match: { headers: [ { name: canary, equals: 'true' } ] } }",
        "{ name: get, match: { services: [order-service], methods: [GET] } }",
        "{ name: api, match: { path: /api/* } }",
        "{ name: later, match: { services: [order-service], path: /api/x } }",
    ]);
    assert_eq!(found(&table, ("GET", "/", &[])), Some("get"));
    assert_eq!(
        found(&table, ("GET", "/api/x", &[("canary", "true")])),
        Some("canary")
    );
    assert_eq!(found(&table, ("POST", "/api/x", &[])), Some("api"));
    assert_eq!(found(&table, ("POST", "/", &[])), None);
}

#[test]
fn a_table_without_routes_takes_nothing() {
    let table = RouteTable::default();
    assert_eq!(found(&table, ("GET", "/", &[])), None);
}

#[test]
fn each_kind_of_path_is_matched_as_the_policy_does() {
    for (pattern, matching, other) in [
        ("/api", &["/api"][..], &["/api/", "/apis", "/api/x"][..]),
        (
            "/api/*",
            &["/api/", "/api/x", "/api/x/y"],
            &["/api", "/apis/x"],
        ),
        (
            "/users/{id}",
            &["/users/7"],
            &["/users/", "/users/7/", "/users/7/a"],
        ),
        (
            "/users/{id}/*",
            &["/users/7/", "/users/7/a"],
            &["/users/7", "/users//a"],
        ),
        ("*.json", &["/a.json", "/a/b.json"], &["/a.jsonx"]),
        ("/a:b", &["/a:b", "/a%3ab", "/a%3Ab"], &["/a;b"]),
    ] {
        let table = table(&[&format!("{{ name: it, match: {{ path: '{pattern}' }} }}")]);
        for path in matching {
            assert_eq!(
                found(&table, ("GET", path, &[])),
                Some("it"),
                "{pattern} {path}"
            );
        }
        for path in other.iter().filter(|path| !path.contains(';')) {
            assert_eq!(found(&table, ("GET", path, &[])), None, "{pattern} {path}");
        }
    }
}

#[test]
fn a_regular_expression_sees_the_path_as_it_is_sent_and_no_query() {
    let table = table(&["{ name: it, match: { path_regex: '^/api/v[0-9]+/[^/]*%20' } }"]);
    assert_eq!(found(&table, ("GET", "/api/v2/a%20b", &[])), Some("it"));
    assert_eq!(
        found(&table, ("GET", "/x/../api/v2/a%20b", &[])),
        Some("it")
    );
    assert_eq!(found(&table, ("GET", "/x/api/v2/a%20b", &[])), None);
    assert_eq!(found(&table, ("GET", "/?/api/v2/a%20b", &[])), None);
}

#[test]
fn header_and_query_rules_must_all_hold() {
    let table = table(&[
        "{ name: it, match: { headers: [ { name: x-user, prefix: a }, { name: x-old, present: false } ], \
                         query: [ { name: v, regex: '^[23]$' } ] } }",
    ]);
    assert_eq!(
        found(&table, ("GET", "/?v=2", &[("x-user", "ada")])),
        Some("it")
    );
    assert_eq!(found(&table, ("GET", "/?v=4", &[("x-user", "ada")])), None);
    assert_eq!(found(&table, ("GET", "/?v=2", &[("x-user", "bob")])), None);
    assert_eq!(
        found(
            &table,
            ("GET", "/?v=2", &[("x-user", "ada"), ("x-old", "")])
        ),
        None
    );
}

#[test]
fn a_mismatch_says_what_the_route_is_about() {
    let table = table(&[
        "{ name: a, match: { services: [user-service] } }",
        "{ name: b, match: { methods: [POST, PUT] } }",
        "{ name: c, match: { path: '/x/*' } }",
        "{ name: d, match: { path_regex: ^/x } }",
        "{ name: e, match: { headers: [ { name: canary, equals: 'true' } ] } }",
        "{ name: f, match: { query: [ { name: v, present: true } ] } }",
    ]);
    let request = request("GET", "/", &[]);
    let trail = table.explain(&Asked::new("order-service", &request));
    let said: Vec<String> = trail.iter().map(|(_, why)| why.to_string()).collect();
    assert_eq!(
        said,
        [
            "it is about user-service",
            "it is about the methods POST, PUT",
            "it is about the path /x/*",
            "it is about paths that contain a match of \"^/x\"",
            "it is about calls whose header canary is \"true\"",
            "it is about calls whose query parameter v is there",
        ]
    );
    let parts: Vec<&str> = trail.iter().map(|(_, why)| why.part()).collect();
    assert_eq!(
        parts,
        ["service", "method", "path", "path", "header", "query"]
    );
}

/// The first number of the part `step` of 10,000 equal ones.
fn even(step: u64) -> u64 {
    u64::try_from((u128::from(step) << 64).div_ceil(10_000)).unwrap()
}

#[test]
fn calls_are_split_as_the_weights_say() {
    let table = table(&[
        "{ name: it, to: [ { service: a, weight: 5 }, { service: b, weight: 0 }, { service: c, weight: 95 } ] }",
    ]);
    let targets = &table.routes()[0].targets;
    let mut counts = [0_u32; 3];
    for step in 0..10_000_u64 {
        counts[targets.pick(even(step))] += 1;
    }
    assert_eq!(counts, [500, 0, 9500]);
    assert_eq!((targets.pick(0), targets.pick(u64::MAX)), (0, 2));
}

#[test]
fn a_percentage_takes_exactly_its_share() {
    let ten = Percent::new(10.0).unwrap();
    let taken = (0..10_000_u64).filter(|step| ten.takes(even(*step)));
    assert_eq!(taken.count(), 1000);
    assert!(Percent::ALL.takes(u64::MAX) && Percent::ALL.takes(0));
    let none = Percent::new(0.0).unwrap();
    assert!(!none.takes(0));
    assert_eq!(Percent::new(0.0001).unwrap().millionths(), 1);
    for wrong in [-1.0, 100.1, 0.000_01, f64::NAN, f64::INFINITY] {
        assert!(Percent::new(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_prefix_is_replaced_by_another_and_the_query_stays() {
    let mut configs = configs(&["{ name: it, match: { path: '/api/{version}/*' } }"]);
    let rewrite = |path: &str| crate::config::RewriteConfig {
        path: Some(path.to_owned()),
        host: Some("Orders.example:8080".to_owned()),
    };
    configs[0].rewrite = Some(rewrite("/v2/*"));
    let table = RouteTable::new(&configs).unwrap();
    let built = table.routes()[0].rewrite.as_ref().unwrap();
    assert_eq!(built.host.as_deref(), Some("orders.example:8080"));
    let path = built.path.as_ref().unwrap();
    assert_eq!(path.apply("/api/1/a/b", Some("q=1")), "/v2/a/b?q=1");
    assert_eq!(path.apply("/api/1/", None), "/v2/");

    configs[0].rewrite = Some(rewrite("/whole"));
    let table = RouteTable::new(&configs).unwrap();
    let path = table.routes()[0]
        .rewrite
        .as_ref()
        .unwrap()
        .path
        .as_ref()
        .unwrap();
    assert_eq!(path.apply("/api/1/a", Some("q")), "/whole?q");
}

#[test]
fn a_redirect_says_only_what_changes() {
    let location = |set: fn(&mut crate::config::RedirectConfig)| {
        let mut configs = configs(&["{ name: it, match: { path: '/old/*' } }"]);
        let mut redirect = crate::config::RedirectConfig::default();
        set(&mut redirect);
        configs[0].redirect = Some(redirect);
        let table = RouteTable::new(&configs).unwrap();
        let redirect = table.routes()[0].redirect.as_ref().unwrap();
        assert_eq!(redirect.status.as_u16(), 308);
        redirect.location("shop.example", "/old/a", Some("q=1"))
    };
    assert_eq!(
        location(|to| to.path = Some("/new/*".to_owned())),
        "/new/a?q=1"
    );
    assert_eq!(
        location(|to| to.host = Some("b.example".to_owned())),
        "//b.example/old/a?q=1"
    );
    assert_eq!(
        location(|to| to.scheme = Some("https".to_owned())),
        "https://shop.example/old/a?q=1"
    );
}

#[test]
fn header_fields_are_removed_then_set_then_added() {
    let mut configs = configs(&["{ name: it }"]);
    let mut edits = crate::config::HeaderEditsConfig {
        remove: vec!["x-debug".to_owned()],
        ..crate::config::HeaderEditsConfig::default()
    };
    edits.set.insert("x-team".to_owned(), "shop".to_owned());
    edits.add.insert("via".to_owned(), "mesh".to_owned());
    configs[0].request_headers = Some(edits);
    let table = RouteTable::new(&configs).unwrap();
    let mut request = request(
        "GET",
        "/",
        &[
            ("x-debug", "1"),
            ("x-team", "a"),
            ("x-team", "b"),
            ("via", "c"),
        ],
    );
    table.routes()[0]
        .request_headers
        .apply(request.headers_mut());
    let headers = request.headers();
    assert!(!headers.contains_key("x-debug"));
    assert_eq!(headers.get_all("x-team").iter().count(), 1);
    assert_eq!(headers.get_all("via").iter().count(), 2);
}
