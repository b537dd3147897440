//! The other one of two programs that call each other; see `orders.rs`, which is started first.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use mesh_node::HandlerError;
use mesh_node::SecureMesh;

#[path = "shop/shared.rs"]
mod shop;

use shop::ByUser;
use shop::Order;
use shop::Place;

const RULES: &str = "{ name: orders-ask-names, from: [order-service], action: allow, \
                     to: { service: user-service, methods: [POST], paths: [/getName] } }";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let place = Place::from_args()?;
    place.make_authority()?;
    let mesh = SecureMesh::builder(place.config("user-service", RULES)?)
        .handle("getName", |user: String| async move {
            match user.as_str() {
                "ada" => Ok("Ada Lovelace"),
                _ => Err(HandlerError::new(format!("nobody is called {user:?}"))),
            }
        })
        .start()
        .await?;
    let orders = mesh.connect("order-service")?;

    let found: Vec<Order> = orders
        .call(
            "getOrdersByUser",
            &ByUser {
                user: "ada".to_owned(),
            },
        )
        .await?;
    for Order { id, text } in found {
        println!("users: order {id} is {text}");
    }
    let nobody = ByUser {
        user: "bob".to_owned(),
    };
    let unknown: Result<Vec<Order>, _> = orders.call("getOrdersByUser", &nobody).await;
    if let Err(error) = unknown {
        println!("users: {error}");
    }
    if let Err(error) = orders.call::<_, u64>("removeOrder", &7).await {
        println!("users: {error}");
    }
    mesh.shutdown().await?;
    Ok(())
}
