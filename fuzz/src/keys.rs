//! The keys of two nodes, and verifiers that believe everything.

use std::sync::Arc;
use std::sync::LazyLock;

use mesh_crypto::Engine;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::Secret;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use mesh_session::Config;
use mesh_session::KeyClaim;
use mesh_session::Local;
use mesh_session::LocalIdentity;
use mesh_session::PeerRefused;
use mesh_session::TokenContext;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;

pub(crate) const ALICE_PEM: &str = include_str!("../../mesh-crypto/tests/data/keys/alice-2048.pem");
pub(crate) const BOB_PEM: &str = include_str!("../../mesh-crypto/tests/data/keys/bob-2048.pem");
pub(crate) const RANDOM: SystemRandom = SystemRandom::new();
/// The clock of both nodes.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

pub(crate) static ENGINE: LazyLock<Arc<dyn Engine>> = LazyLock::new(aws_lc);
pub(crate) static ALICE: LazyLock<Arc<RsaKeyPair>> = LazyLock::new(|| read(ALICE_PEM));
pub(crate) static BOB: LazyLock<Arc<RsaKeyPair>> = LazyLock::new(|| read(BOB_PEM));

fn read(pem: &str) -> Arc<RsaKeyPair> {
    let text = Secret::from_slice(pem.as_bytes());
    Arc::new(RsaKeyPair::from_pkcs8_pem(&**ENGINE, &text).unwrap())
}

/// A node that accepts the default suites.
pub(crate) fn node(name: &str, key: &Arc<RsaKeyPair>, config: Config) -> Arc<Local> {
    let identity = LocalIdentity::new(name.to_owned(), Arc::clone(key), b"shown".to_vec());
    Arc::new(
        Local::new(
            config,
            Arc::clone(&ENGINE),
            Arc::new(SystemRandom::new()),
            identity,
        )
        .unwrap(),
    )
}

/// Says yes to every key and token.
pub(crate) struct Trusting;

impl VerifyPeer for Trusting {
    fn verify_key(&self, _: &KeyClaim<'_>) -> Result<(), PeerRefused> {
        Ok(())
    }

    fn verify_token(&self, _: &str, _: &[u8], _: &TokenContext<'_>) -> Result<(), PeerRefused> {
        Ok(())
    }
}
