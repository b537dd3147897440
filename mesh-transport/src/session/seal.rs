//! A plain body on its way out: each frame becomes a sealed record in a gRPC message.

use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Buf;
use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http_body::Body as HttpBody;
use http_body::Frame;
use mesh_session::Flags;
use mesh_session::Sealer;

use crate::body::Body;
use crate::body::Wrap;
use crate::error::BoxError;
use crate::session::frame;
use crate::session::head;

/// Which side of the exchange a body is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Request,
    Answer,
}

/// The sealed form of a body, its head in the first record.
pub(crate) struct SealedBody {
    inner: Body,
    sealer: Sealer,
    side: Side,
    head: Option<BytesMut>,
    /// Data of a frame that was too large for one record.
    rest: Bytes,
    state: State,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum State {
    Open,
    /// END is sealed; an answer still owes gRPC its status.
    Sealed,
    Done,
}

impl SealedBody {
    /// `head` is the encoded head of the request or answer that `inner` belongs to.
    pub(crate) fn new(side: Side, head: BytesMut, inner: Body, sealer: Sealer) -> Self {
        Self {
            inner,
            sealer,
            side,
            head: Some(head),
            rest: Bytes::new(),
            state: State::Open,
        }
    }

    fn record(
        &mut self,
        flags: Flags,
        trailers: Option<&HeaderMap>,
        data: &[u8],
    ) -> Result<Bytes, BoxError> {
        let head = self.head.take();
        let flags = if head.is_some() {
            flags | Flags::HEAD
        } else {
            flags
        };
        let mut tail = BytesMut::new();
        if let Some(trailers) = trailers {
            head::put_trailers(&mut tail, trailers)?;
        }
        let blocks = head
            .iter()
            .map(|head| head.len() + BLOCK_PREFIX)
            .sum::<usize>();
        let tail_len = if trailers.is_some() {
            tail.len() + BLOCK_PREFIX
        } else {
            0
        };
        let plain = blocks + tail_len + data.len();
        let sealed = plain + OVERHEAD;

        let prefix = frame::prefix_len(sealed);
        let mut message = BytesMut::with_capacity(prefix + sealed);
        frame::put_prefix(&mut message, sealed);
        // Sealed where it will be sent from: the record is split off, sealed in place and joined again, both for free.
        let mut record = message.split_off(prefix);
        record.put_bytes(0, Sealer::HEADER_ROOM);
        for block in head.iter().chain(trailers.map(|_| &tail)) {
            record.put_u32(u32::try_from(block.len())?);
            record.put_slice(block);
        }
        record.put_slice(data);
        self.sealer.seal(flags, &mut record)?;
        message.unsplit(record);
        if flags.contains(Flags::END) {
            self.state = State::Sealed;
        }
        Ok(message.freeze())
    }

    fn data(&mut self, mut data: Bytes) -> Result<Bytes, BoxError> {
        let now = data.split_to(data.len().min(MAX_RECORD_DATA));
        self.rest = data;
        let is_last = self.rest.is_empty() && self.inner.is_end_stream();
        self.record(if is_last { Flags::END } else { Flags::NONE }, None, &now)
    }

    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, BoxError>> {
        if self.rest.has_remaining() {
            let rest = std::mem::take(&mut self.rest);
            return Poll::Ready(self.data(rest));
        }
        loop {
            let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
                // The head does not wait for the first byte of a body that is slow to come.
                Poll::Pending if self.head.is_some() => {
                    return Poll::Ready(self.record(Flags::NONE, None, &[]));
                }
                pending_or_frame => ready!(pending_or_frame).transpose()?,
            };
            let Some(frame) = frame else {
                return Poll::Ready(self.record(Flags::END, None, &[]));
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() && !self.inner.is_end_stream() => {}
                Ok(data) => return Poll::Ready(self.data(data)),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(self.record(
                            Flags::END | Flags::TRAILERS,
                            Some(&trailers),
                            &[],
                        ));
                    }
                }
            }
        }
    }
}

impl HttpBody for SealedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match (this.state, this.side) {
            (State::Open, _) => {
                let record = ready!(this.poll_record(cx));
                if record.is_err() {
                    this.state = State::Done;
                }
                Poll::Ready(Some(record.map(Frame::data)))
            }
            (State::Sealed, Side::Answer) => {
                this.state = State::Done;
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            (State::Sealed, Side::Request) | (State::Done, _) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.side {
            Side::Request => self.state != State::Open,
            Side::Answer => self.state == State::Done,
        }
    }
}

impl Wrap for SealedBody {
    fn untouched(self: Box<Self>) -> Option<Body> {
        // The head goes with the first record, and the body is asked only after that record was wanted.
        (self.state == State::Open && self.head.is_some()).then_some(self.inner)
    }
}

/// What sealing adds to the plaintext.
const OVERHEAD: usize = Sealer::HEADER_ROOM + Sealer::TRAILER_ROOM;
/// Each head and trailer block is preceded by its length.
pub(crate) const BLOCK_PREFIX: usize = 4;
/// The most data in one record: large enough that its fixed cost does not show, small enough to stream.
const MAX_RECORD_DATA: usize = 64 * 1024;
