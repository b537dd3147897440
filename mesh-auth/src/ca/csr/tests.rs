//! Of a request the key is taken, once its holder has proven to hold it, and nothing else.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PKCS_ECDSA_P521_SHA256, SanType,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::X509Certificate;

use super::*;
use crate::ca::Authority;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::svid::{inspect, leaf_identity};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn sign(request: &SigningRequest) -> CertificateDer<'static> {
    let authority = Authority::generate(&domain(), Duration::from_hours(24), now()).unwrap();
    let id = SpiffeId::for_service(&domain(), "alice").unwrap();
    let signed = authority
        .sign(request, &id, Duration::from_hours(1), now())
        .unwrap();
    CertificateDer::from_pem_slice(signed.certificate_pem.as_bytes()).unwrap()
}

fn request_with(key: &KeyPair) -> Vec<u8> {
    let request = CertificateParams::default().serialize_request(key).unwrap();
    request.der().to_vec()
}

/// The certificate's key, written as in the request.
fn assert_same_key(request: &[u8], certificate: &CertificateDer<'_>) {
    let (_, request) = X509CertificationRequest::from_der(request).unwrap();
    let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
    assert_eq!(
        request.certification_request_info.subject_pki.raw,
        certificate.public_key().raw
    );
}

#[test]
fn every_kind_of_key_that_tls_takes_is_signed_as_it_stands() {
    for kind in KEYS {
        let request = request_with(&KeyPair::generate_for(kind).unwrap());
        let certificate = sign(&SigningRequest::from_der(&request).unwrap());
        assert_same_key(&request, &certificate);
        leaf_identity(&certificate).unwrap();
    }
    for (name, pem) in [
        // The hash that signs a request says nothing of the curve.
        ("p256-sha384", include_str!("openssl/p256-sha384.pem")),
        ("rsa-pss", include_str!("openssl/rsa-pss.pem")),
    ] {
        let certificate = sign(&SigningRequest::from_pem(pem.as_bytes()).expect(name));
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
        assert_same_key(&der, &certificate);
    }
}

#[test]
fn nothing_that_a_request_asks_for_is_granted() {
    let mut wishes = CertificateParams::default();
    wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wishes.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    wishes
        .distinguished_name
        .push(DnType::CommonName, "spiffe://example.org/admin");
    wishes.subject_alt_names = ["spiffe://example.org/admin", "spiffe://example.com/x"]
        .map(|uri| SanType::URI(uri.try_into().unwrap()))
        .into();
    wishes
        .subject_alt_names
        .push(SanType::DnsName("bank.example".try_into().unwrap()));
    let key = KeyPair::generate().unwrap();
    let request = wishes.serialize_request(&key).unwrap();
    let certificate = sign(&SigningRequest::from_der(request.der()).unwrap());
    let facts = inspect(&certificate).unwrap();
    assert_eq!(facts.violation, None);
    assert_eq!(facts.uris, ["spiffe://example.org/alice"]);
    assert_eq!(facts.dns_names, [""; 0]);
    assert!(!facts.is_ca);
    assert!(!facts.subject.contains("admin"), "{}", facts.subject);
}

#[test]
fn without_the_key_there_is_no_certificate() {
    let request = request_with(&KeyPair::generate().unwrap());
    SigningRequest::from_der(&request).unwrap();
    let (_, ours) = X509CertificationRequest::from_der(&request).unwrap();
    // What lies between the signed part and the signature only says how to check it.
    let signed = request.len() - ours.signature_value.data.len() - 3 - ALGORITHM_BYTES;
    for at in (0..signed).chain(signed + ALGORITHM_BYTES..request.len()) {
        let mut changed = request.clone();
        changed[at] ^= 1;
        assert!(SigningRequest::from_der(&changed).is_err(), "byte {at}");
    }
    // Somebody else's key under our signature.
    let other = request_with(&KeyPair::generate().unwrap());
    let (_, theirs) = X509CertificationRequest::from_der(&other).unwrap();
    let [ours, theirs] = [&ours, &theirs].map(|one| one.certification_request_info.subject_pki.raw);
    let at = request
        .windows(ours.len())
        .position(|window| window == ours)
        .unwrap();
    let mut stolen = request.clone();
    stolen.splice(at..at + ours.len(), theirs.iter().copied());
    assert!(matches!(
        SigningRequest::from_der(&stolen),
        Err(CsrError::Signature)
    ));
}

#[test]
fn weak_and_odd_keys_are_refused() {
    let check = |pem: &str| SigningRequest::from_pem(pem.as_bytes()).unwrap_err();
    assert!(matches!(
        check(include_str!("openssl/rsa-1024.pem")),
        CsrError::WeakRsa { bits: 1024, .. }
    ));
    assert!(matches!(
        check(include_str!("openssl/rsa-exponent-3.pem")),
        CsrError::WeakRsa { exponent: 3, .. }
    ));
    assert!(matches!(
        check(include_str!("openssl/rsa-sha1.pem")),
        CsrError::Signature
    ));
    assert!(matches!(
        check(include_str!("openssl/p256-compressed.pem")),
        CsrError::Point
    ));
    let p521 = request_with(&KeyPair::generate_for(&PKCS_ECDSA_P521_SHA256).unwrap());
    assert!(matches!(
        SigningRequest::from_der(&p521),
        Err(CsrError::KeyKind)
    ));
}

#[test]
fn what_is_no_request_is_refused() {
    let key = PendingKey::generate().unwrap();
    let pem = key.request_pem().unwrap();
    SigningRequest::from_pem(pem.as_bytes()).unwrap();
    assert!(matches!(
        SigningRequest::from_pem(b"nothing"),
        Err(CsrError::Pem(_))
    ));
    assert!(matches!(
        SigningRequest::from_pem(key.key_pem().as_bytes()),
        Err(CsrError::Pem(_))
    ));
    assert!(matches!(
        SigningRequest::from_pem(&vec![b'\n'; MAX_REQUEST_BYTES + 1]),
        Err(CsrError::TooLong { .. })
    ));
    let mut der = request_with(&KeyPair::generate().unwrap());
    for end in 0..der.len() {
        assert!(SigningRequest::from_der(&der[..end]).is_err(), "{end}");
    }
    der.push(0);
    assert!(matches!(
        SigningRequest::from_der(&der),
        Err(CsrError::TrailingBytes { bytes: 1 })
    ));
}

#[test]
fn a_pending_key_is_not_printed() {
    let key = PendingKey::generate().unwrap();
    assert!(!format!("{key:?}").contains("PRIVATE"));
}

/// `ecdsa-with-SHA256` as an `AlgorithmIdentifier`.
const ALGORITHM_BYTES: usize = 12;
