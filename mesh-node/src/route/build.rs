//! From what the configuration says to routes that can be carried out.

mod edit;
mod fallback;
mod fault;
mod matching;

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderName;

use super::MAX_LIST;
use super::MAX_ROUTES;
use super::Overrides;
use super::Route;
use super::RouteError;
use super::RouteProblem;
use super::Sticky;
use super::Target;
use super::Targets;
use super::target::MAX_WEIGHT;
use crate::config::RouteConfig;
use crate::config::RouteTargetConfig;
use crate::config::StickyConfig;
use crate::config::SubsetConfig;

/// What is wrong, and at which key below that of the route.
type Fault = (String, RouteProblem);

pub(super) fn routes(configs: &[RouteConfig]) -> Result<Vec<Route>, RouteError> {
    if configs.len() > MAX_ROUTES {
        let count = configs.len();
        return Err(RouteError {
            key: "routes".to_owned(),
            problem: RouteProblem::TooManyRoutes { count },
        });
    }
    let mut names = HashMap::new();
    let routes = configs.iter().zip(0..).map(|(config, index)| {
        let located = |(key, problem): Fault| RouteError {
            key: format!("routes[{index}]{key}"),
            problem,
        };
        let name = name(config, index, &mut names).map_err(located)?;
        route(config, name, index).map_err(located)
    });
    routes.collect()
}

fn name<'a>(
    config: &'a RouteConfig,
    index: usize,
    names: &mut HashMap<&'a str, usize>,
) -> Result<Arc<str>, Fault> {
    let name = config.name.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain);
    let wrong = |problem| Err((".name".to_owned(), problem));
    if !is_name {
        return wrong(RouteProblem::Name);
    }
    match names.insert(name, index) {
        Some(other) => wrong(RouteProblem::DuplicateName { other }),
        None => Ok(name.into()),
    }
}

fn route(config: &RouteConfig, name: Arc<str>, index: usize) -> Result<Route, Fault> {
    let matcher = matching::matcher(&config.r#match)?;
    if config.redirect.is_some() {
        beside_redirect(config)?;
    }
    let prefix = matching::prefix_segments(&matcher);
    let edits = edit::header_edits;
    Ok(Route {
        name,
        index,
        targets: targets(&config.to)?,
        sticky: config.sticky.as_ref().map(sticky).transpose()?,
        mirror: config.mirror.as_ref().map(fault::mirror).transpose()?,
        fault: config.fault.as_ref().map(fault::fault).transpose()?,
        fallback: (config.fallback.as_ref())
            .map(fallback::fallback)
            .transpose()?,
        rewrite: (config.rewrite.as_ref())
            .map(|rewrite| edit::rewrite(rewrite, prefix))
            .transpose()?,
        redirect: (config.redirect.as_ref())
            .map(|redirect| edit::redirect(redirect, prefix))
            .transpose()?,
        request_headers: edits(config.request_headers.as_ref(), ".request_headers")?,
        response_headers: edits(config.response_headers.as_ref(), ".response_headers")?,
        overrides: Overrides {
            timeout: config.timeout,
            retry: config.retry.clone(),
            hedge: config.hedge.clone(),
            circuit_breaker: config.circuit_breaker.clone(),
            bulkhead: config.bulkhead.clone(),
            rate_limit: config.rate_limit.clone(),
        },
        matcher,
    })
}

/// Nothing is sent where a redirect answers.
fn beside_redirect(config: &RouteConfig) -> Result<(), Fault> {
    let beside = [
        (".to", !config.to.is_empty()),
        (".sticky", config.sticky.is_some()),
        (".mirror", config.mirror.is_some()),
        (".fault", config.fault.is_some()),
        (".fallback", config.fallback.is_some()),
        (".rewrite", config.rewrite.is_some()),
        (".request_headers", config.request_headers.is_some()),
        (".response_headers", config.response_headers.is_some()),
        (".rate_limit", config.rate_limit.is_some()),
        (".hedge", config.hedge.is_some()),
        (".timeout", config.timeout.is_some()),
        (".retry", config.retry.is_some()),
        (".hedge", config.hedge.is_some()),
        (".circuit_breaker", config.circuit_breaker.is_some()),
        (".bulkhead", config.bulkhead.is_some()),
    ];
    match beside.into_iter().find(|(_, is_there)| *is_there) {
        Some((key, _)) => Err((key.to_owned(), RouteProblem::BesideRedirect)),
        None => Ok(()),
    }
}

fn targets(configs: &[RouteTargetConfig]) -> Result<Targets, Fault> {
    bounded(configs, ".to")?;
    let mut list = Vec::with_capacity(configs.len());
    for (config, index) in configs.iter().zip(0..) {
        if config.weight > MAX_WEIGHT {
            return Err((format!(".to[{index}].weight"), RouteProblem::Weight));
        }
        list.push(Target {
            service: config.service.as_deref().map(Arc::from),
            subset: subset(config.subset.as_ref(), || format!(".to[{index}].subset"))?,
            weight: config.weight,
        });
    }
    Targets::new(list).ok_or_else(|| (".to".to_owned(), RouteProblem::NoWeight))
}

fn subset(
    config: Option<&SubsetConfig>,
    key: impl Fn() -> String,
) -> Result<Option<Arc<SubsetConfig>>, Fault> {
    let Some(config) = config else {
        return Ok(None);
    };
    if *config == SubsetConfig::default() {
        return Err((key(), RouteProblem::EmptySubset));
    }
    for count in [config.tags.len(), config.metadata.len()] {
        if count > MAX_LIST {
            return Err((key(), RouteProblem::TooLong { count }));
        }
    }
    Ok(Some(Arc::new(config.clone())))
}

fn sticky(config: &StickyConfig) -> Result<Sticky, Fault> {
    let wrong = |key: &str, problem| Err((format!(".sticky{key}"), problem));
    match (&config.header, &config.cookie) {
        (Some(header), None) => match HeaderName::try_from(header.as_str()) {
            Ok(name) => Ok(Sticky::Header(name)),
            Err(_) => wrong(".header", RouteProblem::FieldName("a header field")),
        },
        (None, Some(cookie)) => {
            // A token (RFC 6265 section 4.1.1), without the characters that need care elsewhere.
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            let name = cookie.name.as_str();
            if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain) {
                let (name, ttl) = (name.into(), cookie.ttl);
                Ok(Sticky::Cookie { name, ttl })
            } else {
                wrong(".cookie.name", RouteProblem::Cookie)
            }
        }
        _ => wrong("", RouteProblem::OneOf("header", "cookie")),
    }
}

/// Refuses a list that is too long.
fn bounded<T>(list: &[T], key: &str) -> Result<(), Fault> {
    let count = list.len();
    if count > MAX_LIST {
        return Err((key.to_owned(), RouteProblem::TooLong { count }));
    }
    Ok(())
}

/// As long as a label in metrics should be.
const MAX_NAME: usize = 64;
