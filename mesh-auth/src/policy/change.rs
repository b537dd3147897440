//! A change of a policy that turns the verdict about one call, as edits that a program can make.

mod breadth;
pub(super) mod smallest;

use std::fmt;

use thiserror::Error;

use super::explain::shown;
use super::{IntentionConfig, PolicyConfig, RuleConfig, Verdict};

/// The smallest change that turns the verdict about a call.
///
/// # What counts as small
///
/// The change that moves the fewest other calls across is the smallest. How many those are is estimated from what the rule
/// leaves open, as the product over its parts of what their entries count:
///
/// | part | an entry counts | a part that is left out counts |
/// |---|--:|--:|
/// | `from` | an id 1, `group:` and its like and ids below a path 16, a trust domain 64, `*` and `anonymous` 256 | |
/// | `users` | a subject 1, `group:` and its like 8, `*` 16 | 1 |
/// | `to.service` | a service 1, `*` 64 | |
/// | `to.methods` | 1 | 8 |
/// | `to.paths` | an exact path 1, a template 4, a prefix or suffix 16 | 64 |
/// | `to.ports` | 1 | 1 |
///
/// An added or removed entry counts as itself times all other parts, a rule that ends later as the whole product. A rule
/// that is removed counts 16 times its product, as somebody has to find out what else it was for. A rule that is added is
/// about this call alone, but one more rule to keep: it counts 64. An exception in the `when` of a deny rule is about this
/// call alone too, and counts 32. Of changes that count the same, the first in this order is taken: an entry, the end, a
/// condition, a rule that is removed, a rule that is added; then the rule that stands first in the policy.
///
/// A condition that does not hold is never rewritten: whether it should hold is not for a program to say, so the change
/// is about another rule. Where an intention denies, one for exactly this caller and service allows this request first, and
/// says of all others what was said before.
///
/// No change ever adds `*`, nor anything for callers who do not prove who they are.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// The verdict after it.
    pub turns_to: Verdict,
    /// What to do, all of it.
    pub edits: Vec<Edit>,
    /// The rules that are new or different after it, as they read then.
    pub rules: Vec<RuleConfig>,
    /// The intentions that are.
    pub intentions: Vec<IntentionConfig>,
}

impl Change {
    /// The policy after the change. Edits of rules that `config` does not have change nothing.
    #[must_use]
    pub fn apply(&self, config: &PolicyConfig) -> PolicyConfig {
        let mut config = config.clone();
        for edit in &self.edits {
            match edit {
                Edit::AddRule(rule) => config.rules.push((**rule).clone()),
                Edit::RemoveRule { rule } => config.rules.retain(|own| own.name != *rule),
                Edit::Rule { rule, edit } => {
                    let named = config.rules.iter_mut().filter(|own| own.name == *rule);
                    named.for_each(|own| edit.make(own));
                }
                Edit::SetIntention(intention) => set(&mut config.intentions, intention),
            }
        }
        config
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, edit) in self.edits.iter().enumerate() {
            if index > 0 {
                f.write_str(", and ")?;
            }
            write!(f, "{edit}")?;
        }
        Ok(())
    }
}

/// Puts an intention in the place of the one with the same source and destination, or at the end.
fn set(intentions: &mut Vec<IntentionConfig>, new: &IntentionConfig) {
    let is_same =
        |own: &&mut IntentionConfig| own.source == new.source && own.destination == new.destination;
    match intentions.iter_mut().find(is_same) {
        Some(own) => own.clone_from(new),
        None => intentions.push(new.clone()),
    }
}

/// One step of a [`Change`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Edit {
    /// A rule changes.
    Rule {
        /// Its name.
        rule: String,
        /// How it changes.
        edit: RuleEdit,
    },
    /// A rule goes.
    RemoveRule {
        /// Its name.
        rule: String,
    },
    /// A rule comes, at the end.
    AddRule(Box<RuleConfig>),
    /// An intention comes, or takes the place of the one with the same source and destination. It is changed in Consul, where
    /// intentions come from there.
    SetIntention(Box<IntentionConfig>),
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { rule, edit } => match edit {
                RuleEdit::Add { list, value } => {
                    write!(f, "add {} to {list} of the rule {rule}", shown(value))
                }
                RuleEdit::Remove { list, value } => {
                    write!(f, "take {} out of {list} of the rule {rule}", shown(value))
                }
                RuleEdit::End { expires } => {
                    write!(f, "let the rule {rule} end {expires} instead")
                }
                RuleEdit::When { .. } => {
                    write!(f, "leave this one call out of the rule {rule} by its when")
                }
            },
            Self::RemoveRule { rule } => write!(f, "remove the rule {rule}"),
            Self::AddRule(rule) => {
                write!(
                    f,
                    "add the rule {}, which is about this call alone",
                    rule.name
                )
            }
            Self::SetIntention(intention) => write!(
                f,
                "let the intention of {} for {} allow this request first",
                intention.source, intention.destination
            ),
        }
    }
}

/// How a rule changes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RuleEdit {
    /// An entry is added to a list.
    Add {
        /// The list.
        list: List,
        /// The entry.
        value: String,
    },
    /// An entry is removed from a list that has others.
    Remove {
        /// The list.
        list: List,
        /// The entry.
        value: String,
    },
    /// The rule ends at another time.
    End {
        /// The new end.
        expires: String,
    },
    /// The rule gets another condition.
    When {
        /// The whole new condition.
        when: String,
    },
}

impl RuleEdit {
    fn make(&self, rule: &mut RuleConfig) {
        match self {
            Self::Add { list, value } => match list.texts(rule) {
                Some(texts) => texts.push(value.clone()),
                None => rule.to.ports.extend(value.parse::<u16>()),
            },
            Self::Remove { list, value } => match list.texts(rule) {
                Some(texts) => texts.retain(|text| text != value),
                None => rule.to.ports.retain(|port| port.to_string() != *value),
            },
            Self::End { expires } => rule.expires = Some(expires.clone()),
            Self::When { when } => rule.when = Some(when.clone()),
        }
    }
}

/// A list of a rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum List {
    /// Who calls.
    From,
    /// Whose credential the call carries.
    Users,
    /// Methods.
    Methods,
    /// Paths.
    Paths,
    /// Ports.
    Ports,
}

impl List {
    /// Its key in a rule.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::From => "from",
            Self::Users => "users",
            Self::Methods => "to.methods",
            Self::Paths => "to.paths",
            Self::Ports => "to.ports",
        }
    }

    /// The list in a rule; none for ports, which are numbers.
    fn texts(self, rule: &mut RuleConfig) -> Option<&mut Vec<String>> {
        Some(match self {
            Self::From => &mut rule.from,
            Self::Users => &mut rule.users,
            Self::Methods => &mut rule.to.methods,
            Self::Paths => &mut rule.to.paths,
            Self::Ports => return None,
        })
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why no change is suggested.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum NoChange {
    /// The caller proves nothing, and no rule is suggested that lets such callers in.
    #[error(
        "no change is suggested for a caller who does not prove who it is: it needs a certificate or a credential"
    )]
    Unauthenticated,
    /// More rules deny the call than a small change could undo.
    #[error("{rules} rules deny it, more than the {MAX_EDITS} that a suggestion changes")]
    TooManyRules {
        /// How many.
        rules: usize,
    },
    /// An intention denies the call, and none can name the caller and the request: a connection that is not HTTP, or a caller
    /// from elsewhere.
    #[error(
        "{intention} denies it, and none can be written for this caller and request alone; change it in Consul"
    )]
    Intention {
        /// The intention, as decisions name it.
        intention: String,
    },
    /// No rule can name this call alone.
    #[error("no rule can be written that names this call and no other")]
    Unspeakable,
}

/// Most edits of a change.
pub const MAX_EDITS: usize = 16;

#[cfg(test)]
mod tests;
