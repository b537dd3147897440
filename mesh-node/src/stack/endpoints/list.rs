//! One list of endpoints, and how one of them is picked.

use std::sync::Arc;
use std::time::Instant;

use mesh_resilience::balance::Endpoint as Balanced;
use mesh_resilience::balance::EndpointState;
use mesh_resilience::timeout::Deadline;

use super::Common;
use super::in_flight::InFlight;
use super::level;
use super::level::Level;
use super::member::EndpointId;
use super::member::Member;
use crate::stack::now;

/// One list of endpoints.
#[derive(Debug)]
pub(crate) struct List {
    /// Those that get traffic, by priority.
    pub(super) slots: Vec<Slot>,
    levels: Vec<Level>,
    /// Those that get none.
    spare: Vec<Slot>,
    found: mesh_discovery::Endpoints,
    /// Where they come from, each once: one source, or a few.
    sources: Vec<Arc<str>>,
    is_panic: bool,
    pub(super) common: Arc<Common>,
}

/// What a call asks of the endpoint that it goes to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pick<'a> {
    /// Those that attempts of the same call went to, as [`InFlight::index`] says: another one where there is another.
    pub(crate) tried: &'a [usize],
    /// A call that is dropped after this without a word from the endpoint counts as its failure.
    pub(crate) deadline: Option<Deadline>,
    /// This one or none, however it does: no other one knows what became of an attempt that it may have acted on.
    pub(crate) only: Option<&'a EndpointId>,
}

/// Why there is no endpoint to call.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Unpicked {
    /// None is known.
    #[error("no endpoint of the service is known; look at discovery.sources")]
    NoEndpoints,
    /// The only one that was asked for is not in the list any more.
    #[error("the instance that the call went to before is gone")]
    Gone,
}

/// A peer's place in a list, with what discovery says of it now.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) endpoint: Arc<mesh_discovery::Endpoint>,
    pub(crate) member: Arc<Member>,
}

impl List {
    pub(super) fn new(
        found: mesh_discovery::Endpoints,
        slots: Vec<Slot>,
        is_usable: impl Fn(&mesh_discovery::Endpoint) -> bool,
        common: Arc<Common>,
    ) -> Self {
        let is_panic = !slots.iter().any(|slot| is_usable(&slot.endpoint));
        let (slots, levels, spare) = level::arrange(slots, |slot| {
            (slot.endpoint.priority, is_usable(&slot.endpoint))
        });
        let mut sources: Vec<Arc<str>> = Vec::new();
        for source in found.iter().filter_map(|endpoint| endpoint.source.as_ref()) {
            if !sources.contains(source) {
                sources.push(Arc::clone(source));
            }
        }
        Self {
            slots,
            levels,
            spare,
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
        let index = match pick.only {
            Some(only) => self.position(*only).ok_or(Unpicked::Gone)?,
            None => self
                .choose(pick.tried, now())
                .ok_or(Unpicked::NoEndpoints)?,
        };
        let slot = self.get(index).ok_or(Unpicked::NoEndpoints)?;
        let in_flight = InFlight::new(self, index, slot, pick.deadline);
        Ok((Arc::clone(&slot.member), in_flight))
    }

    /// The endpoint at that place of [`Self::all`].
    pub(super) fn get(&self, index: usize) -> Option<&Slot> {
        match index.checked_sub(self.slots.len()) {
            None => self.slots.get(index),
            Some(index) => self.spare.get(index),
        }
    }

    fn position(&self, id: EndpointId) -> Option<usize> {
        self.all().position(|slot| slot.member.id() == id)
    }

    /// A good one of the level that is drawn, or of the next ones, or the best that this level has.
    fn choose(&self, tried: &[usize], now: Instant) -> Option<usize> {
        let random = &*self.common.random;
        let drawn = level::draw(&self.levels, random);
        let mut fallback = None;
        let others = (0..self.levels.len()).filter(|level| *level != drawn);
        for level in std::iter::once(drawn).chain(others) {
            let Level { range, picker, .. } = self.levels.get(level)?;
            let slots = self.slots.get(range.clone())?;
            // Empty, and nothing allocated, but for a second attempt.
            let tried_here: Vec<usize> = tried
                .iter()
                .filter(|index| range.contains(index))
                .map(|index| index - range.start)
                .collect();
            let Some(picked) = picker.pick(slots, &tried_here, random, now) else {
                continue;
            };
            let state = slots.get(picked)?.member.state();
            let index = range.start + picked;
            if !state.is_ejected(now) && !tried_here.contains(&picked) {
                return Some(index);
            }
            fallback.get_or_insert(index);
        }
        fallback
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
        self.slots.len()
    }

    /// How many of them are not ejected.
    pub(crate) fn healthy(&self) -> usize {
        let is_in = |slot: &&Slot| !slot.member.state().is_ejected(now());
        self.slots.iter().filter(is_in).count()
    }

    /// Those that get traffic, by priority, and then the others.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().chain(&self.spare)
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
}
