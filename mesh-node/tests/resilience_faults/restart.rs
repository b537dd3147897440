//! a thousand clients come back at once after a restart, and are served soon.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::millis;
use crate::pick;
use crate::say;
use crate::scene::Scene;
use crate::support::open_load::Ask;
use crate::support::process::wait_until;

const CLIENTS: usize = 1000;

/// Clients that hold a connection each and, once it is lost, call again and again until they are served.
fn clients(scene: &Scene, go: &Arc<Notify>) -> JoinSet<Duration> {
    let mut clients = JoinSet::new();
    let held = Arc::new(Mutex::new(0));
    for _ in 0..CLIENTS {
        let (go, held, outbound) = (Arc::clone(go), Arc::clone(&held), scene.mesh.user.outbound);
        let client = async move {
            let ask = Ask::new("GET", "order-service", "/again");
            let stream = TcpStream::connect(("127.0.0.1", outbound)).await.unwrap();
            let free = Mutex::new(vec![stream]);
            let gone = go.notified();
            *held.lock().unwrap() += 1;
            gone.await;
            let start = Instant::now();
            let mut wait = Duration::from_millis(50);
            while !ask
                .call(outbound, &free)
                .await
                .is_ok_and(|told| told.status == 200)
            {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(1));
            }
            start.elapsed()
        };
        clients.spawn_on(client, scene.runtime.handle());
    }
    wait_until("all are connected", || *held.lock().unwrap() == CLIENTS);
    clients
}

fn judge(name: &str, scene: &Scene, clients: JoinSet<Duration>) -> f64 {
    let mut took = scene.runtime.block_on(clients.join_all());
    took.sort();
    let last = took.last().copied().unwrap();
    let handshakes = scene.mesh.order.metric("mesh_session_handshakes_total");
    let handshakes = handshakes.unwrap_or_default();
    say(&format!(
        "R-10 {name}: {} clients, the last served after {}; {handshakes} handshakes of sessions so far",
        took.len(),
        millis(last),
    ));
    // The goal; programs that are not optimised, on a machine that does other things, get twice the time.
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 10 });
    assert!(last <= limit, "{last:?}");
    handshakes
}

// What is resumed is not told of connections of TLS, where resumption is off, but by how many clients share a session:
// the goal of 90 % is met where their calls need a tenth as many handshakes.
#[test]
fn a_thousand_clients_are_served_soon_after_a_restart_of_either_node() {
    let mut scene = Scene::sealed(&json!({ "retry": { "initial_delay": "20ms" } }));
    let wide = json!({ "resilience": { "bulkhead": { "max_waiting": 1000 } } });
    scene.mesh.user.configure(wide);
    scene.start();
    for _ in 0..pick(1, 10) {
        let go = Arc::default();
        let waiting = clients(&scene, &go);
        scene.mesh.user.process().kill();
        go.notify_waiters();
        scene.mesh.user.start();
        let handshakes = judge("calling node", &scene, waiting);
        assert!(handshakes <= 100.0, "{handshakes}");

        let go = Arc::default();
        let waiting = clients(&scene, &go);
        scene.mesh.order.process().kill();
        scene.mesh.order.start();
        go.notify_waiters();
        let handshakes = judge("called node", &scene, waiting);
        assert!(handshakes <= 200.0, "{handshakes}");
    }
}
