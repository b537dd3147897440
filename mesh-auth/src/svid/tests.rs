//! Certificates that break one rule each.

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, OtherNameValue, SanType,
};

use super::*;

fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

fn leaf(names: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = names;
    params
}

fn signer(names: Vec<SanType>) -> CertificateParams {
    let mut params = leaf(names);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn der(params: &CertificateParams) -> Vec<u8> {
    params
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap()
        .der()
        .to_vec()
}

fn alice() -> Vec<SanType> {
    vec![uri("spiffe://example.org/alice")]
}

fn refused(params: &CertificateParams) -> SvidError {
    leaf_identity(&der(params)).unwrap_err()
}

#[test]
fn a_workload_certificate_gives_its_id_whatever_other_names_it_has() {
    let mut params = leaf(alice());
    assert_eq!(
        leaf_identity(&der(&params)).unwrap().as_str(),
        "spiffe://example.org/alice"
    );
    params.subject_alt_names.push(SanType::DnsName(
        Ia5String::try_from("alice.example.org").unwrap(),
    ));
    params
        .subject_alt_names
        .push(SanType::IpAddress("10.0.0.7".parse().unwrap()));
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    assert_eq!(
        leaf_identity(&der(&params)).unwrap().as_str(),
        "spiffe://example.org/alice"
    );
}

// threat 3
#[test]
fn a_workload_has_exactly_one_uri_name_and_it_is_a_spiffe_id() {
    let mut two = alice();
    two.push(uri("spiffe://example.org/bob"));
    assert_eq!(refused(&leaf(two)), SvidError::UriCount { count: 2 });
    let mut web = alice();
    web.push(uri("https://example.org/alice"));
    assert_eq!(refused(&leaf(web)), SvidError::UriCount { count: 2 });
    assert_eq!(refused(&leaf(vec![])), SvidError::UriCount { count: 0 });
    let mut other = leaf(vec![SanType::OtherName((
        vec![1, 3, 6, 1, 5, 5, 7, 8, 4],
        OtherNameValue::Utf8String("spiffe://example.org/alice".to_owned()),
    ))]);
    other
        .distinguished_name
        .push(rcgen::DnType::CommonName, "spiffe://example.org/alice");
    assert_eq!(refused(&other), SvidError::UriCount { count: 0 });
    for bad in [
        "spiffe://example.org/alice\0.evil",
        "SPIFFE://example.org/alice",
        "https://example.org/alice",
        "spiffe://example.org/%61lice",
    ] {
        assert!(
            matches!(refused(&leaf(vec![uri(bad)])), SvidError::SpiffeId(_)),
            "{bad}"
        );
    }
    assert_eq!(
        refused(&leaf(vec![uri("spiffe://example.org")])),
        SvidError::LeafWithoutPath
    );
}

// threat 4
#[test]
fn a_workload_is_no_authority() {
    assert_eq!(refused(&signer(alice())), SvidError::LeafIsCa);
    let mut params = leaf(alice());
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, usage];
        assert_eq!(refused(&params), SvidError::LeafSigns);
    }
}

// threat 6
#[test]
fn a_workload_key_is_for_signing_and_for_both_ends() {
    let mut params = leaf(alice());
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    assert_eq!(refused(&params), SvidError::CannotSign);
    params.key_usages = vec![];
    assert_eq!(refused(&params), SvidError::NoKeyUsage);
    params = leaf(alice());
    for purpose in [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::Any,
    ] {
        params.extended_key_usages = vec![purpose];
        assert_eq!(refused(&params), SvidError::ExtendedKeyUsage);
    }
}

// threat 3
#[test]
fn an_extension_that_stands_twice_is_refused() {
    let mut params = leaf(alice());
    // subjectAltName again: one URI name, spiffe://example.org/bob.
    let mut content = vec![0x30, 28, 0x86, 26];
    content.extend_from_slice(b"spiffe://example.org/bobby");
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], content)];
    assert!(matches!(refused(&params), SvidError::Extension(_)));
}

#[test]
fn bytes_that_are_no_certificate_are_refused() {
    assert!(matches!(leaf_identity(b""), Err(SvidError::Der(_))));
    let good = der(&leaf(alice()));
    for length in [1, 10, good.len() / 2, good.len() - 1] {
        leaf_identity(&good[..length]).unwrap_err();
    }
    let mut long = good.clone();
    long.push(0);
    assert_eq!(
        leaf_identity(&long),
        Err(SvidError::TrailingBytes { bytes: 1 })
    );
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 0xff;
        // Any answer will do, a panic will not; no flip makes another valid name.
        if let Ok(id) = leaf_identity(&flipped) {
            assert_eq!(id.as_str(), "spiffe://example.org/alice");
        }
    }
}

// threat 4
#[test]
fn a_signer_is_an_authority_and_names_a_trust_domain() {
    let domain = |params: &CertificateParams| signing_identity(&der(params));
    let named = signer(vec![uri("spiffe://example.org")]);
    assert_eq!(domain(&named).unwrap().unwrap().as_str(), "example.org");
    assert_eq!(domain(&signer(vec![])), Ok(None));
    assert_eq!(domain(&signer(alice())), Err(SvidError::SignerWithPath));
    assert_eq!(domain(&leaf(vec![])), Err(SvidError::NotACa));
    let mut mute = named.clone();
    mute.key_usages = vec![KeyUsagePurpose::CrlSign];
    assert_eq!(domain(&mute), Err(SvidError::CannotSignCertificates));
    mute.key_usages = vec![];
    assert_eq!(domain(&mute), Err(SvidError::NoKeyUsage));
    mute.subject_alt_names = vec![];
    assert_eq!(domain(&mute), Ok(None));
    let two = signer(vec![
        uri("spiffe://example.org"),
        uri("spiffe://example.com"),
    ]);
    assert_eq!(domain(&two), Err(SvidError::UriCount { count: 2 }));
    let mut constrained = named;
    constrained.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::IpAddress(CidrSubnet::V4(
            [10, 0, 0, 0],
            [255, 0, 0, 0],
        ))],
        excluded_subtrees: vec![],
    });
    domain(&constrained).unwrap();
}

// threat 6
#[test]
fn a_signer_that_constrains_uri_names_is_refused() {
    let mut params = signer(vec![uri("spiffe://example.org")]);
    // NameConstraints { permitted: [uniformResourceIdentifier "a.org"] }.
    let content = vec![
        0x30, 11, 0xa0, 9, 0x30, 7, 0x86, 5, b'a', b'.', b'o', b'r', b'g',
    ];
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
    extension.set_criticality(true);
    params.custom_extensions = vec![extension];
    assert_eq!(
        signing_identity(&der(&params)),
        Err(SvidError::UriConstraint)
    );
}

#[test]
fn facts_name_the_rule_that_is_broken() {
    let mut params = leaf(vec![
        uri("spiffe://example.org/alice"),
        SanType::IpAddress("::1".parse().unwrap()),
    ]);
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2026, 1, 2);
    let facts = inspect(&der(&params)).unwrap();
    assert_eq!(facts.spiffe_id.unwrap().service(), "alice");
    assert_eq!(
        facts.not_after.duration_since(facts.not_before).unwrap(),
        Duration::from_hours(24)
    );
    assert_eq!(
        facts
            .not_before
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs(),
        1_767_225_600
    );
    assert_eq!(
        (facts.key.as_str(), facts.is_ca, facts.violation),
        ("EC 256 bit", false, None)
    );
    assert_eq!((facts.ip_addresses.len(), facts.fingerprint.len()), (1, 64));
    params.key_usages = vec![];
    assert_eq!(
        inspect(&der(&params)).unwrap().violation,
        Some(SvidError::NoKeyUsage)
    );
}
