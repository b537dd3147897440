//! Random traces: what happens follows from a number, so that a trace that fails can be had again.

use mesh_resilience::random::{Random, SplitMix64};

/// Calls `follow` with trace after trace: `normally` as many, or what `MESH_TRACES` says.
pub(crate) fn each(normally: u64, mut follow: impl FnMut(&Trace)) {
    let asked = std::env::var("MESH_TRACES")
        .ok()
        .map(|count| count.parse().unwrap());
    for seed in 0..asked.unwrap_or(normally) {
        follow(&Trace {
            seed,
            random: SplitMix64::new(seed),
        });
    }
}

/// One random trace.
pub(crate) struct Trace {
    /// Names it.
    pub(crate) seed: u64,
    random: SplitMix64,
}

impl Trace {
    /// Draws a number below `bound`.
    pub(crate) fn below(&self, bound: u32) -> u32 {
        let bound = usize::try_from(bound).unwrap();
        u32::try_from(self.random.below(bound)).unwrap()
    }

    /// Draws one of `length` places.
    pub(crate) fn place(&self, length: usize) -> usize {
        self.random.below(length)
    }

    /// Draws true `part` times of `of`.
    pub(crate) fn once(&self, part: u32, of: u32) -> bool {
        self.below(of) < part
    }
}
