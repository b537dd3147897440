//! Connections whose peers lose what vouched for them, and identities that are replaced under traffic.
#![cfg(feature = "spiffe")]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use mesh_transport::Body;
use mesh_transport::Error;
use mesh_transport::peer::PeerPool;
use mesh_transport::peer::Unsent;
use mesh_transport::spiffe::SpiffeLeaf;
use mesh_transport::tls::TlsStore;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

mod support;

use support::Pki;
use support::Served;
use support::Watch;
use support::eventually;
use support::get;
use support::pool;
use support::serve;
use support::store;

/// A server that answers with the number of the connection, and never on `/slow`.
fn numbered(store: &Arc<TlsStore>, entered: &Arc<Semaphore>) -> Served {
    let entered = Arc::clone(entered);
    serve(store, move |caller, request| {
        let entered = Arc::clone(&entered);
        async move {
            if request.uri().path() == "/slow" {
                entered.add_permits(1);
                std::future::pending::<()>().await;
            }
            Response::new(Body::from(caller.connection.to_string()))
        }
    })
}

/// For servers that are asked for nothing slow.
fn nobody() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

async fn number(pool: &PeerPool) -> Result<usize, Unsent> {
    let answer = pool.send(get("/")).await?;
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Ok(std::str::from_utf8(&body).unwrap().parse().unwrap())
}

/// A call that has reached the server of `pool`, and gets no answer.
async fn slow(
    pool: &Arc<PeerPool>,
    entered: &Semaphore,
) -> JoinSet<Result<Response<Body>, Unsent>> {
    let (pool, mut call) = (Arc::clone(pool), JoinSet::new());
    call.spawn(async move { pool.send(get("/slow")).await });
    entered.acquire().await.unwrap().forget();
    call
}

/// Lets timers fire as if `by` had passed.
async fn pass(by: Duration) {
    // What was told is heard, and its timers begin.
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

/// Longer than what is in flight has with a peer that is not vouched for any more.
const SECONDS: Duration = Duration::from_secs(6);

// threat 2
#[tokio::test]
async fn clients_that_a_dropped_domain_vouched_for_are_cut_and_no_others() {
    let (ours, theirs) = (Pki::new("example.org"), Pki::new("partner.org"));
    let orders = store(
        ours.credentials("orders"),
        theirs.beside(ours.bundles()),
        Duration::ZERO,
    );
    let entered = Arc::new(Semaphore::new(0));
    let served = numbered(&orders, &entered);
    let friend = pool(&ours.store("users"), served.address, ours.id("orders"));
    let stranger = store(
        theirs.credentials("users"),
        ours.beside(theirs.bundles()),
        Duration::ZERO,
    );
    let stranger = Arc::new(pool(&stranger, served.address, ours.id("orders")));
    assert_eq!(number(&friend).await.unwrap(), 0);
    assert_eq!(number(&stranger).await.unwrap(), 1);
    let mut in_flight = slow(&stranger, &entered).await;

    orders
        .replace(ours.credentials("orders"), ours.bundles())
        .unwrap();
    // It is told at once, and once it has heard it gets nowhere.
    let told = async { while number(&stranger).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), told)
        .await
        .unwrap();
    assert_eq!(served.open(), 2);
    pass(SECONDS).await;
    let cut = in_flight.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(matches!(cut.error, Error::Exchange { .. }), "{cut:?}");
    eventually(|| served.open() == 1).await;
    assert_eq!(number(&friend).await.unwrap(), 0);
}

// threat 2
#[tokio::test]
async fn servers_that_a_removed_root_vouched_for_are_left_and_no_others() {
    let (ours, theirs) = (Pki::new("example.org"), Pki::new("partner.org"));
    let entered = Arc::new(Semaphore::new(0));
    let serving = |pki: &Pki| {
        let orders = store(
            pki.credentials("orders"),
            theirs.beside(ours.bundles()),
            Duration::ZERO,
        );
        numbered(&orders, &entered)
    };
    let (near, far) = (serving(&ours), serving(&theirs));
    let users = store(
        ours.credentials("users"),
        theirs.beside(ours.bundles()),
        Duration::ZERO,
    );
    let to_near = Arc::new(pool(&users, near.address, ours.id("orders")));
    let to_far = Arc::new(pool(&users, far.address, theirs.id("orders")));
    assert_eq!(number(&to_near).await.unwrap(), 0);
    assert_eq!(number(&to_far).await.unwrap(), 0);
    let (mut stays, mut goes) = (
        slow(&to_near, &entered).await,
        slow(&to_far, &entered).await,
    );

    // The same name for another authority: the domain stays, its root does not.
    let renewed = Pki::new("partner.org").beside(ours.bundles());
    users.replace(ours.credentials("users"), renewed).unwrap();
    let refused = number(&to_far).await.unwrap_err();
    assert!(
        matches!(refused.error, Error::Connect { .. }),
        "{refused:?}"
    );
    pass(SECONDS).await;
    let cut = goes.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(matches!(cut.error, Error::Exchange { .. }), "{cut:?}");
    eventually(|| far.open() == 0).await;
    // New calls go out under the new identity, what was in flight is not lost.
    assert_eq!(number(&to_near).await.unwrap(), 1);
    assert!(stays.try_join_next().is_none());
    assert_eq!(near.open(), 2);
}

#[tokio::test]
async fn a_root_that_is_added_ends_nothing() {
    let (ours, theirs) = (Pki::new("example.org"), Pki::new("partner.org"));
    let orders = ours.store("orders");
    let served = numbered(&orders, &nobody());
    let users = pool(&ours.store("users"), served.address, ours.id("orders"));
    let first = users.connection().await.unwrap();
    for _ in 0..3 {
        let both = theirs.beside(ours.bundles());
        orders.replace(ours.credentials("orders"), both).unwrap();
        assert_eq!(number(&users).await.unwrap(), 0);
    }
    // One that this peer does not need goes.
    orders
        .replace(ours.credentials("orders"), ours.bundles())
        .unwrap();
    pass(SECONDS).await;
    assert_eq!(number(&users).await.unwrap(), 0);
    assert!(!first.is_closed());
}

// threat 5
#[tokio::test]
async fn a_connection_does_not_outlive_the_certificate_of_its_peer_by_a_minute() {
    let pki = Pki::new("example.org");
    let on = |clock: &Arc<Watch>, service: &str| {
        let clock = Arc::clone(clock) as Arc<_>;
        let leaf = Arc::new(SpiffeLeaf::new());
        let store = TlsStore::new(leaf, clock, pki.credentials(service), pki.bundles());
        Arc::new(store.unwrap())
    };
    // Once the client is the one whose certificate ends, as the other's clock sees it, once the server.
    for is_server in [false, true] {
        let (early, late) = (Arc::<Watch>::default(), Arc::<Watch>::default());
        let entered = Arc::new(Semaphore::new(0));
        let (orders, users) = if is_server {
            (on(&early, "orders"), on(&late, "users"))
        } else {
            (on(&late, "orders"), on(&early, "users"))
        };
        let served = numbered(&orders, &entered);
        let users = Arc::new(pool(&users, served.address, pki.id("orders")));
        let mut in_flight = slow(&users, &entered).await;

        late.forward(Duration::from_mins(59));
        pass(Duration::from_secs(31)).await;
        assert_eq!(number(&users).await.unwrap(), 0);
        late.forward(Duration::from_secs(61));
        // Timers need not have noticed: the clock may have been set.
        pass(Duration::from_secs(31)).await;
        pass(SECONDS).await;
        let cut = in_flight.join_next().await.unwrap().unwrap().unwrap_err();
        assert!(matches!(cut.error, Error::Exchange { .. }), "{cut:?}");
        eventually(|| served.open() == 0).await;
        number(&users).await.unwrap_err();
    }
}

// threat 71
#[tokio::test]
async fn an_idle_connection_of_a_replaced_identity_closes_by_itself() {
    let pki = Pki::new("example.org");
    let served = numbered(&pki.store("orders"), &nobody());
    let users = pki.store("users");
    let pool = pool(&users, served.address, pki.id("orders"));
    assert_eq!(number(&pool).await.unwrap(), 0);
    assert_eq!(served.open(), 1);
    users
        .replace(pki.credentials("users"), pki.bundles())
        .unwrap();
    eventually(|| served.open() == 0).await;
    assert_eq!(pool.open_connections(), 0);
    assert_eq!(number(&pool).await.unwrap(), 1);
}

// threat 71
#[tokio::test]
async fn services_at_one_address_with_different_names_share_no_connection() {
    let pki = Pki::new("example.org");
    let served = numbered(&pki.store("orders"), &nobody());
    let users = pki.store("users");
    let orders = pool(&users, served.address, pki.id("orders"));
    let billing = pool(&users, served.address, pki.id("billing"));
    assert_eq!(number(&orders).await.unwrap(), 0);
    for _ in 0..2 {
        let refused = number(&billing).await.unwrap_err();
        assert!(
            matches!(refused.error, Error::WrongPeer { .. }),
            "{refused:?}"
        );
        assert!(refused.request.is_some());
    }
    assert_eq!(number(&orders).await.unwrap(), 0);
    // Another identity of ours is another connection, even to the same name at the same address.
    let admin = pool(&pki.store("admin"), served.address, pki.id("orders"));
    assert_eq!(number(&admin).await.unwrap(), 3);
}

// threats 63, 64
#[tokio::test]
async fn a_hundred_rotations_and_twenty_rollovers_under_traffic_lose_nothing() {
    let old = Pki::new("example.org");
    let (orders, users) = (old.store("orders"), old.store("users"));
    let served = numbered(&orders, &nobody());
    let pool = Arc::new(pool(&users, served.address, old.id("orders")));
    let stop = Arc::new(Semaphore::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (pool, stop) = (Arc::clone(&pool), Arc::clone(&stop));
        callers.spawn(async move {
            let mut calls = 0_usize;
            while stop.available_permits() == 0 {
                number(&pool).await.unwrap();
                calls += 1;
            }
            calls
        });
    }
    let mut now = old;
    for turn in 0..100 {
        for (store, service) in [(&orders, "orders"), (&users, "users")] {
            store
                .replace(now.credentials(service), now.bundles())
                .unwrap();
        }
        number(&pool).await.unwrap();
        if turn % 5 == 0 {
            now = roll_over(&now, (&orders, &users), &pool).await;
        }
    }
    stop.add_permits(1);
    let calls: usize = callers.join_all().await.iter().sum();
    assert!(calls > 100, "{calls}");
    assert!(served.connections() > 100, "{}", served.connections());
    eventually(|| served.open() == 1).await;
}

/// Both roots, then the new certificates, then the new root alone.
async fn roll_over(old: &Pki, (orders, users): (&TlsStore, &TlsStore), pool: &PeerPool) -> Pki {
    let new = Pki::new("example.org");
    let roots = [old.roots(), new.roots()].concat();
    let both = || {
        let none = mesh_transport::tls::TrustBundles::new();
        none.with_domain("example.org", &roots).unwrap()
    };
    for pki in [old, &new] {
        for (store, service) in [(orders, "orders"), (users, "users")] {
            store.replace(pki.credentials(service), both()).unwrap();
        }
        number(pool).await.unwrap();
    }
    for (store, service) in [(orders, "orders"), (users, "users")] {
        store
            .replace(new.credentials(service), new.bundles())
            .unwrap();
    }
    new
}
