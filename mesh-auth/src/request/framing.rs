//! Header limits, message framing and hop-by-hop fields.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::{Limits, RequestError};

/// Checks limits and framing, and drops what belongs to this hop only.
pub(super) fn normalise(parts: &mut Parts, limits: &Limits) -> Result<(), RequestError> {
    let seen = Seen::look(&parts.headers, limits)?;
    if seen.hosts > 1 {
        return Err(RequestError::SeveralHosts);
    }
    check_length(&seen, &parts.headers, limits)?;
    if seen.has_transfer_encoding {
        check_transfer_encoding(&parts.headers, parts.version)?;
    }
    if seen.has_hop_by_hop {
        // RFC 9113 section 8.2.2: such a message is malformed.
        if parts.version >= Version::HTTP_2 && seen.has_connection_specific {
            return Err(RequestError::BadConnection);
        }
        drop_hop_by_hop(&mut parts.headers)?;
    }
    Ok(())
}

/// What one pass over the fields finds.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "findings, not states")]
struct Seen {
    hosts: usize,
    content_lengths: usize,
    has_te: bool,
    has_transfer_encoding: bool,
    has_hop_by_hop: bool,
    has_connection_specific: bool,
}

impl Seen {
    fn look(headers: &HeaderMap, limits: &Limits) -> Result<Self, RequestError> {
        let count = headers.len();
        if count > limits.max_headers {
            return Err(RequestError::TooManyHeaders {
                count,
                limit: limits.max_headers,
            });
        }
        let mut seen = Self::default();
        let mut bytes = 0_usize;
        for (name, value) in headers {
            let name = name.as_str();
            bytes = bytes
                .saturating_add(name.len())
                .saturating_add(value.len())
                .saturating_add(FIELD_OVERHEAD);
            match name {
                "host" => seen.hosts = seen.hosts.saturating_add(1),
                "content-length" => seen.content_lengths = seen.content_lengths.saturating_add(1),
                // What every gRPC call carries stays as it is.
                "te" if value == "trailers" && !seen.has_te => seen.has_te = true,
                "te" => seen.has_hop_by_hop = true,
                "transfer-encoding" => {
                    seen.has_transfer_encoding = true;
                    seen.has_hop_by_hop = true;
                    seen.has_connection_specific = true;
                }
                "connection" | "keep-alive" | "proxy-connection" | "upgrade" => {
                    seen.has_hop_by_hop = true;
                    seen.has_connection_specific = true;
                }
                "http2-settings" | "proxy-authenticate" | "proxy-authorization" => {
                    seen.has_hop_by_hop = true;
                }
                _ => {}
            }
        }
        if bytes > limits.max_header_bytes {
            return Err(RequestError::HeadersTooLarge {
                bytes,
                limit: limits.max_header_bytes,
            });
        }
        Ok(seen)
    }
}

/// One plain number and no second framing (RFC 9112 section 6.3).
fn check_length(seen: &Seen, headers: &HeaderMap, limits: &Limits) -> Result<(), RequestError> {
    if seen.content_lengths == 0 {
        return Ok(());
    }
    if seen.has_transfer_encoding {
        return Err(RequestError::TwoFramings);
    }
    let value = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let digits = value.filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let length = digits.and_then(|text| text.parse::<u64>().ok());
    match (length, limits.max_body_bytes) {
        (None, _) => Err(RequestError::BadContentLength),
        _ if seen.content_lengths > 1 => Err(RequestError::BadContentLength),
        (Some(bytes), Some(limit)) if bytes > limit => {
            Err(RequestError::BodyTooLarge { bytes, limit })
        }
        _ => Ok(()),
    }
}

fn check_transfer_encoding(headers: &HeaderMap, version: Version) -> Result<(), RequestError> {
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = values
        .next()
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if version == Version::HTTP_11 && is_chunked && values.next().is_none() {
        Ok(())
    } else {
        Err(RequestError::BadTransferEncoding)
    }
}

/// Drops the fields of RFC 9110 section 7.6.1, and those that `Connection` names.
fn drop_hop_by_hop(headers: &mut HeaderMap) -> Result<(), RequestError> {
    let mut named = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        let text = value
            .to_str()
            .map_err(|_not_ascii| RequestError::BadConnection)?;
        for option in text
            .split(',')
            .map(str::trim)
            .filter(|option| !option.is_empty())
        {
            let name = HeaderName::from_bytes(option.as_bytes())
                .map_err(|_bad| RequestError::BadConnection)?;
            if is_end_to_end(&name) {
                return Err(RequestError::BadConnection);
            }
            named.push(name);
        }
    }
    let keeps_trailers = headers.get_all(header::TE).iter().any(has_trailers);
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    for name in UNREGISTERED_HOP_BY_HOP {
        headers.remove(name);
    }
    if keeps_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(())
}

fn has_trailers(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .split(|&b| b == b',')
        .any(|member| member.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Fields that others rely on: naming them in `Connection` is an attempt to make a proxy drop them
/// ("a sender MUST NOT send a connection option corresponding to a field that is intended for all
/// recipients", RFC 9110 section 7.6.1).
fn is_end_to_end(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "authorization"
            | "cache-control"
            | "content-encoding"
            | "content-length"
            | "content-type"
            | "cookie"
            | "expect"
            | "forwarded"
            | "host"
            | "origin"
            | "traceparent"
            | "trailer"
            | "via"
    ) || name.starts_with("x-forwarded-")
        || name.starts_with("x-mesh-")
        || name == "x-spiffe-id"
        || name == "x-real-ip"
}

const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];

/// Hop-by-hop fields that [`http::header`] has no constant for.
const UNREGISTERED_HOP_BY_HOP: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];

/// RFC 9113 section 6.5.2 counts each field with 32 bytes beside name and value.
const FIELD_OVERHEAD: usize = 32;
