//! The values that stand behind keys: what they may be, and what is said when they are not.
//!
//! A message here is a predicate ("is not a duration; …"): the decoder puts the place, the key and, unless it is
//! secret, the value in front of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error as _;
use zeroize::Zeroizing;

/// A host name or address, and a port.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct HostPort {
    /// DNS name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// Port, never 0.
    pub port: NonZeroU16,
}

impl HostPort {
    /// Reads `host:port`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    ///
    /// A sentence fragment that says what the text is not.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str =
            "is not host:port; write it like 127.0.0.1:8080 or app.internal:8080";
        let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
        let port = port.parse().ok().ok_or(EXPECTED)?;
        let inner = host
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'));
        let host = match inner {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            None if is_host(host) && !host.contains(':') => host,
            _ => return Err(EXPECTED),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Serialize for HostPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A secret from the configuration: wiped from memory when dropped, and never printed.
#[derive(Clone, Default, PartialEq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes a secret.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// Durations such as `30s`, longer than nothing.
pub(super) mod duration {
    use super::*;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        match humantime::parse_duration(&text) {
            Err(_) => Err(D::Error::custom(
                "is not a duration; write a number and a unit, such as 500ms, 30s or 1h",
            )),
            Ok(Duration::ZERO) => Err(D::Error::custom(
                "is not allowed; it must be longer than 0s",
            )),
            Ok(duration) if duration > LONGEST => Err(D::Error::custom(
                "is too long; a duration here is at most 3650days",
            )),
            Ok(duration) => Ok(duration),
        }
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }
}

/// The same, or nothing.
pub(super) mod optional_duration {
    use super::Deserializer;
    use super::Duration;
    use super::Serializer;
    use super::duration;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(deserializer).map(Some)
    }

    #[expect(clippy::ref_option, reason = "what serde calls it with")]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => duration::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }
}

/// A path, or a `unix:` address of the SPIFFE Workload API (section 4 of its specification): `unix:///path`.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, &'static str> {
    const EXPECTED: &str = "is not a Unix socket; write a path, or unix:///path";
    let rest = text.strip_prefix("unix:");
    let path = rest.map_or(text, |rest| rest.strip_prefix("//").unwrap_or(rest));
    let is_usable = if rest.is_some() {
        path.starts_with('/') && !path.contains(['?', '#'])
    } else {
        !path.is_empty() && !path.contains("://")
    };
    if is_usable {
        Ok(PathBuf::from(path))
    } else {
        Err(EXPECTED)
    }
}

pub(super) fn unix_socket<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(deserializer)?;
    socket_path(&text).map(Some).map_err(D::Error::custom)
}

/// Moments such as `2027-03-31T18:00:00Z`, or nothing.
pub(super) mod moment {
    use std::time::SystemTime;

    use super::*;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let text = String::deserialize(deserializer)?;
        match humantime::parse_rfc3339(&text) {
            Ok(moment) => Ok(Some(moment)),
            Err(_) => Err(D::Error::custom(
                "is not a moment; write it like 2027-03-31T18:00:00Z",
            )),
        }
    }

    #[expect(clippy::ref_option, reason = "what serde calls it with")]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(&humantime::format_rfc3339_seconds(*value)),
            None => serializer.serialize_none(),
        }
    }
}

pub(super) fn socket_addr<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().ok().ok_or_else(|| {
        D::Error::custom("is not an IP address and port; write it like 127.0.0.1:9090")
    })
}

pub(super) fn socket_addrs<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SocketAddr>, D::Error> {
    #[derive(Deserialize)]
    struct Address(#[serde(deserialize_with = "socket_addr")] SocketAddr);
    let addresses = Vec::<Address>::deserialize(deserializer)?;
    Ok(addresses
        .into_iter()
        .map(|Address(address)| address)
        .collect())
}

/// A text for each of some services.
pub(super) fn by_service<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let map = BTreeMap::<String, String>::deserialize(deserializer)?;
    match map.keys().find(|name| !is_service_name(name)) {
        Some(name) => Err(D::Error::custom(format_args!("{name:?} {NOT_A_SERVICE}"))),
        None => Ok(map),
    }
}

/// A SPIFFE id for each of some services.
pub(super) fn spiffe_ids_by_service<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let map = by_service(deserializer)?;
    match map.values().find(|id| !is_spiffe_id(id)) {
        Some(id) => Err(D::Error::custom(format_args!("{id:?} {NOT_A_SPIFFE_ID}"))),
        None => Ok(map),
    }
}

/// SPIFFE ids, of which each may stand for all below it by ending in `/*`.
pub(super) fn spiffe_patterns<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    let patterns = Vec::<String>::deserialize(deserializer)?;
    let is_usable = |pattern: &String| match pattern.strip_suffix("/*") {
        Some(above) => {
            is_spiffe_id(above) || above.strip_prefix("spiffe://").is_some_and(is_trust_domain)
        }
        None => is_spiffe_id(pattern),
    };
    match patterns.iter().find(|pattern| !is_usable(pattern)) {
        Some(pattern) => Err(D::Error::custom(format_args!(
            "{pattern:?} is neither a SPIFFE id nor one that ends in /*; write it like spiffe://example.org/payments/*"
        ))),
        None => Ok(patterns),
    }
}

pub(super) fn host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_host(&text) {
        return Ok(text);
    }
    Err(D::Error::custom(
        "is not a host; write a DNS name or an IP address, without a port",
    ))
}

pub(super) fn some_host<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    host(deserializer).map(Some)
}

pub(super) fn service_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_service_name(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(NOT_A_SERVICE))
    }
}

pub(super) fn some_service_name<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    service_name(deserializer).map(Some)
}

pub(super) fn trust_domain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_trust_domain(&text) {
        return Ok(text);
    }
    Err(D::Error::custom(
        "is not a trust domain; write lower-case letters, digits, '.', '-' and '_', such as example.org",
    ))
}

pub(super) fn some_spiffe_id<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_spiffe_id(&text) {
        Ok(Some(text))
    } else {
        Err(D::Error::custom(NOT_A_SPIFFE_ID))
    }
}

/// A key's fingerprint, as `mesh-node keys list` prints it.
pub(super) fn some_fingerprint<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.strip_prefix("sha256:");
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(hex)) {
        return Ok(Some(text));
    }
    Err(D::Error::custom(
        "is not a fingerprint; write sha256: and 64 hex digits, as `mesh-node keys list` prints it",
    ))
}

pub(super) fn url_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._".contains(&byte);
    if text.starts_with('/') && text.len() > 1 && text.bytes().all(plain) {
        return Ok(text);
    }
    Err(D::Error::custom("is not a path; write it like /metrics"))
}

pub(super) fn ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&number) {
        Ok(number)
    } else {
        Err(D::Error::custom(
            "is not a share; write a number from 0 to 1",
        ))
    }
}

/// A share that is more than nothing.
pub(super) fn some_share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if (0.001..=1.0).contains(&number) {
        Ok(number)
    } else {
        Err(D::Error::custom(
            "is not such a share; write a number from 0.001 to 1",
        ))
    }
}

/// A secret that somebody else made, so that how strong it is is theirs to know.
pub(super) fn some_secret<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SecretText>, D::Error> {
    let secret = SecretText::new(String::deserialize(deserializer)?);
    if secret.expose().is_empty() {
        return Err(D::Error::custom("is empty"));
    }
    Ok(Some(secret))
}

/// Refuses secrets that can be guessed; never says what they are.
pub(super) fn strong_secret<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SecretText, D::Error> {
    let secret = SecretText::new(String::deserialize(deserializer)?);
    match weakness(secret.expose()) {
        Some(why) => Err(D::Error::custom(why)),
        None => Ok(secret),
    }
}

pub(crate) fn is_service_name(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= NAME_BYTES
        && bytes.iter().all(|byte| plain(*byte))
        && edge(bytes.first())
        && edge(bytes.last())
}

/// SPIFFE-ID specification, section 2.1.
pub(super) fn is_trust_domain(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(plain)
}

/// SPIFFE-ID specification, sections 2.1 to 2.3.
pub(super) fn is_spiffe_id(text: &str) -> bool {
    let Some((domain, path)) = text
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let segment = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(plain);
    text.len() <= 2048 && is_trust_domain(domain) && path.split('/').all(segment)
}

/// The number as a non-zero one; 0 becomes 1 (called with constants only).
pub(super) fn nonzero(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let name = !text.is_empty()
        && text.len() <= NAME_BYTES
        && text.bytes().all(plain)
        && !text.starts_with(['.', '-']);
    name || text.parse::<std::net::Ipv6Addr>().is_ok()
}

/// Why a secret is too weak to sign tokens with, if it is.
pub(super) fn weakness(secret: &str) -> Option<&'static str> {
    if secret.len() < SECRET_BYTES {
        return Some("is shorter than 32 bytes; make one with `openssl rand -base64 48`");
    }
    let lower = Zeroizing::new(secret.to_ascii_lowercase());
    if PLACEHOLDERS.iter().any(|word| lower.contains(word)) {
        return Some("is a placeholder, not a secret; make one with `openssl rand -base64 48`");
    }
    if shannon_bits(secret.as_bytes()) < SECRET_BITS {
        return Some("is too regular to be a secret; make one with `openssl rand -base64 48`");
    }
    None
}

/// Shannon entropy of the whole text, in bits, from the frequencies of its own bytes: an upper bound for short texts,
/// and zero for one repeated byte.
fn shannon_bits(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let total = f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) * (total / f64::from(*count)).log2())
        .sum()
}

const REDACTED: &str = "[redacted]";
pub(super) const NOT_A_SERVICE: &str = "is not a service name; write lower-case letters, digits, '-', '_' and '.', such as order-service";
pub(super) const NOT_A_SPIFFE_ID: &str =
    "is not a SPIFFE id; write it like spiffe://example.org/order-service";
/// A DNS name's limit (RFC 1035, section 2.3.4), so that a service name can also be one.
const NAME_BYTES: usize = 253;
/// Ten years: nothing here is meant to last longer, and sums with a clock reading cannot overflow.
const LONGEST: Duration = Duration::from_hours(3650 * 24);
/// RFC 7518, section 3.2: a key of the hash's size or larger for HS256.
const SECRET_BYTES: usize = 32;
/// A random 32-digit hex text has 110 to 128 by this estimate; "changeme" four times has 88.
const SECRET_BITS: f64 = 96.0;
const PLACEHOLDERS: [&str; 8] = [
    "changeme",
    "change-me",
    "change_me",
    "your-secret",
    "your_secret",
    "your-256-bit",
    "password",
    "supersecret",
];
