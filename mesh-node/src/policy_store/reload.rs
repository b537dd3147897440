//! Taking over a changed policy while the node runs, or keeping the last good one and saying so.
//!
//! Of the configuration only the policy is taken over; what else has changed in it needs a restart, and is named.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_transport::tasks::Tasks;
use serde_json::Value;
use tokio::sync::Notify;

use super::Policies;
use super::PolicyStore;
use crate::adapt::policy::Located;
use crate::audit::Auditor;
use crate::config::ConfigError;
use crate::config::Document;
use crate::config::Environment;
use crate::config::NodeConfig;
use crate::health::Board;
use crate::stack::outbound::chain;
use crate::telemetry::Telemetry;
use crate::watch::Folders;
use crate::watch::Marks;
use crate::watch::folder_of;

/// Asks a running node to look at its policy again; see [`Node::reloads`](crate::Node::reloads).
#[derive(Clone, Debug, Default)]
pub struct ReloadHandle(Arc<Notify>);

impl ReloadHandle {
    /// Asks for it, whether or not a file has changed.
    pub fn reload(&self) {
        self.0.notify_one();
    }
}

/// Keeps the policies in force in step with their files.
#[derive(Debug)]
pub(crate) struct Reload {
    pub(crate) path: PathBuf,
    pub(crate) environment: Environment,
    pub(crate) asked: ReloadHandle,
    pub(crate) shown: Arc<Shown>,
    pub(crate) tasks: Tasks,
}

/// What a reload changes, and where it is told.
#[derive(Debug)]
pub(crate) struct Shown {
    /// What the node was started with.
    pub(crate) started: NodeConfig,
    pub(crate) store: Arc<PolicyStore>,
    pub(crate) health: Arc<Board>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) auditor: Option<Auditor>,
    pub(crate) clock: fn() -> SystemTime,
}

/// Why the last good policy stays.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Policy(Box<Located>),
}

impl Reload {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut config = self.shown.started.clone();
        let mut folders = Folders::watch(self.folders(&config), WHAT);
        // What changed since they were read for the start is seen at the first look.
        let mut seen = Marks::default();
        loop {
            let is_asked = tokio::select! {
                () = self.asked.0.notified() => true,
                () = folders.changed(|| self.marks(&config)) => false,
            };
            // Marked before it is read: what changes meanwhile gives another mark.
            let marks = self.marks(&config);
            if marks == seen && !is_asked {
                continue;
            }
            seen = marks;
            let (path, environment) = (self.path.clone(), self.environment.clone());
            let (shown, before) = (Arc::clone(&self.shown), config.clone());
            // Reading and compiling ten thousand rules takes a while.
            let work = move || shown.reload(&path, &environment, &before);
            let Ok(taken) = self.tasks.blocking(work).await else {
                continue;
            };
            if let Some(taken) = taken {
                // Other files than those that were marked: look at them once more.
                if self.files(&taken) != self.files(&config) {
                    seen = Marks::default();
                    folders.follow(self.folders(&taken), WHAT);
                }
                config = *taken;
            }
        }
    }

    fn files<'a>(&'a self, config: &'a NodeConfig) -> Vec<&'a Path> {
        let policy = &config.policy;
        let named = [&policy.rules_file, &policy.shadow_file];
        let named = named.into_iter().flatten().map(PathBuf::as_path);
        [self.path.as_path()].into_iter().chain(named).collect()
    }

    fn marks(&self, config: &NodeConfig) -> Marks {
        Marks::of(&self.files(config))
    }

    fn folders(&self, config: &NodeConfig) -> Vec<PathBuf> {
        self.files(config).into_iter().map(folder_of).collect()
    }
}

impl Shown {
    /// Takes over the policy that the files say, whole; gives the configuration, or nothing where the last good policy
    /// stays.
    fn reload(
        &self,
        path: &Path,
        environment: &Environment,
        before: &NodeConfig,
    ) -> Option<Box<NodeConfig>> {
        match self.take_over(path, environment, before) {
            Ok(config) => {
                self.health.ok(PART);
                self.show_restart(&config);
                Some(config)
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(error, "new policy refused; the last good one stays");
                self.telemetry.policy.reload_failures.inc();
                if let Some(auditor) = &self.auditor {
                    let event = Event::new(EventKind::Error).with("what", "policy refused");
                    auditor.note(event.with("error", &*error));
                }
                let message = format!("the last good policy stays in force: {error}");
                self.health.degraded(PART, message);
                None
            }
        }
    }

    fn take_over(
        &self,
        path: &Path,
        environment: &Environment,
        before: &NodeConfig,
    ) -> Result<Box<NodeConfig>, ReloadError> {
        let document = Document::read(path, environment)?;
        let mut config = Box::new(document.config()?);
        config.identity.learnt.clone_from(&before.identity.learnt);
        if config.policy == before.policy {
            return Ok(config);
        }
        let old = Arc::clone(&self.store.current());
        let generation = self
            .store
            .replace(&config.policy)
            .map_err(|fault| ReloadError::Policy(Box::new(fault.located(&config, &document))))?;
        self.forget(&old);
        self.telemetry.policy.loaded(generation, (self.clock)());
        let rules = self.store.current().live.len();
        tracing::info!(generation, rules, "policy replaced");
        if let Some(auditor) = &self.auditor {
            let event = Event::new(EventKind::Notice).with("what", "policy replaced");
            auditor.note(event.with("generation", &*generation.to_string()));
        }
        Ok(config)
    }

    /// Drops the metrics of rules that are no more.
    fn forget(&self, old: &Policies) {
        let metrics = &self.telemetry.policy;
        let new = self.store.current();
        let kept: std::collections::HashSet<_> = new.live.names().collect();
        for rule in old.live.names().filter(|rule| !kept.contains(rule)) {
            metrics.forget(rule);
        }
        let names = |policies: &Policies| -> std::collections::HashSet<Arc<str>> {
            let shadow = policies.shadow.iter();
            shadow.flat_map(|shadow| shadow.names().cloned()).collect()
        };
        for rule in names(old).difference(&names(&new)) {
            metrics.forget_shadow(rule);
        }
    }

    /// Says which sections differ from those that the node was started with.
    fn show_restart(&self, config: &NodeConfig) {
        let changed = changed_sections(&self.started, config);
        if changed.is_empty() {
            return self.health.ok(RESTART_PART);
        }
        let sections = changed.join(", ");
        tracing::warn!(
            sections,
            "the configuration has changed beside its policy; restart to take that over"
        );
        let message = format!("changed, and needs a restart: {sections}");
        self.health.note(RESTART_PART, message);
    }
}

/// The sections in which two configurations differ, but for what is taken over of the policy.
fn changed_sections(old: &NodeConfig, new: &NodeConfig) -> Vec<String> {
    let (Value::Object(mut before), Value::Object(mut after)) = (old.redacted(), new.redacted())
    else {
        return Vec::new();
    };
    before.remove("policy");
    after.remove("policy");
    let mut changed: Vec<String> = before
        .keys()
        .chain(after.keys())
        .filter(|key| before.get(*key) != after.get(*key))
        .cloned()
        .collect();
    // Whose intentions are followed is settled at the start.
    if old.policy.consul != new.policy.consul {
        changed.push("policy.consul".to_owned());
    }
    changed.sort_unstable();
    changed.dedup();
    let mut same_policy = new.clone();
    same_policy.policy = old.policy.clone();
    if changed.is_empty() && same_policy != *old {
        changed.push("a secret".to_owned());
    }
    changed
}

const WHAT: &str = "policy";
/// The part of the node that `/health` names.
const PART: &str = "policy";
const RESTART_PART: &str = "configuration";
