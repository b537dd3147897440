//! The vectors of `ENVELOPE.md`: `tests/data/envelope.json`.
//!
//! The engine in pure Rust takes all of its randomness from outside, so it writes the file again byte for byte; every
//! engine opens what is in it, and what is derived on the way is computed from the document's sentences.

use mesh_crypto::SystemRandom;
use mesh_crypto::envelope::Envelope;
use serde_json::Value;

use crate::support::cut;
use crate::support::data;
use crate::support::derive;
use crate::support::engines;
use crate::support::key;
use crate::support::seal_chunks;

const FILE: &str = include_str!("../data/envelope.json");

fn hex(text: &Value) -> Vec<u8> {
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap();
    let text = text.as_str().unwrap().as_bytes();
    text.chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

fn vectors() -> Vec<Value> {
    let file: Value = serde_json::from_str(FILE).unwrap();
    file["vectors"].as_array().unwrap().clone()
}

#[test]
fn every_engine_opens_the_vectors() {
    let random = SystemRandom::new();
    for engine in engines() {
        for vector in vectors() {
            let name = vector["name"].as_str().unwrap();
            let (from, to) = (
                key(&*engine, vector["sender"].as_str().unwrap()),
                key(&*engine, vector["recipient"].as_str().unwrap()),
            );
            let (aad, header) = (hex(&vector["aad"]), hex(&vector["header"]));
            let text = data(usize::try_from(vector["data_len"].as_u64().unwrap()).unwrap());

            let (to_len, from_len) = (
                to.public().bits().modulus_len(),
                from.public().bits().modulus_len(),
            );
            let before = &header[..76 + to_len];
            let secret = hex(&vector["secret"]);
            let unwrapped = to
                .decrypt_oaep(&before[76..], b"mesh-envelope v1 secret\0")
                .unwrap();
            assert_eq!(unwrapped.expose(), secret, "{name}");
            let keys = derive(&*engine, &secret, &aad, before);
            assert_eq!(keys.transcript[..], hex(&vector["transcript"]), "{name}");
            assert_eq!(keys.key[..], hex(&vector["key"]), "{name}");
            assert_eq!(keys.iv[..], hex(&vector["iv"]), "{name}");
            assert_eq!(keys.commitment[..], hex(&vector["commitment"]), "{name}");

            let mut chunks: Vec<_> = text.chunks(65_536).map(|chunk| (0, chunk)).collect();
            if chunks.is_empty() {
                chunks.push((0, &[]));
            }
            chunks.last_mut().unwrap().0 = 1;
            let sealed = [&header[..], &seal_chunks(&*engine, &keys, &chunks)].concat();
            let hash = engine.sha256(&[&sealed]);
            assert_eq!(hash[..], hex(&vector["sha256"]), "{name}");
            let parts = cut(&sealed, to_len, from_len);
            let last = parts.chunks.last().unwrap();
            assert_eq!(last[last.len() - 16..], hex(&vector["last_tag"]), "{name}");

            let envelope = Envelope::new(&*engine, &random).with_aad(&aad);
            let opened = envelope.decrypt(&sealed, &to, from.public()).unwrap();
            assert!(opened == text, "{name}");
        }
    }
}

#[cfg(feature = "rustcrypto")]
#[test]
fn the_engine_in_pure_rust_writes_the_vectors_again() {
    use std::fmt::Write as _;

    use mesh_crypto::Random as _;
    use serde_json::json;

    use crate::support::Known;

    let engine = mesh_crypto::engine::rustcrypto();
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut out, byte| {
            write!(out, "{byte:02x}").unwrap();
            out
        })
    };
    let written = |(name, from, to, aad, len): (&str, &str, &str, &[u8], usize)| {
        let (sender, recipient) = (key(&*engine, from), key(&*engine, to));
        let seed = format!("mesh-envelope vector {name}");
        let sealed = Envelope::new(&*engine, &Known::new(&engine, &seed))
            .with_aad(aad)
            .encrypt(&data(len), recipient.public(), &sender)
            .unwrap();
        let (to_len, from_len) = (
            recipient.public().bits().modulus_len(),
            sender.public().bits().modulus_len(),
        );
        let parts = cut(&sealed, to_len, from_len);
        let mut secret = [0; 32];
        Known::new(&engine, &seed).fill(&mut secret).unwrap();
        let keys = derive(&*engine, &secret, aad, &parts.header[..76 + to_len]);
        let last = parts.chunks.last().unwrap();
        json!({
            "name": name, "seed": seed, "sender": from, "recipient": to, "aad": hex(aad), "data_len": len,
            "secret": hex(&secret), "transcript": hex(&keys.transcript), "key": hex(&keys.key), "iv": hex(&keys.iv),
            "commitment": hex(&keys.commitment), "header": hex(parts.header),
            "last_tag": hex(&last[last.len() - 16..]), "sha256": hex(&engine.sha256(&[&sealed])),
        })
    };
    let vectors: Vec<_> = [
        ("empty", "alice-2048", "bob-2048", &b""[..], 0),
        ("short", "alice-2048", "bob-2048", b"invoice 17", 11),
        ("one chunk", "alice-2048", "bob-2048", b"", 65_536),
        ("one byte more", "alice-2048", "bob-2048", b"", 65_537),
        (
            "three chunks",
            "bob-2048",
            "alice-2048",
            &[0xff; 100],
            196_608,
        ),
        ("3072 to 4096", "alice-3072", "bob-4096", b"sizes", 5),
        ("4096 to 3072", "alice-4096", "bob-3072", b"sizes", 5),
        ("to oneself", "carol-2048", "carol-2048", b"note", 1_000),
    ]
    .into_iter()
    .map(written)
    .collect();
    let file = json!({
        "about": "Envelopes as mesh-crypto/ENVELOPE.md describes them. Keys: tests/data/keys. Byte n of the data is n mod 251. \
                  The envelope is the header, then the chunks, which key and iv give; sha256 is of all of it.",
        "vectors": vectors,
    });
    let text = format!("{file:#}\n");
    if std::env::var_os("MESH_CRYPTO_WRITE_VECTORS").is_some() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/envelope.json");
        std::fs::write(path, &text).unwrap();
        return;
    }
    assert!(
        text == FILE,
        "to write the file: MESH_CRYPTO_WRITE_VECTORS=1"
    );
}
