//! Consul: services as its catalog knows them, registering one's own, keys that change, and a client for all else.
//!
//! Choose it where Consul runs already: it knows how services do, not only where they are, and it pushes changes.
//!
//! - [`source()`] follows services, by blocking queries of `/v1/health/service/:service`.
//! - [`Registrar`] registers one's own endpoint with the agent of its machine.
//! - [`watch_key`] and [`watch_prefix`] follow configuration in the key-value store.
//! - [`Client`] asks for anything else; [`Query`] tells when an answer changes.
//!
//! # What becomes what
//!
//! | in Consul | here |
//! |---|---|
//! | `Node.Node` and `Service.ID`, which is unique on one node only | [`Endpoint::id`], as `node/id` |
//! | `Service.Address`, or `Node.Address` where it is empty | [`Endpoint::host`] |
//! | `Service.Port` | [`Endpoint::port`]; an instance without a port is left out |
//! | `Service.Weights` | [`Endpoint::weight`]: `Passing`, or `Warning` while it warns; without traffic where that is 0 |
//! | `Service.Tags` | [`Endpoint::tags`] |
//! | `Service.Meta` | `version`, `zone`, `weight` (before `Weights.Passing`), `spiffe_id`, `public_key_fingerprint` as in [`metadata`]; all else is [`Endpoint::metadata`] |
//! | `Node.Meta.zone` | [`Endpoint::zone`], where the service has none |
//! | `Node.Node`, `Node.Datacenter`, `Service.Namespace` | `node`, `datacenter`, `namespace` in [`Endpoint::metadata`] |
//! | the worst of `Checks` | [`Endpoint::condition`] |
//! | … `passing`, or no check | [`Condition::Passing`] |
//! | … `warning` | [`Condition::Warning`] |
//! | … `critical` | [`Condition::Critical`] |
//! | … `_node_maintenance`, `_service_maintenance:ID` | [`Condition::Draining`] |
//!
//! All else is not looked at: tagged addresses (an agent with `translate_wan_addrs` translates by itself), Connect, the
//! texts of checks, and round-trip times (`near`), since lists are in the order of their ids. Consul finds names whatever their case is. An instance that can't be read is left out and named; the
//! others stay. [`Registrar`] writes the same fields the other way round.
//!
//! # What an answer is worth
//!
//! - **Index.** One that goes back or is 0, as after a restore of Consul's data, starts anew. An agent is asked at most four
//!   times a second, and while it is away after 1 s, doubled up to 10 s, of which a random half.
//! - **Rights.** A token needs `service:read` of the service and `node:read` of all nodes (`node_prefix ""`). Consul from 1.11
//!   on says where it left out what a token may not read; such an answer is a failure. Before, an empty list could mean
//!   either, so an empty one is believed once Consul says, on `/v1/internal/acl/authorize`, that the token may read both.
//!   What can't be known there: that a list which is not empty lacks instances on nodes that the token may not read.
//! - **Age.** With [`Consistency::Any`], an answer of a server that has no leader, or heard of it too long ago, makes the
//!   list stale.
//! - **A hung agent** is noticed after [`SourceConfig::wait`] and its sixteenth, a machine that is gone after 20 s.
//!
//! # Connections
//!
//! A connection is made for each query, so the token's file is read anew and a new address of Consul is found. A query
//! lasts a minute or until something changes, so keeping connections would save little: with 100 services and nothing
//! changing, some two are made in a second. What counts is how many are open. HTTP/1.1 needs one for each service that is
//! waited for, and an agent takes 200 of one machine by default (`limits.http_max_conns_per_client`); beyond that it closes
//! the connections of all programs there, and a query that was given up counts until its wait is over (seen with 1.8.7). A
//! source opens 64 at most and lets services take turns beyond that, so that a change is seen up to 10 s later; raise
//! [`SourceConfig::connections`] and the agent's limit where a node calls more services. Redirects are not followed: the
//! token goes to the server that was named and to nobody else.
//!
//! # Sources
//!
//! - Consul HTTP API, "Blocking Queries": the index, its reset, the wait and Consul's own jitter on it, rate limiting.
//! - Consul HTTP API, "Health", "Agent: Service" and "Agent: Check", "KV Store", "Consistency Modes".
//! - Consul HTTP API, "Authentication": the header `X-Consul-Token`; "Namespaces": `X-Consul-Namespace`.
//! - Consul 1.11 changelog: the header `X-Consul-Results-Filtered-By-ACLs`.
//!
//! [`metadata`]: crate::metadata
//! [`Endpoint::id`]: crate::Endpoint::id
//! [`Endpoint::host`]: crate::Endpoint::host
//! [`Endpoint::port`]: crate::Endpoint::port
//! [`Endpoint::weight`]: crate::Endpoint::weight
//! [`Endpoint::tags`]: crate::Endpoint::tags
//! [`Endpoint::zone`]: crate::Endpoint::zone
//! [`Endpoint::metadata`]: crate::Endpoint::metadata
//! [`Endpoint::condition`]: crate::Endpoint::condition
//! [`Condition::Passing`]: crate::Condition::Passing
//! [`Condition::Warning`]: crate::Condition::Warning
//! [`Condition::Critical`]: crate::Condition::Critical
//! [`Condition::Draining`]: crate::Condition::Draining

mod error;
mod exchange;
mod instance;
mod key_value;
mod query;
mod registrar;
mod rights;
mod source;
mod turns;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::Uri;
use http::uri::Scheme;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

pub use self::error::Error;
use self::exchange::Ask;
pub use self::instance::endpoints;
pub use self::key_value::KeyValue;
pub use self::key_value::KeyWatch;
pub use self::key_value::PrefixWatch;
pub use self::key_value::watch_key;
pub use self::key_value::watch_prefix;
pub use self::query::Answer;
pub use self::query::Query;
pub use self::registrar::AgentCheck;
pub use self::registrar::Registrar;
pub use self::registrar::RegistrarConfig;
pub use self::source::Consistency;
pub use self::source::SourceConfig;
pub use self::source::source;
use crate::origin::origin;
use crate::tls::TlsConfig;

/// Any error of what the caller supplies.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Gives the ACL token, read anew for each request.
pub type TokenFor = dyn Fn() -> std::io::Result<String> + Send + Sync;

/// Gives random numbers; they spread the requests of many clients.
pub type RandomFor = dyn Fn() -> u64 + Send + Sync;

/// How to reach Consul.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where its HTTP API is, as `http://127.0.0.1:8500` or `https://consul.example.org:8501`.
    pub url: String,
    /// Whom to believe with `https`, which needs it, and what is shown where Consul has `verify_incoming`.
    pub tls: Option<TlsConfig>,
    /// How long one query waits for a change, which Consul lengthens by up to a sixteenth. Default 5 min, at most 10.
    pub wait: Duration,
    /// The longest answer that is taken, in bytes. Default 1 MiB.
    pub max_answer: usize,
    /// The namespace of Consul Enterprise, for its header. Default none, which is `default`.
    pub namespace: Option<String>,
    /// How long connecting may take, TLS included, and an answer beyond its wait. Default 10 s.
    pub timeout: Duration,
}

impl Config {
    /// The API at `url`, all else default.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            tls: None,
            wait: Duration::from_mins(5),
            max_answer: 1 << 20,
            namespace: None,
            timeout: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &origin(&self.url))
            .finish_non_exhaustive()
    }
}

/// Asks one Consul. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    server: Server,
    token: Option<Arc<TokenFor>>,
    random: Arc<RandomFor>,
    wait: Duration,
    max_answer: usize,
    timeout: Duration,
    namespace: Option<HeaderValue>,
    /// Held by who reads an answer that is large.
    large: Arc<Semaphore>,
}

/// Where Consul is.
struct Server {
    /// As it is shown in errors.
    shown: String,
    host: String,
    port: u16,
    /// Of the `Host` header.
    authority: HeaderValue,
    /// What stands before the API's own paths, for a Consul behind a gateway.
    prefix: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Client {
    /// A client that shows `token`, where there is one, and spreads its requests by `random`. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// [`Error::Url`], [`Error::NoRoots`], [`Error::Tls`] or, for the namespace, [`Error::Setting`].
    pub fn new(
        config: &Config,
        token: Option<Arc<TokenFor>>,
        random: Arc<RandomFor>,
    ) -> Result<Self, Error> {
        Ok(Self(Arc::new(Inner {
            server: Server::new(config)?,
            token,
            random,
            wait: config.wait.min(MAX_WAIT),
            max_answer: config.max_answer,
            timeout: config.timeout,
            namespace: config.namespace.as_deref().map(namespace).transpose()?,
            large: Arc::new(Semaphore::new(1)),
        })))
    }

    /// Watches `path` (with its parameters, as `/v1/connect/ca/roots`). Nothing is asked before [`Query::next`].
    pub fn watch(&self, path: impl Into<String>) -> Query {
        Query::new(self.clone(), Ask::get(self, path))
    }

    /// Asks for `path` (with its parameters) once, without waiting for a change.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let ask = Ask::get(self, path);
        let fetched = ask.send(self).await?;
        ask.refuse_filtered(self, &fetched)?;
        ask.decode(self, &fetched)
    }

    /// Where Consul is, as it was configured.
    pub fn url(&self) -> &str {
        &self.0.server.shown
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.server.shown).finish()
    }
}

impl Server {
    fn new(config: &Config) -> Result<Self, Error> {
        let wrong = |what: &'static str| Error::Url {
            url: origin(&config.url),
            what,
        };
        let uri: Uri = config
            .url
            .parse()
            .ok()
            .ok_or_else(|| wrong("it is no address"))?;
        let is_https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(wrong("it must begin with http:// or https://")),
        };
        let authority = uri
            .authority()
            .ok_or_else(|| wrong("it names no host"))?
            .as_str();
        if authority.contains('@') {
            return Err(wrong(
                "a name and password have no place in it; use a token",
            ));
        }
        if uri.query().is_some() {
            return Err(wrong("it must not have parameters"));
        }
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        let tls = match (is_https, &config.tls) {
            (false, _) => None,
            (true, None) => return Err(Error::NoRoots),
            (true, Some(tls)) => {
                Some((tls.client_config(&[b"http/1.1"])?, tls.expected_name(host)?))
            }
        };
        let authority = HeaderValue::try_from(authority)
            .ok()
            .ok_or_else(|| wrong("its host is no host name"))?;
        Ok(Self {
            shown: config.url.clone(),
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            authority,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            tls,
        })
    }
}

/// Consul Enterprise takes the letters of a DNS label.
fn namespace(name: &str) -> Result<HeaderValue, Error> {
    let is_label = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let value = HeaderValue::try_from(name).ok();
    value
        .filter(|_| is_label && !name.is_empty())
        .ok_or(Error::Setting {
            what: "the namespace",
            reason: "use letters, digits, `-` and `_`",
        })
}

/// A text as one segment of a path or the value of a parameter (RFC 3986 section 2.1).
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;

    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ok = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// Consul waits no longer than this, whatever is asked for.
const MAX_WAIT: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests;
