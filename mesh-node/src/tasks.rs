//! The one place that starts background work, and what all parts of a node share to do so.

use std::future::Future;
use std::time::Duration;

use mesh_transport::drain::Drain;
use mesh_transport::drain::Phase;
use mesh_transport::tasks::Tasks;

/// Runs `work` until it ends or draining begins.
pub(crate) fn until_drain(
    tasks: &Tasks,
    mut drain: Drain,
    work: impl Future<Output = ()> + Send + 'static,
) {
    tasks.start(async move {
        tokio::select! {
            () = work => {}
            () = drain.reached(Phase::Draining) => {}
        }
    });
}

/// Runs `work` every `period` until draining begins.
pub(crate) fn every(
    tasks: &Tasks,
    drain: Drain,
    period: Duration,
    mut work: impl FnMut() + Send + 'static,
) {
    until_drain(tasks, drain, async move {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            work();
        }
    });
}
