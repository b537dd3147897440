//! Bundles as servers publish them, and such as nobody should.

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SignatureAlgorithm,
};

use super::*;

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn root_with(name: &str, algorithm: &'static SignatureAlgorithm) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(name).unwrap())];
    let key = KeyPair::generate_for(algorithm).unwrap();
    params.self_signed(&key).unwrap().der().clone()
}

fn root() -> CertificateDer<'static> {
    root_with("spiffe://example.org", &rcgen::PKCS_ECDSA_P256_SHA256)
}

fn x5c(root: &CertificateDer<'_>) -> Value {
    json!({ "kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(root)] })
}

fn read(document: &Value) -> Result<Bundle, BundleError> {
    Bundle::from_json(domain(), document.to_string().as_bytes())
}

#[test]
fn what_is_written_reads_the_same_in_both_forms() {
    let algorithms = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ];
    let roots = algorithms.map(|algorithm| root_with("spiffe://example.org", algorithm));
    let bundle = Bundle::new(domain(), roots).unwrap();
    let full = bundle
        .clone()
        .with_sequence(u64::MAX)
        .with_refresh_hint(Duration::from_mins(5));
    let json = full.to_json().unwrap();
    assert_eq!(Bundle::parse(domain(), json.as_bytes()).unwrap(), full);
    let pem = bundle.to_pem();
    assert_eq!(Bundle::parse(domain(), pem.as_bytes()).unwrap(), bundle);

    let json: Value = serde_json::from_str(&json).unwrap();
    let sizes = [
        ("EC", "x", 43),
        ("EC", "y", 64),
        ("OKP", "x", 43),
        ("RSA", "n", 342),
    ];
    for (key, (kty, name, len)) in json["keys"].as_array().unwrap().iter().zip(sizes) {
        assert_eq!(
            (key["kty"].as_str(), &key["use"]),
            (Some(kty), &json!("x509-svid"))
        );
        assert_eq!(key[name].as_str().unwrap().len(), len, "{key}");
        assert_eq!(key.get("kid"), None);
        assert_eq!(key["x5c"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn keys_of_another_use_or_type_are_passed_over() {
    let (ours, other) = (root(), root());
    let bundle = read(&json!({
        "spiffe_sequence": 7,
        "spiffe_refresh_hint": 300,
        "something": { "else": [] },
        "keys": [
            { "kty": "EC", "use": "jwt-svid", "kid": "a", "crv": "P-256", "x": "", "y": "" },
            { "kty": "EC", "use": "X509-SVID", "x5c": [STANDARD.encode(&other)] },
            { "kty": "EC", "x5c": [STANDARD.encode(&other)] },
            { "kty": "new", "use": "x509-svid", "x5c": [STANDARD.encode(&other)] },
            { "use": "x509-svid", "x5c": [STANDARD.encode(&other)] },
            { "kty": "EC", "use": "x509-svid" },
            { "kty": "EC", "use": "x509-svid", "x5c": [] },
            "neither",
            { "kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(&ours), "all but the first are ignored"] },
            x5c(&ours),
        ],
    }));
    let bundle = bundle.unwrap();
    assert_eq!(bundle.roots(), [ours]);
    assert_eq!(bundle.sequence(), Some(7));
    assert_eq!(bundle.refresh_hint(), Some(Duration::from_mins(5)));
}

#[test]
fn a_domain_that_took_all_its_roots_back_has_none() {
    for keys in [json!([]), json!([{ "kty": "EC", "use": "jwt-svid" }])] {
        let bundle = read(&json!({ "keys": keys })).unwrap();
        assert!(bundle.roots().is_empty());
        assert_eq!(bundle.sequence(), None);
    }
}

#[test]
fn what_is_no_bundle_is_refused() {
    let refused = |document: Value| read(&document).unwrap_err().to_string();
    let mut long = "{".to_owned();
    long.push_str(&" ".repeat(MAX_BUNDLE_BYTES));
    for bytes in [
        "",
        "[]",
        "{",
        "null",
        "{\"keys\":[]} x",
        "\u{feff}{\"keys\":[]}",
        long.as_str(),
    ] {
        Bundle::from_json(domain(), bytes.as_bytes()).unwrap_err();
    }
    let deep = format!("{{\"keys\":{}", "[".repeat(100_000));
    Bundle::from_json(domain(), deep.as_bytes()).unwrap_err();
    assert!(refused(json!({})).contains("keys"));
    assert!(refused(json!({ "keys": {} })).contains("keys"));
    for wrong in [json!("1"), json!(-1), json!(1.5), json!(null)] {
        assert!(
            refused(json!({ "keys": [], "spiffe_sequence": wrong })).contains("spiffe_sequence")
        );
        assert!(refused(json!({ "keys": [], "spiffe_refresh_hint": wrong })).contains("hint"));
    }
    let x5c = |text: &str| json!({ "keys": [{ "kty": "EC", "use": "x509-svid", "x5c": [text] }] });
    assert!(refused(x5c("no base64!")).contains("key 0"));
    assert!(refused(x5c("AAAA")).contains("no root"));
    for pem in [
        "",
        "nothing",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    ] {
        Bundle::from_pem(domain(), pem.as_bytes()).unwrap_err();
    }
}

// threats 2, 4
#[test]
fn a_root_of_another_domain_or_a_workload_is_no_root() {
    let theirs = root_with("spiffe://partner.org", &rcgen::PKCS_ED25519);
    let refused = read(&json!({ "keys": [x5c(&root()), x5c(&theirs)] })).unwrap_err();
    let text = "certificate 1 of the trust bundle signs for partner.org, not for example.org";
    assert_eq!(refused.to_string(), text);
    let workload = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
    let refused = Bundle::new(domain(), [workload.cert.der().clone()]).unwrap_err();
    assert!(matches!(
        refused,
        BundleError::Root {
            index: 0,
            source: SvidError::NotACa
        }
    ));
    let many = vec![root(); MAX_ROOTS + 1];
    assert!(matches!(
        Bundle::new(domain(), many),
        Err(BundleError::TooManyRoots)
    ));
}
