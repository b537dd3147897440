//! What must not pass from one connection to another, in heads and in trailers.

use http::HeaderMap;
use http::header;
use mesh_auth::request::strip_identity_headers;

/// Drops from an answer what concerns one connection only (RFC 9110 section 7.6.1).
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<_> = headers
            .get_all(header::CONNECTION)
            .iter()
            .cloned()
            .collect();
        for value in &named {
            for name in value.to_str().unwrap_or_default().split(',') {
                headers.remove(name.trim());
            }
        }
        headers.remove(header::CONNECTION);
    }
    for name in [
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::PROXY_AUTHENTICATE,
    ] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// The rule for trailers in every direction: no identity, no framing, no routing, nothing of one connection
/// (RFC 9110 section 6.5.1).
pub(crate) fn trailer_rule(trailers: &mut HeaderMap) {
    strip_identity_headers(trailers, &[]);
    strip_hop_by_hop(trailers);
    for name in [
        header::CONTENT_LENGTH,
        header::HOST,
        header::TE,
        header::TRAILER,
        header::AUTHORIZATION,
    ] {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::HeaderValue;

    use super::*;

    fn left(of: &[(&'static str, &'static str)], rule: fn(&mut HeaderMap)) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        rule(&mut headers);
        let mut left: Vec<_> = headers.keys().map(ToString::to_string).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn an_answer_loses_what_concerns_one_connection_only() {
        let given = [
            ("connection", "close"),
            ("connection", "x-own, x-other"),
            ("x-own", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-sum"),
            ("content-type", "text/plain"),
        ];
        assert_eq!(left(&given, strip_hop_by_hop), ["content-type", "trailer"]);
    }

    #[test]
    fn trailers_carry_no_identity_and_no_framing() {
        // threat 9
        let given = [
            ("x-mesh-peer-id", "spiffe://example.org/admin"),
            ("content-length", "7"),
            ("host", "elsewhere"),
            ("authorization", "Bearer x"),
            ("grpc-status", "0"),
        ];
        assert_eq!(left(&given, trailer_rule), ["grpc-status"]);
    }
}
