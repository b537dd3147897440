//! A write on its way out: its id, and the one memory that may run it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::Response;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use mesh_resilience::once::Lease;
use mesh_resilience::once::MessageId;
use mesh_transport::Body;
use mesh_transport::BoxError;
use parking_lot::Mutex;
use sha2::Digest as _;
use sha2::Sha256;

use super::Asked;
use super::X_MESH_ONCE;
use super::X_MESH_ONCE_LEASE;
use crate::respond::Code;
use crate::respond::X_MESH_ERROR;
use crate::stack::endpoints::EndpointId;
use crate::stack::endpoints::Member;
use crate::stack::replay::MAX_KEPT_BYTES;

/// Gives writes their ids.
pub(crate) struct Writes {
    /// Random: ids of two nodes of one name, or of a node before and after a restart, never meet.
    start: [u8; 16],
    next: AtomicU64,
}

/// One write, shared by all its attempts.
pub(crate) struct Write {
    id: MessageId,
    way: Mutex<Way>,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    /// No attempt that may have run is out.
    Free,
    /// An attempt may have run: at this endpoint, under this lease. All others go there and say the same.
    Bound(EndpointId, Lease),
    /// Nobody remembers it.
    Unprotected,
}

/// An earlier attempt may have run, and the memory that would know is gone.
#[derive(Debug, thiserror::Error)]
#[error("the instance that it went to was started anew or has forgotten it")]
pub(crate) struct OutcomeUnknown;

impl Writes {
    pub(crate) fn new(start: [u8; 16]) -> Self {
        let next = AtomicU64::new(0);
        Self { start, next }
    }

    /// What makes a call one that can be sent again; nothing for one that is safe to repeat as it is.
    pub(crate) fn of(&self, head: &Parts) -> Option<Arc<Write>> {
        if head.method.is_idempotent() || head.method == Method::CONNECT {
            return None;
        }
        let id = key(&head.headers).unwrap_or_else(|| self.id());
        let way = Mutex::new(Way::Free);
        Some(Arc::new(Write { id, way }))
    }

    fn id(&self) -> MessageId {
        let mut id = [0; 32];
        let (start, rest) = id.split_at_mut(16);
        start.copy_from_slice(&self.start);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        rest.iter_mut()
            .zip(number.to_be_bytes())
            .for_each(|(to, byte)| *to = byte);
        MessageId::new(id)
    }
}

impl fmt::Debug for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writes").finish_non_exhaustive()
    }
}

impl Write {
    /// Whether sending it again, where [`Self::only`] says, runs it no second time.
    pub(crate) fn is_bound(&self) -> bool {
        matches!(*self.way.lock(), Way::Bound(..))
    }

    /// The only endpoint that knows what became of the attempts so far.
    pub(crate) fn only(&self) -> Option<EndpointId> {
        match *self.way.lock() {
            Way::Bound(endpoint, _) => Some(endpoint),
            Way::Free | Way::Unprotected => None,
        }
    }

    /// Marks an attempt that is about to go to `endpoint`; gives whether an earlier one may have run.
    pub(crate) fn begin(&self, endpoint: &Member, headers: &mut HeaderMap) -> bool {
        let mut way = self.way.lock();
        let (was_bound, lease) = match *way {
            Way::Bound(_, lease) => (true, Some(lease)),
            Way::Free => (false, endpoint.lease()),
            Way::Unprotected => {
                headers.remove(X_MESH_ONCE);
                return false;
            }
        };
        if let Some(lease) = lease {
            *way = Way::Bound(endpoint.id(), lease);
        }
        let asked = Asked { id: self.id, lease };
        if let Some(value) = asked.value() {
            headers.insert(X_MESH_ONCE, value);
        }
        was_bound
    }

    /// Takes in that the attempt did not run.
    pub(crate) fn did_not_run(&self, was_bound: bool) {
        let mut way = self.way.lock();
        if !was_bound && matches!(*way, Way::Bound(..)) {
            *way = Way::Free;
        }
    }

    /// Lets it go without memory: a lease is not to be had.
    pub(crate) fn give_up(&self) {
        *self.way.lock() = Way::Unprotected;
    }

    /// Takes in what the endpoint answered; `is_unprocessed` where it says that nothing ran. Gives the answer, and whether
    /// a repeat would get the same one; none where the endpoint has given a new lease to send the call again with.
    ///
    /// A small answer is awaited whole, so that one that breaks off on its way can be asked for again.
    pub(crate) async fn take(
        &self,
        endpoint: &Member,
        (was_bound, is_unprocessed): (bool, bool),
        mut response: Response<Body>,
    ) -> Result<Option<(Response<Body>, bool)>, BoxError> {
        let lease = response.headers_mut().remove(X_MESH_ONCE_LEASE);
        let lease = lease.and_then(|lease| lease.to_str().ok()?.parse().ok());
        let error = response.headers().get(X_MESH_ERROR);
        if let Some(lease) = lease {
            endpoint.keep_lease(Some(lease));
        }
        if is_unprocessed {
            let is_stale = error.is_some_and(|error| error == Code::StaleLease.as_str());
            if is_stale && lease.is_none() {
                // It remembers nothing now: the next call goes without.
                endpoint.keep_lease(None);
            }
            // It speaks of this attempt alone: an earlier one may still be on its way to the same memory.
            self.did_not_run(was_bound);
            return match (is_stale, was_bound) {
                (true, true) => Err(OutcomeUnknown.into()),
                (true, false) => Ok(None),
                (false, _) => Ok(Some((response, false))),
            };
        }
        if lease.is_none() {
            if self.is_bound() && error.is_some() {
                // Of the node and not of its memory: it stopped waiting, or can't record; the call may have run.
                return Ok(Some((response, false)));
            }
            if was_bound {
                // A node that knows nothing of the lease has run it, perhaps for the second time.
                return Err(OutcomeUnknown.into());
            }
            // It ran where nothing is remembered.
            self.give_up();
            return Ok(Some((response, false)));
        }
        Ok(Some((whole(response).await?, true)))
    }
}

/// The same answer, in memory where it is small.
async fn whole(response: Response<Body>) -> Result<Response<Body>, BoxError> {
    let size = response.body().size_hint().exact();
    if response.body().is_end_stream() || size.is_none_or(|size| size > MAX_KEPT_BYTES) {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    let body = body.collect().await?;
    let body = if body.trailers().is_some() {
        Body::boxed(body.map_err(|never| match never {}))
    } else {
        Body::from(body.to_bytes())
    };
    Ok(Response::from_parts(head, body))
}

/// The id that an application's own key makes; nothing for one that is none, or too long.
fn key(headers: &HeaderMap) -> Option<MessageId> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let is_usable = (1..=MAX_KEY).contains(&value.len());
    is_usable.then(|| MessageId::new(Sha256::digest(value).into()))
}

/// IETF draft-ietf-httpapi-idempotency-key-header-07, section 2.1.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// As Stripe's, the widest in use.
const MAX_KEY: usize = 255;
