//! A blocking query: the same request again and again, each waiting on Consul's side for a change.

use std::time::Duration;

use http::HeaderMap;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::Client;
use super::Error;
use super::exchange::ask;
use super::exchange::decode;

/// Watches one path of Consul's API.
#[derive(Debug)]
pub struct Query {
    client: Client,
    path: String,
    state: State,
    accepts_filtered: bool,
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
            accepts_filtered: false,
            last: None,
        }
    }

    /// Takes answers too that lack what the ACL token may not read, for who only wants to know when something changes.
    /// Consul before 1.11 says nothing of such a lack, so an empty answer of it is no proof that there is nothing.
    #[must_use]
    pub fn accepting_filtered(mut self) -> Self {
        self.accepts_filtered = true;
        self
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
            let asking = ask(&self.client, &self.path, self.state.index).await;
            let fetched = asking.inspect_err(|_| self.state.fail())?;
            let index = index_of(&fetched.headers);
            if asked != 0 && index == asked {
                self.state.advance(index);
                continue;
            }
            let value = decode(&self.client, &self.path, &fetched, self.accepts_filtered);
            let value = value.inspect_err(|_| self.state.fail())?;
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
