//! What is learnt of names, and what a leaf and roots make.

use super::*;
use crate::config::ConsulConfig;
use crate::config::IdentityConfig;

fn config(trust_domain: Option<&str>) -> NodeConfig {
    let mut identity = IdentityConfig::from_consul(ConsulConfig::default());
    if let Some(domain) = trust_domain {
        domain.clone_into(&mut identity.trust_domain);
    }
    NodeConfig::new("orders", identity)
}

#[test]
fn names_follow_from_the_id_that_consul_gives() {
    let mut config = config(None);
    assert_eq!(config.identity.trust_domain(), "unknown.consul");
    let uri = "spiffe://u.consul/ns/default/dc/dc1/svc/orders";
    let found = learnt(uri, "orders", &config).unwrap();
    config.identity.learnt = Some(found);
    assert_eq!(config.identity.trust_domain(), "u.consul");
    assert_eq!(config.token_issuer(), "u.consul");
    assert_eq!(config.spiffe_id(), uri);
    let other = "spiffe://u.consul/ns/default/dc/dc1/svc/web";
    assert_eq!(config.spiffe_id_of("web"), other);
}

#[test]
fn an_id_that_is_not_of_this_service_or_of_another_trust_domain_is_refused() {
    let id = |path: &str| format!("spiffe://u.consul{path}");
    for (uri, trust_domain, expected) in [
        (id("/ns/default/dc/dc1/svc/orders"), Some("u.consul"), None),
        (
            id("/ns/default/dc/dc1/svc/orders"),
            Some("example.org"),
            Some("leave it out"),
        ),
        (id("/ns/team/dc/dc1/svc/orders"), None, Some("namespace")),
        (
            id("/ns/default/dc/dc1/svc/web"),
            None,
            Some("for the service orders"),
        ),
        (
            "spiffe://u.consul".to_owned(),
            None,
            Some("for the service orders"),
        ),
        ("https://u.consul".to_owned(), None, Some("for this node")),
    ] {
        let error = learnt(&uri, "orders", &config(trust_domain)).err();
        let error = error.map(|error| error.to_string());
        assert_eq!(error.is_some(), expected.is_some(), "{uri} {error:?}");
        if let (Some(error), Some(expected)) = (error, expected) {
            assert!(error.contains(expected), "{error}");
        }
    }
}

#[test]
fn without_roots_there_is_no_identity() {
    let leaf = r#"{ "CertPEM": "", "PrivateKeyPEM": "secret-words", "ServiceURI": "" }"#;
    let leaf: Leaf = serde_json::from_str(leaf).unwrap();
    assert!(!format!("{leaf:?}").contains("secret"));
    for roots in [
        r#"{ "TrustDomain": "u.consul" }"#,
        r#"{ "TrustDomain": "u.consul", "Roots": [] }"#,
    ] {
        let error = material(&leaf, &serde_json::from_str(roots).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "consul names no root");
    }
}
