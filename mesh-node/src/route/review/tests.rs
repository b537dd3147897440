//! What is reported is never reached, and what is not can be.

use http::HeaderName;
use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::config::FieldMatchConfig;
use crate::config::RouteConfig;
use crate::config::RouteMatchConfig;
use crate::route::RouteTable;

/// Two routes, and what becomes of the second.
const PAIRS: [(&str, &str, &str); 40] = [
    // Services and methods.
    ("{}", "{}", "shadowed"),
    (
        "{}",
        "{ services: [a], methods: [GET], path: /x }",
        "shadowed",
    ),
    ("{ services: [a] }", "{ services: [a] }", "shadowed"),
    ("{ services: [a, b] }", "{ services: [b] }", "shadowed"),
    ("{ services: [a] }", "{ services: [a, b] }", "reached"),
    ("{ services: [a] }", "{}", "reached"),
    ("{ methods: [GET] }", "{ methods: [GET] }", "shadowed"),
    ("{ methods: [GET, PUT] }", "{ methods: [PUT] }", "shadowed"),
    ("{ methods: [GET] }", "{ methods: [GET, PUT] }", "reached"),
    ("{ methods: [GET] }", "{ path: /x }", "reached"),
    // Paths.
    ("{ path: /* }", "{}", "shadowed"),
    ("{ path: /* }", "{ path_regex: a }", "shadowed"),
    ("{ path: /* }", "{ path: '*.json' }", "shadowed"),
    ("{ path: /a/* }", "{ path: /a/b }", "shadowed"),
    ("{ path: /a/* }", "{ path: /a }", "reached"),
    ("{ path: /a/* }", "{ path: /a/b/* }", "shadowed"),
    ("{ path: /a/b/* }", "{ path: /a/* }", "reached"),
    ("{ path: '/a/{x}' }", "{ path: /a/b }", "shadowed"),
    ("{ path: '/a/{x}' }", "{ path: /a/b/ }", "reached"),
    ("{ path: '/a/{x}' }", "{ path: /a/* }", "reached"),
    ("{ path: '/{x}/b' }", "{ path: '/a/{y}' }", "reached"),
    ("{ path: '/{x}/{y}' }", "{ path: '/a/{y}' }", "shadowed"),
    ("{ path: '/{x}/*' }", "{ path: '*/b/c' }", "shadowed"),
    ("{ path: '*/c' }", "{ path: '/{x}/b/c' }", "shadowed"),
    ("{ path: '*c' }", "{ path: '/a/*' }", "reached"),
    ("{ path: '/a:b' }", "{ path: '/a%3Ab' }", "shadowed"),
    // Fields.
    (
        "{ headers: [ { name: X, equals: '1' } ] }",
        "{ headers: [ { name: x, equals: '1' } ] }",
        "shadowed",
    ),
    (
        "{ headers: [ { name: x, equals: '1' } ] }",
        "{ headers: [ { name: x, equals: '2' } ] }",
        "reached",
    ),
    (
        "{ headers: [ { name: x, prefix: '1' } ] }",
        "{ headers: [ { name: x, equals: '12' } ] }",
        "shadowed",
    ),
    (
        "{ headers: [ { name: x, equals: '12' } ] }",
        "{ headers: [ { name: x, prefix: '12' } ] }",
        "reached",
    ),
    (
        "{ headers: [ { name: x, present: true } ] }",
        "{ headers: [ { name: x, prefix: '1' } ] }",
        "shadowed",
    ),
    (
        "{ headers: [ { name: x, present: false } ] }",
        "{ headers: [ { name: x, prefix: '1' } ] }",
        "reached",
    ),
    (
        "{ headers: [ { name: x, present: false } ] }",
        "{}",
        "reached",
    ),
    (
        "{ headers: [ { name: x, present: true } ] }",
        "{ query: [ { name: x, present: true } ] }",
        "reached",
    ),
    (
        "{ query: [ { name: q, present: true } ] }",
        "{ query: [ { name: q, equals: '1' } ], path: /a }",
        "shadowed",
    ),
    // Regular expressions.
    ("{ path_regex: ^/a }", "{ path_regex: ^/a }", "shadowed"),
    ("{ path_regex: ^/a }", "{ path_regex: ^/ab }", "unknown"),
    ("{ path_regex: ^/a }", "{ path: /ab }", "unknown"),
    ("{ path_regex: ^/a }", "{ path: /b }", "reached"),
    (
        "{ headers: [ { name: x, regex: '^1' } ] }",
        "{ headers: [ { name: x, equals: '12' } ] }",
        "shadowed",
    ),
];

fn table(matches: &[&str]) -> RouteTable {
    let routes: Vec<String> = matches
        .iter()
        .zip(0..)
        .map(|(text, index)| format!("{{ name: r{index}, match: {text} }}"))
        .collect();
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    crate::route::tests::table(&routes)
}

#[test]
fn a_route_that_an_earlier_one_hides_is_told_from_one_that_is_reached() {
    for (first, second, expected) in PAIRS {
        let table = table(&[first, second]);
        let reach = table.reach();
        assert!(
            matches!(reach[0], Reach::Reached(_) | Reach::Unknown),
            "{first}"
        );
        let said = match &reach[1] {
            Reach::Reached(witness) => {
                let found = table.find(&witness.asked()).route.map(|route| route.index);
                assert_eq!(found, Some(1), "{first} {second} {witness:?}");
                "reached"
            }
            Reach::Shadowed(by) => {
                assert_eq!(*by, 0);
                "shadowed"
            }
            Reach::Unreachable(_) => "unreachable",
            Reach::Unknown => "unknown",
        };
        assert_eq!(said, expected, "{first} before {second}");
    }
}

#[test]
fn several_routes_may_hide_one_together() {
    for (matches, expected) in [
        (
            &[
                "{ methods: [GET] }",
                "{ methods: [PUT] }",
                "{ methods: [GET, PUT] }",
            ][..],
            &[0, 1][..],
        ),
        (
            &[
                "{ services: [a], path: /x }",
                "{ path: /y }",
                "{ services: [a], path: /x }",
            ],
            &[],
        ),
        (
            &[
                "{ path: '/a/{x}' }",
                "{ path: '/a/{x}/*' }",
                "{ path: /a/ }",
                "{ path: '/a/*' }",
            ],
            &[0, 1, 2],
        ),
        (
            &[
                "{ headers: [ { name: x, present: true } ] }",
                "{ headers: [ { name: x, present: false } ] }",
                "{}",
            ],
            &[0, 1],
        ),
        (
            &["{ headers: [ { name: x, equals: '1' }, { name: x, equals: '2' } ] }"],
            &[],
        ),
        (
            &["{ headers: [ { name: x, equals: '1' }, { name: x, present: false } ] }"],
            &[],
        ),
    ] {
        let table = table(matches);
        match table.reach().pop().unwrap() {
            Reach::Unreachable(by) => assert_eq!(by, expected, "{matches:?}"),
            Reach::Shadowed(by) => assert_eq!((by, expected.len()), (0, 0), "{matches:?}"),
            other => panic!("{matches:?} {other:?}"),
        }
    }
}

/// Rules about a field, of which many overlap.
fn field(name: &'static str) -> impl Strategy<Value = FieldMatchConfig> {
    let rule = |change: fn(&mut FieldMatchConfig)| {
        let mut field = FieldMatchConfig {
            name: name.to_owned(),
            ..FieldMatchConfig::default()
        };
        change(&mut field);
        field
    };
    prop::sample::select(vec![
        rule(|field| field.equals = Some("1".to_owned())),
        rule(|field| field.equals = Some("12".to_owned())),
        rule(|field| field.equals = Some(String::new())),
        rule(|field| field.prefix = Some("1".to_owned())),
        rule(|field| field.prefix = Some("12".to_owned())),
        rule(|field| field.prefix = Some(String::new())),
        rule(|field| field.present = Some(true)),
        rule(|field| field.present = Some(false)),
    ])
}

const PATTERNS: [&str; 18] = [
    "/*",
    "/a",
    "/a/",
    "/a/*",
    "/a/b",
    "/a/b/*",
    "/{x}",
    "/{x}/",
    "/{x}/b",
    "/a/{x}",
    "/a/{x}/*",
    "/{x}/{y}",
    "/{x}/*",
    "/{x}/{y}/*",
    "*/b",
    "*b",
    "*/",
    "*/a/b",
];
const PATHS: [&str; 18] = [
    "/", "/a", "/b", "/a/", "/b/", "/a/b", "/b/a", "/a/a", "/b/b", "/a/b/", "/a/a/", "/b/b/",
    "/a/b/c", "/a/a/b", "/c/a/b", "/ab", "/a/ab", "/c/c/c/",
];

fn route() -> impl Strategy<Value = RouteMatchConfig> {
    let some = |from: &[&str]| {
        let from: Vec<String> = from.iter().map(|&text| text.to_owned()).collect();
        prop::sample::subsequence(from, 0..=2)
    };
    (
        some(&["a", "b"]),
        some(&["GET", "PUT"]),
        prop::option::weighted(0.7, prop::sample::select(&PATTERNS[..])),
        prop::collection::vec(prop_oneof![field("x"), field("y")], 0..3),
        prop::collection::vec(field("q"), 0..2),
    )
        .prop_map(
            |(services, methods, path, headers, query)| RouteMatchConfig {
                services,
                methods,
                path: path.map(str::to_owned),
                path_regex: None,
                headers,
                query,
            },
        )
}

/// A call, of which each part is one of a few.
fn call() -> impl Strategy<Value = Witness> {
    let value = || {
        prop::sample::select(vec![
            None,
            Some(""),
            Some("1"),
            Some("12"),
            Some("13"),
            Some("2"),
        ])
    };
    (
        prop::sample::select(vec!["a", "b", "c"]),
        prop::sample::select(vec![Method::GET, Method::PUT, Method::POST]),
        prop::sample::select(&PATHS[..]),
        (value(), value(), value()),
    )
        .prop_map(|(service, method, path, (x, y, q))| {
            let mut headers = HeaderMap::new();
            for (name, value) in [("x", x), ("y", y)] {
                let value = value.map(HeaderValue::from_static);
                headers.extend(value.map(|value| (HeaderName::from_static(name), value)));
            }
            Witness {
                service: service.to_owned(),
                method,
                path: path.to_owned(),
                query: q.map(|q| format!("q={q}")),
                headers,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_reported_is_never_found_and_what_is_not_is_found_by_its_witness(
        matches in prop::collection::vec(route(), 1..7),
        calls in prop::collection::vec(call(), 100),
    ) {
        let configs: Vec<RouteConfig> = matches.into_iter().zip(0..).map(|(r#match, index)| RouteConfig {
            name: format!("r{index}"),
            r#match,
            ..RouteConfig::default()
        }).collect();
        let table = RouteTable::new(&configs).unwrap();
        let found = |call: &Witness| table.find(&call.asked()).route.map(|route| route.index);
        let reach = table.reach();
        for (reach, index) in reach.iter().zip(0..) {
            match reach {
                Reach::Reached(witness) => prop_assert_eq!(found(witness), Some(index)),
                Reach::Unknown => prop_assert!(false, "route {} is left open", index),
                Reach::Shadowed(_) | Reach::Unreachable(_) => {}
            }
        }
        for call in &calls {
            if let Some(index) = found(call) {
                prop_assert!(matches!(reach[index], Reach::Reached(_)), "{call:?} reaches {index}");
            }
        }
    }
}
