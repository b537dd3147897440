//! What is sealed opens, whole and as it was.

use std::sync::Arc;

use mesh_crypto::Error;
use mesh_crypto::SystemRandom;
use mesh_crypto::envelope::CHUNK_LEN;
use mesh_crypto::envelope::Envelope;
use mesh_crypto::envelope::PEEK_LEN;
use mesh_crypto::envelope::peek;
use mesh_crypto::pem;
use proptest::prelude::*;

use crate::support::Known;
use crate::support::data;
use crate::support::engines;
use crate::support::key;
use crate::support::pairs;

const RANDOM: SystemRandom = SystemRandom::new();

#[test]
fn each_engine_opens_what_each_sealed_at_every_border_of_a_chunk() {
    for [sealer, opener] in pairs() {
        let (alice, bob) = (key(&*sealer, "alice-2048"), key(&*opener, "bob-2048"));
        for len in [
            0,
            1,
            16,
            CHUNK_LEN - 1,
            CHUNK_LEN,
            CHUNK_LEN + 1,
            3 * CHUNK_LEN,
        ] {
            let text = data(len);
            let to = key(&*sealer, "bob-2048");
            let sealed = Envelope::new(&*sealer, &RANDOM)
                .with_aad(b"aad")
                .encrypt(&text, to.public(), &alice)
                .unwrap();
            // Header, data, and a tag for each chunk, of which there is always one.
            let chunks = len.div_ceil(CHUNK_LEN).max(1);
            assert_eq!(
                sealed.len(),
                74 + 2 + 256 + 32 + 2 + 256 + len + 16 * chunks
            );
            let from = key(&*opener, "alice-2048");
            let opened = Envelope::new(&*opener, &RANDOM)
                .with_aad(b"aad")
                .decrypt(&sealed, &bob, from.public())
                .unwrap();
            assert_eq!(opened, text, "{len} {sealer:?} {opener:?}");
        }
    }
}

#[test]
fn keys_of_all_sizes_go_together() {
    for engine in engines() {
        for from in ["alice-2048", "alice-3072", "alice-4096"] {
            for to in ["bob-2048", "bob-3072", "bob-4096"] {
                let (from, to) = (key(&*engine, from), key(&*engine, to));
                let envelope = Envelope::new(&*engine, &RANDOM);
                let sealed = envelope.encrypt(b"text", to.public(), &from).unwrap();
                let opened = envelope.decrypt(&sealed, &to, from.public()).unwrap();
                assert_eq!(opened, b"text");
            }
        }
    }
}

#[test]
fn its_start_says_from_whom_and_to_whom() {
    for engine in engines() {
        let (alice, bob) = (key(&*engine, "alice-2048"), key(&*engine, "bob-3072"));
        let envelope = Envelope::new(&*engine, &RANDOM);
        let sealed = envelope.encrypt(b"", bob.public(), &alice).unwrap();
        let parties = peek(&sealed[..PEEK_LEN]).unwrap();
        assert_eq!(parties.sender, alice.public().fingerprint());
        assert_eq!(parties.recipient, bob.public().fingerprint());
        peek(&sealed[..PEEK_LEN - 1]).unwrap_err();
    }
}

#[test]
fn public_keys_travel_as_text() {
    for engine in engines() {
        let alice = key(&*engine, "alice-3072");
        let text = pem::encode_public(alice.public());
        let back = pem::decode_public(&*engine, &text).unwrap();
        assert_eq!(&back, alice.public());
        let private = include_str!("../data/keys/alice-3072.pem");
        for bad in [
            "",
            private,
            &text.replace("PUBLIC", "RSA PUBLIC"),
            text.trim_end_matches("-\n"),
        ] {
            let refused = pem::decode_public(&*engine, bad);
            assert!(matches!(refused, Err(Error::Pem { .. })), "{bad}");
        }
    }
}

#[test]
fn a_sender_can_write_to_itself() {
    for engine in engines() {
        let alice = key(&*engine, "alice-2048");
        let envelope = Envelope::new(&*engine, &RANDOM);
        let sealed = envelope.encrypt(b"a note", alice.public(), &alice).unwrap();
        let opened = envelope.decrypt(&sealed, &alice, alice.public()).unwrap();
        assert_eq!(opened, b"a note");
    }
}

#[test]
fn two_envelopes_of_one_text_have_nothing_in_common() {
    for engine in engines() {
        let (alice, bob) = (key(&*engine, "alice-2048"), key(&*engine, "bob-2048"));
        let envelope = Envelope::new(&*engine, &RANDOM);
        let [first, second] = [(), ()].map(|()| {
            let sealed = envelope.encrypt(&data(64), bob.public(), &alice);
            sealed.unwrap().split_off(76)
        });
        let same = first.iter().zip(&second).filter(|(a, b)| a == b).count();
        assert!(same < 40, "{same} of {} bytes are the same", first.len());
    }
}

/// Gives `bytes` to `push` in pieces that end at `cuts`.
fn in_pieces(bytes: &[u8], cuts: &[usize], mut push: impl FnMut(&[u8])) {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    let mut start = 0;
    for cut in cuts.into_iter().chain([bytes.len()]) {
        push(&bytes[start..cut]);
        start = cut;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pieces_give_the_same_envelope_and_the_same_data(
        len in prop_oneof![0..200_usize, CHUNK_LEN - 3..CHUNK_LEN + 3, 2 * CHUNK_LEN - 3..2 * CHUNK_LEN + 3],
        aad in proptest::collection::vec(any::<u8>(), 0..40),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        for engine in engines() {
            let (alice, bob) = (key(&*engine, "alice-2048"), key(&*engine, "bob-2048"));
            let text = data(len);
            let known = Known::new(&engine, "pieces");
            let mut encryptor = Envelope::new(&*engine, &known).with_aad(&aad).encryptor(bob.public(), &alice).unwrap();
            let mut sealed = Vec::new();
            in_pieces(&text, &cuts, |piece| encryptor.push(piece, &mut sealed).unwrap());
            encryptor.finish(&mut sealed).unwrap();
            if engine.name() == "rustcrypto" {
                let known = Known::new(&engine, "pieces");
                let whole = Envelope::new(&*engine, &known).with_aad(&aad).encrypt(&text, bob.public(), &alice).unwrap();
                prop_assert!(whole == sealed);
            }
            let envelope = Envelope::new(&*engine, &RANDOM).with_aad(&aad);
            let mut decryptor = envelope.decryptor(&bob, alice.public());
            let mut opened = Vec::new();
            in_pieces(&sealed, &cuts, |piece| decryptor.push(piece, &mut opened).unwrap());
            decryptor.finish(&mut opened).unwrap();
            prop_assert!(opened == text);
        }
    }

    #[test]
    fn one_byte_at_a_time_is_enough(len in 0..40_usize) {
        for engine in engines() {
            let (alice, bob) = (key(&*engine, "alice-2048"), key(&*engine, "bob-2048"));
            let envelope = Envelope::new(&*engine, &RANDOM);
            let mut encryptor = envelope.encryptor(bob.public(), &alice).unwrap();
            let mut sealed = Vec::new();
            for byte in data(len) {
                encryptor.push(&[byte], &mut sealed).unwrap();
            }
            encryptor.finish(&mut sealed).unwrap();
            let mut decryptor = envelope.decryptor(&bob, alice.public());
            let mut opened = Vec::new();
            for byte in &sealed {
                decryptor.push(&[*byte], &mut opened).unwrap();
            }
            prop_assert!(opened.is_empty(), "nothing of a chunk comes out before all of it is in");
            decryptor.finish(&mut opened).unwrap();
            prop_assert_eq!(opened, data(len));
        }
    }
}

#[test]
fn an_encryptor_can_move_to_another_thread() {
    fn assert_send<T: Send>() {}
    assert_send::<mesh_crypto::envelope::Encryptor>();
    assert_send::<mesh_crypto::envelope::Decryptor<'static>>();
    assert_send::<Arc<Envelope<'static>>>();
}
