//! Load shedding before the application: the place that a call has there, and what is learnt from it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::Request;
use http::Response;
use http_body::Body as _;
use mesh_discovery::GrpcProbe;
use mesh_resilience::shed::Permit;
use mesh_resilience::shed::Priority;
use mesh_resilience::shed::Shed;
use mesh_resilience::shed::Snapshot;
use mesh_transport::Body;
use mesh_transport::body::Watch;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::respond::Code;
use crate::respond::Refusal;
use crate::stack::now;

/// Marks a node's health check of this application. It is set by nodes only; an application's is dropped.
pub(crate) const X_MESH_CHECK: HeaderName = HeaderName::from_static("x-mesh-check");

/// How many calls the application may have under way.
#[derive(Debug)]
pub(crate) struct Shedding {
    calls: Shed,
    /// The places that are kept for health checks of nodes.
    checks: Arc<Semaphore>,
}

/// The place of a call at the application, until its answer begins or nobody waits for it any more.
pub(crate) struct Place {
    permit: Option<Permit>,
    /// Where it is one of those kept for health checks.
    check: Option<OwnedSemaphorePermit>,
    /// Whether the request's body was read to its end.
    body_ended: Arc<AtomicBool>,
    /// Whether the body is small, so that what the call takes is the application's time and not the caller's.
    tells: bool,
}

impl Shedding {
    pub(crate) fn new(calls: Shed) -> Self {
        Self {
            calls,
            checks: Arc::new(Semaphore::new(MAX_CHECKS)),
        }
    }

    /// How the limit of calls stands.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.calls.snapshot()
    }
}

impl Place {
    /// Takes a place for `request`, which a node of a verified name sends or not.
    ///
    /// A few are kept for health checks of nodes, which so find out whether the application answers while it is busy. Any
    /// more of them count as calls, so that nobody can call it past its limit by calling that a check.
    pub(crate) fn take(
        shedding: Option<&Shedding>,
        is_node: bool,
        request: &Request<Body>,
    ) -> Result<Self, Refusal> {
        let size = request.body().size_hint().upper();
        let mut place = Self {
            permit: None,
            check: None,
            body_ended: Arc::new(AtomicBool::new(request.body().is_end_stream())),
            tells: size.is_none_or(|most| most <= SMALL),
        };
        let Some(shedding) = shedding else {
            return Ok(place);
        };
        if is_node
            && is_check(request)
            && let Ok(check) = Arc::clone(&shedding.checks).try_acquire_owned()
        {
            place.check = Some(check);
            return Ok(place);
        }
        let permit = shedding.calls.try_acquire(Priority::Normal, now());
        place.permit = Some(permit.map_err(|over| {
            let message = "the application has more calls under way than it can answer in time";
            Refusal::new(Code::Overloaded, message).with_retry_after(over.retry_after)
        })?);
        Ok(place)
    }

    /// Learns from `request`, which the place is for, when its body was read.
    pub(crate) fn watch(&self, request: Request<Body>) -> Request<Body> {
        if self.permit.is_none() || request.body().is_end_stream() {
            return request;
        }
        let ended = Ended(Arc::clone(&self.body_ended));
        request.map(|body| body.with_watch(Box::new(ended)))
    }

    /// The application's answer has begun.
    pub(crate) fn answered(mut self, response: &Response<Body>) {
        // One that answers before it has read all is a stream, whose time says nothing.
        let tells = self.tells && self.body_ended.load(Ordering::Relaxed);
        if let Some(permit) = self.permit.take().filter(|_| tells) {
            if response.status().is_success() {
                permit.answered(now());
            } else {
                permit.gave_up(now());
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let tells = self.tells && self.body_ended.load(Ordering::Relaxed);
        if let Some(permit) = self.permit.take().filter(|_| tells) {
            permit.gave_up(now());
        }
    }
}

/// Whether a node says that it asks for health: by a GET, or by the one call of gRPC's health protocol.
fn is_check(request: &Request<Body>) -> bool {
    let is_question = request.method() == Method::GET
        || (request.method() == Method::POST && request.uri().path() == GrpcProbe::PATH);
    is_question && request.headers().contains_key(X_MESH_CHECK)
}

/// Learns that a request body was read to its end.
struct Ended(Arc<AtomicBool>);

impl Watch for Ended {
    fn data(&mut self, _: usize) {}

    fn trailers(&mut self, _: &HeaderMap) {}

    fn end(&mut self, _: bool) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a body that comes in at once has at most, as for those that are kept for a retry.
const SMALL: u64 = 64 * 1024;
/// Health checks under way at once that take no call's place: they are answered in milliseconds, so hundreds of nodes that
/// check every few seconds need one or two.
const MAX_CHECKS: usize = 8;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use mesh_resilience::shed::ShedConfig;

    use super::*;

    // threat 44
    #[test]
    fn a_few_health_checks_pass_a_full_limit_and_a_flood_of_them_does_not() {
        let one = ShedConfig::default()
            .with_min_limit(NonZeroU32::MIN)
            .with_initial_limit(NonZeroU32::MIN)
            .with_max_limit(NonZeroU32::MIN);
        let shedding = Shedding::new(Shed::new(one).unwrap());
        let take = |is_node, check: bool| {
            let request = Request::get("/health");
            let request = if check {
                request.header(X_MESH_CHECK, "1")
            } else {
                request
            };
            let request = request.body(Body::empty()).unwrap();
            Place::take(Some(&shedding), is_node, &request)
        };
        let call = take(true, false).ok().unwrap();
        assert!(take(true, false).is_err());
        assert!(take(false, true).is_err(), "anybody can say that");
        let checks: Vec<Place> = (0..MAX_CHECKS)
            .map(|_| take(true, true).ok().unwrap())
            .collect();
        let refused = take(true, true).err().unwrap();
        assert_eq!(refused.code(), Code::Overloaded);
        drop(call);
        // One more counts as a call.
        let more = take(true, true).ok().unwrap();
        assert!(take(true, false).is_err());
        drop((checks, more));
        take(true, true).unwrap();
    }

    #[test]
    fn health_is_asked_for_by_get_or_by_the_call_of_grpc() {
        let asks = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path);
            let request = request.header(X_MESH_CHECK, "1").body(Body::empty());
            is_check(&request.unwrap())
        };
        assert!(asks("GET", "/health"));
        assert!(asks("POST", "/grpc.health.v1.Health/Check"));
        assert!(!asks("POST", "/payments"));
    }
}
