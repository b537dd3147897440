//! An answer on its way to the caller while it is kept: what is read from the application does not wait for the caller.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use bytes::Bytes;
use http_body::Body as HttpBody;
use http_body::Frame;
use http_body::SizeHint;
use mesh_transport::Body;
use mesh_transport::BoxError;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The writing end. It must end with [`Self::end`]; dropped without, the answer has broken off.
pub(super) struct Tape(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    frames: VecDeque<Frame<Bytes>>,
    end: Option<End>,
    waker: Option<Waker>,
}

/// How the tape ends.
pub(super) enum End {
    Complete,
    Failed(BoxError),
    /// What is not kept passes on as it comes.
    Rest(Body),
}

/// The body that the caller reads.
struct Reader {
    state: Arc<Mutex<State>>,
    rest: Option<Body>,
    left: Option<u64>,
    is_over: bool,
    /// Tells the writing end when the caller is gone.
    _alive: oneshot::Receiver<()>,
}

impl Tape {
    /// A tape of an answer with that length, the body that reads it, and what tells when nobody does any more.
    pub(super) fn new(hint: &SizeHint) -> (Self, Body, oneshot::Sender<()>) {
        let state: Arc<Mutex<State>> = Arc::default();
        let (gone, alive) = oneshot::channel();
        let reader = Reader {
            state: Arc::clone(&state),
            rest: None,
            left: hint.exact(),
            is_over: false,
            _alive: alive,
        };
        (Self(state), Body::boxed(reader), gone)
    }

    pub(super) fn push(&self, frame: Frame<Bytes>) {
        let mut state = self.0.lock();
        state.frames.push_back(frame);
        state.wake();
    }

    pub(super) fn end(&self, end: End) {
        let mut state = self.0.lock();
        state.end = Some(end);
        state.wake();
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state
            .end
            .get_or_insert_with(|| End::Failed("the answer broke off".into()));
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl HttpBody for Reader {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(rest) = &mut this.rest {
            return Pin::new(rest).poll_frame(cx);
        }
        let mut state = this.state.lock();
        if let Some(frame) = state.frames.pop_front() {
            let len = frame.data_ref().map_or(0, Bytes::len) as u64;
            this.left = this.left.map(|left| left.saturating_sub(len));
            return Poll::Ready(Some(Ok(frame)));
        }
        match state.end.take() {
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(End::Rest(mut rest)) => {
                drop(state);
                let polled = Pin::new(&mut rest).poll_frame(cx);
                this.rest = Some(rest);
                polled
            }
            Some(End::Complete) => {
                state.end = Some(End::Complete);
                this.is_over = true;
                Poll::Ready(None)
            }
            Some(End::Failed(error)) => {
                // Asked again, it must not pass for a whole one.
                state.end = Some(End::Failed("the answer broke off".into()));
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.rest.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Some(rest) => rest.size_hint(),
            None => self
                .left
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn the_caller_reads_what_was_kept_and_then_the_rest() {
        let (tape, body, _gone) = Tape::new(&SizeHint::with_exact(5));
        assert_eq!(body.size_hint().exact(), Some(5));
        tape.push(Frame::data(Bytes::from_static(b"he")));
        let writing = async {
            tokio::task::yield_now().await;
            tape.push(Frame::data(Bytes::from_static(b"l")));
            tape.end(End::Rest(Body::from("lo")));
        };
        let (read, ()) = tokio::join!(body.collect(), writing);
        assert_eq!(read.unwrap().to_bytes(), "hello");
    }

    #[tokio::test]
    async fn a_tape_that_is_dropped_on_the_way_is_no_whole_answer_and_a_reader_that_is_gone_is_seen()
     {
        let (tape, mut body, mut gone) = Tape::new(&SizeHint::default());
        drop(tape);
        for _ in 0..2 {
            drop(body.frame().await.unwrap().unwrap_err());
        }
        drop(body);
        gone.closed().await;
    }
}
