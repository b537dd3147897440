//! The canonical request: normalised once, then seen by policy, routing, logging and forwarding alike.
//!
//! Most ways around a proxy's rules are two readers of one request who disagree: the rule sees
//! `/public/..%2fadmin`, the application `/admin`. So a request is normalised once, everything that
//! can be read in two ways is refused, and what was checked is what is sent.
//!
//! | part | becomes | refused |
//! |---|---|---|
//! | path | unreserved characters decoded, other escapes in upper case, characters that a path may not hold escaped, `.` and `..` resolved, `//` merged; a trailing slash stays | `%2f`, `%5c`, backslash, control characters also when escaped, bytes that are not UTF-8, an escaped percent sign before two hex digits (double encoding), `..` above the root, `;` and `%3b` unless [`Limits::path_parameters`] |
//! | query | unchanged | |
//! | authority | one: lower case, no trailing dot, port kept apart | user information, other characters, `Host` that differs from the target's authority, several `Host` fields |
//! | framing | `Content-Length` or nothing; hop-by-hop fields dropped, also those that `Connection` names; `TE: trailers` kept | `Content-Length` with `Transfer-Encoding`, several `Content-Length`, codings other than `chunked` |
//!
//! A fragment never gets here: [`http::Uri`] drops it. `CONNECT` and `OPTIONS *` have no path to
//! decide about and are refused.
//!
//! # Sources
//! - RFC 3986 sections 2.3 (unreserved), 3.3 (path), 5.2.4 and 6.2.2 (normalisation).
//! - RFC 9112 sections 3.2 (request target, `Host`) and 6.3 (message body length).
//! - RFC 9110 section 7.6.1 (`Connection`), RFC 9113 section 8.2.2 (connection fields in HTTP/2).

mod authority;
mod framing;
mod identity;
mod path;

use std::borrow::Cow;

use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use thiserror::Error;

pub use self::identity::{is_identity_header, strip_identity_headers};

pub(crate) use self::path::{canonical, decoded};

use self::authority::Authority;

/// What a request may cost and hold.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Limits {
    /// Longest path and query together, in bytes. Default 8192.
    pub max_uri_bytes: usize,
    /// Most header fields; each `Cookie` crumb and each repeated field counts. Default 100.
    pub max_headers: usize,
    /// Most bytes of all names and values, plus 32 a field as HTTP/2 counts them (RFC 9113 section
    /// 6.5.2). Default 65,536.
    pub max_header_bytes: usize,
    /// Largest body that `Content-Length` may announce, in bytes. Default: no limit, bodies stream.
    pub max_body_bytes: Option<u64>,
    /// Whether `;` may stand in a path. It then is an ordinary character to every rule, while some
    /// applications ignore what follows it: rules that deny by exact path do not hold for those.
    /// Default false: refused.
    pub path_parameters: bool,
}

impl Limits {
    /// Sets the longest path and query together, in bytes.
    #[must_use]
    pub fn with_max_uri_bytes(mut self, bytes: usize) -> Self {
        self.max_uri_bytes = bytes;
        self
    }

    /// Sets the number of header fields.
    #[must_use]
    pub fn with_max_headers(mut self, fields: usize) -> Self {
        self.max_headers = fields;
        self
    }

    /// Sets the bytes of all header fields, 32 a field included.
    #[must_use]
    pub fn with_max_header_bytes(mut self, bytes: usize) -> Self {
        self.max_header_bytes = bytes;
        self
    }

    /// Sets the largest body that `Content-Length` may announce.
    #[must_use]
    pub fn with_max_body_bytes(mut self, bytes: Option<u64>) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// Sets whether `;` may stand in a path.
    #[must_use]
    pub fn with_path_parameters(mut self, accepted: bool) -> Self {
        self.path_parameters = accepted;
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_uri_bytes: MAX_URI_BYTES,
            max_headers: MAX_HEADERS,
            max_header_bytes: MAX_HEADER_BYTES,
            max_body_bytes: None,
            path_parameters: false,
        }
    }
}

/// A request that was normalised, and that can only be changed into another normalised request.
///
/// A request that arrives canonical in origin form (`GET /path` with a `Host` field) is taken over
/// without allocating.
#[derive(Debug)]
pub struct CanonicalRequest {
    /// `uri` holds path and query only, `headers` no `Host`.
    parts: Parts,
    authority: Authority,
    path_parameters: bool,
    max_uri_bytes: usize,
}

impl CanonicalRequest {
    /// Normalises a request.
    ///
    /// # Errors
    /// When the request breaks a limit or can be read in two ways; [`RequestError::status`] is the
    /// status to answer with.
    pub fn new(mut parts: Parts, limits: &Limits) -> Result<Self, RequestError> {
        if parts.method == Method::CONNECT {
            return Err(RequestError::Connect);
        }
        framing::normalise(&mut parts, limits)?;
        let target = std::mem::take(&mut parts.uri).into_parts();
        let host = parts.headers.remove(header::HOST);
        let authority = Authority::of(target.authority, host, parts.version)?;
        parts.uri = canonical_uri(
            target.path_and_query,
            limits.max_uri_bytes,
            limits.path_parameters,
        )?;
        Ok(Self {
            parts,
            authority,
            path_parameters: limits.path_parameters,
            max_uri_bytes: limits.max_uri_bytes,
        })
    }

    /// Changes path and query, normalising the new ones as [`Self::new`] does.
    ///
    /// # Errors
    /// As for [`Self::new`]; the request is then unchanged.
    pub fn set_path_and_query(&mut self, path_and_query: &str) -> Result<(), RequestError> {
        let parsed = PathAndQuery::try_from(path_and_query).map_err(RequestError::Uri)?;
        self.parts.uri = canonical_uri(Some(parsed), self.max_uri_bytes, self.path_parameters)?;
        Ok(())
    }

    /// Changes the authority (`host` or `host:port`).
    ///
    /// # Errors
    /// When it is not a valid authority; the request is then unchanged.
    pub fn set_authority(&mut self, authority: &str) -> Result<(), RequestError> {
        self.authority = Authority::parse(authority)?;
        Ok(())
    }

    /// The header fields, for our own additions. A `Host` field set here is overwritten by
    /// [`Self::authority`], and framing and hop-by-hop fields do not belong here.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.parts.headers
    }

    /// The request's extensions.
    pub fn extensions_mut(&mut self) -> &mut http::Extensions {
        &mut self.parts.extensions
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.parts.method
    }

    /// The canonical path. It starts with a slash.
    pub fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// The query as it arrived, without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.parts.uri.query()
    }

    /// Path and query as they will be sent.
    pub fn path_and_query(&self) -> &str {
        self.parts
            .uri
            .path_and_query()
            .map_or("/", PathAndQuery::as_str)
    }

    /// Host and, where the request named one, port: `order-service:8080`. Empty where an HTTP/1.0
    /// request named no host.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The host, in lower case, without port; an IPv6 address stands in brackets.
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// The port, where the request named one.
    pub fn port(&self) -> Option<u16> {
        self.authority.port()
    }

    /// The header fields, end-to-end ones only and without `Host`.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The version of HTTP the request arrived with.
    pub fn version(&self) -> Version {
        self.parts.version
    }

    /// The request's extensions.
    pub fn extensions(&self) -> &http::Extensions {
        &self.parts.extensions
    }

    /// The request in origin form, as HTTP/1.1 sends it: path and query in the URI, authority in `Host`.
    #[must_use]
    pub fn into_parts(self) -> Parts {
        let mut parts = self.parts;
        match self.authority.into_header() {
            Some(host) => drop(parts.headers.insert(header::HOST, host)),
            None => drop(parts.headers.remove(header::HOST)),
        }
        parts
    }

    /// The request in absolute form, as an HTTP/2 client needs it: scheme and authority in the URI,
    /// no `Host` field.
    ///
    /// # Errors
    /// When the request has no authority (HTTP/1.0 without `Host`).
    pub fn into_absolute_parts(self, scheme: Scheme) -> Result<Parts, RequestError> {
        let mut parts = self.parts;
        let mut target = std::mem::take(&mut parts.uri).into_parts();
        target.scheme = Some(scheme);
        target.authority = Some(self.authority.into_uri()?);
        parts.uri = Uri::from_parts(target).map_err(RequestError::UriParts)?;
        drop(parts.headers.remove(header::HOST));
        Ok(parts)
    }
}

/// Why a request was refused: which rule it breaks.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The method is `CONNECT`.
    #[error("CONNECT is not served here")]
    Connect,
    /// The target is `*` or has no path.
    #[error("the request target has no path")]
    NoPath,
    /// The target is not a URI.
    #[error("the request target is not a valid path")]
    Uri(#[source] http::uri::InvalidUri),
    /// The target can't be put together.
    #[error("the request target is not complete")]
    UriParts(#[source] http::uri::InvalidUriParts),
    /// Path and query are too long.
    #[error("path and query of {bytes} bytes are longer than the limit of {limit}")]
    UriTooLong {
        /// Length of path and query.
        bytes: usize,
        /// The limit in force.
        limit: usize,
    },
    /// An escape in the path is not a percent sign and two hex digits.
    #[error("the path has a percent sign without two hex digits")]
    BadEscape,
    /// The path holds `%2f`, `%5c` or a backslash.
    #[error("the path has an escaped slash or a backslash")]
    HiddenSeparator,
    /// The path holds a control character, escaped or not.
    #[error("the path has a control character")]
    ControlCharacter,
    /// The path's bytes are not UTF-8, for instance an overlong form.
    #[error("the path is not UTF-8")]
    NotUtf8,
    /// The path has an escaped percent sign before two hex digits.
    #[error("the path is percent-encoded twice")]
    DoubleEncoding,
    /// The path has path parameters, which are not accepted.
    #[error("the path has a semicolon")]
    PathParameter,
    /// `..` leads above the root.
    #[error("the path leads above the root")]
    AboveRoot,
    /// No host is named where one is needed.
    #[error("the request names no host")]
    NoHost,
    /// There are several `Host` fields.
    #[error("the request has several host fields")]
    SeveralHosts,
    /// `Host` and the target's authority differ.
    #[error("the host field and the authority of the request target differ")]
    HostMismatch,
    /// The authority has user information.
    #[error("the authority has user information")]
    UserInfo,
    /// The authority is not a host with an optional port.
    #[error("the authority is not a host with an optional port")]
    BadAuthority,
    /// There are too many header fields.
    #[error("{count} header fields are more than the limit of {limit}")]
    TooManyHeaders {
        /// Number of fields.
        count: usize,
        /// The limit in force.
        limit: usize,
    },
    /// The header fields are too large.
    #[error("header fields of {bytes} bytes are larger than the limit of {limit}")]
    HeadersTooLarge {
        /// Bytes of names and values, plus 32 a field.
        bytes: usize,
        /// The limit in force.
        limit: usize,
    },
    /// `Content-Length` stands beside `Transfer-Encoding`.
    #[error("the request has a content-length and a transfer-encoding")]
    TwoFramings,
    /// `Content-Length` is repeated or not a number.
    #[error("the content-length is repeated or not a number")]
    BadContentLength,
    /// `Transfer-Encoding` is not `chunked`, or the version of HTTP has none.
    #[error("the transfer-encoding is not chunked, or has no place in this version of HTTP")]
    BadTransferEncoding,
    /// `Connection` names a field that is meant for the other end, or is malformed.
    #[error("the connection field is malformed or names an end-to-end field")]
    BadConnection,
    /// The announced body is too large.
    #[error("a body of {bytes} bytes is larger than the limit of {limit}")]
    BodyTooLarge {
        /// The announced length.
        bytes: u64,
        /// The limit in force.
        limit: u64,
    },
}

impl RequestError {
    /// The status to answer with: 413, 414 or 431 for what is too large, else 400.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::TooManyHeaders { .. } | Self::HeadersTooLarge { .. } => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

fn canonical_uri(
    target: Option<PathAndQuery>,
    limit: usize,
    path_parameters: bool,
) -> Result<Uri, RequestError> {
    let target = target.ok_or(RequestError::NoPath)?;
    let whole = target.as_str();
    if whole.len() > limit {
        return Err(RequestError::UriTooLong {
            bytes: whole.len(),
            limit,
        });
    }
    let canonical = match canonical(target.path(), path_parameters)? {
        Cow::Borrowed(path) if whole.starts_with(path) => target,
        Cow::Borrowed(path) => joined(path, target.query())?,
        Cow::Owned(path) => joined(&path, target.query())?,
    };
    Ok(Uri::from(canonical))
}

fn joined(path: &str, query: Option<&str>) -> Result<PathAndQuery, RequestError> {
    let text = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    PathAndQuery::try_from(text).map_err(RequestError::Uri)
}

/// nginx's `large_client_header_buffers` and common client practice.
const MAX_URI_BYTES: usize = 8 * 1024;
/// Envoy's `max_headers_count`, hyper's and Go's neighbourhood.
const MAX_HEADERS: usize = 100;
/// Envoy's `max_request_headers_kb` is 60.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// A host field for values that were checked to be plain ASCII.
fn header_value(text: &str) -> Result<HeaderValue, RequestError> {
    HeaderValue::from_str(text).map_err(|_invalid| RequestError::BadAuthority)
}

#[cfg(test)]
mod tests;
