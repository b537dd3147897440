//! Asking a rate limit service.

use std::fmt;
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use http_body::Body as HttpBody;
use tonic::Request;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::client::GrpcService;
use tonic_prost::ProstCodec;

use super::answer::Answer;
use super::answer::Code;
use super::messages::RateLimitRequest;
use super::messages::RateLimitResponse;
use super::messages::SHOULD_RATE_LIMIT;
use super::question::MAX_MESSAGE;
use super::question::Question;
use crate::error::BoxError;

/// Asks the service behind a channel: any tower service that sends HTTP/2 requests, such as `tonic::transport::Channel`.
#[derive(Clone)]
pub struct RlsClient<C> {
    channel: C,
    origin: Uri,
    timeout: Duration,
}

impl<C> RlsClient<C> {
    /// Asks over `channel`, and waits 20 ms for an answer, as Envoy does.
    pub fn new(channel: C) -> Self {
        Self {
            channel,
            origin: Uri::from_static("http://rate-limit-service"),
            timeout: TIMEOUT,
        }
    }

    /// Sets how long an answer may take, connecting included.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets scheme and authority of requests, for a channel that does not. Default `http://rate-limit-service`.
    #[must_use]
    pub fn with_origin(self, origin: Uri) -> Self {
        Self { origin, ..self }
    }
}

impl<C> RlsClient<C>
where
    C: GrpcService<Body> + Clone,
    C::ResponseBody: HttpBody + Send + 'static,
    <C::ResponseBody as HttpBody>::Error: Into<BoxError>,
{
    /// Asks whether calls may pass.
    ///
    /// # Errors
    ///
    /// [`RlsError`] where the service does not say.
    ///
    /// # Cancel safety
    ///
    /// The service may have counted a question whose future is dropped.
    pub async fn ask(&self, question: Question) -> Result<Answer, RlsError> {
        let mut grpc = Grpc::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(MAX_MESSAGE);
        let asking = async {
            grpc.ready().await.map_err(|source| RlsError::Unreachable {
                source: source.into(),
            })?;
            let path = PathAndQuery::from_static(SHOULD_RATE_LIMIT);
            let codec = ProstCodec::<RateLimitRequest, RateLimitResponse>::default();
            let answered = grpc.unary(Request::new(question.into_message()), path, codec);
            answered.await.map_err(|status| {
                let is_refused = status.code() == tonic::Code::InvalidArgument;
                let source = Box::new(status);
                if is_refused {
                    RlsError::Refused { source }
                } else {
                    RlsError::Failed { source }
                }
            })
        };
        let answer = match tokio::time::timeout(self.timeout, asking).await {
            Ok(answer) => Answer::from_message(answer?.into_inner()),
            Err(_elapsed) => {
                let limit = self.timeout;
                return Err(RlsError::Timeout { limit });
            }
        };
        if answer.code == Code::Unknown {
            return Err(RlsError::Unknown);
        }
        Ok(answer)
    }
}

impl<C> fmt::Debug for RlsClient<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RlsClient")
            .field("origin", &self.origin)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Why a rate limit service did not say whether calls may pass.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum RlsError {
    /// There is no way to it.
    #[error("the rate limit service can't be reached")]
    Unreachable {
        /// Why.
        source: BoxError,
    },
    /// It took too long.
    #[error("the rate limit service gave no answer within {limit:?}")]
    Timeout {
        /// How long was waited.
        limit: Duration,
    },
    /// It answered with an error, or the connection broke.
    #[error("the rate limit service failed")]
    Failed {
        /// How.
        source: BoxError,
    },
    /// It does not answer such a question (`INVALID_ARGUMENT`).
    #[error("the rate limit service refuses the question")]
    Refused {
        /// Why.
        source: BoxError,
    },
    /// It answered neither yes nor no.
    #[error("the rate limit service does not say")]
    Unknown,
}

/// `envoy.extensions.filters.http.ratelimit.v3.RateLimit.timeout`: "If not set, this defaults to 20ms".
const TIMEOUT: Duration = Duration::from_millis(20);
