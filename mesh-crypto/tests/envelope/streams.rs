//! Envelopes over `std::io`.

use std::io;
use std::io::Read;
use std::io::Write;

use mesh_crypto::Error;
use mesh_crypto::SystemRandom;
use mesh_crypto::envelope::CHUNK_LEN;
use mesh_crypto::envelope::DecryptReader;
use mesh_crypto::envelope::EncryptWriter;
use mesh_crypto::envelope::Envelope;
use mesh_crypto::envelope::StreamError;

use crate::support::data;
use crate::support::engines;
use crate::support::key;

const RANDOM: SystemRandom = SystemRandom::new();

/// Gives its bytes seven at a time, and is interrupted before each.
struct Trickle<'a> {
    rest: &'a [u8],
    interrupted: bool,
}

impl<'a> Trickle<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self {
            rest,
            interrupted: false,
        }
    }
}

impl Read for Trickle<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = self.rest.len().min(out.len()).min(7_001);
        self.rest.read(&mut out[..len])
    }
}

/// Takes so many bytes and then fails.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let len = data.len().min(self.0);
        self.0 -= len;
        if len == 0 {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(len)
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives nothing.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _out: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("broken"))
    }
}

#[test]
fn streams_writers_and_readers_agree() {
    for engine in engines() {
        let (alice, bob) = (key(&*engine, "alice-2048"), key(&*engine, "bob-2048"));
        let envelope = Envelope::new(&*engine, &RANDOM);
        for len in [0, 1, CHUNK_LEN, 3 * CHUNK_LEN + 17] {
            let text = data(len);
            let mut streamed = Vec::new();
            let count = envelope.encrypt_stream(
                &mut Trickle::new(&text),
                &mut streamed,
                bob.public(),
                &alice,
            );
            assert_eq!(count.unwrap(), u64::try_from(len).unwrap());

            let encryptor = envelope.encryptor(bob.public(), &alice).unwrap();
            let mut writer = EncryptWriter::new(encryptor, Vec::new());
            for piece in text.chunks(10_007) {
                writer.write_all(piece).unwrap();
            }
            writer.flush().unwrap();
            let written = writer.finish().unwrap();
            assert_eq!(written.len(), streamed.len());

            for sealed in [&streamed, &written] {
                assert_eq!(
                    envelope.decrypt(sealed, &bob, alice.public()).unwrap(),
                    text
                );
                let mut opened = Vec::new();
                let count = envelope.decrypt_stream(
                    &mut Trickle::new(sealed),
                    &mut opened,
                    &bob,
                    alice.public(),
                );
                assert_eq!(count.unwrap(), u64::try_from(len).unwrap());
                assert_eq!(opened, text);
                let decryptor = envelope.decryptor(&bob, alice.public());
                let mut reader = DecryptReader::new(decryptor, Trickle::new(sealed));
                let mut opened = Vec::new();
                reader.read_to_end(&mut opened).unwrap();
                assert_eq!(opened, text);
            }
        }
    }
}

// threat 25
#[test]
fn a_cut_stream_ends_with_an_error_and_not_with_an_end() {
    let engine = engines().remove(0);
    let (alice, bob) = (key(&*engine, "alice-2048"), key(&*engine, "bob-2048"));
    let envelope = Envelope::new(&*engine, &RANDOM);
    let sealed = envelope
        .encrypt(&data(2 * CHUNK_LEN), bob.public(), &alice)
        .unwrap();
    for len in [100, 622, 622 + CHUNK_LEN + 16, sealed.len() - 1] {
        let cut = &sealed[..len];
        let mut out = Vec::new();
        let refused = envelope.decrypt_stream(&mut &*cut, &mut out, &bob, alice.public());
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, StreamError::Envelope(_)),
            "{len}: {refused:?}"
        );
        let mut reader = DecryptReader::new(envelope.decryptor(&bob, alice.public()), cut);
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.get_ref().unwrap().is::<Error>());
        // And it stays an error.
        reader.read(&mut [0; 8]).unwrap_err();
    }
}

#[test]
fn failures_of_the_streams_say_which_side_failed() {
    let engine = engines().remove(0);
    let (alice, bob) = (key(&*engine, "alice-2048"), key(&*engine, "bob-2048"));
    let envelope = Envelope::new(&*engine, &RANDOM);
    let text = data(2 * CHUNK_LEN);
    let refused = envelope.encrypt_stream(&mut &text[..], &mut Full(1_000), bob.public(), &alice);
    assert!(matches!(refused, Err(StreamError::Write(_))));
    let sealed = envelope.encrypt(&text, bob.public(), &alice).unwrap();
    let refused = envelope.decrypt_stream(&mut &sealed[..], &mut Full(1_000), &bob, alice.public());
    assert!(matches!(refused, Err(StreamError::Write(_))));
    let refused = envelope.encrypt_stream(&mut Broken, &mut Vec::new(), bob.public(), &alice);
    assert!(matches!(refused, Err(StreamError::Read(_))));

    let encryptor = envelope.encryptor(bob.public(), &alice).unwrap();
    let mut writer = EncryptWriter::new(encryptor, Full(1_000));
    writer.write_all(&text).unwrap_err();
    // What is lost stays lost: the rest is not sealed as if nothing were missing.
    writer.write_all(b"more").unwrap_err();
    assert!(matches!(writer.finish(), Err(error) if error.kind() == io::ErrorKind::Other));
}
