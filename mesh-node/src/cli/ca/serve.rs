//! `mesh-node ca serve`: the authority as a service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_transport::tasks::Tasks;
use serde_json::json;
use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tracing_subscriber::EnvFilter;

use crate::ca_service::folder::CaFolder;
use crate::ca_service::server::CaServer;
use crate::ca_service::server::Settings;
use crate::cli::Context;
use crate::cli::report::Failure;
use crate::cli::report::Report;
use crate::node::wall_clock;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Folder of the authority.
    #[arg(long, default_value = "ca")]
    dir: PathBuf,
    /// Address that nodes reach it on.
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// How long certificates live, unless a node asks for less or more.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    lifetime: Duration,
    /// The longest that a node may ask for.
    #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
    max_lifetime: Duration,
    /// Every certificate is recorded here before it is given away. Default: audit.log in the folder.
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
}

pub(super) fn run(args: &Args, _context: &Context) -> Result<Report, Failure> {
    if args.lifetime.as_secs() == 0 || args.lifetime > args.max_lifetime {
        return Err(Failure::misuse(
            "--lifetime is to be at least a second and at most --max-lifetime",
        ));
    }
    let settings = Settings {
        listen: args.listen,
        lifetime: args.lifetime,
        max_lifetime: args.max_lifetime,
        audit: args
            .audit
            .clone()
            .unwrap_or_else(|| args.dir.join("audit.log")),
    };
    log_to_stderr();
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|source| Failure::new("could not start the async runtime", source))?;
    runtime.block_on(async {
        let unwatched = |source| Failure::new("could not watch for stop signals", source);
        // Before the listener opens, so that a stop signal is never missed.
        let mut terminate = signal(SignalKind::terminate()).map_err(unwatched)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(unwatched)?;
        let failed = |error| Failure::new("the certificate authority could not be served", error);
        let tasks = Tasks::new(Handle::current());
        let server = CaServer::build(CaFolder::new(&args.dir), settings, tasks, wall_clock);
        let server = server.map_err(failed)?;
        let address = server.address().map_err(failed)?;
        tracing::info!(%address, "listening");
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        server.run(stop).await.map_err(failed)
    })?;
    Ok(Report::new(String::new(), json!({ "ok": true })))
}

fn log_to_stderr() {
    let started = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(std::io::stderr)
        .json()
        .try_init();
    if let Err(error) = started {
        tracing::debug!(error, "a log is already set up");
    }
}

/// Signing takes a tenth of a millisecond; the rest is waiting.
const WORKERS: usize = 2;
