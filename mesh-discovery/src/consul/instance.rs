//! What Consul's health endpoint says of a service, as endpoints.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::Value;

use super::BoxError;
use crate::endpoint::Condition;
use crate::endpoint::Endpoint;
use crate::endpoint::MAX_ENDPOINTS_PER_SERVICE;
use crate::endpoint::Refused;
use crate::error::Error;
use crate::host::Host;
use crate::metadata;

/// Reads an answer of `/v1/health/service/:service`; the page of this module says which field becomes what.
///
/// What is wrong with one instance refuses that one alone.
///
/// # Errors
///
/// What is no list, no JSON, or longer than one service may be.
// threat 51
pub fn endpoints(answer: &[u8]) -> Result<(Vec<Endpoint>, Refused), BoxError> {
    let Instances {
        list,
        refused,
        count,
    } = serde_json::from_slice(answer)?;
    if count > MAX_ENDPOINTS_PER_SERVICE {
        return Err(Box::new(Error::TooManyEndpoints {
            count,
            limit: MAX_ENDPOINTS_PER_SERVICE,
        }));
    }
    Ok((list, refused))
}

/// The list, read one instance at a time.
#[derive(Default)]
struct Instances {
    list: Vec<Endpoint>,
    refused: Refused,
    count: usize,
}

impl<'de> Deserialize<'de> for Instances {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(OneByOne)
    }
}

struct OneByOne;

impl<'de> Visitor<'de> for OneByOne {
    type Value = Instances;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of instances")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Instances, A::Error> {
        let mut read = Instances::default();
        while read.count < MAX_ENDPOINTS_PER_SERVICE
            && let Some(value) = sequence.next_element::<Value>()?
        {
            read.count += 1;
            match endpoint(value) {
                Ok(endpoint) => read.list.push(endpoint),
                Err(error) => read.refused.add(error),
            }
        }
        while sequence.next_element::<IgnoredAny>()?.is_some() {
            read.count += 1;
        }
        Ok(read)
    }
}

/// One instance.
fn endpoint(value: Value) -> Result<Endpoint, Error> {
    let text = |path| {
        let text = value.pointer(path).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    // Consul's service ids are unique on one node only.
    let id = format!("{}/{}", text("/Node/Node"), text("/Service/ID"));
    let Instance {
        node,
        service,
        checks,
    } = serde_json::from_value(value).map_err(|source| Error::unreadable(&id, &source))?;
    let address = if service.address.is_empty() {
        &node.address
    } else {
        &service.address
    };
    let host = Host::parse(address).map_err(|source| Error::host(&id, source))?;
    let port = u16::try_from(service.port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| Error::field(&id, "port", "use a port from 1 to 65535"))?;
    let mut endpoint = Endpoint::new(host, port);
    endpoint.id = id;
    endpoint.tags = service.tags.unwrap_or_default();
    let (passing, warning) = service.weights.map_or((1, 1), |w| (w.passing, w.warning));
    let weight = |weight: i64, least| {
        let weight = u16::try_from(weight).ok().filter(|weight| *weight >= least);
        weight.ok_or_else(|| Error::field(&endpoint.id, "weight", WEIGHT_REASON))
    };
    let (passing, warning) = (weight(passing, 1)?, NonZeroU16::new(weight(warning, 0)?));
    endpoint.weight = NonZeroU16::new(passing).unwrap_or(NonZeroU16::MIN);
    metadata::apply(service.meta.unwrap_or_default(), &mut endpoint)?;
    endpoint.condition = condition(&checks.unwrap_or_default())
        .ok_or_else(|| Error::field(&endpoint.id, "check", STATUS_REASON))?;
    if endpoint.condition == Condition::Warning {
        match warning {
            Some(weight) => endpoint.weight = weight,
            // Whoever says so wants no traffic while it warns.
            None => endpoint.condition = Condition::Draining,
        }
    }
    if endpoint.zone.is_none() {
        let mut meta = node.meta.unwrap_or_default();
        endpoint.zone = meta.remove(ZONE).filter(|zone| !zone.is_empty());
    }
    // What Consul itself says of where it is counts, not what the service says.
    for (key, value) in [
        ("node", node.name),
        ("datacenter", node.datacenter),
        ("namespace", service.namespace),
    ] {
        let fits = endpoint.metadata.len() < MAX_METADATA || endpoint.metadata.contains_key(key);
        if fits && !value.is_empty() {
            endpoint.metadata.insert(key.to_owned(), value);
        }
    }
    Ok(endpoint)
}

/// The worst of all checks, as Consul itself has it; none where there is one that nobody knows.
fn condition(checks: &[Check]) -> Option<Condition> {
    let each = checks.iter().map(|check| {
        let is_maintenance = check.check_id == "_node_maintenance"
            || check.check_id.starts_with("_service_maintenance:");
        match &*check.status {
            "passing" => Some(Rank::Passing),
            "warning" => Some(Rank::Warning),
            "critical" if is_maintenance => Some(Rank::Maintenance),
            "critical" => Some(Rank::Critical),
            _ => None,
        }
    });
    let worst = each.collect::<Option<Vec<_>>>()?.into_iter().max();
    Some(match worst {
        None | Some(Rank::Passing) => Condition::Passing,
        Some(Rank::Warning) => Condition::Warning,
        Some(Rank::Critical) => Condition::Critical,
        Some(Rank::Maintenance) => Condition::Draining,
    })
}

/// Maintenance outranks all (Consul's `HealthChecks.AggregatedStatus`).
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Rank {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: Service,
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(rename = "Node")]
    name: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    datacenter: String,
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    _id: String,
    tags: Option<Vec<String>>,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
    meta: Option<BTreeMap<String, String>>,
    weights: Option<Weights>,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: i64,
    warning: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID", default)]
    check_id: String,
    status: String,
}

const ZONE: &str = "zone";
/// As many as an endpoint may have.
const MAX_METADATA: usize = 64;
const WEIGHT_REASON: &str = "use a weight from 1 to 65535, or from 0 while it warns";
const STATUS_REASON: &str = "its status must be passing, warning or critical";

#[cfg(test)]
mod tests;
