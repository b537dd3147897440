//! Limits that a rate limit service keeps for this node and others (`resilience.rate_limit.store`, `mode: rls`).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use http::Response;
use http::Uri;
use http_body_util::BodyExt as _;
use mesh_auth::request::CanonicalRequest;
use mesh_resilience::BoxError;
use mesh_resilience::limit::rls::Decision;
use mesh_resilience::limit::rls::Descriptor;
use mesh_resilience::limit::rls::Entry;
use mesh_resilience::limit::rls::Question;
use mesh_resilience::limit::rls::RlsClient;
use mesh_resilience::limit::rls::RlsLimiter;
use mesh_resilience::limit::rls::WhenAway;
use mesh_resilience::limit::shared::Observe;
use mesh_resilience::random::Random;
use mesh_resilience::{ConfigError, limit::LimitConfig};
use mesh_transport::Body;
use mesh_transport::app::AppClient;
use mesh_transport::app::AppConfig;
use mesh_transport::peer::Dialer;
use mesh_transport::peer::PeerConfig;
use mesh_transport::peer::PeerPool;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;
use tokio::sync::oneshot;
use tower_service::Service;

use crate::config::DescriptorEntry;
use crate::config::EntrySource;
use crate::config::RlsStoreConfig;
use crate::config::RlsWhenAway;

/// Asks a rate limit service about requests.
#[derive(Debug)]
pub(crate) struct Rls {
    limiter: RlsLimiter<Channel>,
    domain: String,
    descriptors: Vec<Vec<DescriptorEntry>>,
    service: Arc<str>,
}

/// What there is to say of a request.
#[derive(Clone, Copy)]
pub(crate) struct Requested<'a> {
    /// Who calls.
    pub(crate) peer: &'a str,
    /// What it calls; nothing where it is no HTTP.
    pub(crate) request: Option<&'a CanonicalRequest>,
}

impl Rls {
    /// Whether the service gives no answers now.
    pub(crate) fn is_away(&self) -> bool {
        self.limiter.is_away()
    }

    /// Opens nothing yet.
    pub(crate) fn new(
        config: &RlsStoreConfig,
        (service, limits): (&Arc<str>, &LimitConfig),
        (tls, tasks): (&Arc<TlsStore>, &Tasks),
        (random, observer): (Arc<dyn Random>, Arc<dyn Observe>),
    ) -> Result<Self, ConfigError> {
        let address = config.address.to_string();
        let way = match &config.spiffe_id {
            None => Way::Plain(AppClient::new(
                AppConfig::new(address.clone()),
                tasks.clone(),
            )),
            Some(id) => {
                let dialer = Dialer::new(Arc::clone(tls), PeerConfig::default(), tasks.clone());
                Way::Peer(Box::new(dialer.pool(address.clone(), PeerId::new(&**id))))
            }
        };
        let channel = Channel {
            way: Arc::new(way),
            tasks: tasks.clone(),
        };
        let when_away = match config.when_away {
            RlsWhenAway::LocalShare => WhenAway::LocalShare(
                limits.share(config.nodes.unwrap_or(std::num::NonZeroU32::MIN)),
            ),
            RlsWhenAway::Closed => WhenAway::Closed,
            RlsWhenAway::Open => WhenAway::Open,
        };
        let mut client = RlsClient::new(channel).with_timeout(config.timeout);
        if let Ok(origin) = Uri::builder()
            .scheme("http")
            .authority(address)
            .path_and_query("/")
            .build()
        {
            client = client.with_origin(origin);
        }
        Ok(Self {
            limiter: RlsLimiter::new(client, &when_away, random, Some(observer))?,
            domain: config.domain.clone(),
            descriptors: config.descriptors.clone(),
            service: Arc::clone(service),
        })
    }

    /// Counts a request, and says whether it may pass.
    pub(crate) async fn check(&self, asked: Requested<'_>) -> Decision {
        let descriptors = self.descriptors.iter();
        let descriptors = descriptors.filter_map(|entries| self.descriptor(entries, asked));
        let question = Question::new(self.domain.clone(), descriptors.collect());
        self.limiter.check(question, asked.peer).await
    }

    /// Nothing where the request lacks something.
    fn descriptor(&self, entries: &[DescriptorEntry], asked: Requested<'_>) -> Option<Descriptor> {
        let entries = entries.iter().map(|entry| {
            let value = match &entry.source {
                EntrySource::Peer => asked.peer,
                EntrySource::Service => &self.service,
                EntrySource::Text(text) => text,
                EntrySource::Method => asked.request?.method().as_str(),
                EntrySource::Path => asked.request?.path(),
                EntrySource::Header(name) => asked.request?.headers().get(name)?.to_str().ok()?,
            };
            Some(Entry::new(entry.key.clone(), bounded(value)))
        });
        entries.collect::<Option<_>>().map(Descriptor::new)
    }
}

/// The beginning of a text, as much of it as services take.
fn bounded(text: &str) -> &str {
    let mut end = text.len().min(MAX_VALUE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.split_at(end).0
}

/// The way to the service. What it is asked it is asked to the end, though whoever asked may wait no more: else a connection
/// that takes longer to make than a request may wait would never be made.
#[derive(Clone)]
struct Channel {
    way: Arc<Way>,
    tasks: Tasks,
}

enum Way {
    Plain(AppClient),
    Peer(Box<PeerPool>),
}

impl Way {
    async fn send(&self, request: Request<tonic::body::Body>) -> Result<Response<Body>, BoxError> {
        let (head, body) = request.into_parts();
        // One message.
        let body = body.collect().await?.to_bytes();
        let request = Request::from_parts(head, Body::from(body));
        match self {
            Self::Plain(client) => Ok(client.send(request).await?),
            Self::Peer(pool) => Ok(pool.send(request).await.map_err(|unsent| unsent.error)?),
        }
    }
}

impl Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let way = Arc::clone(&self.way);
        let (tell, told) = oneshot::channel();
        self.tasks.start(async move {
            let answered = tokio::time::timeout(GIVE_UP, way.send(request)).await;
            // Nobody may be there to be told.
            drop(tell.send(answered.unwrap_or_else(|elapsed| Err(elapsed.into()))));
        });
        Box::pin(async move { told.await.unwrap_or_else(|gone| Err(gone.into())) })
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

/// Long enough to connect.
const GIVE_UP: Duration = Duration::from_secs(5);
/// Below what services of this kind take.
const MAX_VALUE: usize = 1024;
