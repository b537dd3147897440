//! The way to the local application.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header;
use http_body::Frame;
use http_body_util::BodyExt;
use mesh_transport::Body;
use mesh_transport::Error;
use mesh_transport::app::AppClient;
use mesh_transport::app::AppConfig;
use mesh_transport::tasks::Tasks;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

fn tasks() -> Tasks {
    Tasks::new(Handle::current())
}

fn get() -> Request<Body> {
    Request::get("/")
        .header("host", "app")
        .body(Body::empty())
        .unwrap()
}

async fn text(client: &AppClient) -> Result<String, Error> {
    let answer = client.send(get()).await?;
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

/// An application that gives each request on each connection to `answer`, with their numbers from 0, and writes what
/// that says; an empty answer closes the connection.
async fn app(answer: fn(usize, usize) -> &'static str) -> (AppConfig, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = AppConfig::new(listener.local_addr().unwrap().to_string());
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    tasks().start(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tasks().start(converse(
                stream,
                count.fetch_add(1, Ordering::SeqCst),
                answer,
            ));
        }
    });
    (config, opened)
}

async fn converse(
    mut stream: TcpStream,
    connection: usize,
    answer: fn(usize, usize) -> &'static str,
) {
    for request in 0.. {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let said = answer(connection, request);
        if said.is_empty() || stream.write_all(said.as_bytes()).await.is_err() {
            return;
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn connections_are_used_again() {
    let (config, opened) = app(|_, _| OK).await;
    let client = AppClient::new(config, tasks());
    for _ in 0..50 {
        assert_eq!(text(&client).await.unwrap(), "ok");
    }
    assert_eq!(opened.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_idle_connection_that_the_application_closed_is_replaced() {
    let (config, opened) = app(|_, request| if request == 0 { OK } else { "" }).await;
    let client = AppClient::new(config, tasks());
    assert_eq!(text(&client).await.unwrap(), "ok");
    // The second request on a connection is met by its end. Sent to an application that may have acted on it, it is not
    // sent again; the one after that is on a new connection.
    let failed = text(&client).await.unwrap_err();
    assert!(!failed.is_unprocessed(), "{failed:?}");
    assert_eq!(text(&client).await.unwrap(), "ok");
    assert_eq!(opened.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_nobody_a_request() {
    let (config, opened) =
        app(|_, _| "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
    let client = AppClient::new(config, tasks());
    for _ in 0..5 {
        assert_eq!(text(&client).await.unwrap(), "ok");
    }
    assert_eq!(opened.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn an_idle_connection_is_not_trusted_for_long() {
    let (mut config, opened) = app(|_, _| OK).await;
    config.idle_timeout = Duration::ZERO;
    config.max_idle = 2;
    let client = AppClient::new(config, tasks());
    for _ in 0..3 {
        text(&client).await.unwrap();
        // A clock that ticks in steps must have passed the moment of giving back.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(opened.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_given_to_nobody() {
    // threat 15
    let twice = |_, _| "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    let (config, _) = app(twice).await;
    let client = AppClient::new(config, tasks());
    for _ in 0..20 {
        assert_ne!(text(&client).await.unwrap_or_default(), "poison");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_read_to_its_end_does_not_come_back() {
    let (config, opened) =
        app(|_, _| "HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\nstart").await;
    let client = AppClient::new(config, tasks());
    for _ in 0..3 {
        let mut body = client.send(get()).await.unwrap().into_body();
        assert_eq!(
            body.frame().await.unwrap().unwrap().into_data().unwrap(),
            "start"
        );
    }
    assert_eq!(opened.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn nobody_there_means_that_nothing_was_sent() {
    let address = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let client = AppClient::new(AppConfig::new(address.to_string()), tasks());
    let failed = text(&client).await.unwrap_err();
    assert!(
        matches!(failed, Error::Connect { .. }) && failed.is_unprocessed(),
        "{failed:?}"
    );
}

#[tokio::test]
async fn grpc_goes_over_http2_with_prior_knowledge() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = AppClient::new(
        AppConfig::new(listener.local_addr().unwrap().to_string()),
        tasks(),
    );
    let request = Request::post("/pkg.Service/Method")
        .header(header::CONTENT_TYPE, "application/grpc+proto")
        .header(header::HOST, "order-service")
        .body(Body::empty());
    let seen = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        respond
            .send_response(http::Response::new(()), true)
            .unwrap();
        tasks().start(async move { while connection.accept().await.is_some() {} });
        request.uri().to_string()
    };
    let (answer, uri) = tokio::join!(client.send(request.unwrap()), seen);
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(uri, "http://order-service/pkg.Service/Method");
}

/// A body that does not say how long it is.
struct Unsized(Option<Bytes>);

impl http_body::Body for Unsized {
    type Data = Bytes;
    type Error = mesh_transport::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[tokio::test]
async fn a_body_is_sent_whatever_the_method_and_whether_or_not_its_length_is_known() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = AppClient::new(
        AppConfig::new(listener.local_addr().unwrap().to_string()),
        tasks(),
    );
    let read_one = async |until: &str| {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(until.as_bytes()) {
            said.push(stream.read_u8().await.unwrap());
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        String::from_utf8(said).unwrap().to_lowercase()
    };
    for method in ["GET", "HEAD", "POST"] {
        let rest = Unsized(Some(Bytes::from_static(b"asked")));
        let request = Request::builder()
            .method(method)
            .uri("/")
            .header("host", "app");
        let request = request.body(Body::boxed(rest)).unwrap();
        let (answer, said) = tokio::join!(client.send(request), read_one("0\r\n\r\n"));
        assert_eq!(answer.unwrap().status(), 200);
        assert!(said.contains("transfer-encoding: chunked"), "{said}");
        assert!(said.ends_with("\r\n\r\n5\r\nasked\r\n0\r\n\r\n"), "{said}");
    }
    let (answer, said) = tokio::join!(client.send(get()), read_one("\r\n\r\n"));
    assert_eq!(answer.unwrap().status(), 200);
    assert!(!said.contains("transfer-encoding"), "{said}");
}
