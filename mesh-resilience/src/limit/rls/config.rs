//! Rules as people write them, in the shape that `envoyproxy/ratelimit` reads.

use super::unit::Unit;

/// The rules of one domain: one file.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DomainConfig {
    /// What callers name; not empty.
    pub domain: String,
    /// The first level of rules.
    #[cfg_attr(feature = "serde", serde(default))]
    pub descriptors: Vec<DescriptorConfig>,
}

impl DomainConfig {
    /// A domain with these rules.
    pub fn new(domain: impl Into<String>, descriptors: Vec<DescriptorConfig>) -> Self {
        Self {
            domain: domain.into(),
            descriptors,
        }
    }

    /// Settings that are read and change nothing, by their place, such as `descriptors[2].detailed_metric`.
    pub fn ignored(&self) -> Vec<String> {
        let mut ignored = Vec::new();
        let mut open: Vec<(String, &[DescriptorConfig])> = vec![(String::new(), &self.descriptors)];
        while let Some((prefix, descriptors)) = open.pop() {
            for (descriptor, index) in descriptors.iter().zip(0..) {
                let key = format!("{prefix}descriptors[{index}].");
                if descriptor.detailed_metric {
                    ignored.push(format!("{key}detailed_metric"));
                }
                if descriptor.shadow_mode && descriptor.rate_limit.is_none() {
                    ignored.push(format!("{key}shadow_mode"));
                }
                open.push((key, &descriptor.descriptors));
            }
        }
        ignored
    }
}

/// One entry of a descriptor that a rule is for, and what stands below it.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DescriptorConfig {
    /// The entry's key. Required.
    pub key: String,
    /// The entry's value; with `*` at its end every value that begins so. Absent: any, each counted on its own.
    pub value: Option<String>,
    /// The limit for descriptors that end here. Absent: none.
    pub rate_limit: Option<RateConfig>,
    /// Rules for descriptors with more entries.
    pub descriptors: Vec<Self>,
    /// Whether the limit is counted and reported, and lets all pass. Default false.
    pub shadow_mode: bool,
    /// Names metrics by value in `envoyproxy/ratelimit`; changes nothing here.
    pub detailed_metric: bool,
}

impl DescriptorConfig {
    /// A rule for entries with this key and any value.
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            ..Self::default()
        }
    }

    /// For this value only.
    #[must_use]
    pub fn with_value(self, value: impl Into<String>) -> Self {
        Self {
            value: Some(value.into()),
            ..self
        }
    }

    /// With this limit.
    #[must_use]
    pub fn with_limit(self, limit: RateConfig) -> Self {
        Self {
            rate_limit: Some(limit),
            ..self
        }
    }

    /// With these rules below it.
    #[must_use]
    pub fn with_descriptors(self, descriptors: Vec<Self>) -> Self {
        Self {
            descriptors,
            ..self
        }
    }

    /// Counted and reported only.
    #[must_use]
    pub fn in_shadow_mode(self) -> Self {
        Self {
            shadow_mode: true,
            ..self
        }
    }
}

/// A limit: so many calls in a unit of time, or none.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RateConfig {
    /// The unit. Required, but not with `unlimited`.
    pub unit: Option<Unit>,
    /// Calls that may pass in any stretch of a unit; 0 lets none pass, at most 6,000,000. Required, but not with
    /// `unlimited`.
    pub requests_per_unit: Option<u32>,
    /// No limit, but a rule that is reported and that others can't match in its place. Default false.
    pub unlimited: bool,
    /// What answers call the limit, and other rules replace it by.
    pub name: Option<String>,
    /// Limits that do not apply where this one does, in the same question.
    pub replaces: Vec<ReplacesConfig>,
}

impl RateConfig {
    /// So many calls in any stretch of a unit.
    pub fn new(requests_per_unit: u32, unit: Unit) -> Self {
        Self {
            unit: Some(unit),
            requests_per_unit: Some(requests_per_unit),
            ..Self::default()
        }
    }

    /// No limit.
    pub fn unlimited() -> Self {
        Self {
            unlimited: true,
            ..Self::default()
        }
    }

    /// With a name.
    #[must_use]
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..self
        }
    }

    /// In place of the limit of this name too.
    #[must_use]
    pub fn replacing(mut self, name: impl Into<String>) -> Self {
        self.replaces.push(ReplacesConfig { name: name.into() });
        self
    }
}

/// A limit that does not apply.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReplacesConfig {
    /// Its name.
    pub name: String,
}
