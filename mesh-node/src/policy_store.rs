//! The policies in force: the live one and, where there is one, the shadow beside it. They are replaced together, whole or
//! not at all, and whoever decides takes both at once.

mod ending;
mod intentions;
mod reload;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use arc_swap::Guard;
use mesh_auth::policy::IntentionConfig;
use mesh_auth::policy::Needs;
use mesh_auth::policy::Policy;
use mesh_auth::policy::Scope;
use parking_lot::Mutex;

pub(crate) use self::ending::Ending;
pub(crate) use self::intentions::Follow;
pub(crate) use self::reload::Reload;
pub use self::reload::ReloadHandle;
pub(crate) use self::reload::Shown;

use crate::adapt::policy::PolicyFault;
use crate::adapt::policy::Which;
use crate::adapt::policy::compile_beside;
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
    inputs: Mutex<Inputs>,
}

/// What the policies in force were made of; files and Consul change each a part.
#[derive(Debug)]
struct Inputs {
    config: PolicyConfig,
    intentions: Vec<IntentionConfig>,
}

impl PolicyStore {
    /// Compiles the policies of the start, with Consul's intentions beside the rules.
    pub(crate) fn new(
        config: &PolicyConfig,
        intentions: Vec<IntentionConfig>,
        scope: Scope,
    ) -> Result<Self, PolicyFault> {
        let first = build(config, &intentions, &scope, 1)?;
        Ok(Self {
            current: ArcSwap::from_pointee(first),
            scope,
            inputs: Mutex::new(Inputs {
                config: config.clone(),
                intentions,
            }),
        })
    }

    /// The policies in force. One request asks once, so that it never sees two generations.
    pub(crate) fn current(&self) -> Guard<Arc<Policies>> {
        self.current.load()
    }

    /// Puts other policies into force, and gives their generation.
    pub(crate) fn replace(&self, config: &PolicyConfig) -> Result<u64, PolicyFault> {
        let mut inputs = self.inputs.lock();
        let generation = self.current().generation.saturating_add(1);
        let next = build(config, &inputs.intentions, &self.scope, generation)?;
        self.current.store(Arc::new(next));
        inputs.config = config.clone();
        Ok(generation)
    }

    /// Puts other intentions into force beside the same rules, and gives the policies' generation and the intentions that
    /// were; nothing where they are the same.
    pub(crate) fn replace_intentions(
        &self,
        intentions: Vec<IntentionConfig>,
    ) -> Result<Option<(u64, Vec<IntentionConfig>)>, PolicyFault> {
        let mut inputs = self.inputs.lock();
        if inputs.intentions == intentions {
            return Ok(None);
        }
        let generation = self.current().generation.saturating_add(1);
        let next = build(&inputs.config, &intentions, &self.scope, generation)?;
        self.current.store(Arc::new(next));
        let old = std::mem::replace(&mut inputs.intentions, intentions);
        Ok(Some((generation, old)))
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

/// Compiles the policies of a configuration: both or none. Intentions stand beside the rules of both.
pub(crate) fn build(
    config: &PolicyConfig,
    intentions: &[IntentionConfig],
    scope: &Scope,
    generation: u64,
) -> Result<Policies, PolicyFault> {
    let shadow = config
        .shadow
        .as_deref()
        .map(|shadow| compile_beside(shadow, intentions, scope).map_err(Which::Shadow.fault()));
    let shadow = shadow.transpose()?;
    let live = compile_beside(config, intentions, scope).map_err(Which::Live.fault())?;
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
