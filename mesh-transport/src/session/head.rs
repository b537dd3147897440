//! The head of a request or answer, and trailers, as bytes inside a sealed record.
//!
//! ```text
//! request  = method:str16 path:str16 authority:str16 headers
//! answer   = status:u16 headers
//! trailers = headers
//! headers  = count:u16 { name:str16 value:str16 }
//! str16    = length:u16 bytes                            all numbers big-endian
//! ```

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![expect(
    clippy::map_err_ignore,
    reason = "there is one error for every malformed head"
)]

use bytes::BufMut;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::header;
use http::uri::PathAndQuery;

/// A head that is not of the form above, or says what HTTP forbids.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the sealed head is malformed")]
#[non_exhaustive]
pub struct HeadError;

/// A head that does not fit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the head is larger than {MAX_HEAD_BYTES} bytes")]
#[non_exhaustive]
pub struct HeadTooLarge;

pub(crate) fn put_request(
    out: &mut BytesMut,
    request: &http::request::Parts,
) -> Result<(), HeadTooLarge> {
    put_str(out, request.method.as_str().as_bytes())?;
    let path = request
        .uri
        .path_and_query()
        .map_or("/", PathAndQuery::as_str);
    put_str(out, path.as_bytes())?;
    let host = request.headers.get(header::HOST).map(HeaderValue::as_bytes);
    let authority = request
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    put_str(out, authority.or(host).unwrap_or_default())?;
    put_headers(out, &request.headers, Some(&header::HOST))
}

pub(crate) fn put_answer(
    out: &mut BytesMut,
    answer: &http::response::Parts,
) -> Result<(), HeadTooLarge> {
    out.put_u16(answer.status.as_u16());
    put_headers(out, &answer.headers, None)
}

pub(crate) fn put_trailers(out: &mut BytesMut, trailers: &HeaderMap) -> Result<(), HeadTooLarge> {
    put_headers(out, trailers, None)
}

pub(crate) fn request(mut bytes: &[u8]) -> Result<http::request::Parts, HeadError> {
    let bytes = &mut bytes;
    let method = Method::from_bytes(take_str(bytes)?).map_err(|_| HeadError)?;
    let path = take_str(bytes)?;
    // In any other form it could name an authority that the head's own does not.
    if path.first() != Some(&b'/') && path != b"*" {
        return Err(HeadError);
    }
    let path = PathAndQuery::try_from(path).map_err(|_| HeadError)?;
    let authority = HeaderValue::from_bytes(take_str(bytes)?).map_err(|_| HeadError)?;
    let mut headers = take_headers(bytes)?;
    if headers.insert(header::HOST, authority).is_some() || !bytes.is_empty() {
        return Err(HeadError);
    }
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method;
    parts.uri = Uri::from(path);
    parts.headers = headers;
    Ok(parts)
}

pub(crate) fn answer(mut bytes: &[u8]) -> Result<http::response::Parts, HeadError> {
    let bytes = &mut bytes;
    let status = StatusCode::from_u16(take_u16(bytes)?).map_err(|_| HeadError)?;
    // There is one head an exchange, the final one; an HTTP/1.1 client would wait for more behind another.
    if status.is_informational() {
        return Err(HeadError);
    }
    let headers = take_headers(bytes)?;
    if !bytes.is_empty() {
        return Err(HeadError);
    }
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = status;
    parts.headers = headers;
    Ok(parts)
}

pub(crate) fn trailers(mut bytes: &[u8]) -> Result<HeaderMap, HeadError> {
    let bytes = &mut bytes;
    let headers = take_headers(bytes)?;
    if bytes.is_empty() {
        Ok(headers)
    } else {
        Err(HeadError)
    }
}

fn put_len(out: &mut BytesMut, len: usize) -> Result<(), HeadTooLarge> {
    let Ok(len) = u16::try_from(len) else {
        return Err(HeadTooLarge);
    };
    out.put_u16(len);
    Ok(())
}

fn put_str(out: &mut BytesMut, text: &[u8]) -> Result<(), HeadTooLarge> {
    if text.len() > MAX_HEAD_BYTES.saturating_sub(out.len()) {
        return Err(HeadTooLarge);
    }
    put_len(out, text.len())?;
    out.put_slice(text);
    Ok(())
}

fn put_headers(
    out: &mut BytesMut,
    headers: &HeaderMap,
    skip: Option<&HeaderName>,
) -> Result<(), HeadTooLarge> {
    let skipped = skip.map_or(0, |name| headers.get_all(name).iter().count());
    let count = headers.len().saturating_sub(skipped);
    put_len(out, count)?;
    for (name, value) in headers {
        if Some(name) != skip {
            put_str(out, name.as_str().as_bytes())?;
            put_str(out, value.as_bytes())?;
        }
    }
    Ok(())
}

fn take_u16(bytes: &mut &[u8]) -> Result<u16, HeadError> {
    let (number, rest) = bytes.split_first_chunk::<2>().ok_or(HeadError)?;
    *bytes = rest;
    Ok(u16::from_be_bytes(*number))
}

fn take_str<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], HeadError> {
    let len = usize::from(take_u16(bytes)?);
    let (text, rest) = bytes.split_at_checked(len).ok_or(HeadError)?;
    *bytes = rest;
    Ok(text)
}

fn take_headers(bytes: &mut &[u8]) -> Result<HeaderMap, HeadError> {
    let count = usize::from(take_u16(bytes)?);
    // Every header takes at least five bytes, so a small record can't ask for a large map.
    if count > bytes.len() / 5 {
        return Err(HeadError);
    }
    let mut headers = HeaderMap::try_with_capacity(count).map_err(|_| HeadError)?;
    for _ in 0..count {
        let name = HeaderName::from_bytes(take_str(bytes)?).map_err(|_| HeadError)?;
        let value = HeaderValue::from_bytes(take_str(bytes)?).map_err(|_| HeadError)?;
        headers.try_append(name, value).map_err(|_| HeadError)?;
    }
    Ok(headers)
}

/// As much as a header block over HTTP/2 may take ([`ServerConfig`](crate::server::ServerConfig)); a record has room for it.
pub(crate) const MAX_HEAD_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy;

    use super::*;

    #[test]
    fn a_request_head_comes_back_as_it_went_in() {
        let (mut parts, ()) = http::Request::put("/a%20b?c=d")
            .body(())
            .unwrap()
            .into_parts();
        parts
            .headers
            .insert(header::HOST, HeaderValue::from_static("order-service:80"));
        parts
            .headers
            .append("x-many", HeaderValue::from_static("1"));
        parts
            .headers
            .append("x-many", HeaderValue::from_bytes(&[0xfe]).unwrap());
        let mut bytes = BytesMut::new();
        put_request(&mut bytes, &parts).unwrap();
        let back = request(&bytes).unwrap();
        assert_eq!(
            (back.method, back.uri, back.headers),
            (parts.method, parts.uri, parts.headers)
        );
    }

    #[test]
    fn a_target_that_is_no_path_is_refused() {
        let head = |target: &[u8]| {
            let mut bytes = BytesMut::new();
            put_str(&mut bytes, b"GET").unwrap();
            put_str(&mut bytes, target).unwrap();
            put_str(&mut bytes, b"order-service").unwrap();
            bytes.put_u16(0);
            request(&bytes)
        };
        for target in ["", "0", "other-service:80", "http://other-service/", "a/b"] {
            assert_eq!(head(target.as_bytes()).unwrap_err(), HeadError, "{target}");
        }
        assert_eq!(head(b"*").unwrap().uri.path(), "*");
        assert_eq!(head(b"/a?b").unwrap().uri, "/a?b");
    }

    #[test]
    fn every_truncation_and_every_surplus_byte_is_refused() {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = StatusCode::IM_A_TEAPOT;
        parts
            .headers
            .insert("grpc-status", HeaderValue::from_static("0"));
        let mut bytes = BytesMut::new();
        put_answer(&mut bytes, &parts).unwrap();
        assert_eq!(answer(&bytes).unwrap().headers, parts.headers);
        for len in 0..bytes.len() {
            assert_eq!(
                answer(bytes.get(..len).unwrap()).err(),
                Some(HeadError),
                "{len}"
            );
        }
        bytes.put_u8(0);
        assert_eq!(answer(&bytes).err(), Some(HeadError));
    }

    #[test]
    fn a_count_without_the_bytes_behind_it_is_refused() {
        assert_eq!(trailers(&[0xff, 0xff, 0, 0]).err(), Some(HeadError));
        assert_eq!(trailers(&[0, 1, 0, 1, b' ', 0, 0]).err(), Some(HeadError));
    }

    fn header_map() -> impl Strategy<Value = HeaderMap> {
        let one = ("[a-z][a-z0-9-]{0,12}", "[ -~]{0,20}");
        proptest::collection::vec(one, 0..12).prop_map(|made| {
            let mut headers = HeaderMap::new();
            for (name, value) in made {
                let value = HeaderValue::try_from(value.trim()).unwrap();
                headers.append(HeaderName::try_from(name).unwrap(), value);
            }
            headers.remove(header::HOST);
            headers
        })
    }

    proptest::proptest! {
        #[test]
        fn any_head_comes_back_as_it_went_in(headers in header_map(), path in "/[a-z0-9/._~-]{0,40}", status in 200u16..1000) {
            let mut bytes = BytesMut::new();
            put_trailers(&mut bytes, &headers).unwrap();
            assert_eq!(trailers(&bytes).unwrap(), headers);

            let (mut parts, ()) = http::Response::new(()).into_parts();
            (parts.status, parts.headers) = (StatusCode::from_u16(status).unwrap(), headers.clone());
            let mut bytes = BytesMut::new();
            put_answer(&mut bytes, &parts).unwrap();
            let back = answer(&bytes).unwrap();
            assert_eq!((back.status, &back.headers), (parts.status, &parts.headers));

            let (mut parts, ()) = http::Request::get(path).body(()).unwrap().into_parts();
            parts.headers = headers;
            parts.headers.insert(header::HOST, HeaderValue::from_static("a:1"));
            let mut bytes = BytesMut::new();
            put_request(&mut bytes, &parts).unwrap();
            let back = request(&bytes).unwrap();
            assert_eq!((back.method, back.uri, back.headers), (parts.method, parts.uri, parts.headers));
        }

        #[test]
        fn any_bytes_are_a_head_or_an_error(bytes in proptest::collection::vec(0u8.., 0..80), small in proptest::collection::vec(0u8..4, 0..80)) {
            for bytes in [bytes, small] {
                let heads = (request(&bytes).is_ok(), answer(&bytes).is_ok(), trailers(&bytes).is_ok());
                // What is taken for a head has no room for more than it says.
                let longer = [&bytes[..], &[0]].concat();
                assert!(!heads.2 || trailers(&longer).is_err());
            }
        }
    }

    #[test]
    fn a_head_larger_than_a_record_has_room_for_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("x-one", HeaderValue::try_from("x".repeat(40_000)).unwrap());
        put_trailers(&mut BytesMut::new(), &headers).unwrap();
        headers.insert("x-two", HeaderValue::try_from("x".repeat(40_000)).unwrap());
        assert_eq!(
            put_trailers(&mut BytesMut::new(), &headers),
            Err(HeadTooLarge)
        );
    }
}
