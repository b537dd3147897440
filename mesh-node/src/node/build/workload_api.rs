//! The Workload API for programs on this machine, as the configuration says.

use std::sync::Arc;

use mesh_transport::tasks::Tasks;
use tokio::sync::watch;

use super::Own;
use crate::config::NodeConfig;
use crate::error::Error;
use crate::identity::Identity;
use crate::node::rotate::Publisher;
use crate::telemetry::Telemetry;
use crate::workload_api::Access;
use crate::workload_api::Page;
use crate::workload_api::Socket;
use crate::workload_api::WorkloadApi;

/// Opens the socket, and gives what new identities are published with.
pub(super) fn workload_api(
    config: &NodeConfig,
    (own, identity): (&Own, &Identity),
    telemetry: &Telemetry,
    tasks: &Tasks,
) -> Result<Option<(Publisher, WorkloadApi)>, Error> {
    let Some(settings) = &config.workload_api else {
        return Ok(None);
    };
    let ours = rustix::process::geteuid().as_raw();
    let uids = if settings.uids.is_empty() {
        vec![ours]
    } else {
        settings.uids.clone()
    };
    let access = if uids.iter().all(|uid| *uid == ours) {
        Access::Owner
    } else {
        Access::Group(settings.gid)
    };
    let socket = Socket::open(&settings.socket, access).map_err(|source| {
        let path = settings.socket.display();
        Error::config(
            format!("workload_api.socket {path} can't be opened"),
            source,
        )
    })?;
    let (pages, shown) = watch::channel(Arc::new(Page::new(&own.id, identity.material())?));
    let id = own.id.clone();
    let refused = telemetry.refused_programs.clone();
    let server = WorkloadApi::new(socket, uids, shown, (tasks.clone(), refused));
    Ok(Some((Publisher { id, pages }, server)))
}
