//! Everything that is not exactly what the sender sealed for the recipient is refused.

use std::sync::Arc;

use mesh_crypto::Engine;
use mesh_crypto::Error;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::SystemRandom;
use mesh_crypto::envelope::CHUNK_LEN;
use mesh_crypto::envelope::Envelope;

use crate::support::Known;
use crate::support::cut;
use crate::support::data;
use crate::support::derive;
use crate::support::engines;
use crate::support::key;
use crate::support::seal_chunks;

const RANDOM: SystemRandom = SystemRandom::new();
const SEALED_LEN: usize = CHUNK_LEN + 16;

/// Alice writes to Bob.
struct Pair {
    engine: Arc<dyn Engine>,
    alice: RsaKeyPair,
    bob: RsaKeyPair,
}

impl Pair {
    fn of_each_engine() -> Vec<Self> {
        let pair = |engine: Arc<dyn Engine>| Self {
            alice: key(&*engine, "alice-2048"),
            bob: key(&*engine, "bob-2048"),
            engine,
        };
        engines().into_iter().map(pair).collect()
    }

    fn seal(&self, text: &[u8]) -> Vec<u8> {
        let envelope = Envelope::new(&*self.engine, &RANDOM).with_aad(b"aad");
        envelope
            .encrypt(text, self.bob.public(), &self.alice)
            .unwrap()
    }

    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let envelope = Envelope::new(&*self.engine, &RANDOM).with_aad(b"aad");
        envelope.decrypt(sealed, &self.bob, self.alice.public())
    }

    fn refuses(&self, sealed: &[u8], what: &str) {
        assert!(matches!(self.open(sealed), Err(Error::Open)), "{what}");
    }
}

#[test]
fn every_byte_counts() {
    for pair in Pair::of_each_engine() {
        let sealed = pair.seal(b"thirteen bytes");
        pair.open(&sealed).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            for flip in [0x01, 0x80, 0xff] {
                changed[at] = sealed[at] ^ flip;
                match pair.open(&changed) {
                    Err(Error::Open) => {}
                    // Magic, version, suite, and the lengths of the two fields.
                    Err(Error::Envelope { .. }) if at < 10 || [74, 75, 364, 365].contains(&at) => {}
                    other => panic!("byte {at}: {other:?}"),
                }
            }
        }
    }
}

// threat 25
#[test]
fn every_length_counts() {
    for pair in Pair::of_each_engine() {
        let sealed = pair.seal(b"text");
        let header = cut(&sealed, 256, 256).header.len();
        for len in 0..sealed.len() {
            match pair.open(&sealed[..len]) {
                Err(Error::Envelope { what }) if len < header => {
                    assert_eq!(what, "ends within its header");
                }
                Err(Error::Open) if len >= header => {}
                other => panic!("{len}: {other:?}"),
            }
        }
        let body = &sealed[header..];
        for more in [&b"\0"[..], &[0; 16], &sealed, body] {
            pair.refuses(&[&sealed, more].concat(), "something after the end");
            pair.refuses(
                &[&sealed[..header], more, body].concat(),
                "something before the chunks",
            );
        }
    }
}

// threats 24, 25 and 26
#[test]
fn chunks_have_their_place_in_their_envelope() {
    for pair in Pair::of_each_engine() {
        let (sealed, other) = (
            pair.seal(&data(3 * CHUNK_LEN)),
            pair.seal(&data(3 * CHUNK_LEN)),
        );
        let (parts, other) = (cut(&sealed, 256, 256), cut(&other, 256, 256));
        let [a, b, c] = parts.chunks[..] else {
            unreachable!("three chunks")
        };
        assert_eq!([a, b, c].map(<[u8]>::len), [SEALED_LEN; 3]);
        let with = |chunks: &[&[u8]]| [&[parts.header], chunks].concat().concat();
        pair.open(&with(&[a, b, c])).unwrap();
        for (chunks, what) in [
            (&[][..], "no chunk"),
            (&[a], "cut after the first"),
            (&[a, b], "cut after the second"),
            (&[b, c], "without the first"),
            (&[a, c], "without the second"),
            (&[b, a, c], "in another order"),
            (&[a, c, b], "the last before the end"),
            (&[a, a, b, c], "the first twice"),
            (&[a, b, b, c], "the second twice"),
            (&[a, b, c, c], "the last twice"),
            (&[c], "only the last"),
            (&[a, other.chunks[1], c], "one of another envelope"),
            (&[a, b, other.chunks[2]], "the end of another envelope"),
            (&other.chunks, "all of another envelope"),
            (&[a, b, &c[..SEALED_LEN - 1]], "a byte short"),
            (&[a, &b[..100], c], "a hole"),
        ] {
            pair.refuses(&with(chunks), what);
        }
    }
}

#[test]
fn what_is_given_out_before_a_failure_is_authentic_and_nothing_follows() {
    for pair in Pair::of_each_engine() {
        let text = data(2 * CHUNK_LEN + 5);
        let mut sealed = pair.seal(&text);
        let second = cut(&sealed, 256, 256).header.len() + SEALED_LEN;
        sealed[second + 7] ^= 1;
        let envelope = Envelope::new(&*pair.engine, &RANDOM).with_aad(b"aad");
        let mut decryptor = envelope.decryptor(&pair.bob, pair.alice.public());
        let mut out = Vec::new();
        assert!(matches!(
            decryptor.push(&sealed, &mut out),
            Err(Error::Open)
        ));
        assert_eq!(out, text[..CHUNK_LEN]);
        assert!(matches!(
            decryptor.push(&sealed, &mut out),
            Err(Error::Open)
        ));
        assert!(matches!(decryptor.finish(&mut out), Err(Error::Open)));
        assert_eq!(out.len(), CHUNK_LEN);
    }
}

// threat 26
#[test]
fn another_recipient_sender_or_data_beside_it_opens_nothing() {
    for pair in Pair::of_each_engine() {
        let sealed = pair.seal(b"text");
        let (engine, carol) = (&*pair.engine, key(&*pair.engine, "carol-2048"));
        let envelope = Envelope::new(engine, &RANDOM).with_aad(b"aad");
        for (to, from, what) in [
            (&carol, &pair.alice, "another recipient"),
            (&pair.bob, &carol, "another sender"),
            (&pair.alice, &pair.bob, "reflected"),
            (&pair.bob, &pair.bob, "from the recipient"),
        ] {
            let refused = envelope.decrypt(&sealed, to, from.public());
            assert!(matches!(refused, Err(Error::Open)), "{what}");
        }
        for aad in [&b""[..], b"aa", b"aad\0", b"AAD"] {
            let envelope = Envelope::new(engine, &RANDOM).with_aad(aad);
            let refused = envelope.decrypt(&sealed, &pair.bob, pair.alice.public());
            assert!(matches!(refused, Err(Error::Open)), "{aad:?}");
        }
    }
}

/// The start of an envelope from Alice to Bob up to the commitment, around this ciphertext.
fn start(pair: &Pair, wrapped: &[u8]) -> Vec<u8> {
    let mut header = b"mesh-env\x01\x01".to_vec();
    header.extend_from_slice(pair.alice.public().fingerprint().as_bytes());
    header.extend_from_slice(pair.bob.public().fingerprint().as_bytes());
    header.extend_from_slice(&[1, 0]);
    header.extend_from_slice(wrapped);
    header
}

/// Signs and appends the rest, as Alice.
fn complete(pair: &Pair, mut header: Vec<u8>, commitment: &[u8]) -> Vec<u8> {
    header.extend_from_slice(commitment);
    let signed = [
        &b"mesh-envelope v1 signature\0"[..],
        &pair.engine.sha256(&[b"aad"]),
        &header,
    ];
    let signature = pair.alice.sign_pss(&signed.concat(), &RANDOM).unwrap();
    header.extend_from_slice(&[1, 0]);
    header.extend_from_slice(&signature);
    header
}

// threats 28 and 30
#[test]
fn a_sender_that_breaks_the_rules_gets_the_same_refusal_for_each() {
    const LABEL: &[u8] = b"mesh-envelope v1 secret\0";
    for pair in Pair::of_each_engine() {
        let engine = &*pair.engine;
        let wrap = |secret: &[u8], label: &[u8]| {
            let bob = pair.bob.public();
            bob.encrypt_oaep(secret, label, &RANDOM).unwrap()
        };
        let seal = |wrapped: &[u8], secret: &[u8], chunks: &[(u8, &[u8])]| {
            let header = start(&pair, wrapped);
            let keys = derive(engine, secret, b"aad", &header);
            let header = complete(&pair, header, &keys.commitment);
            [header, seal_chunks(engine, &keys, chunks)].concat()
        };
        let secret = [7; 32];
        let good = wrap(&secret, LABEL);
        let full = data(CHUNK_LEN);
        // The rules, kept by hand.
        let sealed = seal(&good, &secret, &[(0, &full), (1, b"end")]);
        assert_eq!(pair.open(&sealed).unwrap().len(), CHUNK_LEN + 3);

        let other = wrap(&secret, b"another label");
        pair.refuses(&seal(&other, &secret, &[(1, b"")]), "another label");
        pair.refuses(&seal(&[0x55; 256], &secret, &[(1, b"")]), "no ciphertext");
        pair.refuses(
            &seal(&[0xff; 256], &secret, &[(1, b"")]),
            "a number above the modulus",
        );
        let (short, long) = (&secret[..31], [7; 33]);
        pair.refuses(
            &seal(&wrap(short, LABEL), short, &[(1, b"")]),
            "a short secret",
        );
        pair.refuses(
            &seal(&wrap(&long, LABEL), &long, &[(1, b"")]),
            "a long secret",
        );
        pair.refuses(
            &seal(&good, &[8; 32], &[(1, b"")]),
            "another secret committed to",
        );
        pair.refuses(
            &seal(&good, &secret, &[(0, &full), (1, b"")]),
            "an empty last chunk",
        );
        pair.refuses(
            &seal(&good, &secret, &[(0, b"x"), (1, b"y")]),
            "a short chunk within",
        );
        pair.refuses(
            &seal(&good, &secret, &[(0, &full), (0, b"x")]),
            "no last chunk",
        );
        pair.refuses(
            &seal(&good, &secret, &[(1, &full), (1, b"x")]),
            "a last chunk within",
        );
        pair.refuses(&seal(&good, &secret, &[(2, b"x")]), "another flag");
    }
}

#[test]
fn a_key_of_another_size_is_no_key_of_the_envelope() {
    for engine in engines() {
        let (alice, bob) = (key(&*engine, "alice-2048"), key(&*engine, "bob-2048"));
        let other = key(&*engine, "bob-3072");
        let envelope = Envelope::new(&*engine, &RANDOM);
        let sealed = envelope.encrypt(b"", bob.public(), &alice).unwrap();
        // The fingerprint of the larger key over a field that is as long as the smaller.
        let mut forged = sealed.clone();
        forged[42..74].copy_from_slice(other.public().fingerprint().as_bytes());
        let refused = envelope.decrypt(&forged, &other, alice.public());
        assert!(matches!(refused, Err(Error::Open)));
    }
}

#[test]
fn a_source_of_randomness_that_fails_is_no_wrong_envelope() {
    #[derive(Debug)]
    struct Fails;
    impl mesh_crypto::Random for Fails {
        fn fill(&self, _out: &mut [u8]) -> Result<(), Error> {
            Err(Error::Random)
        }
    }
    for pair in Pair::of_each_engine() {
        let sealed = pair.seal(b"text");
        let envelope = Envelope::new(&*pair.engine, &Fails).with_aad(b"aad");
        let refused = envelope.encrypt(b"", pair.bob.public(), &pair.alice);
        assert!(matches!(refused, Err(Error::Random)));
        let refused = envelope.decrypt(&sealed, &pair.bob, pair.alice.public());
        assert!(matches!(refused, Err(Error::Random)));
        let known = Known::new(&pair.engine, "opening takes any");
        let envelope = Envelope::new(&*pair.engine, &known).with_aad(b"aad");
        envelope
            .decrypt(&sealed, &pair.bob, pair.alice.public())
            .unwrap();
    }
}
