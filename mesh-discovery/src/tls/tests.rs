//! Both ends of a handshake in memory, and texts that are no certificates.

use std::error::Error as _;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertifiedIssuer;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS12;
use rustls::version::TLS13;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key in PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn config(&self) -> TlsConfig {
        TlsConfig::new(self.0.pem())
    }

    /// A server called `consul.example.org` that wants to see a certificate.
    fn server(&self, version: &'static rustls::SupportedProtocolVersion) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let (chain, key) = self.issue("consul.example.org");
        let (chain, key) = TlsIdentity::new(chain, key).read().unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// The application protocol that both ends agree on.
async fn meet(server: TlsAcceptor, config: &TlsConfig) -> Result<Vec<u8>, BoxError> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let connector = TlsConnector::from(config.client_config(&[b"http/1.1"])?);
    let name = config.expected_name("10.0.0.7")?;
    let (client, accepted) = tokio::join!(connector.connect(name, near), server.accept(far));
    let (client, _server) = (client?, accepted?);
    Ok(client
        .get_ref()
        .1
        .alpn_protocol()
        .unwrap_or_default()
        .to_vec())
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::test]
async fn meets_a_server_that_wants_a_certificate_by_tls_1_2_and_1_3() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        for name in ["client.example.org", "10.0.0.9"] {
            let (chain, key) = authority.issue(name);
            let config = authority
                .config()
                .with_identity(TlsIdentity::new(chain, key))
                .with_server_name("consul.example.org");
            let protocol = meet(authority.server(version), &config).await.unwrap();
            assert_eq!(protocol, b"http/1.1");
        }
    }
}

#[tokio::test]
async fn a_server_of_another_name_or_authority_is_not_believed_nor_who_shows_no_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let identity = |of: &Authority| {
        let (chain, key) = of.issue("client.example.org");
        TlsIdentity::new(chain, key)
    };
    let name = "consul.example.org";
    for refused in [
        // The host that is connected to, 10.0.0.7, is not in its certificate.
        authority.config().with_identity(identity(&authority)),
        other
            .config()
            .with_identity(identity(&authority))
            .with_server_name(name),
        authority
            .config()
            .with_identity(identity(&other))
            .with_server_name(name),
        authority.config().with_server_name(name),
    ] {
        assert!(
            meet(authority.server(&TLS13), &refused).await.is_err(),
            "{refused:?}"
        );
    }
}

#[test]
fn what_is_no_certificate_no_key_or_no_pair_is_refused_with_what_to_do() {
    let authority = Authority::new();
    let (chain, key) = authority.issue("a");
    let (_, other) = authority.issue("b");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let config = |identity| authority.config().with_identity(identity);
    for (config, what) in [
        (TlsConfig::new(""), "the certificate of its authority"),
        (TlsConfig::new(broken), "the certificate of its authority"),
        (
            TlsConfig::new("-----BEGIN CERTIFICATE-----\n!"),
            "the certificate of its authority",
        ),
        (
            config(TlsIdentity::new("", &*key)),
            "our own certificate first",
        ),
        (config(TlsIdentity::new(&*chain, "")), "unencrypted key"),
        (
            config(TlsIdentity::new(&*chain, &*chain)),
            "unencrypted key",
        ),
        (
            config(TlsIdentity::new(&*chain, other)),
            "the key that belongs to it",
        ),
        (
            config(TlsIdentity::new(broken, &*key)),
            "the key that belongs to it",
        ),
    ] {
        let error = config.client_config(&[]).unwrap_err();
        assert!(
            error.to_string().contains(what),
            "{error}: {:?}",
            error.source()
        );
    }
    let named = authority.config().with_server_name("no name");
    let error = named.expected_name("consul").unwrap_err();
    assert!(error.to_string().contains("\"no name\""), "{error}");
    config(TlsIdentity::new(&*chain, &*key))
        .client_config(&[])
        .unwrap();
    let both = format!("{key}{chain}");
    config(TlsIdentity::new(&*both, &*both))
        .client_config(&[])
        .unwrap();
}

#[test]
fn an_address_may_be_in_brackets() {
    let config = TlsConfig::new("");
    for (host, expected) in [
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("10.0.0.7", "10.0.0.7"),
        ("consul", "consul"),
    ] {
        assert_eq!(config.expected_name(host).unwrap().to_str(), expected);
    }
}

#[test]
fn a_key_is_never_shown() {
    let config = TlsConfig::new("roots").with_identity(TlsIdentity::new("chain", "my secret"));
    let shown = format!("{config:?}");
    assert!(shown.contains("TlsIdentity"), "{shown}");
    let bytes = format!("{:?}", b"my secret");
    assert!(
        !shown.contains("secret") && !shown.contains(bytes.trim_matches(['[', ']'])),
        "{shown}"
    );
}
