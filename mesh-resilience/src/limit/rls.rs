//! Envoy's rate limit service (RLS): asking one, and being one.
//!
//! A caller says of a call what it is, as a few *descriptors*; the service knows the limits, counts, and says whether the
//! call may pass. So the limits of many proxies stand in one place, and are kept together:
//!
//! ```text
//!   proxy, node, program                                        rate limit service
//!   RlsClient   ── domain "orders"                        ──▶   RlsServer ─▶ Judge: Rules, counts
//!               ── (tenant, acme) (path, /pay), 1 hit     ──▶      orders.tenant_acme.path: 10 a second
//!               ◀── OK, 7 of 10 left, 0.4 s  |  OVER_LIMIT ──
//! ```
//!
//! - [`RlsClient`] asks over any channel that carries HTTP/2 requests; [`RlsLimiter`] does so too, and knows what to do while
//!   the service is away.
//! - [`RlsServer`] answers what Envoy and other clients ask, by a [`Judge`]. Its rules are written as those of
//!   `envoyproxy/ratelimit` ([`DomainConfig`]), so that it can stand in that program's place.
//!
//! Terms: a *domain* holds the rules of one team or purpose. An *entry* is a key with a value; a *descriptor* is a list of
//! entries, from the general to the particular; a *rule* is a limit for descriptors with certain keys and perhaps values. A
//! *hit* is a call.
//!
//! # What differs from `envoyproxy/ratelimit`
//!
//! | | there | here |
//! |---|---|---|
//! | a unit | from one full minute to the next: up to twice the limit around its turn | any stretch of a minute |
//! | time until reset | to the end of the unit | until the limit is whole again; over the limit, until the next call can pass |
//! | month, year | of the calendar's average length | 30 and 365 days |
//! | no `requests_per_unit` | nothing passes | refused: it is missing |
//! | `detailed_metric` | more metrics | read and ignored ([`DomainConfig::ignored`]) |
//! | entries `("a", "b_c")` and `("a_b", "c")` | the same | different |
//! | calls over the limit | counted on | use up what is left |
//! | counts | in Redis or Memcache, for all its instances | in memory, for one |
//!
//! Limits above 100 are kept as [`Limiter`](super::Limiter) keeps them: never exceeded, and reached to 99 % at least.
//!
//! # What it does not do
//!
//! No `raw_body`, dynamic metadata or quotas of an answer; no headers of requests. No TLS: a channel or listener is handed in.
//!
//! # Sources
//!
//! - Envoy's API v3: `envoy/service/ratelimit/v3/rls.proto`, `envoy/extensions/common/ratelimit/v3/ratelimit.proto`.
//! - `envoyproxy/ratelimit`, README, "Configuration": the form of rules, and which of them matches.
//! - gRPC over HTTP/2; gRPC health checking protocol.

mod answer;
mod client;
mod config;
mod judge;
mod limiter;
mod messages;
mod question;
mod rules;
mod server;
mod unit;

pub use self::answer::Answer;
pub use self::answer::Code;
pub use self::answer::CurrentLimit;
pub use self::answer::Status;
pub use self::client::RlsClient;
pub use self::client::RlsError;
pub use self::config::DescriptorConfig;
pub use self::config::DomainConfig;
pub use self::config::RateConfig;
pub use self::config::ReplacesConfig;
pub use self::judge::Judge;
pub use self::judge::JudgeError;
pub use self::judge::Observe;
pub use self::limiter::DecidedBy;
pub use self::limiter::Decision;
pub use self::limiter::RlsLimiter;
pub use self::limiter::WhenAway;
pub use self::question::Descriptor;
pub use self::question::Entry;
pub use self::question::Question;
pub use self::question::QuestionError;
pub use self::rules::Reason;
pub use self::rules::Rule;
pub use self::rules::Rules;
pub use self::rules::RulesError;
pub use self::rules::Step;
pub use self::server::ResponseFuture;
pub use self::server::RlsServer;
pub use self::unit::Unit;
