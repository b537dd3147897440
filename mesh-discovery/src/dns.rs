//! Services in DNS: SRV records with priority and weight, then the addresses of their targets, asked again when they expire.
//!
//! Choose it where there is a name server already and nothing better: DNS tells nobody of changes, so they are seen when a
//! record's TTL has passed, and it knows no health, version or tags. With Consul, etcd or xDS at hand, use those.
//!
//! # Names
//!
//! [`Config::template`] makes a service's name, such as `_mesh._tcp.{service}.example.org`; [`Config::names`] overrides it
//! for single services. All names are absolute: search domains are never tried, for a name that is searched for in several
//! places belongs to whoever owns one of them. `/etc/hosts` is not read.
//!
//! # Where each field comes from
//!
//! | field of the endpoint | comes from |
//! |---|---|
//! | `host` | A and AAAA of the target of an SRV record, or of the service's name where there is no SRV record and [`Config::port`] is set; every address is an endpoint |
//! | `port` | SRV, or [`Config::port`] |
//! | `id` | `host:port`; a place that several records name is one endpoint |
//! | `priority` | SRV: lower first, as everywhere here |
//! | `weight` | SRV, divided among the addresses of its target. Where a priority has records of weight 0 beside others, or targets of several addresses, all weights of that priority are multiplied by up to 100, so that 0 becomes a small chance (RFC 2782) and fractions keep their share |
//! | `metadata` | `dns_target`: the name that the address is of |
//! | all else | is not known. In particular DNS can't say who a peer is: `spiffe_id` and `public_key_fingerprint` stay empty, and what the caller expects counts. TXT records are not read |
//!
//! # What is an answer and what is none
//!
//! NXDOMAIN, no data, and an SRV record with the target `.` say that there is no endpoint. A refusal, a server failure, a
//! referral, no reply in time, a chain of aliases that has no end, or more records than [the bounds](#bounds) let pass say
//! nothing: the last good list stays, marked stale (the purpose of RFC 8767). While the addresses of one target can't be
//! had, those that it had last are used.
//!
//! Addresses that are loopback, link-local, a cloud's metadata service or a listener of our own are left out and named,
//! unless [`Config::addresses`] allows them: a name server must not lead requests back into this machine. Lists from before
//! the start go through the same rules.
//!
//! # When it asks again
//!
//! After the smallest TTL of all records of a service, between [`Config::min_ttl`] and [`Config::max_ttl`], plus up to half
//! a second that spreads many. Where there is nothing, after the SOA record's negative TTL, at most
//! [`Config::max_negative_ttl`]. After a failure, after 1 s, doubling up to 5 s, half of it random.
//!
//! Queries go over UDP with random ids, ports and letter case, over TCP where an answer is truncated; to one server, and
//! when that fails to the next. The resolver keeps no cache of its own.
//!
//! # Bounds
//!
//! At most 1,000 records in one answer, 256 targets for one service and 10,000 endpoints of all of them together, 8 aliases
//! in a row, 32 queries at a time.
//!
//! # Sources
//!
//! RFC 1034 and 1035; RFC 2782 (SRV); RFC 2308 (negative answers); RFC 8767 (serving stale data); RFC 5452 (forged
//! answers); RFC 6761 section 6.3 (`localhost`).

mod admission;
mod answer;
mod exchange;
mod follow;
mod lookup;
mod mapping;
mod naming;
mod resolv;
mod schedule;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::address::AddressRules;
use crate::address::RefusedAddress;
use crate::name::ServiceName;
use crate::registry::Driver;
use crate::registry::Registry;
use crate::registry::RegistryConfig;

use self::admission::Ruled;
use self::exchange::Exchange;
use self::follow::Resolver;
use self::naming::Naming;
use self::schedule::Schedule;

/// Any error of the resolver's.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Gives random numbers; they spread the queries of many nodes.
pub type RandomFor = dyn Fn() -> u64 + Send + Sync;

/// What to ask, and whom.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The name of a service, with `{service}` in it, as `{service}.example.org`.
    pub template: String,
    /// Names of single services in place of the template. Default none.
    pub names: BTreeMap<ServiceName, String>,
    /// Whether SRV records are asked for. Default yes.
    pub srv: bool,
    /// The port of services that have no SRV record and whose name has addresses. Default none: those are not asked for.
    pub port: Option<u16>,
    /// The name servers, at most 8, in order. Default empty: those of [`Config::resolv_conf`].
    pub servers: Vec<SocketAddr>,
    /// Read where no servers are given, and again when none answers. Default `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Answers that expire sooner count for this long, for some servers say 0 always. Default 5 s, at least 1 s.
    pub min_ttl: Duration,
    /// The longest that an answer counts. Default 5 min.
    pub max_ttl: Duration,
    /// The longest that it counts that there is nothing. Default 30 s.
    pub max_negative_ttl: Duration,
    /// How long one server is waited for. Default 2 s, at least 100 ms and at most 30 s.
    pub timeout: Duration,
    /// Which addresses are refused. Default loopback and what [`AddressRules`] says.
    pub addresses: AddressRules,
}

impl Config {
    /// Services by the names that `template` makes, all else default.
    pub fn new(template: impl Into<String>) -> Self {
        Self {
            template: template.into(),
            names: BTreeMap::new(),
            srv: true,
            port: None,
            servers: Vec::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_mins(5),
            max_negative_ttl: Duration::from_secs(30),
            timeout: Duration::from_secs(2),
            addresses: AddressRules::default(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |field, reason| Err(Error::Config { field, reason });
        if !self.srv && self.port.is_none() {
            return wrong("port", "give one where no SRV records are asked for");
        }
        if self.port == Some(0) {
            return wrong("port", "use a port from 1 to 65535");
        }
        if self.servers.len() > MAX_SERVERS {
            return wrong("list of servers", "use at most 8");
        }
        if self
            .servers
            .iter()
            .any(|server| server.port() == 0 || server.ip().is_unspecified())
        {
            return wrong("list of servers", "use addresses and ports of servers");
        }
        if self.min_ttl < LEAST_TTL || self.max_ttl < self.min_ttl || self.max_ttl > MOST_TTL {
            return wrong(
                "range of TTLs",
                "use at least 1 s, at most a day, and the smaller one first",
            );
        }
        if self.max_negative_ttl < self.min_ttl || self.max_negative_ttl > MOST_TTL {
            return wrong("longest negative TTL", "use at least the smallest TTL");
        }
        if !(LEAST_TIMEOUT..=MOST_TIMEOUT).contains(&self.timeout) {
            return wrong("timeout", "use 100 ms to 30 s");
        }
        Ok(())
    }
}

/// A source of what DNS says; `random` spreads when it asks.
///
/// Opens nothing: the driver does.
///
/// # Errors
///
/// [`Error::Config`] and [`Error::Template`].
pub fn source(
    config: Config,
    random: Arc<RandomFor>,
    mut registry: RegistryConfig,
) -> Result<(Registry, Driver), Error> {
    config.check()?;
    registry.admission = Arc::new(Ruled {
        rules: config.addresses.clone(),
        next: registry.admission,
    });
    let resolver = Arc::new(Resolver {
        naming: Naming::new(&config)?,
        exchange: Exchange::new(&config)?,
        schedule: Schedule::new(&config, random),
        srv: config.srv,
        port: config.port,
        addresses: config.addresses,
    });
    let (registry, wants) = Registry::new(registry);
    let driver = Driver::follow_each(wants, move |reporter| {
        follow::follow(Arc::clone(&resolver), reporter)
    });
    Ok((registry, driver))
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Where a service is (RFC 2782).
    Srv,
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Srv => "SRV",
            Self::A => "A",
            Self::Aaaa => "AAAA",
        })
    }
}

/// Why DNS gave no answer that can be used, or can't be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting can't be used.
    #[error("the {field} of a dns source is unusable: {reason}")]
    Config {
        /// Which one.
        field: &'static str,
        /// What a usable value looks like.
        reason: &'static str,
    },
    /// What is to make names does not.
    #[error("{template:?} makes no dns names: {reason}")]
    Template {
        /// As configured.
        template: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name of a service would be too long.
    #[error(
        "service `{service}` has no dns name: with the template it is longer than 253 bytes, or a label longer than 63"
    )]
    Name {
        /// The service.
        service: ServiceName,
    },
    /// The system's name servers can't be had.
    #[error("the name servers can't be read from {}", path.display())]
    ResolvConf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system has no name servers.
    #[error("{} names no name server; name one there or in the configuration", path.display())]
    NoServers {
        /// The file.
        path: PathBuf,
    },
    /// No reply, or none that is one.
    #[error("name server {server} gives no answer to {kind} {name}")]
    Exchange {
        /// The server.
        server: SocketAddr,
        /// What was asked.
        kind: Kind,
        /// For which name.
        name: String,
        /// Why.
        source: BoxError,
    },
    /// No reply in time.
    #[error("name server {server} gave no answer to {kind} {name} within {limit:?}")]
    Timeout {
        /// The server.
        server: SocketAddr,
        /// What was asked.
        kind: Kind,
        /// For which name.
        name: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The server says that it can't or won't tell.
    #[error("name server {server} answers {kind} {name} with {code}")]
    Refusal {
        /// The server.
        server: SocketAddr,
        /// What was asked.
        kind: Kind,
        /// For which name.
        name: String,
        /// The response code.
        code: String,
    },
    /// The server knows only who else may know.
    #[error(
        "name server {server} does not know {kind} {name} and refers to others; use one that resolves names"
    )]
    Referral {
        /// The server.
        server: SocketAddr,
        /// What was asked.
        kind: Kind,
        /// For which name.
        name: String,
    },
    /// The answer is about something else.
    #[error("the answer to {kind} {name} has no record of that name")]
    Unrelated {
        /// What was asked.
        kind: Kind,
        /// For which name.
        name: String,
    },
    /// An alias of an alias, too often.
    #[error("{name} leads through more than {limit} aliases; they may go round in circles")]
    Aliases {
        /// The name.
        name: String,
        /// How many are followed.
        limit: usize,
    },
    /// More than is taken.
    #[error("{count} records, targets or endpoints of {name} are more than the limit of {limit}")]
    TooMany {
        /// The name.
        name: String,
        /// How many there are.
        count: usize,
        /// How many are taken.
        limit: usize,
    },
    /// Every address is refused.
    #[error("{count} addresses of {name} are all refused; the first is that")]
    Refused {
        /// The name.
        name: String,
        /// How many.
        count: usize,
        /// The first.
        #[source]
        first: RefusedAddress,
    },
}

/// More than the three of resolv.conf(5).
const MAX_SERVERS: usize = 8;
/// Below that one service would keep a server busy.
const LEAST_TTL: Duration = Duration::from_secs(1);
/// As RFC 8767 section 4 advises for stale data, that is a day at most.
const MOST_TTL: Duration = Duration::from_hours(24);
const LEAST_TIMEOUT: Duration = Duration::from_millis(100);
const MOST_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
