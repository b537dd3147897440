//! What control planes say besides where services are: which share of the requests they want dropped, and what they sent
//! that has no effect here.

use std::fmt;
use std::sync::Arc;

use mesh_discovery::xds::Findings;
use mesh_resilience::random::Random;
use serde_json::Value;
use serde_json::json;

use crate::stack::endpoints::Endpoints;

/// The control planes among the sources.
pub(crate) struct ControlPlanes {
    planes: Vec<ControlPlane>,
    random: Arc<dyn Random>,
}

/// One control plane, by the name of its source.
#[derive(Debug)]
pub(super) struct ControlPlane {
    pub(super) source: Arc<str>,
    pub(super) findings: Findings,
}

/// A request that is not sent, because a control plane wants a share of them dropped.
#[derive(Debug, thiserror::Error)]
#[error(
    "the control plane {plane:?} asks to drop a share of the requests to {service} ({category}); try again later"
)]
pub(crate) struct Dropped {
    pub(crate) plane: Arc<str>,
    pub(crate) service: Arc<str>,
    pub(crate) category: String,
}

impl ControlPlanes {
    pub(super) fn new(planes: Vec<ControlPlane>, random: Arc<dyn Random>) -> Self {
        Self { planes, random }
    }

    /// Whether a request to a service that is at these endpoints is to be dropped. One whose endpoints are all from other
    /// sources never is. Takes no lock.
    pub(crate) fn drops(&self, endpoints: &Endpoints) -> Option<Dropped> {
        self.planes.iter().find_map(|plane| {
            let random = || self.random.next_u64();
            let drop = plane.findings.drops_now(endpoints.name(), random)?;
            let is_used = endpoints.current().are_from(&plane.source);
            is_used.then(|| Dropped {
                plane: Arc::clone(&plane.source),
                service: Arc::from(endpoints.name().as_str()),
                category: drop.category,
            })
        })
    }

    /// The shares of the requests to a service that are dropped.
    pub(crate) fn shares(&self, endpoints: &Endpoints) -> Vec<Value> {
        let list = endpoints.current();
        let used = self
            .planes
            .iter()
            .filter(|plane| list.are_from(&plane.source));
        used.flat_map(|plane| {
            let drops = plane.findings.drops(endpoints.name());
            let share = |drop: &mesh_discovery::xds::DropOverload| {
                json!({
                    "source": &*plane.source,
                    "category": drop.category,
                    "perMillion": drop.per_million,
                })
            };
            drops.iter().map(share).collect::<Vec<_>>()
        })
        .collect()
    }

    /// What was received from each.
    pub(crate) fn page(&self) -> Vec<Value> {
        self.planes.iter().map(ControlPlane::page).collect()
    }
}

impl ControlPlane {
    fn page(&self) -> Value {
        let (counts, ignored) = (self.findings.counts(), self.findings.ignored());
        let shown = ignored.iter().take(MOST_FIELDS).map(|ignored| {
            json!({ "field": ignored.field, "count": ignored.count, "first": ignored.first })
        });
        json!({
            "source": &*self.source,
            "server": self.findings.server().as_deref(),
            "streams": counts.streams,
            "accepted": counts.accepted,
            "refused": counts.refused,
            "refusedAgain": counts.refused_again,
            "ignored": shown.collect::<Vec<_>>(),
            "ignoredLeftOut": ignored.len().saturating_sub(MOST_FIELDS),
        })
    }
}

impl fmt::Debug for ControlPlanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.planes).finish()
    }
}

/// A page is for people.
const MOST_FIELDS: usize = 100;
