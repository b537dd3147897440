//! The test vectors: made with fixed randomness, and read step by step without this crate's own key schedule.
//!
//! `MESH_SESSION_VECTORS=write cargo test -p mesh-session --test vectors` writes them anew, with the keys of
//! those that are there.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test helper may panic"
)]

mod derive;
mod generate;
mod hex;
mod scripted;

use std::path::Path;

use mesh_crypto::AeadAlgorithm;
use mesh_crypto::RsaBits;
use mesh_session::Agreement;
use mesh_session::MacCover;
use mesh_session::Suite;
use serde_json::Value;

/// What is in a file.
struct File {
    name: &'static str,
    about: &'static str,
    suite: Suite,
    bits: [RsaBits; 2],
}

const FILES: [File; 4] = [
    File {
        name: "x25519mlkem768-aes256gcm-hmac",
        about: "The preferred suite; RSA-4096 on the side of the initiator, RSA-3072 on that of the responder.",
        suite: Suite::PREFERRED,
        bits: [RsaBits::B4096, RsaBits::B3072],
    },
    File {
        name: "x25519-aes256gcm-hmac",
        about: "Without ML-KEM; RSA-2048.",
        suite: Suite::CLASSIC,
        bits: [RsaBits::B2048; 2],
    },
    File {
        name: "x25519mlkem768-aes128gcm-hmactag",
        about: "With ML-KEM, AES-128, and an HMAC over header and GCM tag only; RSA-2048.",
        suite: Suite::new(
            Agreement::X25519MlKem768,
            AeadAlgorithm::Aes128Gcm,
            MacCover::HeaderAndTag,
        ),
        bits: [RsaBits::B2048; 2],
    },
    File {
        name: "x25519-aes192gcm-hmac",
        about: "Without ML-KEM, AES-192; RSA-2048.",
        suite: Suite::new(
            Agreement::X25519,
            AeadAlgorithm::Aes192Gcm,
            MacCover::Record,
        ),
        bits: [RsaBits::B2048; 2],
    },
];

impl File {
    fn path(&self) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("vectors/{}.json", self.name))
    }

    fn read(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path()).unwrap()).unwrap()
    }
}

#[test]
fn the_files_are_what_this_crate_makes_with_the_same_randomness() {
    let is_writing = std::env::var_os("MESH_SESSION_VECTORS").is_some_and(|mode| mode == "write");
    for file in &FILES {
        let keys = if is_writing && !file.path().exists() {
            file.bits.map(generate::new_key)
        } else {
            let old = file.read();
            ["initiator_pkcs8", "responder_pkcs8"].map(|key| hex::field(&old, key))
        };
        let made = generate::vectors(file, &keys);
        if is_writing {
            let text = serde_json::to_string_pretty(&made).unwrap() + "\n";
            std::fs::write(file.path(), text).unwrap();
        }
        assert_eq!(made, file.read(), "{}", file.name);
    }
}

#[test]
fn every_engine_finds_what_the_files_say() {
    for file in &FILES {
        let read = file.read();
        for engine in [
            mesh_crypto::engine::aws_lc(),
            mesh_crypto::engine::rustcrypto(),
        ] {
            let found = derive::handshake(&*engine, file.suite, &read);
            same(&found, &read);
            let resumed = (&read["resumed"], hex::field(&read, "resumption"));
            let found = derive::resumption(&*engine, file.suite, (resumed.0, &resumed.1));
            same(&found, resumed.0);
            derive::records(&*engine, file.suite, &read);
            derive::records(&*engine, file.suite, resumed.0);
        }
    }
}

fn same(found: &Value, read: &Value) {
    for (name, value) in found.as_object().unwrap() {
        assert_eq!(*value, read[name], "{name}");
    }
}

// threat 31: whoever has recorded everything and holds both RSA keys still lacks what came of the fresh shares.
#[test]
fn without_any_one_of_its_secrets_a_handshake_stays_closed() {
    let engine = mesh_crypto::engine::aws_lc();
    for file in &FILES {
        let read = file.read();
        let names = ["secret_i", "secret_r", "d_o", "d_e", "k_o", "k_e"];
        let names = names.into_iter().filter(|name| read.get(name).is_some());
        let secrets: Vec<_> = names.map(|name| hex::field(&read, name)).collect();
        assert!(derive::opens_reply(&*engine, &read, &secrets));
        for unknown in 0..secrets.len() {
            let mut guessed = secrets.clone();
            guessed[unknown].fill(0);
            assert!(!derive::opens_reply(&*engine, &read, &guessed));
        }
    }
}

#[test]
fn what_must_be_refused_is_refused() {
    for file in &FILES {
        let read = file.read();
        let refused = read["refused"].as_array().unwrap();
        assert!(refused.len() >= 20, "{}", file.name);
        for entry in refused {
            generate::refuse(file, &read, entry);
        }
    }
}
