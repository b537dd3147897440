//! Following services.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use super::Client;
use super::Error;
use super::escaped;
use super::instance::endpoints;
use super::query::Answer;
use super::query::Query;
use super::query::Round;
use super::rights::Rights;
use super::turns::Place;
use super::turns::Turns;
use crate::endpoint::Endpoint;
use crate::endpoint::Refused;
use crate::name::ServiceName;
use crate::registry::Driver;
use crate::registry::Registry;
use crate::registry::RegistryConfig;
use crate::registry::Reporter;

/// What to ask Consul for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SourceConfig {
    /// The datacenter whose instances are wanted. Default that of the agent.
    pub datacenter: Option<String>,
    /// Tags that an instance must have, all of them. Default none.
    pub tags: Vec<String>,
    /// Which server may answer. Default [`Consistency::Leader`].
    pub consistency: Consistency,
    /// How long a query waits for a change, in place of the client's. An agent that hangs is noticed after it. Default
    /// 1 min.
    pub wait: Duration,
    /// How many connections are open at a time, a quarter of them for first answers. An agent takes 200 of one machine by
    /// default, and one counts for up to [`Self::wait`] after its end. While more services are watched they take turns of
    /// 2 s, so a change is seen that much later, and 10 s later at most. Default 64.
    pub connections: NonZeroUsize,
    /// The longest answer that is taken, in bytes. Default 32 MiB, 10,000 instances with their checks; those beyond
    /// 1 MiB are read one at a time.
    pub max_answer: usize,
}

/// Which of Consul's servers may answer (HTTP API, "Consistency Modes").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// The leader, which may have lost its office moments ago.
    #[default]
    Leader,
    /// The leader, once a majority has said that it still is: costs a round trip more.
    Verified,
    /// Any server, whose answer may be up to that old; also while there is no leader, which makes the list stale.
    Any {
        /// How long ago the server may have heard of its leader.
        max_age: Duration,
    },
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            datacenter: None,
            tags: Vec::new(),
            consistency: Consistency::Leader,
            wait: WAIT,
            connections: CONNECTIONS,
            max_answer: MAX_ANSWER,
        }
    }
}

impl SourceConfig {
    /// Instances of another datacenter.
    #[must_use]
    pub fn with_datacenter(self, datacenter: impl Into<String>) -> Self {
        Self {
            datacenter: Some(datacenter.into()),
            ..self
        }
    }

    /// Instances that have all these tags.
    #[must_use]
    pub fn with_tags(self, tags: Vec<String>) -> Self {
        Self { tags, ..self }
    }

    /// From other servers.
    #[must_use]
    pub fn with_consistency(self, consistency: Consistency) -> Self {
        Self {
            consistency,
            ..self
        }
    }

    /// Waiting for a change for another time.
    #[must_use]
    pub fn with_wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// Over another number of connections.
    #[must_use]
    pub fn with_connections(self, connections: NonZeroUsize) -> Self {
        Self {
            connections,
            ..self
        }
    }

    /// Taking answers of another length.
    #[must_use]
    pub fn with_max_answer(self, max_answer: usize) -> Self {
        Self { max_answer, ..self }
    }

    fn check(&self) -> Result<(), Error> {
        if self
            .tags
            .iter()
            .chain(&self.datacenter)
            .any(String::is_empty)
        {
            return Err(Error::Setting {
                what: "a datacenter or tag",
                reason: "it must not be empty",
            });
        }
        if self.wait.is_zero() {
            return Err(Error::Setting {
                what: "the wait of a query",
                reason: "it must not be zero",
            });
        }
        Ok(())
    }

    /// What is asked for.
    fn path(&self, service: &ServiceName) -> String {
        let mut parameters = Vec::new();
        if let Some(datacenter) = &self.datacenter {
            parameters.push(format!("dc={}", escaped(datacenter)));
        }
        parameters.extend(self.tags.iter().map(|tag| format!("tag={}", escaped(tag))));
        match self.consistency {
            Consistency::Leader => {}
            Consistency::Verified => parameters.push("consistent".to_owned()),
            Consistency::Any { .. } => parameters.push("stale".to_owned()),
        }
        let joined = if parameters.is_empty() { "" } else { "?" };
        let service = escaped(service.as_str());
        let parameters = parameters.join("&");
        format!("/v1/health/service/{service}{joined}{parameters}")
    }

    /// How old an answer may be that is too old; none where it is not.
    fn too_old(&self, headers: &HeaderMap) -> Option<Duration> {
        let Consistency::Any { max_age } = self.consistency else {
            return None;
        };
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let has_leader = text("x-consul-knownleader") != Some("false");
        let age = text("x-consul-lastcontact").and_then(|text| text.parse().ok());
        let age = Duration::from_millis(age.unwrap_or_default());
        (!has_leader || age > max_age).then_some(age)
    }
}

/// Services as Consul knows them. The driver must be awaited for as long as they are watched.
///
/// # Errors
///
/// [`Error::Setting`].
pub fn source(
    client: Client,
    config: SourceConfig,
    registry: RegistryConfig,
) -> Result<(Registry, Driver), Error> {
    config.check()?;
    let (registry, wants) = Registry::new(registry);
    let (turns, config) = (Turns::new(config.connections), Arc::new(config));
    let driver = Driver::follow_each(wants, move |reporter| {
        let (client, config, place) = (client.clone(), Arc::clone(&config), turns.join());
        async move { follow(&client, &config, &place, &reporter).await }
    });
    Ok((registry, driver))
}

/// Reports one service until it is dropped.
async fn follow(client: &Client, config: &SourceConfig, place: &Place, reporter: &Reporter) {
    let path = config.path(reporter.service());
    let mut query = client.watch(path).with_max_answer(config.max_answer);
    let mut rights = Rights::default();
    let mut has_list = false;
    loop {
        query.rest().await;
        let turn = place.take(query.starts_anew(), config.wait).await;
        query.set_wait(turn.wait);
        let asked = ask(&mut query, &mut rights, client, reporter.service()).await;
        drop(turn);
        let (too_old, found) = match asked {
            Ok(Round { headers, answer }) => (config.too_old(&headers), answer),
            Err(error) => {
                reporter.failed(&error);
                continue;
            }
        };
        // A list that is too old is better than none, and no more than that.
        if too_old.is_none() || !has_list {
            match found {
                None => reporter.confirmed(),
                Some(Answer { value, .. }) => {
                    let (list, refused) = value;
                    reporter.found_except(list, refused);
                    has_list = true;
                }
            }
        }
        if let Some(last_contact) = too_old {
            query.refuse();
            reporter.failed(&Error::Leaderless {
                url: client.url().to_owned(),
                path: query.asked().path.clone(),
                last_contact,
            });
        }
    }
}

/// One query, and another one about the token's rights where the answer is empty.
async fn ask(
    query: &mut Query,
    rights: &mut Rights,
    client: &Client,
    service: &ServiceName,
) -> Result<Round<(Vec<Endpoint>, Refused)>, Error> {
    let asked = query.round(|client, ask, fetched| {
        endpoints(&fetched.body).map_err(|source| ask.misunderstood(client, source))
    });
    let round = asked.await?;
    let Some(answer) = &round.answer else {
        return Ok(round);
    };
    let (list, refused) = &answer.value;
    if !list.is_empty() || refused.count > 0 {
        rights.forget();
        return Ok(round);
    }
    let needed = [("service", service.as_str()), ("node", "")];
    let granted = rights.check(client, query.asked(), &needed).await;
    granted.inspect_err(|_| query.refuse())?;
    Ok(round)
}

const WAIT: Duration = Duration::from_mins(1);
const CONNECTIONS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);
const MAX_ANSWER: usize = 32 << 20;

#[cfg(test)]
mod tests;
