//! A sealed body on its way in: records come out of gRPC messages, are opened, and give data and trailers.

use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http_body::Body as HttpBody;
use http_body::Frame;
use mesh_session::Flags;
use mesh_session::Opener;

use crate::body::Body;
use crate::error::BoxError;
use crate::session::frame::Decoder;
use crate::session::frame::FrameError;
use crate::session::head;
use crate::session::head::HeadError;

/// The stream of sealed records as it arrives.
pub(crate) struct Records {
    outer: Body,
    decoder: Decoder,
}

/// What one opened record holds.
pub(crate) struct Parts {
    pub(crate) head: Option<BytesMut>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) data: Bytes,
    pub(crate) is_end: bool,
}

/// The opened form of a body.
pub(crate) struct OpenedBody {
    records: Records,
    opener: Opener,
    data: Bytes,
    trailers: Option<HeaderMap>,
    is_end: bool,
}

impl Records {
    pub(crate) fn new(outer: Body) -> Self {
        Self {
            outer,
            decoder: Decoder::default(),
        }
    }

    /// The next sealed record, or `None` at the end of the stream.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<BytesMut>, BoxError>> {
        loop {
            if let Some(record) = self.decoder.next()? {
                return Poll::Ready(Ok(Some(record)));
            }
            match ready!(Pin::new(&mut self.outer).poll_frame(cx)).transpose()? {
                None if self.decoder.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(FrameError::Truncated.into())),
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.decoder.push(data);
                    }
                }
            }
        }
    }
}

/// Takes the blocks off the front of an opened record.
pub(crate) fn parts(flags: Flags, mut plain: BytesMut) -> Result<Parts, HeadError> {
    let head = if flags.contains(Flags::HEAD) {
        Some(block(&mut plain)?)
    } else {
        None
    };
    let trailers = if flags.contains(Flags::TRAILERS) {
        Some(head::trailers(&block(&mut plain)?)?)
    } else {
        None
    };
    Ok(Parts {
        head,
        trailers,
        data: plain.freeze(),
        is_end: flags.contains(Flags::END),
    })
}

fn block(plain: &mut BytesMut) -> Result<BytesMut, HeadError> {
    let (len, _) = plain.split_first_chunk::<4>().ok_or(HeadError)?;
    let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
    let mut rest = plain.split_off(4);
    if len > rest.len() {
        return Err(HeadError);
    }
    let block = rest.split_to(len);
    *plain = rest;
    Ok(block)
}

impl OpenedBody {
    /// The body whose first record, already opened, held `first`.
    pub(crate) fn body(records: Records, opener: Opener, first: Parts) -> Body {
        if first.is_end && first.trailers.is_none() {
            return Body::from(first.data);
        }
        let Parts {
            trailers,
            data,
            is_end,
            ..
        } = first;
        Body::boxed(Self {
            records,
            opener,
            data,
            trailers,
            is_end,
        })
    }
}

impl HttpBody for OpenedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            if !this.data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.data)))));
            }
            if let Some(trailers) = this.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            if this.is_end {
                return Poll::Ready(None);
            }
            let Some(mut record) = ready!(this.records.poll_next(cx))? else {
                // The stream ended, but nobody who holds the key said so (threat 25).
                return Poll::Ready(Some(Err(
                    "the sealed body was cut off before its end".into()
                )));
            };
            let flags = this.opener.open(&mut record)?;
            if flags.contains(Flags::HEAD) {
                return Poll::Ready(Some(Err(HeadError.into())));
            }
            let parts = parts(flags, record)?;
            this.data = parts.data;
            this.trailers = parts.trailers;
            this.is_end = parts.is_end;
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_end && self.data.is_empty() && self.trailers.is_none()
    }
}
