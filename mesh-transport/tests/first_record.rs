//! What a peer may make the called side hold before it knows whom an exchange is from.
#![cfg(all(feature = "session", feature = "spiffe"))]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use http::Request;
use http_body::Frame;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::PeerKey;
use mesh_session::Sealer;
use mesh_session::Session;
use mesh_transport::Body;
use mesh_transport::BoxError;
use mesh_transport::session::CLOSE_ROUTE;
use mesh_transport::session::MESH_SERVICE;
use mesh_transport::session::Refused;
use mesh_transport::session::SessionServer;
use mesh_transport::tls::PeerId;

mod support;

use support::session;
use support::session::Verifier;
use support::session::framed;

/// A server, and a session of `users` with it.
fn server() -> (SessionServer, Arc<Session>) {
    let (responders, anyone) = (session::responders("orders"), Verifier::anyone());
    let (users, now) = (session::local("users"), session::unix_now());
    let responder = responders.current();
    let key = PeerKey::from_offer(&users, responder.offer(), &*anyone).unwrap();
    let (initiator, init) = Initiator::start(&users, &key, b"", now).unwrap();
    let checked = responder.check(&init, now).unwrap();
    let (reply, theirs) = responder.respond(&checked, b"", &*anyone, now).unwrap();
    let ours = initiator.finish(&reply, &*anyone, now).unwrap();
    let server = session::server(&responders, anyone);
    let start = tokio::time::Instant::now().into_std();
    server.table().insert(Arc::new(theirs), start);
    (server, Arc::new(ours))
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
