//! Envelopes: the header, and the chunks behind it.

use std::sync::LazyLock;

use mesh_crypto::envelope;
use mesh_crypto::envelope::Envelope;

use crate::keys::ALICE;
use crate::keys::BOB;
use crate::keys::ENGINE;
use crate::keys::RANDOM;

/// More than two chunks.
static DATA: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..251_u8)
        .cycle()
        .take(2 * envelope::CHUNK_LEN + 1_000)
        .collect()
});

fn envelopes() -> Envelope<'static> {
    Envelope::new(&**ENGINE, &RANDOM).with_aad(b"fuzz")
}

/// Any bytes as an envelope from Alice to Bob. The first byte says into how long pieces they are cut, and whether they
/// get the right start and a signature that fits, so that the fields behind it are reached.
pub fn envelope_header(data: &[u8]) {
    let Some((how, bytes)) = data.split_first() else {
        return;
    };
    let bytes = if how & 1 == 1 {
        signed(bytes)
    } else {
        bytes.to_vec()
    };
    let parties = envelope::peek(&bytes);
    assert!(parties.is_ok() || envelopes().decrypt(&bytes, &BOB, ALICE.public()).is_err());
    let mut decryptor = envelopes().decryptor(&BOB, ALICE.public());
    let mut out = Vec::new();
    let whole = bytes
        .chunks(usize::from(how >> 1).max(1))
        .try_for_each(|piece| decryptor.push(piece, &mut out))
        .and_then(|()| decryptor.finish(&mut out));
    let at_once = envelopes().decrypt(&bytes, &BOB, ALICE.public());
    assert_eq!(whole.is_ok(), at_once.is_ok());
    // Nobody but the holder of Alice's key can write one that opens, and nobody can guess the commitment.
    assert!(at_once.is_err());
}

/// The fields that `bytes` begins with as a header that Alice signed, and the rest as chunks: the secret under OAEP (as
/// long as the first two bytes say), the commitment.
fn signed(bytes: &[u8]) -> Vec<u8> {
    const START: &[u8] = b"mesh-env\x01\x01";
    let mut out = START.to_vec();
    out.extend_from_slice(ALICE.public().fingerprint().as_bytes());
    out.extend_from_slice(BOB.public().fingerprint().as_bytes());
    let wrapped = bytes
        .first_chunk()
        .map_or(0, |len| usize::from(u16::from_be_bytes(*len)));
    let (head, chunks) = bytes.split_at((2 + wrapped + 32).min(bytes.len()));
    out.extend_from_slice(head);
    let to_sign = [
        b"mesh-envelope v1 signature\0".as_slice(),
        &ENGINE.sha256(&[b"fuzz"]),
        &out,
    ]
    .concat();
    let signature = ALICE.sign_pss(&to_sign, &RANDOM).unwrap();
    out.extend_from_slice(&u16::try_from(signature.len()).unwrap().to_be_bytes());
    out.extend_from_slice(&signature);
    out.extend_from_slice(chunks);
    out
}

/// An envelope of more than two chunks, damaged as the bytes say: what comes out is a beginning of what went in, and all
/// of it only if nothing was damaged.
///
/// Each five bytes are one change: what to do, where (two bytes, over the whole envelope), and with what.
pub fn envelope(data: &[u8]) {
    static SEALED: LazyLock<Vec<u8>> =
        LazyLock::new(|| envelopes().encrypt(&DATA, BOB.public(), &ALICE).unwrap());
    let good = &**SEALED;
    let mut bytes = good.to_vec();
    let (changes, _) = data.as_chunks::<5>();
    for [what, high, low, first, second] in changes.iter().copied().take(8) {
        let at = usize::from(u16::from_be_bytes([high, low]));
        // Both ends of it are of more interest than the middle.
        let at = if what & 0x80 == 0 {
            at % bytes.len().max(1)
        } else {
            bytes.len().saturating_sub(at % 70_000)
        };
        let len = usize::from(first) * 257;
        match what % 6 {
            0 => bytes
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= first),
            1 => bytes.truncate(at),
            2 => bytes.extend_from_slice(&[first, second]),
            3 => {
                let end = (at + len).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            4 => {
                let end = (at + len).min(bytes.len());
                let again = bytes[at.min(end)..end].to_vec();
                bytes.splice(end..end, again);
            }
            _ => {
                let chunk = envelope::CHUNK_LEN + 16;
                if bytes.len() > 2 * chunk + 2_000 {
                    let start = bytes.len() - 2 * chunk - 1_016;
                    let (one, other) = bytes[start..start + 2 * chunk].split_at_mut(chunk);
                    one.swap_with_slice(other);
                }
            }
        }
    }
    let mut decryptor = envelopes().decryptor(&BOB, ALICE.public());
    let mut out = Vec::new();
    let opened = decryptor
        .push(&bytes, &mut out)
        .and_then(|()| decryptor.finish(&mut out));
    assert!(DATA.starts_with(&out), "it gave out what was not sealed");
    assert_eq!(opened.is_ok(), bytes == good);
    assert!(opened.is_err() || out == *DATA);
}
