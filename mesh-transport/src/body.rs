//! The one body type that every request and response of the data path carries.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as HttpBody;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;

use crate::app::Lease;
use crate::error::BoxError;

/// A streamed body: never collected, its frames pass one at a time under the flow control of both sides.
///
/// It may carry a [`Watch`], which sees the frames go by and learns how the body ended.
pub struct Body {
    kind: Kind,
    lease: Option<Lease>,
    watch: Option<Box<dyn Watch>>,
    trailer_rule: Option<fn(&mut HeaderMap)>,
}

/// Sees a body go by. Dropped when the body is gone, ended or not.
pub trait Watch: Send + Sync {
    /// A data frame of `len` bytes passed.
    fn data(&mut self, len: usize);
    /// Trailers passed.
    fn trailers(&mut self, trailers: &HeaderMap);
    /// The body ended: `true` when its end was reached, `false` when it failed. Called at most once; a body
    /// that is dropped before its end only drops the watch.
    fn end(&mut self, complete: bool);
}

enum Kind {
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    Boxed(Pin<Box<dyn HttpBody<Data = Bytes, Error = BoxError> + Send + Sync>>),
    #[cfg_attr(
        not(feature = "session"),
        expect(dead_code, reason = "only sealing wraps a body")
    )]
    Wrapped(Box<dyn Wrap>),
}

/// A body that is made of another one, and can give that back as long as nothing was taken.
pub(crate) trait Wrap:
    HttpBody<Data = Bytes, Error = BoxError> + Send + Sync + Unpin
{
    #[cfg_attr(
        not(feature = "session"),
        expect(dead_code, reason = "only sealing wraps a body")
    )]
    fn untouched(self: Box<Self>) -> Option<Body>;
}

impl Body {
    /// A body without bytes.
    pub fn empty() -> Self {
        Self::from_kind(Kind::Empty)
    }

    /// Any other body, boxed.
    pub fn boxed<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error = BoxError> + Send + Sync + 'static,
    {
        Self::from_kind(Kind::Boxed(Box::pin(body)))
    }

    #[cfg(feature = "session")]
    pub(crate) fn wrapped(body: Box<dyn Wrap>) -> Self {
        Self::from_kind(Kind::Wrapped(body))
    }

    /// The body that this one is made of, where nothing was taken of either.
    #[cfg(feature = "session")]
    pub(crate) fn unwrapped(self) -> Option<Self> {
        match self.kind {
            Kind::Wrapped(body) => body.untouched(),
            _ => None,
        }
    }

    fn from_kind(kind: Kind) -> Self {
        Self {
            kind,
            lease: None,
            watch: None,
            trailer_rule: None,
        }
    }

    pub(crate) fn with_lease(mut self, lease: Lease) -> Self {
        if self.is_end_stream() {
            lease.give_back();
        } else {
            self.lease = Some(lease);
        }
        self
    }

    /// Attaches a watch; of several, the last one set sees the body.
    #[must_use]
    pub fn with_watch(mut self, mut watch: Box<dyn Watch>) -> Self {
        if self.is_end_stream() {
            watch.end(true);
        } else {
            self.watch = Some(watch);
        }
        self
    }

    /// Passes trailers through `rule` on their way, which may take fields out.
    #[must_use]
    pub fn with_trailer_rule(mut self, rule: fn(&mut HeaderMap)) -> Self {
        self.trailer_rule = Some(rule);
        self
    }

    /// A copy of this body, where that costs nothing: for an empty one and one that is held whole.
    pub fn try_clone(&self) -> Option<Self> {
        match &self.kind {
            Kind::Empty => Some(Self::empty()),
            Kind::Full(bytes) => Some(Self::from(bytes.clone())),
            Kind::Incoming(body) if body.is_end_stream() => Some(Self::empty()),
            Kind::Incoming(_) | Kind::Boxed(_) | Kind::Wrapped(_) => None,
        }
    }

    fn finish(&mut self, complete: bool) {
        if let Some(lease) = self.lease.take()
            && complete
        {
            lease.give_back();
        }
        if let Some(mut watch) = self.watch.take() {
            watch.end(complete);
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Incoming(_) => "incoming",
            Kind::Boxed(_) => "boxed",
            Kind::Wrapped(_) => "wrapped",
        };
        f.debug_struct("Body")
            .field("kind", &kind)
            .finish_non_exhaustive()
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Incoming> for Body {
    fn from(body: Incoming) -> Self {
        Self::from_kind(Kind::Incoming(body))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::from_kind(if bytes.is_empty() {
            Kind::Empty
        } else {
            Kind::Full(bytes)
        })
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::from(Bytes::from_static(text.as_bytes()))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut polled = match &mut this.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                Poll::Ready(Some(
                    Ok::<_, Infallible>(Frame::data(bytes)).map_err(BoxError::from),
                ))
            }
            Kind::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
            Kind::Boxed(body) => body.as_mut().poll_frame(cx),
            Kind::Wrapped(body) => Pin::new(&mut **body).poll_frame(cx),
        };
        if let (Some(rule), Poll::Ready(Some(Ok(frame)))) = (this.trailer_rule, &mut polled)
            && let Some(trailers) = frame.trailers_mut()
        {
            rule(trailers);
        }
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(watch) = &mut this.watch {
                    if let Some(data) = frame.data_ref() {
                        watch.data(data.len());
                    } else if let Some(trailers) = frame.trailers_ref() {
                        watch.trailers(trailers);
                    }
                }
                // A consumer that trusts `is_end_stream` never polls for the `None`.
                if (this.lease.is_some() || this.watch.is_some()) && this.is_end_stream() {
                    this.finish(true);
                }
            }
            Poll::Ready(None) => this.finish(true),
            Poll::Ready(Some(Err(_))) => this.finish(false),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Incoming(body) => body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
            Kind::Wrapped(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(body) => body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
            Kind::Wrapped(body) => body.size_hint(),
        }
    }
}
