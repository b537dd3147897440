//! The messages of the aggregated discovery service: requests that are written, responses that are read.
//!
//! # Sources
//!
//! `envoy/service/discovery/v3/discovery.proto`, `google/protobuf/any.proto`, `google/rpc/status.proto`.

use bytes::Bytes;

use super::Locality;
use super::Node;
use super::fields::ANY;
use super::fields::DELTA_DISCOVERY_RESPONSE;
use super::fields::DISCOVERY_RESPONSE;
use super::fields::Message;
use super::fields::RESOURCE;
use super::ignored::Ignored;
use super::wire::Writer;
use super::wire::Wrong;
use super::wire::fields;

/// A request in either form; what one does not have is not written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) type_url: &'static str,
    /// Nonce of the response that this answers, and of the first request of a stream none.
    pub(super) nonce: String,
    /// Why that response is refused, as far as it is.
    pub(super) refusal: Option<String>,
    pub(super) body: Body,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// State of the world: the last version that was taken, and all names.
    Whole { version: String, names: Vec<String> },
    /// Incremental: names that are new, names that are not wanted any more, and versions that are there from before.
    Delta {
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        versions: Vec<(String, String)>,
    },
}

impl Default for Body {
    fn default() -> Self {
        Self::Delta {
            subscribe: Vec::new(),
            unsubscribe: Vec::new(),
            versions: Vec::new(),
        }
    }
}

impl Request {
    /// As a `DiscoveryRequest` or `DeltaDiscoveryRequest`; the first of a stream says who asks.
    pub(super) fn encode(&self, node: Option<&Node>) -> Bytes {
        let mut writer = Writer::default();
        let refusal = |writer: &mut Writer, tag| {
            if let Some(refusal) = &self.refusal {
                writer.message(tag, |status| {
                    status.uint64(1, INVALID_ARGUMENT);
                    status.text(2, refusal);
                });
            }
        };
        match &self.body {
            Body::Whole { version, names } => {
                writer.text(1, version);
                if let Some(node) = node {
                    writer.message(2, |writer| write_node(writer, node));
                }
                for name in names {
                    writer.bytes(3, name.as_bytes());
                }
                writer.text(4, self.type_url);
                writer.text(5, &self.nonce);
                refusal(&mut writer, 6);
            }
            Body::Delta {
                subscribe,
                unsubscribe,
                versions,
            } => {
                if let Some(node) = node {
                    writer.message(1, |writer| write_node(writer, node));
                }
                writer.text(2, self.type_url);
                for name in subscribe {
                    writer.bytes(3, name.as_bytes());
                }
                for name in unsubscribe {
                    writer.bytes(4, name.as_bytes());
                }
                for (name, version) in versions {
                    writer.message(5, |entry| {
                        entry.text(1, name);
                        entry.text(2, version);
                    });
                }
                writer.text(6, &self.nonce);
                refusal(&mut writer, 7);
            }
        }
        writer.finish().into()
    }
}

fn write_node(writer: &mut Writer, node: &Node) {
    writer.text(1, &node.id);
    writer.text(2, &node.cluster);
    if !node.metadata.is_empty() {
        writer.message(3, |metadata| {
            for (key, text) in &node.metadata {
                metadata.message(1, |entry| {
                    entry.text(1, key);
                    entry.message(2, |value| value.bytes(3, text.as_bytes()));
                });
            }
        });
    }
    if node.locality != Locality::default() {
        writer.message(4, |writer| {
            writer.text(1, &node.locality.region);
            writer.text(2, &node.locality.zone);
            writer.text(3, &node.locality.sub_zone);
        });
    }
    writer.text(6, USER_AGENT);
    writer.text(7, env!("CARGO_PKG_VERSION"));
    for feature in CLIENT_FEATURES {
        writer.text(10, feature);
    }
}

/// A response in either form, borrowed from its bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Response<'a> {
    pub(super) type_url: &'a str,
    /// Of the whole, in a state of the world.
    pub(super) version: &'a str,
    pub(super) nonce: &'a str,
    pub(super) resources: Vec<Received<'a>>,
    /// Names of what is gone, in an incremental response.
    pub(super) removed: Vec<&'a str>,
}

/// A resource as received.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Received<'a> {
    /// Empty where the resource itself has to say it.
    pub(super) name: &'a str,
    /// Of the resource, in an incremental response.
    pub(super) version: &'a str,
    /// Type and content; none where only the version is confirmed.
    pub(super) content: Option<(&'a str, &'a [u8])>,
}

impl<'a> Response<'a> {
    /// Reads a `DiscoveryResponse`, or a `DeltaDiscoveryResponse`.
    pub(super) fn decode(
        bytes: &'a [u8],
        is_delta: bool,
        ignored: &mut Ignored,
    ) -> Result<Self, Wrong> {
        let message = if is_delta {
            &DELTA_DISCOVERY_RESPONSE
        } else {
            &DISCOVERY_RESPONSE
        };
        ignored.enter(message.name);
        let mut response = Self::default();
        for field in fields(message, bytes) {
            let field = field?;
            match (field.tag, is_delta) {
                (1, _) => response.version = field.text()?,
                (2, _) => {
                    if response.resources.len() >= MAX_RESOURCES {
                        return Err(field.wrong(TOO_MANY));
                    }
                    let received = if is_delta {
                        Received::read(field.bytes()?, ignored)?
                    } else {
                        Received::unwrap(any(field.bytes()?, ignored)?, ignored)?
                    };
                    response.resources.push(received);
                }
                (4, _) => response.type_url = field.text()?,
                (5, _) => response.nonce = field.text()?,
                (6, true) => {
                    if response.removed.len() >= MAX_RESOURCES {
                        return Err(field.wrong(TOO_MANY));
                    }
                    response.removed.push(field.text()?);
                }
                // It names the server for people who look at the traffic.
                (6, false) | (7, true) => {}
                _ => ignored.note(&field),
            }
        }
        Ok(response)
    }
}

impl<'a> Received<'a> {
    /// Reads a `Resource`.
    fn read(bytes: &'a [u8], ignored: &mut Ignored) -> Result<Self, Wrong> {
        let mut received = Self::default();
        for field in fields(&RESOURCE, bytes) {
            let field = field?;
            match field.tag {
                1 => received.version = field.text()?,
                2 => received.content = Some(any(field.bytes()?, ignored)?),
                3 => received.name = field.text()?,
                _ => ignored.note(&field),
            }
        }
        Ok(received)
    }

    /// A resource of a state of the world, which may be wrapped in a `Resource`.
    fn unwrap(content: (&'a str, &'a [u8]), ignored: &mut Ignored) -> Result<Self, Wrong> {
        if content.0 == RESOURCE_TYPE {
            return Self::read(content.1, ignored);
        }
        Ok(Self {
            content: Some(content),
            ..Self::default()
        })
    }
}

/// Type and content of a `google.protobuf.Any`.
fn any<'a>(bytes: &'a [u8], ignored: &mut Ignored) -> Result<(&'a str, &'a [u8]), Wrong> {
    let (mut type_url, mut value): (&str, &[u8]) = ("", &[]);
    for field in fields(&ANY, bytes) {
        let field = field?;
        match field.tag {
            1 => type_url = field.text()?,
            2 => value = field.bytes()?,
            _ => ignored.note(&field),
        }
    }
    Ok((type_url, value))
}

/// The type of responses, for the words of errors.
pub(super) fn response_type(is_delta: bool) -> &'static Message {
    if is_delta {
        &DELTA_DISCOVERY_RESPONSE
    } else {
        &DISCOVERY_RESPONSE
    }
}

const RESOURCE_TYPE: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";
/// As many as services may be watched; what is asked for is never more.
const MAX_RESOURCES: usize = 10_000;
const TOO_MANY: &str = "has more than 10000 elements";
/// `google.rpc.Code`.
const INVALID_ARGUMENT: u64 = 3;
const USER_AGENT: &str = "mesh-discovery";
/// That sums over 100 % are not needed, and that resources of a state of the world may be wrapped (gRFC A27, A40 and the
/// xDS protocol's list of features).
const CLIENT_FEATURES: [&str; 2] = [
    "envoy.lb.does_not_support_overprovisioning",
    "xds.config.resource-in-sotw",
];

#[cfg(test)]
mod tests;
