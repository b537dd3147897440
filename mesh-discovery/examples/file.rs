//! Follows a service in a file and prints its endpoints whenever they change.
//!
//! ```text
//! echo '- { id: orders, host: 10.0.0.7, port: 50051 }' > services.yaml
//! cargo run -p mesh-discovery --features file --example file -- orders services.yaml
//! ```

#![expect(clippy::print_stdout, reason = "it shows what it finds")]

use std::error::Error;

use mesh_discovery::Discover as _;
use mesh_discovery::RegistryConfig;
use mesh_discovery::ServiceName;
use mesh_discovery::file;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(service), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: file SERVICE PATH".into());
    };
    let (source, driver) = file::source(file::Config::new(path), RegistryConfig::new("file"))?;

    let service = ServiceName::parse(&service)?;
    let mut watch = source.watch(&service);
    let print = async {
        loop {
            let endpoints = match watch.changed().await {
                Ok(endpoints) => endpoints,
                Err(closed) => break closed,
            };
            println!("{service}: {}", endpoints.standing());
            for endpoint in endpoints.iter() {
                println!("  {endpoint} weight {}", endpoint.weight);
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
