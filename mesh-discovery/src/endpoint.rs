//! One place where a service runs, and the immutable list of all such places.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroU16;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::Error;
use crate::host::Host;

/// One place where a service runs.
///
/// Whoever takes a list of endpoints from outside makes it an [`Endpoints`], which checks every field.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Unique within the service; 1 to 512 printable bytes. Default `host:port`.
    pub id: String,
    /// Name or address of the machine.
    pub host: Host,
    /// TCP port, not 0.
    pub port: u16,
    /// Share of the traffic relative to the other endpoints of its priority, 1 to 65535. Default 1.
    pub weight: NonZeroU16,
    /// Lower is used first: an endpoint gets traffic when those of every lower number can't be used. Default 0.
    pub priority: u16,
    /// Failure domain, such as an availability zone; at most 512 printable bytes.
    pub zone: Option<String>,
    /// Version of the service, for subsets; at most 512 printable bytes.
    pub version: Option<String>,
    /// Fingerprint of the peer's identity key, which pins it; at most 512 printable bytes.
    pub public_key_fingerprint: Option<String>,
    /// Labels for subsets; at most 64, each of at most 512 printable bytes.
    pub tags: Vec<String>,
    /// What else the source says of it, for subsets; at most 64 pairs, each part of at most 512 printable bytes.
    pub metadata: BTreeMap<String, String>,
    /// The SPIFFE id that the peer must prove; `spiffe://…`, at most 2048 bytes.
    pub spiffe_id: Option<String>,
    /// How it does, as the source says. Default [`Condition::Passing`].
    pub condition: Condition,
    /// The name of the source that gave it; the registry of sources fills it in.
    pub source: Option<Arc<str>>,
}

/// What a registry says of how an endpoint does. It is hearsay: active and passive checks say what is seen from here.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// It works, or the registry does not check.
    #[default]
    Passing,
    /// It works, and somebody should look.
    Warning,
    /// It takes no new work: it is in maintenance or about to go.
    Draining,
    /// It does not work.
    Critical,
}

impl Condition {
    /// True when requests may go there.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Passing | Self::Warning)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Draining => "draining",
            Self::Critical => "critical",
        })
    }
}

impl Endpoint {
    /// An endpoint with id `host:port`, weight 1 and nothing else known of it.
    pub fn new(host: Host, port: u16) -> Self {
        Self {
            id: format!("{host}:{port}"),
            host,
            port,
            weight: NonZeroU16::MIN,
            priority: 0,
            zone: None,
            version: None,
            public_key_fingerprint: None,
            tags: Vec::new(),
            metadata: BTreeMap::new(),
            spiffe_id: None,
            condition: Condition::Passing,
            source: None,
        }
    }

    /// True when both are the same process at the same place, whatever else is said of it: connections to one may be
    /// used for the other.
    pub fn is_same_peer(&self, other: &Self) -> bool {
        self.host == other.host
            && self.port == other.port
            && self.spiffe_id == other.spiffe_id
            && self.public_key_fingerprint == other.public_key_fingerprint
    }

    /// Checks every field that its type leaves open.
    // threat 51: nothing that a registry says reaches logs, metrics or memory unbounded.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |field, reason| Err(Error::field(&self.id, field, reason));
        if self.id.is_empty() || !is_label(&self.id) {
            return refuse("id", LABEL_REASON);
        }
        if self.port == 0 {
            return refuse("port", "use a port from 1 to 65535");
        }
        let optional = [
            ("zone", &self.zone),
            ("version", &self.version),
            ("public key fingerprint", &self.public_key_fingerprint),
        ];
        for (field, value) in optional {
            if value
                .as_deref()
                .is_some_and(|text| text.is_empty() || !is_label(text))
            {
                return refuse(field, LABEL_REASON);
            }
        }
        if self.tags.len() > MAX_TAGS {
            return refuse("list of tags", "use at most 64 tags");
        }
        if !self.tags.iter().all(|tag| is_label(tag)) {
            return refuse("tag", LABEL_REASON);
        }
        if self.metadata.len() > MAX_TAGS {
            return refuse("metadata", "use at most 64 pairs");
        }
        if !self
            .metadata
            .iter()
            .all(|(key, value)| !key.is_empty() && is_label(key) && is_label(value))
        {
            return refuse("metadata", LABEL_REASON);
        }
        if self
            .spiffe_id
            .as_deref()
            .is_some_and(|id| !is_spiffe_like(id))
        {
            return refuse(
                "spiffe id",
                "use `spiffe://trust-domain/path` of at most 2048 bytes",
            );
        }
        Ok(())
    }
}

/// `host:port`, as it stands in an authority.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The endpoints of one service at one moment: immutable, checked, cheap to clone.
///
/// Derefs to `[Arc<Endpoint>]`. An endpoint that did not change from one list to the next is the same
/// [`Arc`] in both, so that state kept beside it can be found by pointer.
#[derive(Clone, Debug)]
pub struct Endpoints {
    list: Arc<[Arc<Endpoint>]>,
    revision: u64,
    standing: Standing,
}

/// How a list stands with its source.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The source has not answered yet.
    Pending,
    /// The source does not know the service.
    Absent,
    /// As the source says now.
    Fresh,
    /// The last good answer of a source that gives none now.
    Stale(Staleness),
}

/// Why a list is not what its source says now.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Staleness {
    /// The source can't be reached, or gives answers that can't be used.
    Unreachable,
    /// The source withdrew so much at once that it is not believed yet.
    Withdrawn,
    /// It was read from disk, and the source has not answered since.
    Restored,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Absent => "absent",
            Self::Fresh => "fresh",
            Self::Stale(Staleness::Unreachable) => "stale: source unreachable",
            Self::Stale(Staleness::Withdrawn) => "stale: withdrawal not believed",
            Self::Stale(Staleness::Restored) => "stale: restored from disk",
        })
    }
}

impl Endpoints {
    /// Before the first answer of a source.
    pub fn pending() -> Self {
        Self::empty(Standing::Pending)
    }

    /// What a source says of a service that it does not know.
    pub fn absent() -> Self {
        Self::empty(Standing::Absent)
    }

    /// Endpoints that were checked before, in another list.
    pub(crate) fn from_checked(list: Arc<[Arc<Endpoint>]>, standing: Standing) -> Self {
        Self {
            list,
            revision: 0,
            standing,
        }
    }

    fn empty(standing: Standing) -> Self {
        Self {
            list: Arc::new([]),
            revision: 0,
            standing,
        }
    }

    /// Checks a list and makes it a snapshot.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyEndpoints`] past [`MAX_ENDPOINTS_PER_SERVICE`], [`Error::DuplicateId`] and
    /// [`Error::Field`]; one bad endpoint refuses the list.
    pub fn new(list: Vec<Endpoint>, revision: u64) -> Result<Self, Error> {
        if list.len() > MAX_ENDPOINTS_PER_SERVICE {
            return Err(Error::TooManyEndpoints {
                count: list.len(),
                limit: MAX_ENDPOINTS_PER_SERVICE,
            });
        }
        let mut ids = HashSet::with_capacity(list.len());
        for endpoint in &list {
            endpoint.check()?;
            if !ids.insert(endpoint.id.as_str()) {
                return Err(Error::DuplicateId {
                    id: endpoint.id.clone(),
                });
            }
        }
        Ok(Self {
            list: list.into_iter().map(Arc::new).collect(),
            revision,
            standing: Standing::Fresh,
        })
    }

    /// Makes a snapshot of what is good in a list: bad endpoints are left out, one by one, and named.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyEndpoints`] past [`MAX_ENDPOINTS_PER_SERVICE`]; and the first error of an endpoint when none is
    /// good, for an answer of that kind says nothing.
    // threat 51
    pub fn sift(list: Vec<Endpoint>, revision: u64) -> Result<(Self, Refused), Error> {
        Self::sift_more(list, Refused::default(), revision)
    }

    /// [`Self::sift`] for who has left out endpoints already, those in `refused`.
    ///
    /// # Errors
    ///
    /// As [`Self::sift`].
    pub fn sift_more(
        list: Vec<Endpoint>,
        mut refused: Refused,
        revision: u64,
    ) -> Result<(Self, Refused), Error> {
        if list.len() > MAX_ENDPOINTS_PER_SERVICE {
            return Err(Error::TooManyEndpoints {
                count: list.len(),
                limit: MAX_ENDPOINTS_PER_SERVICE,
            });
        }
        let mut good = Vec::with_capacity(list.len());
        for endpoint in list {
            match endpoint.check() {
                Ok(()) => good.push(Arc::new(endpoint)),
                Err(error) => refused.add(error),
            }
        }
        let mut ids = HashSet::with_capacity(good.len());
        let is_first = good.iter().map(|one| ids.insert(one.id.as_str()));
        let is_first: Vec<_> = is_first.collect();
        if is_first.contains(&false) {
            let mut is_first = is_first.into_iter();
            good.retain(|endpoint| {
                let is_first = is_first.next().unwrap_or_default();
                if !is_first {
                    let id = endpoint.id.clone();
                    refused.add(Error::DuplicateId { id });
                }
                is_first
            });
        }
        match refused.first {
            Some(error) if good.is_empty() => Err(error),
            _ => Ok((
                Self {
                    list: good.into(),
                    revision,
                    standing: Standing::Fresh,
                },
                refused,
            )),
        }
    }

    /// The same list in another standing.
    #[must_use]
    pub fn with_standing(self, standing: Standing, revision: u64) -> Self {
        Self {
            revision,
            standing,
            ..self
        }
    }

    /// The same list under another revision.
    #[must_use]
    pub fn with_revision(self, revision: u64) -> Self {
        Self { revision, ..self }
    }

    /// This list with the [`Arc`] of `before` wherever an endpoint did not change.
    #[must_use]
    pub fn reusing(self, before: &Self) -> Self {
        let known: HashMap<&str, &Arc<Endpoint>> = before
            .iter()
            .map(|endpoint| (endpoint.id.as_str(), endpoint))
            .collect();
        let reuse = |new: &Arc<Endpoint>| match known.get(new.id.as_str()) {
            Some(old) if **old == *new => Arc::clone(old),
            _ => Arc::clone(new),
        };
        Self {
            list: self.list.iter().map(reuse).collect(),
            ..self
        }
    }

    /// The endpoints for which `keep` is true, in the same state under a revision of its own.
    #[must_use]
    pub fn filtered(&self, revision: u64, mut keep: impl FnMut(&Arc<Endpoint>) -> bool) -> Self {
        let list = self
            .list
            .iter()
            .filter(|endpoint| keep(endpoint))
            .map(Arc::clone)
            .collect();
        Self {
            list,
            revision,
            standing: self.standing,
        }
    }

    /// Grows with every change that the source publishes; equal revisions of one watch are equal lists.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How the list stands with its source.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// True when this is the last good answer of a source that gives none now.
    pub fn is_stale(&self) -> bool {
        matches!(self.standing, Standing::Stale(_))
    }

    /// True when the source has heard of the service; a known service may have no endpoints yet.
    pub fn is_known(&self) -> bool {
        matches!(self.standing, Standing::Fresh | Standing::Stale(_))
    }

    /// The list itself, to keep without the revision.
    pub fn to_arc(&self) -> Arc<[Arc<Endpoint>]> {
        Arc::clone(&self.list)
    }
}

impl Default for Endpoints {
    fn default() -> Self {
        Self::pending()
    }
}

impl Deref for Endpoints {
    type Target = [Arc<Endpoint>];

    fn deref(&self) -> &Self::Target {
        &self.list
    }
}

/// What was left out of a list.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// How many endpoints.
    pub count: usize,
    /// What is wrong with the first of them.
    pub first: Option<Error>,
}

impl Refused {
    /// Counts one more, left out because of `error`.
    pub fn add(&mut self, error: Error) {
        self.count += 1;
        self.first.get_or_insert(error);
    }
}

/// Equal endpoints in equal order and standing; the revision does not count.
impl PartialEq for Endpoints {
    fn eq(&self, other: &Self) -> bool {
        self.standing == other.standing && self.list == other.list
    }
}

impl Eq for Endpoints {}

fn is_label(text: &str) -> bool {
    let is_control = |byte: u8| byte.is_ascii_control();
    // Beyond ASCII there are control characters too, and looking for them takes longer.
    text.len() <= MAX_LABEL_BYTES
        && !text.bytes().any(is_control)
        && (text.is_ascii() || !text.chars().any(char::is_control))
}

fn is_spiffe_like(id: &str) -> bool {
    let rest = id.strip_prefix("spiffe://");
    id.len() <= MAX_SPIFFE_ID_BYTES
        && rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic()))
}

/// The most endpoints that one service may have: a bound on what a hostile or broken registry can make a
/// node hold, about 4 MiB a service.
pub const MAX_ENDPOINTS_PER_SERVICE: usize = 10_000;

/// The limit of Consul for a metadata value; an id made of the longest host name and a port fits.
const MAX_LABEL_BYTES: usize = 512;
/// The limit of Consul for the metadata pairs of a service.
const MAX_TAGS: usize = 64;
/// SPIFFE-ID specification, section 2.3: implementations support up to 2048 bytes and send no more.
const MAX_SPIFFE_ID_BYTES: usize = 2048;
const LABEL_REASON: &str = "use 1 to 512 bytes without control characters";

#[cfg(test)]
mod tests;
