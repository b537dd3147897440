//! Keys encrypted on disk, here and by OpenSSL.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use mesh_crypto::Error;
use mesh_crypto::KeyStore;
use mesh_crypto::Secret;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::keystore::OsFileSystem;
use mesh_crypto::keystore::read_passphrase;

use crate::support::BITS;
use crate::support::Canned;
use crate::support::open;
use crate::support::place;

const PASSPHRASE: &str = "correct horse battery staple";

fn with(dir: &Path, passphrase: &str) -> KeyStore {
    open(dir).unwrap().with_passphrase(
        Secret::from_slice(passphrase.as_bytes()),
        Arc::new(SystemRandom::new()),
    )
}

fn only_file(dir: &Path) -> PathBuf {
    let mut files = fs::read_dir(dir).unwrap();
    files.next().unwrap().unwrap().path()
}

/// Runs `openssl`, which this test does not do without: it is a package away everywhere.
#[expect(
    clippy::expect_used,
    reason = "whoever lacks the command is to read what to do"
)]
fn openssl(args: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl")
        .args(args)
        .output()
        .expect("these tests compare with OpenSSL: install the command openssl");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {said}");
    output.stdout
}

// threat 61
#[test]
fn a_key_is_encrypted_and_opens_with_its_passphrase_alone() {
    let (_parent, dir) = place();
    let engine = aws_lc();
    let made = with(&dir, PASSPHRASE)
        .generate(&Canned::new(), BITS, 1_000)
        .unwrap();
    let text = fs::read_to_string(only_file(&dir)).unwrap();
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
    let found = with(&dir, PASSPHRASE).newest(&*engine).unwrap().unwrap();
    assert_eq!(found.public(), made.public());
    assert!(matches!(
        with(&dir, "another").newest(&*engine),
        Err(Error::Passphrase { .. })
    ));
    assert!(matches!(
        open(&dir).unwrap().newest(&*engine),
        Err(Error::Encrypted { .. })
    ));
}

#[test]
fn a_plain_key_is_refused_where_a_passphrase_is_set() {
    let (_parent, dir) = place();
    open(&dir)
        .unwrap()
        .generate(&Canned::new(), BITS, 1)
        .unwrap();
    let error = with(&dir, PASSPHRASE).newest(&*aws_lc()).unwrap_err();
    assert!(error.to_string().contains("is not encrypted"), "{error}");
}

#[test]
fn a_salt_is_used_once() {
    let text = |()| {
        let (_parent, dir) = place();
        with(&dir, PASSPHRASE)
            .generate(&Canned::new(), BITS, 1)
            .unwrap();
        fs::read(only_file(&dir)).unwrap()
    };
    let [first, second] = [(), ()].map(text);
    assert_ne!(first, second);
}

#[test]
fn openssl_reads_what_is_written_here() {
    let (parent, dir) = place();
    let made = with(&dir, PASSPHRASE)
        .generate(&Canned::new(), BITS, 1)
        .unwrap();
    let file = only_file(&dir);
    let plain = parent.path().join("plain.pem");
    let pass = format!("pass:{PASSPHRASE}");
    let (file, plain) = (file.to_str().unwrap(), plain.to_str().unwrap());
    openssl(&["pkcs8", "-in", file, "-passin", &pass, "-out", plain]);
    let text = Secret::new(fs::read(plain).unwrap());
    let back = mesh_crypto::RsaKeyPair::from_pkcs8_pem(&*aws_lc(), &text).unwrap();
    assert_eq!(back.public(), made.public());
    // It is what we say that it is.
    let parsed = openssl(&["asn1parse", "-in", file]);
    let parsed = String::from_utf8_lossy(&parsed).into_owned();
    for part in [
        "PBES2",
        "PBKDF2",
        "hmacWithSHA256",
        "aes-256-cbc",
        ":0927C0",
    ] {
        assert!(parsed.contains(part), "{part} in {parsed}");
    }
}

#[test]
fn what_openssl_writes_is_read_here() {
    for args in [
        &["-v2", "aes-256-cbc", "-iter", "600000"][..],
        &["-v2", "aes-256-cbc"],
        &["-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA512"],
        &["-scrypt"],
    ] {
        let (_parent, dir) = place();
        let made = open(&dir)
            .unwrap()
            .generate(&Canned::new(), BITS, 1)
            .unwrap();
        let (file, pass) = (only_file(&dir), format!("pass:{PASSPHRASE}"));
        let name = file.to_str().unwrap();
        let start = ["pkcs8", "-topk8", "-in", name, "-passout", &pass];
        let text = openssl(&[&start[..], args].concat());
        fs::write(&file, text).unwrap();
        let found = with(&dir, PASSPHRASE).newest(&*aws_lc()).unwrap().unwrap();
        assert_eq!(found.public(), made.public(), "{args:?}");
    }
}

#[test]
fn what_is_not_read_says_so() {
    for args in [
        &["-v1", "PBE-SHA1-3DES"][..],
        &["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA1"],
        &[
            "-scrypt",
            "-scrypt_N",
            "2",
            "-scrypt_r",
            "1",
            "-scrypt_p",
            "17",
        ],
    ] {
        let (_parent, dir) = place();
        let engine = Canned::new();
        open(&dir).unwrap().generate(&engine, BITS, 1).unwrap();
        let (file, pass) = (only_file(&dir), format!("pass:{PASSPHRASE}"));
        let name = file.to_str().unwrap();
        let start = ["pkcs8", "-topk8", "-in", name, "-passout", &pass];
        fs::write(&file, openssl(&[&start[..], args].concat())).unwrap();
        let error = with(&dir, PASSPHRASE).newest(&*aws_lc()).unwrap_err();
        assert!(
            matches!(error, Error::KeyRejected { .. } | Error::Passphrase { .. }),
            "{args:?}: {error}"
        );
    }
}

#[test]
fn a_damaged_file_gives_the_same_key_or_none() {
    let (_parent, dir) = place();
    let engine = Canned::new();
    let plain = open(&dir).unwrap();
    let made = plain.generate(&engine, BITS, 1).unwrap();
    let (file, pass) = (only_file(&dir), format!("pass:{PASSPHRASE}"));
    let name = file.to_str().unwrap().to_owned();
    // One iteration, so that each try is quick.
    let der = openssl(&[
        "pkcs8", "-topk8", "-in", &name, "-passout", &pass, "-iter", "1", "-outform", "DER",
    ]);
    let store = with(&dir, PASSPHRASE);
    let write = |der: &[u8]| {
        let path = dir.join("der");
        fs::write(&path, der).unwrap();
        let body = openssl(&["base64", "-in", path.to_str().unwrap()]);
        fs::remove_file(&path).unwrap();
        let text = [
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
            &body[..],
            b"-----END ENCRYPTED PRIVATE KEY-----\n",
        ]
        .concat();
        fs::write(&file, text).unwrap();
    };
    write(&der);
    assert!(store.newest(&*aws_lc()).unwrap().is_some());
    for at in (0..120).chain((120..der.len()).step_by(97)) {
        let mut damaged = der.clone();
        damaged[at] ^= 0x01;
        write(&damaged);
        // CBC lets a bit of the first block be turned, such as that of a version which does not matter.
        if let Ok(found) = store.newest(&*aws_lc()) {
            assert_eq!(found.unwrap().public(), made.public(), "byte {at}");
        }
    }
}

// threat 61
#[test]
fn a_passphrase_file_is_read_if_nobody_else_can() {
    let (parent, _) = place();
    let path = parent.path().join("passphrase");
    let files = OsFileSystem::new();
    let write = |bytes: &[u8], mode: u32| {
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        read_passphrase(&files, &path)
    };
    for text in [&b"two words"[..], b"two words\n", b"two words\r\n"] {
        assert_eq!(write(text, 0o600).unwrap().expose(), b"two words");
    }
    assert_eq!(write(b" \n\n", 0o400).unwrap().expose(), b" \n");
    for mode in [0o640, 0o604, 0o660] {
        assert!(matches!(
            write(b"x", mode),
            Err(Error::Exposed { mode: found, .. }) if found == mode
        ));
    }
    assert!(matches!(write(b"\n", 0o600), Err(Error::StoreEntry { .. })));
    assert!(matches!(
        write(&[b'x'; 1_027], 0o600),
        Err(Error::Store { .. })
    ));
    let missing = read_passphrase(&files, &parent.path().join("none"));
    assert!(matches!(missing, Err(Error::Store { .. })));
    let directory = read_passphrase(&files, parent.path());
    assert!(matches!(directory, Err(Error::StoreEntry { .. })));
}
