//! Static lists.

use std::num::NonZeroU16;

use mesh_discovery::ServiceName;
use mesh_discovery::StaticEntry;
use mesh_discovery::StaticSource;

use crate::config::EndpointConfig;
use crate::config::NodeConfig;
use crate::error::Error;

/// The endpoints that stand in the configuration.
pub(super) fn source(config: &NodeConfig) -> Result<StaticSource, Error> {
    let entries: Result<Vec<_>, Error> = config.discovery.static_endpoints().map(entry).collect();
    StaticSource::new(entries?)
        .map_err(|source| Error::config("discovery.sources can't be used as they are", source))
}

fn entry(config: &EndpointConfig) -> Result<StaticEntry, Error> {
    let wrong = |source: mesh_transport::BoxError| {
        Error::config(
            format!(
                "discovery.sources: the endpoint of {} can't be used",
                config.id
            ),
            source,
        )
    };
    let id = ServiceName::parse(&config.id).map_err(|source| wrong(source.into()))?;
    let host = config
        .host
        .parse::<mesh_discovery::Host>()
        .map_err(|source| wrong(source.into()))?;
    let mut entry = StaticEntry::new(id, host, config.port.get());
    entry.weight = NonZeroU16::try_from(config.weight).map_err(|source| wrong(source.into()))?;
    entry.spiffe_id.clone_from(&config.spiffe_id);
    entry
        .public_key_fingerprint
        .clone_from(&config.public_key_fingerprint);
    entry.zone.clone_from(&config.zone);
    entry.tags.clone_from(&config.tags);
    Ok(entry)
}
