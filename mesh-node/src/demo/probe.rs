//! A client that speaks as one service to the node of another, with whatever token it is told to show: what somebody
//! with stolen files could do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::token::Expect;
use mesh_auth::token::Issuer;
use mesh_auth::token::Ring;
use mesh_auth::token::ServiceClaims;
use mesh_auth::token::Verifier;
use mesh_crypto::RsaBits;
use mesh_crypto::SystemRandom;
use mesh_crypto::keystore::KeyStore;
use mesh_crypto::keystore::OsFileSystem;
use mesh_transport::BoxError;
use mesh_transport::peer::Dialer;
use mesh_transport::peer::PeerConfig;
use mesh_transport::session::SessionClient;
use mesh_transport::session::SessionPool;
use mesh_transport::spiffe::SpiffeLeaf;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;
use mesh_transport::tls::TrustBundles;
use mesh_transport::tls::certificates;
use tokio::runtime::Handle;

use super::client::Answer;
use super::client::Call;
use super::folder::Folder;
use super::folder::TRUST_DOMAIN;
use crate::adapt::peer_key::PeerJudge;
use crate::adapt::peer_key::attest;
use crate::node::wall_clock;
use crate::stack::outbound::X_MESH_TOKEN;
use crate::stack::outbound::chain;
use crate::stack::outbound::unix_seconds;

/// Sealed calls to one node in the name of another.
#[derive(Debug)]
pub(super) struct Probe {
    pool: SessionPool,
    service: &'static str,
}

/// Who speaks, with which secret, and to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speaker<'a> {
    pub(super) folder: &'a Folder,
    /// The service whose certificate and RSA key are used.
    pub(super) caller: &'static str,
    /// The service that is called.
    pub(super) service: &'static str,
    /// Signs the tokens that are shown in handshakes.
    pub(super) secret: &'a str,
}

impl Probe {
    /// A client for the node at `address`. Connects with the first call.
    pub(super) fn new(speaker: &Speaker<'_>, address: SocketAddr) -> Result<Self, BoxError> {
        let Speaker {
            folder,
            caller,
            service,
            secret,
        } = *speaker;
        let tls = identity(folder, caller)?;
        let tasks = Tasks::new(Handle::current());
        let id = spiffe_id(caller)?;
        let engine = mesh_crypto::engine::aws_lc();
        let keys = folder.file(&format!("{caller}/keys"));
        let store = KeyStore::open(Arc::new(OsFileSystem::new()), &keys)?;
        let now = unix_seconds(wall_clock());
        let key = Arc::new(store.load_or_generate(&*engine, RsaBits::B4096, now)?);
        let name = id.to_string();
        let attestation = attest(tls.current().credentials(), &name, key.public().spki_der())?;
        let local = mesh_session::Local::new(
            mesh_session::Config::default(),
            engine,
            Arc::new(SystemRandom::new()),
            mesh_session::LocalIdentity::new(name, key, attestation),
        )?;
        let issuer = issuer(secret)?;
        let token = move |peer: &str| {
            let claims = ServiceClaims::new(id.clone(), peer);
            let token = issuer.issue(&claims, unix_seconds(wall_clock()));
            token.map(String::into_bytes).unwrap_or_default()
        };
        let client = SessionClient::new(
            Arc::new(ArcSwap::from_pointee(local)),
            Arc::new(token),
            (SESSION, wall_clock),
            tasks.clone(),
        );
        let expected = PeerId::new(spiffe_id(service)?.to_string());
        let dialer = Dialer::new(Arc::clone(&tls), PeerConfig::default(), tasks);
        let connections = dialer.pool(address.to_string(), expected.clone());
        let judge = PeerJudge::only(tls, expected, None, None);
        Ok(Self {
            pool: client.pool(connections, Arc::new(judge)),
            service,
        })
    }

    /// Makes one call that shows `token`.
    pub(super) async fn call(&self, call: Call, token: &str) -> Result<Answer, String> {
        let exchange = async {
            let mut request = call.into_request()?;
            let token = HeaderValue::try_from(token)?;
            request.headers_mut().insert(X_MESH_TOKEN, token);
            let sent = self.pool.send(self.service, request).await;
            let response = sent.map_err(|unsent| Box::new(unsent.error) as BoxError)?;
            Answer::read(response).await
        };
        let answered = tokio::time::timeout(PATIENCE, exchange).await;
        answered
            .unwrap_or_else(|elapsed| Err(elapsed.into()))
            .map_err(|error| chain(error.as_ref()))
    }
}

/// A service's certificate with its key, and trust in the authority of the demonstration.
pub(super) fn identity(folder: &Folder, service: &str) -> Result<Arc<TlsStore>, BoxError> {
    let read = |end: &str| std::fs::read(folder.file(&format!("{service}/certs/{service}.{end}")));
    store(folder, &read("crt")?, &read("key")?)
}

/// Any certificate with its key, and trust in the authority of the demonstration.
pub(super) fn store(folder: &Folder, crt: &[u8], key: &[u8]) -> Result<Arc<TlsStore>, BoxError> {
    let roots = certificates(&std::fs::read(folder.file("ca/ca.crt"))?)?;
    let bundles = TrustBundles::new().with_domain(TRUST_DOMAIN, &roots)?;
    let clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let credentials = Credentials::from_pem(crt, key)?;
    let store = TlsStore::new(Arc::new(SpiffeLeaf::new()), clock, credentials, bundles)?;
    Ok(Arc::new(store))
}

/// A token by which `caller` calls `service`, signed with `secret`.
pub(super) fn token(caller: &str, service: &str, secret: &str) -> Result<String, BoxError> {
    let claims = ServiceClaims::new(spiffe_id(caller)?, service);
    Ok(issuer(secret)?.issue(&claims, unix_seconds(wall_clock()))?)
}

/// Why a node of `service` with `secret` refuses `token` from `caller`; `None` where it would take it.
pub(super) fn objection(
    token: &str,
    (caller, service): (&str, &str),
    secret: &str,
) -> Result<Option<String>, BoxError> {
    let expect = Expect {
        audience: service,
        issuer: TRUST_DOMAIN,
        now: unix_seconds(wall_clock()),
    };
    let verified = Verifier::new(Arc::new(Ring::single(secret.as_bytes())?)).verify(token, &expect);
    let peer = spiffe_id(caller)?;
    let objected = verified
        .and_then(|claims| claims.require_subject(&peer))
        .err();
    Ok(objected.map(|error| chain(&error)))
}

/// The id of a service of the demonstration.
pub(super) fn spiffe_id(service: &str) -> Result<SpiffeId, BoxError> {
    Ok(format!("spiffe://{TRUST_DOMAIN}/{service}").parse()?)
}

fn issuer(secret: &str) -> Result<Issuer, BoxError> {
    Ok(Issuer::new(
        Arc::new(Ring::single(secret.as_bytes())?),
        TRUST_DOMAIN,
    ))
}

const SESSION: Duration = Duration::from_mins(10);
const PATIENCE: Duration = Duration::from_secs(15);
