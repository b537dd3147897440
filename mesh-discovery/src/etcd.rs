//! Endpoints in etcd: a source that watches them, and a registrar that keeps one's own there with a lease.
//!
//! ```no_run
//! use std::sync::Arc;
//! use mesh_discovery::{Discover as _, RegistryConfig, ServiceName, etcd};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = etcd::Config::new(["http://127.0.0.1:2379"]);
//! let client = etcd::Client::new(&config, Arc::new(|| 4))?;
//! let (registry, driver) = etcd::source(
//!     client,
//!     &etcd::SourceConfig::default(),
//!     RegistryConfig::new("etcd"),
//! )?;
//! let mut watch = registry.watch(&ServiceName::parse("orders")?);
//! tokio::select! {
//!     () = driver => {}
//!     endpoints = watch.resolved() => println!("{} endpoints", endpoints?.len()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # When to choose it
//!
//! Where etcd is there already, or a registry must lose nothing that it has confirmed: etcd answers only while a majority
//! of its members agrees. It runs no checks and knows no data centres; an instance is there until its lease ends, 15 s
//! after its node's last sign of life. Consul does checks, and DNS needs no client.
//!
//! # Layout
//!
//! One key for each instance: `/mesh/services/<service>/<instance>`. What stands before the service is configurable. The
//! service is a [`ServiceName`](crate::ServiceName), in lower case. The instance is its id, as
//! [`Endpoint::id`](crate::Endpoint::id): UTF-8 of 1 to 512 bytes, unique within the service, and the same after a restart
//! of the same instance.
//!
//! The value is a JSON object of at most 128 KiB. `null` counts as nothing, unknown fields are ignored, and a value that is
//! wrong leaves out that one instance with an error that names it.
//!
//! | field | JSON | meaning |
//! |---|---|---|
//! | `host` | text, needed | name or address |
//! | `port` | 1 to 65535, needed | TCP port |
//! | `weight` | 1 to 65535 | share of the traffic; 1 |
//! | `priority` | 0 to 65535 | lower is used first; 0 |
//! | `zone` | text | failure domain |
//! | `version` | text | version of the service |
//! | `tags` | list of texts | labels for subsets |
//! | `metadata` | object of texts | what else is known, by the rules of [`metadata`](crate::metadata) |
//! | `spiffe_id` | text | the SPIFFE id that the peer must prove |
//! | `public_key_fingerprint` | text | the key that the peer must have |
//! | `condition` | `passing`, `warning`, `draining` or `critical` | how it does; `passing` |
//!
//! Everybody who may write these keys says where calls go, never who answers there. Give each service's role in etcd the
//! permission to write its own keys only.
//!
//! # From other languages
//!
//! Any client of etcd can write an instance; with `etcdctl` it is this:
//!
//! ```sh
//! lease=$(etcdctl lease grant 15 | cut -d' ' -f2)
//! etcdctl put --lease="$lease" /mesh/services/orders/orders-1 '{"host":"10.0.0.7","port":50051,"zone":"a"}'
//! etcdctl lease keep-alive "$lease"
//! ```
//!
//! Without a lease the instance stays until somebody deletes the key. Read them with
//! `etcdctl get --prefix /mesh/services/orders/`.
//!
//! # Sources
//!
//! - etcd 3.4, "API" and "API guarantees": revisions, watches, leases, compaction. Earlier versions lack ids of watches that
//!   the client gives, and are refused.
//! - etcd 3.4, "Role-based access control": user and password give a token that expires.
//! - gRPC over HTTP/2. The messages are written by hand, for the fields that are used.

mod client;
mod error;
mod messages;
mod mirror;
mod registrar;
mod source;
mod tracker;
mod value;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::client::Client;
pub use self::client::RandomFor;
pub use self::error::Error;
pub use self::registrar::Registrar;
pub use self::registrar::RegistrarConfig;
pub use self::source::SourceConfig;
pub use self::source::source;
pub use self::value::read as read_value;
use crate::origin::origin;
use crate::tls::TlsConfig;

/// How to reach etcd.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where its members take clients, as `http://127.0.0.1:2379` or `https://etcd.example.org:2379`; which one is talked
    /// to first is left to chance.
    pub endpoints: Vec<String>,
    /// Whom to believe, and who we are; needed with `https`.
    pub tls: Option<TlsConfig>,
    /// Who we are to etcd's access control. Default nobody.
    pub credentials: Option<Credentials>,
    /// How long connecting to a member may take, TLS included. Default 2 s.
    pub connect_timeout: Duration,
    /// How long a member may take to answer, before it is the next one's turn. Default 3 s. A registration that is renewed
    /// every 5 s and lasts 15 s outlives two members that are frozen.
    pub timeout: Duration,
}

impl Config {
    /// The members at `endpoints`, all else default.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: None,
            credentials: None,
            connect_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(3),
        }
    }

    /// With TLS.
    #[must_use]
    pub fn with_tls(self, tls: TlsConfig) -> Self {
        Self {
            tls: Some(tls),
            ..self
        }
    }

    /// As a user.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self {
            credentials: Some(credentials),
            ..self
        }
    }
}

/// Gives a password, read anew whenever etcd asks for it.
pub type PasswordFor = dyn Fn() -> std::io::Result<String> + Send + Sync;

/// A user of etcd.
#[derive(Clone)]
#[non_exhaustive]
pub struct Credentials {
    /// Its name.
    pub user: String,
    /// Its password; an end of line behind it does not belong to it.
    pub password: Arc<PasswordFor>,
}

impl Credentials {
    /// The user of that name.
    pub fn new(user: impl Into<String>, password: Arc<PasswordFor>) -> Self {
        Self {
            user: user.into(),
            password,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<_> = self.endpoints.iter().map(|one| origin(one)).collect();
        f.debug_struct("Config")
            .field("endpoints", &endpoints)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What all keys begin with, unless something else is said.
const PREFIX: &str = "/mesh/services/";

/// Checks what all keys shall begin with.
fn check_prefix(prefix: &str) -> Result<(), Error> {
    let is_good =
        prefix.ends_with('/') && prefix.len() <= 512 && !prefix.contains(char::is_control);
    is_good.then_some(()).ok_or(Error::Setting {
        name: "the prefix",
        reason: "use text of at most 512 bytes that ends with a slash",
    })
}
