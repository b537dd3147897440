//! Connections to peers: shared, replaced, and not dialed by everybody at once.
#![cfg(feature = "spiffe")]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use mesh_transport::Body;
use mesh_transport::BoxError;
use mesh_transport::Error;
use mesh_transport::drain::Phase;
use mesh_transport::peer::Dialer;
use mesh_transport::peer::JudgeAddress;
use mesh_transport::peer::PeerConfig;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

mod support;

use support::Pki;
use support::get;
use support::loopback;
use support::pool;
use support::serve;
use support::tasks;

#[tokio::test]
async fn requests_share_one_connection() {
    let pki = Pki::new("example.org");
    let served = serve(&pki.store("orders"), |_, _| async {
        Response::new(Body::empty())
    });
    let pool = Arc::new(pool(&pki.store("users"), served.address, pki.id("orders")));
    for _ in 0..5 {
        let mut together = JoinSet::new();
        for _ in 0..20 {
            let pool = Arc::clone(&pool);
            together.spawn(async move { pool.send(get("/")).await.map(drop) });
        }
        assert!(together.join_all().await.iter().all(Result::is_ok));
    }
    assert_eq!((served.connections(), pool.open_connections()), (1, 1));
}

/// Refuses the IPv6 address of this machine, and all of them where `is_closed` is true.
#[derive(Debug)]
struct Picky {
    is_closed: bool,
    asked: AtomicUsize,
}

impl JudgeAddress for Picky {
    fn judge(&self, address: SocketAddr) -> Result<(), BoxError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_closed || address.is_ipv6() {
            return Err(format!("{address} is not for us").into());
        }
        Ok(())
    }
}

// threat 49
#[tokio::test]
async fn a_name_leads_only_where_the_judge_lets_it_and_an_address_is_taken_as_it_stands() {
    let pki = Pki::new("example.org");
    let served = serve(&pki.store("orders"), |_, _| async {
        Response::new(Body::empty())
    });
    let address = served.address.to_string();
    let name = format!("localhost:{}", served.address.port());
    for (destination, is_closed, is_reached) in [
        (&name, false, true),
        (&name, true, false),
        (&address, true, true),
    ] {
        let judge = Arc::new(Picky {
            is_closed,
            asked: AtomicUsize::new(0),
        });
        let dialer = Dialer::new(pki.store("users"), PeerConfig::default(), tasks())
            .with_judge(Arc::clone(&judge) as Arc<_>);
        let found = dialer.dial(destination, &pki.id("orders")).await;
        assert_eq!(found.is_ok(), is_reached, "{destination}: {found:?}");
        if let Err(error) = found {
            let why = error.source().unwrap().to_string();
            assert!(why.contains("is not for us"), "{why}");
        }
        let asked = judge.asked.load(Ordering::Relaxed);
        assert_eq!(asked > 0, *destination == name, "{destination}");
    }
}

#[tokio::test]
async fn a_connection_that_closed_is_replaced() {
    let pki = Pki::new("example.org");
    let served = serve(&pki.store("orders"), |_, _| async {
        Response::new(Body::empty())
    });
    let pool = pool(&pki.store("users"), served.address, pki.id("orders"));
    pool.send(get("/")).await.unwrap();
    let old = pool.connection().await.unwrap();
    // Leaving asks peers to go elsewhere; new connections are still taken.
    served.signal.enter(Phase::Leaving);
    while !old.is_closed() {
        tokio::task::yield_now().await;
    }
    assert_eq!(pool.open_connections(), 0);
    pool.send(get("/")).await.unwrap();
    assert_eq!(served.connections(), 2);
}

#[tokio::test]
async fn a_busy_connection_gets_company_up_to_the_limit() {
    let pki = Pki::new("example.org");
    let (gate, entered) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (wait, arrived) = (Arc::clone(&gate), Arc::clone(&entered));
    let served = serve(&pki.store("orders"), move |_, _| {
        let (wait, arrived) = (Arc::clone(&wait), Arc::clone(&arrived));
        async move {
            arrived.add_permits(1);
            drop(wait.acquire().await.unwrap());
            Response::new(Body::empty())
        }
    });
    let mut config = PeerConfig::default();
    (config.max_connections, config.streams_before_next) = (2, 3);
    let dialer = Dialer::new(pki.store("users"), config, tasks());
    let pool = Arc::new(dialer.pool(served.address.to_string(), pki.id("orders")));
    let mut under_way = JoinSet::new();
    for _ in 0..12 {
        let pool = Arc::clone(&pool);
        under_way.spawn(async move { pool.send(get("/")).await.map(drop) });
        entered.acquire().await.unwrap().forget();
    }
    assert_eq!((served.connections(), pool.open_connections()), (2, 2));
    gate.add_permits(12);
    assert!(under_way.join_all().await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn callers_of_a_dead_endpoint_wait_together_and_not_in_a_row() {
    let pki = Pki::new("example.org");
    // Takes connections and never says a word.
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let pool = Arc::new(pool(
        &pki.store("users"),
        listener.local_addr().unwrap(),
        pki.id("orders"),
    ));
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let pool = Arc::clone(&pool);
        callers.spawn(async move { pool.send(get("/")).await.map(drop) });
    }
    for failed in callers.join_all().await {
        let unsent = failed.unwrap_err();
        assert!(matches!(unsent.error, Error::Connect { .. }), "{unsent:?}");
        assert!(unsent.request.is_some());
    }
    assert!(
        started.elapsed() < 2 * PeerConfig::default().connect_timeout,
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn nobody_there_is_an_error_that_gives_the_request_back() {
    let pki = Pki::new("example.org");
    let address = TcpListener::bind(loopback())
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let unsent = pool(&pki.store("users"), address, pki.id("orders"))
        .send(get("/kept"))
        .await
        .unwrap_err();
    assert!(unsent.error.is_unprocessed(), "{unsent:?}");
    assert_eq!(
        unsent.error.to_string(),
        format!("could not connect to {address}")
    );
    assert_eq!(unsent.request.unwrap().uri().path(), "/kept");
}

#[tokio::test]
async fn draining_finishes_what_is_in_flight_and_takes_nothing_more() {
    // threat 64
    let pki = Pki::new("example.org");
    let (gate, entered) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (wait, arrived) = (Arc::clone(&gate), Arc::clone(&entered));
    let served = serve(&pki.store("orders"), move |_, _| {
        let (wait, arrived) = (Arc::clone(&wait), Arc::clone(&arrived));
        async move {
            arrived.add_permits(1);
            drop(wait.acquire().await.unwrap());
            Response::new(Body::from("finished"))
        }
    });
    let pool = pool(&pki.store("users"), served.address, pki.id("orders"));
    let connection = pool.connection().await.unwrap();
    let in_flight = Arc::clone(&connection);
    let mut in_flight_done = JoinSet::new();
    in_flight_done.spawn(async move {
        let answer = in_flight.send(get("/")).await.unwrap();
        answer.into_body().collect().await.unwrap().to_bytes()
    });
    drop(entered.acquire().await.unwrap());

    served.signal.enter(Phase::Draining);
    // The client hears of it over the network, a little later; what is accepted before then is given up.
    let unsent = loop {
        let late = connection.send(get("/late"));
        if let Ok(sent) = tokio::time::timeout(Duration::from_millis(20), late).await {
            break sent.unwrap_err();
        }
    };
    assert!(
        matches!(unsent.error, Error::Unprocessed { .. }),
        "{unsent:?}"
    );
    assert_eq!(unsent.request.unwrap().uri().path(), "/late");
    assert!(served.signal.holders() > 0);

    gate.add_permits(1);
    assert_eq!(in_flight_done.join_all().await, ["finished"]);
    tokio::time::timeout(Duration::from_secs(10), served.signal.drained())
        .await
        .unwrap();
    let refused = pool.send(get("/")).await.unwrap_err();
    assert!(
        matches!(refused.error, Error::Connect { .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_request_that_meets_a_goodbye_goes_out_on_another_connection() {
    // threat 64
    let pki = Pki::new("example.org");
    let (gate, entered) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (wait, arrived) = (Arc::clone(&gate), Arc::clone(&entered));
    let served = serve(&pki.store("orders"), move |caller, request| {
        let (wait, arrived) = (Arc::clone(&wait), Arc::clone(&arrived));
        async move {
            if request.uri().path() == "/slow" {
                arrived.add_permits(1);
                drop(wait.acquire().await.unwrap());
            }
            Response::new(Body::from(caller.connection.to_string()))
        }
    });
    let pool = Arc::new(pool(&pki.store("users"), served.address, pki.id("orders")));
    let slow = Arc::clone(&pool);
    let mut in_flight = JoinSet::new();
    in_flight.spawn(async move { slow.send(get("/slow")).await.map(drop) });
    drop(entered.acquire().await.unwrap());
    // The connection stays open for the slow request, so nothing but an attempt shows that it takes no more.
    served.signal.enter(Phase::Leaving);
    loop {
        let answer = pool.send(get("/")).await.unwrap();
        let connection = answer.into_body().collect().await.unwrap().to_bytes();
        if connection == "1" {
            break;
        }
    }
    gate.add_permits(1);
    assert!(in_flight.join_all().await.iter().all(Result::is_ok));
}
