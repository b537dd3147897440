//! What is refused, where, and what is said about it.

use super::*;
use crate::config::AbortConfig;
use crate::config::FallbackConfig;
use crate::config::FaultConfig;
use crate::config::FixedAnswerConfig;
use crate::config::HeaderEditsConfig;
use crate::config::RedirectConfig;
use crate::config::RewriteConfig;
use crate::config::RouteTargetConfig;
use crate::config::StickyConfig;
use crate::config::SubsetConfig;

#[test]
fn what_can_not_be_used_is_refused_with_its_place() {
    for (route, expected) in WRONG {
        let error = file(&[route]).config().unwrap_err().to_string();
        assert!(error.contains(expected), "{route}\n{error}\n{expected}");
    }
    let error = file(&["{ name: a }", "{ name: b }", "{ name: a }"]).config();
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("mesh.yaml:6:13: routes[2].name: is the name of routes[0] too"),
        "{error}"
    );
}

/// What is said of a route that `change` was made to.
fn refused(change: impl Fn(&mut RouteConfig)) -> String {
    let mut configs = configs(&["{ name: it, match: { path: /whole } }"]);
    change(&mut configs[0]);
    RouteTable::new(&configs).unwrap_err().to_string()
}

fn edits(change: impl Fn(&mut HeaderEditsConfig)) -> String {
    refused(|route| {
        let mut edits = HeaderEditsConfig::default();
        change(&mut edits);
        route.request_headers = Some(edits);
    })
}

#[test]
fn routes_change_no_header_field_that_others_rely_on() {
    for name in [
        "host",
        "connection",
        "Keep-Alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "proxy-authorization",
        "http2-settings",
        "content-length",
        "x-mesh-token",
        "X-Mesh_Anything",
        "x-spiffe-id",
        "x_forwarded_client_cert",
        "grpc-status",
        "grpc-timeout",
    ] {
        let name = name.to_owned();
        let removed = edits(|edits| edits.remove = vec![name.clone()]);
        assert!(
            removed.contains("request_headers.remove[0]: is not changed by routes"),
            "{removed}"
        );
        let set = edits(|edits| drop(edits.set.insert(name.clone(), "1".to_owned())));
        assert!(set.contains("is not changed by routes"), "{set}");
    }
    for name in ["authorization", "cookie", "set-cookie"] {
        let added = edits(|edits| drop(edits.add.insert(name.to_owned(), "1".to_owned())));
        assert!(added.contains("its value is a secret"), "{added}");
    }
    for part in ["add", "set"] {
        let all_one = edits(|edits| {
            let to = if part == "add" {
                &mut edits.add
            } else {
                &mut edits.set
            };
            to.insert("Idempotency-Key".to_owned(), "1".to_owned());
        });
        assert!(
            all_one.contains("would make them all one call"),
            "{all_one}"
        );
    }
    let value = edits(|edits| drop(edits.set.insert("x-a".to_owned(), "a\r\nb".to_owned())));
    assert!(
        value.contains("request_headers.set.x-a: is not the value of a header field"),
        "{value}"
    );
    assert!(edits(|_| ()).contains("needs at least one of set, add and remove"));
}

#[test]
fn a_new_path_is_one_that_is_sent_as_it_is_written() {
    for (path, expected) in [
        ("v2", "is not a path; write it"),
        ("/v2*", "is not a path; write it"),
        ("/v2?a=1", "is not a path; write it"),
        ("/a/../b", "is not a path; write it"),
        ("/a//b", "is not a path; write it"),
        ("/a%2fb", "is not a path that can be sent"),
        ("/v2/*", "replaces a prefix, but match.path is none"),
    ] {
        let said = refused(|route| {
            route.rewrite = Some(RewriteConfig {
                path: Some(path.to_owned()),
                host: None,
            });
        });
        assert!(said.contains(expected), "{path}: {said}");
    }
    for host in ["", "a b", "user@host", "a/b", "a:b"] {
        let said = refused(|route| {
            route.rewrite = Some(RewriteConfig {
                path: None,
                host: Some(host.to_owned()),
            });
        });
        assert!(
            said.contains("routes[0].rewrite.host: is not a host"),
            "{host}: {said}"
        );
    }
}

#[test]
fn a_redirect_says_something_and_stands_alone() {
    let said = refused(|route| route.redirect = Some(RedirectConfig::default()));
    assert!(
        said.contains("needs at least one of scheme, host and path"),
        "{said}"
    );
    let to = |path: &str, status| RedirectConfig {
        path: Some(path.to_owned()),
        status,
        ..RedirectConfig::default()
    };
    let said = refused(|route| route.redirect = Some(to("/a", 200)));
    assert!(
        said.contains("routes[0].redirect.status: is not one of 301"),
        "{said}"
    );
    let said = refused(|route| {
        route.redirect = Some(to("/a", 308));
        route.timeout = Some(Duration::from_secs(1));
    });
    assert!(
        said.contains("routes[0].timeout: has no meaning beside redirect"),
        "{said}"
    );
}

#[test]
fn one_of_two_means_one() {
    let said = refused(|route| route.sticky = Some(StickyConfig::default()));
    assert!(
        said.contains("routes[0].sticky: needs exactly one of \"header\" and \"cookie\""),
        "{said}"
    );
    let said = refused(|route| route.fault = Some(FaultConfig::default()));
    assert!(
        said.contains("needs at least one of delay and abort"),
        "{said}"
    );
    let abort = |status, grpc_status| {
        refused(move |route| {
            route.fault = Some(FaultConfig {
                abort: Some(AbortConfig {
                    status,
                    grpc_status,
                    percent: Percent::ALL,
                }),
                ..FaultConfig::default()
            });
        })
    };
    assert!(abort(None, None).contains("needs exactly one of \"status\" and \"grpc_status\""));
    assert!(abort(Some(503), Some(14)).contains("needs exactly one of"));
    assert!(abort(Some(200), None).contains("fault.abort.status: is not one of 400 to 599"));
    assert!(abort(None, Some(0)).contains("fault.abort.grpc_status: is not one of 1 to 16"));
    let said = refused(|route| {
        route.to = vec![RouteTargetConfig {
            subset: Some(SubsetConfig::default()),
            ..RouteTargetConfig::default()
        }];
    });
    assert!(
        said.contains("routes[0].to[0].subset: names nothing"),
        "{said}"
    );
}

// threat 67
#[test]
fn the_number_of_routes_and_the_lists_in_them_are_bounded() {
    let route = |name: usize| RouteConfig {
        name: name.to_string(),
        ..RouteConfig::default()
    };
    let many: Vec<RouteConfig> = (0..=MAX_ROUTES).map(route).collect();
    assert_eq!(
        RouteTable::new(&many[1..]).unwrap().routes().len(),
        MAX_ROUTES
    );
    let said = RouteTable::new(&many).unwrap_err().to_string();
    assert_eq!(
        said,
        "routes: there are 1001 routes; at most 1000 are possible"
    );
    let said = refused(|route| route.r#match.services = vec!["a".to_owned(); MAX_LIST + 1]);
    assert!(
        said.contains("routes[0].match.services: has 65 members"),
        "{said}"
    );
    let said = refused(|route| {
        let answer = FixedAnswerConfig {
            body: "a".repeat(MAX_ANSWER_BYTES + 1),
            ..FixedAnswerConfig::default()
        };
        let answer = Some(answer);
        route.fallback = Some(FallbackConfig {
            answer,
            ..FallbackConfig::default()
        });
    });
    assert!(
        said.contains("routes[0].fallback.answer.body: is longer than 65536 bytes"),
        "{said}"
    );
    let said = refused(|route| {
        route.r#match.path = None;
        route.r#match.path_regex = Some("a".repeat(MAX_REGEX_BYTES + 1));
    });
    assert!(said.contains("is longer than 1024 bytes"), "{said}");
}

/// Routes, and what is said of each.
const WRONG: [(&str, &str); 34] = [
    (
        "{ name: '' }",
        "mesh.yaml:4:13: routes[0].name: is no name for a route",
    ),
    (
        "{ name: a, match: { methods: [get] } }",
        "routes[0].match.methods[0]: is not a method",
    ),
    (
        "{ name: a, match: { services: [Order] } }",
        "routes[0].match.services[0]: is not a service name",
    ),
    (
        "{ name: a, match: { path: api } }",
        "routes[0].match.path: is not a path that a route can match: a path starts with /",
    ),
    (
        "{ name: a, match: { path: /api, path_regex: a } }",
        "routes[0].match.path_regex: and path exclude each other",
    ),
    (
        "{ name: a, match: { path_regex: '^/a(b' } }",
        "routes[0].match.path_regex: is not a regular expression: unclosed group at column 4",
    ),
    (
        "{ name: a, match: { path_regex: '(a)\\1' } }",
        "is not a regular expression: backreferences are not supported at column 4",
    ),
    (
        "{ name: a, match: { path_regex: '((a{100}){100}){100}' } }",
        "routes[0].match.path_regex: becomes larger than 128 KiB",
    ),
    (
        "{ name: a, match: { headers: [ { name: x } ] } }",
        "routes[0].match.headers[0]: needs exactly one of",
    ),
    (
        "{ name: a, match: { headers: [ { name: x, equals: a, prefix: a } ] } }",
        "routes[0].match.headers[0]: needs exactly one of",
    ),
    (
        "{ name: a, match: { headers: [ { name: 'a b', equals: a } ] } }",
        "routes[0].match.headers[0].name: is not the name of a header field",
    ),
    (
        "{ name: a, match: { headers: [ { name: Host, equals: a } ] } }",
        "is never seen here: match.services is about the host",
    ),
    (
        "{ name: a, match: { headers: [ { name: authorization, equals: a } ] } }",
        "is never seen here: it is a secret",
    ),
    (
        "{ name: a, match: { headers: [ { name: x_spiffe-id, equals: a } ] } }",
        "is never seen here: callers can't set it",
    ),
    (
        "{ name: a, match: { headers: [ { name: connection, present: true } ] } }",
        "it is about one connection alone",
    ),
    (
        "{ name: a, match: { query: [ { name: '', equals: a } ] } }",
        "routes[0].match.query[0].name: is not the name of a parameter",
    ),
    (
        "{ name: a, to: [ { service: b, weight: 0 } ] }",
        "routes[0].to: have the weights 0 alone",
    ),
    (
        "{ name: a, to: [ { service: b, weight: 1000001 } ] }",
        "routes[0].to[0].weight: is larger than 1000000",
    ),
    (
        "{ name: a, retry: { initial_delay: 2s, max_delay: 1s } }",
        "routes[0].retry.max_delay: must not be shorter",
    ),
    (
        "{ name: a, fallback: {} }",
        "routes[0].fallback: needs at least one of service, stale and answer",
    ),
    (
        "{ name: a, fallback: { services: b } }",
        "routes[0].fallback.services: unknown key; did you mean \"service\"?",
    ),
    (
        "{ name: a, fallback: { service: B } }",
        "routes[0].fallback.service: \"B\" is not a service name",
    ),
    (
        "{ name: a, fallback: { stale: { max_age: 0s } } }",
        "routes[0].fallback.stale.max_age: \"0s\" is not allowed",
    ),
    (
        "{ name: a, fallback: { stale: { max_age: 25h } } }",
        "routes[0].fallback.stale: can't be used: max_age in hours is 25",
    ),
    (
        "{ name: a, fallback: { stale: { max_bytes: 10 } } }",
        "can't be used: max_answer_bytes is 65536",
    ),
    (
        "{ name: a, fallback: { stale: { age: 1m } } }",
        "routes[0].fallback.stale.age: unknown key",
    ),
    (
        "{ name: a, fallback: { stale: { fields: [Cookie] } } }",
        "routes[0].fallback.stale.fields[0]: is never seen here: nothing is kept of calls that have it",
    ),
    (
        "{ name: a, fallback: { stale: { fields: [x-a, 'a b'] } } }",
        "routes[0].fallback.stale.fields[1]: is not the name of a header field",
    ),
    (
        "{ name: a, fallback: { answer: { status: 199 } } }",
        "routes[0].fallback.answer.status: is not one of 200 to 599",
    ),
    (
        "{ name: a, fallback: { answer: { status: 204, body: a } } }",
        "routes[0].fallback.answer.body: has no meaning beside the status 204",
    ),
    (
        "{ name: a, fallback: { answer: { headers: { x-mesh-error: a } } } }",
        "routes[0].fallback.answer.headers.x-mesh-error: is not changed by routes",
    ),
    (
        "{ name: a, fallback: { answer: { headers: { content-type: a } } } }",
        "routes[0].fallback.answer.headers.content-type: is not changed by routes: content_type says it",
    ),
    (
        "{ name: a, fallback: { answer: { content_type: '' } } }",
        "routes[0].fallback.answer.content_type: is not the value of a header field",
    ),
    (
        "{ name: a, fallback: { service: b }, redirect: { path: /a } }",
        "routes[0].fallback: has no meaning beside redirect",
    ),
];
