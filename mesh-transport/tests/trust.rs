//! Sessions and the trust that they were agreed on under: what ends with it, and whose fault a failed handshake is.
#![cfg(all(feature = "session", feature = "spiffe"))]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderValue;
use http::Request;
use http::Response;
use mesh_crypto::Random;
use mesh_crypto::SystemRandom;
use mesh_session::Initiator;
use mesh_session::PeerKey;
use mesh_session::PeerRefused;
use mesh_session::Responders;
use mesh_transport::Body;
use mesh_transport::Error;
use mesh_transport::session::HANDSHAKE_PATH;
use mesh_transport::session::MESH_PROCESSED;
use mesh_transport::session::NO_SESSION;
use mesh_transport::session::Opened;
use mesh_transport::session::Refused;
use mesh_transport::session::SessionPool;
use mesh_transport::session::SessionServer;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;

mod support;

use support::Caller;
use support::Pki;
use support::Served;
use support::get;
use support::pool;
use support::serve;
use support::session;
use support::session::Verifier;
use support::session::framed;

/// Serves `sessions`, as `orders`.
fn orders(pki: &Pki, sessions: &Arc<SessionServer>) -> Served {
    let sessions = Arc::clone(sessions);
    serve(&pki.store("orders"), move |caller: Caller, request| {
        let sessions = Arc::clone(&sessions);
        async move {
            let answered = if request.uri().path() == HANDSHAKE_PATH {
                sessions.handshake(&caller.id, request).await
            } else {
                let opened = sessions.open(&caller.id, request).await;
                opened.map(|opened| {
                    let (_, _, sealer) = opened.into_parts();
                    Opened::seal(sealer, Response::new(Body::empty())).unwrap()
                })
            };
            answered.unwrap_or_else(|refused| {
                let mut response = Response::new(Body::empty());
                let headers = response.headers_mut();
                headers.insert("grpc-status", HeaderValue::from_static("16"));
                headers.insert(MESH_PROCESSED, HeaderValue::from_static("no"));
                if matches!(refused, Refused::NoSession) {
                    headers.insert("x-mesh-error", HeaderValue::from_static(NO_SESSION));
                }
                response
            })
        }
    })
}

/// The way of `users`, with the identity in `store`, to `served`.
fn users(
    (pki, store): (&Pki, &Arc<TlsStore>),
    served: &Served,
    verifier: Arc<Verifier>,
) -> SessionPool {
    let connections = pool(store, served.address, pki.id("orders"));
    session::client(pki.id("users").as_str(), connections, verifier)
}

#[tokio::test]
async fn a_session_agreed_on_while_trust_changed_is_followed_by_none() {
    // threat 63
    let pki = Arc::new(Pki::new("example.org"));
    let responders = session::responders(pki.id("orders").as_str());
    let sessions = Arc::new(session::server(&responders, Verifier::anyone()));
    let served = orders(&pki, &sessions);
    let store = pki.store("users");
    let (changing, authority) = (Arc::clone(&store), Arc::clone(&pki));
    let is_new = AtomicBool::new(true);
    let verifier = Verifier::by(move || {
        if is_new.swap(false, Ordering::SeqCst) {
            let renewed = (authority.credentials("users"), authority.bundles());
            changing.replace(renewed.0, renewed.1).unwrap();
        }
        Ok(())
    });
    let pool = users((&pki, &store), &served, verifier);
    pool.send("orders", get("/")).await.unwrap();
    pool.send("orders", get("/")).await.unwrap();
    assert_eq!(served.connections(), 2);
    // A resumption would have begun none, and verified nothing under the new trust.
    assert_eq!(sessions.handshakes().begun, 2);
}

#[tokio::test]
async fn an_open_session_is_not_used_beyond_a_changed_bundle() {
    // threat 63
    let pki = Pki::new("example.org");
    let responders = session::responders(pki.id("orders").as_str());
    let sessions = Arc::new(session::server(&responders, Verifier::anyone()));
    let served = orders(&pki, &sessions);
    let store = pki.store("users");
    let pool = users((&pki, &store), &served, Verifier::anyone());
    pool.send("orders", get("/")).await.unwrap();
    let other = Pki::new("example.org");
    let renewed = store.replace(pki.credentials("users"), other.bundles());
    renewed.unwrap();
    let unsent = pool.send("orders", get("/")).await.unwrap_err();
    assert!(matches!(unsent.error, Error::Connect { .. }), "{unsent:?}");
}

#[tokio::test]
async fn a_peer_trusted_no_more_can_neither_go_on_nor_resume() {
    // threat 63
    let pki = Pki::new("example.org");
    let is_trusted = Arc::new(AtomicBool::new(true));
    let trusted = Arc::clone(&is_trusted);
    let verifier = Verifier::by(move || {
        if trusted.load(Ordering::SeqCst) {
            Ok(())
        } else {
            Err(PeerRefused::new("its roots are gone"))
        }
    });
    let responders = session::responders(pki.id("orders").as_str());
    let sessions = Arc::new(session::server(&responders, verifier));
    let served = orders(&pki, &sessions);
    let store = pki.store("users");
    let pool = users((&pki, &store), &served, Verifier::anyone());
    pool.send("orders", get("/")).await.unwrap();

    assert_eq!(sessions.end_sessions(), 1);
    // Who is still trusted loses nothing that was done.
    let unsent = pool.send("orders", get("/")).await.unwrap_err();
    assert!(unsent.error.is_unprocessed(), "{unsent:?}");
    pool.send("orders", get("/")).await.unwrap();
    assert_eq!(sessions.handshakes().begun, 2);

    is_trusted.store(false, Ordering::SeqCst);
    assert_eq!(sessions.end_sessions(), 1);
    for _ in 0..3 {
        let unsent = pool.send("orders", get("/")).await.unwrap_err();
        assert!(matches!(unsent.error, Error::Session { .. }), "{unsent:?}");
    }
    assert_eq!(sessions.table().stats().sessions, 0);
}

/// A first message of `users` for the offer of `responders`.
fn first_message(responders: &Responders) -> Request<Body> {
    let users = session::local("users");
    let key = PeerKey::from_offer(&users, responders.current().offer(), &*Verifier::anyone());
    let (_, init) = Initiator::start(&users, &key.unwrap(), b"", session::unix_now()).unwrap();
    Request::new(Body::from(framed(&init)))
}

#[tokio::test]
async fn a_session_agreed_on_while_all_are_ended_is_not_kept() {
    // threat 63
    static SESSIONS: OnceLock<Weak<SessionServer>> = OnceLock::new();
    let verifier = Verifier::by(|| {
        let sessions = SESSIONS.get().and_then(Weak::upgrade);
        assert_eq!(sessions.unwrap().end_sessions(), 0);
        Ok(())
    });
    let responders = session::responders("orders");
    let sessions = Arc::new(session::server(&responders, verifier));
    SESSIONS.set(Arc::downgrade(&sessions)).unwrap();
    let users = PeerId::new("users");
    let refused = sessions.handshake(&users, first_message(&responders));
    let refused = refused.await.unwrap_err();
    assert!(matches!(refused, Refused::NoSession), "{refused:?}");
    assert_eq!(sessions.table().stats().sessions, 0);
}

/// Gives nothing more once it is dry.
#[derive(Debug, Default)]
struct Source {
    is_dry: AtomicBool,
}

impl Random for Source {
    fn fill(&self, out: &mut [u8]) -> Result<(), mesh_crypto::Error> {
        if self.is_dry.load(Ordering::SeqCst) {
            return Err(mesh_crypto::Error::Random);
        }
        SystemRandom::new().fill(out)
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_by_our_own_fault_is_not_charged_as_a_failure() {
    let source = Arc::new(Source::default());
    let own = session::local_with("orders", Arc::clone(&source) as Arc<dyn Random>);
    let responders = Arc::new(Responders::new(own, Duration::from_mins(1)).unwrap());
    let users = PeerId::new("users");
    let too_long = session::server_with(&responders, Verifier::anyone(), vec![b'x'; 9_000]);
    let dry = session::server(&responders, Verifier::anyone());
    for server in [too_long, dry] {
        for _ in 0..2 {
            let message = first_message(&responders);
            let refused = server.handshake(&users, message).await.unwrap_err();
            assert!(matches!(refused, Refused::NotAccepted(_)), "{refused:?}");
        }
        let stats = server.handshakes();
        assert_eq!((stats.begun, stats.failed), (2, 0));
        source.is_dry.store(true, Ordering::SeqCst);
    }
}
