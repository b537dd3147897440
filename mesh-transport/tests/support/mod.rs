//! An authority for tests, and servers that speak mutual TLS on loopback.
#![expect(dead_code, reason = "each test uses a part of this")]

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use http::Request;
use http::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use mesh_auth::ca::Authority;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_transport::Body;
use mesh_transport::drain;
use mesh_transport::drain::DrainSignal;
use mesh_transport::listen::Listener;
use mesh_transport::peer::Dialer;
use mesh_transport::peer::PeerConfig;
use mesh_transport::peer::PeerPool;
use mesh_transport::server::Protocol;
use mesh_transport::server::Server;
use mesh_transport::server::ServerConfig;
use mesh_transport::spiffe::SpiffeLeaf;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;
use mesh_transport::tls::TrustBundles;
use mesh_transport::tls::certificates;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::UnixTime;
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;

#[cfg(all(feature = "session", feature = "spiffe"))]
pub(crate) mod session;

/// When all tests happen: certificates and verifiers take the time as an argument.
const NOW: Duration = Duration::from_hours(24 * 365 * 60);

pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

/// A clock that stands still, some time after [`now`].
#[derive(Debug)]
pub(crate) struct After(pub(crate) Duration);

impl TimeProvider for After {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(NOW + self.0))
    }
}

/// A certificate authority.
pub(crate) struct Pki {
    authority: Authority,
    domain: TrustDomain,
}

impl Pki {
    pub(crate) fn new(domain: &str) -> Self {
        let domain = TrustDomain::parse(domain).unwrap();
        let authority = Authority::generate(&domain, Duration::from_hours(10), now()).unwrap();
        Self { authority, domain }
    }

    pub(crate) fn id(&self, service: &str) -> PeerId {
        PeerId::new(
            SpiffeId::for_service(&self.domain, service)
                .unwrap()
                .to_string(),
        )
    }

    /// A fresh certificate for `service`, valid for an hour.
    pub(crate) fn credentials(&self, service: &str) -> Credentials {
        let id = SpiffeId::for_service(&self.domain, service).unwrap();
        let issued = self
            .authority
            .issue(&id, Duration::from_hours(1), now(), &[])
            .unwrap();
        Credentials::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
    }

    pub(crate) fn bundles(&self) -> TrustBundles {
        self.beside(TrustBundles::new())
    }

    /// `bundles`, and this authority for its domain.
    pub(crate) fn beside(&self, bundles: TrustBundles) -> TrustBundles {
        bundles
            .with_domain(self.domain.as_str(), &self.roots())
            .unwrap()
    }

    pub(crate) fn roots(&self) -> Vec<CertificateDer<'static>> {
        certificates(self.authority.certificate_pem().as_bytes()).unwrap()
    }

    /// The identity of `service`, which trusts this authority.
    pub(crate) fn store(&self, service: &str) -> Arc<TlsStore> {
        store(self.credentials(service), self.bundles(), Duration::ZERO)
    }
}

pub(crate) fn store(
    credentials: Credentials,
    bundles: TrustBundles,
    after: Duration,
) -> Arc<TlsStore> {
    let clock = Arc::new(After(after));
    Arc::new(TlsStore::new(Arc::new(SpiffeLeaf::new()), clock, credentials, bundles).unwrap())
}

/// A clock that stands still, some seconds before [`now`].
#[derive(Debug)]
struct Behind(u64);

impl TimeProvider for Behind {
    fn current_time(&self) -> Option<UnixTime> {
        let since = Duration::from_secs(NOW.as_secs() - self.0);
        Some(UnixTime::since_unix_epoch(since))
    }
}

/// The identity of somebody whose clock is `seconds` behind.
pub(crate) fn behind(
    credentials: Credentials,
    bundles: TrustBundles,
    seconds: u64,
) -> Arc<TlsStore> {
    let leaf = Arc::new(SpiffeLeaf::new());
    let store = TlsStore::new(leaf, Arc::new(Behind(seconds)), credentials, bundles);
    Arc::new(store.unwrap())
}

/// A clock that is set by hand, from [`now`] on.
#[derive(Debug, Default)]
pub(crate) struct Watch(AtomicU64);

impl Watch {
    pub(crate) fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }
}

impl TimeProvider for Watch {
    fn current_time(&self) -> Option<UnixTime> {
        let since = Duration::from_secs(self.0.load(Ordering::SeqCst));
        Some(UnixTime::since_unix_epoch(NOW + since))
    }
}

/// Waits until `is_so`, and no longer than a test may.
pub(crate) async fn eventually(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap();
}

pub(crate) fn tasks() -> Tasks {
    Tasks::new(Handle::current())
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The way from `store`'s owner to a server.
pub(crate) fn pool(store: &Arc<TlsStore>, address: SocketAddr, expected: PeerId) -> PeerPool {
    Dialer::new(Arc::clone(store), PeerConfig::default(), tasks())
        .pool(address.to_string(), expected)
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path)
        .header("host", "there")
        .body(Body::empty())
        .unwrap()
}

/// Who sent a request, for handlers.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) id: PeerId,
    pub(crate) leaf: Vec<u8>,
    /// Which connection of the server it came on, from 0.
    pub(crate) connection: usize,
}

/// A running server.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    /// Connections whose TLS handshake succeeded.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Why handshakes failed.
    pub(crate) refused: Arc<Mutex<Vec<String>>>,
    pub(crate) signal: Arc<DrainSignal>,
}

impl Served {
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        // The listener holds one drain, and one to copy for connections.
        self.signal.holders() - 2
    }
}

/// Serves `answer` behind mutual TLS until it is drained.
pub(crate) fn serve<F, Fut>(store: &Arc<TlsStore>, answer: F) -> Served
where
    F: Fn(Caller, Request<Body>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = Listener::bind(loopback(), 100).unwrap();
    let (signal, drain) = drain::channel();
    let served = Served {
        address: listener.address().unwrap(),
        connections: Arc::default(),
        refused: Arc::default(),
        signal: Arc::new(signal),
    };
    let (tasks, http) = (tasks(), Server::new(&ServerConfig::default(), tasks()));
    let (store, connections) = (Arc::clone(store), Arc::clone(&served.connections));
    let (refused, for_connections, tasks_of_connections) =
        (Arc::clone(&served.refused), drain.clone(), tasks.clone());
    tasks.start(listener.run(drain, move |accepted| {
        let (http, drain, answer) = (http.clone(), for_connections.clone(), answer.clone());
        let (store, connections, refused) = (
            Arc::clone(&store),
            Arc::clone(&connections),
            Arc::clone(&refused),
        );
        tasks_of_connections.start(async move {
            let identity = Arc::clone(&store.current());
            let acceptor = TlsAcceptor::from(Arc::clone(identity.server()));
            let stream = match acceptor.accept(accepted.stream).await {
                Ok(stream) => stream,
                Err(error) => return refused.lock().unwrap().push(error.to_string()),
            };
            let tls = stream.get_ref().1;
            let mut live = store.client(&identity, tls).unwrap();
            let caller = Caller {
                id: live.id().clone(),
                leaf: tls.peer_certificates().unwrap().first().unwrap().to_vec(),
                connection: connections.fetch_add(1, Ordering::SeqCst),
            };
            let service = service_fn(move |request: Request<Incoming>| {
                let (answer, caller) = (answer.clone(), caller.clone());
                async move { Ok::<_, Infallible>(answer(caller, request.map(Body::from)).await) }
            });
            let (io, over) = ((stream, Protocol::Http2), live.ended());
            http.serve_until(io, service, drain, over).await;
            drop(accepted.slot);
        });
    }));
    served
}
