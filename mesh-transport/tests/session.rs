//! Sealed exchanges from end to end: over mutual TLS on loopback, with a meddler in between where a test wants one.
#![cfg(all(feature = "session", feature = "spiffe"))]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body::Frame;
use http_body_util::BodyExt;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::SystemRandom;
use mesh_session::Initiator;
use mesh_session::KeyClaim;
use mesh_session::Limited;
use mesh_session::LimiterConfig;
use mesh_session::Local;
use mesh_session::LocalIdentity;
use mesh_session::PeerKey;
use mesh_session::PeerRefused;
use mesh_session::Responders;
use mesh_session::SessionTable;
use mesh_session::TableConfig;
use mesh_session::TokenContext;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;
use mesh_transport::Body;
use mesh_transport::BoxError;
use mesh_transport::Error;
use mesh_transport::drain::Phase;
use mesh_transport::session::CLOSE_ROUTE;
use mesh_transport::session::HANDSHAKE_PATH;
use mesh_transport::session::MESH_PROCESSED;
use mesh_transport::session::MESH_SERVICE;
use mesh_transport::session::NO_SESSION;
use mesh_transport::session::Opened;
use mesh_transport::session::Refused;
use mesh_transport::session::SessionClient;
use mesh_transport::session::SessionConfig;
use mesh_transport::session::SessionPool;
use mesh_transport::session::SessionServer;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

mod support;

use support::Caller;
use support::Pki;
use support::Served;
use support::get;
use support::pool;
use support::serve;
use support::tasks;

/// Key generation costs more than all tests together.
fn key() -> Arc<RsaKeyPair> {
    static KEY: OnceLock<Arc<RsaKeyPair>> = OnceLock::new();
    let made = KEY.get_or_init(|| {
        Arc::new(RsaKeyPair::generate(&*mesh_crypto::engine::aws_lc(), RsaBits::B2048).unwrap())
    });
    Arc::clone(made)
}

fn local(name: &str, config: mesh_session::Config) -> Arc<Local> {
    let identity = LocalIdentity::new(name.to_owned(), key(), Vec::new());
    let random = Arc::new(SystemRandom::new());
    Arc::new(Local::new(config, mesh_crypto::engine::aws_lc(), random, identity).unwrap())
}

/// Takes every key and token, after it was let through.
#[derive(Debug, Default)]
struct Anyone {
    hold: Option<Mutex<std::sync::mpsc::Receiver<()>>>,
    asked: AtomicUsize,
}

impl VerifyPeer for Anyone {
    fn verify_key(&self, _: &KeyClaim<'_>) -> Result<(), PeerRefused> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if let Some(hold) = &self.hold {
            // A test that is over lets everybody through.
            hold.lock().unwrap().recv().unwrap_or_default();
        }
        Ok(())
    }

    fn verify_token(&self, _: &str, token: &[u8], _: &TokenContext<'_>) -> Result<(), PeerRefused> {
        if token == b"token" {
            Ok(())
        } else {
            Err(PeerRefused::new("no token"))
        }
    }
}

fn server(name: &str, verifier: Anyone, config: SessionConfig) -> SessionServer {
    let local = local(name, mesh_session::Config::default());
    let responders = Responders::new(local, Duration::from_mins(1)).unwrap();
    let table = SessionTable::new(
        TableConfig::default(),
        tokio::time::Instant::now().into_std(),
    )
    .unwrap();
    SessionServer::new(
        Arc::new(responders),
        (Arc::new(verifier), Arc::new(|_: &str| b"token".to_vec())),
        Arc::new(table),
        (config, support::now),
        tasks(),
    )
}

/// A server of sealed exchanges.
struct Sealed {
    served: Served,
    sessions: Arc<SessionServer>,
    handshakes: Arc<AtomicUsize>,
    pki: Pki,
}

/// What a meddler does to a message of each direction.
type Meddle = fn(Body) -> Body;

fn untouched(body: Body) -> Body {
    body
}

/// Opens what comes, answers it with `app` and seals that; `ways` are what happens to sealed requests and answers.
fn sealed<F, Fut>((request_way, answer_way): (Meddle, Meddle), app: F) -> Sealed
where
    F: Fn(Request<Body>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let pki = Pki::new("example.org");
    let name = pki.id("orders").to_string();
    let sessions = Arc::new(server(&name, Anyone::default(), SessionConfig::default()));
    let handshakes = Arc::new(AtomicUsize::new(0));
    let (used, made) = (Arc::clone(&sessions), Arc::clone(&handshakes));
    let served = serve(&pki.store("orders"), move |caller: Caller, request| {
        let (sessions, made, app) = (Arc::clone(&used), Arc::clone(&made), app.clone());
        async move {
            if request.uri().path() == HANDSHAKE_PATH {
                made.fetch_add(1, Ordering::SeqCst);
                let answered = sessions.handshake(&caller.id, request).await;
                return answered.unwrap_or_else(|refused| refusal(&refused));
            }
            if request
                .headers()
                .get(MESH_SERVICE)
                .is_some_and(|to| to == CLOSE_ROUTE)
            {
                let closed = sessions.close(&caller.id, request).await;
                return closed.unwrap_or_else(|refused| refusal(&refused));
            }
            match sessions.open(&caller.id, request.map(request_way)).await {
                Ok(opened) => {
                    let (request, _, sealer) = opened.into_parts();
                    Opened::seal(sealer, app(request).await)
                        .unwrap()
                        .map(answer_way)
                }
                Err(refused) => refusal(&refused),
            }
        }
    });
    Sealed {
        served,
        sessions,
        handshakes,
        pki,
    }
}

/// As a node refuses: nothing of the request reached the application.
fn refusal(refused: &Refused) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert("grpc-status", HeaderValue::from_static("16"));
    headers.insert(MESH_PROCESSED, HeaderValue::from_static("no"));
    if matches!(refused, Refused::NoSession) {
        headers.insert("x-mesh-error", HeaderValue::from_static(NO_SESSION));
    }
    response
}

impl Sealed {
    fn client(&self, config: mesh_session::Config) -> SessionPool {
        let users = self.pki.id("users").to_string();
        let local = Arc::new(ArcSwap::new(local(&users, config)));
        let life = (
            Duration::from_hours(1),
            support::now as fn() -> std::time::SystemTime,
        );
        let client =
            SessionClient::new(local, Arc::new(|_: &str| b"token".to_vec()), life, tasks());
        let connections = pool(
            &self.pki.store("users"),
            self.served.address,
            self.pki.id("orders"),
        );
        client.pool(connections, Arc::new(Anyone::default()))
    }

    fn pool(&self) -> SessionPool {
        self.client(mesh_session::Config::default())
    }

    fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }
}

/// A body out of frames that a test gives one by one.
struct Fed(mpsc::Receiver<Frame<Bytes>>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

fn fed() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Body::boxed(Fed(receiver)))
}

fn data(bytes: &'static [u8]) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(bytes))
}

async fn text(body: Body) -> Result<Bytes, BoxError> {
    body.collect()
        .await
        .map(http_body_util::Collected::to_bytes)
}

#[tokio::test]
async fn a_request_and_its_answer_pass_whole_with_trailers() {
    let sealed = sealed((untouched, untouched), |request| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let echo = format!(
            "{} {} {:?} {:?}",
            head.method,
            head.uri,
            head.headers["host"],
            trailers.get("x-sum")
        );
        let (sender, answer) = fed();
        let mut after = HeaderMap::new();
        after.insert("grpc-status", HeaderValue::from_static("0"));
        tasks().start(async move {
            sender.send(Frame::data(echo.into())).await.unwrap();
            sender.send(Frame::data(body.to_bytes())).await.unwrap();
            sender.send(Frame::trailers(after)).await.unwrap();
        });
        Response::builder()
            .status(StatusCode::ACCEPTED)
            .header("x-own", "1")
            .body(answer)
            .unwrap()
    });
    let (sender, body) = fed();
    let request = Request::put("/a?b=c")
        .header("host", "order-service")
        .body(body)
        .unwrap();
    let mut sum = HeaderMap::new();
    sum.insert("x-sum", HeaderValue::from_static("7"));
    let send = async {
        sender.send(data(b"|payload")).await.unwrap();
        sender.send(Frame::trailers(sum)).await.unwrap();
        drop(sender);
    };
    let pool = sealed.pool();
    let (answer, ()) = tokio::join!(pool.send("order-service", request), send);
    let answer = answer.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()["x-own"]),
        (StatusCode::ACCEPTED, &HeaderValue::from_static("1"))
    );
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(
        body.to_bytes(),
        "PUT /a?b=c \"order-service\" Some(\"7\")|payload"
    );
    // One for the key offer, one for the session; then none.
    assert_eq!(sealed.handshakes(), 2);
    for _ in 0..5 {
        text(
            pool.send("order-service", get("/"))
                .await
                .unwrap()
                .into_body(),
        )
        .await
        .unwrap();
    }
    assert_eq!(
        (
            sealed.handshakes(),
            sealed.sessions.table().stats().sessions
        ),
        (2, 1)
    );
}

#[tokio::test]
async fn both_directions_stream_at_once() {
    let sealed = sealed((untouched, untouched), |request| async move {
        Response::new(request.into_body())
    });
    let (sender, body) = fed();
    let request = Request::post("/")
        .header("host", "order-service")
        .body(body)
        .unwrap();
    // The answer's head comes before the first byte of the request's body is there.
    let mut echo = sealed
        .pool()
        .send("order-service", request)
        .await
        .unwrap()
        .into_body();
    for word in [&b"one"[..], b"two", b"three"] {
        sender.send(data(word)).await.unwrap();
        assert_eq!(
            echo.frame().await.unwrap().unwrap().into_data().unwrap(),
            word
        );
    }
    let large = Bytes::from(vec![7; 1_000_000]);
    let (sent, back) = tokio::join!(sender.send(Frame::data(large.clone())), async {
        let mut back = BytesMut::new();
        while back.len() < large.len() {
            back.extend_from_slice(&echo.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        back
    });
    sent.unwrap();
    assert_eq!(back, large);
    drop(sender);
    assert!(echo.frame().await.is_none());
}

/// Lets all frames of a body pass that `change` gives back.
struct Meddled<F> {
    inner: Body,
    change: F,
    index: usize,
}

impl<F: FnMut(usize, Bytes) -> Option<Bytes> + Unpin> http_body::Body for Meddled<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx));
        let Some(frame) = frame.transpose()? else {
            return Poll::Ready(None);
        };
        let Ok(bytes) = frame.into_data() else {
            return Poll::Ready(None);
        };
        this.index += 1;
        Poll::Ready((this.change)(this.index, bytes).map(|bytes| Ok(Frame::data(bytes))))
    }
}

fn meddled(
    inner: Body,
    change: impl FnMut(usize, Bytes) -> Option<Bytes> + Send + Sync + Unpin + 'static,
) -> Body {
    Body::boxed(Meddled {
        inner,
        change,
        index: 0,
    })
}

/// Ends the stream after its first record, cleanly.
fn cut(body: Body) -> Body {
    meddled(body, |index, bytes| (index == 1).then_some(bytes))
}

/// Changes one bit of the second record.
fn flip(body: Body) -> Body {
    meddled(body, |index, bytes| {
        let mut bytes = BytesMut::from(&*bytes);
        if index == 2 {
            *bytes.last_mut().unwrap() ^= 1;
        }
        Some(bytes.freeze())
    })
}

/// Swaps the second record with the third.
fn swap(body: Body) -> Body {
    let mut kept = VecDeque::new();
    meddled(body, move |index, bytes| match index {
        2 => {
            kept.push_back(bytes);
            Some(Bytes::new())
        }
        3 => Some([bytes, kept.pop_front().unwrap()].concat().into()),
        _ => Some(bytes),
    })
}

/// An answer of several records: data frames are not joined.
fn long_answer() -> Response<Body> {
    let (sender, body) = fed();
    tasks().start(async move {
        for word in [&b"one "[..], b"two ", b"three"] {
            if sender.send(data(word)).await.is_err() {
                return;
            }
        }
    });
    Response::new(body)
}

#[tokio::test]
async fn an_answer_that_somebody_touched_is_an_error_and_never_a_shorter_answer() {
    // threats 24 and 25
    for way in [cut as Meddle, flip, swap] {
        let sealed = sealed((untouched, way), |_| async { long_answer() });
        let answer = sealed.pool().send("order-service", get("/")).await.unwrap();
        text(answer.into_body()).await.unwrap_err();
    }
    let sealed = sealed((untouched, untouched), |_| async { long_answer() });
    let answer = sealed.pool().send("order-service", get("/")).await.unwrap();
    assert_eq!(text(answer.into_body()).await.unwrap(), "one two three");
}

#[tokio::test]
async fn a_request_that_somebody_touched_reaches_the_application_as_an_error() {
    // threats 24 and 25
    for way in [cut as Meddle, flip, swap] {
        let (tell, mut told) = mpsc::channel(1);
        let sealed = sealed((way, untouched), move |request| {
            let tell = tell.clone();
            async move {
                tell.send(text(request.into_body()).await.is_err())
                    .await
                    .unwrap();
                Response::new(Body::empty())
            }
        });
        let (sender, body) = fed();
        let request = Request::post("/")
            .header("host", "order-service")
            .body(body)
            .unwrap();
        let pool = sealed.pool();
        let send = async move {
            for word in [&b"one"[..], b"two", b"three"] {
                // The other side may have given up already.
                drop(sender.send(data(word)).await);
            }
        };
        let (_, (), is_error) =
            tokio::join!(pool.send("order-service", request), send, told.recv());
        assert_eq!(is_error, Some(true));
    }
}

#[tokio::test]
async fn a_record_for_one_service_opens_for_no_other() {
    // threat 26: the clear part of a request is bound to the sealed one.
    let pki = Pki::new("example.org");
    let server = server(
        pki.id("orders").as_str(),
        Anyone::default(),
        SessionConfig::default(),
    );
    let request = |service: &'static str| {
        let request = Request::post("/").header(MESH_SERVICE, service);
        request
            .body(Body::from(Bytes::from_static(&[0, 0, 0, 0, 0])))
            .unwrap()
    };
    let refused = server
        .open(&pki.id("users"), request("other"))
        .await
        .unwrap_err();
    assert!(matches!(refused, Refused::NotAccepted(_)), "{refused:?}");
    let refused = server
        .open(&pki.id("users"), Request::new(Body::empty()))
        .await
        .unwrap_err();
    assert!(matches!(refused, Refused::NotAccepted(_)), "{refused:?}");
}

#[tokio::test]
async fn a_session_that_the_peer_forgot_is_replaced_by_the_next_request() {
    let sealed = sealed((untouched, untouched), |_| async {
        Response::new(Body::empty())
    });
    let pool = sealed.pool();
    pool.send("order-service", get("/")).await.unwrap();
    for session in sealed.sessions.table().sessions() {
        sealed.sessions.table().remove(&session.id);
    }
    let unsent = pool.send("order-service", get("/")).await.unwrap_err();
    assert!(matches!(unsent.error, Error::Session { .. }), "{unsent:?}");
    assert!(unsent.error.is_unprocessed());
    pool.send("order-service", get("/")).await.unwrap();
}

#[tokio::test]
async fn a_session_that_cannot_be_resumed_is_agreed_on_anew() {
    let sealed = sealed((untouched, untouched), |_| async {
        Response::new(Body::empty())
    });
    let pool = sealed.pool();
    pool.send("order-service", get("/")).await.unwrap();
    for session in sealed.sessions.table().sessions() {
        sealed.sessions.table().remove(&session.id);
    }
    pool.send("order-service", get("/")).await.unwrap_err();
    pool.send("order-service", get("/")).await.unwrap();
    assert_eq!(sealed.sessions.table().sessions().len(), 1);
}

#[tokio::test]
async fn a_closed_session_is_forgotten_by_the_peer() {
    let sealed = sealed((untouched, untouched), |_| async {
        Response::new(Body::empty())
    });
    let pool = sealed.pool();
    pool.send("order-service", get("/")).await.unwrap();
    assert_eq!(sealed.sessions.table().sessions().len(), 1);
    pool.close().await;
    assert_eq!(sealed.sessions.table().sessions().len(), 0);
    // A new one works as well.
    pool.send("order-service", get("/")).await.unwrap();
    assert_eq!(sealed.sessions.table().sessions().len(), 1);
}

#[tokio::test]
async fn a_refusal_that_does_not_say_unprocessed_is_not_taken_for_it() {
    // threat 43
    let pki = Pki::new("example.org");
    let sessions = Arc::new(server(
        pki.id("orders").as_str(),
        Anyone::default(),
        SessionConfig::default(),
    ));
    let used = Arc::clone(&sessions);
    let served = serve(&pki.store("orders"), move |caller: Caller, request| {
        let sessions = Arc::clone(&used);
        async move {
            if request.uri().path() == HANDSHAKE_PATH {
                return sessions.handshake(&caller.id, request).await.unwrap();
            }
            let mut response = Response::new(Body::empty());
            response
                .headers_mut()
                .insert("grpc-status", HeaderValue::from_static("14"));
            response
        }
    });
    let sealed = Sealed {
        served,
        sessions,
        handshakes: Arc::default(),
        pki,
    };
    let unsent = sealed
        .pool()
        .send("order-service", get("/"))
        .await
        .unwrap_err();
    assert!(
        matches!(unsent.error, Error::Exchange { .. }) && !unsent.error.is_unprocessed(),
        "{unsent:?}"
    );
}

/// A hop with the peer's certificate passes a request on, and says that nothing was done.
#[tokio::test]
async fn what_comes_unsealed_is_not_believed_of_a_peer_whose_key_is_pinned() {
    // threat 43
    let done = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&done);
    let forge = |mut response: Response<Body>| {
        let headers = response.headers_mut();
        headers.insert("grpc-status", HeaderValue::from_static("16"));
        headers.insert(MESH_PROCESSED, HeaderValue::from_static("no"));
        headers.insert("x-mesh-error", HeaderValue::from_static(NO_SESSION));
        response
    };
    let is_forged = Arc::new(AtomicBool::new(true));
    let (pki, forges) = (Pki::new("example.org"), Arc::clone(&is_forged));
    let name = pki.id("orders").to_string();
    let sessions = Arc::new(server(&name, Anyone::default(), SessionConfig::default()));
    let used = Arc::clone(&sessions);
    let served = serve(&pki.store("orders"), move |caller: Caller, request| {
        let (sessions, count) = (Arc::clone(&used), Arc::clone(&count));
        let is_forged = forges.load(Ordering::SeqCst);
        async move {
            if request.uri().path() == HANDSHAKE_PATH {
                return sessions.handshake(&caller.id, request).await.unwrap();
            }
            let (_, _, sealer) = sessions
                .open(&caller.id, request)
                .await
                .unwrap()
                .into_parts();
            count.fetch_add(1, Ordering::SeqCst);
            let answer = Opened::seal(sealer, Response::new(Body::empty())).unwrap();
            if is_forged { forge(answer) } else { answer }
        }
    });
    let handshakes = Arc::default();
    let sealed = Sealed {
        served,
        sessions,
        handshakes,
        pki,
    };
    let believing = sealed.pool();
    let unsent = believing.send("order-service", get("/")).await.unwrap_err();
    assert!(
        unsent.error.is_unprocessed(),
        "its certificate is all that there is"
    );

    let doubting = sealed.pool().doubting_unsealed();
    let unsent = doubting.send("order-service", get("/")).await.unwrap_err();
    assert!(!unsent.error.is_unprocessed(), "{unsent:?}");
    assert!(unsent.request.is_none());
    // The session is agreed on anew all the same: it may really be over.
    assert_eq!(sealed.sessions.handshakes().begun, 2);
    is_forged.store(false, Ordering::SeqCst);
    doubting.send("order-service", get("/")).await.unwrap();
    assert_eq!(done.load(Ordering::SeqCst), 3);
    assert_eq!(sealed.sessions.table().stats().inserted, 3);
}

/// Gives gRPC's status long after the last record, and counts those that nobody waited for.
struct Late {
    body: Body,
    status: Option<Frame<Bytes>>,
    turns: u32,
}

static UNHEARD: AtomicUsize = AtomicUsize::new(0);

impl http_body::Body for Late {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.status.is_none() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => self.status = Some(frame),
                other => return other,
            }
        }
        self.turns += 1;
        if self.turns < 256 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.status.take().map(Ok))
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        UNHEARD.fetch_add(self.status.iter().len(), Ordering::SeqCst);
    }
}

// Answers that were dropped before their status came had their streams reset, and after about a thousand of those the
// library ended the connection, with all that was on it.
#[tokio::test]
async fn an_answer_is_read_to_the_end_of_its_stream() {
    let late = |body| {
        Body::boxed(Late {
            body,
            status: None,
            turns: 0,
        })
    };
    let sealed = sealed((untouched, late), |request| async move {
        Response::new(request.into_body())
    });
    let pool = sealed.pool();
    for _ in 0..3 {
        let whole = Request::post("/").body(Body::from("hello")).unwrap();
        let answer = pool.send("orders", whole).await.unwrap();
        assert_eq!(text(answer.into_body()).await.unwrap(), "hello");

        let (sender, body) = fed();
        let streamed = Request::post("/").body(body).unwrap();
        let feed = async {
            sender.send(data(b"hel")).await.unwrap();
            sender.send(data(b"lo")).await.unwrap();
            drop(sender);
        };
        let (answer, ()) = tokio::join!(pool.send("orders", streamed), feed);
        assert_eq!(text(answer.unwrap().into_body()).await.unwrap(), "hello");

        let head = Request::head("/").body(Body::from("hello")).unwrap();
        pool.send("orders", head).await.unwrap();
    }
    assert_eq!(UNHEARD.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_used_up_session_is_followed_by_one_that_is_used_up_too() {
    let sealed = sealed((untouched, untouched), |_| async {
        Response::new(Body::empty())
    });
    let each_call = mesh_session::EpochLimits::default().with_records(2);
    let pool = sealed.client(mesh_session::Config::default().with_epoch(each_call));
    for _ in 0..600 {
        pool.send("order-service", get("/")).await.unwrap();
    }
    // Each call takes the keys of an epoch, and a session has 256 of them.
    assert_eq!(sealed.sessions.table().stats().sessions, 3);
    assert_eq!(
        sealed.sessions.handshakes().begun,
        1,
        "the later ones are resumptions, without a private key"
    );
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_before_anything_is_sent() {
    let sealed = sealed((untouched, untouched), |_| async {
        Response::new(Body::empty())
    });
    let pool = sealed.pool();
    let mut request = get("/");
    request.headers_mut().insert(
        "x-large",
        HeaderValue::from_str(&"x".repeat(65_000)).unwrap(),
    );
    request
        .headers_mut()
        .insert("x-more", HeaderValue::from_str(&"x".repeat(1_000)).unwrap());
    let unsent = pool.send("order-service", request).await.unwrap_err();
    assert!(
        matches!(unsent.error, Error::Unsealable { .. }),
        "{unsent:?}"
    );
    assert!(unsent.request.unwrap().headers().contains_key("x-large"));
    // The session is as good as before.
    pool.send("order-service", get("/")).await.unwrap();
    assert_eq!(sealed.handshakes(), 2);
}

#[tokio::test]
async fn a_streamed_request_that_meets_a_goodbye_goes_out_on_another_connection() {
    // threat 64
    let (gate, entered) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (wait, arrived) = (Arc::clone(&gate), Arc::clone(&entered));
    let sealed = sealed((untouched, untouched), move |request| {
        let (wait, arrived) = (Arc::clone(&wait), Arc::clone(&arrived));
        async move {
            if request.uri().path() == "/slow" {
                arrived.add_permits(1);
                drop(wait.acquire().await.unwrap());
            }
            Response::new(request.into_body())
        }
    });
    let pool = Arc::new(sealed.pool());
    let slow = Arc::clone(&pool);
    let mut in_flight = JoinSet::new();
    in_flight.spawn(async move { slow.send("order-service", get("/slow")).await.map(drop) });
    drop(entered.acquire().await.unwrap());
    sealed.served.signal.enter(Phase::Leaving);
    while sealed.served.connections() < 2 {
        let (sender, body) = fed();
        tasks().start(async move {
            // Whoever reads it has left where this fails, and the answer below says so.
            drop(sender.send(data(b"streamed")).await);
        });
        let request = Request::post("/")
            .header("host", "order-service")
            .body(body)
            .unwrap();
        let answer = pool.send("order-service", request).await.unwrap();
        assert_eq!(text(answer.into_body()).await.unwrap(), "streamed");
    }
    gate.add_permits(1);
    assert!(in_flight.join_all().await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_handshake_keeps_its_place_until_its_work_is_done() {
    // threats 32 and 34: giving up a handshake must not make room for the next one while the key still works.
    let pki = Pki::new("example.org");
    let (let_go, hold) = std::sync::mpsc::channel();
    let verifier = Anyone {
        hold: Some(Mutex::new(hold)),
        ..Anyone::default()
    };
    let limits = LimiterConfig::default().with_under_way(NonZeroU32::MIN, NonZeroU32::MAX);
    let config = SessionConfig::default().with_limits(limits);
    let server = server(pki.id("orders").as_str(), verifier, config);
    let users = pki.id("users");
    let first_message = || async {
        let offer = server
            .handshake(&users, Request::new(Body::empty()))
            .await
            .unwrap();
        let offer = message(offer).await;
        let local = local(users.as_str(), mesh_session::Config::default());
        let key = PeerKey::from_offer(&local, &offer, &Anyone::default()).unwrap();
        let since = support::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        let (_, init) =
            Initiator::start(&local, &key, b"token", UnixTime::from_secs(since.as_secs())).unwrap();
        Request::new(Body::from(framed(&init)))
    };
    let given_up = tokio::time::timeout(
        Duration::from_millis(50),
        server.handshake(&users, first_message().await),
    );
    given_up.await.unwrap_err();
    let refused = server
        .handshake(&users, first_message().await)
        .await
        .unwrap_err();
    assert!(matches!(refused, Refused::Busy(_)), "{refused:?}");

    let_go.send(()).unwrap();
    let_go.send(()).unwrap();
    let answered = loop {
        match server.handshake(&users, first_message().await).await {
            Err(Refused::Busy(Limited::PeerBusy)) => tokio::task::yield_now().await,
            other => break other,
        }
    };
    assert!(answered.is_ok(), "{answered:?}");
}

/// One gRPC message whose field 1 is `field`.
fn framed(field: &[u8]) -> Bytes {
    let mut len = Vec::new();
    let mut rest = field.len();
    while rest >= 0x80 {
        len.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    len.push(u8::try_from(rest).unwrap());
    let size = u32::try_from(1 + len.len() + field.len())
        .unwrap()
        .to_be_bytes();
    [&[0][..], &size, &[0x0a], &len, field].concat().into()
}

/// The field 1 of the one gRPC message in an answer.
async fn message(answer: Response<Body>) -> Bytes {
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let len = body
        .iter()
        .skip(6)
        .take_while(|byte| **byte >= 0x80)
        .count()
        + 1;
    body.slice(6 + len..)
}
