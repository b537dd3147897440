//! What an agent is sent.

use std::num::NonZeroU16;
use std::sync::Arc;

use super::*;
use crate::consul::Config;
use crate::endpoint::Endpoint;
use crate::name::ServiceName;

fn registrar(config: RegistrarConfig) -> Result<Registrar, Error> {
    let client = Client::new(&Config::new("http://127.0.0.1:1"), None, Arc::new(|| 0)).unwrap();
    Registrar::new(client, config)
}

fn registration() -> Registration {
    let mut endpoint = Endpoint::new("::1".parse().unwrap(), 50051);
    endpoint.id = "orders-1".to_owned();
    endpoint.weight = NonZeroU16::new(10).unwrap();
    endpoint.zone = Some("a".to_owned());
    endpoint.version = Some("1.2".to_owned());
    endpoint.tags = vec!["blue".to_owned()];
    endpoint.spiffe_id = Some("spiffe://example.org/orders".to_owned());
    Registration::new(ServiceName::parse("orders").unwrap(), endpoint)
}

#[test]
fn a_definition_has_every_field_in_its_place() {
    let registrar = registrar(RegistrarConfig::default().with_warning_weight(0)).unwrap();
    let expected = json!({
        "ID": "orders-1", "Name": "orders", "Address": "::1", "Port": 50051, "Tags": ["blue"],
        "Meta": { "zone": "a", "version": "1.2", "spiffe_id": "spiffe://example.org/orders" },
        "Weights": { "Passing": 10, "Warning": 0 },
        "Check": {
            "CheckID": "service:orders-1", "Name": "health of orders", "Status": "critical",
            "TTL": "15000ms", "DeregisterCriticalServiceAfter": "600000ms",
        },
    });
    assert_eq!(registrar.definition(&registration()), expected);
}

#[test]
fn each_kind_of_check_is_one_of_consuls() {
    let (interval, long) = (Duration::from_secs(2), Duration::from_mins(1));
    for (check, expected) in [
        (
            AgentCheck::Http {
                url: "http://127.0.0.1:1/h".to_owned(),
                interval,
            },
            json!({ "HTTP": "http://127.0.0.1:1/h", "Interval": "2000ms", "Timeout": "2000ms" }),
        ),
        (
            AgentCheck::Grpc {
                target: "127.0.0.1:1/a.B".to_owned(),
                uses_tls: true,
                interval: long,
            },
            json!({ "GRPC": "127.0.0.1:1/a.B", "GRPCUseTLS": true, "Interval": "60000ms", "Timeout": "10000ms" }),
        ),
        (
            AgentCheck::Tcp {
                address: "127.0.0.1:1".to_owned(),
                interval,
            },
            json!({ "TCP": "127.0.0.1:1", "Interval": "2000ms", "Timeout": "2000ms" }),
        ),
    ] {
        let config = RegistrarConfig::default()
            .with_check(check)
            .with_deregister_after(None);
        let registrar = registrar(config).unwrap();
        assert_eq!(registrar.renew_every(), LOOK_EVERY);
        let mut written = registrar.check(&registration());
        let written = written.as_object_mut().unwrap();
        for common in ["CheckID", "Name", "Status"] {
            assert!(written.remove(common).is_some(), "{common}");
        }
        assert_eq!(json!(written), expected);
    }
}

#[test]
fn times_that_consul_would_change_are_refused() {
    let short = Duration::from_millis(999);
    for bad in [
        RegistrarConfig::default().with_check(AgentCheck::Ttl(short)),
        RegistrarConfig::default().with_check(AgentCheck::Tcp {
            address: String::new(),
            interval: short,
        }),
        RegistrarConfig::default().with_deregister_after(Some(Duration::from_secs(59))),
    ] {
        assert!(matches!(registrar(bad), Err(Error::Setting { .. })));
    }
    assert_eq!(
        registrar(RegistrarConfig::default()).unwrap().renew_every(),
        Duration::from_secs(5)
    );
}

#[test]
fn an_agent_that_forgot_is_told_from_one_that_fails() {
    for (status, message, expected) in [
        (404, "Unknown check ID \"service:a\"", true),
        (404, "unknown service ID: a", true),
        (
            500,
            "CheckID \"service:a\" does not have associated TTL",
            true,
        ),
        (500, "No cluster leader", false),
        (403, "Permission denied", false),
    ] {
        assert_eq!(is_forgotten(status, message), expected, "{message}");
    }
}
