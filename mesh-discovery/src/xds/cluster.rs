//! A cluster: where the endpoints of a service are to be had.
//!
//! # Sources
//!
//! `envoy/config/cluster/v3/cluster.proto`; gRFC A27, "CDS", for what a client without Envoy's options does with it.

use std::sync::Arc;

use super::assignment::Assignment;
use super::fields::CLUSTER;
use super::fields::CONFIG_SOURCE;
use super::fields::EDS_CLUSTER_CONFIG;
use super::ignored::Ignored;
use super::wire::Wrong;
use super::wire::fields;

/// Where the endpoints of a cluster are to be had.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cluster {
    /// In an assignment of that name.
    Assigned(String),
    /// Here.
    Inline(Arc<Assignment>),
}

/// The name of a cluster.
pub(super) fn name(bytes: &[u8]) -> Option<&str> {
    fields(&CLUSTER, bytes)
        .map_while(Result::ok)
        .filter(|field| field.tag == 1)
        .last()?
        .text()
        .ok()
}

pub(super) fn decode(bytes: &[u8], ignored: &mut Ignored) -> Result<Cluster, Wrong> {
    let mut own_name = "";
    let mut kind = None;
    let mut assigned = Assigned::default();
    let mut inline = None;
    for field in fields(&CLUSTER, bytes) {
        let field = field?;
        match field.tag {
            1 => own_name = field.text()?,
            2 => kind = Some(field.uint32()?),
            3 => assigned.merge(field.bytes()?, ignored)?,
            33 => {
                let assignment = inline.get_or_insert_with(Assignment::default);
                assignment.merge(field.bytes()?, ignored)?;
            }
            38 => return Err(field.wrong("names an extension; use EDS or STATIC")),
            _ => ignored.note(&field),
        }
    }
    // A type that is left out is 0, STATIC.
    match kind.unwrap_or_default() {
        STATIC => {
            let assignment = inline
                .ok_or_else(|| Wrong::new(&CLUSTER, 33, "is needed by a cluster that is STATIC"))?;
            Ok(Cluster::Inline(Arc::new(assignment.checked()?)))
        }
        EDS => {
            if !assigned.is_of_ads {
                let reason = "must say ads or self, for one stream is all that is followed";
                return Err(Wrong::new(&EDS_CLUSTER_CONFIG, 1, reason));
            }
            let name = Some(assigned.name).filter(|name| !name.is_empty());
            Ok(Cluster::Assigned(
                name.unwrap_or_else(|| own_name.to_owned()),
            ))
        }
        other => {
            let shown = match other {
                1 => "STRICT_DNS".to_owned(),
                2 => "LOGICAL_DNS".to_owned(),
                4 => "ORIGINAL_DST".to_owned(),
                other => other.to_string(),
            };
            let reason = format!("is {shown}; use EDS or STATIC");
            Err(Wrong::new(&CLUSTER, 2, reason))
        }
    }
}

/// `eds_cluster_config`.
#[derive(Debug, Default)]
struct Assigned {
    name: String,
    is_of_ads: bool,
}

impl Assigned {
    fn merge(&mut self, bytes: &[u8], ignored: &mut Ignored) -> Result<(), Wrong> {
        for field in fields(&EDS_CLUSTER_CONFIG, bytes) {
            let field = field?;
            match field.tag {
                1 => self.merge_source(field.bytes()?, ignored)?,
                2 => {
                    let name = field.text()?;
                    if name.len() > MAX_NAME {
                        return Err(field.wrong(format!("is longer than {MAX_NAME} bytes")));
                    }
                    name.clone_into(&mut self.name);
                }
                _ => ignored.note(&field),
            }
        }
        Ok(())
    }

    /// Of a oneof, the last that appears counts.
    fn merge_source(&mut self, bytes: &[u8], ignored: &mut Ignored) -> Result<(), Wrong> {
        for field in fields(&CONFIG_SOURCE, bytes) {
            let field = field?;
            match field.tag {
                3 | 5 => self.is_of_ads = true,
                1 | 2 | 8 => self.is_of_ads = false,
                _ => ignored.note(&field),
            }
        }
        Ok(())
    }
}

/// It is kept for each service, and sent with every request.
const MAX_NAME: usize = 4096;
const STATIC: u32 = 0;
const EDS: u32 = 3;

#[cfg(test)]
mod tests;
