//! Calling one service from inside the program.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::Uri;
use http::header;
use http_body::Frame;
use http_body::SizeHint;
use http_body_util::BodyExt;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use mesh_transport::Body;
use mesh_transport::BoxError;
use mesh_transport::drain::Drain;
use mesh_transport::drain::DrainSignal;
use mesh_transport::drain::Phase;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::CallError;
use crate::node::Shared;
use crate::respond::X_MESH_ERROR;
use crate::stack::outbound::To;

/// Calls one service through the node that is part of this program. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// Looked up at each call: a service that nobody called for a while is forgotten, and another one of that name made.
    name: Arc<str>,
    host: HeaderValue,
    calls: Arc<DrainSignal>,
    max_answer_bytes: usize,
}

impl Client {
    pub(super) fn new(
        shared: Arc<Shared>,
        name: Arc<str>,
        calls: Arc<DrainSignal>,
        max_answer_bytes: usize,
    ) -> Result<Self, CallError> {
        let host = HeaderValue::try_from(&*name)
            .map_err(|source| CallError::bad_input(name.to_string(), source))?;
        Ok(Self {
            shared,
            name,
            host,
            calls,
            max_answer_bytes,
        })
    }

    /// The service that it calls.
    pub fn service(&self) -> &str {
        &self.name
    }

    /// The same client with another limit for answers, in bytes; see
    /// [`Builder::with_max_answer_bytes`](super::Builder::with_max_answer_bytes).
    #[must_use]
    pub fn with_max_answer_bytes(mut self, bytes: usize) -> Self {
        self.max_answer_bytes = bytes;
        self
    }

    /// Calls `method` with `input` and waits for its answer, JSON both ways: the `POST /v1/call/SERVICE/METHOD` of a
    /// sidecar. The called side's policy sees `POST /METHOD`. Timeout, retries and circuit breaker are the service's.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped is cancelled at the other side too, which may already have acted on it.
    pub async fn call<In, Out>(&self, method: &str, input: &In) -> Result<Out, CallError>
    where
        In: Serialize + ?Sized,
        Out: DeserializeOwned,
    {
        let _under_way = self.begin()?;
        let call = || format!("{}/{method}", self.name);
        let target = Uri::try_from(format!("/{method}"))
            .map_err(|source| CallError::bad_method(call(), source))?;
        if method.is_empty() || method.contains(['?', '#']) {
            return Err(CallError::bad_method(
                call(),
                "a method is a path without a query",
            ));
        }
        let body =
            serde_json::to_vec(input).map_err(|source| CallError::bad_input(call(), source))?;
        let mut request = Request::new(Body::from(Bytes::from(body)));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = target;
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        self.name_host(&mut request);

        let response = self
            .shared
            .outbound
            .handle(request, To::Name(&self.name))
            .await;
        let (head, body) = response.into_parts();
        let about = (head.status, &head.headers);
        let body = Limited::new(body, self.max_answer_bytes).collect().await.map_err(|source| {
            let what = if source.is::<LengthLimitError>() {
                let limit = self.max_answer_bytes;
                ("answer_too_large", format!("the answer is larger than the limit of {limit} bytes; raise it with with_max_answer_bytes"))
            } else {
                ("answer_broken_off", "the answer broke off before its end; the call may have been processed".to_owned())
            };
            CallError::bad_answer(call(), about, what, source)
        })?;
        let body = body.to_bytes();
        if !head.status.is_success() || head.headers.contains_key(X_MESH_ERROR) {
            return Err(CallError::refused(
                call(),
                head.status,
                &head.headers,
                &body,
            ));
        }
        let json = if body.is_empty() { &b"null"[..] } else { &body };
        serde_json::from_slice(json).map_err(|source| {
            let what = (
                "invalid_answer",
                "the answer is not JSON of the expected type".to_owned(),
            );
            CallError::bad_answer(call(), about, what, source)
        })
    }

    /// Sends any HTTP request to the service and gives its answer, bodies streamed both ways. The answer may be the
    /// mesh's own: then it carries `x-mesh-error`.
    ///
    /// # Errors
    ///
    /// [`CallError`] with the code `stopped` once the node was shut down.
    pub async fn request(&self, mut request: Request<Body>) -> Result<Response<Body>, CallError> {
        let under_way = self.begin()?;
        self.name_host(&mut request);
        let response = self
            .shared
            .outbound
            .handle(request, To::Name(&self.name))
            .await;
        Ok(response.map(|body| {
            Body::boxed(Held {
                body,
                _under_way: under_way,
            })
        }))
    }

    /// Holds up the end of a shutdown until it is dropped.
    fn begin(&self) -> Result<Drain, CallError> {
        let under_way = self.calls.subscribe();
        if under_way.phase() >= Phase::Draining {
            return Err(CallError::stopped(&self.name));
        }
        Ok(under_way)
    }

    fn name_host(&self, request: &mut Request<Body>) {
        if request.uri().authority().is_none() && !request.headers().contains_key(header::HOST) {
            request
                .headers_mut()
                .insert(header::HOST, self.host.clone());
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("service", &self.name)
            .finish_non_exhaustive()
    }
}

/// An answer's body whose call is under way until it is over.
struct Held {
    body: Body,
    _under_way: Drain,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
