//! Who may speak with whom.
#![cfg(feature = "spiffe")]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use mesh_transport::Body;
use mesh_transport::Error;
use mesh_transport::peer::Dialer;
use mesh_transport::peer::PeerConfig;
use mesh_transport::server::Protocol;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::TlsStore;
use mesh_transport::tls::TrustBundles;
use mesh_transport::tls::certificates;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

mod support;

use support::Pki;
use support::Served;
use support::get;
use support::loopback;
use support::pool;
use support::serve;
use support::store;
use support::tasks;

fn dialer(store: &Arc<TlsStore>) -> Dialer {
    Dialer::new(Arc::clone(store), PeerConfig::default(), tasks())
}

#[tokio::test]
async fn both_ends_know_who_is_at_the_other() {
    let pki = Pki::new("example.org");
    let served = serve(&pki.store("orders"), |caller, request| async move {
        Response::new(Body::from(format!(
            "{} {}",
            caller.id,
            request.uri().path()
        )))
    });
    let pool = pool(&pki.store("users"), served.address, pki.id("orders"));
    let answer = pool.send(get("/list")).await.unwrap();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, "spiffe://example.org/users /list");
    assert_eq!(pool.connection().await.unwrap().peer(), &pki.id("orders"));
}

#[tokio::test]
async fn a_wrong_peer_gets_not_a_byte_of_the_request() {
    // threat 48
    let pki = Pki::new("example.org");
    let server = pki.store("billing");
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let dialed = async {
        let refused = pool(&pki.store("users"), address, pki.id("orders"))
            .send(get("/"))
            .await;
        refused.unwrap_err()
    };
    let accepted = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(Arc::clone(server.current().server()))
            .accept(stream)
            .await
            .unwrap();
        let mut received = Vec::new();
        // How the connection ends does not matter.
        drop(stream.read_to_end(&mut received).await);
        received
    };
    let (unsent, received) = tokio::join!(dialed, accepted);
    assert_eq!(received, b"");
    assert!(unsent.error.is_unprocessed() && unsent.request.is_some());
    let Error::WrongPeer {
        found,
        expected,
        destination,
    } = &unsent.error
    else {
        panic!("{unsent:?}")
    };
    assert_eq!(
        (found.as_str(), expected.as_str()),
        (
            "spiffe://example.org/billing",
            "spiffe://example.org/orders"
        )
    );
    assert_eq!(*destination, address.to_string());
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    // threat 2
    let (ours, theirs) = (Pki::new("example.org"), Pki::new("example.org"));
    let served = serve(&theirs.store("orders"), |_, _| async {
        Response::new(Body::empty())
    });
    let refused = dialer(&ours.store("users"))
        .dial(&served.address.to_string(), &ours.id("orders"))
        .await;
    assert!(matches!(refused, Err(Error::Connect { .. })), "{refused:?}");
    assert_eq!(served.connections(), 0);
}

#[tokio::test]
async fn a_client_of_another_authority_reaches_no_handler() {
    // threat 2
    let (ours, theirs) = (Pki::new("example.org"), Pki::new("example.org"));
    let served = serve(&ours.store("orders"), |_, _| async {
        Response::new(Body::empty())
    });
    // It trusts us, but we do not trust it.
    let intruder = store(theirs.credentials("users"), ours.bundles(), Duration::ZERO);
    let pool = pool(&intruder, served.address, ours.id("orders"));
    // With TLS 1.3 the client is done before it hears that it was refused.
    pool.send(get("/")).await.unwrap_err();
    assert_eq!(served.connections(), 0);
    assert_eq!(served.refused.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_trust_domain_has_roots_of_its_own() {
    // threat 2: an authority that is trusted for one domain speaks for no other.
    let (ours, theirs) = (Pki::new("example.org"), Pki::new("partner.org"));
    let served = serve(&theirs.store("orders"), |_, _| async {
        Response::new(Body::empty())
    });
    let refused = dialer(&ours.store("users"))
        .dial(&served.address.to_string(), &theirs.id("orders"))
        .await;
    let Err(Error::Connect { source, .. }) = &refused else {
        panic!("{refused:?}")
    };
    assert!(
        source
            .to_string()
            .contains("partner.org is not among those trusted here"),
        "{source}"
    );
}

#[tokio::test]
async fn a_certificate_that_is_over_is_refused() {
    // threat 5
    let pki = Pki::new("example.org");
    let served = serve(&pki.store("orders"), |_, _| async {
        Response::new(Body::empty())
    });
    for (after, is_valid) in [
        (Duration::from_mins(59), true),
        (Duration::from_mins(61), false),
    ] {
        let store = store(pki.credentials("users"), pki.bundles(), after);
        let dialed = dialer(&store)
            .dial(&served.address.to_string(), &pki.id("orders"))
            .await;
        assert_eq!(dialed.is_ok(), is_valid, "{dialed:?}");
    }
}

#[tokio::test]
async fn who_shows_no_certificate_or_speaks_no_tls_is_refused() {
    // threat 1
    let pki = Pki::new("example.org");
    let served = serve(&pki.store("orders"), |_, _| async {
        Response::new(Body::empty())
    });
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: there\r\n\r\n")
        .await
        .unwrap();
    let mut received = Vec::new();
    plain.read_to_end(&mut received).await.unwrap();
    assert!(!received.starts_with(b"HTTP"), "{received:?}");

    let mut anonymous = client_config(&pki);
    anonymous.client_auth_cert_resolver = Arc::new(NoCertificate);
    let refused = hello(&served, anonymous).await;
    assert!(refused.contains("CertificateRequired"), "{refused}");
    assert_eq!(served.connections(), 0);
}

fn client_config(pki: &Pki) -> rustls::ClientConfig {
    rustls::ClientConfig::clone(pki.store("users").current().client())
}

/// Why a client with `config` is refused, or the empty text.
async fn hello(served: &Served, config: rustls::ClientConfig) -> String {
    let name = rustls_pki_types::ServerName::try_from("there").unwrap();
    let stream = TcpStream::connect(served.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    match connector.connect(name, stream).await {
        Err(refused) => refused.to_string(),
        Ok(mut stream) => {
            let heard = stream.read(&mut [0; 64]).await;
            heard.map_or_else(|refused| refused.to_string(), |_| String::new())
        }
    }
}

/// Roots that nobody asks for: what they are used with fails before.
fn no_roots() -> rustls::RootCertStore {
    rustls::RootCertStore::empty()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

// threat 1
#[tokio::test]
async fn nobody_is_talked_down_to_tls_1_2() {
    let pki = Pki::new("example.org");
    let old = [&rustls::version::TLS12];
    let served = serve(&pki.store("orders"), |_, _| async {
        Response::new(Body::empty())
    });
    let client = rustls::ClientConfig::builder_with_provider(provider());
    let client = client.with_protocol_versions(&old).unwrap();
    let client = client
        .with_root_certificates(no_roots())
        .with_no_client_auth();
    let refused = hello(&served, client).await;
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    assert_eq!(served.connections(), 0);

    let config = rustls::ServerConfig::builder_with_provider(provider());
    let config = config.with_protocol_versions(&old).unwrap();
    let (chain, key) = rcgen_pair();
    let chain = certificates(chain.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = config.with_no_client_auth();
    let refused = dialed(&pki, config.with_single_cert(chain, key).unwrap()).await;
    let refused = refused.unwrap_err();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
}

/// What comes of dialing a server with `config`, as users of `pki` who look for orders.
async fn dialed(pki: &Pki, config: rustls::ServerConfig) -> Result<(), String> {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepted = async {
        let (stream, _) = listener.accept().await.unwrap();
        let accepted = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
        if let Ok(mut stream) = accepted {
            // How it goes on does not matter.
            drop(stream.read(&mut [0; 64]).await);
        }
    };
    let dialer = dialer(&pki.store("users"));
    let expected = pki.id("orders");
    let (outcome, ()) = tokio::join!(dialer.dial(&address, &expected), accepted);
    outcome.map(drop).map_err(|error| {
        let cause = std::error::Error::source(&error).unwrap();
        cause.to_string()
    })
}

// threat 1
#[tokio::test]
async fn a_protocol_is_agreed_on_or_there_is_no_connection() {
    let pki = Pki::new("example.org");
    let served = serve(&pki.store("orders"), |_, _| async {
        Response::new(Body::empty())
    });
    for wrong in ["spdy/3", "H2", "h2c", "http/1.0"] {
        let mut config = client_config(&pki);
        config.alpn_protocols = vec![wrong.as_bytes().to_vec()];
        let refused = hello(&served, config).await;
        assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    }
    assert_eq!(served.connections(), 0);
    let orders = pki.store("orders");
    let mut config = rustls::ServerConfig::clone(orders.current().server());
    dialed(&pki, config.clone()).await.unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let refused = dialed(&pki, config.clone()).await.unwrap_err();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    config.alpn_protocols = Vec::new();
    let refused = dialed(&pki, config).await.unwrap_err();
    assert!(refused.contains("chose no protocol"), "{refused}");
}

// threat 1
#[test]
fn who_offers_no_protocol_is_taken_only_where_that_is_asked_for() {
    for (alpn, is_required, protocol) in [
        (Some(&b"h2"[..]), true, Some(Protocol::Http2)),
        (Some(b"http/1.1"), true, Some(Protocol::Http1)),
        (Some(b"h3"), true, None),
        (Some(b"h3"), false, None),
        (Some(b""), false, None),
        (None, true, None),
        (None, false, Some(Protocol::Detect)),
    ] {
        assert_eq!(Protocol::agreed(alpn, is_required), protocol, "{alpn:?}");
    }
}

// threat 71
#[tokio::test]
async fn no_session_is_resumed_past_the_verification_of_its_peer() {
    let pki = Pki::new("example.org");
    let served = serve(&pki.store("orders"), |_, _| async {
        Response::new(Body::empty())
    });
    let mut config = client_config(&pki);
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    for _ in 0..3 {
        let name = rustls_pki_types::ServerName::try_from("there").unwrap();
        let stream = TcpStream::connect(served.address).await.unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        // Its settings come after any ticket.
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        stream.read_exact(&mut [0; 9]).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_replaced_identity_is_shown_on_new_connections_while_old_ones_live() {
    // threats 63, 64, 71
    let pki = Pki::new("example.org");
    let served = serve(&pki.store("orders"), |caller, _| async move {
        let mut response = Response::new(Body::from(bytes::Bytes::from(caller.leaf)));
        response
            .headers_mut()
            .insert("x-connection", caller.connection.into());
        response
    });
    let users = pki.store("users");
    let pool = pool(&users, served.address, pki.id("orders"));
    let shown = |response: Response<Body>| async {
        let connection = response.headers()["x-connection"]
            .to_str()
            .unwrap()
            .to_owned();
        (
            connection,
            response.into_body().collect().await.unwrap().to_bytes(),
        )
    };
    let old = pool.connection().await.unwrap();
    let leaf = |store: &TlsStore| {
        store
            .current()
            .credentials()
            .chain()
            .first()
            .unwrap()
            .to_vec()
    };
    let first_leaf = leaf(&users);
    assert_eq!(users.current().generation(), 1);

    users
        .replace(pki.credentials("users"), pki.bundles())
        .unwrap();
    assert_eq!(users.current().generation(), 2);
    let (connection, seen) = shown(pool.send(get("/")).await.unwrap()).await;
    assert_eq!((connection.as_str(), &*seen), ("1", &*leaf(&users)));
    assert_ne!(leaf(&users), first_leaf);
    let (connection, seen) = shown(old.send(get("/")).await.unwrap()).await;
    assert_eq!((connection.as_str(), &*seen), ("0", &*first_leaf));
    assert!(!old.is_closed());
}

#[tokio::test]
async fn an_identity_that_can_t_be_used_leaves_the_old_one_in_place() {
    let pki = Pki::new("example.org");
    let store = pki.store("users");
    TrustBundles::new()
        .with_domain("example.org", &[])
        .unwrap_err();
    assert_eq!(store.current().generation(), 1);
}

// threat 63
#[test]
fn a_certificate_is_taken_with_its_own_key_and_with_no_other() {
    let (one, other) = (rcgen_pair(), rcgen_pair());
    let refused = |chain: &str, key: &str| {
        let refused = Credentials::from_pem(chain.as_bytes(), key.as_bytes());
        refused.unwrap_err().to_string()
    };
    Credentials::from_pem(one.0.as_bytes(), one.1.as_bytes()).unwrap();
    let text = refused(&one.0, &other.1);
    assert!(text.contains("do not belong together"), "{text}");
    // Half written: the end of the last block is missing, of either file, at any length.
    for len in 0..one.0.len() - 1 {
        refused(one.0.get(..len).unwrap(), &one.1);
    }
    for len in 0..one.1.len() - 1 {
        refused(&one.0, one.1.get(..len).unwrap());
    }
    assert!(refused(&one.0, "").contains("no private key"));
    let two = [one.1.as_str(), other.1.as_str()].concat();
    assert!(refused(&one.0, &two).contains("2 private keys"));
    let encrypted = one.1.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    assert!(refused(&one.0, &encrypted).contains("not encrypted"));
    for text in [refused(&one.0, &other.1), refused(&one.0, &two)] {
        assert!(!text.contains("BEGIN"), "{text}");
    }
}

// threat 63
#[test]
fn a_chain_whose_leaf_is_not_first_says_which_one_is() {
    let (leaf, above) = (rcgen_pair(), rcgen_pair());
    let chain = [above.0.as_str(), above.0.as_str(), leaf.0.as_str()].concat();
    let refused = Credentials::from_pem(chain.as_bytes(), leaf.1.as_bytes()).unwrap_err();
    assert!(
        refused.to_string().contains("that of certificate 3"),
        "{refused}"
    );
    // Certificate and key in one file, with other blocks around.
    let note = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let all = [note, &leaf.1, &leaf.0, &above.0].concat();
    let read = Credentials::from_pem(all.as_bytes(), all.as_bytes()).unwrap();
    assert_eq!(read.chain().len(), 2);
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

fn rcgen_pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[tokio::test]
async fn a_statement_counts_only_as_its_signer_made_it() {
    let (pki, foreign) = (Pki::new("example.org"), Pki::new("example.org"));
    let (signer, verifier) = (pki.store("orders"), pki.store("users"));
    let credentials = signer.current();
    let credentials = credentials.credentials();
    let signature = credentials.sign(b"my key").unwrap();
    let proven = verifier.verify_signed(credentials.chain(), b"my key", &signature);
    assert_eq!(proven.unwrap(), pki.id("orders"));

    verifier
        .verify_signed(credentials.chain(), b"my kex", &signature)
        .unwrap_err();
    verifier
        .verify_signed(&[], b"my key", &signature)
        .unwrap_err();
    for len in 0..signature.len() {
        verifier
            .verify_signed(credentials.chain(), b"my key", &signature[..len])
            .unwrap_err();
    }
    let stranger = foreign.credentials("orders");
    let signature = stranger.sign(b"my key").unwrap();
    verifier
        .verify_signed(stranger.chain(), b"my key", &signature)
        .unwrap_err();
}
