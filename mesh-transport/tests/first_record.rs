//! What a peer may make the called side hold before it knows whom an exchange is from.
#![cfg(all(feature = "session", feature = "spiffe"))]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use bytes::BytesMut;
use http::Request;
use http_body::Frame;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::SystemRandom;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::KeyClaim;
use mesh_session::Local;
use mesh_session::LocalIdentity;
use mesh_session::PeerKey;
use mesh_session::PeerRefused;
use mesh_session::Responders;
use mesh_session::Sealer;
use mesh_session::Session;
use mesh_session::SessionTable;
use mesh_session::TableConfig;
use mesh_session::TokenContext;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;
use mesh_transport::Body;
use mesh_transport::BoxError;
use mesh_transport::session::CLOSE_ROUTE;
use mesh_transport::session::MESH_SERVICE;
use mesh_transport::session::Refused;
use mesh_transport::session::SessionConfig;
use mesh_transport::session::SessionServer;
use mesh_transport::tls::PeerId;

mod support;

use support::tasks;

/// Takes every key and token.
#[derive(Debug)]
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
    Arc::new(Local::new(mesh_session::Config::default(), engine, random, identity).unwrap())
}

/// A server, and a session of `users` with it.
fn server() -> (SessionServer, Arc<Session>) {
    let responders = Responders::new(local("orders"), Duration::from_mins(1)).unwrap();
    let since = support::now().duration_since(SystemTime::UNIX_EPOCH);
    let unix = UnixTime::from_secs(since.unwrap().as_secs());
    let now = tokio::time::Instant::now().into_std();
    let users = local("users");
    let responder = responders.current();
    let key = PeerKey::from_offer(&users, responder.offer(), &Anyone).unwrap();
    let (initiator, init) = Initiator::start(&users, &key, b"", unix).unwrap();
    let checked = responder.check(&init, unix).unwrap();
    let (reply, theirs) = responder.respond(&checked, b"", &Anyone, unix).unwrap();
    let session = initiator.finish(&reply, &Anyone, unix).unwrap();
    let table = SessionTable::new(TableConfig::default(), now).unwrap();
    table.insert(Arc::new(theirs), now);
    let server = SessionServer::new(
        Arc::new(responders),
        (Arc::new(Anyone), Arc::new(|_: &str| Vec::new())),
        Arc::new(table),
        (SessionConfig::default(), support::now),
        tasks(),
    );
    (server, Arc::new(session))
}

/// A first and last record as it goes over the wire.
fn message(session: &Arc<Session>, route: &str, plain: &[u8]) -> Bytes {
    let now = tokio::time::Instant::now().into_std();
    let (mut sealer, _) = session.begin(route.as_bytes(), now).unwrap();
    let mut record = BytesMut::zeroed(Sealer::HEADER_ROOM);
    record.extend_from_slice(plain);
    let flags = Flags::END | Flags::HEAD;
    sealer.seal(flags, &mut record).unwrap();
    framed(&record)
}

/// The head of `GET /a`, and a header block that makes it long.
fn head() -> Vec<u8> {
    let text = |text: &str| {
        [
            &u16::try_from(text.len()).unwrap().to_be_bytes(),
            text.as_bytes(),
        ]
        .concat()
    };
    let line = [text("GET"), text("/a"), text("orders")].concat();
    let head = [line, vec![0, 1], text("x-long"), text(&"x".repeat(60_000))].concat();
    let len = u32::try_from(head.len()).unwrap().to_be_bytes();
    [&len[..], &head].concat()
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

/// Gives its pieces one by one, some time after each other, and then its end or nothing more.
struct Pieces {
    left: std::vec::IntoIter<Bytes>,
    pause: Duration,
    wait: Pin<Box<tokio::time::Sleep>>,
    then: Then,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Then {
    End,
    Silence,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.wait.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let Some(piece) = self.left.next() else {
            return match self.then {
                Then::End => Poll::Ready(None),
                Then::Silence => Poll::Pending,
            };
        };
        self.wait = Box::pin(tokio::time::sleep(self.pause));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// A request of the first `len` bytes of `message`, a quarter of them every `pause`.
fn request(message: &Bytes, len: usize, (pause, then): (Duration, Then)) -> Request<Body> {
    let sent = message.slice(..len);
    let pieces: Vec<_> = sent
        .chunks(len.div_ceil(4))
        .map(Bytes::copy_from_slice)
        .collect();
    let body = Pieces {
        left: pieces.into_iter(),
        pause,
        wait: Box::pin(tokio::time::sleep(Duration::ZERO)),
        then,
    };
    Request::post("/")
        .header(MESH_SERVICE, "orders")
        .body(Body::boxed(body))
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_first_record_that_never_ends_is_given_up() {
    // threat 39
    let (server, session) = server();
    let users = PeerId::new("users");
    let large = message(&session, "orders", b"");
    let start = tokio::time::Instant::now();
    for given in [1, 5, 40, large.len() - 1] {
        let began = start.elapsed();
        let stalled = request(&large, given, (Duration::ZERO, Then::Silence));
        let opened = tokio::time::timeout(Duration::from_secs(11), server.open(&users, stalled));
        let refused = opened.await.unwrap().unwrap_err();
        assert!(matches!(refused, Refused::NotAccepted(_)), "{refused:?}");
        let took = start.elapsed().saturating_sub(began);
        assert!((10_000..10_010).contains(&took.as_millis()), "{took:?}");
    }
    let end = message(&session, CLOSE_ROUTE, b"");
    let stalled = request(&end, end.len() - 1, (Duration::ZERO, Then::Silence));
    let closed = tokio::time::timeout(Duration::from_secs(11), server.close(&users, stalled));
    closed.await.unwrap().unwrap_err();
    assert_eq!(server.table().stats().sessions, 1);
}

#[tokio::test(start_paused = true)]
async fn a_first_record_may_be_slow_on_its_way() {
    let (server, session) = server();
    let message = message(&session, "orders", &head());
    let slow = request(&message, message.len(), (Duration::from_secs(2), Then::End));
    let opened = server.open(&PeerId::new("users"), slow).await.unwrap();
    assert_eq!(opened.request.uri().path(), "/a");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_refused_by_the_front_of_its_first_record() {
    // threat 39
    let (server, session) = server();
    let message = message(&session, "orders", &vec![7; 100_000]);
    let front = || request(&message, 2_000, (Duration::ZERO, Then::End));
    let others = PeerId::new("others");
    let refused = server.open(&others, front()).await.unwrap_err();
    assert!(matches!(refused, Refused::WrongPeer), "{refused:?}");
    server.table().remove(&session.id());
    let users = PeerId::new("users");
    let refused = server.open(&users, front()).await.unwrap_err();
    assert!(matches!(refused, Refused::NoSession), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_while_its_record_comes_opens_nothing() {
    let (server, session) = server();
    let message = message(&session, "orders", &head());
    let slow = request(&message, message.len(), (Duration::from_secs(2), Then::End));
    let users = PeerId::new("users");
    let opening = server.open(&users, slow);
    let ending = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        server.table().remove(&session.id());
    };
    let (opened, ()) = tokio::join!(opening, ending);
    let refused = opened.unwrap_err();
    assert!(matches!(refused, Refused::NoSession), "{refused:?}");
}
