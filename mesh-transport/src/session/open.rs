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
use http_body::SizeHint;
use http_body_util::BodyExt;
use mesh_session::Flags;
use mesh_session::Opener;
use mesh_session::Sealer;
use mesh_session::SessionId;
use mesh_session::session_id_of;

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
    /// The last record is opened, and the stream behind it not yet read to its end.
    is_ending: bool,
    /// What is still to come, beyond `data`.
    length: Length,
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
            if !ready!(self.poll_more(cx))? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// The session that the next record says it belongs to, as soon as its front is there, or `None` at the end of the
    /// stream. The record stays.
    pub(crate) fn poll_session(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<SessionId>, BoxError>> {
        loop {
            if let Some(front) = self.decoder.front(SHORTEST_RECORD)? {
                return Poll::Ready(Ok(Some(session_id_of(front)?)));
            }
            if !ready!(self.poll_more(cx))? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Reads more of the stream; `false` where it ended after a whole record.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BoxError>> {
        match ready!(Pin::new(&mut self.outer).poll_frame(cx)).transpose()? {
            None if self.decoder.is_empty() => Poll::Ready(Ok(false)),
            None => Poll::Ready(Err(FrameError::Truncated.into())),
            Some(frame) => {
                if let Ok(data) = frame.into_data() {
                    self.decoder.push(data);
                }
                Poll::Ready(Ok(true))
            }
        }
    }

    /// Lets the rest of the record that has begun pass by and holds none of it, for the reason that
    /// [`poll_end`](Self::poll_end) has.
    pub(crate) async fn skip(&mut self) {
        let mut missing = self.decoder.give_up();
        while missing > 0 {
            let Some(Ok(frame)) = self.outer.frame().await else {
                break;
            };
            missing = missing.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    }

    /// Reads on to the end of the stream behind the last record, past gRPC's status.
    ///
    /// Who drops a stream before its end has it reset, and after a thousand resets that cross with frames underway the
    /// library gives up the connection, and with it all that other requests have on it.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.outer.is_end_stream() {
            match ready!(Pin::new(&mut self.outer).poll_frame(cx)) {
                Some(Ok(frame)) if frame.data_ref().is_none_or(Bytes::is_empty) => {}
                // All that counts is there and authentic; whatever goes wrong behind it changes nothing.
                _ => break,
            }
        }
        Poll::Ready(())
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

/// How long a body will be by its own head.
///
/// Inside a session nobody but us compares `Content-Length` with what really comes, and the library writes it to an
/// HTTP/1.1 connection as it stands: a length that lies would leave bytes there that the next reader takes for a
/// message (request smuggling, response splitting; threat 13).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Length {
    /// It may be of any length.
    Any,
    /// It must be of exactly this length.
    Exactly(u64),
}

impl Length {
    /// What `headers` say, freed of what is not theirs to say.
    pub(crate) fn of(headers: &mut HeaderMap) -> Result<Self, HeadError> {
        headers.remove(http::header::TRANSFER_ENCODING);
        let mut given = headers.get_all(http::header::CONTENT_LENGTH).iter();
        let (first, second) = (given.next(), given.next());
        let Some(length) = first else {
            return Ok(Self::Any);
        };
        let digits = length
            .to_str()
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let length = digits
            .and_then(|digits| digits.parse().ok())
            .ok_or(HeadError)?;
        if second.is_some() {
            Err(HeadError)
        } else {
            Ok(Self::Exactly(length))
        }
    }

    /// Takes `len` bytes off, or refuses more than there should be.
    fn take(&mut self, len: usize) -> Result<(), HeadError> {
        match self {
            Self::Any => Ok(()),
            Self::Exactly(left) => {
                *left = left.checked_sub(len as u64).ok_or(HeadError)?;
                Ok(())
            }
        }
    }

    /// Whether the body may end here.
    fn is_met(self) -> bool {
        !matches!(self, Self::Exactly(left) if left > 0)
    }
}

impl OpenedBody {
    /// The body whose first record, already opened, held `first`, and which must be as long as `length` says.
    pub(crate) fn body(
        records: Records,
        opener: Opener,
        first: Parts,
        mut length: Length,
    ) -> Result<Body, HeadError> {
        length.take(first.data.len())?;
        if first.is_end && !length.is_met() {
            return Err(HeadError);
        }
        if first.is_end && first.trailers.is_none() {
            return Ok(Body::from(first.data));
        }
        let Parts {
            trailers,
            data,
            is_end,
            ..
        } = first;
        Ok(Body::boxed(Self {
            records,
            opener,
            data,
            trailers,
            is_end,
            is_ending: is_end,
            length,
        }))
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
            if this.is_ending {
                // Before the last frame is given: nobody asks again after that.
                ready!(this.records.poll_end(cx));
                this.is_ending = false;
            }
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
            this.length.take(parts.data.len())?;
            if parts.is_end && !this.length.is_met() {
                return Poll::Ready(Some(Err(HeadError.into())));
            }
            this.data = parts.data;
            this.trailers = parts.trailers;
            this.is_end = parts.is_end;
            this.is_ending = parts.is_end;
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_end && self.data.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Length::Exactly(left) => SizeHint::with_exact(left + self.data.len() as u64),
            Length::Any => SizeHint::default(),
        }
    }
}

/// No record is shorter, and this much of one names its session.
const SHORTEST_RECORD: usize = Sealer::HEADER_ROOM + Sealer::TRAILER_ROOM;
