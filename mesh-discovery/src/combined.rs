//! Several sources as one: in order, with failover and back, or merged.
//!
//! # First
//!
//! The list of a service is that of the first source, in the order given, that has a fresh one. A source whose list turns
//! stale stays in use for [`CombinedConfig::failover_after`], so that a short outage changes nothing; then the next fresh
//! one is used, and an earlier one again as soon as it is fresh. When nobody is fresh the list in use stays. At the start a
//! source that has not answered is waited for, for [`CombinedConfig::patience`].
//!
//! What is unchanged from one source to the next is the same peer ([`Endpoint::is_same_peer`]), so connections outlive a
//! failover.
//!
//! # Merged
//!
//! The list is the union of all lists that are known. Of endpoints with the same id, or with the same host and port in
//! different sources, the one of the first source is taken. It stands as the worst of those that gave something to it: a
//! single stale list makes it stale. It is in order of the ids, and no longer than any list.

mod choice;

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;

use self::choice::Choice;
use self::choice::Offer;
use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::endpoint::MAX_ENDPOINTS_PER_SERVICE;
use crate::endpoint::Staleness;
use crate::endpoint::Standing;
use crate::name::ServiceName;
use crate::registry::Driver;
use crate::report::SourceReport;
use crate::subscription::Change;
use crate::subscription::Changes;
use crate::subscription::Running;
use crate::subscription::Subscription;
use crate::subscription::Subscriptions;
use crate::subscription::now;
use crate::watch::Discover;
use crate::watch::Watch;

/// How sources become one.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Combination {
    /// The first source that has a fresh list.
    #[default]
    First,
    /// All lists together.
    Merged,
}

/// How sources are combined, and when another one takes over.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CombinedConfig {
    /// In order, or merged. Default in order.
    pub combination: Combination,
    /// How long a stale list stays in use while a later source has a fresh one. Default 10 s. Of no meaning when merged.
    pub failover_after: Duration,
    /// How long a source that has not answered at all keeps later ones waiting. Default 2 s. Of no meaning when merged.
    pub patience: Duration,
}

impl CombinedConfig {
    /// Combined in that way.
    #[must_use]
    pub fn with_combination(self, combination: Combination) -> Self {
        Self {
            combination,
            ..self
        }
    }

    /// With another time after which the next source takes over.
    #[must_use]
    pub fn with_failover_after(self, failover_after: Duration) -> Self {
        Self {
            failover_after,
            ..self
        }
    }

    /// With another time for which the first answer is waited for.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

impl Default for CombinedConfig {
    fn default() -> Self {
        Self {
            combination: Combination::First,
            failover_after: FAILOVER_AFTER,
            patience: PATIENCE,
        }
    }
}

/// Several sources as one; clones are the same.
#[derive(Clone)]
pub struct Combined {
    shared: Arc<Shared>,
}

struct Shared {
    sources: Vec<Arc<dyn Discover>>,
    config: CombinedConfig,
    watched: Arc<Subscriptions<State>>,
}

/// Which sources the list of a service comes from.
#[derive(Debug, Default)]
struct State {
    used: Vec<usize>,
    cut: usize,
}

impl Combined {
    /// Combines `sources`, the first of which comes first. Each is asked for a service while that is watched here.
    pub fn new(sources: Vec<Arc<dyn Discover>>, config: CombinedConfig) -> (Self, Driver) {
        let (watched, changes) = Subscriptions::new();
        let shared = Arc::new(Shared {
            sources,
            config,
            watched,
        });
        let driver = Driver::new(run(Arc::clone(&shared), changes));
        (Self { shared }, driver)
    }
}

impl Discover for Combined {
    /// Watches a service. Past 10,000 of them, or when the driver has ended, the watch comes back closed.
    fn watch(&self, service: &ServiceName) -> Watch {
        let begin = || (Endpoints::pending(), State::default());
        self.shared.watched.watch(service, begin)
    }

    fn reports(&self, service: &ServiceName) -> Vec<SourceReport> {
        let Some(entry) = self.shared.watched.get(service) else {
            return Vec::new();
        };
        let used = entry.state().used.clone();
        let mut reports = Vec::new();
        for (index, source) in self.shared.sources.iter().enumerate() {
            for mut report in source.reports(service) {
                report.is_used &= used.contains(&index);
                reports.push(report);
            }
        }
        reports
    }
}

impl std::fmt::Debug for Combined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Combined")
            .field("sources", &self.shared.sources.len())
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

async fn run(shared: Arc<Shared>, mut changes: Changes<State>) {
    let mut running = Running::default();
    loop {
        tokio::select! {
            change = changes.next(|_| None) => match change {
                Change::Begin(entry) => {
                    let service = entry.service.clone();
                    running.begin(service, follow(Arc::clone(&shared), entry));
                }
                Change::End(service) => running.end(&service),
            },
            () = running.progress() => {}
        }
    }
}

/// Keeps the list of one service up to date.
async fn follow(shared: Arc<Shared>, entry: Arc<Subscription<State>>) {
    let watch = |source: &Arc<dyn Discover>| source.watch(&entry.service);
    let mut members: Vec<_> = shared.sources.iter().map(watch).map(Member::new).collect();
    let mut choice = Choice::new(&shared.config, now());
    let mut revision = 0;
    loop {
        let lists: Vec<_> = members.iter_mut().map(Member::list).collect();
        let chosen = match shared.config.combination {
            Combination::First => first(&mut choice, &lists),
            Combination::Merged => merge(&lists),
        };
        shared.log(&entry, &chosen);
        let list = chosen.list.with_revision(revision + 1);
        *entry.state() = State {
            used: chosen.used,
            cut: chosen.cut,
        };
        if entry.publisher.publish(list) {
            revision += 1;
        }
        let due = choice.next_due(now());
        tokio::select! {
            () = changed(&mut members) => {}
            () = tokio::time::sleep_until(due.unwrap_or_else(now).into()), if due.is_some() => {}
        }
    }
}

/// One source's watch of the service.
struct Member {
    watch: Watch,
    is_closed: bool,
}

impl Member {
    fn new(watch: Watch) -> Self {
        Self {
            watch,
            is_closed: false,
        }
    }

    fn list(&mut self) -> Endpoints {
        let list = self.watch.latest().clone();
        match list.standing() {
            Standing::Fresh if self.is_closed => {
                list.with_standing(Standing::Stale(Staleness::Unreachable), 0)
            }
            // It will never answer.
            Standing::Pending if self.is_closed => Endpoints::absent(),
            _ => list,
        }
    }
}

fn offer(list: &Endpoints) -> Offer {
    match list.standing() {
        Standing::Pending => Offer::NotYet,
        _ if list.is_empty() => Offer::Nothing,
        Standing::Fresh => Offer::Fresh,
        Standing::Stale(_) => Offer::Stale,
        Standing::Absent => Offer::Nothing,
    }
}

/// Waits for a change in any of them.
async fn changed(members: &mut [Member]) {
    let open = members.iter_mut().filter(|member| !member.is_closed);
    let waits: Vec<_> = open
        .map(|member| {
            Box::pin(async {
                member.is_closed = member.watch.changed().await.is_err();
            })
        })
        .collect();
    if waits.is_empty() {
        return pending().await;
    }
    select_all(waits).await;
}

/// What is published, and where it comes from.
struct Chosen {
    list: Endpoints,
    used: Vec<usize>,
    /// How many endpoints are left out because one list holds no more.
    cut: usize,
}

fn first(choice: &mut Choice, lists: &[Endpoints]) -> Chosen {
    let offers: Vec<_> = lists.iter().map(offer).collect();
    let index = choice.choose(now(), &offers);
    let list = index.and_then(|index| lists.get(index)).cloned();
    Chosen {
        list: list.unwrap_or_else(|| none(lists)),
        used: index.into_iter().collect(),
        cut: 0,
    }
}

fn merge(lists: &[Endpoints]) -> Chosen {
    let mut merged: Vec<Arc<Endpoint>> = Vec::new();
    let (mut ids, mut places) = (HashSet::new(), HashSet::new());
    let (mut used, mut cut) = (Vec::new(), 0);
    for (index, list) in lists.iter().enumerate().filter(|(_, list)| list.is_known()) {
        let before = merged.len();
        for endpoint in list.iter() {
            let is_known = places.contains(&(&endpoint.host, endpoint.port))
                || ids.contains(endpoint.id.as_str());
            if is_known {
                continue;
            }
            // threat 51
            if merged.len() < MAX_ENDPOINTS_PER_SERVICE {
                ids.insert(endpoint.id.as_str());
                merged.push(Arc::clone(endpoint));
            } else {
                cut += 1;
            }
        }
        // Two endpoints of one source at one place are its own business.
        places.extend(list.iter().map(|one| (&one.host, one.port)));
        if merged.len() > before {
            used.push(index);
        }
    }
    merged.sort_by(|a, b| a.id.cmp(&b.id));
    let given = || used.iter().filter_map(|index| lists.get(*index));
    let list = match given()
        .find(|list| list.is_stale())
        .or_else(|| given().next())
    {
        Some(worst) => Endpoints::from_checked(merged.into(), worst.standing()),
        None => none(lists),
    };
    Chosen { list, used, cut }
}

/// A list without endpoints: pending while anybody may yet know the service.
fn none(lists: &[Endpoints]) -> Endpoints {
    if lists
        .iter()
        .any(|list| list.standing() == Standing::Pending)
    {
        Endpoints::pending()
    } else {
        Endpoints::absent()
    }
}

impl Shared {
    /// One line when other sources take over, and one when endpoints are left out.
    fn log(&self, entry: &Subscription<State>, chosen: &Chosen) {
        let (before, cut) = {
            let state = entry.state();
            (state.used.clone(), state.cut)
        };
        if cut == 0 && chosen.cut > 0 {
            tracing::warn!(service = %entry.service, cut = chosen.cut,
                "all sources together have more endpoints than one list holds, the last ones are left out");
        }
        if before == chosen.used || before.is_empty() {
            return;
        }
        let names = |indices: &[usize]| {
            let sources = indices.iter().filter_map(|index| self.sources.get(*index));
            let reports = sources.flat_map(|source| source.reports(&entry.service));
            let names: Vec<_> = reports.map(|report| report.source.to_string()).collect();
            names.join(", ")
        };
        tracing::warn!(service = %entry.service, before = names(&before), now = names(&chosen.used),
            "the endpoints come from other sources now");
    }
}

/// Longer than a registry needs for a restart or a new leader.
const FAILOVER_AFTER: Duration = Duration::from_secs(10);
/// A registry that is there answers within; a node that starts should not wait longer for one that is not.
const PATIENCE: Duration = Duration::from_secs(2);
