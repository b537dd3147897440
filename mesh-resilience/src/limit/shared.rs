//! A limit that several nodes share through a store, and what happens while the store is away.
//!
//! ```text
//!               failures in a row, or no connection
//!   STORE ────────────────────────────────────────────▶ AWAY: a local share, or closed
//!     ▲                                                    │ every second a few calls try the store
//!     └────────────────────────────────────────────────────┘
//!               so many successes
//! ```
//!
//! *Terms*: the **store** counts for all nodes. It is **away** when it does not answer in time, refuses, or there is no
//! connection to it. The **local share** is what one of so many nodes may admit by itself: each limit divided by their
//! number, rounded down and at least 1. **Closed** means that no call is admitted while the store is away.
//!
//! The way back and forth is a [`breaker`]: while it is open no call waits for the store; once it is half-open a few try,
//! and wait at most [`SharedConfig::timeout`].
//!
//! # How much is admitted
//!
//! While the store answers: what it admits, and no store here admits more than the limit. While it is away, `closed`
//! admits nothing. With a local share each node admits its share at most, and in that share counts what it admitted
//! through the store before. So in any window, however often the store comes and goes and keeps what it counted, all nodes
//! together admit at most twice the limit: the store's and the sum of the shares. Where calls are spread evenly over the
//! nodes and the store goes away once, it is the limit itself. A store that loses its data begins anew, as one does that
//! fails over to a copy that was behind: that adds at most the limit again.
//!
//! *Cancel safety*: a check that is dropped may have been counted.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::LimitConfig;
use super::Limiter;
use super::Verdict;
use crate::breaker::Breaker;
use crate::breaker::BreakerConfig;
use crate::breaker::State;
use crate::breaker::{self};
use crate::classify::Outcome;
use crate::error::BoxError;
use crate::error::ConfigError;
use crate::random::Random;
use crate::refusal::LimitStoreAway;

/// Counts for several nodes.
pub trait Store: Send + Sync {
    /// Admits a call of `key` that counts for `cost`, or refuses it, for all nodes at once.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from answering.
    fn check(
        &self,
        key: &str,
        cost: NonZeroU32,
    ) -> impl Future<Output = Result<Verdict, BoxError>> + Send;
}

/// What is done with calls while the store is away.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WhenAway {
    /// Each of `nodes` admits its part of the limit. Say how many nodes there are at most: more of them admit more.
    LocalShare {
        /// How many nodes share the limit.
        nodes: NonZeroU32,
    },
    /// No call is admitted.
    Closed,
}

/// The settings of a shared limit.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct SharedConfig {
    /// What the store admits, for all nodes together.
    pub limit: LimitConfig,
    /// What is done while the store is away. Default closed.
    pub when_away: WhenAway,
    /// How long a call waits for the store. Default 50 ms, must be positive.
    pub timeout: Duration,
    /// When the store is no longer asked. Default after 3 failures in a row, for 1 s; 3 successes bring it back.
    pub breaker: BreakerConfig,
}

impl SharedConfig {
    /// The defaults for a limit.
    pub fn new(limit: LimitConfig) -> Self {
        Self {
            limit,
            when_away: WhenAway::Closed,
            timeout: DEFAULT_TIMEOUT,
            breaker: Asking::default_breaker(),
        }
    }

    /// Sets what is done while the store is away.
    #[must_use]
    pub const fn with_when_away(mut self, when_away: WhenAway) -> Self {
        self.when_away = when_away;
        self
    }

    /// Sets how long a call waits for the store.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets when the store is no longer asked.
    #[must_use]
    pub fn with_breaker(mut self, breaker: BreakerConfig) -> Self {
        self.breaker = breaker;
        self
    }
}

/// Who decided about a call.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DecidedBy {
    /// The store, for all nodes.
    Store,
    /// This node, from its share.
    LocalShare,
}

/// Is told what becomes of the store, for metrics and logs. Be quick.
pub trait Observe: Send + Sync {
    /// From now on the store is asked, or it is away.
    ///
    /// Called with a lock held, so that changes arrive in order: don't call the limiter.
    fn store_changed(&self, is_away: bool) {
        let _ = is_away;
    }

    /// The store gave no answer to a call.
    fn store_failed(&self, error: &BoxError) {
        let _ = error;
    }
}

/// A limit that several nodes share.
pub struct SharedLimiter<S> {
    store: S,
    /// Counts what this node admits; limits it too while the store is away.
    local: Option<Limiter>,
    asking: Asking,
}

impl<S: Store> SharedLimiter<S> {
    /// Creates a limiter in front of `store`, which must have the same limits as `config`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `config` makes no sense.
    pub fn new(
        store: S,
        config: &SharedConfig,
        random: Arc<dyn Random>,
        observer: Option<Arc<dyn Observe>>,
    ) -> Result<Self, ConfigError> {
        config.limit.check()?;
        let local = match config.when_away {
            WhenAway::LocalShare { nodes } => Some(Limiter::new(&config.limit.share(nodes))?),
            WhenAway::Closed => None,
        };
        Ok(Self {
            store,
            local,
            asking: Asking::new(config.timeout, config.breaker.clone(), random, observer)?,
        })
    }

    /// Admits a call of `key` that counts for `cost`, or refuses it, and says who decided.
    ///
    /// # Errors
    ///
    /// [`LimitStoreAway`] when the store is away and this node may not decide by itself.
    pub async fn check(
        &self,
        key: &str,
        cost: NonZeroU32,
    ) -> Result<(Verdict, DecidedBy), LimitStoreAway> {
        let clock = || tokio::time::Instant::now().into_std();
        let retry_after = match self.asking.ask(self.store.check(key, cost)).await {
            Ok(verdict) => {
                if let Some(local) = self.local.as_ref().filter(|_| verdict.allowed) {
                    local.note(key, cost, clock());
                }
                return Ok((verdict, DecidedBy::Store));
            }
            Err(retry_after) => retry_after,
        };
        match &self.local {
            Some(local) => Ok((local.check_n(key, cost, clock()), DecidedBy::LocalShare)),
            None => Err(LimitStoreAway::new(retry_after)),
        }
    }

    /// Returns whether the store is away: calls are not, or only now and then, sent to it.
    pub fn is_away(&self) -> bool {
        self.asking.is_away()
    }

    /// Returns the store.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// Returns how many keys this node counts by itself.
    pub fn keys(&self) -> usize {
        self.local.as_ref().map_or(0, Limiter::keys)
    }
}

impl<S> fmt::Debug for SharedLimiter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLimiter")
            .field("local", &self.local)
            .field("asking", &self.asking)
            .finish_non_exhaustive()
    }
}

/// Asks a store for as long as it answers.
pub(super) struct Asking {
    breaker: Breaker,
    timeout: Duration,
    observer: Option<Arc<dyn Observe>>,
}

impl Asking {
    pub(super) fn new(
        timeout: Duration,
        breaker: BreakerConfig,
        random: Arc<dyn Random>,
        observer: Option<Arc<dyn Observe>>,
    ) -> Result<Self, ConfigError> {
        ConfigError::check_duration("timeout", timeout)?;
        let told = observer.clone().map(|observer| {
            let told: Arc<dyn breaker::Observe> = Arc::new(Told(observer));
            told
        });
        Ok(Self {
            breaker: Breaker::with_parts(breaker, random, told)?,
            timeout,
            observer,
        })
    }

    /// When a store counts as away, unless something else is said.
    pub(super) fn default_breaker() -> BreakerConfig {
        BreakerConfig::default()
            .with_threshold(DEFAULT_FAILURES)
            .with_open_for(DEFAULT_AWAY_FOR)
            .with_jitter_ratio(0.1)
    }

    /// What the store answers; nothing where it is away, but when another try makes sense.
    pub(super) async fn ask<T>(
        &self,
        answer: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, Duration> {
        let clock = || tokio::time::Instant::now().into_std();
        let permit = match self.breaker.try_acquire(clock()) {
            Ok(permit) => permit,
            Err(open) => return Err(open.retry_after),
        };
        let after = self.timeout;
        let answer = tokio::time::timeout(after, answer).await;
        match answer.unwrap_or_else(|_| Err(NoAnswer { after }.into())) {
            Ok(answer) => {
                permit.record(Outcome::Success, clock());
                Ok(answer)
            }
            Err(error) => {
                permit.record(Outcome::Failure, clock());
                if let Some(observer) = &self.observer {
                    observer.store_failed(&error);
                }
                Err(RETRY_AFTER)
            }
        }
    }

    pub(super) fn is_away(&self) -> bool {
        self.breaker.state(tokio::time::Instant::now().into_std()) != State::Closed
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking")
            .field("breaker", &self.breaker)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The store did not answer in time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no answer within {after:?}")]
struct NoAnswer {
    after: Duration,
}

/// Tells of the store what its breaker does.
struct Told(Arc<dyn Observe>);

impl breaker::Observe for Told {
    fn state_changed(&self, from: State, to: State) {
        if (from == State::Closed) != (to == State::Closed) {
            self.0.store_changed(to != State::Closed);
        }
    }
}

/// Within a data centre a Redis answers in well under a millisecond; more is a fault, and shorter than people notice.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);
const DEFAULT_FAILURES: NonZeroU32 = NonZeroU32::new(3).unwrap();
const DEFAULT_AWAY_FOR: Duration = Duration::from_secs(1);
/// What a caller is told whose own call found the store away.
const RETRY_AFTER: Duration = Duration::from_secs(1);
