//! The one authority of a request.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::net::Ipv6Addr;

use http::uri::Authority as UriAuthority;
use http::{HeaderValue, Version};

use super::{RequestError, header_value};

/// Host and port in canonical spelling, kept in whichever form they arrived, so that taking them
/// over copies nothing.
#[derive(Debug)]
pub(super) struct Authority {
    text: Text,
    host_length: usize,
    port: Option<u16>,
}

#[derive(Debug)]
enum Text {
    Target(UriAuthority),
    Host(HeaderValue),
    Absent,
}

impl Authority {
    /// From the request target and the `Host` field, which must agree where both are there.
    pub(super) fn of(
        target: Option<UriAuthority>,
        host: Option<HeaderValue>,
        version: Version,
    ) -> Result<Self, RequestError> {
        match (target, host) {
            (Some(target), None) => Self::from_target(target),
            (None, Some(host)) => Self::from_host(host),
            (Some(target), Some(host)) => {
                let (target, host) = (Self::from_target(target)?, Self::from_host(host)?);
                if target.as_str() == host.as_str() {
                    Ok(target)
                } else {
                    Err(RequestError::HostMismatch)
                }
            }
            // Only HTTP/1.0 may name no host (RFC 9112 section 3.2).
            (None, None) if version <= Version::HTTP_10 => Ok(Self {
                text: Text::Absent,
                host_length: 0,
                port: None,
            }),
            (None, None) => Err(RequestError::NoHost),
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, RequestError> {
        Self::from_host(header_value(text)?)
    }

    pub(super) fn as_str(&self) -> &str {
        match &self.text {
            Text::Target(authority) => authority.as_str(),
            Text::Host(value) => value.to_str().unwrap_or_default(),
            Text::Absent => "",
        }
    }

    pub(super) fn host(&self) -> &str {
        self.as_str().get(..self.host_length).unwrap_or_default()
    }

    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    pub(super) fn into_header(self) -> Option<HeaderValue> {
        match self.text {
            Text::Target(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            Text::Host(value) => Some(value),
            Text::Absent => None,
        }
    }

    pub(super) fn into_uri(self) -> Result<UriAuthority, RequestError> {
        match self.text {
            Text::Target(authority) => Ok(authority),
            Text::Host(value) => {
                UriAuthority::try_from(value.as_bytes()).map_err(RequestError::Uri)
            }
            Text::Absent => Err(RequestError::NoHost),
        }
    }

    fn from_target(target: UriAuthority) -> Result<Self, RequestError> {
        let seen = Seen::parse(target.as_str())?;
        let text = match seen.canonical {
            None => Text::Target(target),
            Some(text) => Text::Target(UriAuthority::try_from(text).map_err(RequestError::Uri)?),
        };
        Ok(Self {
            text,
            host_length: seen.host_length,
            port: seen.port,
        })
    }

    fn from_host(host: HeaderValue) -> Result<Self, RequestError> {
        let seen = Seen::parse(
            host.to_str()
                .map_err(|_not_ascii| RequestError::BadAuthority)?,
        )?;
        let text = match seen.canonical {
            None => Text::Host(host),
            Some(text) => Text::Host(header_value(&text)?),
        };
        Ok(Self {
            text,
            host_length: seen.host_length,
            port: seen.port,
        })
    }
}

struct Seen {
    /// The canonical spelling, where it differs.
    canonical: Option<String>,
    host_length: usize,
    port: Option<u16>,
}

impl Seen {
    fn parse(text: &str) -> Result<Self, RequestError> {
        if text.contains('@') {
            return Err(RequestError::UserInfo);
        }
        let (host, port_text) = split_port(text)?;
        let port = port_text.map(parse_port).transpose()?;
        let canonical_host = if host.starts_with('[') {
            canonical_v6(host)?
        } else {
            canonical_name(host)?
        };
        let Some(host) = canonical_host else {
            return Ok(Self {
                canonical: None,
                host_length: host.len(),
                port,
            });
        };
        let host_length = host.len();
        let canonical = match port_text {
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        Ok(Self {
            canonical: Some(canonical),
            host_length,
            port,
        })
    }
}

fn split_port(text: &str) -> Result<(&str, Option<&str>), RequestError> {
    let after_bracket = text.find(']').unwrap_or(0);
    match text.rfind(':') {
        Some(colon) if colon > after_bracket => {
            let (host, port) = text
                .split_at_checked(colon)
                .ok_or(RequestError::BadAuthority)?;
            Ok((host, port.get(1..)))
        }
        _ => Ok((text, None)),
    }
}

/// One spelling: digits, no leading zero, 1 to 65535.
fn parse_port(text: &str) -> Result<u16, RequestError> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    match text.parse() {
        Ok(port) if is_plain => Ok(port),
        _ => Err(RequestError::BadAuthority),
    }
}

/// The canonical spelling of a bracketed address, where it differs (RFC 5952).
fn canonical_v6(host: &str) -> Result<Option<String>, RequestError> {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = inner
        .and_then(|text| text.parse::<Ipv6Addr>().ok())
        .ok_or(RequestError::BadAuthority)?;
    let canonical = format!("[{address}]");
    Ok((canonical != host).then_some(canonical))
}

/// The canonical spelling of a name or IPv4 address, where it differs.
fn canonical_name(host: &str) -> Result<Option<String>, RequestError> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let mut has_upper = false;
    let mut previous = b'.';
    for byte in name.bytes() {
        match byte {
            b'.' if previous == b'.' => return Err(RequestError::BadAuthority),
            b'A'..=b'Z' => has_upper = true,
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {}
            _ => return Err(RequestError::BadAuthority),
        }
        previous = byte;
    }
    if name.is_empty() || previous == b'.' || name.len() > MAX_HOST_BYTES {
        return Err(RequestError::BadAuthority);
    }
    Ok((has_upper || name.len() != host.len()).then(|| name.to_ascii_lowercase()))
}

/// Longest DNS name in text form (RFC 1035 section 2.3.4).
const MAX_HOST_BYTES: usize = 253;
