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
    /// they moved to another host or port; new ones are probed soon, spread over at most one interval.
    pub fn update(&mut self, now: Instant, endpoints: &Endpoints) {
        let mut before = std::mem::take(&mut self.entries);
        let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX).max(1);
        // Thousands of connections in one moment would look like an attack to both ends.
        let step = (self.config.interval / count).min(MAX_STEP);
        let mut due = now;
        for endpoint in endpoints.iter() {
            let (key, entry) = match before.remove_entry(endpoint.id.as_str()) {
                Some((key, old)) if is_same_place(&old.endpoint, endpoint) => (
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

    /// Takes the outcome of a probe in; gives the status if it changed. An outcome for an endpoint that is
    /// gone, has moved or was not being probed says nothing.
    pub fn record(
        &mut self,
        now: Instant,
        endpoint: &Endpoint,
        is_success: bool,
    ) -> Option<Status> {
        let entry = self.entries.get_mut(endpoint.id.as_str())?;
        if !entry.is_probed || !is_same_place(&entry.endpoint, endpoint) {
            return None;
        }
        entry.is_probed = false;
        entry.due = now + self.config.interval;
        entry.check.record(&self.config, is_success)
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

fn is_same_place(a: &Endpoint, b: &Endpoint) -> bool {
    a.host == b.host && a.port == b.port
}

/// Small services are all probed within a moment; ten thousand endpoints share the interval.
const MAX_STEP: Duration = Duration::from_millis(10);
