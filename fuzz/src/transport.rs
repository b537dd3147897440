//! What mesh-transport reads of a session's carriage: gRPC messages, and the head inside a sealed record.
//!
//! Both modules are private there, so their files are included here as they are.

use bytes::Bytes;
use bytes::BytesMut;

#[allow(
    dead_code,
    reason = "it is another crate's, which uses more of it than this does"
)]
#[path = "../../mesh-transport/src/session/frame.rs"]
mod frame;
#[path = "../../mesh-transport/src/session/head.rs"]
mod head;

/// Messages out of a stream: the same ones wherever the stream is cut, and the bytes that make them.
///
/// The first byte says into how long pieces the rest is cut.
pub fn grpc_frame(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else {
        return;
    };
    let whole = messages(stream, stream.len().max(1));
    assert_eq!(whole, messages(stream, usize::from(*cut).max(1)));
    let (fields, _) = whole;
    for field in fields {
        let again = frame::message(&field);
        assert_eq!(
            again.len(),
            frame::prefix_len(field.len()) + field.len(),
            "the length of a prefix"
        );
        assert_eq!(messages(&again, again.len()), (vec![field], true));
    }
}

/// The fields of all messages, and whether the stream ended well.
fn messages(stream: &[u8], cut: usize) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = frame::Decoder::default();
    let mut fields = Vec::new();
    for piece in stream.chunks(cut) {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next() {
                Ok(Some(field)) => fields.push(field.to_vec()),
                Ok(None) => break,
                Err(_) => return (fields, false),
            }
        }
    }
    (fields, decoder.is_empty())
}

/// The head of a request, of an answer, and trailers: what is read is written again as the same.
pub fn sealed_head(data: &[u8]) {
    if let Ok(read) = head::request(data) {
        let mut out = BytesMut::new();
        if head::put_request(&mut out, &read).is_ok() {
            let again = head::request(&out).unwrap();
            assert_eq!(again.method, read.method);
            // The path is read as any target of a request, so that it may hold an authority, and that is what is written;
            // whether the two agree is for whoever makes the request canonical.
            if read.uri.authority().is_none() {
                assert_eq!(again.headers, read.headers);
            }
        }
    }
    if let Ok(read) = head::answer(data) {
        let mut out = BytesMut::new();
        head::put_answer(&mut out, &read).unwrap();
        let again = head::answer(&out).unwrap();
        assert_eq!((again.status, again.headers), (read.status, read.headers));
    }
    if let Ok(read) = head::trailers(data) {
        let mut out = BytesMut::new();
        if head::put_trailers(&mut out, &read).is_ok() {
            assert_eq!(head::trailers(&out).unwrap(), read);
        }
    }
}
