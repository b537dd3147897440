//! The table of canonical forms, and the properties that hold for every request.

use http::{HeaderName, Request};
use proptest::prelude::*;

use super::*;

type Check = fn(&RequestError) -> bool;
type Fields<'a> = &'a [(&'a str, &'a str)];

fn parts(uri: &str) -> Parts {
    Request::get(uri)
        .header("host", "orders")
        .body(())
        .unwrap()
        .into_parts()
        .0
}

fn canonical_of(parts: Parts) -> Result<CanonicalRequest, RequestError> {
    CanonicalRequest::new(parts, &Limits::default())
}

fn with_headers(fields: &[(&str, &str)]) -> Result<CanonicalRequest, RequestError> {
    let mut parts = parts("/");
    for (name, value) in fields {
        parts.headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.parse().unwrap(),
        );
    }
    canonical_of(parts)
}

// threat 10
#[test]
fn paths_have_one_spelling() {
    for (given, canonical) in [
        ("/", "/"),
        ("/api/orders", "/api/orders"),
        ("/api/orders/", "/api/orders/"),
        ("/%61pi/%7Eme", "/api/~me"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/%2e", "/a/"),
        ("//a///b//", "/a/b/"),
        ("/a//../b", "/b"),
        ("/...", "/..."),
        ("/.hidden/..x", "/.hidden/..x"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/café", "/caf%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/{id}|x", "/%7Bid%7D%7Cx"),
        ("/a%3Ab:c", "/a%3Ab:c"),
        ("/100%25", "/100%25"),
        ("/100%25zz", "/100%25zz"),
        ("/a%23b%3Fc", "/a%23b%3Fc"),
        ("/a#fragment", "/a"),
        ("/a?x=/../%2f&y=%00", "/a"),
    ] {
        let request = canonical_of(parts(given)).unwrap();
        assert_eq!(request.path(), canonical, "{given}");
    }
}

// threat 10
#[test]
fn paths_with_two_readings_are_refused() {
    use RequestError as E;
    let cases: &[(&str, Check)] = &[
        ("/a%2fb", |e| matches!(e, E::HiddenSeparator)),
        ("/a%2Fb", |e| matches!(e, E::HiddenSeparator)),
        ("/a%5cb", |e| matches!(e, E::HiddenSeparator)),
        ("/a%5Cb", |e| matches!(e, E::HiddenSeparator)),
        ("/a%00b", |e| matches!(e, E::ControlCharacter)),
        ("/a%0d%0ab", |e| matches!(e, E::ControlCharacter)),
        ("/a%7fb", |e| matches!(e, E::ControlCharacter)),
        ("/a%c0%afb", |e| matches!(e, E::NotUtf8)),
        ("/a%e0%80%af", |e| matches!(e, E::NotUtf8)),
        ("/a%ff", |e| matches!(e, E::NotUtf8)),
        ("/a%c3", |e| matches!(e, E::NotUtf8)),
        ("/a%c3/%a9", |e| matches!(e, E::NotUtf8)),
        ("/a%ed%a0%80", |e| matches!(e, E::NotUtf8)),
        ("/a%252fb", |e| matches!(e, E::DoubleEncoding)),
        ("/a%252e%252e/b", |e| matches!(e, E::DoubleEncoding)),
        ("/a%2541", |e| matches!(e, E::DoubleEncoding)),
        ("/a%25%32%66", |e| matches!(e, E::DoubleEncoding)),
        ("/a%25252f", |e| matches!(e, E::DoubleEncoding)),
        ("/a%", |e| matches!(e, E::BadEscape)),
        ("/a%2", |e| matches!(e, E::BadEscape)),
        ("/a%zz", |e| matches!(e, E::BadEscape)),
        ("/a;jsessionid=1", |e| matches!(e, E::PathParameter)),
        ("/..;/admin", |e| matches!(e, E::PathParameter)),
        ("/a%3bb", |e| matches!(e, E::PathParameter)),
        ("/../etc", |e| matches!(e, E::AboveRoot)),
        ("/a/../../etc", |e| matches!(e, E::AboveRoot)),
        ("/a/%2e%2e/%2e%2e", |e| matches!(e, E::AboveRoot)),
        ("*", |e| matches!(e, E::NoPath)),
    ];
    for (given, is_expected) in cases {
        let error = canonical_of(parts(given)).unwrap_err();
        assert!(is_expected(&error), "{given}: {error:?}");
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    }
    let backslash = parts("/a\\b");
    assert!(matches!(canonical_of(backslash), Err(E::HiddenSeparator)));
}

#[test]
fn path_parameters_pass_where_an_operator_says_so_but_never_hide_a_dot_segment() {
    let limits = Limits::default().with_path_parameters(true);
    let path =
        |uri| CanonicalRequest::new(parts(uri), &limits).map(|request| request.path().to_owned());
    assert_eq!(path("/a;v=1/b%3b").unwrap(), "/a;v=1/b%3B");
    for hidden in ["/..;/admin", "/.;a/b", "/a/%2e%2e;x/b", "/a/;x/b"] {
        assert!(
            matches!(path(hidden), Err(RequestError::PathParameter)),
            "{hidden}"
        );
    }
}

// threat 11
#[test]
fn there_is_one_authority() {
    let of = |uri: &str, hosts: &[&str]| {
        let mut builder = Request::get(uri);
        for host in hosts {
            builder = builder.header("host", *host);
        }
        canonical_of(builder.body(()).unwrap().into_parts().0)
            .map(|r| (r.authority().to_owned(), r.host().to_owned(), r.port()))
    };
    let is = |authority: &str, host: &str, port| (authority.to_owned(), host.to_owned(), port);
    assert_eq!(
        of("/", &["Orders.Example.ORG.:8080"]).unwrap(),
        is("orders.example.org:8080", "orders.example.org", Some(8080))
    );
    assert_eq!(
        of("http://Orders/a", &[]).unwrap(),
        is("orders", "orders", None)
    );
    assert_eq!(
        of("http://orders:80/a", &["ORDERS:80"]).unwrap(),
        is("orders:80", "orders", Some(80))
    );
    assert_eq!(
        of("/", &["[2001:DB8::0:1]:443"]).unwrap(),
        is("[2001:db8::1]:443", "[2001:db8::1]", Some(443))
    );
    assert_eq!(
        of("/", &["10.0.0.7"]).unwrap(),
        is("10.0.0.7", "10.0.0.7", None)
    );
    assert!(matches!(
        of("http://a/", &["b"]),
        Err(RequestError::HostMismatch)
    ));
    assert!(matches!(
        of("http://a:80/", &["a:81"]),
        Err(RequestError::HostMismatch)
    ));
    assert!(matches!(
        of("/", &["a", "a"]),
        Err(RequestError::SeveralHosts)
    ));
    assert!(matches!(of("/", &[]), Err(RequestError::NoHost)));
    assert!(matches!(
        of("http://user@a/", &[]),
        Err(RequestError::UserInfo)
    ));
    for bad in [
        "",
        "a b",
        "a/b",
        "a..b",
        ".a",
        ".",
        "a:",
        "a:0",
        "a:080",
        "a:99999",
        "a:x",
        "a:1:2",
        "[::1",
        "[::1]x",
        "[fe80::1%25eth0]",
        "ü",
        "a,b",
        "a%2eb",
        "::1",
    ] {
        assert!(
            matches!(of("/", &[bad]), Err(RequestError::BadAuthority)),
            "{bad}"
        );
    }
    let mut old = parts("/");
    old.version = Version::HTTP_10;
    old.headers.clear();
    assert_eq!(canonical_of(old).unwrap().authority(), "");
}

// threat 13
#[test]
fn a_body_has_one_framing() {
    use RequestError as E;
    let cases: &[(Fields<'_>, Check)] = &[
        (
            &[("content-length", "5"), ("transfer-encoding", "chunked")],
            |e| matches!(e, E::TwoFramings),
        ),
        (&[("content-length", "5"), ("content-length", "5")], |e| {
            matches!(e, E::BadContentLength)
        }),
        (&[("content-length", "5, 5")], |e| {
            matches!(e, E::BadContentLength)
        }),
        (&[("content-length", "+5")], |e| {
            matches!(e, E::BadContentLength)
        }),
        (&[("content-length", "-1")], |e| {
            matches!(e, E::BadContentLength)
        }),
        (&[("content-length", "0x5")], |e| {
            matches!(e, E::BadContentLength)
        }),
        (&[("content-length", "")], |e| {
            matches!(e, E::BadContentLength)
        }),
        (&[("content-length", "99999999999999999999")], |e| {
            matches!(e, E::BadContentLength)
        }),
        (&[("transfer-encoding", "gzip, chunked")], |e| {
            matches!(e, E::BadTransferEncoding)
        }),
        (&[("transfer-encoding", "xchunked")], |e| {
            matches!(e, E::BadTransferEncoding)
        }),
        (
            &[
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            |e| matches!(e, E::BadTransferEncoding),
        ),
        (&[("connection", "content-length")], |e| {
            matches!(e, E::BadConnection)
        }),
        (&[("connection", "close, X-Forwarded-For")], |e| {
            matches!(e, E::BadConnection)
        }),
        (&[("connection", "authorization")], |e| {
            matches!(e, E::BadConnection)
        }),
        (&[("connection", "a b")], |e| matches!(e, E::BadConnection)),
    ];
    for (fields, is_expected) in cases {
        let error = with_headers(fields).unwrap_err();
        assert!(is_expected(&error), "{fields:?}: {error:?}");
    }
    let request = with_headers(&[("transfer-encoding", "Chunked")]).unwrap();
    assert!(request.headers().is_empty());
    assert_eq!(
        with_headers(&[("content-length", "5")])
            .unwrap()
            .headers()
            .len(),
        1
    );
    for version in [Version::HTTP_10, Version::HTTP_2] {
        let mut parts = parts("/");
        parts.version = version;
        parts
            .headers
            .insert("transfer-encoding", HeaderValue::from_static("chunked"));
        assert!(canonical_of(parts).is_err(), "{version:?}");
    }
}

#[test]
fn hop_by_hop_fields_end_here() {
    let request = with_headers(&[
        ("connection", "close, X-Private"),
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("x-private", "1"),
        ("te", "gzip, Trailers"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAAA"),
        ("proxy-authorization", "Basic eA=="),
        ("proxy-connection", "keep-alive"),
        ("x-kept", "1"),
    ])
    .unwrap();
    let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["te", "x-kept"]);
    assert_eq!(request.headers().get("te").unwrap(), "trailers");
    assert!(
        with_headers(&[("te", "gzip")])
            .unwrap()
            .headers()
            .is_empty()
    );
}

#[test]
fn limits_answer_with_their_status() {
    let limits = Limits::default()
        .with_max_headers(3)
        .with_max_header_bytes(200)
        .with_max_uri_bytes(10)
        .with_max_body_bytes(Some(9));
    let status = |parts| {
        CanonicalRequest::new(parts, &limits)
            .unwrap_err()
            .status()
            .as_u16()
    };
    let mut many = parts("/");
    let mut large = parts("/");
    let mut body = parts("/");
    for _ in 0..3 {
        many.headers
            .append("cookie", HeaderValue::from_static("a=b"));
    }
    large
        .headers
        .insert("x", HeaderValue::from_str(&"v".repeat(150)).unwrap());
    body.headers
        .insert("content-length", HeaderValue::from_static("10"));
    assert_eq!(status(many), 431);
    assert_eq!(status(large), 431);
    assert_eq!(status(body), 413);
    assert_eq!(status(parts("/0123456789")), 414);
    assert_eq!(
        status(Request::connect("a:1").body(()).unwrap().into_parts().0),
        400
    );
}

#[test]
fn leaves_in_the_form_that_is_asked_for() {
    let request = || {
        canonical_of(
            Request::get("http://Orders:80/a/../b?q")
                .body(())
                .unwrap()
                .into_parts()
                .0,
        )
        .unwrap()
    };
    let origin = request().into_parts();
    assert_eq!(origin.uri, "/b?q");
    assert_eq!(origin.headers.get("host").unwrap(), "orders:80");
    let absolute = request().into_absolute_parts(Scheme::HTTPS).unwrap();
    assert_eq!(absolute.uri, "https://orders:80/b?q");
    assert!(absolute.headers.is_empty());
}

// threat 72
#[test]
fn a_new_path_is_normalised_too() {
    let mut request = canonical_of(parts("/a")).unwrap();
    request.set_path_and_query("/x/../y?z=1").unwrap();
    assert_eq!(request.path_and_query(), "/y?z=1");
    request.set_path_and_query("/x%2fy").unwrap_err();
    request.set_authority("A.b.:1").unwrap();
    request
        .headers_mut()
        .insert("host", HeaderValue::from_static("elsewhere"));
    let parts = request.into_parts();
    assert_eq!(
        (
            parts.uri.to_string().as_str(),
            parts.headers.get("host").unwrap().as_bytes()
        ),
        ("/y?z=1", &b"a.b:1"[..])
    );
}

// threat 9
#[test]
fn forged_identity_is_dropped() {
    let mut headers = HeaderMap::new();
    for name in [
        "x-forwarded-client-cert",
        "x-spiffe-id",
        "x_spiffe_id",
        "x-mesh-caller",
        "x_mesh-caller",
        "x-mesh-id",
        "x-meshed",
        "x-request-id",
        "authorization",
    ] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static("v"));
        headers.append(HeaderName::from_static(name), HeaderValue::from_static("w"));
    }
    assert_eq!(
        strip_identity_headers(&mut headers, &[HeaderName::from_static("x-mesh-id")]),
        5
    );
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["authorization", "x-mesh-id", "x-meshed", "x-request-id"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    // threat 10
    #[test]
    fn what_is_canonical_stays_so_and_hides_nothing(path in "/(%2[0-9a-fA-F]|%[0-9a-fA-F]{2}|[a-z./;:{%é]|\\.\\.|//){0,12}", parameters: bool) {
        let Ok(parts) = Request::get(path.as_str()).header("host", "h").body(()).map(|r| r.into_parts().0) else { return Ok(()) };
        let limits = Limits::default().with_path_parameters(parameters);
        let Ok(request) = CanonicalRequest::new(parts, &limits) else { return Ok(()) };
        let path = request.path().to_owned();
        let lower = path.to_ascii_lowercase();
        prop_assert!(path.starts_with('/') && path.is_ascii());
        prop_assert!(!path.split('/').any(|s| matches!(s, "." | "..")), "{path}");
        for hidden in ["//", "\\", "%2f", "%5c", "%2e", "%00"] {
            prop_assert!(!lower.contains(hidden), "{path}");
        }
        // Decoded once more, an escaped percent sign before two hex digits would be an escape.
        let bytes = lower.as_bytes();
        let is_double = |at: usize| bytes.get(at + 3..at + 5).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
        prop_assert!(!lower.match_indices("%25").any(|(at, _)| is_double(at)), "{path}");
        prop_assert!(parameters || !path.contains(';'));
        let plain: Vec<u8> = decoded(&path).collect();
        prop_assert!(std::str::from_utf8(&plain).is_ok());
        prop_assert!(matches!(canonical(&path, parameters), Ok(Cow::Borrowed(same)) if same == path));
        let again = CanonicalRequest::new(request.into_parts(), &limits).unwrap();
        prop_assert_eq!(again.path(), path);
    }
}
