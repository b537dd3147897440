//! What a certificate must be to get through a handshake, at either end: through the real listener and the real dialer.
//!
//! Each row is a certificate that is right but for one thing. Most of these rules webpki knows nothing of (X509-SVID
//! sections 2 to 5); for the others this shows that nothing here stands in its way.
#![cfg(feature = "spiffe")]
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test helper may panic")]

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use http::Response;
use mesh_transport::Body;
use mesh_transport::Error;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::MAX_INTERMEDIATES;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;
use mesh_transport::tls::TrustBundles;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CustomExtension;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::OtherNameValue;
use rcgen::SanType;
use rcgen::string::Ia5String;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

mod support;

use support::Pki;
use support::get;
use support::now;
use support::pool;
use support::serve;
use support::store;

type Signer = Issuer<'static, KeyPair>;

fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

/// A certificate of a workload that breaks no rule.
fn leaf(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.subject_alt_names = vec![uri(name)];
    params.use_authority_key_identifier_extension = true;
    valid(params, -60, 3600)
}

/// Valid from `from` to `to`, in seconds from now.
fn valid(mut params: CertificateParams, from: i64, to: i64) -> CertificateParams {
    params.not_before = at(from).into();
    params.not_after = at(to).into();
    params
}

fn at(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        now() - distance
    } else {
        now() + distance
    }
}

/// A certificate of an authority that breaks no rule; `name` is a trust domain's id.
fn signer(name: &str, path_len: u8) -> CertificateParams {
    let mut params = valid(CertificateParams::default(), -60, 36_000);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = vec![uri(name)];
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{name} {path_len}"));
    params
}

fn root(params: CertificateParams) -> (CertificateDer<'static>, Signer) {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.der().clone(), Issuer::new(params, key))
}

fn intermediate(params: CertificateParams, by: &Signer) -> (CertificateDer<'static>, Signer) {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, by).unwrap();
    (certificate.der().clone(), Issuer::new(params, key))
}

/// Credentials with the leaf `params` signed by `by`, and `above` in the chain.
fn signed(
    params: &CertificateParams,
    by: &Signer,
    above: &[&CertificateDer<'static>],
) -> Credentials {
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, by).unwrap().der().clone();
    let chain = [leaf]
        .into_iter()
        .chain(above.iter().map(|&one| one.clone()));
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Credentials::new(chain.collect(), key).unwrap()
}

fn trusting(domains: &[(&str, &CertificateDer<'static>)]) -> TrustBundles {
    domains
        .iter()
        .fold(TrustBundles::new(), |bundles, (domain, root)| {
            bundles.with_domain(domain, &[(*root).clone()]).unwrap()
        })
}

/// A handshake between `ours` and somebody with `theirs`, once as its client and once as its server. Gives what either
/// refused it for, or the empty text.
async fn at_both_ends(
    ours: &Arc<TlsStore>,
    theirs: Credentials,
    trusted: [TrustBundles; 2],
) -> [String; 2] {
    let [for_client, for_server] = trusted;
    let intruder = store(theirs.clone(), for_client, Duration::ZERO);
    let served = serve(ours, |_, _| async { Response::new(Body::empty()) });
    let own = PeerId::new("spiffe://example.org/ours");
    let sent = pool(&intruder, served.address, own).send(get("/")).await;
    let as_client = served.refused.lock().unwrap().pop().unwrap_or_default();
    assert_eq!(sent.is_ok(), as_client.is_empty(), "{sent:?} {as_client}");

    let served = serve(&store(theirs, for_server, Duration::ZERO), |_, _| async {
        Response::new(Body::empty())
    });
    let expected = PeerId::new("spiffe://example.org/alice");
    let as_server = match pool(ours, served.address, expected).send(get("/")).await {
        Ok(_) => String::new(),
        Err(unsent) => {
            assert_eq!(served.connections(), 0, "{unsent:?}");
            let Error::Connect { source, .. } = unsent.error else {
                panic!("{unsent:?}")
            };
            source.to_string()
        }
    };
    [as_client, as_server]
}

/// Whom [`World::try_with`] plays against: an authority, an intermediate of it, and a node of it.
struct World {
    root: CertificateDer<'static>,
    by_root: Signer,
    ours: Arc<TlsStore>,
}

impl World {
    fn new() -> Self {
        let (root, by_root) = root(signer("spiffe://example.org", 1));
        let own = signed(&leaf("spiffe://example.org/ours"), &by_root, &[]);
        let ours = store(own, trusting(&[("example.org", &root)]), Duration::ZERO);
        Self {
            root,
            by_root,
            ours,
        }
    }

    /// What either end refuses `credentials` for.
    async fn try_with(&self, credentials: Credentials) -> [String; 2] {
        let trusted = || trusting(&[("example.org", &self.root)]);
        at_both_ends(&self.ours, credentials, [trusted(), trusted()]).await
    }

    async fn takes(&self, credentials: Credentials) {
        assert_eq!(self.try_with(credentials).await, ["", ""]);
    }

    async fn refuses(&self, credentials: Credentials, because: &str) {
        for reason in self.try_with(credentials).await {
            assert!(reason.contains(because), "{reason:?} is not {because:?}");
        }
    }

    async fn refuses_leaf(&self, change: impl FnOnce(&mut CertificateParams), because: &str) {
        let mut params = leaf("spiffe://example.org/alice");
        change(&mut params);
        self.refuses(signed(&params, &self.by_root, &[]), because)
            .await;
    }

    /// A leaf below an intermediate that is changed.
    async fn refuses_signer(&self, change: impl FnOnce(&mut CertificateParams), because: &str) {
        let mut params = signer("spiffe://example.org", 0);
        change(&mut params);
        let (above, by) = intermediate(params, &self.by_root);
        let alice = leaf("spiffe://example.org/alice");
        self.refuses(signed(&alice, &by, &[&above]), because).await;
    }
}

#[tokio::test]
async fn a_workload_of_the_trust_domain_is_taken_at_both_ends() {
    let world = World::new();
    let alice = leaf("spiffe://example.org/alice");
    world.takes(signed(&alice, &world.by_root, &[])).await;
    let (above, by) = intermediate(signer("spiffe://example.org", 0), &world.by_root);
    world.takes(signed(&alice, &by, &[&above])).await;
    // Both optional: an extended key usage, and the name of a signer.
    let mut plain = alice.clone();
    plain.extended_key_usages.clear();
    let mut nameless = signer("spiffe://example.org", 0);
    nameless.subject_alt_names.clear();
    let (above, by) = intermediate(nameless, &world.by_root);
    world.takes(signed(&plain, &by, &[&above])).await;
}

// threat 3
#[tokio::test]
async fn a_leaf_names_one_workload_as_its_only_uri() {
    let world = World::new();
    let names = |names: Vec<SanType>| {
        move |params: &mut CertificateParams| params.subject_alt_names = names
    };
    let two = vec![
        uri("spiffe://example.org/alice"),
        uri("spiffe://example.org/bob"),
    ];
    world.refuses_leaf(names(two), "2 uri names").await;
    let web = vec![uri("spiffe://example.org/alice"), uri("https://a.org/")];
    world.refuses_leaf(names(web), "2 uri names").await;
    world.refuses_leaf(names(vec![]), "0 uri names").await;
    let common = |params: &mut CertificateParams| {
        params.subject_alt_names.clear();
        let name = "spiffe://example.org/alice";
        params.distinguished_name.push(DnType::CommonName, name);
    };
    world.refuses_leaf(common, "0 uri names").await;
    let other = SanType::OtherName((
        vec![1, 3, 6, 1, 5, 5, 7, 8, 4],
        OtherNameValue::Utf8String("spiffe://example.org/alice".to_owned()),
    ));
    world.refuses_leaf(names(vec![other]), "0 uri names").await;
    for bad in [
        "spiffe://example.org/alice\0.evil",
        "spiffe://example.org\0/alice",
        "SPIFFE://example.org/alice",
        "spiffe://example.org/%61lice",
        "https://example.org/alice",
    ] {
        world
            .refuses_leaf(names(vec![uri(bad)]), "not a spiffe id")
            .await;
    }
    world
        .refuses_leaf(names(vec![uri("spiffe://example.org")]), "has no path")
        .await;
}

// threat 4
#[tokio::test]
async fn a_leaf_is_no_authority() {
    let world = World::new();
    world
        .refuses_leaf(
            |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
            "is a ca",
        )
        .await;
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        world
            .refuses_leaf(
                |params| params.key_usages.push(usage),
                "keyCertSign or cRLSign",
            )
            .await;
    }
}

// threat 4
#[tokio::test]
async fn a_leaf_signs_for_nobody() {
    let world = World::new();
    // Alice, whose certificate is in order, signs Bob's.
    let key = KeyPair::generate().unwrap();
    let alice = leaf("spiffe://example.org/alice");
    let above = alice.signed_by(&key, &world.by_root).unwrap().der().clone();
    let by = Issuer::new(alice, key);
    let bob = signed(&leaf("spiffe://example.org/alice"), &by, &[&above]);
    world.refuses(bob, "is not a ca").await;
}

// threat 6
#[tokio::test]
async fn a_leaf_s_key_is_for_signing_and_for_both_ends() {
    let world = World::new();
    let usage = |usages: Vec<KeyUsagePurpose>| {
        move |params: &mut CertificateParams| params.key_usages = usages
    };
    let encipher = vec![KeyUsagePurpose::KeyEncipherment];
    world
        .refuses_leaf(usage(encipher), "lacks digitalSignature")
        .await;
    world.refuses_leaf(usage(vec![]), "no key usage").await;
    for purpose in [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::CodeSigning,
        ExtendedKeyUsagePurpose::Any,
    ] {
        world
            .refuses_leaf(
                |params| params.extended_key_usages = vec![purpose],
                "lacks serverAuth or clientAuth",
            )
            .await;
    }
}

// threats 4, 6
#[tokio::test]
async fn a_signer_is_an_authority_of_this_trust_domain_and_of_no_other() {
    let world = World::new();
    world
        .refuses_signer(|params| params.is_ca = IsCa::ExplicitNoCa, "is not a ca")
        .await;
    world
        .refuses_signer(|params| params.is_ca = IsCa::NoCa, "is not a ca")
        .await;
    world
        .refuses_signer(
            |params| params.key_usages = vec![KeyUsagePurpose::CrlSign],
            "lacks keyCertSign",
        )
        .await;
    world
        .refuses_signer(
            |params| params.subject_alt_names = vec![uri("spiffe://example.org/signer")],
            "has a path",
        )
        .await;
    world
        .refuses_signer(
            |params| params.subject_alt_names.push(uri("spiffe://partner.org")),
            "2 uri names",
        )
        .await;
    // threat 2: one root above the authorities of two domains, of which one speaks for the other.
    world
        .refuses_signer(
            |params| params.subject_alt_names = vec![uri("spiffe://partner.org")],
            "it signs for partner.org, not for example.org",
        )
        .await;
}

// threat 6
#[tokio::test]
async fn a_path_is_no_longer_than_its_signers_allow() {
    let world = World::new();
    let (first, by_first) = intermediate(signer("spiffe://example.org", 0), &world.by_root);
    let mut params = signer("spiffe://example.org", 0);
    params.distinguished_name.push(DnType::CommonName, "second");
    let (second, by_second) = intermediate(params, &by_first);
    let alice = leaf("spiffe://example.org/alice");
    let below = signed(&alice, &by_second, &[&second, &first]);
    world.refuses(below, "PathLenConstraintViolated").await;

    let many = [&first; MAX_INTERMEDIATES + 1];
    let chain = signed(&alice, &by_first, &many[1..]);
    world.takes(chain).await;
    let key = PrivateKeyDer::try_from(KeyPair::generate().unwrap().serialize_der()).unwrap();
    let long = vec![first.clone(); MAX_INTERMEDIATES + 2];
    let refused = Credentials::new(long, key).unwrap_err();
    assert!(refused.to_string().contains("at most 8"), "{refused}");
}

// threat 6
#[tokio::test]
async fn an_extension_that_is_critical_and_unknown_is_refused_on_leaf_and_signer() {
    let world = World::new();
    let unknown = |params: &mut CertificateParams| {
        let mut extension =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    };
    world
        .refuses_signer(unknown, "UnsupportedCriticalExtension")
        .await;
    // Nobody can load such a leaf as an identity here, so it is shown by hand.
    let mut params = leaf("spiffe://example.org/alice");
    unknown(&mut params);
    let key = KeyPair::generate().unwrap();
    let leaf = params
        .signed_by(&key, &world.by_root)
        .unwrap()
        .der()
        .clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Credentials::new(vec![leaf.clone()], key.clone_key()).unwrap_err();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let shown = rustls::sign::CertifiedKey::new(vec![leaf], key);
    let mut config = rustls::ClientConfig::clone(world.ours.current().client());
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(shown));
    let served = serve(&world.ours, |_, _| async { Response::new(Body::empty()) });
    let stream = TcpStream::connect(served.address).await.unwrap();
    let name = ServerName::try_from("there").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.unwrap();
    stream.read(&mut [0; 64]).await.unwrap_err();
    let reason = served.refused.lock().unwrap().pop().unwrap();
    assert!(reason.contains("UnsupportedCriticalExtension"), "{reason}");
}

/// Name constraints that permit `uniformResourceIdentifier "example.org"` alone, which Alice's name satisfies.
fn constrain(params: &mut CertificateParams) {
    let name = b"example.org";
    let mut content = vec![0x30, 17, 0xa0, 15, 0x30, 13, 0x86, 11];
    content.extend_from_slice(name);
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
    extension.set_criticality(true);
    params.custom_extensions = vec![extension];
}

// threat 6
#[tokio::test]
async fn a_signer_that_constrains_uri_names_is_refused_in_a_chain_and_in_a_bundle() {
    let world = World::new();
    world
        .refuses_signer(constrain, "constrains uri names")
        .await;
    let mut params = signer("spiffe://example.org", 1);
    constrain(&mut params);
    let (constrained, _) = root(params);
    let refused = replaced(&world, &constrained);
    assert!(refused.contains("constrains uri names"), "{refused}");
}

/// Why `root` can't be the only root of example.org.
fn replaced(world: &World, root: &CertificateDer<'static>) -> String {
    let own = signed(&leaf("spiffe://example.org/ours"), &world.by_root, &[]);
    let before = world.ours.current().generation();
    let refused = world.ours.replace(own, trusting(&[("example.org", root)]));
    assert_eq!(world.ours.current().generation(), before);
    let Error::Identity {
        what,
        source: Some(source),
    } = refused.unwrap_err()
    else {
        panic!("no reason")
    };
    assert!(what.contains("trust bundle of example.org"), "{what}");
    source.to_string()
}

// threats 2, 4
#[tokio::test]
async fn a_bundle_holds_authorities_of_its_own_domain_only() {
    let world = World::new();
    let (theirs, _) = root(signer("spiffe://partner.org", 1));
    let reason = replaced(&world, &theirs);
    assert!(reason.contains("signs for partner.org"), "{reason}");
    let (workload, _) = root(leaf("spiffe://example.org/alice"));
    let reason = replaced(&world, &workload);
    assert!(reason.contains("is not a ca"), "{reason}");
}

// threat 5
#[tokio::test]
async fn a_leaf_and_its_signers_are_valid_now() {
    let world = World::new();
    let set =
        |from, to| move |params: &mut CertificateParams| *params = valid(params.clone(), from, to);
    world
        .refuses_leaf(set(-60, -1), "certificate expired")
        .await;
    world
        .refuses_signer(set(-60, -1), "certificate expired")
        .await;
    world.refuses_leaf(set(1, 60), "not valid yet").await;
    world.refuses_signer(set(1, 60), "not valid yet").await;
}

// threat 5
#[tokio::test]
async fn a_clock_that_is_off_by_more_than_the_backdating_is_told_by_how_much() {
    let pki = Pki::new("example.org");
    let served = serve(&pki.store("orders"), |_, _| async {
        Response::new(Body::empty())
    });
    // Certificates begin a minute before they are issued. Clocks behind: by a little, and by too much.
    for (behind, is_valid) in [(59, true), (61, false)] {
        let store = support::behind(pki.credentials("users"), pki.bundles(), behind);
        let pool = pool(&store, served.address, pki.id("orders"));
        let refused = match pool.send(get("/")).await {
            Ok(_) => String::new(),
            Err(unsent) => std::error::Error::source(&unsent.error)
                .unwrap()
                .to_string(),
        };
        assert_eq!(refused.is_empty(), is_valid, "{refused}");
        // Both times are in the text, so that who reads it sees whose clock is off.
        if !is_valid {
            assert!(refused.contains("verification time"), "{refused}");
            assert!(refused.contains("not valid before"), "{refused}");
        }
    }
}

// threat 2
#[tokio::test]
async fn a_federated_authority_names_no_workload_of_ours_nor_ours_one_of_theirs() {
    let (our_root, by_us) = root(signer("spiffe://example.org", 1));
    let (their_root, by_them) = root(signer("spiffe://partner.org", 1));
    let both = || trusting(&[("example.org", &our_root), ("partner.org", &their_root)]);
    let own = signed(&leaf("spiffe://example.org/ours"), &by_us, &[]);
    let ours = store(own, both(), Duration::ZERO);
    for (name, by, above) in [
        ("spiffe://example.org/alice", &by_them, &their_root),
        ("spiffe://partner.org/alice", &by_us, &our_root),
    ] {
        for chain in [vec![], vec![above]] {
            let forged = signed(&leaf(name), by, &chain);
            for reason in at_both_ends(&ours, forged, [both(), both()]).await {
                let is_refused = reason.contains("UnknownIssuer") || reason.contains("signs for");
                assert!(is_refused, "{name}: {reason:?}");
            }
        }
    }
    // The same authority for its own domain is taken, which shows that the rest was in order.
    let alice = signed(&leaf("spiffe://example.org/alice"), &by_us, &[]);
    assert_eq!(at_both_ends(&ours, alice, [both(), both()]).await, ["", ""]);
}
