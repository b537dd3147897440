//! The rate limit of callers: counted here, or by a store that nodes share.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use mesh_resilience::BoxError;
use mesh_resilience::limit::Limiter;
use mesh_resilience::limit::Verdict;
use mesh_resilience::limit::redis::RedisStore;
use mesh_resilience::limit::rls;
use mesh_resilience::limit::rls::Decision;
use mesh_resilience::limit::shared;
use mesh_resilience::limit::shared::DecidedBy;
use mesh_resilience::limit::shared::SharedLimiter;
use mesh_resilience::refusal::LimitStoreAway;
use tokio::sync::oneshot;

use crate::health::Board;
use crate::stack::now;
use crate::stack::outbound::chain;
use crate::stack::rls::Requested;
use crate::stack::rls::Rls;
use crate::telemetry::LimitMetrics;

/// Says how many requests a caller may still make.
#[derive(Debug)]
pub(crate) struct RateLimit {
    counter: Counter,
    metrics: LimitMetrics,
}

/// How the limit stands, for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Who counts.
    pub(crate) mode: &'static str,
    /// Whether the store is away, where there is one.
    pub(crate) is_away: Option<bool>,
    /// Callers that are counted here, where they are.
    pub(crate) callers: Option<usize>,
}

/// Who counts.
#[derive(Debug)]
pub(crate) enum Counter {
    /// This node, for itself.
    Here(Limiter),
    /// Redis, for several nodes.
    Redis(Box<Shared>),
    /// Envoy's rate limit service, for whoever asks it.
    Rls(Box<Rls>),
}

/// What was decided about a request.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) allowed: bool,
    /// What is known of the limit, where one applies.
    pub(crate) verdict: Option<Verdict>,
    /// What else the answer is to say.
    pub(crate) headers: HeaderMap,
    pub(crate) retry_after: Duration,
}

impl From<Verdict> for Counted {
    fn from(verdict: Verdict) -> Self {
        Self {
            allowed: verdict.allowed,
            verdict: Some(verdict),
            headers: HeaderMap::new(),
            retry_after: verdict.retry_after,
        }
    }
}

/// A limit in Redis, and what ends its upkeep when it is dropped.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limiter: SharedLimiter<RedisStore>,
    /// Dropped with the limit.
    #[expect(dead_code, reason = "its other end waits for this to be dropped")]
    pub(crate) upkeep: oneshot::Sender<()>,
}

impl RateLimit {
    pub(crate) const fn new(counter: Counter, metrics: LimitMetrics) -> Self {
        Self { counter, metrics }
    }

    /// Counts a request, or says that there is nobody who may decide.
    pub(crate) async fn check(&self, asked: Requested<'_>) -> Result<Counted, LimitStoreAway> {
        let decided = match &self.counter {
            Counter::Here(limiter) => Ok((limiter.check(asked.peer, now()).into(), "node")),
            Counter::Redis(shared) => {
                let decided = shared.limiter.check(asked.peer, NonZeroU32::MIN).await;
                decided.map(|(verdict, by)| match by {
                    DecidedBy::LocalShare => (verdict.into(), "share"),
                    _ => (verdict.into(), "store"),
                })
            }
            Counter::Rls(rls) => by_service(rls.check(asked).await),
        };
        let (result, by) = match &decided {
            Ok((counted, by)) if counted.allowed => ("allowed", *by),
            Ok((_, by)) => ("limited", *by),
            Err(_) => ("unavailable", "nobody"),
        };
        self.metrics.decided((result, by));
        decided.map(|(counted, _)| counted)
    }

    /// How it stands.
    pub(crate) fn seen(&self) -> Seen {
        let (mode, is_away, callers) = match &self.counter {
            Counter::Here(limiter) => ("node", None, Some(limiter.keys())),
            Counter::Redis(shared) => {
                let limiter = &shared.limiter;
                ("redis", Some(limiter.is_away()), Some(limiter.keys()))
            }
            Counter::Rls(rls) => ("rls", Some(rls.is_away()), None),
        };
        Seen {
            mode,
            is_away,
            callers,
        }
    }

    /// Waits until a store has been reached, or has not: before the first request comes.
    pub(crate) async fn ready(&self) {
        if let Counter::Redis(shared) = &self.counter {
            shared.limiter.store().first_attempt().await;
        }
    }
}

/// What a rate limit service said, or what is done without it.
fn by_service(decision: Decision) -> Result<(Counted, &'static str), LimitStoreAway> {
    let by = match decision.decided_by {
        rls::DecidedBy::LocalShare => "share",
        rls::DecidedBy::Service => "store",
        _ if decision.allowed => "nobody",
        _ => return Err(LimitStoreAway::new(decision.retry_after)),
    };
    let counted = Counted {
        allowed: decision.allowed,
        verdict: decision.verdict,
        headers: decision.headers,
        retry_after: decision.retry_after,
    };
    Ok((counted, by))
}

/// Says to people how the store does.
pub(crate) struct Told {
    pub(crate) health: Arc<Board>,
    pub(crate) metrics: LimitMetrics,
    /// What is done while the store is away, for people.
    pub(crate) meanwhile: &'static str,
}

impl shared::Observe for Told {
    fn store_changed(&self, is_away: bool) {
        self.metrics.show_store(is_away);
        if is_away {
            tracing::warn!(
                meanwhile = self.meanwhile,
                "the store of the rate limit is away"
            );
            let message = format!("the store of the rate limit is away: {}", self.meanwhile);
            self.health.degraded(PART, message);
        } else {
            tracing::info!("the store of the rate limit is back");
            self.health.ok(PART);
        }
    }

    fn store_failed(&self, error: &BoxError) {
        self.metrics.store_failed();
        tracing::debug!(error = %chain(&**error), "the store of the rate limit gave no answer");
    }
}

const PART: &str = "rate_limit";
