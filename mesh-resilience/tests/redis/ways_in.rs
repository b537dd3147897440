//! TLS, users, clusters, and servers that forgot the script.

use std::sync::Arc;
use std::time::Duration;

use mesh_resilience::limit::redis::RedisConfig;
use mesh_resilience::limit::shared::SharedConfig;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::fleet::Node;
use crate::fleet::patient;
use crate::fleet::window;
use crate::support::certificates::Certificates;
use crate::support::redis::Redis;

fn minute() -> SharedConfig {
    patient(vec![window(5, Duration::from_mins(1))])
}

fn tls(certificates: &Certificates) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&certificates.authority).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

#[tokio::test]
async fn a_server_with_tls_is_believed_by_its_roots_only() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path(), "ours");
    let Some(server) = Redis::start_with_tls(&certificates, dir.path()) else {
        return;
    };
    let config = RedisConfig::new(server.url()).with_tls(tls(&certificates));
    let node = Node::start(config.clone(), &minute()).await;
    assert_eq!(node.call("ann", 8).await.len(), 5);

    let strangers = Certificates::make(dir.path(), "strangers");
    let believes_others = RedisConfig::new(server.url()).with_tls(tls(&strangers));
    let expects_another = config.with_server_name("other.test");
    for wrong in [believes_others, expects_another] {
        let node = Node::start(wrong, &minute()).await;
        assert!(!node.limiter.store().is_connected());
        assert!(node.call("ann", 8).await.is_empty());
    }
}

#[tokio::test]
async fn a_user_needs_no_more_than_is_documented() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "~{mesh:limit}:* +evalsha +eval +get +set +time";
    let Some(server) = Redis::start_with_user("limiter", "right", rules, dir.path()) else {
        return;
    };
    let with = |password: &'static str| {
        let password = Arc::new(move || Ok(password.to_owned()));
        RedisConfig::new(server.url()).with_credentials(Some("limiter".to_owned()), password)
    };
    let node = Node::start(with("right"), &minute()).await;
    assert_eq!(node.call("ann", 8).await.len(), 5);
    let node = Node::start(with("wrong"), &minute()).await;
    assert!(!node.limiter.store().is_connected() && node.call("ann", 8).await.is_empty());
    let elsewhere = with("right").with_prefix("elsewhere");
    let node = Node::start(elsewhere, &minute()).await;
    assert!(node.limiter.store().is_connected() && node.call("ann", 8).await.is_empty());
}

#[tokio::test]
async fn a_cluster_takes_the_script_and_one_that_forgot_it_learns_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = Redis::start_cluster(dir.path()) else {
        return;
    };
    let node = Node::start(RedisConfig::new(server.url()), &minute()).await;
    assert_eq!(node.call("ann", 3).await.len(), 3);
    server.ask(&["SCRIPT", "FLUSH"]);
    assert_eq!(node.call("ann", 8).await.len(), 2);
}
