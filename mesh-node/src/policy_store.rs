//! The policies in force: the live one and, where there is one, the shadow beside it. They are replaced together, whole or
//! not at all, and whoever decides takes both at once.

mod ending;
mod reload;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use arc_swap::Guard;
use mesh_auth::policy::Needs;
use mesh_auth::policy::Policy;
use mesh_auth::policy::Scope;

pub(crate) use self::ending::Ending;
pub(crate) use self::reload::Reload;
pub use self::reload::ReloadHandle;
pub(crate) use self::reload::Shown;

use crate::adapt::policy::PolicyFault;
use crate::adapt::policy::Which;
use crate::adapt::policy::compile;
use crate::config::PolicyConfig;

/// What decides: never changed, only replaced.
#[derive(Debug)]
pub(crate) struct Policies {
    pub(crate) live: Policy,
    /// Evaluated beside the live one, and decides nothing.
    pub(crate) shadow: Option<Policy>,
    /// What either reads.
    pub(crate) needs: Needs,
    /// 1 for those of the start.
    pub(crate) generation: u64,
}

/// Holds the policies in force.
#[derive(Debug)]
pub(crate) struct PolicyStore {
    current: ArcSwap<Policies>,
    scope: Scope,
}

impl PolicyStore {
    /// Compiles the policies of the start.
    pub(crate) fn new(config: &PolicyConfig, scope: Scope) -> Result<Self, PolicyFault> {
        let first = build(config, &scope, 1)?;
        Ok(Self {
            current: ArcSwap::from_pointee(first),
            scope,
        })
    }

    /// The policies in force. One request asks once, so that it never sees two generations.
    pub(crate) fn current(&self) -> Guard<Arc<Policies>> {
        self.current.load()
    }

    /// Puts other policies into force, and gives their generation.
    pub(crate) fn replace(&self, config: &PolicyConfig) -> Result<u64, PolicyFault> {
        let generation = self.current().generation.saturating_add(1);
        let next = build(config, &self.scope, generation)?;
        self.current.store(Arc::new(next));
        Ok(generation)
    }

    /// The names of the live rules that end within 14 days of `now`, in seconds since 1970.
    pub(crate) fn expiring(&self, now: u64) -> Vec<String> {
        let current = self.current();
        let soon = now.saturating_add(SOON.as_secs());
        let ended: Vec<&str> = current.live.expired(now).collect();
        let ending = current.live.expired(soon);
        ending
            .filter(|rule| !ended.contains(rule))
            .map(str::to_owned)
            .collect()
    }
}

/// Compiles the policies of a configuration: both or none.
pub(crate) fn build(
    config: &PolicyConfig,
    scope: &Scope,
    generation: u64,
) -> Result<Policies, PolicyFault> {
    let shadow = config
        .shadow
        .as_deref()
        .map(|shadow| compile(shadow, scope).map_err(Which::Shadow.fault()));
    let shadow = shadow.transpose()?;
    let live = compile(config, scope).map_err(Which::Live.fault())?;
    let needs = live.needs().clone();
    Ok(Policies {
        needs: match &shadow {
            Some(shadow) => needs.and(shadow.needs()),
            None => needs,
        },
        live,
        shadow,
        generation,
    })
}

/// Long enough to ask whoever owns a rule what is to become of it.
const SOON: Duration = Duration::from_hours(14 * 24);
