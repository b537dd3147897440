//! The way to the node that is proven: mutual TLS with the prober's certificate and, where the node wants it, a session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Limited;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::token::Issuer;
use mesh_auth::token::Ring;
use mesh_auth::token::ServiceClaims;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::SystemRandom;
use mesh_transport::Body;
use mesh_transport::BoxError;
use mesh_transport::peer::Dialer;
use mesh_transport::peer::PeerConfig;
use mesh_transport::peer::PeerPool;
use mesh_transport::session::SessionClient;
use mesh_transport::session::SessionPool;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;

use crate::adapt::peer_key::PeerJudge;
use crate::adapt::peer_key::attest;
use crate::node::wall_clock;
use crate::respond::X_MESH_ERROR;
use crate::stack::outbound::X_MESH_TOKEN;
use crate::stack::outbound::chain;
use crate::stack::outbound::unix_seconds;
use crate::stack::probe::Found;
use crate::stack::probe::X_MESH_PROBE;

/// The node that is proven.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Its name, as calls and tokens give it.
    pub(crate) service: Arc<str>,
    pub(crate) id: SpiffeId,
    pub(crate) tokens: Option<Tokens>,
    /// On which terms it agrees on sessions, if calls must be sealed.
    pub(crate) terms: Option<mesh_session::Config>,
}

/// What signs service tokens there.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) ring: Arc<Ring>,
    pub(crate) issuer: String,
}

impl Tokens {
    /// A token by which `caller` calls `audience`.
    pub(crate) fn issue(&self, caller: &SpiffeId, audience: &str) -> Option<String> {
        let claims = ServiceClaims::new(caller.clone(), audience);
        let issuer = Issuer::new(Arc::clone(&self.ring), &self.issuer);
        issuer.issue(&claims, unix_seconds(wall_clock())).ok()
    }
}

/// A client of the target in the name of whoever the certificate names.
pub(crate) struct Line {
    way: Way,
    target: Target,
    id: SpiffeId,
}

enum Way {
    Sealed(Box<SessionPool>),
    Plain(Box<PeerPool>),
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// `x-mesh-error`, where the mesh answered.
    pub(crate) code: Option<String>,
    /// What the node decided about a probe.
    pub(crate) found: Option<Found>,
    pub(crate) retry_after: Option<Duration>,
}

impl Line {
    /// A way to `target` in the name that the certificate in `tls` proves, which is `id`; `through` is where to connect,
    /// and `shown` who answers TLS there, if it is not the target itself. Connects with the first call.
    pub(crate) fn new(
        target: &Target,
        (tls, id): (&Arc<TlsStore>, &SpiffeId),
        (through, shown): (SocketAddr, &SpiffeId),
        tasks: &Tasks,
    ) -> Result<Self, BoxError> {
        let dialer = Dialer::new(Arc::clone(tls), PeerConfig::default(), tasks.clone());
        let connections = dialer.pool(through.to_string(), PeerId::new(shown.to_string()));
        let way = match &target.terms {
            Some(terms) => {
                let sealed = sealed((target, terms), (tls, id), connections, tasks)?;
                Way::Sealed(Box::new(sealed))
            }
            None => Way::Plain(Box::new(connections)),
        };
        Ok(Self {
            way,
            target: target.clone(),
            id: id.clone(),
        })
    }

    /// Sends `request` with a good token.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Answer, String> {
        let tokens = self.target.tokens.as_ref();
        let token = tokens.and_then(|tokens| tokens.issue(&self.id, &self.target.service));
        self.send_with(request, token).await
    }

    /// Sends `request` with `token`, or without one.
    pub(crate) async fn send_with(
        &self,
        mut request: Request<Body>,
        token: Option<String>,
    ) -> Result<Answer, String> {
        if let Some(token) = token.and_then(|token| HeaderValue::try_from(token).ok()) {
            request.headers_mut().insert(X_MESH_TOKEN, token);
        }
        let exchange = async {
            let sent = match &self.way {
                Way::Sealed(pool) => pool.send(&self.target.service, request).await,
                Way::Plain(pool) => pool.send(request).await,
            };
            let response = sent.map_err(|unsent| Box::new(unsent.error) as BoxError)?;
            let (parts, body) = response.into_parts();
            // An answer that breaks off is none.
            Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
            let header = |name: &str| {
                let value = parts.headers.get(name)?;
                Some(value.to_str().ok()?.to_owned())
            };
            let retry_after = header("retry-after").and_then(|text| text.parse().ok());
            Ok::<_, BoxError>(Answer {
                status: parts.status,
                code: header(X_MESH_ERROR.as_str()),
                found: parts.headers.get(X_MESH_PROBE).and_then(Found::read),
                retry_after: retry_after.map(Duration::from_secs),
            })
        };
        let answered = tokio::time::timeout(PATIENCE, exchange).await;
        answered
            .unwrap_or_else(|elapsed| Err(elapsed.into()))
            .map_err(|error| chain(error.as_ref()))
    }
}

fn sealed(
    (target, terms): (&Target, &mesh_session::Config),
    (tls, id): (&Arc<TlsStore>, &SpiffeId),
    connections: PeerPool,
    tasks: &Tasks,
) -> Result<SessionPool, BoxError> {
    let engine = mesh_crypto::engine::aws_lc();
    // The largest size there is, so that no node finds it too short; it is forgotten with this process.
    let key = RsaKeyPair::generate(&*engine, RsaBits::B4096)?;
    let name = id.to_string();
    let attestation = attest(tls.current().credentials(), &name, key.public().spki_der())?;
    let local = mesh_session::Local::new(
        terms.clone(),
        engine,
        Arc::new(SystemRandom::new()),
        mesh_session::LocalIdentity::new(name, Arc::new(key), attestation),
    )?;
    let (tokens, own) = (target.tokens.clone(), id.clone());
    let token = move |peer: &str| {
        let token = tokens.as_ref().and_then(|tokens| tokens.issue(&own, peer));
        token.map(String::into_bytes).unwrap_or_default()
    };
    let client = SessionClient::new(
        Arc::new(ArcSwap::from_pointee(local)),
        Arc::new(token),
        (SESSION, wall_clock),
        tasks.clone(),
    );
    let expected = PeerId::new(target.id.to_string());
    let judge = PeerJudge::only(Arc::clone(tls), expected, None, None);
    Ok(client.pool(connections, Arc::new(judge)))
}

const SESSION: Duration = Duration::from_mins(10);
const PATIENCE: Duration = Duration::from_secs(15);
const MAX_ANSWER_BYTES: usize = 64 * 1024;
