//! What is known of the attempts of a call: whether any of them may have been acted on.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// How many attempts of a call may have been acted on; shared by all of them, also by those that run at the same time.
///
/// A count and not a flag: each attempt takes back its own and nobody else's.
#[derive(Clone, Debug, Default)]
pub(crate) struct MayHaveRun(Arc<AtomicUsize>);

impl MayHaveRun {
    /// An attempt begins. It counts from here on, also if it is dropped in the middle.
    pub(super) fn begin(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt that began is proven not to have been acted on.
    pub(super) fn did_not_run(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether some attempt may have been acted on.
    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // threat 43
    #[test]
    fn attempts_at_the_same_time_take_back_their_own_and_nobody_elses() {
        let first = MayHaveRun::default();
        let second = first.clone();
        assert!(!first.any());
        first.begin();
        second.begin();
        first.did_not_run();
        assert!(first.any(), "the second may still run");
        second.did_not_run();
        assert!(!first.any(), "both are proven not to have run");
    }
}
