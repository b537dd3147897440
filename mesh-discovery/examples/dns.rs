//! Follows a service in DNS and prints its endpoints whenever they change.
//!
//! ```text
//! dnsmasq --no-daemon --no-resolv --port 5353 --listen-address 127.0.0.1 \
//!     --srv-host=_mesh._tcp.orders.mesh.test,a.mesh.test,50051,10,60 --address=/a.mesh.test/10.0.0.1
//! cargo run -p mesh-discovery --features dns --example dns -- orders '_mesh._tcp.{service}.mesh.test' 127.0.0.1:5353
//! ```

#![expect(clippy::print_stdout, reason = "it shows what it finds")]

use std::error::Error;
use std::hash::BuildHasher as _;
use std::hash::Hasher as _;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use mesh_discovery::Discover as _;
use mesh_discovery::RegistryConfig;
use mesh_discovery::ServiceName;
use mesh_discovery::dns;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(service), Some(template)) = (arguments.next(), arguments.next()) else {
        return Err("usage: dns SERVICE TEMPLATE [SERVER:PORT]...".into());
    };
    let mut config = dns::Config::new(template);
    for server in arguments {
        config.servers.push(server.parse()?);
    }
    let random = Arc::new(|| RandomState::new().build_hasher().finish());
    let (source, driver) = dns::source(config, random, RegistryConfig::new("dns"))?;

    let service = ServiceName::parse(&service)?;
    let mut watch = source.watch(&service);
    let print = async {
        loop {
            match tokio::time::timeout(Duration::from_secs(5), watch.changed()).await {
                Ok(Ok(endpoints)) => {
                    println!("{service}: {}", endpoints.standing());
                    for endpoint in endpoints.iter() {
                        let (priority, weight) = (endpoint.priority, endpoint.weight);
                        println!("  {endpoint} priority {priority} weight {weight}");
                    }
                }
                Ok(Err(closed)) => break closed,
                Err(_nothing_new) => {}
            }
            for report in source.reports(&service) {
                if let Some(failure) = report.failure {
                    println!("  {failure}");
                }
            }
        }
    };
    tokio::select! {
        () = driver => Ok(()),
        closed = print => Err(closed.into()),
    }
}
