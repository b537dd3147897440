//! A client of Consul's HTTP API for whoever wants to know when an answer changes: blocking queries, done right.
//!
//! [`Client::get`] asks once. [`Client::watch`] gives a [`Query`]; each [`Query::next`] waits until Consul's answer has changed and gives it. What a
//! client of Consul has to take care of is in there: the index and when to start it anew, how long to wait, backing off
//! with a bound when Consul is away, limits of time and size for every answer. Nothing is spawned, and dropping the future
//! of a query ends it.
//!
//! A connection is made for each query, which lasts minutes, so the token's file is read anew and a new address of Consul
//! is found. Redirects are not followed: the token goes to the server that was named and to nobody else.
//!
//! # Sources
//!
//! - Consul HTTP API, "Blocking Queries": the index, its reset, the wait and Consul's own jitter on it, rate limiting.
//! - Consul HTTP API, "Authentication": the header `X-Consul-Token`.
//! - Consul 1.11 changelog: the header `X-Consul-Results-Filtered-By-ACLs`.

mod exchange;
mod query;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::Uri;
use http::uri::Scheme;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::de::DeserializeOwned;

pub use self::query::Answer;
pub use self::query::Query;
use crate::tls::TlsConfig;
use crate::tls::TlsError;

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
            timeout: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &self.url)
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
    /// [`Error::Url`], [`Error::NoRoots`] or [`Error::Tls`].
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
        })))
    }

    /// Watches `path` (with its parameters, as `/v1/connect/ca/roots`). Nothing is asked before [`Query::next`].
    pub fn watch(&self, path: impl Into<String>) -> Query {
        Query::new(self.clone(), path.into())
    }

    /// Asks for `path` (with its parameters) once, without waiting for a change.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let fetched = exchange::ask(self, path, 0).await?;
        exchange::decode(self, path, &fetched, false)
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
            url: config.url.clone(),
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

/// Why Consul gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not one.
    #[error("{url:?} is no address of consul: {what}")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// `https` without roots.
    #[error(
        "an https address of consul needs the roots that its certificate leads to; give them as pem text"
    )]
    NoRoots,
    /// TLS can't be set up.
    #[error("consul can't be reached by tls")]
    Tls {
        /// Why.
        #[from]
        source: TlsError,
    },
    /// The token can't be had.
    #[error("the acl token for consul can't be read")]
    Token {
        /// Why.
        source: BoxError,
    },
    /// No connection, or it broke.
    #[error("consul at {url} gives no answer to {path}")]
    Exchange {
        /// Where it is.
        url: String,
        /// What was asked.
        path: String,
        /// Why.
        source: BoxError,
    },
    /// Consul, or what stands before it, took too long.
    #[error("consul at {url} gave no answer to {path} within {limit:?}")]
    Timeout {
        /// Where it is.
        url: String,
        /// What was asked.
        path: String,
        /// How long was waited.
        limit: Duration,
    },
    /// Consul says no.
    #[error("consul at {url} answers {path} with {status}: {message}")]
    Status {
        /// Where it is.
        url: String,
        /// What was asked.
        path: String,
        /// The HTTP status; 403 where the token may not read this.
        status: u16,
        /// The beginning of what Consul says.
        message: String,
    },
    /// The answer is longer than what is taken.
    #[error("the answer of consul at {url} to {path} is larger than {limit} bytes")]
    TooLarge {
        /// Where it is.
        url: String,
        /// What was asked.
        path: String,
        /// The limit.
        limit: usize,
    },
    /// The answer is not what it should be.
    #[error("the answer of consul at {url} to {path} is not understood")]
    Answer {
        /// Where it is.
        url: String,
        /// What was asked.
        path: String,
        /// Why.
        source: BoxError,
    },
    /// The token may read only a part, and what is missing could be anything.
    #[error("consul at {url} left parts out of {path} that the acl token may not read")]
    Filtered {
        /// Where it is.
        url: String,
        /// What was asked.
        path: String,
    },
}

/// Consul waits no longer than this, whatever is asked for.
const MAX_WAIT: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests;
