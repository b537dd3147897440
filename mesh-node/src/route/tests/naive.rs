//! The table against a matcher that looks at every route, segment by segment.

use proptest::prelude::*;

use super::*;

const PATTERNS: [&str; 10] = [
    "/*", "/a", "/a/", "/a/*", "/{x}", "/{x}/b", "/a/{x}/*", "*b", "*/b", "/a/b",
];

/// As the documentation says it, without any of the table's ways to be fast.
fn is_match(pattern: &str, path: &str) -> bool {
    if let Some(suffix) = pattern.strip_prefix('*') {
        return path.ends_with(suffix);
    }
    let (fixed, is_open) = match pattern.strip_suffix("/*") {
        Some(fixed) => (fixed, true),
        None => (pattern, false),
    };
    let wanted: Vec<&str> = fixed.split('/').skip(1).collect();
    let given: Vec<&str> = path.split('/').skip(1).collect();
    let is_long_enough = if is_open {
        given.len() > wanted.len()
    } else {
        given.len() == wanted.len()
    };
    let fits = |(wanted, given): (&&str, &&str)| {
        if wanted.starts_with('{') {
            !given.is_empty()
        } else {
            wanted == given
        }
    };
    is_long_enough && wanted.iter().zip(&given).all(fits)
}

proptest! {
    #[test]
    fn the_table_finds_what_a_look_at_every_route_finds(
        routes in prop::collection::vec(
            (prop::sample::subsequence(vec!["a", "b", "order-service"], 0..=2), prop::sample::select(&PATTERNS[..])),
            0..12,
        ),
        path in "(/(a|b|ab|%C3%BC)){0,3}/?",
        service in prop::sample::select(vec!["a", "b", "order-service", "other"]),
    ) {
        let configs: Vec<RouteConfig> = routes.iter().zip(0..).map(|((services, pattern), index)| {
            let mut config = RouteConfig { name: format!("r{index}"), ..RouteConfig::default() };
            config.r#match.services = services.iter().map(|&service| service.to_owned()).collect();
            config.r#match.path = Some((*pattern).to_owned());
            config
        }).collect();
        let table = RouteTable::new(&configs).unwrap();
        let path = if path.is_empty() { "/" } else { &path };
        let request = request("GET", path, &[]);
        let expected = routes.iter().position(|(services, pattern)| {
            (services.is_empty() || services.contains(&service)) && is_match(pattern, request.path())
        });
        let asked = Asked::new(service, &request);
        prop_assert_eq!(table.find(&asked).route.map(|route| route.index), expected);
        prop_assert_eq!(table.explain(&asked).len(), expected.unwrap_or(routes.len()));
    }
}
