//! An answer that is the same for all.

use super::{Recover, is_wanting};
use crate::classify::Classify;
use crate::error::BoxError;

/// Answers wanting results with what a closure makes. Hand it to a [`FallbackLayer`](super::FallbackLayer).
#[derive(Clone, Copy, Debug)]
pub struct Fixed<A, C> {
    answer: A,
    classifier: C,
}

impl<A, C> Fixed<A, C> {
    /// Answers with `answer()` where `classifier` finds the result wanting.
    pub const fn new(answer: A, classifier: C) -> Self {
        Self { answer, classifier }
    }
}

impl<A, C, Res> Recover<Res> for Fixed<A, C>
where
    A: Fn() -> Res,
    C: Classify<Res>,
{
    fn recover(&self, error: BoxError) -> Result<Res, BoxError> {
        if is_wanting(true, &self.classifier.classify(Err(&error))) {
            Ok((self.answer)())
        } else {
            Err(error)
        }
    }

    fn replace(&self, answer: Res) -> Res {
        if is_wanting(false, &self.classifier.classify(Ok(&answer))) {
            (self.answer)()
        } else {
            answer
        }
    }
}
