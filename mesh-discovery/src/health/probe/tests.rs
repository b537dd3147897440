//! Probes against servers of the test.

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;

use super::*;

/// What the probe says of a server that answers with `answer` and closes.
async fn status_of(answer: &[u8]) -> Result<(), String> {
    let (mut near, mut far) = tokio::io::duplex(16);
    let server = async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(far.read_buf(&mut request).await.unwrap(), 0);
        }
        assert!(request.starts_with(b"GET /health?deep=1 HTTP/1.1\r\nHost: orders\r\n"));
        // The probe leaves as soon as it knows.
        drop(far.write_all(answer).await);
    };
    let probe = HttpProbe::new("orders", "/health?deep=1").unwrap();
    let ((), outcome) = tokio::join!(server, async {
        let outcome = probe.ask(&mut near).await;
        drop(near);
        outcome
    });
    outcome.map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_status_of_a_whole_head_decides() {
    let long = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'a'; 9000]].concat();
    let cases: [(&[u8], Result<(), &str>); 9] = [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Ok(())),
        (b"HTTP/1.0 302\r\n\r\n", Ok(())),
        (
            b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 204 \r\n\r\n",
            Ok(()),
        ),
        (
            b"HTTP/1.1 503 No\r\n\r\n",
            Err("status 503, and not one from 200 to 399"),
        ),
        (
            b"HTTP/1.1 200 OK\r\n",
            Err("the answer ended before its head did"),
        ),
        (
            b"HTTP/1.1 2000\r\n\r\n",
            Err("the answer's status line can't be read"),
        ),
        (
            b"HTTP/1.1 +20 \r\n\r\n",
            Err("the answer's status line can't be read"),
        ),
        (b"SSH-2.0-x\r\n", Err("the answer is not HTTP/1")),
        (&long, Err("the answer's head is longer than 8 KiB")),
    ];
    for (answer, expected) in cases {
        let shown = String::from_utf8_lossy(answer);
        assert_eq!(
            status_of(answer).await,
            expected.map_err(str::to_owned),
            "{shown:.40}"
        );
    }
}

#[test]
fn a_path_can_add_no_field() {
    for path in ["", "health", "/a b", "/a\r\nX: y", "/a#b", "/ä"] {
        assert!(HttpProbe::new("orders", path).is_err(), "{path:?}");
    }
    HttpProbe::new("a b", "/").unwrap_err();
}

#[tokio::test]
async fn a_connection_that_opens_is_a_good_sign_and_names_are_checked_too() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost"] {
        connect(&Endpoint::new(host.parse().unwrap(), port))
            .await
            .unwrap();
    }
    drop(listener);
    let endpoint = Endpoint::new("127.0.0.1".parse().unwrap(), port);
    let error = connect(&endpoint).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[cfg(feature = "probe-grpc")]
mod grpc {
    use ::http::HeaderMap;
    use ::http::HeaderValue;
    use ::http::Response;
    use bytes::Bytes;

    use super::super::*;

    fn fields(status: &'static str) -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert("grpc-status", HeaderValue::from_static(status));
        fields
    }

    fn judge(body: &[u8], fields: &HeaderMap) -> Result<(), String> {
        GrpcProbe::judge(body, fields).map_err(|error| error.to_string())
    }

    #[test]
    fn only_a_whole_message_that_says_serving_is_a_good_answer() {
        let ok = fields("0");
        for (body, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Ok(())),
            (&[0, 0, 0, 0, 4, 8, 2, 8, 1], Ok(())),
            (&[0, 0, 0, 0, 5, 18, 1, 9, 8, 1], Ok(())),
            (&[0, 0, 0, 0, 2, 8, 2], Err("it says NOT_SERVING")),
            (&[0, 0, 0, 0, 2, 8, 3], Err("it says SERVICE_UNKNOWN")),
            (&[0, 0, 0, 0, 0], Err("it says UNKNOWN")),
            (&[0, 0, 0, 0, 3, 8, 1], Err("its answer can't be read")),
            (&[1, 0, 0, 0, 2, 8, 1], Err("its answer can't be read")),
            (&[0, 0, 0, 0, 2, 8, 255], Err("its answer can't be read")),
            (&[0, 0, 0, 0, 2, 18, 9], Err("its answer can't be read")),
            (&[], Err("its answer can't be read")),
        ] {
            assert_eq!(
                judge(body, &ok),
                expected.map_err(str::to_owned),
                "{body:?}"
            );
        }
        let serving = [0, 0, 0, 0, 2, 8, 1];
        assert!(
            judge(&serving, &fields("12"))
                .unwrap_err()
                .contains("no health service")
        );
        assert!(
            judge(&serving, &fields("7"))
                .unwrap_err()
                .contains("denies")
        );
        assert_eq!(
            judge(&serving, &HeaderMap::new()).unwrap_err(),
            "the answer has no grpc-status"
        );
    }

    #[test]
    fn the_message_is_what_protobuf_says() {
        let message = |service| GrpcProbe::new("orders", service).unwrap().message();
        assert_eq!(&*message(""), &[0, 0, 0, 0, 0]);
        assert_eq!(&*message("ab"), &[0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
        GrpcProbe::new("orders", &"a".repeat(101)).unwrap_err();
        GrpcProbe::new("a b", "").unwrap_err();
    }

    /// What the probe says of a server that answers with a message and a status.
    async fn ask(message: Option<&'static [u8]>, status: &'static str) -> Result<(), String> {
        let (near, far) = tokio::io::duplex(4096);
        let server = async move {
            let mut connection = h2::server::handshake(far).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            let (mut head, ()) = Response::new(()).into_parts();
            if message.is_none() {
                head.headers = fields(status);
            }
            let response = Response::from_parts(head, ());
            let mut body = respond.send_response(response, message.is_none()).unwrap();
            if let Some(message) = message {
                body.send_data(Bytes::from_static(message), false).unwrap();
                body.send_trailers(fields(status)).unwrap();
            }
            // Until the probe leaves.
            assert!(connection.accept().await.is_none_or(|next| next.is_err()));
        };
        let probe = GrpcProbe::new("orders", "orders.v1.Orders").unwrap();
        let ((), outcome) = tokio::join!(server, probe.ask(near));
        outcome.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn asks_over_http_2_and_reads_trailers_or_the_head() {
        assert_eq!(ask(Some(&[0, 0, 0, 0, 2, 8, 1]), "0").await, Ok(()));
        assert_eq!(
            ask(Some(&[0, 0, 0, 0, 2, 8, 2]), "0").await.unwrap_err(),
            "it says NOT_SERVING"
        );
        assert_eq!(
            ask(None, "5").await.unwrap_err(),
            "it knows no such service"
        );
        let long: &'static [u8] = &[0; 2000];
        assert_eq!(
            ask(Some(long), "0").await.unwrap_err(),
            "its answer is longer than 1 KiB"
        );
    }
}
