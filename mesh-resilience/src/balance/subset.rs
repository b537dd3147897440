//! Subsets: the endpoints of a service that carry certain labels.

use std::fmt;

/// What an endpoint is labelled with, as far as a [`Subset`] asks.
pub trait Labels {
    /// Returns whether the endpoint carries that label with that value.
    fn has(&self, label: &Label, value: &str) -> bool;
}

/// What a label is about.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Label {
    /// The failure domain.
    Zone,
    /// The version of the service.
    Version,
    /// One of a set of tags; the value is the tag.
    Tag,
    /// Anything else, by its name.
    Metadata(String),
}

/// Which endpoints of a service a call may go to: those that carry all of some labels.
///
/// An empty subset is everybody. One that no endpoint belongs to is nobody, unless [`Subset::or_any`] was said: then it is
/// everybody (Envoy, "Load balancer subsets", the fallback policies `NO_FALLBACK` and `ANY_ENDPOINT`). One whose members
/// are all ejected or unusable is still these: who asks for version 2 does not want version 1.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Subset {
    /// Sorted, each once.
    wanted: Vec<(Label, String)>,
    falls_back: bool,
}

impl Subset {
    /// Creates the subset that is everybody.
    pub const fn new() -> Self {
        Self {
            wanted: Vec::new(),
            falls_back: false,
        }
    }

    /// Asks for one more label.
    #[must_use]
    pub fn with(mut self, label: Label, value: impl Into<String>) -> Self {
        let wanted = (label, value.into());
        if let Err(place) = self.wanted.binary_search(&wanted) {
            self.wanted.insert(place, wanted);
        }
        self
    }

    /// Is everybody where no endpoint carries the labels.
    #[must_use]
    pub const fn or_any(mut self) -> Self {
        self.falls_back = true;
        self
    }

    /// Returns whether an endpoint carries all labels that are asked for.
    pub fn holds(&self, endpoint: &impl Labels) -> bool {
        self.wanted
            .iter()
            .all(|(label, value)| endpoint.has(label, value))
    }

    /// Returns the places in `endpoints` of those that belong to it.
    pub fn members<E: Labels>(&self, endpoints: &[E]) -> Vec<usize> {
        let all = 0..endpoints.len();
        let members: Vec<usize> = endpoints
            .iter()
            .enumerate()
            .filter(|(_, endpoint)| self.holds(*endpoint))
            .map(|(index, _)| index)
            .collect();
        if members.is_empty() && self.falls_back {
            all.collect()
        } else {
            members
        }
    }
}

/// `version=v2 zone=a`, as people read it; `any` for everybody.
impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wanted.is_empty() {
            return f.write_str("any");
        }
        for (index, (label, value)) in self.wanted.iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            write!(f, "{space}{label}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zone => "zone",
            Self::Version => "version",
            Self::Tag => "tag",
            Self::Metadata(name) => name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Version(&'static str, &'static [&'static str]);

    impl Labels for Version {
        fn has(&self, label: &Label, value: &str) -> bool {
            match label {
                Label::Version => self.0 == value,
                Label::Tag => self.1.contains(&value),
                Label::Metadata(name) => name == "team" && value == "payments",
                Label::Zone => false,
            }
        }
    }

    #[test]
    fn a_subset_is_those_that_carry_all_its_labels() {
        let endpoints = [
            Version("v1", &["a"]),
            Version("v2", &["a", "b"]),
            Version("v2", &[]),
        ];
        let two = Subset::new().with(Label::Version, "v2");
        let team = Label::Metadata("team".to_owned());
        for (subset, expected) in [
            (Subset::new(), &[0, 1, 2][..]),
            (two.clone(), &[1, 2]),
            (two.clone().with(Label::Tag, "b"), &[1]),
            (
                two.clone().with(Label::Tag, "b").with(Label::Tag, "a"),
                &[1],
            ),
            (two.clone().with(team.clone(), "payments"), &[1, 2]),
            (two.clone().with(team, "fraud"), &[]),
            (Subset::new().with(Label::Zone, "x"), &[]),
            (Subset::new().with(Label::Zone, "x").or_any(), &[0, 1, 2]),
        ] {
            assert_eq!(subset.members(&endpoints), expected, "{subset}");
        }
    }

    #[test]
    fn the_order_of_labels_does_not_matter_and_people_can_read_it() {
        let one = Subset::new()
            .with(Label::Version, "2")
            .with(Label::Zone, "a");
        let other = Subset::new()
            .with(Label::Zone, "a")
            .with(Label::Version, "2");
        assert_eq!(one, other.with(Label::Zone, "a"));
        assert_eq!(one.to_string(), "zone=a version=2");
        assert_eq!(Subset::new().to_string(), "any");
    }
}
