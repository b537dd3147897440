//! The endpoints of one service as the request path sees them: an immutable list, swapped whole when discovery or a check
//! says something new.
//!
//! Peers outlive lists: whatever a registry says of one, its connections, sessions and statistics stay as long as it is
//! the same process at the same place ([`mesh_discovery::Endpoint::is_same_peer`]). One that is taken away gets no new
//! calls; those in flight finish, its sessions are ended, and its connections close.

mod balancing;
pub(crate) mod check;
mod in_flight;
mod list;
mod member;

use std::collections::HashMap;
use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use futures_core::future::BoxFuture;
use mesh_discovery::EndpointHealth;
use mesh_discovery::Health;
use mesh_discovery::ServiceName;
use mesh_discovery::Staleness;
use mesh_discovery::Standing;
use mesh_discovery::Status;
use mesh_discovery::Vitals;
use mesh_discovery::Watch;
use mesh_resilience::balance::Outliers;
use mesh_resilience::random::SplitMix64;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use self::balancing::Balancing;
pub(crate) use self::balancing::HashOn;
use self::check::Checks;
pub(crate) use self::in_flight::InFlight;
pub(crate) use self::list::List;
pub(crate) use self::list::Pick;
pub(crate) use self::list::Slot;
pub(crate) use self::list::Unpicked;
pub(crate) use self::member::EndpointId;
pub(crate) use self::member::Links;
pub(crate) use self::member::Member;
pub(crate) use self::member::Pins;
use self::member::is_trusted_by_pin;
use crate::stack::now;

/// The endpoints of one service.
#[derive(Debug)]
pub(crate) struct Endpoints {
    links: Links,
    common: Arc<Common>,
    checks: Option<Checks>,
    current: ArcSwap<List>,
    /// Whether the source has answered yet.
    is_answered: AtomicBool,
    first_answer: Notify,
    changing: Mutex<Changing>,
}

/// What all lists of a service share.
#[derive(Debug)]
struct Common {
    service: Arc<str>,
    name: ServiceName,
    balancing: Arc<Balancing>,
    outliers: Arc<Outliers>,
    random: Arc<SplitMix64>,
    vitals: Arc<Vitals>,
}

/// What the next list is made of beside what discovery says.
#[derive(Debug, Default)]
struct Changing {
    health: Option<Health>,
    /// Taken away, with calls in flight or just now.
    leaving: Vec<(Slot, Instant)>,
    updates: u64,
    /// How many peers there have been.
    members: u64,
}

/// What balancing needs beside the list.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) balancing: Arc<Balancing>,
    pub(crate) outliers: Arc<Outliers>,
    pub(crate) random: Arc<SplitMix64>,
    /// Where what traffic and checks find is told.
    pub(crate) vitals: Arc<Vitals>,
    /// The active checks, where there are any.
    pub(crate) checks: Option<Checks>,
}

impl Endpoints {
    /// The endpoints that `watch` shows now; [`Endpoints::follow`] keeps them current.
    pub(crate) fn new(name: ServiceName, links: Links, parts: Parts, watch: &Watch) -> Self {
        let common = Arc::new(Common {
            service: Arc::from(name.as_str()),
            name,
            balancing: parts.balancing,
            outliers: parts.outliers,
            random: parts.random,
            vitals: parts.vitals,
        });
        let endpoints = Self {
            links,
            checks: parts.checks,
            current: ArcSwap::from_pointee(List::new(
                mesh_discovery::Endpoints::pending(),
                Vec::new(),
                Vec::new(),
                Arc::clone(&common),
            )),
            common,
            is_answered: AtomicBool::new(false),
            first_answer: Notify::new(),
            changing: Mutex::default(),
        };
        endpoints.update(&watch.current());
        endpoints
    }

    /// Takes over every change, and checks the endpoints where that is configured, until the source is gone. Its last list
    /// then stays, and is said to be stale.
    pub(crate) async fn follow(self: &Arc<Self>, mut watch: Watch) {
        self.update(watch.latest());
        let (health, checking) = check::start(self, &watch);
        let mut checked = health.clone();
        self.changing.lock().health = health;
        let mut checking = std::pin::pin!(checking);
        let mut ending = Vec::new();
        let mut ticks = tokio::time::interval(LEAVE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = watch.changed() => match changed {
                    Ok(found) => self.update(found),
                    Err(_closed) => break,
                },
                true = turned(&mut checked) => self.update(&watch.current()),
                () = &mut checking => break,
                _ = ticks.tick(), if self.has_leaving() => ending.extend(self.take_leave()),
                () = any(&mut ending), if !ending.is_empty() => {}
            }
        }
        self.changing.lock().health = None;
        self.update(&last(&watch));
    }

    /// The service.
    pub(crate) fn name(&self) -> &ServiceName {
        &self.common.name
    }

    /// How often something changed.
    pub(crate) fn updates(&self) -> u64 {
        self.changing.lock().updates
    }

    /// What active checks found, where there are any.
    pub(crate) fn checked(&self) -> Option<Arc<[EndpointHealth]>> {
        let health = self.changing.lock().health.clone();
        health.map(|health| health.statuses())
    }

    fn update(&self, found: &mesh_discovery::Endpoints) {
        let now = now();
        let mut changing = self.changing.lock();
        let before = self.current.load_full();
        let leaving = std::mem::take(&mut changing.leaving);
        let known: HashMap<Peer<'_>, &Slot> = leaving
            .iter()
            .map(|(slot, _)| slot)
            .chain(before.all())
            .map(|slot| (peer(&slot.endpoint), slot))
            .collect();
        let statuses = changing.health.as_ref().map(Health::statuses);
        let unhealthy: HashSet<&str> = statuses
            .iter()
            .flat_map(|statuses| statuses.iter())
            .filter(|found| found.status == Status::Unhealthy)
            .map(|found| found.endpoint.id.as_str())
            .collect();
        let is_usable = |endpoint: &mesh_discovery::Endpoint| {
            endpoint.condition.is_usable() && !unhealthy.contains(endpoint.id.as_str())
        };
        let mut members = changing.members;
        let slot = |endpoint: &Arc<mesh_discovery::Endpoint>| Slot {
            endpoint: Arc::clone(endpoint),
            is_usable: is_usable(endpoint),
            member: match known.get(&peer(endpoint)) {
                Some(slot) => Arc::clone(&slot.member),
                None => {
                    members += 1;
                    let id = EndpointId::new(members);
                    Arc::new(self.links.member(id, endpoint, &self.common.service, now))
                }
            },
        };
        let slots: Vec<Slot> = found.iter().map(slot).collect();
        changing.members = members;
        let stays: HashSet<Peer<'_>> = found.iter().map(|endpoint| peer(endpoint)).collect();
        let left = before.all().map(|slot| (slot.clone(), now));
        changing.leaving = leaving
            .iter()
            .cloned()
            .chain(left)
            .filter(|(slot, _)| !stays.contains(&peer(&slot.endpoint)))
            .collect();
        changing.updates += 1;
        let common = Arc::clone(&self.common);
        let list = List::new(found.clone(), slots, before.subsets(), common);
        self.common.vitals.retain(&self.common.name, found);
        self.current.store(Arc::new(list));
        if found.standing() != Standing::Pending {
            self.is_answered.store(true, Ordering::Release);
            self.first_answer.notify_waiters();
        }
    }

    /// Whether the source has answered yet; before that no endpoint is known, and it says nothing that there is none.
    pub(crate) fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Acquire)
    }

    /// Waits for the first answer of the source.
    pub(crate) async fn answered(&self) {
        // What is notified from here on is not missed.
        let first = self.first_answer.notified();
        if !self.is_answered() {
            first.await;
        }
    }

    fn has_leaving(&self) -> bool {
        !self.changing.lock().leaving.is_empty()
    }

    /// Those that were taken away and have no call in flight any more: what ends between this node and them.
    fn take_leave(&self) -> Vec<BoxFuture<'static, ()>> {
        let now = now();
        let is_over = |(slot, since): &(Slot, Instant)| {
            let age = now.saturating_duration_since(*since);
            age >= LEAVE_AFTER && slot.member.state().in_flight() == 0
        };
        let mut changing = self.changing.lock();
        let (gone, leaving): (Vec<_>, Vec<_>) = std::mem::take(&mut changing.leaving)
            .into_iter()
            .partition(is_over);
        changing.leaving = leaving;
        let end = |(slot, _): (Slot, Instant)| -> BoxFuture<'static, ()> {
            Box::pin(async move {
                // A courtesy: who is taken away may well be gone.
                drop(tokio::time::timeout(LAST_WORD, slot.member.close()).await);
                slot.member.retire();
            })
        };
        gone.into_iter().map(end).collect()
    }

    /// Tells those that this node has sessions with that nothing more comes.
    pub(crate) async fn close(&self) {
        for slot in self.current().all() {
            slot.member.close().await;
        }
    }

    /// How they are balanced.
    pub(crate) fn balancing(&self) -> &Balancing {
        &self.common.balancing
    }

    /// The list now.
    pub(crate) fn current(&self) -> Arc<List> {
        self.current.load_full()
    }
}

/// What a source leaves that is gone.
fn last(watch: &Watch) -> mesh_discovery::Endpoints {
    let list = watch.current();
    match list.standing() {
        Standing::Fresh => {
            let revision = list.revision();
            list.with_standing(Standing::Stale(Staleness::Unreachable), revision)
        }
        // It will never answer.
        Standing::Pending => mesh_discovery::Endpoints::absent(),
        _ => list,
    }
}

/// Waits until the checks say something new; false when there are none any more.
async fn turned(health: &mut Option<Health>) -> bool {
    match health {
        Some(health) => health.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// Waits until at least one of them is done, and takes it out.
async fn any(futures: &mut Vec<BoxFuture<'static, ()>>) {
    let count = futures.len();
    poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.len() < count {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// What makes an endpoint the same peer as another one; see [`mesh_discovery::Endpoint::is_same_peer`]. What a pin of the
/// configuration is trusted for, the same pin of a registry is not.
type Peer<'a> = (
    &'a mesh_discovery::Host,
    u16,
    Option<&'a str>,
    Option<&'a str>,
    bool,
);

fn peer(endpoint: &mesh_discovery::Endpoint) -> Peer<'_> {
    (
        &endpoint.host,
        endpoint.port,
        endpoint.spiffe_id.as_deref(),
        endpoint.public_key_fingerprint.as_deref(),
        is_trusted_by_pin(endpoint),
    )
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.common.vitals.forget(&self.common.name);
    }
}

/// How often those that are taken away are looked at.
const LEAVE_EVERY: Duration = Duration::from_millis(250);
/// How long a peer that is taken away has to hear that its sessions are over.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Requests that hold the list before may pick one for this long; and one that comes back finds its connections.
const LEAVE_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
