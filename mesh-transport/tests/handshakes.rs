//! Handshakes in numbers: what a peer is refused, when, and what a caller makes of it.
#![cfg(all(feature = "session", feature = "spiffe"))]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test helper may panic")]

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http::Response;
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
use mesh_transport::session::BUSY;
use mesh_transport::session::HANDSHAKE_PATH;
use mesh_transport::session::MESH_PROCESSED;
use mesh_transport::session::Opened;
use mesh_transport::session::RETRY_PUSHBACK;
use mesh_transport::session::Refused;
use mesh_transport::session::SessionClient;
use mesh_transport::session::SessionConfig;
use mesh_transport::session::SessionPool;
use mesh_transport::session::SessionServer;
use mesh_transport::tls::PeerId;
use tokio::task::JoinSet;

mod support;

use support::Caller;
use support::Pki;
use support::Served;
use support::get;
use support::pool;
use support::serve;
use support::tasks;

/// Takes every key and token.
#[derive(Debug, Default)]
struct Anyone;

impl VerifyPeer for Anyone {
    fn verify_key(&self, _: &KeyClaim<'_>) -> Result<(), PeerRefused> {
        Ok(())
    }

    fn verify_token(&self, _: &str, _: &[u8], _: &TokenContext<'_>) -> Result<(), PeerRefused> {
        Ok(())
    }
}

fn local(name: &str) -> Arc<Local> {
    static KEY: OnceLock<Arc<RsaKeyPair>> = OnceLock::new();
    let engine = mesh_crypto::engine::aws_lc();
    let key = KEY.get_or_init(|| Arc::new(RsaKeyPair::generate(&*engine, RsaBits::B2048).unwrap()));
    let identity = LocalIdentity::new(name.to_owned(), Arc::clone(key), Vec::new());
    let random = Arc::new(SystemRandom::new());
    let config = mesh_session::Config::default();
    Arc::new(Local::new(config, mesh_crypto::engine::aws_lc(), random, identity).unwrap())
}

fn responders(name: &str) -> Arc<Responders> {
    Arc::new(Responders::new(local(name), Duration::from_mins(1)).unwrap())
}

/// A server that gives a peer `burst` handshakes, and no more for a long time.
fn server(burst: u32) -> SessionServer {
    let burst = NonZeroU32::new(burst).unwrap();
    let limits = LimiterConfig::default().with_rate(burst, NonZeroU32::MIN);
    let start = tokio::time::Instant::now().into_std();
    SessionServer::new(
        responders("orders"),
        (Arc::new(Anyone), Arc::new(|_: &str| Vec::new())),
        Arc::new(SessionTable::new(TableConfig::default(), start).unwrap()),
        (SessionConfig::default().with_limits(limits), support::now),
        tasks(),
    )
}

/// A good first message from `users`, for the offer in `offer`.
fn first_message(offer: &[u8]) -> Vec<u8> {
    let local = local("users");
    let key = PeerKey::from_offer(&local, offer, &Anyone).unwrap();
    let since = support::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = UnixTime::from_secs(since.unwrap().as_secs());
    Initiator::start(&local, &key, b"", now).unwrap().1
}

async fn send(server: &SessionServer, message: &[u8]) -> Result<Bytes, Refused> {
    let request = Request::new(Body::from(framed(message)));
    let answer = server.handshake(&PeerId::new("users"), request).await?;
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let len = body
        .iter()
        .skip(6)
        .take_while(|byte| **byte >= 0x80)
        .count()
        + 1;
    Ok(body.slice(6 + len..))
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
    let size = u32::try_from(1 + len.len() + field.len()).unwrap();
    [&[0][..], &size.to_be_bytes(), &[0x0a], &len, field]
        .concat()
        .into()
}

#[tokio::test(start_paused = true)]
async fn a_peer_beyond_its_limit_is_refused_whatever_its_message_is() {
    // threat 32
    let server = server(2);
    let offer = send(&server, &[]).await.unwrap();
    // An offer costs an eighth, so one is left.
    send(&server, &first_message(&offer)).await.unwrap();
    for message in [&b"noise"[..], &[], &first_message(&offer)] {
        let refused = limited(send(&server, message).await);
        assert_eq!(refused.retry_after(), Duration::from_millis(125));
    }
    let request = Request::new(Body::empty());
    let others = server.handshake(&PeerId::new("others"), request).await;
    others.unwrap();
    tokio::time::advance(Duration::from_millis(125)).await;
    send(&server, &first_message(&offer)).await.unwrap();
    assert_eq!(server.handshakes().begun, 2);
}

fn limited<T: std::fmt::Debug>(result: Result<T, Refused>) -> Limited {
    match result {
        Err(Refused::Busy(limited)) => limited,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_makes_the_key_work_in_vain_pays_for_four() {
    // threat 32
    let server = server(32);
    let offer = send(&server, &[]).await.unwrap();
    let mut broken = first_message(&offer);
    *broken.last_mut().unwrap() ^= 1;
    let mut refused = 0;
    while let Err(Refused::NotAccepted(_)) = send(&server, &broken).await {
        refused += 1;
    }
    let stats = server.handshakes();
    assert_eq!((refused, stats.begun, stats.failed), (8, 8, 8));
    assert_eq!(stats.under_way, 0);
}

#[tokio::test(start_paused = true)]
async fn what_public_bytes_refuse_makes_no_key_work() {
    // threat 32
    let server = server(32);
    let offer = send(&server, &[]).await.unwrap();
    let message = first_message(&offer);
    send(&server, &message).await.unwrap();
    let stale = first_message(responders("orders").current().offer());
    for bytes in [&message[..], &stale, b"noise"] {
        let refused = send(&server, bytes).await.unwrap_err();
        assert!(matches!(refused, Refused::NotAccepted(_)), "{refused:?}");
    }
    let two = [framed(&message), framed(&message)].concat();
    let request = Request::new(Body::from(Bytes::from(two)));
    let refused = server.handshake(&PeerId::new("users"), request).await;
    assert!(matches!(refused, Err(Refused::NotAccepted(_))));
    assert_eq!(server.handshakes().begun, 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_restart_makes_stale_costs_an_honest_peer_an_eighth() {
    let server = server(2);
    for _ in 0..7 {
        let stale = first_message(responders("orders").current().offer());
        send(&server, &stale).await.unwrap_err();
    }
    let offer = send(&server, &[]).await.unwrap();
    send(&server, &first_message(&offer)).await.unwrap();
    limited(send(&server, &first_message(&offer)).await);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_never_ends_is_given_up() {
    // threat 33
    struct Endless;
    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Pending
        }
    }
    let server = server(2);
    let (peer, start) = (PeerId::new("users"), tokio::time::Instant::now());
    let refused = server.handshake(&peer, Request::new(Endless)).await;
    assert!(matches!(refused, Err(Refused::NotAccepted(_))));
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

/// A node that is too busy for the first `busy` messages of handshakes, and says that it will be for `millis`.
fn busy_node(busy: usize, millis: &'static str) -> (Served, Arc<AtomicUsize>, SessionPool) {
    let pki = Pki::new("example.org");
    let name = pki.id("orders").to_string();
    let start = tokio::time::Instant::now().into_std();
    let sessions = Arc::new(SessionServer::new(
        responders(&name),
        (Arc::new(Anyone), Arc::new(|_: &str| Vec::new())),
        Arc::new(SessionTable::new(TableConfig::default(), start).unwrap()),
        (SessionConfig::default(), support::now),
        tasks(),
    ));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let served = serve(&pki.store("orders"), move |caller: Caller, request| {
        let (sessions, asked) = (Arc::clone(&sessions), Arc::clone(&counted));
        async move {
            if request.uri().path() != HANDSHAKE_PATH {
                let opened = sessions.open(&caller.id, request).await.unwrap();
                return Opened::seal(opened.into_parts().2, Response::new(Body::empty())).unwrap();
            }
            if asked.fetch_add(1, Ordering::SeqCst) < busy {
                let mut answer = Response::new(Body::empty());
                let headers = answer.headers_mut();
                headers.insert("grpc-status", HeaderValue::from_static("14"));
                headers.insert("x-mesh-error", HeaderValue::from_static(BUSY));
                headers.insert(RETRY_PUSHBACK, HeaderValue::from_static(millis));
                headers.insert(MESH_PROCESSED, HeaderValue::from_static("no"));
                return answer;
            }
            sessions.handshake(&caller.id, request).await.unwrap()
        }
    });
    let users = Arc::new(ArcSwap::new(local(pki.id("users").as_str())));
    let life = (Duration::from_hours(1), support::now as fn() -> SystemTime);
    let client = SessionClient::new(users, Arc::new(|_: &str| Vec::new()), life, tasks());
    let connections = pool(&pki.store("users"), served.address, pki.id("orders"));
    let pool = client.pool(connections, Arc::new(Anyone));
    (served, asked, pool)
}

// Refusals that came before the message had arrived reset their streams, and a thousand of those ended the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_refusals_leave_the_connection_as_it_is() {
    let pki = Pki::new("example.org");
    let sessions = Arc::new(server(1));
    let served = serve(&pki.store("orders"), move |caller: Caller, request| {
        let sessions = Arc::clone(&sessions);
        async move {
            let answer = sessions.handshake(&caller.id, request).await;
            answer.unwrap_or_else(|_| Response::new(Body::empty()))
        }
    });
    let pool = pool(&pki.store("users"), served.address, pki.id("orders"));
    let connection = pool.connection().await.unwrap();
    for _ in 0..40 {
        let mut calls = JoinSet::new();
        for _ in 0..64 {
            let connection = Arc::clone(&connection);
            calls.spawn(async move {
                let body = Body::boxed(Slow {
                    left: 12,
                    is_due: false,
                });
                let request = Request::post(HANDSHAKE_PATH).body(body).unwrap();
                connection.send(request).await.map(drop)
            });
        }
        assert!(calls.join_all().await.iter().all(Result::is_ok));
    }
}

/// A message in so many pieces, each a turn after the one before.
struct Slow {
    left: u32,
    is_due: bool,
}

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.is_due = !self.is_due;
        if self.is_due {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(left) = self.left.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.left = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 500])))))
    }
}

#[tokio::test]
async fn callers_of_a_peer_that_is_busy_for_a_moment_wait_for_it_together() {
    // threat 32
    let (_served, asked, pool) = busy_node(3, "20");
    let (pool, mut calls) = (Arc::new(pool), JoinSet::new());
    for _ in 0..20 {
        let pool = Arc::clone(&pool);
        calls.spawn(async move { pool.send("orders", get("/")).await.map(drop) });
    }
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    // Three times in vain, then for the offer and for the session.
    assert_eq!(asked.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_peer_that_is_busy_for_long_is_not_asked_again_before() {
    // threat 32
    let (_served, asked, pool) = busy_node(1, "20000");
    for _ in 0..20 {
        let unsent = pool.send("orders", get("/")).await.unwrap_err();
        let is_session = matches!(unsent.error, Error::Session { .. });
        assert!(is_session && unsent.request.is_some(), "{unsent:?}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
