//! Follows a service in Consul and prints its endpoints whenever they change; registers an endpoint of it too where one is
//! given, until it is interrupted.
//!
//! ```text
//! consul agent -dev
//! cargo run -p mesh-discovery --features consul --example consul -- orders http://127.0.0.1:8500 127.0.0.1 50051
//! consul maint -enable -service 127.0.0.1:50051
//! ```
//!
//! With ACLs it takes a token from the file that `CONSUL_HTTP_TOKEN_FILE` names, read anew for each request.

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
use mesh_discovery::RegistrationState;
use mesh_discovery::Registry;
use mesh_discovery::RegistryConfig;
use mesh_discovery::ServiceName;
use mesh_discovery::consul;
use mesh_discovery::keep_registered;
use tokio::sync::watch;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(service), Some(url)) = (arguments.next(), arguments.next()) else {
        return Err("usage: consul SERVICE URL [HOST PORT]".into());
    };
    let service = ServiceName::parse(&service)?;
    let own = match (arguments.next(), arguments.next()) {
        (Some(host), Some(port)) => {
            let endpoint = Endpoint::new(host.parse()?, port.parse()?);
            Some(Registration::new(service.clone(), endpoint))
        }
        _ => None,
    };
    let token = std::env::var_os("CONSUL_HTTP_TOKEN_FILE")
        .map(|file| Arc::new(move || std::fs::read_to_string(&file)) as Arc<consul::TokenFor>);
    let client = consul::Client::new(&consul::Config::new(url), token, Arc::new(random))?;
    let (source, driver) = consul::source(
        client.clone(),
        consul::SourceConfig::default(),
        RegistryConfig::new("consul"),
    )?;
    let registrar = consul::Registrar::new(client, consul::RegistrarConfig::default())?;
    tokio::select! {
        () = driver => Ok(()),
        () = print(&source, &service) => Err("the source has ended".into()),
        () = register(&registrar, own.as_ref()) => Ok(()),
    }
}

async fn print(source: &Registry, service: &ServiceName) {
    let mut watch = source.watch(service);
    while let Ok(endpoints) = watch.changed().await {
        println!("{service}: {}", endpoints.standing());
        for endpoint in endpoints.iter() {
            let (condition, tags) = (endpoint.condition, endpoint.tags.join(" "));
            println!("  {endpoint} {condition} weight {} {tags}", endpoint.weight);
        }
        for failure in source
            .reports(service)
            .iter()
            .filter_map(|r| r.failure.as_ref())
        {
            println!("  {failure}");
        }
    }
}

/// Keeps the endpoint registered until an interrupt, and takes it away then.
async fn register(registrar: &consul::Registrar, own: Option<&Registration>) {
    let interrupted = async { drop(tokio::signal::ctrl_c().await) };
    let Some(own) = own else {
        return interrupted.await;
    };
    let (_condition, condition) = watch::channel(Condition::Passing);
    let (state, _states) = watch::channel(RegistrationState::Pending);
    keep_registered(registrar, own, (condition, &state), &random, interrupted).await;
    println!("{:?}", *state.borrow());
}

/// Good enough to spread retries.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
