//! `mesh-node keys`, run as a person or a script would.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;
use tempfile::TempDir;

/// A folder that the program runs in.
struct Place(TempDir);

/// What one run gave.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn mode(&self, name: &str) -> u32 {
        let facts = fs::metadata(self.path(name)).unwrap();
        facts.permissions().mode() & 0o777
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Runs the program with the words of `line`, and nothing in its environment.
    fn run(&self, line: &str) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_mesh-node"))
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .env_clear()
            .output()
            .unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Puts the only key file back by `hours`, as if it had been made then.
    fn age_only_key(&self, hours: u64) {
        let file = only_file(&self.path("keys"));
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let parts: Vec<&str> = name.splitn(3, '-').collect();
        let made: u64 = parts[1].parse().unwrap();
        let earlier = format!("rsa-{:020}-{}", made - hours * 3_600, parts[2]);
        fs::rename(&file, file.with_file_name(earlier)).unwrap();
    }
}

fn only_file(dir: &Path) -> std::path::PathBuf {
    let mut files = fs::read_dir(dir).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    file
}

impl Ran {
    fn done(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self
    }

    fn failed(self, code: i32, message: &str) {
        assert_eq!(
            (self.code, self.err.trim_end()),
            (code, message),
            "{}",
            self.out
        );
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

fn hours_from_now(date: &Value) -> u64 {
    let date = humantime::parse_rfc3339(date.as_str().unwrap()).unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "compared with what another process read off the same clock"
    )]
    let now = SystemTime::now();
    let until = date.duration_since(now).unwrap_or_default() + Duration::from_mins(30);
    until.as_secs() / 3_600
}

#[test]
fn keys_are_made_and_listed() {
    let place = Place::new();
    for command in ["list", "rotate", "export-public"] {
        place.run(&format!("keys {command}")).failed(
            1,
            "error: there is no folder keys; `mesh-node keys generate` makes it, with a key",
        );
    }
    let made = place.run("keys generate --bits 2048 --json").done().json();
    let listed = place.run("keys list --json").done().json();
    assert_eq!(listed["keys"][0]["fingerprint"], made["fingerprint"]);
    assert_eq!(listed["keys"][0]["bits"], 2048);
    assert_eq!(listed["keys"][0]["state"], "current");
    assert_eq!(listed["keys"][0]["until"], Value::Null);
    assert_eq!(place.mode("keys"), 0o700);
    assert_eq!(
        place.mode(only_file(&place.path("keys")).to_str().unwrap()),
        0o600
    );
    assert_eq!(place.run("keys generate --bits 1024").code, 2);
    assert_eq!(place.run("keys rotate --bits 1024").code, 2);
    assert_eq!(place.run("keys rotate --overlap soon").code, 2);
}

#[test]
fn a_rotated_key_opens_through_the_overlap_and_goes_afterwards() {
    let place = Place::new();
    let first = place.run("keys generate --bits 2048 --json").done().json();
    place.age_only_key(30);
    let second = place.run("keys rotate --bits 2048 --json").done().json();
    assert_eq!(second["deleted"], Value::Array(Vec::new()));
    let keys = place.run("keys list --json --overlap 10h").done().json();
    assert_eq!(keys["keys"][0]["fingerprint"], first["fingerprint"]);
    assert_eq!(keys["keys"][0]["state"], "overlap");
    assert_eq!(hours_from_now(&keys["keys"][0]["until"]), 10);
    assert_eq!(keys["keys"][1]["fingerprint"], second["fingerprint"]);
    assert_eq!(keys["keys"][1]["state"], "current");
    let text = place.run("keys list").done().out;
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].contains("2048 bits  made ") && lines[0].contains("  overlap until "),
        "{text}"
    );
    assert!(lines[1].ends_with("  current"), "{text}");
    let over = place.run("keys list --overlap 0s").done().out;
    assert!(over.contains("  over since "), "{over}");

    // The first was replaced just now; it goes when no overlap is asked for, and the second is over then too.
    let third = place
        .run("keys rotate --bits 2048 --overlap 0s --json")
        .done()
        .json();
    let deleted: Vec<&Value> = third["deleted"].as_array().unwrap().iter().collect();
    assert!(deleted.contains(&&first["fingerprint"]), "{third}");
    assert!(!deleted.contains(&&third["fingerprint"]), "{third}");
    let newest = place.run("keys export-public --fingerprint").done().out;
    assert_eq!(newest.trim(), third["fingerprint"].as_str().unwrap());
}

#[test]
fn public_keys_are_exported_as_others_read_them() {
    let place = Place::new();
    let first = place.run("keys generate --bits 2048 --json").done().json();
    place.age_only_key(1);
    let second = place.run("keys rotate --bits 3072 --json").done().json();
    let (first, second) = (
        first["fingerprint"].as_str().unwrap(),
        second["fingerprint"].as_str().unwrap(),
    );
    let newest = place.run("keys export-public").done().out;
    assert!(
        newest.starts_with("-----BEGIN PUBLIC KEY-----\n")
            && newest.ends_with("-----END PUBLIC KEY-----\n")
    );
    let json = place.run("keys export-public --json").done().json();
    assert_eq!(
        (json["fingerprint"].as_str(), json["bits"].as_u64()),
        (Some(second), Some(3072))
    );
    assert_eq!(json["pem"].as_str(), Some(newest.as_str()));
    let older = place
        .run(&format!("keys export-public --key {first}"))
        .done()
        .out;
    assert_ne!(older, newest);
    place.write("older.pem", &older, 0o644);
    // What OpenSSL makes of it is the fingerprint: SHA-256 of the DER.
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl")
            .args(args)
            .current_dir(place.0.path())
            .output()
            .expect("this test compares with OpenSSL: install the command openssl");
        assert!(output.status.success(), "{args:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    openssl(&[
        "pkey",
        "-pubin",
        "-in",
        "older.pem",
        "-outform",
        "DER",
        "-out",
        "older.der",
    ]);
    let digest = openssl(&["dgst", "-sha256", "-r", "older.der"]);
    assert_eq!(digest.split(' ').next(), first.strip_prefix("sha256:"));
    let none = format!("sha256:{}", "00".repeat(32));
    place
        .run(&format!("keys export-public --key {none}"))
        .failed(
            1,
            &format!(
                "error: there is no key {none} in keys; `mesh-node keys list` says which there are"
            ),
        );
    assert_eq!(place.run("keys export-public --key abc").code, 2);
}

// threat 61
#[test]
fn keys_are_encrypted_with_the_passphrase_of_a_file_that_others_cannot_read() {
    let place = Place::new();
    place.write("pass", "correct horse battery staple\n", 0o644);
    place
        .run("keys generate --bits 2048 --passphrase-file pass")
        .failed(
            1,
            "error: could not use the passphrase file: pass has mode 644, \
         take all rights from group and others (chmod go= FILE)",
        );
    assert!(!place.path("keys").exists(), "nothing is left of a refusal");
    place.write("pass", "correct horse battery staple\n", 0o600);
    let made = place
        .run("keys generate --bits 2048 --passphrase-file pass --json")
        .done()
        .json();
    let text = fs::read_to_string(only_file(&place.path("keys"))).unwrap();
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
    let named = "the keys in keys are encrypted; name the file with their passphrase: --passphrase-file FILE";
    for command in [
        "list",
        "rotate --bits 2048",
        "generate --bits 2048",
        "export-public",
    ] {
        place
            .run(&format!("keys {command}"))
            .failed(1, &format!("error: {named}"));
    }
    let listed = place
        .run("keys list --passphrase-file pass --json")
        .done()
        .json();
    assert_eq!(listed["keys"][0]["fingerprint"], made["fingerprint"]);
    place.write("other", "another", 0o600);
    let wrong = place.run("keys rotate --bits 2048 --passphrase-file other");
    assert_eq!(wrong.code, 1);
    assert!(
        wrong.err.starts_with(
            "error: could not read the newest key in keys: the passphrase does not open keys/rsa-"
        ),
        "{}",
        wrong.err
    );
    // threat 20
    assert!(!wrong.err.contains("another") && !wrong.out.contains("another"));
    only_file(&place.path("keys"));
}

#[test]
fn a_plain_key_is_not_taken_for_an_encrypted_one() {
    let place = Place::new();
    place.run("keys generate --bits 2048").done();
    place.write("pass", "correct horse battery staple", 0o600);
    let refused = place.run("keys list --passphrase-file pass");
    assert_eq!(refused.code, 1);
    assert!(
        refused
            .err
            .contains("is not encrypted although a passphrase is set, encrypt it (openssl pkcs8")
    );
    place.run("keys list --passphrase-file none").failed(
        1,
        "error: could not use the passphrase file: could not read the passphrase file none: \
         No such file or directory (os error 2)",
    );
}
