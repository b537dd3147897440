//! Questions to name servers, one after the other until one answers.
//!
//! The library's pool of connections is used, one for each server, and not the resolver that it has on top of that: a
//! resolver takes a server's failure for the answer without asking the next server, aliases in a circle for an answer
//! without data, and answers `localhost` and from its cache by itself.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use hickory_resolver::NameServerPool;
use hickory_resolver::PoolContext;
use hickory_resolver::TlsConfig;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::config::ResolverOpts;
use hickory_resolver::config::ServerOrderingStrategy;
use hickory_resolver::net::DnsError;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::DnsHandle as _;
use hickory_resolver::proto::op::DnsRequestOptions;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::RecordType;
use tokio::sync::Semaphore;

use super::Config;
use super::Error;
use super::Kind;
use super::resolv;

/// Asks name servers.
pub(super) struct Exchange {
    /// Where the servers stand, unless they are configured.
    resolv_conf: Option<PathBuf>,
    servers: Mutex<Arc<Servers>>,
    context: Arc<PoolContext>,
    provider: TokioRuntimeProvider,
    permits: Semaphore,
    timeout: Duration,
}

#[derive(Default)]
struct Servers {
    list: Vec<Server>,
    /// The one that answered last.
    preferred: AtomicUsize,
}

struct Server {
    address: SocketAddr,
    pool: NameServerPool<TokioRuntimeProvider>,
}

/// What a server says.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// The records of the answer section.
    Records(Vec<Record>),
    /// That there are none, for so long where it says so (RFC 2308 section 5).
    Nothing(Option<Duration>),
}

impl Exchange {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let mut options = ResolverOpts::default();
        options.timeout = config.timeout;
        // One server at a time, whose answer is taken, and ours is the only cache.
        options.num_concurrent_reqs = 1;
        options.cache_size = 0;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        options.edns0 = true;
        // RFC 5452: an answer that is forged must guess the letters' case too.
        options.case_randomization = true;
        options.max_active_requests = MAX_QUERIES;
        let tls = TlsConfig::new().map_err(|_none| Error::Config {
            field: "resolver",
            reason: "it can't be made",
        })?;
        let exchange = Self {
            resolv_conf: config
                .servers
                .is_empty()
                .then(|| config.resolv_conf.clone()),
            servers: Mutex::default(),
            context: Arc::new(PoolContext::new(options, tls)),
            provider: TokioRuntimeProvider::default(),
            permits: Semaphore::new(MAX_QUERIES),
            timeout: config.timeout,
        };
        *exchange.lock() = exchange.made(&config.servers);
        Ok(exchange)
    }

    /// Asks one server after the other, twice all of them, until one says what there is.
    pub(super) async fn ask(&self, name: &Name, kind: Kind) -> Result<Reply, Error> {
        let servers = self.servers()?;
        let count = servers.list.len();
        let first = servers.preferred.load(Ordering::Relaxed);
        let mut last = None;
        for step in 0..count * ROUNDS {
            let index = (first + step) % count;
            let Some(server) = servers.list.get(index) else {
                break;
            };
            match self.ask_one(server, name, kind).await {
                Ok(reply) => {
                    servers.preferred.store(index, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::NoServers {
            path: self.resolv_conf.clone().unwrap_or_default(),
        }))
    }

    /// Looks whether the system has other servers by now.
    pub(super) fn look_again(&self) {
        let Some(path) = &self.resolv_conf else {
            return;
        };
        let Ok(found) = resolv::servers(path) else {
            return;
        };
        let mut servers = self.lock();
        let is_same = servers
            .list
            .iter()
            .map(|server| &server.address)
            .eq(found.iter());
        if !is_same {
            *servers = self.made(&found);
        }
    }

    async fn ask_one(&self, server: &Server, name: &Name, kind: Kind) -> Result<Reply, Error> {
        let _permit = self.permits.acquire().await;
        let query = Query::query(name.clone(), record_type(kind));
        let mut options = DnsRequestOptions::default();
        options.recursion_desired = true;
        let mut replies = server.pool.lookup(query, options);
        let reply = tokio::time::timeout(self.timeout, replies.next()).await;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Exchange {
            server: server.address,
            kind,
            name: name.to_ascii(),
            source,
        };
        match reply {
            Ok(Some(Ok(response))) => Ok(Reply::Records(response.into_message().answers)),
            Ok(Some(Err(NetError::Dns(DnsError::NoRecordsFound(none))))) => {
                // RFC 2308 section 2.2: names of servers without an SOA record are a referral.
                if none.soa.is_none() && none.ns.is_some() {
                    return Err(Error::Referral {
                        server: server.address,
                        kind,
                        name: name.to_ascii(),
                    });
                }
                let ttl = none.negative_ttl.map(super::answer::positive);
                Ok(Reply::Nothing(
                    ttl.map(|ttl| Duration::from_secs(ttl.into())),
                ))
            }
            Ok(Some(Err(NetError::Dns(DnsError::ResponseCode(code))))) => Err(Error::Refusal {
                server: server.address,
                kind,
                name: name.to_ascii(),
                code: code.to_string(),
            }),
            Err(_) | Ok(Some(Err(NetError::Timeout))) => Err(Error::Timeout {
                server: server.address,
                kind,
                name: name.to_ascii(),
                limit: self.timeout,
            }),
            Ok(Some(Err(error))) => Err(failed(error.to_string().into())),
            Ok(None) => Err(failed("the connection ended".into())),
        }
    }

    fn servers(&self) -> Result<Arc<Servers>, Error> {
        let servers = Arc::clone(&self.lock());
        let Some(path) = &self.resolv_conf else {
            return Ok(servers);
        };
        if !servers.list.is_empty() {
            return Ok(servers);
        }
        let made = self.made(&resolv::servers(path)?);
        *self.lock() = Arc::clone(&made);
        Ok(made)
    }

    fn made(&self, addresses: &[SocketAddr]) -> Arc<Servers> {
        let server = |address: &SocketAddr| {
            let mut config = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut config.connections {
                connection.port = address.port();
            }
            let context = Arc::clone(&self.context);
            Server {
                address: *address,
                pool: NameServerPool::from_config([config], context, self.provider.clone()),
            }
        };
        Arc::new(Servers {
            list: addresses.iter().map(server).collect(),
            preferred: AtomicUsize::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Servers>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = Arc::clone(&self.lock());
        let addresses: Vec<_> = servers.list.iter().map(|server| server.address).collect();
        f.debug_struct("Exchange")
            .field("servers", &addresses)
            .finish_non_exhaustive()
    }
}

fn record_type(kind: Kind) -> RecordType {
    match kind {
        Kind::Srv => RecordType::SRV,
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
    }
}

/// At a time, of all services together.
const MAX_QUERIES: usize = 32;
/// How often each server is asked before an answer is given up; resolv.conf(5) has 2 attempts.
const ROUNDS: usize = 2;
