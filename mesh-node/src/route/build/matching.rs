//! What a call must be.

use http::HeaderName;
use http::Method;
use http::header;
use mesh_auth::policy::PathMatcher;
use mesh_auth::request::is_identity_header;

use super::Fault;
use super::bounded;
use crate::config::FieldMatchConfig;
use crate::config::RouteMatchConfig;
use crate::config::is_service_name;
use crate::route::RouteProblem;
use crate::route::field::FieldRule;
use crate::route::field::HeaderRule;
use crate::route::field::QueryRule;
use crate::route::matcher::Matcher;
use crate::route::matcher::PathRule;
use crate::route::regex::Regex;

pub(super) fn matcher(config: &RouteMatchConfig) -> Result<Matcher, Fault> {
    let lengths = [
        (".match.services", config.services.len()),
        (".match.methods", config.methods.len()),
        (".match.headers", config.headers.len()),
        (".match.query", config.query.len()),
    ];
    for (key, count) in lengths {
        if count > super::MAX_LIST {
            return Err((key.to_owned(), RouteProblem::TooLong { count }));
        }
    }
    let mut services: Vec<Box<str>> = Vec::new();
    for (service, index) in config.services.iter().zip(0..) {
        if !is_service_name(service) {
            return Err((format!(".match.services[{index}]"), RouteProblem::Service));
        }
        if !services.iter().any(|other| **other == **service) {
            services.push(service.as_str().into());
        }
    }
    let methods = config.methods.iter().zip(0..).map(method);
    Ok(Matcher {
        services: services.into(),
        methods: methods.collect::<Result<_, _>>()?,
        path: path(config)?,
        headers: header_rules(&config.headers, ".match.headers")?,
        query: query_rules(&config.query)?,
    })
}

/// How many segments a prefix of its path has.
pub(super) fn prefix_segments(matcher: &Matcher) -> Option<usize> {
    match &matcher.path {
        Some(PathRule::Pattern { pattern, .. }) => pattern.prefix_segments(),
        _ => None,
    }
}

pub(super) fn header_rules(
    configs: &[FieldMatchConfig],
    key: &str,
) -> Result<Box<[HeaderRule]>, Fault> {
    bounded(configs, key)?;
    let rules = configs.iter().zip(0..).map(|(config, index)| {
        let key = format!("{key}[{index}]");
        let wrong = |problem| Err((format!("{key}.name"), problem));
        let Ok(name) = HeaderName::try_from(config.name.as_str()) else {
            return wrong(RouteProblem::FieldName("a header field"));
        };
        match never_seen(&name) {
            Some(why) => wrong(RouteProblem::NeverSeen(why)),
            None => Ok(HeaderRule {
                name,
                rule: rule(config, &key)?,
            }),
        }
    });
    rules.collect()
}

fn query_rules(configs: &[FieldMatchConfig]) -> Result<Box<[QueryRule]>, Fault> {
    let rules = configs.iter().zip(0..).map(|(config, index)| {
        let key = format!(".match.query[{index}]");
        if config.name.is_empty() {
            let problem = RouteProblem::FieldName("a parameter");
            return Err((format!("{key}.name"), problem));
        }
        Ok(QueryRule {
            name: config.name.as_str().into(),
            rule: rule(config, &key)?,
        })
    });
    rules.collect()
}

fn rule(config: &FieldMatchConfig, key: &str) -> Result<FieldRule, Fault> {
    match (
        &config.equals,
        &config.prefix,
        &config.regex,
        config.present,
    ) {
        (Some(text), None, None, None) => Ok(FieldRule::Equals(text.as_bytes().into())),
        (None, Some(text), None, None) => Ok(FieldRule::Prefix(text.as_bytes().into())),
        (None, None, Some(text), None) => match Regex::new(text) {
            Ok(regex) => Ok(FieldRule::Regex(regex)),
            Err(problem) => Err((format!("{key}.regex"), problem)),
        },
        (None, None, None, Some(expected)) => Ok(FieldRule::Present(expected)),
        _ => Err((key.to_owned(), RouteProblem::FieldRule)),
    }
}

fn method((text, index): (&String, usize)) -> Result<Method, Fault> {
    // Methods are case-sensitive (RFC 9110 section 9.1), and all that are in use have upper case.
    let is_upper = !text.bytes().any(|byte| byte.is_ascii_lowercase());
    match Method::try_from(text.as_str()) {
        Ok(method) if is_upper => Ok(method),
        _ => Err((format!(".match.methods[{index}]"), RouteProblem::Method)),
    }
}

fn path(config: &RouteMatchConfig) -> Result<Option<PathRule>, Fault> {
    let regex_key = || ".match.path_regex".to_owned();
    match (&config.path, &config.path_regex) {
        (Some(_), Some(_)) => Err((regex_key(), RouteProblem::TwoPaths)),
        (Some(text), None) => match PathMatcher::parse(text) {
            Ok(pattern) => Ok(Some(PathRule::Pattern {
                text: text.as_str().into(),
                pattern,
            })),
            Err(error) => Err((".match.path".to_owned(), RouteProblem::Path(error))),
        },
        (None, Some(text)) => match Regex::new(text) {
            Ok(regex) => Ok(Some(PathRule::Regex(regex))),
            Err(problem) => Err((regex_key(), problem)),
        },
        (None, None) => Ok(None),
    }
}

/// Why no call has such a field when routes are asked, or none that a configuration should name.
pub(super) fn never_seen(name: &HeaderName) -> Option<&'static str> {
    if *name == header::HOST {
        return Some("match.services is about the host");
    }
    if SECRETS.contains(name) {
        return Some("it is a secret, which does not belong in a configuration");
    }
    if is_identity_header(name.as_str()) {
        return Some("callers can't set it");
    }
    super::edit::is_of_one_hop(name).then_some("it is about one connection alone")
}

const SECRETS: [HeaderName; 2] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION];
