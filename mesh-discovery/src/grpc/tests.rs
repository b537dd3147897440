//! Connections that nobody drives but who waits, and servers that break.

use std::convert::Infallible;

use bytes::Bytes;
use http::HeaderMap;
use http::Response;
use http::uri::PathAndQuery;
use http_body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use super::*;

#[derive(Clone, PartialEq, prost::Message)]
struct Note {
    #[prost(string, tag = "1")]
    text: String,
}

const KEEP_ALIVE: KeepAlive = KeepAlive {
    interval: Duration::from_secs(10),
    timeout: Duration::from_secs(5),
};

async fn connect(stream: DuplexStream) -> Channel {
    let server = Server::new("http://etcd:2379", None).unwrap();
    Channel::new(stream, &server, KEEP_ALIVE).await.unwrap()
}

/// Sends back every message as it comes, and then says that all is well.
async fn echo(request: http::Request<Incoming>) -> Result<Response<Echo>, Infallible> {
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(response.body(Echo(Some(request.into_body()))).unwrap())
}

struct Echo(Option<Incoming>);

impl http_body::Body for Echo {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.0 else {
            return None.into();
        };
        let frame = std::task::ready!(std::pin::Pin::new(body).poll_frame(cx));
        Some(frame.unwrap_or_else(|| {
            self.0 = None;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            Ok(Frame::trailers(trailers))
        }))
        .into()
    }
}

async fn serve(stream: DuplexStream) {
    let service = hyper::service::service_fn(echo);
    let serving = http2::Builder::new(TokioExecutor::new());
    drop(
        serving
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

async fn ask(channel: &Channel, text: &str) -> Result<String, tonic::Status> {
    let mut grpc = Grpc::with_origin(channel.clone(), channel.origin().clone());
    let note = Note {
        text: text.to_owned(),
    };
    let codec = ProstCodec::<Note, Note>::default();
    let path = PathAndQuery::from_static("/test.Echo/Ask");
    let answer = grpc.unary(tonic::Request::new(note), path, codec).await?;
    Ok(answer.into_inner().text)
}

#[tokio::test(start_paused = true)]
async fn calls_drive_the_connection_and_share_it() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let work = async {
        let channel = connect(ours).await;
        let long = "x".repeat(100_000);
        let all = futures_util::future::join_all((0..50).map(|number| {
            let (channel, text) = (channel.clone(), format!("{number} {long}"));
            async move { (ask(&channel, &text).await.unwrap(), text) }
        }))
        .await;
        assert!(all.iter().all(|(answer, text)| answer == text));
        // Nobody polls it for an hour, and it is as it was.
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(ask(&channel, "still there").await.unwrap(), "still there");
    };
    tokio::select! {
        () = work => {}
        () = serve(theirs) => panic!("the server ended first"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_went_while_nobody_looked_is_noticed_before_the_request_is_lost_on_it() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = async {
        tokio::time::timeout(Duration::from_secs(1), serve(theirs))
            .await
            .unwrap_err();
    };
    let (channel, ()) = tokio::join!(
        async {
            let channel = connect(ours).await;
            assert_eq!(ask(&channel, "a").await.unwrap(), "a");
            channel
        },
        serving
    );
    let error = ask(&channel, "b").await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(channel.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_frozen_server_is_noticed_by_who_waits_on_a_stream() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let begun = tokio::time::Instant::now();
    let asking = async {
        let channel = connect(ours).await;
        let mut grpc = Grpc::with_origin(channel.clone(), channel.origin().clone());
        let codec = ProstCodec::<Note, Note>::default();
        let path = PathAndQuery::from_static("/test.Echo/Ask");
        let silent = futures_util::stream::pending::<Note>();
        let streaming = grpc.streaming(tonic::Request::new(silent), path, codec);
        let mut answers = streaming.await.unwrap().into_inner();
        answers.message().await.unwrap_err()
    };
    // It takes the connection and agrees on HTTP/2, and is stopped with the socket open.
    let mut serving = Box::pin(serve(theirs));
    let stopped = async {
        tokio::select! {
            () = &mut serving => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        error = asking => error,
        () = stopped => panic!("it never ends"),
    };
    assert_eq!(error.code(), Code::Unavailable);
    let taken = begun.elapsed();
    assert!(taken < Duration::from_secs(17), "{taken:?}");
}

#[tokio::test]
async fn after_a_failure_it_is_the_next_servers_turn() {
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [&refused, &taken].map(|at| format!("http://{}", at.local_addr().unwrap()));
    drop(refused);
    let limit = Duration::from_secs(5);
    let dialer = Dialer::new(&addresses, None, limit, KEEP_ALIVE).unwrap();
    let error = dialer.connect().await.unwrap_err();
    assert!(matches!(error, DialError::Connect { .. }), "{error:?}");
    let channel = dialer.connect().await.unwrap();
    assert_eq!(**channel.server(), *addresses[1]);
    dialer.pass_over(channel.server());
    dialer.connect().await.unwrap_err();
    assert_eq!(dialer.len(), 2);
}

#[test]
fn addresses_must_be_whole() {
    for (address, expected) in [
        ("http://127.0.0.1:2379", None),
        ("http://[::1]:2379/", None),
        (
            "127.0.0.1:2379",
            Some("it must begin with http:// or https://"),
        ),
        (
            "ftp://etcd:2379",
            Some("it must begin with http:// or https://"),
        ),
        ("http://etcd", Some("it must name a port")),
        ("http://etcd:0", Some("it must name a port")),
        ("http://etcd:2379/v3", Some("it must end with the port")),
        (
            "http://etcd:2379/?token=secret",
            Some("it must end with the port"),
        ),
        (
            "http://root:secret@etcd:2379",
            Some("a name and password have no place in it"),
        ),
        (
            "https://etcd:2379",
            Some("https needs the roots of its certificate"),
        ),
        ("", Some("it is no address")),
    ] {
        let what = match Server::new(address, None) {
            Err(error @ DialError::Address { what, .. }) => {
                assert!(!error.to_string().contains("secret"), "{error}");
                Some(what)
            }
            Err(other) => panic!("{other:?}"),
            Ok(_) => None,
        };
        assert_eq!(what, expected, "{address:?}");
    }
}
