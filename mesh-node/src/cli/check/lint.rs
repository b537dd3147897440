//! What is doubtful about the rules of a node, with the line of each.

use mesh_auth::policy::FindingKind;
use mesh_auth::policy::KnownService;
use mesh_auth::policy::Severity;
use mesh_auth::policy::Surroundings;
use mesh_auth::policy::lint;
use mesh_auth::spiffe::TrustDomain;

use super::Context;
use super::Failure;
use super::Findings;
use crate::adapt::policy::written;
use crate::config::Document;
use crate::config::NodeConfig;

/// Looks through the rules that are about this node's service; those of others may stand in a file that nodes share.
pub(super) fn look(
    config: &NodeConfig,
    own: &TrustDomain,
    (document, context): (&Document, &Context),
    findings: &mut Findings,
) -> Result<(), Failure> {
    let rules = &config.policy.rules;
    let surroundings = surroundings(config, own, context.unix_seconds());
    for found in lint(&written(&config.policy), &surroundings) {
        let place = rules.iter().position(|rule| rule.name == found.rule);
        let Some((index, rule)) = place.and_then(|index| Some((index, rules.get(index)?))) else {
            continue;
        };
        let is_ours = rule.to.service == config.service.id || rule.to.service == "*";
        if !is_ours || found.severity == Severity::Note {
            continue;
        }
        let message = format!("rule {}: {}", found.rule, found.message);
        let place = document.error(&format!("policy.rules[{index}]"), message);
        if (found.kind, found.severity) == (FindingKind::Unenforceable, Severity::Error) {
            return Err(place.into());
        }
        findings.warnings.push(place.to_string());
    }
    Ok(())
}

/// What the node knows of where its rules hold. It does not know who may call it, so whoever a rule names may be there.
pub(in crate::cli) fn surroundings(
    config: &NodeConfig,
    own: &TrustDomain,
    now: u64,
) -> Surroundings {
    let service = &config.service;
    let mut ports: Vec<u16> = service.tcp.iter().map(|tcp| tcp.listen.port()).collect();
    let own_service = if service.app.is_none() && !ports.is_empty() {
        KnownService::tcp(&ports)
    } else {
        ports.push(service.listen.port());
        KnownService::http(&ports)
    };
    let prefix = format!("spiffe://{own}/");
    let rules = &config.policy.rules;
    let named = rules.iter().flat_map(|rule| {
        let callers = rule.from.iter().map(String::as_str);
        callers.chain([rule.to.service.as_str()])
    });
    let credentials = config.auth.knows_users();
    let federation = config.identity.federation.iter();
    let surroundings = federation
        .filter_map(|other| TrustDomain::parse(&other.trust_domain).ok())
        .fold(Surroundings::new(own, now), |known, other| {
            known.with_federated(&other)
        })
        .with_credentials(credentials);
    named
        .map(|name| name.strip_prefix(&prefix).unwrap_or(name))
        .fold(surroundings, |known, name| {
            known.with_service(name, KnownService::http(&[]))
        })
        .with_service(&service.id, own_service)
}
