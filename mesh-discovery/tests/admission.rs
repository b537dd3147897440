//! What the caller does not let a registry say is never seen by who watches.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::sync::Arc;
use std::time::Duration;

use mesh_discovery::Admission;
use mesh_discovery::Discover as _;
use mesh_discovery::Endpoint;
use mesh_discovery::Error;
use mesh_discovery::Registry;
use mesh_discovery::RegistryConfig;
use mesh_discovery::ServiceName;
use mesh_discovery::Want;

struct EvenPorts;

impl Admission for EvenPorts {
    fn admit(&self, service: &ServiceName, endpoint: &Endpoint) -> Result<(), Error> {
        assert_eq!(endpoint.source.as_deref(), Some("test"));
        if endpoint.port.is_multiple_of(2) {
            return Ok(());
        }
        let reason = format!("{service} has even ports");
        Err(Error::not_admitted(&endpoint.id, reason))
    }
}

fn list(ports: &[u16]) -> Vec<Endpoint> {
    let endpoint = |port: &u16| Endpoint::new("10.0.0.7".parse().unwrap(), *port);
    ports.iter().map(endpoint).collect()
}

// threat 48
#[tokio::test(start_paused = true)]
async fn what_is_not_let_in_is_left_out_and_an_answer_of_nothing_else_keeps_the_last_good_list() {
    let config = RegistryConfig::new("test").with_admission(Arc::new(EvenPorts));
    let (registry, mut wants) = Registry::new(config);
    let orders = ServiceName::parse("orders").unwrap();
    let mut watch = registry.watch(&orders);
    let Want::Begin(reporter) = wants.next().await else {
        panic!("a service is watched");
    };
    reporter.found(list(&[1, 2, 3]));
    let ports = |watch: &mut mesh_discovery::Watch| -> Vec<u16> {
        watch
            .latest()
            .iter()
            .map(|endpoint| endpoint.port)
            .collect()
    };
    assert_eq!(ports(&mut watch), [2]);
    reporter.found(list(&[5, 7]));
    // What follows at once is published a little later.
    let later = tokio::time::timeout(Duration::from_secs(1), wants.next()).await;
    assert!(later.is_err(), "nothing else is wanted");
    assert_eq!(ports(&mut watch), [2]);
    assert!(watch.latest().is_stale());
    let reports = registry.reports(&orders);
    let failure = reports.first().unwrap().failure.clone().unwrap();
    assert_eq!(
        &*failure,
        "endpoint `10.0.0.7:5` is not let in: orders has even ports"
    );
}
