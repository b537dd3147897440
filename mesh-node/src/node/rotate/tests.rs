//! An identity that fails half way, or whose key can't be made.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use mesh_auth::ca::Authority;
use mesh_auth::spiffe::TrustDomain;
use mesh_crypto::AeadAlgorithm;
use mesh_crypto::Engine;
use mesh_crypto::Error as CryptoError;
use mesh_crypto::KeyStore;
use mesh_crypto::MacKey;
use mesh_crypto::Random;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::RsaPublicKey;
use mesh_crypto::Secret;
use mesh_crypto::aead::AeadKey;
use mesh_crypto::agreement::MlKem768Key;
use mesh_crypto::agreement::X25519Key;
use mesh_crypto::keystore::OsFileSystem;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::*;
use crate::config::IdentityConfig;
use crate::config::NodeConfig;
use crate::identity::Source;
use crate::identity::Surroundings;
use crate::node::session_identity::KeyLife;
use crate::node::wall_clock;

/// Does what the real one does, until it is broken.
#[derive(Debug)]
struct Brittle {
    real: Arc<dyn Engine>,
    /// It makes no shares.
    is_broken: AtomicBool,
}

impl Engine for Brittle {
    fn name(&self) -> &'static str {
        "brittle"
    }

    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.real.sha256(parts)
    }

    fn mac_key(&self, key: &[u8]) -> MacKey {
        self.real.mac_key(key)
    }

    fn aead_key(&self, algorithm: AeadAlgorithm, key: &[u8]) -> Result<AeadKey, CryptoError> {
        self.real.aead_key(algorithm, key)
    }

    fn x25519_key(&self, random: &dyn Random) -> Result<X25519Key, CryptoError> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(CryptoError::Random);
        }
        self.real.x25519_key(random)
    }

    fn ml_kem_768_key(&self, random: &dyn Random) -> Result<MlKem768Key, CryptoError> {
        self.real.ml_kem_768_key(random)
    }

    fn ml_kem_768_encapsulate(
        &self,
        key: &[u8],
        random: &dyn Random,
    ) -> Result<(Vec<u8>, Secret), CryptoError> {
        self.real.ml_kem_768_encapsulate(key, random)
    }

    fn generate_rsa(&self, bits: RsaBits) -> Result<RsaKeyPair, CryptoError> {
        assert!(
            !self.is_broken.load(Ordering::SeqCst),
            "a fault of the engine"
        );
        self.real.generate_rsa(bits)
    }

    fn rsa_from_pkcs8(&self, der: &Secret) -> Result<RsaKeyPair, CryptoError> {
        self.real.rsa_from_pkcs8(der)
    }

    fn rsa_from_spki(&self, der: &[u8]) -> Result<RsaPublicKey, CryptoError> {
        self.real.rsa_from_spki(der)
    }
}

/// Writes a fresh certificate and its roots.
fn issue(dir: &Path, authority: &Authority) {
    let id = "spiffe://example.org/a".parse().unwrap();
    let issued = authority.issue(&id, Duration::from_hours(1), wall_clock(), &[]);
    let issued = issued.unwrap();
    fs::write(dir.join("a.crt"), issued.certificate_pem).unwrap();
    fs::write(dir.join("a.key"), issued.key_pem.as_bytes()).unwrap();
    fs::set_permissions(dir.join("a.key"), Permissions::from_mode(0o600)).unwrap();
    fs::write(dir.join("ca.crt"), authority.certificate_pem()).unwrap();
}

/// The next identity that the watched files give.
async fn next(rotation: &mut Rotation) -> Material {
    match rotation.intake.next().await {
        News::Material(material) => material,
        other => panic!("{other:?}"),
    }
}

async fn rotation(dir: &Path, engine: &Arc<Brittle>) -> Rotation {
    let file = |name: &str| dir.join(name);
    let identity = IdentityConfig::from_files(
        "example.org",
        &file("a.crt"),
        &file("a.key"),
        &file("ca.crt"),
    );
    let random: Arc<dyn mesh_resilience::random::Random> = Arc::new(|| 0);
    let config = NodeConfig::new("a", identity.clone());
    let source = Source::new(&config, &random).unwrap();
    let judge = Judge::new("spiffe://example.org/a".parse().unwrap());
    let tasks = Tasks::new(Handle::current());
    let around = Surroundings {
        clock: wall_clock,
        random,
        tasks: tasks.clone(),
    };
    let started = source.start(&judge, around, &identity).await;
    let (identity, intake) = started.unwrap();
    let tls = Arc::new(identity.store().unwrap());
    let life = KeyLife {
        store: KeyStore::open(Arc::new(OsFileSystem::new()), &file("keys")).unwrap(),
        bits: RsaBits::B2048,
        interval: Some(Duration::ZERO),
        overlap: Duration::from_hours(1),
    };
    let config = mesh_session::Config::default().with_min_rsa_bits(RsaBits::B2048);
    let session = SessionIdentity::new(
        tls.current().credentials(),
        "spiffe://example.org/a".to_owned(),
        life,
        (config, Arc::clone(engine) as Arc<dyn Engine>),
        wall_clock(),
    );
    Rotation {
        intake,
        judge,
        tls,
        seen: Seen::of(&identity),
        validity: identity.validity(),
        health: Arc::default(),
        page: None,
        session: Some(Arc::new(session.unwrap())),
        server: None,
        telemetry: Arc::new(Telemetry::new()),
        auditor: None,
        clock: wall_clock,
        tasks,
    }
}

fn parts() -> (TempDir, Authority, Arc<Brittle>) {
    let domain = TrustDomain::parse("example.org").unwrap();
    let authority = Authority::generate(&domain, Duration::from_hours(10), wall_clock()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    issue(dir.path(), &authority);
    let engine = Brittle {
        real: mesh_crypto::engine::aws_lc(),
        is_broken: AtomicBool::new(false),
    };
    (dir, authority, Arc::new(engine))
}

#[tokio::test]
async fn an_identity_that_sessions_can_t_take_over_is_not_taken_over_by_tls_either() {
    // threat 63
    let (dir, authority, engine) = parts();
    let mut rotation = rotation(dir.path(), &engine).await;
    let before = rotation.tls.current().credentials().chain().to_vec();
    issue(dir.path(), &authority);
    engine.is_broken.store(true, Ordering::SeqCst);
    let material = next(&mut rotation).await;
    rotation.take(News::Material(material));
    assert_eq!(rotation.telemetry.refused_identities.get(), 1);
    assert_eq!(rotation.tls.current().credentials().chain(), before);
    // Nothing of it counts as seen: the next time it is taken over.
    engine.is_broken.store(false, Ordering::SeqCst);
    issue(dir.path(), &authority);
    let material = next(&mut rotation).await;
    assert!(rotation.replace(material).unwrap().is_some());
    assert_ne!(rotation.tls.current().credentials().chain(), before);
}

#[tokio::test]
async fn certificates_are_attested_after_making_a_key_has_panicked() {
    // threat 63
    let (dir, authority, engine) = parts();
    let mut rotation = rotation(dir.path(), &engine).await;
    engine.is_broken.store(true, Ordering::SeqCst);
    rotation.refresh_key().await;
    engine.is_broken.store(false, Ordering::SeqCst);
    let local = rotation.session.as_ref().unwrap().local();
    let before = local.load_full();
    issue(dir.path(), &authority);
    let material = next(&mut rotation).await;
    rotation.replace(material).unwrap();
    assert!(!Arc::ptr_eq(&before, &local.load()));
    rotation.refresh_key().await;
}
