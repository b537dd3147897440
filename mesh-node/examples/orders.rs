//! One of two programs that call each other: it answers what users ordered, and asks the other one for their names.
//!
//! ```text
//! cargo run -p mesh-node --example orders     # makes the authority that both trust, if there is none yet
//! cargo run -p mesh-node --example users      # in another terminal
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use mesh_node::HandlerError;
use mesh_node::SecureMesh;

#[path = "shop/shared.rs"]
mod shop;

use shop::ByUser;
use shop::Order;
use shop::Place;

/// `removeOrder` is there, but no rule lets anybody call it.
const RULES: &str = "{ name: users-list-orders, from: [user-service], action: allow, \
                     to: { service: order-service, methods: [POST], paths: [/getOrdersByUser] } }";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let place = Place::from_args()?;
    place.make_authority()?;
    let mesh = SecureMesh::builder(place.config("order-service", RULES)?)
        .handle(
            "removeOrder",
            |id: u64| async move { Ok::<_, HandlerError>(id) },
        )
        .start()
        .await?;

    let users = mesh.connect("user-service")?;
    mesh.handle("getOrdersByUser", move |input: ByUser| {
        let users = users.clone();
        async move {
            let name: String = users.call("getName", &input.user).await.map_err(|error| {
                HandlerError::new(format!("could not ask for the name: {error}"))
            })?;
            Ok(vec![Order {
                id: 7,
                text: format!("a book for {name}"),
            }])
        }
    });
    println!(
        "orders: answers on {}; stop with ctrl-c",
        mesh.addresses().inbound
    );

    tokio::signal::ctrl_c().await?;
    let stats = mesh.stats();
    println!(
        "orders: {} requests, {} failed",
        stats.total_requests, stats.failed_requests
    );
    mesh.shutdown().await?;
    Ok(())
}
