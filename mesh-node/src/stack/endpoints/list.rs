//! One list of endpoints, and how one of them is picked.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use mesh_resilience::balance::Ask;
use mesh_resilience::balance::Endpoint as Balanced;
use mesh_resilience::balance::EndpointState;
use mesh_resilience::balance::Label;
use mesh_resilience::balance::Labels;
use mesh_resilience::balance::LevelSnapshot;
use mesh_resilience::balance::Picker;
use mesh_resilience::balance::Subset;
use mesh_resilience::timeout::Deadline;

use super::Common;
use super::in_flight::InFlight;
use super::member::EndpointId;
use super::member::Member;
use crate::stack::now;

/// One list of endpoints.
#[derive(Debug)]
pub(crate) struct List {
    /// By priority, those that get no traffic last.
    pub(super) slots: Vec<Slot>,
    /// How many get traffic.
    in_use: usize,
    pub(super) picker: Picker,
    /// What is picked from for calls that want a subset: made at the first such call, or of those of the list before.
    subsets: ArcSwap<Vec<Prepared>>,
    found: mesh_discovery::Endpoints,
    /// Where they come from, each once: one source, or a few.
    sources: Vec<Arc<str>>,
    is_panic: bool,
    pub(super) common: Arc<Common>,
}

type Prepared = (Arc<Subset>, Arc<Picker>);

/// What a call asks of the endpoint that it goes to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pick<'a> {
    /// Those that attempts of the same call went to, as [`InFlight::index`] says: another one where there is another.
    pub(crate) tried: &'a [usize],
    /// A call that is dropped after this without a word from the endpoint counts as its failure.
    pub(crate) deadline: Option<Deadline>,
    /// One of these. What it is prepared from is found by the pointer, so keep one for all calls that mean the same.
    pub(crate) subset: Option<&'a Arc<Subset>>,
    /// Always the same one for the same hash, where the service is balanced so.
    pub(crate) hash: Option<u64>,
    /// This one or none, however it does: no other one knows what became of an attempt that it may have acted on.
    pub(crate) only: Option<&'a EndpointId>,
}

impl<'a> Pick<'a> {
    /// For a call that must be answered by then, if at all, and with that hash.
    pub(crate) fn new(deadline: Option<Deadline>, hash: Option<u64>) -> Self {
        Self {
            deadline,
            hash,
            ..Self::default()
        }
    }

    /// One of these, where some are named.
    pub(crate) fn among(self, subset: Option<&'a Arc<Subset>>) -> Self {
        Self { subset, ..self }
    }

    /// This one or none, where there is one.
    pub(crate) fn only(self, only: Option<&'a EndpointId>) -> Self {
        Self { only, ..self }
    }

    /// Another one than those, where there is another.
    pub(crate) fn other_than(self, tried: &'a [usize]) -> Self {
        Self { tried, ..self }
    }
}

/// Why there is no endpoint to call.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Unpicked {
    /// None is known.
    #[error("no endpoint of the service is known; look at discovery.sources")]
    NoEndpoints,
    /// None is in the subset that was asked for.
    #[error("no endpoint of the service is in the subset that its route wants")]
    NotInSubset,
    /// The only one that was asked for is not in the list any more.
    #[error("the instance that the call went to before is gone")]
    Gone,
}

/// A peer's place in a list, with what discovery says of it now.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) endpoint: Arc<mesh_discovery::Endpoint>,
    pub(crate) member: Arc<Member>,
    /// Whether discovery and checks let it be called.
    pub(crate) is_usable: bool,
}

impl List {
    /// `subsets` are those that the list before was asked for.
    pub(super) fn new(
        found: mesh_discovery::Endpoints,
        mut slots: Vec<Slot>,
        subsets: Vec<Arc<Subset>>,
        common: Arc<Common>,
    ) -> Self {
        let usable = slots.iter().filter(|slot| slot.is_usable).count();
        let is_panic = usable == 0;
        slots.sort_by_key(|slot| (!slot.is_usable, slot.endpoint.priority));
        let mut sources: Vec<Arc<str>> = Vec::new();
        for source in found.iter().filter_map(|endpoint| endpoint.source.as_ref()) {
            if !sources.contains(source) {
                sources.push(Arc::clone(source));
            }
        }
        let now = now();
        let balance = &common.balancing.config;
        let prepared = |subset: Arc<Subset>| {
            let picker = Picker::among(balance, &slots, &subset, now);
            (subset, Arc::new(picker))
        };
        Self {
            in_use: if is_panic { slots.len() } else { usable },
            picker: Picker::new(balance, &slots, now),
            subsets: ArcSwap::from_pointee(subsets.into_iter().map(prepared).collect()),
            slots,
            found,
            sources,
            is_panic,
            common,
        }
    }

    /// An endpoint to call.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(crate) fn pick(
        self: &Arc<Self>,
        pick: &Pick<'_>,
    ) -> Result<(Arc<Member>, InFlight), Unpicked> {
        let now = now();
        let index = match pick.only {
            Some(only) => self.position(*only).ok_or(Unpicked::Gone)?,
            None => self.choose(pick, now)?,
        };
        let slot = self.slots.get(index).ok_or(Unpicked::NoEndpoints)?;
        let in_flight = InFlight::new(self, index, slot, (pick.deadline, now));
        Ok((Arc::clone(&slot.member), in_flight))
    }

    fn choose(&self, pick: &Pick<'_>, now: Instant) -> Result<usize, Unpicked> {
        let mut ask = Ask::new(now, &*self.common.random).with_tried(pick.tried);
        ask.hash = pick.hash;
        let Some(subset) = pick.subset else {
            let picked = self.picker.pick(&self.slots, &ask);
            return picked.ok_or(Unpicked::NoEndpoints);
        };
        let prepared = self.subsets.load();
        let known = prepared
            .iter()
            .find(|(known, _)| Arc::ptr_eq(known, subset));
        let picked = match known {
            Some((_, picker)) => picker.pick(&self.slots, &ask),
            None => self.prepare(subset, now).pick(&self.slots, &ask),
        };
        picked.ok_or(if self.slots.is_empty() {
            Unpicked::NoEndpoints
        } else {
            Unpicked::NotInSubset
        })
    }

    /// What is picked from for `subset`, kept for the next call that wants it.
    #[cold]
    fn prepare(&self, subset: &Arc<Subset>, now: Instant) -> Arc<Picker> {
        let picker = Picker::among(self.picker.config(), &self.slots, subset, now);
        let picker = Arc::new(picker);
        self.subsets.rcu(|known| {
            let mut known = Vec::clone(known);
            let is_known = known.iter().any(|(known, _)| Arc::ptr_eq(known, subset));
            if !is_known && known.len() < MAX_SUBSETS {
                known.push((Arc::clone(subset), Arc::clone(&picker)));
            }
            known
        });
        picker
    }

    /// The subsets that it was asked for.
    pub(super) fn subsets(&self) -> Vec<Arc<Subset>> {
        let prepared = self.subsets.load();
        let subset = |(subset, _): &Prepared| Arc::clone(subset);
        prepared.iter().map(subset).collect()
    }

    fn position(&self, id: EndpointId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.member.id() == id)
    }

    /// Whether some of them come from that source.
    pub(crate) fn are_from(&self, source: &str) -> bool {
        self.sources.iter().any(|known| &**known == source)
    }

    /// Whether none may be used, so that all are.
    pub(crate) fn is_panic(&self) -> bool {
        self.is_panic
    }

    /// How many endpoints get traffic.
    pub(crate) fn len(&self) -> usize {
        self.in_use
    }

    /// How many of them are not ejected.
    pub(crate) fn healthy(&self) -> usize {
        let now = now();
        let is_in = |slot: &&Slot| !slot.member.state().is_ejected(now);
        self.slots.iter().take(self.in_use).filter(is_in).count()
    }

    /// How the calls are shared between priorities and with other zones.
    pub(crate) fn levels(&self) -> Vec<LevelSnapshot> {
        self.picker.snapshot()
    }

    /// Those that get traffic, by priority, and then the others.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// What discovery says.
    pub(crate) fn found(&self) -> &mesh_discovery::Endpoints {
        &self.found
    }
}

impl Balanced for Slot {
    fn state(&self) -> &EndpointState {
        self.member.state()
    }

    fn weight(&self) -> u32 {
        u32::from(self.endpoint.weight.get())
    }

    fn key(&self) -> Option<&str> {
        Some(self.member.destination())
    }

    fn priority(&self) -> u16 {
        self.endpoint.priority
    }

    fn is_usable(&self) -> bool {
        self.is_usable
    }

    fn zone(&self) -> Option<&str> {
        self.endpoint.zone.as_deref()
    }
}

impl Labels for Slot {
    fn has(&self, label: &Label, value: &str) -> bool {
        let endpoint = &self.endpoint;
        match label {
            Label::Zone => endpoint.zone.as_deref() == Some(value),
            Label::Version => endpoint.version.as_deref() == Some(value),
            Label::Tag => endpoint.tags.iter().any(|tag| tag == value),
            Label::Metadata(name) => endpoint
                .metadata
                .get(name)
                .is_some_and(|known| known == value),
            // One that this version does not know holds for nobody.
            _ => false,
        }
    }
}

/// Subsets that are kept prepared for a list; routes name a few.
const MAX_SUBSETS: usize = 256;
