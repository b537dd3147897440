//! Copies of calls, whose answers are dropped.
//!
//! A copy is made when the call's own answer has begun, so it can't slow the call, and only of a call whose body is kept for
//! another attempt anyway: none, or at most 64 KiB of known length that was read to its end. It goes out once, through a breaker
//! of its own, with a limit of time and a bound on how many are under way; where it can't, it is dropped and counted. It carries
//! `x-mesh-mirrored: 1`, which an application can't send by itself, and which the other node shows its own; host and path stay,
//! so that the other side's policy and application decide about it as about the call itself. No endpoint is ejected for what
//! becomes of copies.
//!
//! # Sources
//!
//! - Envoy, `RouteAction.request_mirror_policies` ("shadowing", fire and forget). It adds `-shadow` to the host instead of a
//!   header, which a policy by host would have to know of.

use std::fmt;
use std::marker;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;
use http_body_util::BodyExt as _;
use mesh_resilience::breaker::Breaker;
use mesh_resilience::breaker::BreakerLayer;
use mesh_resilience::breaker::BreakerService;
use mesh_resilience::timeout::Timeout;
use mesh_resilience::timeout::TimeoutLayer;
use mesh_transport::Body;
use mesh_transport::BoxError;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;
use tower_layer::Layer as _;

use crate::stack::endpoints::Endpoints;
use crate::stack::send::Judge;
use crate::stack::send::OutboundCall;
use crate::stack::send::Send;

/// On a copy, between nodes and to the application that gets it.
pub(crate) const X_MESH_MIRRORED: HeaderName = HeaderName::from_static("x-mesh-mirrored");
/// What it says.
pub(super) const MIRRORED: HeaderValue = HeaderValue::from_static("1");

/// The way of copies to a service.
#[derive(Clone)]
pub(crate) struct CopyLane {
    stack: BreakerService<Timeout<Send>, Judge>,
}

impl CopyLane {
    pub(crate) fn new(timeout: TimeoutLayer, breaker: Breaker, endpoints: Arc<Endpoints>) -> Self {
        let attempt = timeout.layer(Send::new(endpoints));
        Self {
            stack: BreakerLayer::new(breaker, Judge).layer(attempt),
        }
    }

    /// Sends a copy and drops its answer, which is read for a while so that its connection can be used again.
    async fn send(self, copy: OutboundCall) -> Result<(), BoxError> {
        let answer = self.stack.oneshot(copy).await?;
        drain(answer.response.into_body()).await
    }
}

impl fmt::Debug for CopyLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyLane").finish_non_exhaustive()
    }
}

/// How many copies of a route are under way, and how long each may take.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    places: Arc<Semaphore>,
    timeout: Duration,
}

impl Bounds {
    pub(super) fn new(most: usize, timeout: Duration) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            timeout,
        }
    }

    /// What sends `copy`, to be run by itself; nothing where too many are under way. Gives whether it was answered.
    pub(super) fn send(
        &self,
        lane: impl Future<Output = Option<CopyLane>> + marker::Send + 'static,
        copy: OutboundCall,
    ) -> Option<impl Future<Output = bool> + marker::Send + 'static> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let timeout = self.timeout;
        Some(async move {
            let sending = async {
                match lane.await {
                    Some(lane) => lane.send(copy).await,
                    None => Err("no service of that name is known".into()),
                }
            };
            let sent = tokio::time::timeout(timeout, sending).await;
            drop(place);
            let error = match sent {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => error,
                Err(elapsed) => elapsed.into(),
            };
            tracing::debug!(
                error = &*error as &dyn std::error::Error,
                "a copy of a call was not answered"
            );
            false
        })
    }
}

async fn drain(mut body: Body) -> Result<(), BoxError> {
    let mut left = MAX_DRAINED_BYTES;
    while let Some(frame) = body.frame().await {
        let len = frame?.data_ref().map_or(0, bytes::Bytes::len);
        let Some(rest) = left.checked_sub(len) else {
            break;
        };
        left = rest;
    }
    Ok(())
}

/// Beyond this a new connection costs less than reading on.
const MAX_DRAINED_BYTES: usize = 1024 * 1024;
