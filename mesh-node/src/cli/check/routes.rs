//! What is doubtful about the routes of a node, with the lines of each.

use std::collections::BTreeSet;

use http::Method;

use super::Failure;
use super::Findings;
use crate::config::Document;
use crate::config::EndpointConfig;
use crate::config::NodeConfig;
use crate::config::Place;
use crate::config::RouteConfig;
use crate::config::SubsetConfig;
use crate::route::Reach;
use crate::route::RouteTable;

/// Looks through the routes. `known` are the services that sources can give, where that is known before they are asked.
pub(super) fn look(
    config: &NodeConfig,
    (document, known): (&Document, Option<&BTreeSet<&str>>),
    findings: &mut Findings,
) -> Result<(), Failure> {
    if config.routes.is_empty() {
        return Ok(());
    }
    // `Document::config` has compiled them already.
    let table = RouteTable::new(&config.routes)
        .map_err(|error| document.error(&error.key, error.problem.to_string()))?;
    let found = format!(
        "{}, the first that matches takes a call",
        table.routes().len()
    );
    findings.checked.push(("routes", found));
    let mut warn = |key: &str, message: String| {
        let warning = document.error(key, message).to_string();
        findings.warnings.push(warning);
    };
    for (reach, index) in table.reach().into_iter().zip(0..) {
        if let Some(why) = unreached(&reach, config, document) {
            let name = config.routes.get(index).map_or("", |route| &route.name);
            warn(
                &format!("routes[{index}]"),
                format!("no call reaches {name}: {why}"),
            );
        }
    }
    if let Some(known) = known {
        for (route, index) in config.routes.iter().zip(0..) {
            for (below, service) in services(route) {
                if !known.contains(service) {
                    let message = format!("names {service}, which no source of discovery knows");
                    warn(&format!("routes[{index}]{below}"), message);
                }
            }
            for below in empty_subsets(route, config) {
                let message =
                    "is nobody: no endpoint of the service is like this, so its calls fail";
                warn(&format!("routes[{index}]{below}"), message.to_owned());
            }
        }
    }
    for (route, index) in config.routes.iter().zip(0..) {
        if pretends(route) {
            let message = "answers writes too, as if they had been done; say which methods it is for in match.methods, or give it the status of an error";
            warn(
                &format!("routes[{index}].fallback.answer"),
                message.to_owned(),
            );
        }
        if strays(route) {
            let message = "gets writes too that the service itself did not execute, except those with an Idempotency-Key, and neither \
                service knows what the other one executed; name methods that change nothing in match.methods, such as [GET]";
            warn(
                &format!("routes[{index}].fallback.service"),
                message.to_owned(),
            );
        }
    }
    for route in table.unanchored() {
        let key = format!("routes[{}].match.path_regex", route.index);
        warn(
            &key,
            "is looked for anywhere in the path; begin it with ^ to tie it to the start".to_owned(),
        );
    }
    for route in table.routes().iter().filter(|route| route.doubles_writes()) {
        let key = format!("routes[{}].mirror", route.index);
        let message = "sends copies of POST and of all else that must not run twice where the calls themselves go, or fall back to, so \
            what they do is done twice; give it a subset of its own, or name methods that change nothing in the match, such as [GET]";
        warn(&key, message.to_owned());
    }
    Ok(())
}

/// Why no call reaches a route, and what to do about it.
fn unreached(reach: &Reach, config: &NodeConfig, document: &Document) -> Option<String> {
    match reach {
        Reach::Shadowed(by) => Some(format!(
            "{} stands before it and takes whatever it matches; put it before that one, or remove it",
            named(*by, config, document)
        )),
        Reach::Unreachable(by) if by.is_empty() => {
            Some("what it asks for contradicts itself; correct its match, or remove it".to_owned())
        }
        Reach::Unreachable(by) => {
            let shown = by.iter().take(MOST_NAMED);
            let shown: Vec<String> = shown.map(|by| named(*by, config, document)).collect();
            let more = if by.len() > MOST_NAMED {
                " and others"
            } else {
                ""
            };
            Some(format!(
                "{}{more} stand before it and together take whatever it matches; put it before them, or remove it",
                shown.join(", ")
            ))
        }
        _ => None,
    }
}

/// A route's name and line.
fn named(index: usize, config: &NodeConfig, document: &Document) -> String {
    let key = format!("routes[{index}]");
    let name = config.routes.get(index).map_or("", |route| &route.name);
    match document.error(&key, "").place {
        Place::Position { line, .. } => format!("{name} (line {line})"),
        _ => name.to_owned(),
    }
}

/// The services that a route names, and the keys below it.
fn services(route: &RouteConfig) -> Vec<(String, &str)> {
    let matched = route.r#match.services.iter().zip(0..);
    let matched = matched.map(|(service, at)| (format!(".match.services[{at}]"), service.as_str()));
    let targets = route.to.iter().zip(0..);
    let targets = targets.filter_map(|(target, at)| {
        Some((format!(".to[{at}].service"), target.service.as_deref()?))
    });
    let mirror = route
        .mirror
        .iter()
        .filter_map(|mirror| mirror.service.as_deref());
    let mirror = mirror.map(|service| (".mirror.service".to_owned(), service));
    let fallback = route
        .fallback
        .iter()
        .filter_map(|fallback| fallback.service.as_deref());
    let fallback = fallback.map(|service| (".fallback.service".to_owned(), service));
    let others = mirror.chain(fallback);
    matched.chain(targets).chain(others).collect()
}

/// Whether calls that change something may be answered with a success by a route itself.
fn pretends(route: &RouteConfig) -> bool {
    let answer = route.fallback.as_ref().and_then(|it| it.answer.as_ref());
    answer.is_some_and(|answer| answer.status < FIRST_ERROR) && takes_writes(route)
}

/// Whether calls that change something may go to another service than theirs.
fn strays(route: &RouteConfig) -> bool {
    let other = route.fallback.as_ref().and_then(|it| it.service.as_ref());
    other.is_some() && takes_writes(route)
}

/// Whether calls that change something take it.
fn takes_writes(route: &RouteConfig) -> bool {
    let methods = &route.r#match.methods;
    let mut methods = methods.iter().map(|it| Method::from_bytes(it.as_bytes()));
    let is_write = |method: Result<Method, _>| !method.is_ok_and(|it| it.is_safe());
    methods.len() == 0 || methods.any(is_write)
}

/// The keys of the subsets that no endpoint of the configuration belongs to.
fn empty_subsets(route: &RouteConfig, config: &NodeConfig) -> Vec<String> {
    let targets = route.to.iter().zip(0..).map(|(target, at)| {
        let key = format!(".to[{at}].subset");
        (key, target.subset.as_ref(), target.service.as_deref())
    });
    let mirror = route.mirror.iter().map(|mirror| {
        let key = ".mirror.subset".to_owned();
        (key, mirror.subset.as_ref(), mirror.service.as_deref())
    });
    let is_empty = |subset: &SubsetConfig, service: Option<&str>| {
        // Which service is called is not known where neither target nor match names one.
        let called = &route.r#match.services;
        let is_it = |id: &String| match service {
            Some(service) => service == id,
            None => called.is_empty() || called.contains(id),
        };
        let mut endpoints = config.discovery.static_endpoints();
        !endpoints.any(|endpoint| is_it(&endpoint.id) && is_in(endpoint, subset))
    };
    targets
        .chain(mirror)
        .filter_map(|(key, subset, service)| is_empty(subset?, service).then_some(key))
        .collect()
}

/// Whether an endpoint of the configuration belongs to a subset; these have neither version nor metadata.
fn is_in(endpoint: &EndpointConfig, subset: &SubsetConfig) -> bool {
    subset.version.is_none()
        && subset.metadata.is_empty()
        && (subset.zone.is_none() || subset.zone == endpoint.zone)
        && subset.tags.iter().all(|tag| endpoint.tags.contains(tag))
}

/// The first status of an error (RFC 9110 section 15.5).
const FIRST_ERROR: u16 = 400;
/// Enough to see which they are.
const MOST_NAMED: usize = 5;
