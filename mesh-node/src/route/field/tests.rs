//! Header fields and parameters of the query, as routes see them.

use http::HeaderValue;

use super::*;

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn equals(text: &str) -> FieldRule {
    FieldRule::Equals(text.as_bytes().into())
}

#[test]
fn several_fields_of_one_name_are_one() {
    let rule = |name: &'static str, text: &str| HeaderRule {
        name: HeaderName::from_static(name),
        rule: equals(text),
    };
    let twice = headers(&[
        ("canary", "true"),
        ("canary", "false"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ]);
    assert!(!rule("canary", "true").holds(&twice));
    assert!(rule("canary", "true, false").holds(&twice));
    assert!(rule("cookie", "a=1; b=2").holds(&twice));
}

#[test]
fn upper_and_lower_case_differ_in_values_and_not_in_names() {
    let rule = HeaderRule {
        name: HeaderName::from_static("canary"),
        rule: equals("true"),
    };
    let mut given = HeaderMap::new();
    given.insert(
        HeaderName::try_from("Canary").unwrap(),
        HeaderValue::from_static("true"),
    );
    assert!(rule.holds(&given));
    assert!(!rule.holds(&headers(&[("canary", "True")])));
}

#[test]
fn parameters_are_read_as_forms_write_them() {
    for (query, name, expected) in [
        ("v=2", "v", Some("2")),
        ("a=1&v=2&v=3", "v", Some("2")),
        ("v", "v", Some("")),
        ("v=", "v", Some("")),
        ("%76=a%20b", "v", Some("a b")),
        ("v=a+b", "v", Some("a b")),
        ("v=%zz%4", "v", Some("%zz%4")),
        ("v=a=b", "v", Some("a=b")),
        ("&&v=1", "v", Some("1")),
        ("w=v=2", "v", None),
        ("", "v", None),
    ] {
        let found = parameter(query, name.as_bytes());
        let found = found.map(|value| String::from_utf8(value.into_owned()).unwrap());
        assert_eq!(found.as_deref(), expected, "{query}");
    }
}

#[test]
fn what_is_absent_matches_only_what_must_be_absent() {
    let none = HeaderMap::new();
    let holds = |rule: FieldRule| {
        let name = HeaderName::from_static("x-user");
        HeaderRule { name, rule }.holds(&none)
    };
    assert!(holds(FieldRule::Present(false)));
    for rule in [
        FieldRule::Present(true),
        equals(""),
        FieldRule::Prefix(Box::default()),
        FieldRule::Regex(Regex::new("").unwrap()),
    ] {
        assert!(!holds(rule.clone()), "{rule:?}");
    }
}
