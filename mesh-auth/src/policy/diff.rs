//! Which recorded decisions another policy would turn.

use super::{Decision, Facts, Policy, Replayed};

/// What two policies say about one recorded call.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever compares must count what can't be decided"
)]
pub enum Compared {
    /// Both give the same verdict.
    Same,
    /// The verdict differs.
    Turned {
        /// What the first policy says.
        before: Decision,
        /// What the second one says.
        after: Decision,
    },
    /// One of them reads what was not recorded.
    Undecidable {
        /// What is missing.
        missing: Vec<String>,
    },
}

/// Decides about a recorded call by two policies. Only a verdict counts as a difference, not which rule gave it.
pub fn compare(before: &Policy, after: &Policy, facts: &Facts) -> Compared {
    match (facts.decide(before), facts.decide(after)) {
        (Replayed::Decided(before), Replayed::Decided(after)) => {
            if before.verdict == after.verdict {
                Compared::Same
            } else {
                Compared::Turned { before, after }
            }
        }
        (before, after) => {
            let mut missing = Vec::new();
            for replayed in [before, after] {
                if let Replayed::Undecidable { missing: more } = replayed {
                    missing.extend(more);
                }
            }
            missing.sort();
            missing.dedup();
            Compared::Undecidable { missing }
        }
    }
}

/// A recorded call whose verdict differs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Difference<'a> {
    /// The call.
    pub facts: &'a Facts,
    /// What the first policy says.
    pub before: Decision,
    /// What the second one says.
    pub after: Decision,
}

/// What [`diff`] found.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Diff<'a> {
    /// The calls whose verdict differs, in the order of the record.
    pub differences: Vec<Difference<'a>>,
    /// How many calls were compared.
    pub compared: u64,
    /// How many could not be decided by both policies, and so count as neither.
    pub undecidable: u64,
}

/// Lists exactly those recorded calls that two policies decide differently.
pub fn diff<'a>(
    before: &Policy,
    after: &Policy,
    records: impl IntoIterator<Item = &'a Facts>,
) -> Diff<'a> {
    let mut diff = Diff::default();
    for facts in records {
        match compare(before, after, facts) {
            Compared::Undecidable { .. } => {
                diff.undecidable += 1;
                continue;
            }
            Compared::Same => {}
            Compared::Turned { before, after } => diff.differences.push(Difference {
                facts,
                before,
                after,
            }),
        }
        diff.compared += 1;
    }
    diff
}

#[cfg(test)]
mod tests;
