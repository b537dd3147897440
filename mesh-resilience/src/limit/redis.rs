//! A rate limit in Redis or Valkey: one round trip, one script, the server's clock.
//!
//! *Terms*: the **record** of a caller is one string value with the windows' logs and the bucket's level. The **script**
//! reads it, decides, and writes it, and nothing comes between.
//!
//! - All windows and the bucket are decided about at once; a refused call writes nothing.
//! - Time is the server's (`TIME`), so that nodes need no common clock. A server whose clock jumps ahead frees windows early.
//! - The name of a record is `{PREFIX}:` and 32 hexadecimal digits of the SHA-256 of the limits and the key: no bytes of a
//!   caller reach Redis, and other limits count apart. A record expires when all of it is free again, so memory is bounded
//!   by the callers of the longest window: some 400 bytes each with 100 a minute and 10,000 an hour.
//! - All records of a prefix lie in one slot of a cluster (the braces); the store follows `MOVED` to the node that has it.
//! - A window is as exact as a local one: never more than `n` in any stretch, and refused only above 99 % of `n`.
//!
//! What the user of an ACL needs: `~{PREFIX}:* +evalsha +eval +get +set +time`.
//!
//! The store connects in its [`RedisDriver`], and again with growing pauses; without a connection a check fails at once.
//! Calls share one connection and are pipelined. TLS is for the caller to configure.
//!
//! *Cancel safety*: a check that is dropped may have been counted.
//!
//! # Sources
//!
//! - Redis documentation: "Scripting with Lua" (atomicity, `EVALSHA`), "Redis cluster specification" (hash tags, `MOVED`).
//! - ITU-T I.371 (03/2004), annex A: the continuous-state leaky bucket.

mod address;
mod connection;

use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use sha2::Digest as _;
use sha2::Sha256;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use self::address::Address;
use self::connection::Link;
use super::LimitConfig;
use super::Verdict;
use super::shared::Store;
use super::window::group_of;
use crate::error::BoxError;
use crate::error::ConfigError;
use crate::random::Random;

pub use self::connection::RedisDriver;

/// Gives a password, each time that one is asked for: read the file anew, and a new password needs no restart.
pub type Password = Arc<dyn Fn() -> io::Result<String> + Send + Sync>;

/// Where the store is, and how it is reached.
#[non_exhaustive]
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://HOST[:PORT][/DATABASE]`, or `rediss://` for TLS. No user and no password: they have fields of their own.
    pub url: String,
    /// Whom to believe, and who we are: needed with `rediss://`.
    pub tls: Option<Arc<ClientConfig>>,
    /// The name that its certificate must have. Default the host of `url`.
    pub server_name: Option<String>,
    /// User. Default none: Redis's own `default`.
    pub username: Option<String>,
    /// Its password. Default none.
    pub password: Option<Password>,
    /// What the names of all records begin with, in braces; 1 to 64 letters, digits, `-`, `_`, `.` and `:`. Default
    /// `mesh:limit`. Nodes that share a limit have the same.
    pub prefix: String,
    /// How long it may take to connect. Default 1 s, must be positive.
    pub connect_timeout: Duration,
}

impl RedisConfig {
    /// The defaults for a server.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            tls: None,
            server_name: None,
            username: None,
            password: None,
            prefix: DEFAULT_PREFIX.to_owned(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
        }
    }

    /// Sets whom to believe.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets the name that its certificate must have.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Sets user and password; no user is Redis's own `default`.
    #[must_use]
    pub fn with_credentials(mut self, username: Option<String>, password: Password) -> Self {
        self.username = username;
        self.password = Some(password);
        self
    }

    /// Sets what the names of all records begin with.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how long it may take to connect.
    #[must_use]
    pub const fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("url", &self.url)
            .field("username", &self.username)
            .field("has_password", &self.password.is_some())
            .field("has_tls", &self.tls.is_some())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Why there is no such store, or no answer of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisStoreError {
    /// The address is none.
    #[error(
        "{url:?} is no address of a redis server; write redis://HOST:PORT or rediss://HOST:PORT"
    )]
    Url {
        /// The beginning of it.
        url: String,
    },
    /// The prefix has other characters, or too many or none.
    #[error(
        "{prefix:?} can't begin names of records; write 1 to 64 letters, digits, \"-\", \"_\", \".\" and \":\""
    )]
    Prefix {
        /// The beginning of it.
        prefix: String,
    },
    /// `rediss://` without TLS, or TLS without.
    #[error("a rediss:// address needs roots to believe, and no other address can have any")]
    Tls,
    /// The name that the certificate must have is none.
    #[error("{name:?} is no name that a certificate can have")]
    ServerName {
        /// The beginning of it.
        name: String,
        /// Why.
        source: tokio_rustls::rustls::pki_types::InvalidDnsNameError,
    },
    /// The limits make no sense, or are too fine for a shared clock.
    #[error("the limits can't be kept in redis")]
    Limits {
        /// Why.
        source: ConfigError,
    },
    /// There is no connection.
    #[error("there is no connection to redis")]
    NotConnected {
        /// Why the last attempt failed; none where there was none yet.
        source: Option<Arc<io::Error>>,
    },
    /// It answered with an error, or not as the script does.
    #[error("redis did not run the script; may the user do what the documentation names?")]
    Refused {
        /// What it said.
        source: RedisError,
    },
}

/// A limit that is kept in Redis.
#[derive(Debug)]
pub struct RedisStore {
    link: Arc<Link>,
    name: String,
    /// What tells these limits from others in the names of records.
    limits: Vec<u8>,
    script: redis::Script,
    /// The script's arguments after the cost.
    arguments: Vec<String>,
}

impl RedisStore {
    /// Creates the store and what connects it, which must be run.
    ///
    /// # Errors
    ///
    /// [`RedisStoreError`] when `config` makes no sense, or `limit` has a period below 100 ms.
    pub fn new(
        config: RedisConfig,
        limit: &LimitConfig,
        random: Arc<dyn Random>,
    ) -> Result<(Self, RedisDriver), RedisStoreError> {
        let shown = |text: &str| text.chars().take(MAX_SHOWN).collect::<String>();
        let address = Address::parse(&config.url).ok_or_else(|| RedisStoreError::Url {
            url: shown(&config.url),
        })?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if config.prefix.is_empty()
            || config.prefix.len() > MAX_PREFIX
            || !config.prefix.chars().all(is_plain)
        {
            return Err(RedisStoreError::Prefix {
                prefix: shown(&config.prefix),
            });
        }
        let tls = match (&config.tls, address.is_tls) {
            (Some(tls), true) => {
                let name = config.server_name.as_ref().unwrap_or(&address.host);
                let server_name = ServerName::try_from(name.clone());
                let server_name = server_name.map_err(|source| RedisStoreError::ServerName {
                    name: shown(name),
                    source,
                })?;
                Some((Arc::clone(tls), server_name))
            }
            (None, false) => None,
            _ => return Err(RedisStoreError::Tls),
        };
        let arguments = arguments(limit).map_err(|source| RedisStoreError::Limits { source })?;
        let link = Arc::new(Link::default());
        let store = Self {
            link: Arc::clone(&link),
            name: format!("{{{}}}:", config.prefix),
            limits: arguments.join(",").into_bytes(),
            script: redis::Script::new(SCRIPT),
            arguments,
        };
        let driver = RedisDriver::new(config, address, tls, (link, random));
        Ok((store, driver))
    }

    /// Waits until the first attempt to connect has succeeded or failed.
    pub async fn first_attempt(&self) {
        self.link.first_attempt().await;
    }

    /// Returns whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.link.connection().is_ok()
    }

    /// The name of a caller's record.
    fn record(&self, key: &str) -> String {
        // The limits hold digits and commas only, so that no key can pass for a part of them.
        let digest = Sha256::new()
            .chain_update(&self.limits)
            .chain_update(b"\n")
            .chain_update(key);
        let mut name = self.name.clone();
        for byte in digest.finalize().iter().take(KEY_BYTES) {
            let digits = [byte >> 4, byte & 15];
            name.extend(digits.map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')));
        }
        name
    }

    fn command(&self, how: &str, script: &str, record: &str, cost: u32) -> redis::Cmd {
        let mut command = redis::cmd(how);
        command.arg(script).arg(1).arg(record).arg(cost);
        command.arg(&self.arguments);
        command
    }
}

impl Store for RedisStore {
    async fn check(&self, key: &str, cost: NonZeroU32) -> Result<Verdict, BoxError> {
        let mut connection = self
            .link
            .connection()
            .map_err(|source| RedisStoreError::NotConnected { source })?;
        let record = self.record(key);
        let waiting = self.link.waiting();
        let by_hash = self.command("EVALSHA", self.script.get_hash(), &record, cost.get());
        let mut answer: Result<Vec<u64>, _> = by_hash.query_async(&mut connection).await;
        if answer
            .as_ref()
            .is_err_and(|error| error.code() == Some("NOSCRIPT"))
        {
            // It was started again, or told to forget its scripts: this time it learns it.
            let in_full = self.command("EVAL", SCRIPT, &record, cost.get());
            answer = in_full.query_async(&mut connection).await;
        }
        waiting.ends(answer.as_ref().err());
        let answer = answer.map_err(|source| RedisStoreError::Refused { source })?;
        Ok(read(&answer)?)
    }
}

/// What the script said.
fn read(answer: &[u64]) -> Result<Verdict, RedisStoreError> {
    let &[allowed, limit, remaining, reset, retry] = answer else {
        let what = (redis::ErrorKind::UnexpectedReturnType, "not five numbers");
        return Err(RedisStoreError::Refused {
            source: what.into(),
        });
    };
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Verdict {
        allowed: allowed == 1,
        limit: number(limit),
        remaining: number(remaining),
        reset_after: Duration::from_micros(reset),
        retry_after: Duration::from_micros(retry),
    })
}

/// The limits as the script takes them.
fn arguments(limit: &LimitConfig) -> Result<Vec<String>, ConfigError> {
    limit.check()?;
    let micros = |field, period: Duration| {
        ConfigError::check_range(field, period.as_secs_f64(), MIN_PERIOD, MAX_PERIOD)?;
        Ok(period.as_micros())
    };
    let mut numbers: Vec<u128> = vec![0, 1, 0];
    if let Some(bucket) = &limit.bucket {
        let period = micros("bucket period (in seconds)", bucket.period)?;
        let level = period * u128::from(bucket.burst.get());
        #[expect(clippy::cast_precision_loss, reason = "compared with a power of two")]
        ConfigError::check_range(
            "burst times bucket period (in µs)",
            level as f64,
            1.0,
            EXACT,
        )?;
        numbers = vec![bucket.rate.get().into(), period, bucket.burst.get().into()];
    }
    for window in &limit.windows {
        let period = micros("period (in seconds)", window.period)?;
        let calls = window.max_requests.get();
        let group = group_of(calls);
        let tick = period.div_ceil(TICKS);
        numbers.extend([
            calls.into(),
            group.into(),
            (calls / group).into(),
            period,
            tick,
        ]);
    }
    Ok(numbers.iter().map(u128::to_string).collect())
}

const SCRIPT: &str = include_str!("redis/check.lua");
const DEFAULT_PREFIX: &str = "mesh:limit";
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_PREFIX: usize = 64;
const MAX_SHOWN: usize = 100;
/// 128 bits: no two callers share a record by chance, nor by intent.
const KEY_BYTES: usize = 16;
/// Ticks in a period, as those of a local window at their finest.
const TICKS: u128 = 2_000;
/// Keeps a tick, which is whole microseconds, a small part of a period.
const MIN_PERIOD: f64 = 0.1;
const MAX_PERIOD: f64 = 86_400.0 * 3_652.0;
/// Below it a double holds whole numbers exactly: Lua has no others.
const EXACT: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests;
