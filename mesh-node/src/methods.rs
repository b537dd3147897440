//! Handlers of an embedded node: one a method, JSON in and out.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::header;
use http_body_util::BodyExt;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use mesh_transport::Body;
use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::respond::Code;
use crate::respond::Refusal;

/// What a handler answers when it can't.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct HandlerError {
    message: String,
}

impl HandlerError {
    /// An error whose text the caller sees.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}

type Handler = Arc<dyn Fn(Bytes) -> BoxFuture<'static, Result<Vec<u8>, Failure>> + Send + Sync>;

enum Failure {
    Input(serde_json::Error),
    Handler(HandlerError),
    Output(serde_json::Error),
}

/// The methods that an embedded node answers.
#[derive(Default)]
pub(crate) struct Methods {
    handlers: RwLock<HashMap<String, Handler>>,
}

impl Methods {
    /// Answers `method` with `handler`, in place of the one it had.
    pub(crate) fn set<I, O, F, Fut>(&self, method: &str, handler: F)
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        F: Fn(I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let erased: Handler = Arc::new(move |body| {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                let input = if body.is_empty() { &b"null"[..] } else { &body };
                let input = serde_json::from_slice(input).map_err(Failure::Input)?;
                let output = handler(input).await.map_err(Failure::Handler)?;
                serde_json::to_vec(&output).map_err(Failure::Output)
            })
        });
        self.handlers.write().insert(method.to_owned(), erased);
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let (parts, body) = request.into_parts();
        let name = parts.uri.path().trim_start_matches('/');
        let handler = self.handlers.read().get(name).cloned();
        let handler = handler.ok_or_else(|| {
            Refusal::new(Code::NoRoute, format!("there is no method {name:?} here"))
        })?;
        if parts.method != Method::POST {
            return Err(Refusal::new(
                Code::MethodNotAllowed,
                "calls are made with POST",
            ));
        }
        let body = Limited::new(body, MAX_CALL_BYTES)
            .collect()
            .await
            .map_err(|error| {
                if error.is::<LengthLimitError>() {
                    Refusal::new(
                        Code::TooLarge,
                        format!("a call takes at most {MAX_CALL_BYTES} bytes"),
                    )
                } else {
                    Refusal::new(Code::BadRequest, "the call's body broke off")
                }
            })?;
        let output = handler(body.to_bytes())
            .await
            .map_err(|failure| match failure {
                Failure::Input(error) => Refusal::new(
                    Code::BadRequest,
                    format!("{name} does not take this input: {error}"),
                ),
                Failure::Handler(error) => {
                    Refusal::new(Code::HandlerFailed, error.message).maybe_processed()
                }
                Failure::Output(error) => {
                    tracing::error!(%error, method = name, "a handler's output is not JSON");
                    Refusal::new(Code::HandlerFailed, format!("{name} gave no usable answer"))
                        .maybe_processed()
                }
            })?;
        let mut response = Response::new(Body::from(Bytes::from(output)));
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        Ok(response)
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.handlers.read().keys()).finish()
    }
}

/// A call is held whole, unlike a proxied request; as large as gRPC's default for a message.
const MAX_CALL_BYTES: usize = 4 * 1024 * 1024;
