//! A request body that can be taken back as long as nobody has read from it.
//!
//! When a peer says goodbye just as a request is handed to its connection, the HTTP library drops the request and only
//! says that it was not sent. Whoever lent it the body still has it then, whole.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http_body::Body as HttpBody;
use http_body::Frame;
use http_body::SizeHint;
use parking_lot::Mutex;

use crate::body::Body;
use crate::error::BoxError;

/// The lender's end.
#[derive(Debug)]
pub(super) struct Lender(Arc<Mutex<Option<Body>>>);

/// The borrower's end: a body like the one that was lent.
struct Lent {
    slot: Arc<Mutex<Option<Body>>>,
    taken: Option<Body>,
    hint: SizeHint,
}

/// Lends `body`, which must not have ended.
pub(super) fn lend(body: Body) -> (Lender, Body) {
    let hint = body.size_hint();
    let slot = Arc::new(Mutex::new(Some(body)));
    let lent = Lent {
        slot: Arc::clone(&slot),
        taken: None,
        hint,
    };
    (Lender(slot), Body::boxed(lent))
}

impl Lender {
    /// The body, if nobody has read from it.
    pub(super) fn take_back(self) -> Option<Body> {
        self.0.lock().take()
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.taken.is_none() {
            this.taken = this.slot.lock().take();
        }
        match &mut this.taken {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(Some(Err("the body was taken back".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.taken.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.taken
            .as_ref()
            .map_or_else(|| self.hint, HttpBody::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_comes_back_until_it_is_read_from() {
        let (lender, lent) = lend(Body::from("hello"));
        assert_eq!(lent.size_hint().exact(), Some(5));
        drop(lent);
        let back = lender.take_back().unwrap();
        assert_eq!(back.collect().await.unwrap().to_bytes(), "hello");

        let (lender, mut lent) = lend(Body::from("hello"));
        let frame = lent.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "hello");
        assert!(lender.take_back().is_none());
    }
}
