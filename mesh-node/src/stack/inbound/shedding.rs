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
use mesh_resilience::shed::Permit;
use mesh_resilience::shed::Priority;
use mesh_resilience::shed::Shed;
use mesh_transport::Body;
use mesh_transport::body::Watch;

use crate::respond::Code;
use crate::respond::Refusal;
use crate::stack::inbound::Peer;
use crate::stack::now;

/// Marks a node's health check of this application. It is set by nodes only; an application's is dropped.
pub(crate) const X_MESH_CHECK: HeaderName = HeaderName::from_static("x-mesh-check");

/// The place of a call at the application, until its answer begins or nobody waits for it any more.
pub(crate) struct Place {
    permit: Option<Permit>,
    /// Whether the request's body was read to its end.
    body_ended: Arc<AtomicBool>,
    /// Whether the body is small, so that what the call takes is the application's time and not the caller's.
    tells: bool,
}

impl Place {
    /// Takes a place for `request`. Health checks of nodes always have one.
    pub(crate) fn take(
        shed: Option<&Shed>,
        peer: &Peer,
        request: Request<Body>,
    ) -> Result<(Self, Request<Body>), Refusal> {
        let is_check = peer.id.is_some()
            && request.method() == Method::GET
            && request.headers().contains_key(X_MESH_CHECK);
        let body_ended = Arc::new(AtomicBool::new(request.body().is_end_stream()));
        let size = request.body().size_hint().upper();
        let mut place = Self {
            permit: None,
            body_ended,
            tells: size.is_none_or(|most| most <= SMALL),
        };
        let Some(shed) = shed.filter(|_| !is_check) else {
            return Ok((place, request));
        };
        let permit = shed.try_acquire(Priority::Normal, now()).map_err(|over| {
            let message = "the application has more calls under way than it can answer in time";
            Refusal::new(Code::Overloaded, message).with_retry_after(over.retry_after)
        })?;
        place.permit = Some(permit);
        let ended = Ended(Arc::clone(&place.body_ended));
        let request = if request.body().is_end_stream() {
            request
        } else {
            request.map(|body| body.with_watch(Box::new(ended)))
        };
        Ok((place, request))
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
