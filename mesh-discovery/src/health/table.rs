//! The checks of all endpoints of one service, and when each is due.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::error::Error;
use crate::health::Check;
use crate::health::HealthConfig;
use crate::health::Status;

/// The checks of one service's endpoints, without a clock and without a network.
///
/// [`CheckTable::update`] says which endpoints there are, [`CheckTable::take_due`] which to probe now, and
/// [`CheckTable::record`] takes the outcomes.
#[derive(Debug)]
pub struct CheckTable {
    config: HealthConfig,
    entries: HashMap<Arc<str>, Entry>,
}

#[derive(Debug)]
struct Entry {
    endpoint: Arc<Endpoint>,
    check: Check,
    due: Instant,
    is_probed: bool,
    since: Option<Instant>,
    last_probe: Option<Instant>,
    reason: Option<Arc<str>>,
}

/// An endpoint and what the checks say of it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Its status.
    pub status: Status,
    /// Since when it is that; never yet where nothing is known.
    pub since: Option<Instant>,
    /// When the last probe ended.
    pub last_probe: Option<Instant>,
    /// Why that one failed, in at most 500 characters; nothing where it did not.
    pub reason: Option<Arc<str>>,
}

impl CheckTable {
    /// Begins without endpoints.
    ///
    /// # Errors
    ///
    /// [`Error::HealthConfig`] when the interval or the timeout is out of range.
    pub fn new(config: HealthConfig) -> Result<Self, Error> {
        config.check()?;
        Ok(Self {
            config,
            entries: HashMap::new(),
        })
    }

    /// Takes the endpoints that there are now. Those that were there keep what is known of them, unless
    /// they became another peer ([`Endpoint::is_same_peer`]); new ones are probed soon, spread over at most one interval.
    ///
    /// `random` moves the first of these by up to a tenth of the interval, for many callers begin at the same time.
    pub fn update(&mut self, now: Instant, endpoints: &Endpoints, random: u64) {
        let mut before = std::mem::take(&mut self.entries);
        let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX).max(1);
        // Thousands of connections in one moment would look like an attack to both ends.
        let step = (self.config.interval / count).min(MAX_STEP);
        let mut due = now + self.config.interval * thousandths(random) / 10_000;
        for endpoint in endpoints.iter() {
            let (key, entry) = match before.remove_entry(endpoint.id.as_str()) {
                Some((key, old)) if old.endpoint.is_same_peer(endpoint) => (
                    key,
                    Entry {
                        endpoint: Arc::clone(endpoint),
                        ..old
                    },
                ),
                _ => {
                    let entry = Entry {
                        endpoint: Arc::clone(endpoint),
                        check: Check::new(),
                        due,
                        is_probed: false,
                        since: None,
                        last_probe: None,
                        reason: None,
                    };
                    due += step;
                    (endpoint.id.as_str().into(), entry)
                }
            };
            self.entries.insert(key, entry);
        }
    }

    /// The endpoints to probe now, the longest overdue first, at most `limit`; each is not due again before
    /// its outcome is recorded.
    pub fn take_due(&mut self, now: Instant, limit: usize) -> Vec<Arc<Endpoint>> {
        let mut due: Vec<_> = self
            .entries
            .values_mut()
            .filter(|entry| !entry.is_probed && entry.due <= now)
            .collect();
        due.sort_unstable_by(|a, b| (a.due, &a.endpoint.id).cmp(&(b.due, &b.endpoint.id)));
        due.truncate(limit);
        let take = |entry: &mut Entry| {
            entry.is_probed = true;
            Arc::clone(&entry.endpoint)
        };
        due.into_iter().map(take).collect()
    }

    /// When the next endpoint is due, not counting those that are being probed.
    pub fn next_due(&self) -> Option<Instant> {
        self.entries
            .values()
            .filter(|entry| !entry.is_probed)
            .map(|entry| entry.due)
            .min()
    }

    /// Takes the outcome of a probe in, a failure with its reason; gives the status if it changed. An outcome for an
    /// endpoint that is gone, has become another peer or was not being probed says nothing.
    ///
    /// `random` moves the next probe by up to a tenth of the interval, so that probes of many callers do not fall together.
    pub fn record(
        &mut self,
        now: Instant,
        endpoint: &Endpoint,
        outcome: Result<(), &str>,
        random: u64,
    ) -> Option<Status> {
        let entry = self.entries.get_mut(endpoint.id.as_str())?;
        if !entry.is_probed || !entry.endpoint.is_same_peer(endpoint) {
            return None;
        }
        entry.is_probed = false;
        entry.due = now + self.config.interval * (900 + thousandths(random) / 5) / 1000;
        entry.last_probe = Some(now);
        entry.reason = outcome.err().map(|reason| {
            let shown = reason.chars().filter(|c| !c.is_control());
            Arc::from(shown.take(MAX_REASON).collect::<String>())
        });
        let changed = entry.check.record(&self.config, outcome.is_ok())?;
        entry.since = Some(now);
        Some(changed)
    }

    /// Every endpoint and what is known of it, in the order of the list.
    pub fn report(&self, endpoints: &Endpoints) -> Arc<[EndpointHealth]> {
        let of = |endpoint: &Arc<Endpoint>| {
            let entry = self.entries.get(endpoint.id.as_str());
            EndpointHealth {
                endpoint: Arc::clone(endpoint),
                status: entry.map_or(Status::Unknown, |entry| entry.check.status()),
                since: entry.and_then(|entry| entry.since),
                last_probe: entry.and_then(|entry| entry.last_probe),
                reason: entry.and_then(|entry| entry.reason.clone()),
            }
        };
        endpoints.iter().map(of).collect()
    }

    /// What is known of an endpoint; nothing of one that is not there.
    pub fn status(&self, id: &str) -> Status {
        self.entries
            .get(id)
            .map_or(Status::Unknown, |entry| entry.check.status())
    }

    /// The endpoints that may be used: all but the unhealthy ones, or all when every one is unhealthy, for
    /// then the checks are more likely wrong than the whole service gone.
    pub fn usable(&self, endpoints: &Endpoints, revision: u64) -> Endpoints {
        let usable = endpoints.filtered(revision, |endpoint| self.status(&endpoint.id).is_usable());
        // threat 50
        if usable.is_empty() {
            endpoints.clone().with_revision(revision)
        } else {
            usable
        }
    }

    /// How long a probe may take.
    pub fn timeout(&self) -> Duration {
        self.config.timeout
    }
}

/// 0 to 999.
fn thousandths(random: u64) -> u32 {
    u32::try_from(random % 1000).unwrap_or_default()
}

/// Small services are all probed within a moment; ten thousand endpoints share the interval.
const MAX_STEP: Duration = Duration::from_millis(10);
/// What a peer says in an error may end on a page.
const MAX_REASON: usize = 500;
