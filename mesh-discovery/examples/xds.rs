//! Follows a service in a control plane and prints its endpoints whenever they change, and what else was received.
//!
//! ```text
//! pip install grpcio xds-protos
//! python mesh-discovery/tests/python/ads.py 18000 18001 &
//! cargo run -p mesh-discovery --features xds --example xds -- orders http://127.0.0.1:18000 &
//! nc 127.0.0.1 18001 <<'END'
//! {"set": "cluster", "name": "orders", "resource": {"name": "orders", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}}
//! {"set": "assignment", "name": "orders", "resource": {"cluster_name": "orders", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 50051}}}}]}]}}
//! END
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
use mesh_discovery::xds;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(service) = arguments.next() else {
        return Err("usage: xds SERVICE SERVER... [incremental]".into());
    };
    let service = ServiceName::parse(&service)?;
    let mut servers: Vec<_> = arguments.collect();
    let is_incremental = servers.pop_if(|last| last == "incremental").is_some();

    let random = Arc::new(|| RandomState::new().build_hasher().finish());
    let mut config = xds::Config::new(servers, "example", random);
    if is_incremental {
        config.variant = xds::Variant::Incremental;
    }
    let findings = config.findings.clone();
    let (source, driver) = xds::source(config, RegistryConfig::new("xds"))?;

    let mut watch = source.watch(&service);
    let print = async {
        loop {
            match tokio::time::timeout(Duration::from_secs(5), watch.changed()).await {
                Ok(Ok(endpoints)) => {
                    println!("{service}: {}", endpoints.standing());
                    for endpoint in endpoints.iter() {
                        let (priority, weight) = (endpoint.priority, endpoint.weight);
                        let condition = endpoint.condition;
                        println!("  {endpoint} priority {priority} weight {weight} {condition}");
                    }
                    for drop in findings.drops(&service).iter() {
                        println!(
                            "  {} of a million dropped: {}",
                            drop.per_million, drop.category
                        );
                    }
                    for field in findings.ignored() {
                        println!("  no effect: {}, {} times", field.field, field.count);
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
