//! Accepting connections within a bound, until draining begins.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use mesh_transport::Error;
use mesh_transport::drain;
use mesh_transport::drain::Phase;
use mesh_transport::listen::Accepted;
use mesh_transport::listen::Listener;
use mesh_transport::tasks::Tasks;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

#[tokio::test]
async fn no_more_connections_are_open_than_allowed() {
    // threat 41
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), 2).unwrap();
    let address = listener.address().unwrap();
    let (signal, drain) = drain::channel();
    let (told, mut accepted) = mpsc::channel::<Accepted>(10);
    let taken = Arc::new(Mutex::new(Vec::new()));
    Tasks::new(Handle::current())
        .start(listener.run(drain, move |one| told.try_send(one).unwrap()));
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(TcpStream::connect(address).await.unwrap());
    }
    for _ in 0..2 {
        let one = accepted.recv().await.unwrap();
        taken.lock().unwrap().push(one);
    }
    // The third one waits in the system's queue until a place is free.
    tokio::time::timeout(Duration::from_millis(100), accepted.recv())
        .await
        .unwrap_err();
    let gone = taken.lock().unwrap().remove(0);
    drop(gone);
    let third = accepted.recv().await.unwrap();
    assert_eq!(third.from, clients.last().unwrap().local_addr().unwrap());

    signal.enter(Phase::Draining);
    signal.drained().await;
    TcpStream::connect(address).await.unwrap_err();
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_in_the_error() {
    let first = Listener::bind(([127, 0, 0, 1], 0).into(), 1).unwrap();
    let address = first.address().unwrap();
    let error = Listener::bind(address, 1).unwrap_err();
    assert!(matches!(error, Error::Listen { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("could not listen on {address}; is another program using the port?")
    );
}
