//! Consul's intentions about calls of this service, as a part of the policy.
//!
//! The list of all intentions says when something changes, but it leaves out, without a word, what the token may not read.
//! So what counts is the answer to another question, which Consul refuses where the token may not know it: which intentions
//! match calls of this service.

use std::sync::Arc;
use std::time::Duration;

use mesh_auth::policy::IntentionConfig;
use mesh_discovery::consul::Client;
use mesh_discovery::consul::Query;
use mesh_resilience::random::Random;
use serde::de::IgnoredAny;

use self::wire::Intention;
use self::wire::Matched;
use super::client;
use crate::config::NodeConfig;
use crate::error::Error;
use crate::stack::outbound::chain;

mod wire;

/// Where intentions come from.
#[derive(Debug)]
pub(crate) struct Intentions {
    client: Client,
    changes: Query,
    /// What Consul calls this service, and what policies call it.
    service: String,
    name: String,
}

impl Intentions {
    /// What `policy.consul` says, where it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] or [`Error::Read`].
    pub(crate) fn new(config: &NodeConfig, random: Arc<dyn Random>) -> Result<Option<Self>, Error> {
        let Some(consul) = &config.policy.consul else {
            return Ok(None);
        };
        let client = client(consul, "policy.consul", random)?;
        let service = consul
            .service
            .clone()
            .unwrap_or_else(|| config.service.id.clone());
        // Names of services hold nothing that a URL or a filter would take for more.
        let filter =
            format!("?filter=DestinationName%3D%3D%22{service}%22+or+DestinationName%3D%3D%22*%22");
        Ok(Some(Self {
            changes: client
                .watch(format!("/v1/connect/intentions{filter}"))
                .accepting_filtered(),
            client,
            service,
            name: config.service.id.clone(),
        }))
    }

    /// The intentions of the start.
    ///
    /// # Errors
    ///
    /// The last thing that went wrong within `timeout`.
    pub(crate) async fn first(&mut self, timeout: Duration) -> Result<Vec<IntentionConfig>, Error> {
        let mut last = None;
        let asking = async {
            loop {
                match self.next().await {
                    Ok(found) => return found,
                    Err(error) => {
                        tracing::warn!(error, "no intentions yet; asking again");
                        last = Some(error);
                    }
                }
            }
        };
        let asked = tokio::time::timeout(timeout, asking).await;
        asked.map_err(|elapsed| {
            let why = last.unwrap_or_else(|| elapsed.to_string());
            Error::config(
                "policy.consul gives no intentions, and without them nobody can say what is denied",
                why,
            )
        })
    }

    /// Says that what came last can't be put into force.
    pub(crate) fn refuse(&mut self) {
        self.changes.refuse();
    }

    /// Waits until the intentions may have changed, and gives those about calls of this service.
    ///
    /// # Errors
    ///
    /// Why Consul's answer can't be had or can't be enforced, as a sentence; call again to go on.
    pub(crate) async fn next(&mut self) -> Result<Vec<IntentionConfig>, String> {
        let changed = self.changes.next::<IgnoredAny>().await;
        changed.map_err(|error| chain(&error))?;
        let read = self.read().await;
        if read.is_err() {
            self.changes.refuse();
        }
        read
    }

    async fn read(&self) -> Result<Vec<IntentionConfig>, String> {
        let service = &self.service;
        let path = format!("/v1/connect/intentions/match?by=destination&name={service}");
        let matched: Matched = self
            .client
            .get(&path)
            .await
            .map_err(|error| chain(&error))?;
        let found = matched.into_iter().find(|(name, _)| name == service);
        let (_, found) =
            found.ok_or_else(|| format!("consul's answer to {path} says nothing of {service}"))?;
        let read = found.unwrap_or_default().into_iter();
        let mut read = read
            .map(Intention::read)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| chain(&error))?;
        for intention in &mut read {
            if intention.destination == *service {
                intention.destination.clone_from(&self.name);
            }
        }
        Ok(read)
    }
}
