//! The connection that all checks share, and its upkeep.

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::RwLock;
use redis::AsyncConnectionConfig;
use redis::RedisConnectionInfo;
use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::RedisConfig;
use super::address::Address;
use crate::random::Random;

/// What checks and the upkeep share.
#[derive(Debug, Default)]
pub(super) struct Link {
    state: RwLock<State>,
    /// Checks in a row that were given up without an answer.
    unanswered: AtomicU32,
    /// Asks for another connection.
    broken: Notify,
    /// Where a server of a cluster said that the records are.
    moved: RwLock<Option<String>>,
    attempted: watch::Sender<bool>,
}

#[derive(Debug)]
enum State {
    Up(MultiplexedConnection),
    Down(Option<Arc<io::Error>>),
}

impl Default for State {
    fn default() -> Self {
        Self::Down(None)
    }
}

impl Link {
    /// The connection, or why there is none.
    pub(super) fn connection(&self) -> Result<MultiplexedConnection, Option<Arc<io::Error>>> {
        match &*self.state.read() {
            State::Up(connection) => Ok(connection.clone()),
            State::Down(why) => Err(why.clone()),
        }
    }

    /// A check begins to wait for its answer.
    pub(super) const fn waiting(&self) -> Waiting<'_> {
        Waiting {
            link: self,
            is_over: false,
        }
    }

    pub(super) async fn first_attempt(&self) {
        // The sender lives in this link.
        drop(self.attempted.subscribe().wait_for(|done| *done).await);
    }
}

/// A check that waits for its answer; dropped before it is over, it was given up.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    link: &'a Link,
    is_over: bool,
}

impl Waiting<'_> {
    pub(super) fn ends(mut self, error: Option<&RedisError>) {
        self.is_over = true;
        self.link.unanswered.store(0, Relaxed);
        if let Some((to, _)) = error.and_then(RedisError::redirect_node) {
            *self.link.moved.write() = Some(to.to_owned());
            self.link.broken.notify_one();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // A server may stop without closing its connections, and a network may lose them.
        if !self.is_over && self.link.unanswered.fetch_add(1, Relaxed) + 1 >= MOST_UNANSWERED {
            self.link.unanswered.store(0, Relaxed);
            self.link.broken.notify_one();
        }
    }
}

/// Keeps the connection to Redis: [`RedisDriver::run`] it for as long as the store is in use.
pub struct RedisDriver {
    config: RedisConfig,
    address: Address,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    link: Arc<Link>,
    random: Arc<dyn Random>,
}

impl RedisDriver {
    pub(super) fn new(
        config: RedisConfig,
        address: Address,
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
        (link, random): (Arc<Link>, Arc<dyn Random>),
    ) -> Self {
        Self {
            config,
            address,
            tls,
            link,
            random,
        }
    }

    /// Connects, and connects again with growing pauses, until this is dropped.
    pub async fn run(self) {
        let mut failures = 0;
        loop {
            let moved = self.link.moved.write().take();
            let moved = moved.and_then(|to| self.address.moved(&to));
            let address = moved.as_ref().unwrap_or(&self.address);
            let ended = self.serve(address).await;
            failures = if ended.is_ok() { 0 } else { failures + 1 };
            *self.link.state.write() = State::Down(ended.err().map(Arc::new));
            self.link.attempted.send_replace(true);
            // From where it was sent to it may be sent on, but not in a loop.
            if moved.is_some() || self.link.moved.read().is_none() {
                tokio::time::sleep(self.pause(failures)).await;
            }
        }
    }

    /// Connects, and lets checks use the connection until it ends.
    async fn serve(&self, address: &Address) -> io::Result<()> {
        let limit = self.config.connect_timeout;
        let deadline = tokio::time::Instant::now() + limit;
        let late = |_| {
            let message = format!("no connection to redis within {limit:?}");
            io::Error::new(io::ErrorKind::TimedOut, message)
        };
        let login = self.login(address)?;
        let stream = tokio::time::timeout_at(deadline, self.open(address));
        let stream = stream.await.map_err(late)??;
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE);
        let greeting = MultiplexedConnection::new_with_config(&login, stream, settings);
        let greeting = tokio::time::timeout_at(deadline, greeting);
        let (connection, work) = greeting.await.map_err(late)?.map_err(io::Error::other)?;
        *self.link.state.write() = State::Up(connection);
        self.link.attempted.send_replace(true);
        let work = pin!(work);
        tokio::select! {
            () = work => {}
            () = self.link.broken.notified() => {}
        }
        Ok(())
    }

    /// Exponential with equal jitter: at least half of it, so that a server that refuses is not asked in a loop.
    fn pause(&self, failures: u32) -> Duration {
        let most = FIRST_PAUSE
            .saturating_mul(1 << failures.min(16))
            .min(LONGEST_PAUSE);
        most.mul_f64(0.5 + self.random.unit() / 2.0)
    }

    async fn open(&self, address: &Address) -> io::Result<Box<dyn Stream>> {
        let socket = TcpStream::connect((&*address.host, address.port)).await?;
        socket.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(socket),
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                Box::new(connector.connect(name.clone(), socket).await?)
            }
        })
    }

    fn login(&self, address: &Address) -> io::Result<RedisConnectionInfo> {
        let mut login = RedisConnectionInfo::default()
            .set_skip_set_lib_name()
            .set_db(address.database.into());
        if let Some(username) = &self.config.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.config.password {
            login = login.set_password(password()?);
        }
        Ok(login)
    }
}

impl fmt::Debug for RedisDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisDriver")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Bytes to and from a server.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

const MOST_UNANSWERED: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Checks that wait to be written before more of them must wait to be queued; some 500 bytes each.
const PIPELINE: usize = 1_024;
