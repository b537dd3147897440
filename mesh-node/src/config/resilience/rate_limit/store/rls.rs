//! A rate limit service that Envoys ask too.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error as _;

use crate::config::HostPort;
use crate::config::value;

/// Envoy's rate limit service: `envoyproxy/ratelimit`, another node's `rate_limit_service`, or any other. It has the limits;
/// those beside it here are shared out while it is away.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RlsStoreConfig {
    /// Where it is: `HOST:PORT`. In plaintext, but with `spiffe_id`. Required.
    #[schemars(with = "String")]
    pub address: HostPort,
    /// Who it must prove to be, by mutual TLS with this node's identity. Default: nobody, in plaintext.
    #[serde(
        default,
        deserialize_with = "value::some_spiffe_id",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub spiffe_id: Option<String>,
    /// The domain whose rules apply. Required.
    pub domain: String,
    /// What it is told of a request: lists of entries, `KEY=SOURCE` or `SOURCE` alone, where the key is of the same name.
    /// Sources are `peer` (the caller's SPIFFE id, or its address in plaintext), `service` (the one that is called), `method`,
    /// `path` (normalised, without query), `header:NAME` and `text:VALUE`. A list of which a header is not there is left out;
    /// a request of which none is left has no limit. Default: one list, `[peer]`.
    #[serde(default = "only_peer")]
    #[schemars(with = "Vec<Vec<String>>")]
    pub descriptors: Vec<Vec<DescriptorEntry>>,
    /// What is done while it is away: `local_share` (this node's part of the limits that stand beside the store, `nodes` says
    /// how many there are), `closed` (requests get 503) or `open` (all pass). Required, for each costs something.
    pub when_away: RlsWhenAway,
    /// How many nodes share the limits, at most: with `local_share` each admits that part of each, at least one request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    pub nodes: Option<NonZeroU32>,
    /// How long a request waits for it; after three in a row that waited in vain none does, for a second. Default `20ms`, as
    /// Envoy waits.
    #[serde(default = "timeout", with = "value::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
}

/// What is done while a rate limit service is away.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RlsWhenAway {
    /// Each node admits its part of the limits that stand beside the store.
    LocalShare,
    /// Nothing is admitted.
    Closed,
    /// All is.
    Open,
}

/// An entry of a descriptor: a key, and where its value comes from.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DescriptorEntry {
    /// The key.
    pub key: String,
    /// Where its value comes from.
    pub source: EntrySource,
}

/// Where the value of an entry comes from.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EntrySource {
    /// The caller.
    Peer,
    /// The service that is called.
    Service,
    /// The request's method.
    Method,
    /// The request's path.
    Path,
    /// A header of the request.
    Header(http::HeaderName),
    /// The configuration.
    Text(String),
}

impl DescriptorEntry {
    /// The caller, under the key `peer`.
    pub fn peer() -> Self {
        Self {
            key: "peer".to_owned(),
            source: EntrySource::Peer,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (key, source) = match text.split_once('=') {
            Some((key, source)) => (Some(key), source),
            None => (None, text),
        };
        let (kind, rest) = source.split_once(':').unwrap_or((source, ""));
        let (name, source) = match (kind, rest) {
            ("peer", "") => ("peer", EntrySource::Peer),
            ("service", "") => ("service", EntrySource::Service),
            ("method", "") => ("method", EntrySource::Method),
            ("path", "") => ("path", EntrySource::Path),
            ("header", name) => (name, EntrySource::Header(name.parse().ok()?)),
            // A text says nothing of itself.
            ("text", value) if key.is_some() => ("", EntrySource::Text(value.to_owned())),
            _ => return None,
        };
        let key = key.unwrap_or(name).to_owned();
        (!key.is_empty()).then_some(Self { key, source })
    }
}

impl fmt::Display for DescriptorEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.key)?;
        match &self.source {
            EntrySource::Peer => f.write_str("peer"),
            EntrySource::Service => f.write_str("service"),
            EntrySource::Method => f.write_str("method"),
            EntrySource::Path => f.write_str("path"),
            EntrySource::Header(name) => write!(f, "header:{name}"),
            EntrySource::Text(value) => write!(f, "text:{value}"),
        }
    }
}

impl Serialize for DescriptorEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DescriptorEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom(
                "is no entry; write peer, service, method, path, header:NAME, or KEY= before one of these or text:VALUE",
            )
        })
    }
}

fn only_peer() -> Vec<Vec<DescriptorEntry>> {
    vec![vec![DescriptorEntry::peer()]]
}

const fn timeout() -> Duration {
    Duration::from_millis(20)
}
