//! Both ends of secure sessions, as the configuration says.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use mesh_crypto::AeadAlgorithm;
use mesh_crypto::KeyStore;
use mesh_crypto::RsaBits;
use mesh_crypto::SystemRandom;
use mesh_crypto::keystore::OsFileSystem;
use mesh_crypto::keystore::read_passphrase;
use mesh_session::Agreement;
use mesh_session::EpochLimits;
use mesh_session::LimiterConfig;
use mesh_session::MacCover;
use mesh_session::SessionTable;
use mesh_session::Suite;
use mesh_session::TableConfig;
use mesh_transport::session::SessionClient;
use mesh_transport::session::SessionConfig;
use mesh_transport::session::SessionServer;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::TlsStore;

use super::Own;
use super::credentials::handshake_token;
use crate::adapt::peer_key::PeerJudge;
use crate::config::AesKeySize;
use crate::config::HandshakesConfig;
use crate::config::NodeConfig;
use crate::config::PostQuantum;
use crate::config::RecordMac;
use crate::config::RsaKeySize;
use crate::config::SecurityConfig;
use crate::error::Error;
use crate::node::session_identity::KeyLife;
use crate::node::session_identity::SessionIdentity;
use crate::node::wall_clock;
use crate::service_token::ServiceTokens;
use crate::stack::now;

/// Both ends of secure sessions.
pub(super) struct Sessions {
    pub(super) identity: Arc<SessionIdentity>,
    pub(super) client: SessionClient,
    pub(super) server: Arc<SessionServer>,
}

pub(super) fn sessions(
    config: &NodeConfig,
    (own, tokens): (&Own, Option<&Arc<ServiceTokens>>),
    tls: &Arc<TlsStore>,
    tasks: &Tasks,
) -> Result<Sessions, Error> {
    let engine = mesh_crypto::engine::aws_lc();
    let security = &config.security;
    let bits = bits(security.rsa_key_size);
    let session = terms(security);
    let rotation = &security.key_rotation;
    let life = KeyLife {
        store: key_store(security)?,
        bits,
        interval: rotation.identity_interval.filter(|_| rotation.enabled),
        overlap: rotation.identity_overlap,
    };
    let identity = SessionIdentity::new(
        tls.current().credentials(),
        own.id.to_string(),
        life,
        (session, engine),
        wall_clock(),
    )?;
    let token = handshake_token(tokens);
    // The side that begins gives a session up before the side that answers forgets it.
    let lifetime = security.session_timeout;
    let client = SessionClient::new(
        identity.local(),
        Arc::clone(&token),
        (lifetime * 9 / 10, wall_clock),
        tasks.clone(),
    );
    let table = TableConfig::default()
        .with_max_age(lifetime)
        .with_idle_timeout(lifetime);
    let table = Arc::new(SessionTable::new(table, now())?);
    let judge = Arc::new(PeerJudge::any(
        Arc::clone(tls),
        tokens.map(|tokens| Arc::clone(&tokens.handshakes)),
    ));
    let flood = (
        bounds(&security.handshakes),
        wall_clock as fn() -> SystemTime,
    );
    let server = SessionServer::new(
        identity.responders(),
        (judge, token),
        table,
        flood,
        tasks.clone(),
    );
    Ok(Sessions {
        identity: Arc::new(identity),
        client,
        server: Arc::new(server),
    })
}

/// What sessions are agreed on. What is configured here is the least accepted of a peer too: nobody negotiates below it.
pub(crate) fn terms(security: &SecurityConfig) -> mesh_session::Config {
    mesh_session::Config::default()
        .with_min_rsa_bits(bits(security.rsa_key_size))
        .with_suites(suites(security))
        .with_epoch(epochs(security))
        .with_resumption_age(security.session_timeout)
}

fn bits(size: RsaKeySize) -> RsaBits {
    match size {
        RsaKeySize::Rsa2048 => RsaBits::B2048,
        RsaKeySize::Rsa3072 => RsaBits::B3072,
        RsaKeySize::Rsa4096 => RsaBits::B4096,
    }
}

/// The accepted suites, the preferred one first.
fn suites(security: &SecurityConfig) -> Vec<Suite> {
    let cipher = match security.aes_key_size {
        AesKeySize::Aes128 => AeadAlgorithm::Aes128Gcm,
        AesKeySize::Aes192 => AeadAlgorithm::Aes192Gcm,
        AesKeySize::Aes256 => AeadAlgorithm::Aes256Gcm,
    };
    let agreements: &[_] = match security.post_quantum {
        PostQuantum::Prefer => &[Agreement::X25519MlKem768, Agreement::X25519],
        PostQuantum::Require => &[Agreement::X25519MlKem768],
        PostQuantum::Off => &[Agreement::X25519],
    };
    // A peer that wants all of it covered is not refused by one that would do with less.
    let covers: &[_] = match security.record_mac {
        RecordMac::Full => &[MacCover::Record],
        RecordMac::Tag => &[MacCover::HeaderAndTag, MacCover::Record],
    };
    let suite = |agreement| {
        let suite = move |cover: &MacCover| Suite::new(agreement, cipher, *cover);
        covers.iter().map(suite)
    };
    agreements.iter().copied().flat_map(suite).collect()
}

/// Without rotation by age, amounts alone count.
fn epochs(security: &SecurityConfig) -> EpochLimits {
    let rotation = &security.key_rotation;
    let age = if rotation.enabled {
        rotation.interval
    } else {
        Duration::MAX
    };
    EpochLimits::default().with_age(age)
}

fn key_store(security: &SecurityConfig) -> Result<KeyStore, Error> {
    let files = OsFileSystem::new();
    let store = KeyStore::open(Arc::new(files), &security.keys_dir)?;
    match &security.keys_passphrase_file {
        Some(path) => {
            let passphrase = read_passphrase(&files, path)?;
            Ok(store.with_passphrase(passphrase, Arc::new(SystemRandom::new())))
        }
        None => Ok(store),
    }
}

/// What handshakes may cost (threat 32).
fn bounds(handshakes: &HandshakesConfig) -> SessionConfig {
    let limits = LimiterConfig::default()
        .with_rate(handshakes.burst, handshakes.per_second)
        .with_failure_cost(handshakes.failure_cost)
        .with_under_way(handshakes.max_per_peer, handshakes.max_under_way);
    SessionConfig::default()
        .with_max_handshakes(handshakes.max_working)
        .with_limits(limits)
}
