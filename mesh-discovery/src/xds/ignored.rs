//! Which fields were received and not used.

use std::collections::BTreeMap;

use super::wire::Field;

/// A field that a server sent and that has no effect here.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredField {
    /// Its full name, as `envoy.config.cluster.v3.Cluster.outlier_detection`; a field that is not known by name ends in
    /// its number, as `#99`.
    pub field: String,
    /// In how many messages it was; one resource may have it many times, and again in each update.
    pub count: u64,
    /// The resource that had it first.
    pub first: String,
}

/// Collects ignored fields, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Ignored {
    fields: BTreeMap<(&'static str, u32), IgnoredField>,
    /// Those that came when there was no room for more.
    others: u64,
    resource: String,
}

impl Ignored {
    /// What is noted from now on is of this resource.
    pub(super) fn enter(&mut self, resource: &str) {
        self.resource = resource.chars().take(MAX_NAME).collect();
    }

    pub(super) fn note(&mut self, field: &Field<'_>) {
        let key = (field.message_name(), field.tag);
        if let Some(known) = self.fields.get_mut(&key) {
            known.count = known.count.saturating_add(1);
        } else if self.fields.len() < MAX_FIELDS {
            let field = field.name();
            tracing::info!(field, resource = %self.resource.escape_debug(), "a field of xds has no effect here");
            let new = IgnoredField {
                field,
                count: 1,
                first: self.resource.clone(),
            };
            self.fields.insert(key, new);
        } else {
            self.others = self.others.saturating_add(1);
        }
    }

    /// By name; a last line without a resource counts those that found no room.
    pub(super) fn list(&self) -> Vec<IgnoredField> {
        let mut list: Vec<_> = self.fields.values().cloned().collect();
        list.sort_by(|a, b| a.field.cmp(&b.field));
        if self.others > 0 {
            list.push(IgnoredField {
                field: "others".to_owned(),
                count: self.others,
                first: String::new(),
            });
        }
        list
    }
}

/// All fields of all messages that are read are fewer; only invented tags can reach this.
const MAX_FIELDS: usize = 256;
/// A resource's name may be of any length.
const MAX_NAME: usize = 256;
