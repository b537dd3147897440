//! A limit that a rate limit service keeps, and what happens while the service is away.

use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http_body::Body as HttpBody;
use tonic::body::Body;
use tonic::client::GrpcService;

use super::answer::Code;
use super::client::RlsClient;
use super::client::RlsError;
use super::question::Question;
use crate::error::BoxError;
use crate::error::ConfigError;
use crate::limit::LimitConfig;
use crate::limit::Limiter;
use crate::limit::Verdict;
use crate::limit::shared::Asking;
use crate::limit::shared::Observe;
use crate::random::Random;

/// What is done with calls while the service is away.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum WhenAway {
    /// This node keeps a limit by itself: its share of what the service allows, such as
    /// [`LimitConfig::share`](crate::limit::LimitConfig::share) gives.
    LocalShare(LimitConfig),
    /// No call passes.
    Closed,
    /// Every call passes, as with Envoy unless it is told `failure_mode_deny`.
    Open,
}

/// Who decided about a call.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DecidedBy {
    /// The service.
    Service,
    /// This node, from its share.
    LocalShare,
    /// Nobody: the service is away, and the choice for that is open or closed.
    Nobody,
}

/// Whether a call may pass.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whether it may.
    pub allowed: bool,
    /// What is known of the limit that is nearest to its end, where one applies.
    pub verdict: Option<Verdict>,
    /// Headers that the service wants on the answer to the call.
    pub headers: HeaderMap,
    /// Who said so.
    pub decided_by: DecidedBy,
    /// Time until another try makes sense; zero where the call may pass.
    pub retry_after: Duration,
}

/// Asks a rate limit service, and decides by itself while that is away.
///
/// After three failures in a row the service counts as away for a second: no call waits for it meanwhile, and then a few try.
/// A question that it refuses says nothing of the service: who makes up such a question can't send it away. A share is counted from what passes while the service answers too, so that what was used up there
/// is not given out again here.
pub struct RlsLimiter<C> {
    client: RlsClient<C>,
    asking: Asking,
    local: Option<Limiter>,
    is_open: bool,
}

impl<C> RlsLimiter<C> {
    /// A limiter that asks by `client`, which has the timeout.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the timeout, the share or the breaker makes no sense.
    pub fn new(
        client: RlsClient<C>,
        when_away: &WhenAway,
        random: Arc<dyn Random>,
        observer: Option<Arc<dyn Observe>>,
    ) -> Result<Self, ConfigError> {
        let local = match when_away {
            WhenAway::LocalShare(share) => Some(Limiter::new(share)?),
            WhenAway::Closed | WhenAway::Open => None,
        };
        let breaker = Asking::default_breaker();
        Ok(Self {
            asking: Asking::new(client.timeout(), breaker, random, observer)?,
            client,
            local,
            is_open: *when_away == WhenAway::Open,
        })
    }

    /// Returns whether the service is away: calls are not, or only now and then, sent to it.
    pub fn is_away(&self) -> bool {
        self.asking.is_away()
    }

    /// Returns how many keys this node counts by itself.
    pub fn keys(&self) -> usize {
        self.local.as_ref().map_or(0, Limiter::keys)
    }

    fn decide_alone<K: Hash + ?Sized>(
        &self,
        key: &K,
        hits: NonZeroU32,
        retry_after: Duration,
    ) -> Decision {
        let now = tokio::time::Instant::now().into_std();
        let (verdict, decided_by) = match &self.local {
            Some(local) => (Some(local.check_n(key, hits, now)), DecidedBy::LocalShare),
            None => (None, DecidedBy::Nobody),
        };
        let allowed = verdict.map_or(self.is_open, |verdict| verdict.allowed);
        let retry_after = verdict.map_or(retry_after, |verdict| verdict.retry_after);
        Decision {
            allowed,
            verdict,
            headers: HeaderMap::new(),
            decided_by,
            retry_after: if allowed { Duration::ZERO } else { retry_after },
        }
    }
}

impl<C> RlsLimiter<C>
where
    C: GrpcService<Body> + Clone,
    C::ResponseBody: HttpBody + Send + 'static,
    <C::ResponseBody as HttpBody>::Error: Into<BoxError>,
{
    /// Asks whether calls may pass; `key` is whose they are, where this node counts by itself. A question without
    /// descriptors is not asked, and the calls pass: no limit applies.
    ///
    /// # Cancel safety
    ///
    /// Calls whose future is dropped may have been counted.
    pub async fn check<K: Hash + ?Sized>(&self, question: Question, key: &K) -> Decision {
        if question.descriptors.is_empty() {
            return Decision {
                allowed: true,
                verdict: None,
                headers: HeaderMap::new(),
                decided_by: DecidedBy::Nobody,
                retry_after: Duration::ZERO,
            };
        }
        let hits = NonZeroU32::new(question.hits).unwrap_or(NonZeroU32::MIN);
        let asked = async {
            match self.client.ask(question).await {
                Ok(answer) => Ok(Some(answer)),
                Err(RlsError::Refused { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let answer = match self.asking.ask(asked).await {
            Ok(Some(answer)) => answer,
            Ok(None) => return self.decide_alone(key, hits, RETRY_AFTER),
            Err(retry_after) => return self.decide_alone(key, hits, retry_after),
        };
        let allowed = answer.code != Code::OverLimit;
        if let Some(local) = self.local.as_ref().filter(|_| allowed) {
            local.note(key, hits, tokio::time::Instant::now().into_std());
        }
        let verdict = answer.verdict();
        let retry_after = match verdict {
            _ if allowed => Duration::ZERO,
            Some(verdict) => verdict.retry_after,
            // It says no more than that.
            None => RETRY_AFTER,
        };
        Decision {
            allowed,
            verdict,
            headers: answer.headers,
            decided_by: DecidedBy::Service,
            retry_after,
        }
    }
}

impl<C> fmt::Debug for RlsLimiter<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RlsLimiter")
            .field("client", &self.client)
            .field("local", &self.local)
            .field("is_open", &self.is_open)
            .finish_non_exhaustive()
    }
}

/// What a caller is told where nobody knows better.
const RETRY_AFTER: Duration = Duration::from_secs(1);
