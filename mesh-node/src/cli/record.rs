//! Decisions as an audit log has them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use mesh_audit::Record;
use mesh_audit::VerifyOptions;
use mesh_auth::policy::FactsError;
use mesh_auth::policy::Recorded;
use serde_json::Value;

use super::report::Failure;
use crate::stack::outbound::chain;

/// What reading a log came to.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Decisions that were read.
    pub(super) decisions: u64,
    /// What somebody who relies on the answer has to know.
    pub(super) warnings: Vec<String>,
}

/// One decision in a log.
pub(super) struct Entry {
    /// When it was recorded (RFC 3339).
    pub(super) time: String,
    /// The fields of its record, numbers as text.
    pub(super) fields: BTreeMap<String, String>,
    pub(super) recorded: Result<Recorded, FactsError>,
}

impl Entry {
    fn of(record: &Record<'_>) -> Option<Self> {
        let fields: BTreeMap<String, Value> = serde_json::from_str(record.text).ok()?;
        let fields: BTreeMap<String, String> = fields
            .into_iter()
            .filter_map(|(name, value)| match value {
                Value::String(text) => Some((name, text)),
                Value::Number(number) => Some((name, number.to_string())),
                _ => None,
            })
            .collect();
        let recorded = Recorded::from_fields(|name| fields.get(name).map(String::as_str));
        Some(Self {
            time: record.time.to_owned(),
            fields,
            recorded,
        })
    }
}

/// Hands every decision about a call in the log at `path` to `visit`, oldest first, until it breaks off; what `prove`
/// asked is none. Memory is bounded.
///
/// # Errors
///
/// The log can't be read.
pub(super) fn decisions(
    path: &Path,
    mut visit: impl FnMut(Entry) -> ControlFlow<()>,
) -> Result<Read, Failure> {
    search(path, "\"decision\":\"", |entry| {
        // Nobody made the calls that probes stand for.
        if entry
            .fields
            .get("direction")
            .is_some_and(|way| way == "probe")
        {
            return ControlFlow::Continue(());
        }
        visit(entry)
    })
}

/// As [`decisions`], of those records alone that hold `mark`.
pub(super) fn search(
    path: &Path,
    mark: &str,
    mut visit: impl FnMut(Entry) -> ControlFlow<()>,
) -> Result<Read, Failure> {
    let unreadable = |error: io::Error| {
        Failure::new(
            format!("could not read the record {}", path.display()),
            error,
        )
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut read = Read::default();
    let mut broken = 0_u64;
    let damage = mesh_audit::read(file, &VerifyOptions::default(), |record| {
        if !record.text.contains(mark) {
            return ControlFlow::Continue(());
        }
        let Some(entry) = Entry::of(record) else {
            return ControlFlow::Continue(());
        };
        read.decisions += 1;
        broken += u64::from(entry.recorded.is_err());
        visit(entry)
    });
    if let Some(error) = damage.map_err(unreadable)? {
        read.warnings.push(format!(
            "the record {} can't be relied on: {}",
            path.display(),
            chain(&error)
        ));
    }
    if broken > 0 {
        read.warnings.push(format!(
            "{broken} decision(s) in {} are not whole and were left out",
            path.display()
        ));
    }
    Ok(read)
}
