//! HTTP/2 frame by frame, for requests that no client would send.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

/// What came back for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// An answer; whether its status is 200.
    Answer { is_ok: bool },
    /// The stream, or the whole connection, was ended without one.
    Refused,
}

/// Sends one request over a connection of its own, in plaintext with prior knowledge, as it is.
pub(crate) fn request(port: u16, headers: &[(&str, &[u8])], body: &[&[u8]]) -> Outcome {
    let mut block = Vec::new();
    for (name, value) in headers {
        // Literal header field without indexing, new name, no Huffman coding (RFC 7541 section 6.2.2).
        block.push(0);
        push_text(&mut block, name.as_bytes());
        push_text(&mut block, value);
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    push_frame(&mut bytes, (SETTINGS, 0, 0), &[]);
    let end_stream = u8::from(body.is_empty());
    push_frame(&mut bytes, (HEADERS, END_HEADERS | end_stream, 1), &block);
    for (piece, left) in body.iter().zip((0..body.len()).rev()) {
        push_frame(&mut bytes, (DATA, u8::from(left == 0), 1), piece);
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    // Who refuses may do so before all is sent.
    drop(stream.write_all(&bytes));
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return Outcome::Refused;
        }
        let [a, b, c, kind, _, _, _, _, of] = head;
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let mut payload = vec![0; len];
        if stream.read_exact(&mut payload).is_err() {
            return Outcome::Refused;
        }
        match (kind, of) {
            // Indexed header field 8 of the static table is `:status: 200` (RFC 7541 appendix A).
            (HEADERS, 1) => {
                let is_ok = payload.first() == Some(&0x88);
                return Outcome::Answer { is_ok };
            }
            (RESET | GOAWAY, _) => return Outcome::Refused,
            _ => {}
        }
    }
}

fn push_frame(bytes: &mut Vec<u8>, (kind, flags, stream): (u8, u8, u8), payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    bytes.extend(&len[1..]);
    bytes.extend([kind, flags, 0, 0, 0, stream]);
    bytes.extend(payload);
}

fn push_text(block: &mut Vec<u8>, text: &[u8]) {
    // A length below 127 is one byte (RFC 7541 section 5.1).
    block.push(u8::try_from(text.len()).unwrap());
    assert!(text.len() < 127, "too long for this client");
    block.extend(text);
}

/// Frame types and flags of RFC 9113 section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;
