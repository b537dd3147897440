//! `mesh-node run`: builds the node, serves until a stop signal, drains.

use std::path::Path;

use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tracing_subscriber::EnvFilter;

use super::Context;
use super::check;
use super::report::Failure;
use super::report::Report;
use crate::config::NodeConfig;
use crate::error::Error;
use crate::node::Local;
use crate::node::Node;

/// Runs the node that the file at `path` describes.
pub(super) fn run(path: &Path, context: &Context) -> Result<Report, Failure> {
    // Everything that can be said with file and line is said before anything starts.
    check::run(path, context)?;
    let config = NodeConfig::load(path, &context.environment)?;
    log_to_stderr(&config);
    let runtime = runtime(&config)
        .map_err(|source| Failure::new("could not start the async runtime", source))?;
    runtime.block_on(async {
        // Before the listeners open, so that a stop signal is never missed.
        let mut terminate = signal(SignalKind::terminate()).map_err(unwatched)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(unwatched)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(unwatched)?;
        let mut node = Node::build(&config, Local::Listeners)
            .await
            .map_err(failed)?;
        let reload = node.reloads(path, &context.environment);
        announce(&node);
        let stop = async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    Some(()) = hangup.recv() => reload.reload(),
                }
            }
        };
        node.run(stop).await.map_err(failed)
    })?;
    Ok(Report::text(String::new()))
}

fn unwatched(source: std::io::Error) -> Failure {
    Failure::new("could not watch for stop signals", source)
}

fn failed(error: Error) -> Failure {
    let is_misuse = matches!(error, Error::Config { .. } | Error::ConfigFile(_));
    let failure = Failure::new("the node could not be started", error);
    if is_misuse {
        failure.into_misuse()
    } else {
        failure
    }
}

/// One worker needs no scheduler between threads, which makes every request cheaper.
fn runtime(config: &NodeConfig) -> std::io::Result<Runtime> {
    match config.runtime.worker_threads.map(std::num::NonZero::get) {
        Some(1) => Builder::new_current_thread().enable_all().build(),
        Some(threads) => Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build(),
        None => Builder::new_multi_thread().enable_all().build(),
    }
}

fn log_to_stderr(config: &NodeConfig) {
    // What watches files tells of each change at the lowest level: a log beside the configuration would feed itself.
    let filter = EnvFilter::new(format!("{},notify=info", config.log.level.as_str()));
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .json()
        .try_init();
    if let Err(error) = started {
        tracing::debug!(error, "a log is already set up");
    }
}

fn announce(node: &Node) {
    let addresses = node.addresses();
    tracing::info!(
        inbound = %addresses.inbound,
        outbound = addresses.outbound.map(tracing::field::display),
        admin = addresses.admin.map(tracing::field::display),
        "listening"
    );
}
