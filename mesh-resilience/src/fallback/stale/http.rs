//! Which HTTP answers are kept, and how long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION,
    CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, ORIGIN, PRAGMA, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, RANGE, RETRY_AFTER, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};

use super::{Keep, Weight};

/// Keeps answers to GET whose body is there whole, such as `Bytes`.
///
/// - A request with `Authorization`, `Proxy-Authorization`, `Cookie` or `Range` has no key, nor one with rules of its own
///   (`Cache-Control`, `Pragma`), nor one that says that it has a body (`Content-Type`, `Transfer-Encoding`, a
///   `Content-Length` that is not 0): the answer may depend on it. Who asks is else not looked at: name a field that says it, such as an API key, with
///   [`HttpKeep::with_field`], and don't share one memory between callers who may not see each other's answers.
/// - The key is the URI, `Host`, `Accept`, `Accept-Encoding`, `Accept-Language`, `Origin` and the named fields.
/// - Kept is a 200 without `Set-Cookie`; without `Cache-Control` `no-store`, `private`, `no-cache`, `must-revalidate`,
///   `proxy-revalidate`, `s-maxage`; whose `Vary` names only fields of the key; and that is not marked itself.
/// - `stale-if-error=<seconds>` bounds how long after `max-age` it is given; without it the settings alone do. The `Age` that
///   it came with counts.
/// - Fields for one connection (RFC 9111 section 3.1) and `x-mesh-` ones, and extensions, are not kept; nor what belongs to
///   one call: its id and trace (`x-request-id`, `x-correlation-id`, `traceparent`, `b3` and the like), its caller's limit
///   (`x-ratelimit-`, `ratelimit`), `retry-after`, `server-timing` and `x-circuit-breaker-state`.
/// - One that is given has its `Age`, and [`X_MESH_STALE`]. (`Warning` is obsolete: RFC 9111 section 5.5.)
///
/// ```
/// use mesh_resilience::classify::HttpClassifier;
/// use mesh_resilience::fallback::stale::{HttpKeep, Stale, StaleConfig, StaleLayer};
/// use mesh_resilience::BoxError;
/// use http::{Request, Response};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let mut statuses = vec![503, 200];
/// let mut rates = ServiceBuilder::new()
///     .layer(StaleLayer::new(Stale::new(StaleConfig::default(), HttpKeep::new())?, HttpClassifier::new()))
///     .service(service_fn(move |_: Request<()>| {
///         let status = statuses.pop().unwrap_or(503);
///         async move { Response::builder().status(status).body(b"1.08".to_vec()) }
///     }));
/// rates.ready().await?.call(Request::new(())).await?;
/// let old = rates.ready().await?.call(Request::new(())).await?;
/// assert_eq!(old.status(), 200);
/// assert_eq!(old.headers()["x-mesh-stale"], "0");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct HttpKeep {
    /// What of a request is in its key.
    fields: Vec<HeaderName>,
}

impl HttpKeep {
    /// Keeps by the usual fields.
    pub fn new() -> Self {
        Self {
            fields: vec![HOST, ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, ORIGIN],
        }
    }

    /// Takes `field` of requests into the key too.
    #[must_use]
    pub fn with_field(mut self, field: HeaderName) -> Self {
        if !self.fields.contains(&field) {
            self.fields.push(field);
        }
        self
    }

    /// Returns the key of a request that is there in parts; `None` for one that has none.
    pub fn key_of(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<HttpKey> {
        let is_personal = [
            AUTHORIZATION,
            PROXY_AUTHORIZATION,
            COOKIE,
            RANGE,
            CACHE_CONTROL,
            PRAGMA,
        ]
        .iter()
        .any(|name| headers.contains_key(name));
        if *method != Method::GET || is_personal || has_body(headers) {
            return None;
        }
        // Neither a URI nor a field's value has a line break in it, so no two requests are the same by chance.
        let mut key = uri.to_string().into_bytes();
        for field in &self.fields {
            key.push(b'\n');
            for value in headers.get_all(field) {
                key.push(b'\r');
                key.extend_from_slice(value.as_bytes());
            }
        }
        Some(HttpKey(key.into()))
    }

    /// Whether all that the answer varies by is in the key.
    fn covers(&self, headers: &HeaderMap) -> bool {
        headers.get_all(VARY).iter().all(|value| {
            tokens(value).all(|name| {
                let mut fields = self.fields.iter();
                fields.any(|field| field.as_str().as_bytes().eq_ignore_ascii_case(name))
            })
        })
    }
}

impl Default for HttpKeep {
    fn default() -> Self {
        Self::new()
    }
}

/// The key of an HTTP request.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct HttpKey(Arc<[u8]>);

impl fmt::Debug for HttpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A query may hold a secret.
        f.debug_struct("HttpKey").finish_non_exhaustive()
    }
}

impl<B, R> Keep<Request<B>, Response<R>> for HttpKeep
where
    R: AsRef<[u8]> + Clone + From<Vec<u8>>,
{
    type Key = HttpKey;

    fn key(&self, request: &Request<B>) -> Option<HttpKey> {
        self.key_of(request.method(), request.uri(), request.headers())
    }

    fn weigh(&self, key: &HttpKey, answer: &Response<R>) -> Option<Weight> {
        let headers = answer.headers();
        let is_kept = answer.status() == StatusCode::OK
            && !headers.contains_key(SET_COOKIE)
            && !headers.contains_key(X_MESH_STALE)
            && self.covers(headers);
        if !is_kept {
            return None;
        }
        let fields: usize = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + PER_FIELD)
            .sum();
        let bytes = key.0.len() + fields + answer.body().as_ref().len();
        let weight = Weight::new(bytes).with_life(life(headers)?);
        Some(weight.with_age(age(headers)))
    }

    fn copy(&self, answer: &Response<R>) -> Response<R> {
        // Values and the body may be parts of large buffers: each is copied to what it takes.
        let mut copy = Response::new(R::from(answer.body().as_ref().to_vec()));
        *copy.status_mut() = answer.status();
        *copy.version_mut() = answer.version();
        for (name, value) in answer.headers() {
            if is_hop_by_hop(name, answer.headers()) || is_of_one_call(name) {
                continue;
            }
            if let Ok(mut own) = HeaderValue::from_bytes(value.as_bytes()) {
                own.set_sensitive(value.is_sensitive());
                copy.headers_mut().append(name.clone(), own);
            }
        }
        copy
    }

    fn mark(&self, answer: &mut Response<R>, kept: Duration) {
        let seconds = age(answer.headers()).saturating_add(kept).as_secs();
        let headers = answer.headers_mut();
        headers.insert(AGE, seconds.into());
        headers.insert(X_MESH_STALE, seconds.into());
    }
}

/// How long after it was made an answer may be given; `None` for one that may not be kept. Where it is said twice the
/// shorter counts, and what is no number is 0.
fn life(headers: &HeaderMap) -> Option<Duration> {
    let (mut fresh, mut stale): (Option<u64>, Option<u64>) = (None, None);
    for directive in headers.get_all(CACHE_CONTROL).iter().flat_map(tokens) {
        let (name, value) = match directive.iter().position(|byte| *byte == b'=') {
            Some(at) => directive.split_at(at),
            None => (directive, &b""[..]),
        };
        let seconds = number(value.strip_prefix(b"=").unwrap_or(value));
        let shorter = |old: Option<u64>| Some(old.map_or(seconds, |old| old.min(seconds)));
        match name.trim_ascii().to_ascii_lowercase().as_slice() {
            b"no-store" | b"private" | b"no-cache" | b"must-revalidate" | b"proxy-revalidate"
            | b"s-maxage" => return None,
            b"max-age" => fresh = shorter(fresh),
            b"stale-if-error" => stale = shorter(stale),
            _ => {}
        }
    }
    Some(stale.map_or(Duration::MAX, |stale| {
        Duration::from_secs(stale.saturating_add(fresh.unwrap_or(0)))
    }))
}

/// How old an answer was when it came (RFC 9111 section 5.1); one that is no number is too old for anything.
fn age(headers: &HeaderMap) -> Duration {
    headers.get(AGE).map_or(Duration::ZERO, |value| {
        let text = value.as_bytes().trim_ascii();
        let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        Duration::from_secs(if is_number { number(text) } else { u64::MAX })
    })
}

/// Digits, within quotes or not (RFC 9111 section 5.2); else 0. What is too large is bounded.
fn number(text: &[u8]) -> u64 {
    let text = text.trim_ascii();
    let text = text
        .strip_prefix(b"\"")
        .and_then(|text| text.strip_suffix(b"\""))
        .unwrap_or(text);
    text.iter()
        .try_fold(0_u64, |sum, byte| {
            let digit = char::from(*byte).to_digit(10)?;
            Some(sum.saturating_mul(10).saturating_add(u64::from(digit)))
        })
        .unwrap_or(0)
}

fn is_hop_by_hop(name: &HeaderName, headers: &HeaderMap) -> bool {
    let is_named = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(tokens)
        .any(|token| token.eq_ignore_ascii_case(name.as_str().as_bytes()));
    is_named
        || [
            CONNECTION,
            PROXY_AUTHENTICATE,
            PROXY_AUTHORIZATION,
            TE,
            TRAILER,
            TRANSFER_ENCODING,
            UPGRADE,
        ]
        .contains(name)
        || name == "keep-alive"
}

/// Whether a request says that it has a body (RFC 9110 section 8.3, RFC 9112 section 6).
fn has_body(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    headers.contains_key(TRANSFER_ENCODING)
        || headers.contains_key(CONTENT_TYPE)
        || lengths.any(|length| length.as_bytes() != b"0")
}

/// Whether a field of an answer says something of the call that it was given to, and nothing to others.
fn is_of_one_call(name: &HeaderName) -> bool {
    let text = name.as_str();
    *name == RETRY_AFTER
        || OF_ONE_CALL.contains(&text)
        || OF_ONE_CALL_BEGIN
            .iter()
            .any(|begin| text.starts_with(begin))
}

/// The members of a list. A comma within quotes divides too, which only ever adds members.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let members = value.as_bytes().split(|byte| *byte == b',');
    members
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// The field that an old answer carries: its age in seconds.
pub const X_MESH_STALE: HeaderName = HeaderName::from_static("x-mesh-stale");

/// Ids and traces: W3C Trace Context and Baggage, Zipkin's B3, Server Timing, and what is usual beside them.
const OF_ONE_CALL: [&str; 9] = [
    "x-request-id",
    "x-correlation-id",
    "traceparent",
    "tracestate",
    "traceresponse",
    "baggage",
    "b3",
    "server-timing",
    "x-circuit-breaker-state",
];
/// Also limits, as nodes say them and as the IETF's draft does (draft-ietf-httpapi-ratelimit-headers).
const OF_ONE_CALL_BEGIN: [&str; 4] = ["x-mesh-", "x-b3-", "x-ratelimit-", "ratelimit"];

/// Bytes that a field of a header map takes besides its name and value.
const PER_FIELD: usize = 64;

#[cfg(test)]
mod tests;
