//! What a route changes in requests and answers.

use std::collections::BTreeMap;

use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::header;
use http::uri::Scheme;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;
use mesh_auth::request::is_identity_header;

use super::Fault;
use crate::config::HeaderEditsConfig;
use crate::config::RedirectConfig;
use crate::config::RewriteConfig;
use crate::route::HeaderEdits;
use crate::route::PathRewrite;
use crate::route::Redirect;
use crate::route::Rewrite;
use crate::route::RouteProblem;

/// `prefix` is how many segments stand before the star of the route's own path, where it is a prefix.
pub(super) fn rewrite(config: &RewriteConfig, prefix: Option<usize>) -> Result<Rewrite, Fault> {
    if config.path.is_none() && config.host.is_none() {
        return Err((".rewrite".to_owned(), RouteProblem::NoneOf("path and host")));
    }
    Ok(Rewrite {
        path: new_path(config.path.as_deref(), prefix, ".rewrite.path")?,
        host: authority(config.host.as_deref(), ".rewrite.host")?,
    })
}

pub(super) fn redirect(config: &RedirectConfig, prefix: Option<usize>) -> Result<Redirect, Fault> {
    if config.scheme.is_none() && config.host.is_none() && config.path.is_none() {
        let problem = RouteProblem::NoneOf("scheme, host and path");
        return Err((".redirect".to_owned(), problem));
    }
    let status = match config.status {
        301 | 302 | 303 | 307 | 308 => StatusCode::from_u16(config.status).ok(),
        _ => None,
    };
    let problem = RouteProblem::Status("301, 302, 303, 307 and 308");
    let status = status.ok_or_else(|| (".redirect.status".to_owned(), problem))?;
    let scheme = match config.scheme.as_deref() {
        None => None,
        Some("http") => Some(Scheme::HTTP),
        Some("https") => Some(Scheme::HTTPS),
        Some(_) => return Err((".redirect.scheme".to_owned(), RouteProblem::Scheme)),
    };
    Ok(Redirect {
        status,
        scheme,
        host: authority(config.host.as_deref(), ".redirect.host")?,
        path: new_path(config.path.as_deref(), prefix, ".redirect.path")?,
    })
}

/// A path is sent as it is written, so it is written as it is sent.
fn new_path(
    text: Option<&str>,
    prefix: Option<usize>,
    key: &str,
) -> Result<Option<PathRewrite>, Fault> {
    let Some(text) = text else {
        return Ok(None);
    };
    let wrong = |problem| (key.to_owned(), problem);
    let (fixed, is_prefix) = match text.strip_suffix('*') {
        Some(fixed) if fixed.ends_with('/') => (fixed, true),
        Some(_) => return Err(wrong(RouteProblem::NewPath)),
        None => (text, false),
    };
    if fixed.contains(['*', '?', '#', '{', '}']) || !fixed.starts_with('/') {
        return Err(wrong(RouteProblem::NewPath));
    }
    let sent = canonical(fixed, "a").map_err(&wrong)?;
    if sent.path() != fixed {
        return Err(wrong(RouteProblem::NewPath));
    }
    match (is_prefix, prefix) {
        (false, _) => Ok(Some(PathRewrite::Whole(fixed.into()))),
        (true, Some(segments)) => Ok(Some(PathRewrite::Prefix {
            segments,
            with: fixed.into(),
        })),
        (true, None) => Err(wrong(RouteProblem::NoPrefix)),
    }
}

fn authority(text: Option<&str>, key: &str) -> Result<Option<Box<str>>, Fault> {
    let Some(text) = text else {
        return Ok(None);
    };
    match canonical("/", text) {
        Ok(sent) if !text.is_empty() => Ok(Some(sent.authority().into())),
        _ => Err((key.to_owned(), RouteProblem::Host)),
    }
}

/// A request for that path of that host.
fn canonical(path: &str, host: &str) -> Result<CanonicalRequest, RouteProblem> {
    let request = Request::builder().uri(path).header(header::HOST, host);
    let request = request.body(()).map_err(|_no_uri| RouteProblem::NewPath)?;
    let limits = Limits::default().with_path_parameters(true);
    CanonicalRequest::new(request.into_parts().0, &limits).map_err(RouteProblem::NewPathRefused)
}

pub(super) fn header_edits(
    config: Option<&HeaderEditsConfig>,
    key: &str,
) -> Result<HeaderEdits, Fault> {
    let Some(config) = config else {
        return Ok(HeaderEdits::default());
    };
    let count = config.set.len() + config.add.len() + config.remove.len();
    if count == 0 {
        let problem = RouteProblem::NoneOf("set, add and remove");
        return Err((key.to_owned(), problem));
    }
    if count > super::MAX_LIST {
        return Err((key.to_owned(), RouteProblem::TooLong { count }));
    }
    let removed = config.remove.iter().zip(0..).map(|(name, index)| {
        field_name(name).map_err(|problem| (format!("{key}.remove[{index}]"), problem))
    });
    Ok(HeaderEdits {
        remove: removed.collect::<Result<_, _>>()?,
        set: fields(&config.set, &format!("{key}.set"))?,
        add: fields(&config.add, &format!("{key}.add"))?,
    })
}

pub(super) fn fields(
    config: &BTreeMap<String, String>,
    key: &str,
) -> Result<Box<[(HeaderName, HeaderValue)]>, Fault> {
    let fields = config.iter().map(|(name, value)| {
        let wrong = |problem| (format!("{key}.{name}"), problem);
        let name = field_name(name).map_err(wrong)?;
        if SECRETS.contains(&name) {
            let why = "its value is a secret, which does not belong in a configuration";
            return Err(wrong(RouteProblem::Forbidden(why)));
        }
        if name == IDEMPOTENCY_KEY {
            let why = "one value for all calls would make them all one call";
            return Err(wrong(RouteProblem::Forbidden(why)));
        }
        match HeaderValue::try_from(value) {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(wrong(RouteProblem::HeaderValue)),
        }
    });
    fields.collect()
}

/// The name of a field that routes may change.
fn field_name(text: &str) -> Result<HeaderName, RouteProblem> {
    let name =
        HeaderName::try_from(text).map_err(|_invalid| RouteProblem::FieldName("a header field"))?;
    let why = if name == header::HOST {
        "rewrite.host changes the host"
    } else if is_identity_header(name.as_str()) {
        "the mesh says who somebody is, and nobody else"
    } else if is_of_one_hop(&name) || FRAMING.contains(&name) {
        "it says where a message ends, or is about one connection alone"
    } else if name.as_str().starts_with("grpc-") {
        "it belongs to the protocol of gRPC"
    } else {
        return Ok(name);
    };
    Err(RouteProblem::Forbidden(why))
}

/// The fields of RFC 9110 section 7.6.1, and others that are about one connection.
pub(super) fn is_of_one_hop(name: &HeaderName) -> bool {
    ONE_HOP.contains(name) || UNREGISTERED.contains(&name.as_str())
}

const ONE_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];
const UNREGISTERED: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];
const FRAMING: [HeaderName; 2] = [header::CONTENT_LENGTH, header::TRAILER];
const SECRETS: [HeaderName; 3] = [header::AUTHORIZATION, header::COOKIE, header::SET_COOKIE];
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
