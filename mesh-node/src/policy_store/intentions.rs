//! Consul's intentions, taken over while the node runs; or the last good ones kept, and said so.

use std::sync::Arc;

use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_auth::policy::IntentionConfig;
use mesh_transport::tasks::Tasks;

use super::Shown;
use crate::consul::intentions::Intentions;
use crate::stack::outbound::chain;

/// Keeps the intentions in force in step with Consul.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) source: Intentions,
    pub(crate) shown: Arc<Shown>,
    pub(crate) tasks: Tasks,
}

impl Follow {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut is_failing = false;
        loop {
            let taken = match self.source.next().await {
                Ok(intentions) => {
                    let taken = self.take_over(intentions).await;
                    if taken.is_err() {
                        self.source.refuse();
                    }
                    taken
                }
                Err(error) => Err(error),
            };
            match taken {
                Ok(()) if is_failing => {
                    tracing::info!("consul's intentions are current again");
                    self.shown.health.ok(PART);
                    is_failing = false;
                }
                Ok(()) => {}
                Err(error) => {
                    self.failed(&error, is_failing);
                    is_failing = true;
                }
            }
        }
    }

    async fn take_over(&self, intentions: Vec<IntentionConfig>) -> Result<(), String> {
        let (shown, count) = (Arc::clone(&self.shown), intentions.len());
        // The rules are compiled with them, which takes a while where there are ten thousand.
        let work = move || {
            let names: Vec<_> = intentions.iter().map(name).collect();
            let replaced = shown.store.replace_intentions(intentions);
            Ok::<_, String>((replaced.map_err(|fault| chain(&fault))?, names))
        };
        let work = self.tasks.blocking(work).await;
        let (replaced, names) = work.map_err(|error| error.to_string())??;
        let Some((generation, old)) = replaced else {
            return Ok(());
        };
        let metrics = &self.shown.telemetry.policy;
        for gone in old.iter().map(name).filter(|old| !names.contains(old)) {
            metrics.forget(&gone);
        }
        metrics.loaded(generation, (self.shown.clock)());
        metrics
            .intentions
            .set(i64::try_from(count).unwrap_or(i64::MAX));
        tracing::info!(generation, intentions = count, "intentions replaced");
        if let Some(auditor) = &self.shown.auditor {
            let event = Event::new(EventKind::Notice).with("what", "intentions replaced");
            auditor.note(event.with("generation", &*generation.to_string()));
        }
        Ok(())
    }

    fn failed(&self, error: &str, was_failing: bool) {
        self.shown.telemetry.policy.intention_failures.inc();
        let message = format!("the last good intentions of consul stay in force: {error}");
        self.shown.health.degraded(PART, message);
        // Consul may be away for hours.
        if was_failing {
            return tracing::debug!(error, "still no intentions");
        }
        tracing::error!(
            error,
            "no new intentions of consul; the last good ones stay"
        );
        if let Some(auditor) = &self.shown.auditor {
            let event = Event::new(EventKind::Error).with("what", "no new intentions");
            auditor.note(event.with("error", error));
        }
    }
}

/// As decisions name it.
fn name(intention: &IntentionConfig) -> Arc<str> {
    let (source, destination) = (&intention.source, &intention.destination);
    Arc::from(format!("intention:{source}=>{destination}"))
}

/// The part of the node that `/health` names.
const PART: &str = "intentions";
