//! The way of a call through the layers that keep it alive, and the state that all calls on one way share.
//!
//! Its layers are those of the table in [`outbound`](super::outbound) from the timeout on.

mod seen;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh_resilience::breaker::Breaker;
use mesh_resilience::breaker::BreakerLayer;
use mesh_resilience::breaker::BreakerService;
use mesh_resilience::bulkhead::Bulkhead;
use mesh_resilience::bulkhead::BulkheadLayer;
use mesh_resilience::bulkhead::BulkheadService;
use mesh_resilience::bulkhead::Permit;
use mesh_resilience::hedge::Hedge;
use mesh_resilience::hedge::HedgeLayer;
use mesh_resilience::hedge::HedgeService;
use mesh_resilience::retry::Budget;
use mesh_resilience::retry::Retry;
use mesh_resilience::retry::RetryLayer;
use mesh_resilience::timeout::Timeout;
use mesh_resilience::timeout::TimeoutLayer;
use mesh_resilience::timeout::Total;
use mesh_transport::BoxError;
use tower::ServiceExt as _;
use tower_layer::Layer as _;

pub(crate) use self::seen::Seen;

use crate::stack::endpoints::Endpoints;
use crate::stack::send::Answer;
use crate::stack::send::Judge;
use crate::stack::send::OutboundCall;
use crate::stack::send::Send;

type Hold = fn(Permit, Answer) -> Answer;
type Attempt = BreakerService<Timeout<BulkheadService<Send, Hold>, Total>, Judge>;
type Stack<S> = Timeout<Retry<S, Judge>, Total>;

/// One way to a service: its layers, put together.
pub(crate) struct Lane {
    pub(crate) breaker: Breaker,
    /// What people see of it.
    pub(crate) seen: Seen,
    /// How long a call may take, all attempts together.
    pub(crate) total: Duration,
    stack: Stack<Attempt>,
    /// The same for calls that are sent a second time where they are slow.
    hedged: Option<Stack<HedgeService<Attempt, Judge>>>,
}

/// Something of a service for each of some routes.
#[derive(Debug)]
pub(crate) struct ByRoute<T>(Box<[(usize, T)]>);

impl<T> ByRoute<T> {
    /// Each with its route's place.
    pub(crate) fn new(mut list: Vec<(usize, T)>) -> Self {
        list.sort_unstable_by_key(|(route, _)| *route);
        Self(list.into())
    }

    /// That of a route.
    pub(crate) fn of(&self, route: usize) -> Option<&T> {
        let at = self.0.binary_search_by_key(&route, |(route, _)| *route);
        self.0.get(at.ok()?).map(|(_, found)| found)
    }

    /// All of them, in the order of the routes.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, found)| found)
    }
}

/// The layers of a lane. What two lanes share is one state for both: a clone of it.
#[derive(Clone)]
pub(crate) struct Layers {
    /// That of `timeout`.
    pub(crate) total: Duration,
    pub(crate) timeout: TimeoutLayer<Total>,
    /// It says when the attempt is over, so that an endpoint that lets it pass is known to have failed.
    pub(crate) attempt_timeout: TimeoutLayer<Total>,
    pub(crate) retry: RetryLayer<Judge>,
    /// That of the retries, which second calls are taken out of too.
    pub(crate) budget: Budget,
    pub(crate) hedge: Option<Hedge>,
    pub(crate) breaker: Breaker,
    pub(crate) bulkhead: Bulkhead,
}

impl Lane {
    /// The way through `layers`, of which people see what `seen` says.
    pub(crate) fn new(layers: &Layers, endpoints: Arc<Endpoints>, seen: Seen) -> Self {
        let hold: Hold = |permit, answer| Answer {
            permit: Some(permit),
            ..answer
        };
        let send = Send::new(endpoints);
        let bulkhead = BulkheadLayer::holding(layers.bulkhead.clone(), hold).layer(send);
        let attempt = layers.attempt_timeout.layer(bulkhead);
        let breaker = BreakerLayer::new(layers.breaker.clone(), Judge).layer(attempt);
        let hedged = layers.hedge.clone().map(|hedge| {
            let hedged = HedgeLayer::new(hedge, Judge).layer(breaker.clone());
            layers.timeout.layer(layers.retry.layer(hedged))
        });
        let stack = layers.timeout.layer(layers.retry.layer(breaker));
        Self {
            breaker: layers.breaker.clone(),
            seen,
            total: layers.total,
            stack,
            hedged,
        }
    }

    /// Sends a call through all layers.
    pub(crate) async fn send(&self, call: OutboundCall) -> Result<Answer, BoxError> {
        match &self.hedged {
            // Boxed: it is rare, and must not make every call larger.
            Some(hedged) if call.may_run_twice_at_once() => {
                Box::pin(hedged.clone().oneshot(call)).await
            }
            _ => self.stack.clone().oneshot(call).await,
        }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}
