//! The policies, and where their state is told.

use std::sync::Arc;

use mesh_auth::spiffe::TrustDomain;

use crate::audit::Auditor;
use crate::config::NodeConfig;
use crate::error::Error;
use crate::health::Board;
use crate::node::wall_clock;
use crate::policy_store::PolicyStore;
use crate::policy_store::Shown;
use crate::telemetry::Telemetry;

pub(super) fn policies(
    config: &NodeConfig,
    own: &TrustDomain,
    telemetry: &Arc<Telemetry>,
    auditor: Option<Auditor>,
) -> Result<Arc<Shown>, Error> {
    if config.policy.shadow_file.is_some() && config.policy.shadow.is_none() {
        let what = "policy.shadow_file was not read; load the configuration with NodeConfig::load";
        return Err(Error::missing(what.to_owned()));
    }
    let store = PolicyStore::new(&config.policy, own.clone()).map_err(|fault| Error::Config {
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
