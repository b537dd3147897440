//! Envelopes between this implementation and the one in `tests/python/envelope.py`.

use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use mesh_crypto::SystemRandom;
use mesh_crypto::envelope::CHUNK_LEN;
use mesh_crypto::envelope::Envelope;

use crate::support::data;
use crate::support::engines;
use crate::support::key;

/// A Python that has the package `cryptography`: that of `cargo xtask servers`, or the system's.
#[expect(
    clippy::print_stderr,
    reason = "a test that is skipped must not look like one that passed"
)]
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("MESH_TEST_SERVERS").map(PathBuf::from);
    // Tests lie in TARGET/PROFILE/deps; what cargo gives them as a place for files is TARGET/tmp.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let manifest = named.unwrap_or_else(|| target.join("servers/env.json"));
    let manifest = std::fs::read(manifest).unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap_or_default();
    let python = PathBuf::from(manifest["python"].as_str().unwrap_or("python3"));
    let works = Command::new(&python)
        .args(["-c", "import cryptography"])
        .output();
    if works.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    eprintln!("SKIPPED: python with cryptography is not here; run `cargo xtask servers`");
    None
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

/// Runs the script with these arguments and this input.
fn run(python: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(python)
        .arg("-B")
        .arg(file("python/envelope.py"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // It reads all of its input before it writes.
    std::thread::scope(|scope| {
        scope.spawn(move || pipe.write_all(input).unwrap_or_default());
        child.wait_with_output().unwrap()
    })
}

#[test]
fn the_second_implementation_agrees_with_the_vectors() {
    let Some(python) = python() else { return };
    let checked = run(&python, &["check", file("data").to_str().unwrap()], b"");
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(String::from_utf8_lossy(&checked.stdout), "8 vectors\n");
}

#[test]
fn each_implementation_opens_what_the_other_sealed() {
    let Some(python) = python() else { return };
    let random = SystemRandom::new();
    for engine in engines() {
        for (from, to, len) in [
            ("alice-2048", "bob-4096", 0),
            ("bob-3072", "alice-2048", CHUNK_LEN + 1),
        ] {
            let files = [from, to].map(|name| file(&format!("data/keys/{name}.pem")));
            let [from_file, to_file] = files.each_ref().map(|file| file.to_str().unwrap());
            let (from, to) = (key(&*engine, from), key(&*engine, to));
            let envelope = Envelope::new(&*engine, &random).with_aad(&[0xab, 0xcd]);
            let text = data(len);

            let theirs = run(&python, &["seal", from_file, to_file, "abcd"], &text);
            assert!(theirs.status.success(), "{theirs:?}");
            let opened = envelope
                .decrypt(&theirs.stdout, &to, from.public())
                .unwrap();
            assert!(opened == text);

            let ours = envelope.encrypt(&text, to.public(), &from).unwrap();
            let opened = run(&python, &["open", from_file, to_file, "abcd"], &ours);
            assert!(opened.status.success() && opened.stdout == text);
            let refused = run(&python, &["open", from_file, to_file, "ab"], &ours);
            assert!(!refused.status.success() && refused.stdout.is_empty());
        }
    }
}
