//! The bytes of a cache.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest as _;
use sha2::Sha256;

use crate::cache::CacheError;
use crate::endpoint::Condition;
use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::host::Host;
use crate::name::ServiceName;

/// One service of one source.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) source: Arc<str>,
    pub(super) service: ServiceName,
    /// In seconds since 1970.
    pub(super) seen: u64,
    pub(super) endpoints: Endpoints,
}

#[derive(Deserialize, Serialize)]
struct Header {
    format: String,
    version: u64,
    /// In seconds since 1970.
    written: u64,
    length: usize,
    sha256: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredService {
    source: String,
    service: String,
    seen: u64,
    endpoints: Vec<StoredEndpoint>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredEndpoint {
    id: String,
    host: String,
    port: u16,
    weight: NonZeroU16,
    priority: u16,
    zone: Option<String>,
    version: Option<String>,
    public_key_fingerprint: Option<String>,
    tags: Vec<String>,
    metadata: BTreeMap<String, String>,
    spiffe_id: Option<String>,
    condition: StoredCondition,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum StoredCondition {
    Passing,
    Warning,
    Draining,
    Critical,
}

/// The bytes, at most `limit`, and how many services had no room in them.
pub(super) fn encode(items: &[Item], written: u64, limit: usize) -> (Vec<u8>, usize) {
    let room = limit.saturating_sub(MAX_HEADER);
    let mut body = b"[".to_vec();
    let mut left_out = 0;
    for item in items {
        // What holds strings and numbers alone can always be written.
        let service = serde_json::to_vec(&StoredService::from(item)).unwrap_or_default();
        if service.is_empty() || body.len() + service.len() + 2 > room {
            left_out += 1;
            continue;
        }
        if body.len() > 1 {
            body.push(b',');
        }
        body.extend(service);
    }
    body.push(b']');
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        written,
        length: body.len(),
        sha256: hash(&body),
    };
    let mut bytes = serde_json::to_vec(&header).unwrap_or_default();
    bytes.push(b'\n');
    bytes.extend(body);
    (bytes, left_out)
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) items: Vec<Item>,
    /// How many services and endpoints can't be used.
    pub(super) left_out: usize,
    /// What is wrong with the first of them.
    pub(super) first: Option<CacheError>,
}

/// What [`encode`] wrote, without services that are older than `max_age`. One that can't be used takes no other with it.
pub(super) fn decode(bytes: &[u8], now: u64, max_age: Duration) -> Result<Decoded, CacheError> {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let header = parts.next().filter(|header| header.len() < MAX_HEADER);
    let header: Option<Header> = header.and_then(|header| serde_json::from_slice(header).ok());
    let header = header.filter(|header| header.format == FORMAT);
    let header = header.ok_or(CacheError::NoHeader)?;
    if header.version != VERSION {
        return Err(CacheError::Version {
            found: header.version,
            read: VERSION,
        });
    }
    let body = parts.next().unwrap_or_default();
    if body.len() != header.length {
        return Err(CacheError::Length {
            expected: header.length,
            found: body.len(),
        });
    }
    if hash(body) != header.sha256 {
        return Err(CacheError::Damaged);
    }
    // A clock that was set back makes nothing older.
    let age = Duration::from_secs(now.saturating_sub(header.written));
    if age > max_age {
        return Err(CacheError::TooOld {
            age,
            limit: max_age,
        });
    }
    let services: Vec<StoredService> =
        serde_json::from_slice(body).map_err(|source| CacheError::Content { source })?;
    let oldest = now.saturating_sub(max_age.as_secs());
    let mut decoded = Decoded::default();
    for stored in services.into_iter().filter(|one| one.seen >= oldest) {
        decoded.take(stored);
    }
    Ok(decoded)
}

impl Decoded {
    fn take(&mut self, stored: StoredService) {
        let service = match ServiceName::parse(&stored.service) {
            Ok(service) => service,
            Err(source) => {
                let source = source.into();
                return self.leave_out(1, CacheError::Name { source });
            }
        };
        let source: Arc<str> = stored.source.into();
        let mut list = Vec::with_capacity(stored.endpoints.len());
        for stored in stored.endpoints {
            match Endpoint::try_from(stored) {
                Ok(mut endpoint) => {
                    endpoint.source = Some(Arc::clone(&source));
                    list.push(endpoint);
                }
                Err(error) => self.leave_out(1, error),
            }
        }
        let count = list.len();
        match Endpoints::sift(list, 0) {
            Ok((endpoints, refused)) => {
                if let Some(source) = refused.first {
                    self.leave_out(refused.count, CacheError::List { source });
                }
                if !endpoints.is_empty() {
                    self.items.push(Item {
                        source,
                        service,
                        seen: stored.seen,
                        endpoints,
                    });
                }
            }
            Err(source) => self.leave_out(count, CacheError::List { source }),
        }
    }

    fn leave_out(&mut self, count: usize, error: CacheError) {
        self.left_out += count;
        self.first.get_or_insert(error);
    }
}

impl From<&Item> for StoredService {
    fn from(item: &Item) -> Self {
        Self {
            source: item.source.to_string(),
            service: item.service.to_string(),
            seen: item.seen,
            endpoints: item.endpoints.iter().map(|one| (&**one).into()).collect(),
        }
    }
}

impl From<&Endpoint> for StoredEndpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            id: endpoint.id.clone(),
            host: endpoint.host.to_string(),
            port: endpoint.port,
            weight: endpoint.weight,
            priority: endpoint.priority,
            zone: endpoint.zone.clone(),
            version: endpoint.version.clone(),
            public_key_fingerprint: endpoint.public_key_fingerprint.clone(),
            tags: endpoint.tags.clone(),
            metadata: endpoint.metadata.clone(),
            spiffe_id: endpoint.spiffe_id.clone(),
            condition: match endpoint.condition {
                Condition::Passing => StoredCondition::Passing,
                Condition::Warning => StoredCondition::Warning,
                Condition::Draining => StoredCondition::Draining,
                Condition::Critical => StoredCondition::Critical,
            },
        }
    }
}

impl TryFrom<StoredEndpoint> for Endpoint {
    type Error = CacheError;

    fn try_from(stored: StoredEndpoint) -> Result<Self, CacheError> {
        let host = Host::parse(&stored.host).map_err(|source| CacheError::Name {
            source: source.into(),
        })?;
        Ok(Self {
            id: stored.id,
            host,
            port: stored.port,
            weight: stored.weight,
            priority: stored.priority,
            zone: stored.zone,
            version: stored.version,
            public_key_fingerprint: stored.public_key_fingerprint,
            tags: stored.tags,
            metadata: stored.metadata,
            spiffe_id: stored.spiffe_id,
            condition: match stored.condition {
                StoredCondition::Passing => Condition::Passing,
                StoredCondition::Warning => Condition::Warning,
                StoredCondition::Draining => Condition::Draining,
                StoredCondition::Critical => Condition::Critical,
            },
            source: None,
        })
    }
}

fn hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex = digest.iter().map(|byte| format!("{byte:02x}"));
    hex.collect()
}

const FORMAT: &str = "mesh-discovery-cache";
/// Grows with every change of what is stored.
const VERSION: u64 = 1;
/// A header has about 200 bytes.
const MAX_HEADER: usize = 512;
