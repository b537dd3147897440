//! Requests that can be sent more than once.

mod attempt;
#[cfg(feature = "http")]
mod http;

use crate::deadline::Deadline;

pub use self::attempt::Attempt;
#[cfg(feature = "http")]
pub use self::attempt::X_MESH_ATTEMPT;

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

    /// Returns which attempt of a caller further up this call is made for. Default [`Attempt::FIRST`].
    fn attempt(&self) -> Attempt {
        Attempt::FIRST
    }

    /// Tells a copy that it is about to be sent as `attempt` (2 is the first retry), which services further down should
    /// learn. Default nothing.
    fn begin_attempt(&mut self, attempt: Attempt) {
        let _ = attempt;
    }
}
