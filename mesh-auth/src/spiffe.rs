//! SPIFFE identities, parsed strictly and compared whole.
//!
//! # Sources
//! - SPIFFE-ID 1.0: section 2.1 (trust domain), 2.2 (path), 2.3 (maximum lengths), 2.4 (parsing).
//! - RFC 3986 is deliberately not used to parse: of its grammar SPIFFE allows only a small part,
//!   and a general parser would accept user information, ports, percent-encoding and dot segments.

mod alias;

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

pub use self::alias::{MAX_ALIASES, TrustDomainAliases};

/// Longest trust domain name, in bytes (SPIFFE-ID section 2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// Longest SPIFFE id, in bytes, scheme included (SPIFFE-ID section 2.3).
pub const MAX_ID_BYTES: usize = 2048;

/// The name of a trust domain, such as `example.org`.
///
/// Cloning is cheap: the text is shared.
#[derive(Clone)]
pub struct TrustDomain {
    /// `spiffe://<domain>` and, where this is the domain of a [`SpiffeId`], that id's path: id and
    /// domain share one allocation, and `SpiffeId::trust_domain` costs nothing.
    text: Arc<str>,
    /// Where the domain ends in `text`.
    end: usize,
}

impl TrustDomain {
    /// Parses the bare name of a trust domain, such as `example.org`.
    ///
    /// # Errors
    /// When the name is empty, longer than [`MAX_TRUST_DOMAIN_BYTES`], or holds anything but
    /// lower-case letters, digits, dots, dashes and underscores. `spiffe://` is not accepted here.
    pub fn parse(name: &str) -> Result<Self, SpiffeIdError> {
        check_domain(name.as_bytes())?;
        let text = format!("{SCHEME}{name}");
        Ok(Self {
            end: text.len(),
            text: text.into(),
        })
    }

    /// The name, such as `example.org`.
    pub fn as_str(&self) -> &str {
        self.text.get(SCHEME.len()..self.end).unwrap_or_default()
    }

    /// The id of the trust domain itself, `spiffe://example.org`, which its signing certificates carry.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        let text = self.text.get(..self.end).unwrap_or_default();
        SpiffeId(Self {
            text: text.into(),
            end: self.end,
        })
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({self})")
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    fn from_str(name: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(name)
    }
}

impl PartialEq for TrustDomain {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for TrustDomain {}

impl PartialOrd for TrustDomain {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TrustDomain {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for TrustDomain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// A SPIFFE id, such as `spiffe://example.org/order-service`.
///
/// Two ids are equal only when every byte is: there is no normal form to convert to, because the
/// parser accepts one spelling. Cloning is cheap: the text is shared.
#[derive(Clone)]
pub struct SpiffeId(TrustDomain);

impl SpiffeId {
    /// Parses an id.
    ///
    /// # Errors
    /// When the text breaks a rule of the SPIFFE-ID specification; the error names the rule.
    pub fn parse(id: &str) -> Result<Self, SpiffeIdError> {
        if id.len() > MAX_ID_BYTES {
            return Err(SpiffeIdError::TooLong { bytes: id.len() });
        }
        let rest = id.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = match rest.find('/') {
            Some(slash) => rest.split_at_checked(slash).unwrap_or((rest, "")),
            None => (rest, ""),
        };
        check_domain(domain.as_bytes())?;
        if !path.is_empty() {
            check_path(path)?;
        }
        Ok(Self(TrustDomain {
            text: id.into(),
            end: SCHEME.len() + domain.len(),
        }))
    }

    /// The id that a service of this mesh has: `spiffe://<domain>/<service>`.
    ///
    /// # Errors
    /// When `service` is not made of valid path segments (letters, digits, `.`, `-`, `_`, separated
    /// by single slashes), or the id would be too long.
    pub fn for_service(domain: &TrustDomain, service: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(&format!("{SCHEME}{domain}/{service}"))
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The trust domain this id belongs to.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0
    }

    /// The path with its leading slash, or the empty string for the id of a trust domain itself.
    pub fn path(&self) -> &str {
        self.0.text.get(self.0.end..).unwrap_or_default()
    }

    /// The path without its leading slash: the service's name where the id was made by [`Self::for_service`].
    pub fn service(&self) -> &str {
        self.path().strip_prefix('/').unwrap_or_default()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({self})")
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(id: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(id)
    }
}

impl PartialEq for SpiffeId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for SpiffeId {}

impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SpiffeId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for SpiffeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for SpiffeId {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// Which rule of the SPIFFE-ID specification a text breaks.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SpiffeIdError {
    /// The id does not start with `spiffe://` in lower case.
    #[error("a SPIFFE id starts with spiffe:// in lower case")]
    Scheme,
    /// The id is longer than [`MAX_ID_BYTES`].
    #[error("a SPIFFE id of {bytes} bytes is longer than the limit of {MAX_ID_BYTES}")]
    TooLong {
        /// Length of the refused id in bytes.
        bytes: usize,
    },
    /// There is no trust domain.
    #[error("the trust domain is empty")]
    EmptyTrustDomain,
    /// The trust domain is longer than [`MAX_TRUST_DOMAIN_BYTES`].
    #[error("a trust domain of {bytes} bytes is longer than the limit of {MAX_TRUST_DOMAIN_BYTES}")]
    TrustDomainTooLong {
        /// Length of the refused trust domain in bytes.
        bytes: usize,
    },
    /// The trust domain holds something else than `a-z 0-9 . - _`: also a port or user information.
    #[error(
        "a trust domain is made of a-z, 0-9, dot, dash and underscore; byte {at} is none of them"
    )]
    TrustDomainCharacter {
        /// Position of the first bad byte in the trust domain.
        at: usize,
    },
    /// A path segment holds something else than `a-z A-Z 0-9 . - _`: also `%`, `?` and `#`.
    #[error(
        "a path is made of letters, digits, dot, dash and underscore; byte {at} is none of them"
    )]
    PathCharacter {
        /// Position of the first bad byte in the path.
        at: usize,
    },
    /// The path has an empty segment (`//`) or ends in a slash.
    #[error("a path has no empty segment and does not end in a slash")]
    EmptySegment,
    /// A path segment is `.` or `..`.
    #[error("a path segment is neither . nor ..")]
    DotSegment,
    /// There are more aliases than [`MAX_ALIASES`].
    #[error("{aliases} aliases of a trust domain are more than the limit of {MAX_ALIASES}")]
    TooManyAliases {
        /// How many.
        aliases: usize,
    },
    /// A trust domain is given as an alias of itself.
    #[error("trust domain {domain} is given as an alias of itself")]
    OwnAlias {
        /// Which.
        domain: TrustDomain,
    },
}

fn check_domain(name: &[u8]) -> Result<(), SpiffeIdError> {
    if name.is_empty() {
        return Err(SpiffeIdError::EmptyTrustDomain);
    }
    if name.len() > MAX_TRUST_DOMAIN_BYTES {
        return Err(SpiffeIdError::TrustDomainTooLong { bytes: name.len() });
    }
    let allowed = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    match name.iter().position(|b| !allowed(b)) {
        Some(at) => Err(SpiffeIdError::TrustDomainCharacter { at }),
        None => Ok(()),
    }
}

/// Checks a path that starts with a slash.
fn check_path(path: &str) -> Result<(), SpiffeIdError> {
    let allowed =
        |b: u8| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'/');
    if let Some(at) = path.bytes().position(|b| !allowed(b)) {
        return Err(SpiffeIdError::PathCharacter { at });
    }
    for segment in path.split('/').skip(1) {
        match segment {
            "" => return Err(SpiffeIdError::EmptySegment),
            "." | ".." => return Err(SpiffeIdError::DotSegment),
            _ => {}
        }
    }
    Ok(())
}

const SCHEME: &str = "spiffe://";

#[cfg(test)]
mod tests;
#[cfg(feature = "serde")]
mod text;
