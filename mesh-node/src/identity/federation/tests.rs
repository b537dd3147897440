//! Files of other domains that are not as they should be.

use std::fs;
use std::time::Duration;

use mesh_auth::ca::Authority;
use mesh_resilience::random::Random;
use mesh_transport::tasks::Tasks;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::*;
use crate::identity::Intake;
use crate::identity::Judge;
use crate::identity::files::Files;
use crate::node::wall_clock;

fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

fn authority(name: &str) -> Authority {
    Authority::generate(&domain(name), Duration::from_hours(1), wall_clock()).unwrap()
}

fn root(authority: &Authority) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()
}

fn issue(dir: &TempDir, authority: &Authority) {
    let id = "spiffe://example.org/a".parse().unwrap();
    let issued = authority.issue(&id, Duration::from_mins(30), wall_clock(), &[]);
    let issued = issued.unwrap();
    let key = dir.path().join("a.key");
    fs::write(&key, issued.key_pem.as_bytes()).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(dir.path().join("ca.crt"), authority.certificate_pem()).unwrap();
    fs::write(dir.path().join("a.crt"), issued.certificate_pem).unwrap();
}

async fn material(intake: &mut Intake) -> Material {
    match tokio::time::timeout(Duration::from_secs(10), intake.next()).await {
        Ok(News::Material(material)) => material,
        other => panic!("{other:?}"),
    }
}

async fn trouble(intake: &mut Intake) -> String {
    match tokio::time::timeout(Duration::from_secs(10), intake.next()).await {
        Ok(News::Unfit(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn our_own_certificate_is_renewed_while_a_federated_file_can_t_be_read() {
    // threat 63
    let (dir, own, partner) = (
        tempfile::tempdir().unwrap(),
        authority("example.org"),
        authority("partner.org"),
    );
    let file = |name: &str| dir.path().join(name);
    issue(&dir, &own);
    fs::write(file("partner.pem"), partner.certificate_pem()).unwrap();
    let config = IdentityConfig::from_files(
        "example.org",
        &file("a.crt"),
        &file("a.key"),
        &file("ca.crt"),
    );
    let others = [("partner.org", "partner.pem"), ("other.org", "missing.pem")]
        .map(|(name, path)| (domain(name), file(path)));
    let federation = Federation(Arc::from(others));
    let random: Arc<dyn Random> = Arc::new(|| 0);
    let tasks = Tasks::new(Handle::current());
    let around = Surroundings {
        clock: wall_clock,
        random,
        tasks: tasks.clone(),
    };
    let (feed, mut intake) = feed::channel();
    let source = Source::Files(Files::new(&config).unwrap());
    tasks.start(federation.run(source, feed, around));

    // What can be read counts, and what is wrong is told.
    let first = material(&mut intake).await;
    assert_eq!(first.bundles[&domain("partner.org")], [root(&partner)]);
    assert!(!first.bundles.contains_key(&domain("other.org")));
    let why = trouble(&mut intake).await;
    assert!(why.contains("missing.pem"), "{why}");
    assert!(why.contains("none of its roots is trusted"), "{why}");

    fs::write(file("partner.pem"), "no bundle").unwrap();
    issue(&dir, &own);
    // The two changes may be told of one after the other.
    let (mut is_renewed, mut is_told) = (false, false);
    while !is_renewed || !is_told {
        match tokio::time::timeout(Duration::from_secs(10), intake.next()).await {
            Ok(News::Material(next)) => {
                assert_eq!(next.bundles[&domain("partner.org")], [root(&partner)]);
                is_renewed |= next.chain != first.chain;
            }
            Ok(News::Unfit(why)) => is_told |= why.contains("its last good roots stay"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn roots_that_the_source_gave_go_where_the_file_says_that_there_are_none() {
    let (own, partner) = (authority("example.org"), authority("partner.org"));
    let material = given(&own, &partner);
    let mut kept = Roots::new();
    let bundle = Bundle::parse(domain("partner.org"), br#"{"keys":[]}"#).unwrap();
    let read = vec![(domain("partner.org"), Ok(bundle.roots().to_vec()))];
    assert!(renewed(&mut kept, read).is_empty());
    let joined = joined(&material, &kept);
    assert!(joined.bundles.keys().eq([&domain("example.org")]));
}

#[test]
fn one_domain_whose_roots_are_of_no_use_is_left_out_and_the_rest_taken_over() {
    let (own, partner) = (authority("example.org"), authority("partner.org"));
    let mut material = given(&own, &partner);
    let broken = vec![CertificateDer::from(b"no certificate".to_vec())];
    material.bundles.insert(domain("broken.org"), broken);
    // A root that says itself that it is another domain's.
    material
        .bundles
        .insert(domain("liar.org"), vec![root(&partner)]);
    let judge = Judge::new("spiffe://example.org/a".parse().unwrap());
    let identity = judge.judge(material, wall_clock()).unwrap();
    let taken = [domain("example.org"), domain("partner.org")];
    assert!(identity.roots().keys().eq(taken.iter()));
    identity.store().unwrap();
    let [broken, liar] = identity.left_out() else {
        panic!("{:?}", identity.left_out())
    };
    assert!(broken.contains("broken.org"), "{broken}");
    assert!(liar.contains("liar.org"), "{liar}");
}

/// A certificate of `own`, and the roots of both.
fn given(own: &Authority, partner: &Authority) -> Material {
    let id = "spiffe://example.org/a".parse().unwrap();
    let issued = own.issue(&id, Duration::from_mins(30), wall_clock(), &[]);
    let issued = issued.unwrap();
    let bundles = [
        (domain("example.org"), vec![root(own)]),
        (domain("partner.org"), vec![root(partner)]),
    ];
    Material::new(
        vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()],
        PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap(),
        Roots::from(bundles),
    )
}
