//! Both ends of secure sessions, and a verifier that a test can look into.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use mesh_crypto::Random;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::SystemRandom;
use mesh_session::KeyClaim;
use mesh_session::Local;
use mesh_session::LocalIdentity;
use mesh_session::PeerRefused;
use mesh_session::Responders;
use mesh_session::SessionTable;
use mesh_session::TableConfig;
use mesh_session::TokenContext;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;
use mesh_transport::peer::PeerPool;
use mesh_transport::session::SessionClient;
use mesh_transport::session::SessionConfig;
use mesh_transport::session::SessionPool;
use mesh_transport::session::SessionServer;

use super::now;
use super::tasks;

/// Takes every key that it is not told to refuse, and every token.
pub(crate) struct Verifier(Box<dyn Fn() -> Result<(), PeerRefused> + Send + Sync>);

impl Verifier {
    pub(crate) fn anyone() -> Arc<Self> {
        Self::by(|| Ok(()))
    }

    /// `judge` is asked about every key.
    pub(crate) fn by(
        judge: impl Fn() -> Result<(), PeerRefused> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self(Box::new(judge)))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl VerifyPeer for Verifier {
    fn verify_key(&self, _: &KeyClaim<'_>) -> Result<(), PeerRefused> {
        (self.0)()
    }

    fn verify_token(&self, _: &str, _: &[u8], _: &TokenContext<'_>) -> Result<(), PeerRefused> {
        Ok(())
    }
}

pub(crate) fn local(name: &str) -> Arc<Local> {
    local_with(name, Arc::new(SystemRandom::new()))
}

pub(crate) fn local_with(name: &str, random: Arc<dyn Random>) -> Arc<Local> {
    // Key generation costs more than all tests together.
    static KEY: OnceLock<Arc<RsaKeyPair>> = OnceLock::new();
    let engine = mesh_crypto::engine::aws_lc();
    let key = KEY.get_or_init(|| Arc::new(RsaKeyPair::generate(&*engine, RsaBits::B2048).unwrap()));
    let identity = LocalIdentity::new(name.to_owned(), Arc::clone(key), Vec::new());
    Arc::new(Local::new(mesh_session::Config::default(), engine, random, identity).unwrap())
}

pub(crate) fn responders(name: &str) -> Arc<Responders> {
    Arc::new(Responders::new(local(name), Duration::from_mins(1)).unwrap())
}

pub(crate) fn server(responders: &Arc<Responders>, verifier: Arc<Verifier>) -> SessionServer {
    server_with(responders, verifier, Vec::new())
}

/// A server that shows `token`.
pub(crate) fn server_with(
    responders: &Arc<Responders>,
    verifier: Arc<Verifier>,
    token: Vec<u8>,
) -> SessionServer {
    let start = tokio::time::Instant::now().into_std();
    SessionServer::new(
        Arc::clone(responders),
        (verifier, Arc::new(move |_: &str| token.clone())),
        Arc::new(SessionTable::new(TableConfig::default(), start).unwrap()),
        (SessionConfig::default(), now),
        tasks(),
    )
}

/// Sessions of `name` over `connections`.
pub(crate) fn client(name: &str, connections: PeerPool, verifier: Arc<Verifier>) -> SessionPool {
    let local = Arc::new(ArcSwap::new(local(name)));
    let life = (Duration::from_hours(1), now as fn() -> SystemTime);
    SessionClient::new(local, Arc::new(|_: &str| Vec::new()), life, tasks())
        .pool(connections, verifier)
}

pub(crate) fn unix_now() -> UnixTime {
    let since = now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::from_secs(since.unwrap().as_secs())
}

/// One gRPC message whose field 1 is `field`.
pub(crate) fn framed(field: &[u8]) -> Bytes {
    let mut len = Vec::new();
    let mut rest = field.len();
    while rest >= 0x80 {
        len.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    len.push(u8::try_from(rest).unwrap());
    let size = u32::try_from(1 + len.len() + field.len()).unwrap();
    [&[0][..], &size.to_be_bytes(), &[0x0a], &len, field]
        .concat()
        .into()
}
