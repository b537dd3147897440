//! A blocking query: the same request again and again, each waiting on Consul's side for a change.

use std::time::Duration;

use http::HeaderMap;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::Client;
use super::Error;
use super::exchange::Ask;
use super::exchange::Fetched;

/// Watches one path of Consul's API.
#[derive(Debug)]
pub struct Query {
    client: Client,
    ask: Ask,
    state: State,
    accepts_filtered: bool,
    /// Before when the next request does not go out.
    due: Option<Instant>,
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

/// What came of one request.
#[derive(Debug)]
pub(super) struct Round<T> {
    pub(super) headers: HeaderMap,
    /// None where nothing has changed.
    pub(super) answer: Option<Answer<T>>,
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
    pub(super) fn new(client: Client, ask: Ask) -> Self {
        Self {
            client,
            ask,
            state: State::default(),
            accepts_filtered: false,
            due: None,
        }
    }

    /// Takes answers too that lack what the ACL token may not read, for who only wants to know when something changes.
    /// Consul before 1.11 says nothing of such a lack, so an empty answer of it is no proof that there is nothing.
    #[must_use]
    pub fn accepting_filtered(mut self) -> Self {
        self.accepts_filtered = true;
        self
    }

    /// Takes answers of up to that many bytes, in place of [`Config::max_answer`](super::Config::max_answer).
    #[must_use]
    pub fn with_max_answer(mut self, bytes: usize) -> Self {
        self.ask.max_answer = bytes;
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
            let answered = self.round(|client, ask, fetched| ask.decode(client, fetched));
            if let Some(answer) = answered.await?.answer {
                return Ok(answer);
            }
        }
    }

    /// Says that the last answer can't be used: it counts as a failure, and the next call asks for it anew.
    pub fn refuse(&mut self) {
        self.state.fail();
        self.due = Some(Instant::now() + self.state.pause((self.client.0.random)()));
    }

    /// Whether the last request failed.
    pub fn is_failing(&self) -> bool {
        self.state.failures > 0
    }

    /// One request, which ends after `wait` at the latest. `read` makes sense of what is new.
    pub(super) async fn round<T>(
        &mut self,
        read: impl FnOnce(&Client, &Ask, &Fetched) -> Result<T, Error>,
    ) -> Result<Round<T>, Error> {
        self.rest().await;
        // A request that is given up under way counts as asked too.
        let start = Instant::now();
        self.due = Some(start + self.state.pause(0));
        self.ask.index = self.state.index;
        let fetched = self.ask.send(&self.client).await;
        let judged = fetched.and_then(|fetched| self.judge(fetched, read));
        if judged.is_err() {
            self.state.fail();
        }
        self.due = Some(start + self.state.pause((self.client.0.random)()));
        judged
    }

    /// Waits until the next request may go out.
    pub(super) async fn rest(&self) {
        if let Some(due) = self.due {
            tokio::time::sleep_until(due).await;
        }
    }

    /// Whether the next request is answered at once, since nothing is known to wait beyond.
    pub(super) fn starts_anew(&self) -> bool {
        self.state.index == 0
    }

    /// The request.
    pub(super) fn asked(&self) -> &Ask {
        &self.ask
    }

    /// Waits no longer than this on Consul's side from now on.
    pub(super) fn set_wait(&mut self, wait: Duration) {
        self.ask.wait = wait;
    }

    fn judge<T>(
        &mut self,
        fetched: Fetched,
        read: impl FnOnce(&Client, &Ask, &Fetched) -> Result<T, Error>,
    ) -> Result<Round<T>, Error> {
        let index = index_of(&fetched.headers);
        let is_new = self.ask.index == 0 || index != self.ask.index;
        let mut answer = None;
        if is_new {
            if !self.accepts_filtered {
                self.ask.refuse_filtered(&self.client, &fetched)?;
            }
            let value = read(&self.client, &self.ask, &fetched)?;
            answer = Some(Answer { value, index });
        }
        self.state.advance(index);
        Ok(Round {
            headers: fetched.headers,
            answer,
        })
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
