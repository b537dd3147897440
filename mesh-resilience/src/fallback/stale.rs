//! The last good answer, given again when there is no new one.
//!
//! ```text
//!                 good, and may be kept                 wanting
//!   NOTHING ───────────────────────────▶ KEPT ──────────────────────▶ given, marked with its age
//!      ▲                                 │  ▲                          │
//!      │ older than its life, pushed out │  └──────────────────────────┘
//!      │ by others, good but not to be   │
//!      └──────── kept, a caller's error ─┘
//! ```
//!
//! *Good* is what the classifier calls a success, *wanting* as the page [above](super) says. A [`Keep`] says which answers
//! are kept (its *weight*: how many bytes, for how long), under which *key*, and how one that is given is *marked*, so that
//! callers can tell. For HTTP there is `HttpKeep` under the feature `http`.
//!
//! The memory is bounded in answers, bytes and age ([`StaleConfig`]); the answer that was used longest ago makes room. One
//! that is over is never given; its room is free when it is asked for or pushed out. An answer that says that there is
//! nothing (the caller's own error, unless it may be repeated: 404, 403) forgets what was kept. Of two answers to the same
//! request the one that began later counts, whichever ends first; its age counts from there.
//!
//! What it does not do: it answers no call that the service can answer, so it is no cache; and a write does not forget
//! what was read before, so that within its age an answer may be older than the caller's own writes.
//!
//! ```
//! use mesh_resilience::BoxError;
//! use mesh_resilience::classify::ErrorClassifier;
//! use mesh_resilience::fallback::stale::{Keep, Stale, StaleConfig, StaleLayer, Weight};
//! use std::time::Duration;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! #[derive(Clone, Debug, PartialEq)]
//! struct Rate { cents: u64, is_stale: bool }
//!
//! #[derive(Clone)]
//! struct ByCurrency;
//!
//! impl Keep<&'static str, Rate> for ByCurrency {
//!     type Key = &'static str;
//!     fn key(&self, currency: &&'static str) -> Option<&'static str> {
//!         Some(currency)
//!     }
//!     fn weigh(&self, _: &&'static str, _: &Rate) -> Option<Weight> {
//!         Some(Weight::new(size_of::<Rate>()))
//!     }
//!     fn mark(&self, rate: &mut Rate, _age: Duration) {
//!         rate.is_stale = true;
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let mut answers = vec![Err("down"), Ok(Rate { cents: 108, is_stale: false })];
//! let mut rates = ServiceBuilder::new()
//!     .layer(StaleLayer::new(Stale::new(StaleConfig::default(), ByCurrency)?, ErrorClassifier::new()))
//!     .service(service_fn(move |_currency: &'static str| {
//!         let answer = answers.pop().unwrap_or(Err("down"));
//!         async move { answer.map_err(BoxError::from) }
//!     }));
//! assert!(!rates.ready().await?.call("EUR").await?.is_stale);
//! assert_eq!(rates.ready().await?.call("EUR").await?, Rate { cents: 108, is_stale: true });
//! assert!(rates.ready().await?.call("CHF").await.is_err());
//! # Ok(())
//! # }
//! ```
//!
//! # Sources
//!
//! - RFC 5861 section 4 (`stale-if-error`).
//! - RFC 9111 sections 3 and 3.5 (what may be kept), 4.1 (`Vary`), 4.2.4 (stale answers), 5.1 (`Age`).

mod config;
#[cfg(feature = "http")]
mod http;
mod service;
mod table;

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::table::Table;
use crate::error::ConfigError;

pub use self::config::StaleConfig;
#[cfg(feature = "http")]
pub use self::http::{HttpKeep, HttpKey, X_MESH_STALE};
pub use self::service::{ResponseFuture, StaleLayer, StaleService};

/// Says what is kept of a service.
pub trait Keep<Req, Res: Clone> {
    /// What calls with the same answer have in common: all of the request that the answer depends on, and who asked, where
    /// that matters.
    type Key: Clone + Eq + Hash;

    /// Returns the key of a request, or `None` for one whose answer is not kept, and that none is given to.
    fn key(&self, request: &Req) -> Option<Self::Key>;

    /// Weighs a good answer; `None` for one that may not be kept.
    fn weigh(&self, key: &Self::Key, answer: &Res) -> Option<Weight>;

    /// Copies an answer to keep. Default: a clone.
    fn copy(&self, answer: &Res) -> Res {
        answer.clone()
    }

    /// Marks an answer that was kept for `age` and is given now. Default nothing.
    fn mark(&self, answer: &mut Res, age: Duration) {
        let _ = (answer, age);
    }
}

/// What an answer that is kept takes.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Weight {
    /// Bytes of the answer and its key.
    pub bytes: usize,
    /// How old it may be when it is given. [`StaleConfig::max_age`] bounds it.
    pub life: Duration,
    /// How old it is already.
    pub age: Duration,
}

impl Weight {
    /// A new answer of so many bytes that may be given as long as the settings allow.
    pub const fn new(bytes: usize) -> Self {
        Self {
            bytes,
            life: Duration::MAX,
            age: Duration::ZERO,
        }
    }

    /// Sets how old it may be when it is given.
    #[must_use]
    pub const fn with_life(mut self, life: Duration) -> Self {
        self.life = life;
        self
    }

    /// Sets how old it is already.
    #[must_use]
    pub const fn with_age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }
}

/// When an answer began, and its place among the others.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    number: u64,
    at: Instant,
}

/// Is told which old answers are given, for metrics.
pub trait Observe: Send + Sync {
    /// An answer that was kept for `age` is given.
    fn given(&self, age: Duration) {
        let _ = age;
    }

    /// There was no answer to give.
    fn missed(&self) {}
}

/// The last good answers of one service, kept as `P` says, of keys `K` and answers `A`. Clones are the same.
pub struct Stale<P, K, A> {
    shared: Arc<Shared<P, K, A>>,
    observer: Option<Arc<dyn Observe>>,
}

struct Shared<P, K, A> {
    keep: P,
    table: Mutex<Table<K, A>>,
    arrived: AtomicU64,
    given: AtomicU64,
    missed: AtomicU64,
}

/// What is kept, for people to read.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// Answers that are kept, those included that are over and not yet pushed out.
    pub entries: usize,
    /// Their bytes, with their keys.
    pub bytes: usize,
    /// Old answers given so far.
    pub given: u64,
    /// Calls so far for which there was none.
    pub missed: u64,
}

impl<P, K: Clone + Eq + Hash, A: Clone> Stale<P, K, A> {
    /// Keeps as `keep` says.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `config` makes no sense; see the fields of [`StaleConfig`] for their ranges.
    pub fn new(config: StaleConfig, keep: P) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            shared: Arc::new(Shared {
                keep,
                table: Mutex::new(Table::new(config)),
                arrived: AtomicU64::new(0),
                given: AtomicU64::new(0),
                missed: AtomicU64::new(0),
            }),
            observer: None,
        })
    }

    /// Reports to `observer` what is given through this handle and its clones.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observe>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Returns how it stands.
    pub fn snapshot(&self) -> Snapshot {
        let table = self.shared.table.lock();
        Snapshot {
            entries: table.len(),
            bytes: table.bytes(),
            given: self.shared.given.load(Ordering::Relaxed),
            missed: self.shared.missed.load(Ordering::Relaxed),
        }
    }

    /// Returns the key of a request; `None` for one whose answer is not kept, and that none is given to.
    ///
    /// This, [`Self::arrived`], [`Self::keep`], [`Self::forget`] and [`Self::give`] are what [`StaleLayer`] does, for those whose
    /// answers stream and are whole only after the layer has passed them on.
    pub fn key<Req>(&self, request: &Req) -> Option<K>
    where
        P: Keep<Req, A, Key = K>,
    {
        self.shared.keep.key(request)
    }

    /// Takes down that an answer begins now, such as with its head.
    pub fn arrived(&self, now: Instant) -> Arrival {
        Arrival {
            number: self.shared.arrived.fetch_add(1, Ordering::Relaxed) + 1,
            at: now,
        }
    }

    /// Keeps a good answer, or forgets the last one where this one may not be kept. Nothing where an answer to the same request
    /// that began later was kept or forgotten before.
    pub fn keep<Req>(&self, key: K, answer: &A, arrival: Arrival)
    where
        P: Keep<Req, A, Key = K>,
    {
        match self.shared.keep.weigh(&key, answer) {
            Some(weight) if self.shared.table.lock().has_room_for(weight.bytes) => {
                let copy = self.shared.keep.copy(answer);
                let mut table = self.shared.table.lock();
                table.put(key, copy, &weight, arrival);
            }
            _ => self.forget(&key, arrival),
        }
    }

    /// Forgets the last good answer, because of one that may not be kept; not where the last one began later.
    pub fn forget(&self, key: &K, arrival: Arrival) {
        self.shared.table.lock().forget(key, arrival);
    }

    /// Returns the last good answer, marked; `None` where there is none, or it is over. Counted either way.
    pub fn give<Req>(&self, key: &K, now: Instant) -> Option<A>
    where
        P: Keep<Req, A, Key = K>,
    {
        let found = self.shared.table.lock().get(key, now);
        let Some((mut answer, age)) = found else {
            self.shared.missed.fetch_add(1, Ordering::Relaxed);
            if let Some(observer) = &self.observer {
                observer.missed();
            }
            return None;
        };
        self.shared.keep.mark(&mut answer, age);
        self.shared.given.fetch_add(1, Ordering::Relaxed);
        if let Some(observer) = &self.observer {
            observer.given(age);
        }
        Some(answer)
    }
}

impl<P, K, A> Clone for Stale<P, K, A> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            observer: self.observer.clone(),
        }
    }
}

impl<P, K, A> fmt::Debug for Stale<P, K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Answers are nobody else's business.
        f.debug_struct("Stale").finish_non_exhaustive()
    }
}
