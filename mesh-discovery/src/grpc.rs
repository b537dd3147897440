//! gRPC to a registry: one HTTP/2 connection to one of several servers, over TCP or TLS.
//!
//! [`Dialer::connect`] gives a [`Channel`], which `tonic::client::Grpc` takes. Nothing is spawned: whoever waits for an
//! answer on a channel drives its connection meanwhile, also for all others that use it.
//!
//! - While a stream is open somebody waits for its next message, so the connection lives: it answers the server's pings,
//!   and sends its own, so a server that is frozen is noticed after interval and timeout of [`KeepAlive`].
//! - While no stream is open nobody drives it, and it sends no pings either: a server built on gRPC for Go takes two pings
//!   of an idle client as abuse and hangs up. What happened meanwhile is noticed by the next request before it is sent.
//!
//! # Sources
//!
//! - gRPC over HTTP/2, "Protocol": paths, trailers, and the status `UNAVAILABLE` for a connection that breaks.
//! - gRPC proposal A8, "Client-side Keepalive", and `doc/keepalive.md`: servers refuse pings that come too often.
//! - RFC 7301: `h2` is agreed on by ALPN.

mod channel;
mod nursery;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::origin::origin;
use crate::tls::TlsConfig;

pub(crate) use self::channel::Channel;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connects to one of several servers; after a failure to the next of them.
#[derive(Debug)]
pub(crate) struct Dialer {
    servers: Vec<Server>,
    next: AtomicUsize,
    connect_timeout: Duration,
    keep_alive: KeepAlive,
}

/// How a server that says nothing more is noticed, while a stream is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    /// How long nothing must have come before a ping is sent. Servers hang up when it is too short for them: etcd below
    /// 5 s, servers in Go or Python that say nothing else below 5 min.
    pub(crate) interval: Duration,
    /// How long the answer may take.
    pub(crate) timeout: Duration,
}

/// One server.
struct Server {
    /// As it was configured.
    shown: Arc<str>,
    /// Scheme and authority, for the requests.
    origin: Uri,
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Dialer {
    /// Connects to any of `addresses`, such as `http://127.0.0.1:2379`; those that begin with `https://` by `tls`.
    ///
    /// # Errors
    ///
    /// [`DialError::Address`] and [`DialError::Tls`].
    pub(crate) fn new(
        addresses: &[String],
        tls: Option<&TlsConfig>,
        connect_timeout: Duration,
        keep_alive: KeepAlive,
    ) -> Result<Self, DialError> {
        let client_config = tls.map(|tls| tls.client_config(&[b"h2"])).transpose();
        let client_config = client_config.map_err(|source| DialError::Tls {
            source: source.into(),
        })?;
        let tls = tls.zip(client_config);
        let servers = addresses
            .iter()
            .map(|address| Server::new(address, tls.as_ref()));
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() {
            return Err(DialError::Address {
                address: String::new(),
                what: "there must be one at least",
            });
        }
        Ok(Self {
            servers,
            next: AtomicUsize::new(0),
            connect_timeout,
            keep_alive,
        })
    }

    /// Connects to the server whose turn it is, which stays the same until [`Self::pass_over`].
    ///
    /// # Errors
    ///
    /// [`DialError::Timeout`] and [`DialError::Connect`]; then it is the next server's turn.
    pub(crate) async fn connect(&self) -> Result<Channel, DialError> {
        let turn = self.next.load(Ordering::Relaxed);
        let server = &self.servers[turn % self.servers.len()];
        let connected =
            tokio::time::timeout(self.connect_timeout, server.connect(self.keep_alive)).await;
        let failure = match connected {
            Ok(Ok(channel)) => return Ok(channel),
            Ok(Err(source)) => DialError::Connect {
                server: Arc::clone(&server.shown),
                source,
            },
            Err(_elapsed) => DialError::Timeout {
                server: Arc::clone(&server.shown),
                limit: self.connect_timeout,
            },
        };
        self.pass_over(&server.shown);
        Err(failure)
    }

    /// Begins with a server by chance, so that many clients spread over them.
    #[cfg(feature = "etcd")]
    pub(crate) fn begin_at(&self, random: u64) {
        // What does not fit has other bits that are as good.
        let turn = usize::try_from(random >> 33).unwrap_or_default();
        self.next
            .store(turn % self.servers.len(), Ordering::Relaxed);
    }

    /// If it is the turn of the server that is shown so, it is the next one's now: this one connects and is of no use.
    pub(crate) fn pass_over(&self, server: &str) {
        let turn = self.next.load(Ordering::Relaxed);
        if &*self.servers[turn % self.servers.len()].shown == server {
            // Somebody else may have passed it over at the same moment, which is as good.
            let next = (turn + 1) % self.servers.len();
            self.next.store(next, Ordering::Relaxed);
        }
    }

    /// How many servers there are.
    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }
}

impl Server {
    fn new(
        address: &str,
        tls: Option<&(&TlsConfig, Arc<ClientConfig>)>,
    ) -> Result<Self, DialError> {
        let wrong = |what: &'static str| DialError::Address {
            address: origin(address),
            what,
        };
        let uri: Uri = address
            .parse()
            .ok()
            .ok_or_else(|| wrong("it is no address"))?;
        let is_https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(wrong("it must begin with http:// or https://")),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it must end with the port"));
        }
        if uri
            .authority()
            .is_some_and(|all| all.as_str().contains('@'))
        {
            return Err(wrong("a name and password have no place in it"));
        }
        let host = uri.host().unwrap_or_default();
        let bare = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = uri.port_u16().filter(|port| *port != 0);
        let port = port.ok_or_else(|| wrong("it must name a port"))?;
        if bare.is_empty() {
            return Err(wrong("it must name a host"));
        }
        let tls = match (is_https, tls) {
            (false, _) => None,
            (true, None) => return Err(wrong("https needs the roots of its certificate")),
            (true, Some((tls, config))) => {
                let name = tls.expected_name(host).map_err(|source| DialError::Tls {
                    source: source.into(),
                })?;
                Some((Arc::clone(config), name))
            }
        };
        Ok(Self {
            shown: Arc::from(address),
            origin: uri,
            host: bare,
            port,
            tls,
        })
    }

    async fn connect(&self, keep_alive: KeepAlive) -> Result<Channel, BoxError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let Some((config, name)) = &self.tls else {
            return Channel::new(stream, self, keep_alive).await;
        };
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name.clone(), stream).await?;
        // Old servers agree on nothing and speak HTTP/2 all the same.
        if stream
            .get_ref()
            .1
            .alpn_protocol()
            .is_some_and(|agreed| agreed != b"h2")
        {
            return Err("it does not speak http/2".into());
        }
        Channel::new(stream, self, keep_alive).await
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.shown).finish()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The address is not one.
    #[error("{address:?} is no address of a grpc server: {what}")]
    Address {
        /// Its scheme, host and port; the rest may be secret.
        address: String,
        /// What is wrong with it.
        what: &'static str,
    },

    /// The settings of TLS can't be used.
    #[error("the tls settings can't be used")]
    Tls {
        /// Why.
        source: BoxError,
    },

    /// It took too long.
    #[error("{server} took no connection within {limit:?}")]
    Timeout {
        /// Where it is.
        server: Arc<str>,
        /// How long was waited.
        limit: Duration,
    },

    /// It failed.
    #[error("{server} can't be connected to")]
    Connect {
        /// Where it is.
        server: Arc<str>,
        /// Why.
        source: BoxError,
    },
}

#[cfg(test)]
mod tests;
