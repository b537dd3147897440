//! Circuit breaker, retry with budget, timeout, bulkhead, rate limit, fallback and load balancing as tower layers.
//!
//! ```
//! use mesh_resilience::breaker::{Breaker, BreakerConfig, BreakerLayer};
//! use mesh_resilience::bulkhead::{Bulkhead, BulkheadConfig, BulkheadLayer};
//! use mesh_resilience::classify::ErrorClassifier;
//! use mesh_resilience::timeout::{DEFAULT_TIMEOUT, TimeoutLayer};
//! use mesh_resilience::BoxError;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let breaker = Breaker::new(BreakerConfig::default())?;
//! let orders = ServiceBuilder::new()
//!     .layer(BreakerLayer::new(breaker, ErrorClassifier::new()))
//!     .layer(BulkheadLayer::new(Bulkhead::new(&BulkheadConfig::default())))
//!     .layer(TimeoutLayer::new(DEFAULT_TIMEOUT)?)
//!     .service(service_fn(|id: u32| async move { Ok::<_, BoxError>(format!("order {id}")) }));
//! assert_eq!(orders.oneshot(7).await?, "order 7");
//! # Ok(())
//! # }
//! ```
//!
//! Layers work with any request and response. What one answers itself is a small public error, found behind the
//! [`BoxError`] with [`find_cause`]: [`BreakerOpen`](refusal::BreakerOpen), [`BulkheadFull`](refusal::BulkheadFull),
//! [`Limited`](refusal::Limited), [`Overloaded`](refusal::Overloaded), [`TimedOut`](refusal::TimedOut). Clock and randomness
//! are parameters of the state machines; the layers read tokio's clock, so that a paused clock drives them in tests.
//!
//! *Cancel safety*: dropping a response future at any point gives back what it held: a probe slot, a permit, a place in
//! the queue. It counts as neither success nor failure.
//!
//! # Which one do I need
//!
//! | what happens | what helps |
//! |---|---|
//! | a call takes for ever | [`timeout`]; over several hops a [`deadline`] that is carried on |
//! | now and then a call fails, and works the next time | [`retry`], with a [`budget`] |
//! | now and then a call is slow | [`hedge`] |
//! | a service is down, and everybody waits for it | [`breaker`] |
//! | a service answers so late that it is of no use | [`breaker`], with `SlowCalls` |
//! | one instance of several is bad | [`balance`], with its outliers |
//! | a service that hangs takes all my threads, memory, connections | [`bulkhead`] |
//! | one caller asks for more than its share | [`limit`] |
//! | all callers together ask for more than I can do | [`shed`] |
//! | a repeat of a write must not act twice | [`once`] |
//! | something else is better than an error | [`fallback`] |
//!
//! # Order
//!
//! Outermost first, of calls to others: fallback, total timeout, retry, hedge, then for each attempt: breaker, timeout,
//! bulkhead, pick an endpoint. The breaker sees a timeout only from a layer below it, and a full bulkhead or an open
//! breaker is answered at once. Of calls from others: limit (what one caller may), shed or bulkhead (what all may), timeout.
//!
//! Examples for reqwest, tonic and axum are in `examples/`.
//!
//! # What this crate does not do
//!
//! - The balancer picks; it finds no endpoints, makes no connections and checks no health of its own.
//! - No metrics: hand in an `Observe` ([`breaker::Observe`], [`bulkhead::Observe`], [`retry::Observe`]), or ask for a
//!   `snapshot`.
//! - No task of its own: nothing runs between calls.
//!
//! # Compared with
//!
//! A call that succeeds at once, through one layer: nanoseconds of processor time on one core of a shared x86-64 machine
//! (the least of 15 runs of 50,000 calls), and allocations. The bare service takes 3.0 ns, a reading of the clock 22.5.
//! `cargo bench -p benches --bench resilience_peers` measures the same, each beside the others.
//! The rows of the limiter are of `--bench limit`, with the reading of the clock, as each thread sees it; on one thread alone
//! and 100,000 keys governor is ahead (75 to our 210): its record of a key is smaller.
//!
//! | layer | here | others |
//! |---|--:|---|
//! | breaker | 23 | failsafe 1.3: 75 · tower-resilience 0.13: 203, 3 allocations |
//! | breaker that counts successes and times calls | 98 | |
//! | bulkhead | 24 | tower 0.5 `ConcurrencyLimit`: 19 · tower-resilience: 181, 3 allocations |
//! | timeout | 54 | tower: 38 · `tokio::time::timeout`: 54 |
//! | retry with budget | 56 | tower's `Retry` with a policy made of its budget and backoff: 57 · backon 1.6, which has no budget: 17 |
//! | limiter, one key, one thread and two | 58 to 72, 64 to 85 | governor 0.10, keyed: 31, 72 |
//! | limiter, 100,000 keys, two threads: a bucket | 144 | governor: 216 |
//! | the same with two windows | 253 to 275 | |
//! | deadline, retry, breaker, timeout, bulkhead, limiter, one of 100 endpoints | 450 to 480 | |
//!
//! Nothing of this crate allocates on that way. What the others have and this crate has not:
//!
//! - tower: readiness that waits (`ConcurrencyLimit` holds callers back in `poll_ready`, so that balancers and
//!   `load_shed` see it; here a call is taken and waits in its future), and retry policies of any kind.
//! - tower-resilience: windows that count calls rather than time, presets, ready-made metrics, and patterns that are
//!   no business of this crate: cache, coalescing, chaos.
//! - failsafe: an open time that grows from one opening to the next; breakers around streams and plain functions.
//! - governor: waiting until a call is allowed, `no_std`; a smaller check for one key, with one rule only.
//! - backon: retries of any closure, blocking ones and `no_std` too.
//!
//! What this crate adds: amplification that stays bounded over several hops, classification by whether the callee can have
//! acted, one refusal type for each layer whatever lies between, a clock that a paused runtime drives (governor takes one
//! too; tower-resilience and failsafe read the system's), and state machines that are held against models over a million
//! random traces.
//!
//! # Modules
//!
//! | module | what |
//! |---|---|
//! | [`balance`] | which endpoint: by load, latency, turn, chance or hash; priorities, zones, slow start, subsets; outlier ejection |
//! | [`breaker`] | stops calling what fails, and tries again with a few probes |
//! | [`budget`] | so many repeats for so many requests |
//! | [`bulkhead`] | so many calls at a time, so many waiting |
//! | [`classify`] | what a result says, and whether a call may be repeated |
//! | [`deadline`] | by when a call must be answered |
//! | [`fallback`] | something else than an error: a fixed answer, the last good one, another service |
//! | [`hedge`] | a second attempt where the first is slow |
//! | [`limit`] | so many calls a key in any stretch of time, counted here or by a store that nodes share |
//! | [`once`] | a repeat is answered from memory: at most one execution of a call |
//! | [`random`] | where jitter and draws come from |
//! | [`refusal`] | what layers answer in place of the service below them |
//! | [`replay`] | requests that can be sent again |
//! | [`retry`] | again, slower, within a budget and a deadline |
//! | [`shed`] | refuses at once what would only wait, by a limit that finds itself |
//! | [`timeout`] | a limit a call, and one deadline over all attempts |
//!
//! # Features
//!
//! None is on by default. Each layer is a feature of its own:
//! `balance`,
//! `breaker`,
//! `bulkhead`,
//! `fallback`,
//! `hedge`,
//! `limit`,
//! `once`,
//! `retry`,
//! `shed`,
//! `timeout`.
//!
//! | feature | adds |
//! |---|---|
//! | `http` | [`classify`] gains `HttpClassifier`; `http::Request` can be repeated, and carries a [`Deadline`](deadline::Deadline) in its extensions; [`deadline::carried`] reads and writes what is left of it |
//! | `redis` | `limit::redis`, a store of rate limits in Redis or Valkey, and all of `shared` |
//! | `rls` | `limit` with [`limit::rls`]: Envoy's rate limit service, its client and its server, over gRPC |
//! | `serde` | `Deserialize` and `Serialize` for the configuration, durations written as `30s` or `1h` |
//! | `shared` | `limit::shared`, limits that several nodes share through a store; `breaker` and `limit` with it |

#[cfg(feature = "balance")]
pub mod balance;
#[cfg(feature = "breaker")]
pub mod breaker;
#[cfg(any(feature = "hedge", feature = "retry"))]
pub mod budget;
#[cfg(feature = "bulkhead")]
pub mod bulkhead;
pub mod classify;
pub mod deadline;
#[cfg(feature = "serde")]
pub mod duration;
#[cfg(feature = "fallback")]
pub mod fallback;
#[cfg(feature = "hedge")]
pub mod hedge;
#[cfg(feature = "limit")]
pub mod limit;
#[cfg(feature = "once")]
pub mod once;
pub mod random;
pub mod refusal;
pub mod replay;
#[cfg(feature = "retry")]
pub mod retry;
#[cfg(feature = "shed")]
pub mod shed;
#[cfg(feature = "timeout")]
pub mod timeout;

mod error;
#[cfg(any(feature = "hedge", feature = "shed"))]
mod histogram;

pub use self::error::{BoxError, ConfigError, find_cause, find_cause_in, is_refusal};
