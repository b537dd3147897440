//! The sources of the configuration, behind one interface.

mod fixed;
mod registries;

use std::sync::Arc;

use mesh_discovery::Belief;
use mesh_discovery::Combination;
use mesh_discovery::Combined;
use mesh_discovery::CombinedConfig;
use mesh_discovery::Discover;
use mesh_discovery::Driver;
use mesh_discovery::ServiceName;
use mesh_discovery::Vitals;
use mesh_resilience::random::Random;

use self::registries::Builder;
pub(super) use self::registries::announced;
pub(crate) use self::registries::password_in;
pub(crate) use self::registries::tls;
use super::cache;
use super::cache::Writer;
use super::control_planes::ControlPlanes;
use super::own::Own;
use super::registration::Registrar;
use crate::config::Combine;
use crate::config::DiscoveryConfig;
use crate::config::NodeConfig;
use crate::config::SourceConfig;
use crate::config::doubts;
use crate::error::Error;

/// Where services are, and the work that keeps it true.
pub(crate) struct Sources {
    pub(crate) discovery: Arc<dyn Discover>,
    /// To be run for as long as the sources are asked, by the names of their sources.
    pub(crate) drivers: Vec<(Arc<str>, Driver)>,
    /// The services that the configuration names: they are followed from the start.
    pub(crate) fixed: Vec<ServiceName>,
    /// Whether a source may know other services.
    pub(crate) looks_up: bool,
    /// The registries that this node registers with, by the names of their sources.
    pub(crate) registrars: Vec<Registrar>,
    pub(crate) control_planes: Arc<ControlPlanes>,
    /// Keeps the lists on disk.
    pub(crate) cache: Option<Writer>,
}

/// The sources that `config` names. Nothing is asked before their drivers run.
///
/// # Errors
///
/// [`Error::Config`], with the source that can't be used.
pub(crate) fn sources(
    config: &NodeConfig,
    own: &Own,
    random: &Arc<dyn Random>,
    vitals: &Arc<Vitals>,
) -> Result<Sources, Error> {
    let lists = fixed::source(config)?;
    let asks = |source: &SourceConfig| !matches!(source, SourceConfig::Static(_));
    let looks_up = config.discovery.sources.iter().any(asks);
    let mut fixed = lists.services();
    // Without a source to ask, one that is in no list is a mistake, which is said where its listener is opened.
    for upstream in config.outbound.upstreams.iter().filter(|_| looks_up) {
        let name = ServiceName::parse(&upstream.service);
        fixed.push(name.map_err(|source| Error::config("outbound.upstreams", source))?);
    }
    fixed.sort_unstable();
    fixed.dedup();

    let discovery = &config.discovery;
    let (cache, writer) = if looks_up {
        cache::open(&discovery.cache).unzip()
    } else {
        (None, None)
    };
    let builder = Builder {
        config,
        random,
        belief: belief(discovery)?,
        vitals,
        cache: cache.as_ref(),
        own,
    };
    let mut all: Vec<Arc<dyn Discover>> = Vec::new();
    let (mut drivers, mut registrars, mut has_lists) = (Vec::new(), Vec::new(), false);
    let mut control_planes = Vec::new();
    for (source, index) in discovery.sources.iter().zip(0..) {
        if let Some(doubt) = doubts::plaintext(source) {
            tracing::warn!("{doubt}");
        }
        match builder.source(source) {
            // All lists are one source, where the first of them stands.
            None if has_lists => {}
            None => {
                all.push(Arc::new(lists.clone()));
                has_lists = true;
            }
            Some(built) => {
                let built = built.map_err(|source| {
                    Error::config(format!("discovery.sources[{index}] can't be used"), source)
                })?;
                let name = Arc::clone(built.registry.name());
                control_planes.extend(built.control_plane);
                registrars.extend(
                    built
                        .registrar
                        .map(|registrar| (Arc::clone(&name), registrar)),
                );
                all.push(Arc::new(built.registry));
                drivers.push((name, built.driver));
            }
        }
    }
    let discovery = match (all.len(), all.pop()) {
        (_, None) => Arc::new(lists),
        (1, Some(one)) => one,
        (_, Some(last)) => {
            all.push(last);
            let (combined, driver) = Combined::new(all, combination(discovery));
            drivers.push((Arc::from("all sources together"), driver));
            Arc::new(combined)
        }
    };
    Ok(Sources {
        discovery,
        drivers,
        fixed,
        looks_up,
        registrars,
        control_planes: Arc::new(ControlPlanes::new(control_planes, Arc::clone(random))),
        cache: writer,
    })
}

fn belief(config: &DiscoveryConfig) -> Result<Belief, Error> {
    Belief::default()
        .with_grace(config.withdrawal.grace)
        .with_share(config.withdrawal.share)
        .map_err(|source| Error::config("discovery.withdrawal can't be used", source))
}

fn combination(config: &DiscoveryConfig) -> CombinedConfig {
    let combination = match config.combine {
        Combine::First => Combination::First,
        Combine::Merge => Combination::Merged,
    };
    CombinedConfig::default()
        .with_combination(combination)
        .with_failover_after(config.failover_after)
}
