//! HTTP requests that can be sent again.

use http::Request;

use super::{Attempt, Replay};
use crate::deadline::{Deadline, HasDeadline};

/// A body that is `Clone` is taken for one that every copy sends whole, such as `Bytes`, `Full<Bytes>` or `String`. Give a
/// body that streams through a type of its own that is not.
impl<B: Clone> Replay for Request<B> {
    fn try_replay(&self) -> Option<Self> {
        Some(self.clone())
    }

    /// As RFC 9110 section 9.2.2 says of the method.
    fn is_idempotent(&self) -> bool {
        self.method().is_idempotent()
    }

    fn deadline(&self) -> Option<Deadline> {
        HasDeadline::deadline(self)
    }

    /// Read from [`X_MESH_ATTEMPT`](super::X_MESH_ATTEMPT): let a call that is made for a request carry that one's field.
    fn attempt(&self) -> Attempt {
        Attempt::of(self.headers())
    }

    fn begin_attempt(&mut self, attempt: Attempt) {
        attempt.write(self.headers_mut());
    }
}
