//! One peer: the connections to it, and what is known of how it does.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use http::Request;
use http::Response;
use mesh_discovery::Host;
use mesh_resilience::balance::EndpointState;
use mesh_resilience::once::Lease;
use mesh_transport::Body;
use mesh_transport::Error;
use mesh_transport::peer::Dialer;
use mesh_transport::peer::PeerPool;
use mesh_transport::peer::Unsent;
use mesh_transport::session::SessionClient;
use mesh_transport::session::SessionPool;
use mesh_transport::tls::LivePeer;
use mesh_transport::tls::PeerId;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::adapt::peer_key::PeerJudge;
use crate::adapt::peer_key::Pin;
use crate::service_token::TokenCheck;
use crate::stack::outbound::chain;

/// How connections to endpoints are made.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    pub(crate) dialer: Dialer,
    /// Where calls are sealed end to end.
    pub(crate) sessions: Option<SessionClient>,
    /// What the peer must show in a handshake, where tokens are configured.
    pub(crate) handshake_token: Option<Arc<TokenCheck>>,
    /// The identity expected of an endpoint for which discovery names none.
    pub(crate) expected: PeerId,
    /// The keys that the configuration pins, by where they are. Such a pin binds also where a registry says that place.
    pub(crate) pins: Arc<Pins>,
}

/// Fingerprints of keys, by host and port.
pub(crate) type Pins = HashMap<(Host, u16), String>;

/// Which one of a service's peers: the same for as long as it is the same process at the same place, whatever lists say of
/// it, and never given to another one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct EndpointId(u64);

impl EndpointId {
    pub(super) fn new(number: u64) -> Self {
        Self(number)
    }
}

/// One peer with its connections and what is known of how it does; kept from list to list for as long as it is the same.
#[derive(Debug)]
pub(crate) struct Member {
    id: EndpointId,
    service: Arc<str>,
    pub(super) state: Arc<EndpointState>,
    link: Link,
    /// Since when it is known.
    pub(crate) since: Instant,
    last_failure: Mutex<Option<Failure>>,
    /// Under which writes may run there.
    lease: Mutex<Option<Lease>>,
}

#[derive(Debug)]
enum Link {
    Mtls(Box<PeerPool>),
    Hybrid(Box<SessionPool>),
}

/// How a call to an endpoint failed last.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: Arc<str>,
    pub(crate) at: Instant,
}

impl Links {
    /// A peer to which nothing is open yet.
    pub(super) fn member(
        &self,
        id: EndpointId,
        endpoint: &mesh_discovery::Endpoint,
        service: &Arc<str>,
        now: Instant,
    ) -> Member {
        let expected = endpoint
            .spiffe_id
            .as_deref()
            .map_or_else(|| self.expected.clone(), PeerId::new);
        let pool = self.dialer.pool(endpoint.to_string(), expected.clone());
        let link = match &self.sessions {
            None => Link::Mtls(Box::new(pool)),
            Some(client) => {
                let pinned = self.pin(endpoint);
                let (tls, token) = (Arc::clone(self.dialer.tls()), self.handshake_token.clone());
                let is_pinned = pinned.is_some();
                let judge = Arc::new(PeerJudge::only(tls, expected, pinned, token));
                let sessions = client.pool(pool, judge);
                Link::Hybrid(Box::new(if is_pinned {
                    sessions.doubting_unsealed()
                } else {
                    sessions
                }))
            }
        };
        Member {
            id,
            service: Arc::clone(service),
            state: Arc::new(EndpointState::new(now)),
            link,
            since: now,
            last_failure: Mutex::default(),
            lease: Mutex::default(),
        }
    }

    /// The key that an endpoint must have.
    pub(super) fn pin(&self, endpoint: &mesh_discovery::Endpoint) -> Option<Pin> {
        let said = endpoint.public_key_fingerprint.clone();
        if is_trusted_by_pin(endpoint) {
            return said.map(Pin::Enough);
        }
        // threat 48: a registry takes no pin away by leaving it out or by another one.
        let place = (endpoint.host.clone(), endpoint.port);
        self.pins.get(&place).cloned().or(said).map(Pin::Besides)
    }
}

impl Member {
    /// Which peer of its service it is.
    pub(crate) fn id(&self) -> EndpointId {
        self.id
    }

    /// The lease that it gave last.
    pub(crate) fn lease(&self) -> Option<Lease> {
        *self.lease.lock()
    }

    /// Takes in a lease that it gave; nothing where it gives none any more.
    pub(crate) fn keep_lease(&self, lease: Option<Lease>) {
        *self.lease.lock() = lease;
    }

    /// Host and port.
    pub(crate) fn destination(&self) -> &str {
        self.pool().destination()
    }

    /// Who must answer there.
    pub(crate) fn expected(&self) -> &PeerId {
        self.pool().expected()
    }

    /// Calls in flight, recent failures, ejection.
    pub(crate) fn state(&self) -> &EndpointState {
        &self.state
    }

    /// How many connections to it are open.
    pub(crate) fn open_connections(&self) -> usize {
        self.pool().open_connections()
    }

    /// How a call to it failed last.
    pub(crate) fn last_failure(&self) -> Option<Failure> {
        self.last_failure.lock().clone()
    }

    /// Sends one request.
    pub(crate) async fn exchange(&self, request: Request<Body>) -> Result<Response<Body>, Unsent> {
        match &self.link {
            Link::Hybrid(pool) => pool.send(&self.service, request).await,
            Link::Mtls(pool) => pool.send(request).await,
        }
    }

    /// A connection of its own, for bytes that are not HTTP.
    pub(crate) async fn stream(&self) -> Result<(TlsStream<TcpStream>, LivePeer), Error> {
        self.pool().stream().await
    }

    /// Makes sure that it is there and proves to be who it must be.
    pub(super) async fn verify(&self) -> Result<(), Error> {
        let pool = self.pool();
        pool.dialer()
            .verify(pool.destination(), pool.expected())
            .await
    }

    /// Tells a peer that this node has sessions with that nothing more comes.
    pub(super) async fn close(&self) {
        if let Link::Hybrid(pool) = &self.link {
            pool.close().await;
        }
    }

    /// Closes its connections once nothing uses them.
    pub(super) fn retire(&self) {
        self.pool().retire();
    }

    pub(super) fn note(&self, reason: &str, at: Instant) {
        let reason: String = reason
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_REASON)
            .collect();
        let reason = reason.into();
        *self.last_failure.lock() = Some(Failure { reason, at });
    }

    fn pool(&self) -> &PeerPool {
        match &self.link {
            Link::Mtls(pool) => pool,
            Link::Hybrid(pool) => pool.connections(),
        }
    }
}

/// Whether the peer's key is pinned by the configuration, and not only by what a registry says.
pub(super) fn is_trusted_by_pin(endpoint: &mesh_discovery::Endpoint) -> bool {
    endpoint.source.is_none() && endpoint.public_key_fingerprint.is_some()
}

/// Why a call failed, in one line; what is wrong with who the peer is comes first.
pub(super) fn reason(error: &Error) -> String {
    let text = chain(error);
    if is_identity(error) {
        format!("identity: {text}")
    } else {
        text
    }
}

/// Whether the peer could not prove to be who it must be, which no further attempt puts right.
// threat 48
pub(super) fn is_identity(error: &Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let tls = inner
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .or_else(|| error.downcast_ref());
        let is_wrong = matches!(error.downcast_ref::<Error>(), Some(Error::WrongPeer { .. }));
        if is_wrong || matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What a peer says in an error may end on a page.
const MAX_REASON: usize = 500;
