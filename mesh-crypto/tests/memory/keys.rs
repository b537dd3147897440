//! Private keys, as numbers and as text, and the passphrase that one is encrypted with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_crypto::KeyStore;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::Secret;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::engine::rustcrypto;
use mesh_crypto::keystore::OsFileSystem;
use mesh_crypto::keystore::read_passphrase;

use crate::memory::Canary;
use crate::memory::alone;

/// Of tests/data/keys/alice-2048.pem: the upper half of its prime p, a part of its exponent d, and a part of a line.
const P: &str = "e547adc8a0fd3cb89689624abe28ba407410ccc327266c9511312c32f7d229cc";
const D: &str = "1a82e4d4d376f5e7eff83d80c842af3f2a74bbe75885fd16189236a558fb8b79";
const LINE: &str = "646631416e5673386345394a4f63665841707662424f41324676547a672b5034";
/// Of tests/data/keys/alice-2048-encrypted.pem.
const PASSPHRASE: &str = "6c616e7465726e2d6f747465722d7175696e63652d37663361393163322d6d6561646f77";
const FINGERPRINT: &str = "827a2419905f835d5123f9edcc9844abb8f5a86b06cd67281179d32766b681df";

fn data(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keys");
    folder.join(name)
}

/// How often each form of the private key is in memory: p and d as DER has them, both as numbers, and the text.
fn traces() -> [usize; 5] {
    let (p, d) = (Canary::from_hex(P), Canary::from_hex(D));
    let line = Canary::from_hex(LINE);
    [&p, &d, &p.reversed(), &d.reversed(), &line].map(Canary::count)
}

fn use_it(key: &RsaKeyPair) {
    let random = SystemRandom::new();
    let wrapped = key.public().encrypt_oaep(b"text", b"", &random).unwrap();
    key.decrypt_oaep(&wrapped, b"").unwrap();
    key.sign_pss(b"message", &random).unwrap();
    let text = key.to_pkcs8_pem().unwrap();
    assert!(Canary::from_hex(LINE).count() > 0);
    drop(text);
}

// threat 20
#[test]
fn a_private_key_is_gone_when_it_was_dropped() {
    let _alone = alone();
    for engine in [aws_lc(), rustcrypto()] {
        let text = Secret::new(fs::read(data("alice-2048.pem")).unwrap());
        let key = RsaKeyPair::from_pkcs8_pem(&*engine, &text).unwrap();
        drop(text);
        let live = traces();
        assert!(live.iter().sum::<usize>() > 0, "it is nowhere: {live:?}");
        use_it(&key);
        drop(key);
        let [p, d, p_number, d_number, text] = traces();
        assert_eq!([p, d, d_number, text], [0; 4], "{}", engine.name());
        // The crate `rsa` does not wipe the moduli of its arithmetic, as SECURITY.md says.
        assert!(p_number == 0 || engine.name() == "rustcrypto");
    }
}

// threat 20
#[test]
fn an_encrypted_key_and_its_passphrase_are_gone_when_they_were_dropped() {
    let _alone = alone();
    let passphrase = Canary::from_hex(PASSPHRASE);
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, from: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, from).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let encrypted = fs::read(data("alice-2048-encrypted.pem")).unwrap();
    put(
        &format!("rsa-00000000000000000001-{FINGERPRINT}.pem"),
        &encrypted,
    );
    let mut line = vec![0; passphrase.len()];
    passphrase.write(&mut line);
    let path = put("passphrase", &line);
    line.fill(0);
    std::hint::black_box(&line);
    assert_eq!(passphrase.count(), 0);

    // The other engine may have left something in the test above.
    let before = traces();
    let engine = aws_lc();
    let files = || Arc::new(OsFileSystem::new());
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let read = read_passphrase(&*files(), &path).unwrap();
    assert!(passphrase.count() > 0);
    let store = KeyStore::open(files(), folder.path()).unwrap();
    let store = store.with_passphrase(read, Arc::new(SystemRandom::new()));
    let key = store.newest(&*engine).unwrap().unwrap();
    use_it(&key);
    drop((key, store));
    let after = traces();
    let is_more = after
        .iter()
        .zip(&before)
        .any(|(after, before)| after > before);
    assert!(!is_more, "{before:?}, then {after:?}");
    assert_eq!(passphrase.count(), 0);
}
