//! Registers an instance of a service in etcd, and prints the endpoints of that service whenever they change.
//!
//! ```text
//! etcd --data-dir /tmp/example.etcd
//! cargo run -p mesh-discovery --features etcd --example etcd -- http://127.0.0.1:2379 orders 10.0.0.7 50051
//! cargo run -p mesh-discovery --features etcd --example etcd -- http://127.0.0.1:2379 orders 10.0.0.8 50051
//! ```
//!
//! Stop one of them with Ctrl-C and the other shows it at once; kill it, and the other shows it when the lease has ended.

#![expect(clippy::print_stdout, reason = "it shows what it finds")]

use std::error::Error;
use std::hash::BuildHasher as _;
use std::hash::Hasher as _;
use std::hash::RandomState;
use std::sync::Arc;

use mesh_discovery::Condition;
use mesh_discovery::Discover as _;
use mesh_discovery::Endpoint;
use mesh_discovery::Registration;
use mesh_discovery::RegistryConfig;
use mesh_discovery::ServiceName;
use mesh_discovery::etcd;
use mesh_discovery::keep_registered;
use tokio::sync::watch;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [server, service, host, port] = arguments.as_slice() else {
        return Err("usage: etcd URL SERVICE HOST PORT".into());
    };
    let service = ServiceName::parse(service)?;
    let endpoint = Endpoint::new(host.parse()?, port.parse()?);

    let random = || RandomState::new().build_hasher().finish();
    let client = etcd::Client::new(&etcd::Config::new([server]), Arc::new(random))?;
    let (registry, driver) = etcd::source(
        client.clone(),
        &etcd::SourceConfig::default(),
        RegistryConfig::new("etcd"),
    )?;
    let registrar = etcd::Registrar::new(client, &etcd::RegistrarConfig::default())?;
    let registration = Registration::new(service.clone(), endpoint);
    let (_condition, conditions) = watch::channel(Condition::Passing);
    let state = watch::Sender::default();
    let interrupted = async {
        // Where it can't be waited for, the example goes on until it is killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let registering = keep_registered(
        &registrar,
        &registration,
        (conditions, &state),
        &random,
        interrupted,
    );

    let mut watch = registry.watch(&service);
    let print = async {
        loop {
            let endpoints = watch.changed().await?;
            println!("{service}: {}", endpoints.standing());
            for endpoint in endpoints.iter() {
                println!("  {} at {endpoint}", endpoint.id);
            }
        }
    };
    tokio::select! {
        () = driver => Ok(()),
        () = registering => Ok(()),
        ended = print => ended,
    }
}
