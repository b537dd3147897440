//! Requests that can be sent more than once.

use crate::deadline::Deadline;

/// A request that knows whether and how it can be sent again.
pub trait Replay: Sized {
    /// Returns a copy to send later, or `None` when there can't be one (a body that streams through).
    ///
    /// Called before each attempt that another may follow, so it should cost little.
    fn try_replay(&self) -> Option<Self>;

    /// Returns whether processing the request twice has the effect of processing it once.
    ///
    /// Asked of the copy once an attempt has failed: one that went to a service which answers a repeat from memory may be
    /// sent there again.
    fn is_idempotent(&self) -> bool;

    /// Returns the moment after which no attempt is of use. Default none.
    fn deadline(&self) -> Option<Deadline> {
        None
    }

    /// Tells a copy that it is about to be sent as attempt number `attempt` (2 is the first retry). Default nothing.
    fn begin_attempt(&mut self, attempt: u32) {
        let _ = attempt;
    }
}
