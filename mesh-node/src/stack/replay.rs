//! A small request body that can be sent again: what is read from it is kept until the call is over.
//!
//! Only bodies whose length is known beforehand and small are kept, so a call that streams is never held in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use http_body::Body as HttpBody;
use http_body::Frame;
use http_body::SizeHint;
use mesh_transport::Body;
use mesh_transport::BoxError;
use parking_lot::Mutex;

/// Makes a body that can be read several times, one reader after the other, if `body` is small enough.
pub(crate) fn replayable(body: Body) -> Result<Replay, Body> {
    let is_small = body
        .size_hint()
        .upper()
        .is_some_and(|most| most <= MAX_KEPT_BYTES);
    if body.is_end_stream() || !is_small {
        return Err(body);
    }
    let hint = body.size_hint();
    let source = Source {
        body,
        kept: Vec::new(),
        is_over: false,
        is_broken: false,
        made: 0,
        reading: 0,
    };
    Ok(Replay {
        source: Arc::new(Mutex::new(source)),
        hint,
    })
}

/// A body of which readers can be made.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    source: Arc<Mutex<Source>>,
    hint: SizeHint,
}

#[derive(Debug)]
struct Source {
    body: Body,
    kept: Vec<Bytes>,
    is_over: bool,
    is_broken: bool,
    made: u64,
    /// The newest reader that has begun to read; an older one, whose attempt is failing, must not take its wake-ups.
    reading: u64,
}

/// Reads what was kept, and then what is still to come.
struct Reader {
    source: Arc<Mutex<Source>>,
    number: u64,
    next: usize,
    left: Option<u64>,
    is_over: bool,
}

impl Replay {
    /// A reader from the first byte on. Once it is read from, earlier readers fail.
    pub(crate) fn body(&self) -> Body {
        let mut source = self.source.lock();
        source.made += 1;
        Body::boxed(Reader {
            source: Arc::clone(&self.source),
            number: source.made,
            next: 0,
            left: self.hint.exact(),
            is_over: false,
        })
    }

    /// The whole body, apart from its readers, once one of them has read all of it.
    pub(crate) fn whole(&self) -> Option<Body> {
        let source = self.source.lock();
        if !source.is_over {
            return None;
        }
        Some(Body::from(match source.kept.as_slice() {
            [all] => all.clone(),
            pieces => Bytes::from(pieces.concat()),
        }))
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
        let mut source = this.source.lock();
        if source.reading > this.number {
            return Poll::Ready(Some(Err("the body is read by a later attempt".into())));
        }
        source.reading = this.number;
        loop {
            if let Some(kept) = source.kept.get(this.next) {
                let data = kept.clone();
                this.next += 1;
                this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                this.is_over = source.is_over && this.next == source.kept.len();
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if source.is_over {
                this.is_over = true;
                return Poll::Ready(None);
            }
            if source.is_broken {
                return Poll::Ready(Some(Err("the body broke off before its end".into())));
            }
            match ready!(Pin::new(&mut source.body).poll_frame(cx)) {
                None => source.is_over = true,
                Some(Err(error)) => {
                    // Asked again, a broken body may say that it is over; it must not pass for a whole one.
                    source.is_broken = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => {
                    // A body of known length has no trailers in HTTP/1.1, and none that matter in HTTP/2.
                    if let Ok(data) = frame.into_data() {
                        source.kept.push(data);
                        source.is_over = source.body.is_end_stream();
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Most calls with a body fit; a hundred at a time cost 6 MiB.
pub(crate) const MAX_KEPT_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_small_body_is_read_again_from_wherever_the_last_reader_stopped() {
        let replay = replayable(Body::from("hello")).unwrap();
        let mut first = replay.body();
        assert_eq!(first.size_hint().exact(), Some(5));
        assert_eq!(
            first.frame().await.unwrap().unwrap().into_data().unwrap(),
            "hello"
        );
        assert!(first.is_end_stream());
        let late = replay.body();
        for _ in 0..2 {
            let again = replay.body();
            assert_eq!(again.size_hint().exact(), Some(5));
            assert_eq!(again.collect().await.unwrap().to_bytes(), "hello");
        }
        drop(late.collect().await.unwrap_err());
    }

    #[tokio::test]
    async fn a_body_that_was_read_is_there_whole_and_leaves_its_readers_alone() {
        let replay = replayable(Body::from("hello")).unwrap();
        assert!(replay.whole().is_none());
        let mut reader = replay.body();
        let first = reader.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "hello");
        let whole = replay.whole().unwrap();
        assert_eq!(whole.collect().await.unwrap().to_bytes(), "hello");
        assert!(reader.frame().await.is_none());
    }

    #[test]
    fn what_is_large_or_empty_is_not_kept() {
        let most = usize::try_from(MAX_KEPT_BYTES).unwrap();
        drop(replayable(Body::from(Bytes::from(vec![0; most]))).unwrap());
        drop(replayable(Body::from(Bytes::from(vec![0; most + 1]))).unwrap_err());
        drop(replayable(Body::empty()).unwrap_err());
    }
}
