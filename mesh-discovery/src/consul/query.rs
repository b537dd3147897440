//! A blocking query: the same request again and again, each waiting on Consul's side for a change.

use std::time::Duration;

use http::HeaderMap;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::Client;
use super::Error;
use super::exchange::fetch;

/// Watches one path of Consul's API.
#[derive(Debug)]
pub struct Query {
    client: Client,
    path: String,
    state: State,
    /// When the last request went out.
    last: Option<Instant>,
}

/// An answer that is new.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer<T> {
    /// What Consul says.
    pub value: T,
    /// Consul's `X-Consul-Index` of it.
    pub index: u64,
}

/// What is known between two requests; pure.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct State {
    /// The index to wait beyond; 0 asks without waiting.
    index: u64,
    /// Failures in a row.
    failures: u32,
}

impl Query {
    pub(super) fn new(client: Client, path: String) -> Self {
        Self {
            client,
            path,
            state: State::default(),
            last: None,
        }
    }

    /// Waits for the next answer: the first time whatever it is, then each time it may have changed.
    ///
    /// After a failure the next call waits before it asks: 1 s, doubled with each failure in a row up to 10 s, of which a
    /// random half. However often the answer changes, Consul is asked at most four times a second.
    ///
    /// # Errors
    ///
    /// [`Error`]; call again to go on.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is lost but the request under way, and the next call asks the same.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Answer<T>, Error> {
        loop {
            let pause = self.state.pause((self.client.0.random)());
            if let Some(last) = self.last {
                tokio::time::sleep_until(last + pause).await;
            }
            self.last = Some(Instant::now());
            let asked = self.state.index;
            let fetched = self.ask().await.inspect_err(|_| self.state.fail())?;
            // What takes long to come is followed by the next request at once.
            let index = index_of(&fetched.0);
            if asked != 0 && index == asked {
                self.state.advance(index);
                continue;
            }
            let value = serde_json::from_slice(&fetched.1);
            let value = value.map_err(|source| {
                self.state.fail();
                Error::Answer {
                    url: self.client.url().to_owned(),
                    path: self.path.clone(),
                    source: source.into(),
                }
            })?;
            self.state.advance(index);
            return Ok(Answer { value, index });
        }
    }

    /// Says that the last answer can't be used: it counts as a failure, and the next call asks for it anew.
    pub fn refuse(&mut self) {
        self.state.fail();
    }

    /// Whether the last request failed.
    pub fn is_failing(&self) -> bool {
        self.state.failures > 0
    }

    async fn ask(&self) -> Result<(HeaderMap, bytes::Bytes), Error> {
        let inner = &self.client.0;
        let joined = if self.path.contains('?') { '&' } else { '?' };
        let (target, limit) = if self.state.index == 0 {
            (self.path.clone(), inner.timeout)
        } else {
            let (index, wait) = (self.state.index, inner.wait);
            let target = format!(
                "{}{joined}index={index}&wait={}ms",
                self.path,
                wait.as_millis()
            );
            // Consul adds up to a sixteenth of the wait, so that clients spread out.
            (target, wait + wait / 16 + inner.timeout)
        };
        let asking = fetch(&self.client, &self.path, &target);
        let answered = tokio::time::timeout(limit, asking).await;
        let fetched = answered.map_err(|_elapsed| Error::Timeout {
            url: self.client.url().to_owned(),
            path: self.path.clone(),
            limit,
        })??;
        if fetched
            .headers
            .get("x-consul-results-filtered-by-acls")
            .is_some_and(|value| value == "true")
        {
            return Err(Error::Filtered {
                url: self.client.url().to_owned(),
                path: self.path.clone(),
            });
        }
        Ok((fetched.headers, fetched.body))
    }
}

impl State {
    /// How long after the last request the next one may go out.
    fn pause(self, random: u64) -> Duration {
        if self.failures == 0 {
            // Without an index every request is answered at once.
            return if self.index == 0 {
                UNINDEXED_PAUSE
            } else {
                SHORTEST_PAUSE
            };
        }
        let doublings = self.failures.saturating_sub(1).min(16);
        let full = FIRST_BACKOFF
            .saturating_mul(1 << doublings)
            .min(MAX_BACKOFF);
        let half = full / 2;
        let thousandths = u32::try_from(random % 1000).unwrap_or_default();
        half + half * thousandths / 1000
    }

    /// Takes over the index of an answer. One that went back, as after a restore of Consul's data, starts anew.
    fn advance(&mut self, index: u64) {
        self.failures = 0;
        self.index = if index < self.index { 0 } else { index };
    }

    fn fail(&mut self) {
        self.failures = self.failures.saturating_add(1);
        // Whoever answers next may be a Consul that counts anew.
        self.index = 0;
    }
}

/// Zero, which starts anew, where there is none.
fn index_of(headers: &HeaderMap) -> u64 {
    let value = headers.get("x-consul-index");
    let value = value.and_then(|value| value.to_str().ok()?.parse().ok());
    value.unwrap_or_default()
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const UNINDEXED_PAUSE: Duration = Duration::from_secs(1);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
