//! The policies, and where their state is told.

use std::sync::Arc;

use mesh_audit::EventKind;
use mesh_auth::policy::DEFAULT_RULE;
use mesh_auth::policy::IntentionConfig;

use crate::adapt::policy::scope_of;
use crate::audit::Auditor;
use crate::config::NodeConfig;
use crate::decision::Recent;
use crate::error::Error;
use crate::health::Board;
use crate::node::build::Own;
use crate::node::build::a_few_each_second;
use crate::node::wall_clock;
use crate::policy_store::PolicyStore;
use crate::policy_store::Shown;
use crate::stack::inbound::Authorizer;
use crate::telemetry::Telemetry;

pub(super) fn policies(
    config: &NodeConfig,
    (own, intentions): (&Own, Vec<IntentionConfig>),
    telemetry: &Arc<Telemetry>,
    auditor: Option<Auditor>,
) -> Result<Arc<Shown>, Error> {
    if config.policy.shadow_file.is_some() && config.policy.shadow.is_none() {
        let what = "policy.shadow_file was not read; load the configuration with NodeConfig::load";
        return Err(Error::missing(what.to_owned()));
    }
    let in_force = i64::try_from(intentions.len()).unwrap_or(i64::MAX);
    telemetry.policy.intentions.set(in_force);
    let store = PolicyStore::new(
        &config.policy,
        intentions,
        scope_of(config, &own.trust_domain),
    )
    .map_err(|fault| Error::Config {
        what: fault.to_string(),
        source: Some(fault.into_source().into()),
    })?;
    telemetry.policy.loaded(1, wall_clock());
    Ok(Arc::new(Shown {
        started: config.clone(),
        store: Arc::new(store),
        health: Arc::new(Board::default()),
        telemetry: Arc::clone(telemetry),
        auditor,
        clock: wall_clock,
    }))
}

pub(super) fn authorizer(
    config: &NodeConfig,
    own: &Own,
    policies: &Shown,
) -> Result<Authorizer, Error> {
    let auditor = policies.auditor.as_ref();
    Ok(Authorizer {
        service: Arc::clone(&own.name),
        port: config.service.listen.port(),
        policies: Arc::clone(&policies.store),
        random: Arc::clone(&own.seed),
        telemetry: Arc::clone(&policies.telemetry),
        logged: Arc::new(a_few_each_second()?),
        is_recorded: auditor.is_some_and(|auditor| auditor.records(EventKind::Message)),
        recent: Arc::new(Recent::default()),
        by_default: Arc::from(DEFAULT_RULE),
    })
}
