//! A peer with a good certificate, a good key and a good token, that asks for handshakes by hand.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::BodyExt;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::token::Issuer;
use mesh_auth::token::Ring;
use mesh_auth::token::ServiceClaims;
use mesh_crypto::RsaBits;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::keystore::KeyStore;
use mesh_crypto::keystore::OsFileSystem;
use mesh_session::Initiator;
use mesh_session::KeyClaim;
use mesh_session::Local;
use mesh_session::LocalIdentity;
use mesh_session::PeerKey;
use mesh_session::PeerRefused;
use mesh_session::Responder;
use mesh_session::TokenContext;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;
use mesh_transport::Body;
use mesh_transport::peer::Dialer;
use mesh_transport::peer::PeerConfig;
use mesh_transport::peer::PeerConnection;
use mesh_transport::session::HANDSHAKE_PATH;
use mesh_transport::session::RETRY_PUSHBACK;
use mesh_transport::spiffe::SpiffeLeaf;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;
use mesh_transport::tls::TrustBundles;
use mesh_transport::tls::certificates;
use rustls::time_provider::DefaultTimeProvider;
use rustls::time_provider::TimeProvider;
use tokio::runtime::Handle;

use super::support::mesh::Node;
use super::support::mesh::SECRET;

/// What the node answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// With a reply, or its offer.
    Answered,
    /// That it begins no handshake now, and when to come again.
    Busy,
    /// That it does not accept the message.
    Refused,
    /// With nothing, or something else.
    Broken,
}

/// A client of one node that speaks as the service of another.
pub(crate) struct Attacker {
    connection: PeerConnection,
    local: Arc<Local>,
    issuer: Issuer,
    id: SpiffeId,
}

/// Does not care who answers.
struct Anyone;

impl VerifyPeer for Anyone {
    fn verify_key(&self, _: &KeyClaim<'_>) -> Result<(), PeerRefused> {
        Ok(())
    }

    fn verify_token(&self, _: &str, _: &[u8], _: &TokenContext<'_>) -> Result<(), PeerRefused> {
        Ok(())
    }
}

impl Attacker {
    /// Connects to `victim` in the name and with the files of `service`'s node.
    pub(crate) async fn connect(node: &Node, service: &str, bits: RsaBits, victim: &Node) -> Self {
        let read = |name: &str| fs::read(node.dir().join("certs").join(name)).unwrap();
        let credentials = Credentials::from_pem(
            &read(&format!("{service}.crt")),
            &read(&format!("{service}.key")),
        );
        let roots = certificates(&read("ca.crt")).unwrap();
        let bundles = TrustBundles::new().with_domain(DOMAIN, &roots).unwrap();
        let clock = Arc::new(DefaultTimeProvider);
        let tls = TlsStore::new(
            Arc::new(SpiffeLeaf::new()),
            clock,
            credentials.unwrap(),
            bundles,
        );
        let tls = Arc::new(tls.unwrap());
        let name = format!("spiffe://{DOMAIN}/{service}");
        let keys = KeyStore::open(Arc::new(OsFileSystem::new()), &node.dir().join("keys"));
        let mut key = keys
            .as_ref()
            .unwrap()
            .load_or_generate(&*aws_lc(), bits, seconds())
            .unwrap();
        if key.public().bits() != bits {
            key = keys.unwrap().generate(&*aws_lc(), bits, seconds()).unwrap();
        }
        let attestation = attest(tls.current().credentials(), &name, key.public().spki_der());
        let local = Local::new(
            mesh_session::Config::default(),
            aws_lc(),
            Arc::new(SystemRandom::new()),
            LocalIdentity::new(name.clone(), Arc::new(key), attestation),
        );
        let dialer = Dialer::new(tls, PeerConfig::default(), Tasks::new(Handle::current()));
        let address = SocketAddr::from(([127, 0, 0, 1], victim.inbound)).to_string();
        let connection = dialer.dial(&address, &PeerId::new(VICTIM)).await.unwrap();
        Self {
            connection,
            local: Arc::new(local.unwrap()),
            issuer: Issuer::new(Arc::new(Ring::single(SECRET.as_bytes()).unwrap()), DOMAIN),
            id: name.parse().unwrap(),
        }
    }

    /// The node's key, which this one does not verify.
    pub(crate) async fn key(&self) -> PeerKey {
        let (verdict, offer) = self.ask(Bytes::new()).await;
        assert_eq!(verdict, Verdict::Answered);
        PeerKey::from_offer(&self.local, &offer, &Anyone).unwrap()
    }

    /// A good first message.
    pub(crate) fn good(&self, key: &PeerKey) -> (Initiator, Bytes) {
        let claims = ServiceClaims::new(self.id.clone(), VICTIM);
        let token = self.issuer.issue(&claims, seconds()).unwrap();
        let now = UnixTime::from_secs(seconds());
        let (initiator, init) = Initiator::start(&self.local, key, token.as_bytes(), now).unwrap();
        (initiator, init.into())
    }

    /// A good first message for somebody else's offer.
    pub(crate) fn elsewhere(&self) -> Bytes {
        let other = Responder::new(Arc::clone(&self.local)).unwrap();
        let key = PeerKey::from_offer(&self.local, other.offer(), &Anyone).unwrap();
        self.good(&key).1
    }

    /// A whole handshake, as an honest peer does it.
    pub(crate) async fn handshake(&self) {
        let (initiator, init) = self.good(&self.key().await);
        let (verdict, reply) = self.ask(init).await;
        assert_eq!(verdict, Verdict::Answered);
        let now = UnixTime::from_secs(seconds());
        initiator.finish(&reply, &Anyone, now).unwrap();
    }

    /// Sends one message of a handshake.
    pub(crate) async fn send(&self, message: Bytes) -> Verdict {
        self.ask(message).await.0
    }

    async fn ask(&self, message: Bytes) -> (Verdict, Bytes) {
        let request = Request::post(HANDSHAKE_PATH).header("content-type", "application/grpc");
        let request = request.body(Body::from(framed(&message))).unwrap();
        let Ok(response) = self.connection.send(request).await else {
            return (Verdict::Broken, Bytes::new());
        };
        let verdict = verdict(&response);
        let Ok(body) = response.into_body().collect().await else {
            return (Verdict::Broken, Bytes::new());
        };
        let body = body.to_bytes();
        let field = body
            .iter()
            .skip(6)
            .take_while(|byte| **byte >= 0x80)
            .count()
            + 7;
        let field = body.get(field..).map(|field| body.slice_ref(field));
        (verdict, field.unwrap_or_default())
    }
}

fn verdict(response: &Response<Body>) -> Verdict {
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    match (header("grpc-status"), header("x-mesh-error")) {
        (None, None) => Verdict::Answered,
        (Some("14"), Some("overloaded")) => {
            let said = header(RETRY_PUSHBACK.as_str()).and_then(|millis| millis.parse().ok());
            assert!(said.is_some_and(|millis: u64| millis > 0), "{response:?}");
            Verdict::Busy
        }
        (Some("16"), Some("unauthenticated")) => Verdict::Refused,
        _ => Verdict::Broken,
    }
}

/// What a node's certificate says of its RSA key, as `PROTOCOL.md` has it for nodes.
fn attest(credentials: &Credentials, name: &str, spki: &[u8]) -> Vec<u8> {
    let chain = credentials.chain();
    let mut out = vec![u8::try_from(chain.len()).unwrap()];
    for certificate in chain {
        out.extend(u16::try_from(certificate.len()).unwrap().to_be_bytes());
        out.extend_from_slice(certificate);
    }
    let statement = [STATEMENT, name.as_bytes(), &[0], spki].concat();
    out.extend(credentials.sign(&statement).unwrap());
    out
}

/// One gRPC message whose field 1 is `field`.
fn framed(field: &[u8]) -> Bytes {
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

fn seconds() -> u64 {
    DefaultTimeProvider.current_time().unwrap().as_secs()
}

const DOMAIN: &str = "example.org";
const VICTIM: &str = "spiffe://example.org/order-service";
const STATEMENT: &[u8] = b"mesh-node: rsa identity key, version 1\0";
