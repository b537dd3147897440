//! What a registry may say of a service: where it is, and nothing else.
//!
//! - Who must answer is in this node's configuration: `discovery.identities`, else `spiffe://<trust_domain>/<service>`. An
//!   endpoint that a registry gives another id is left out, unless that source may name identities
//!   (`may_name_identities`). So who can write to a registry can't lead calls for one service to another one, not even to
//!   one with a good certificate.
//! - A key's fingerprint that a registry gives is asked for besides the certificate's word for the key, never in its place.
//! - An endpoint that is one of this node's own listeners is left out, unless it is this very service where other nodes
//!   reach it: calls would come back to us, or reach the admin pages.
//!
//! Static lists are configuration; they do not come through here.

use mesh_discovery::Admission;
use mesh_discovery::Endpoint;
use mesh_discovery::Error;
use mesh_discovery::ServiceName;

use super::own::Own;
use crate::config::ExpectedIds;

/// What one source may say.
pub(crate) struct Rules {
    /// The ids that services have by configuration.
    pub(crate) ids: ExpectedIds,
    /// Ids that this source may name for any service: whole ones, or all below a path that ends in `/*`.
    pub(crate) may_name: Vec<String>,
    pub(crate) own: Own,
}

impl Admission for Rules {
    fn admit(&self, service: &ServiceName, endpoint: &Endpoint) -> Result<(), Error> {
        let refuse = |reason: String| Err(Error::not_admitted(&endpoint.id, reason));
        if let Some(said) = &endpoint.spiffe_id {
            let expected = self.ids.of(service.as_str());
            if *said != expected && !self.may_name.iter().any(|allowed| covers(allowed, said)) {
                return refuse(format!(
                    "it is said to be {said}, and {service} is {expected}; see discovery.identities"
                ));
            }
        }
        // threat 49
        if let Some(listener) = self.own.listener(service.as_str(), endpoint) {
            return refuse(format!("it is our own listener on {listener}"));
        }
        Ok(())
    }
}

/// Whether `id` is `allowed`, or below it where it ends in `/*`.
fn covers(allowed: &str, id: &str) -> bool {
    match allowed.strip_suffix('*') {
        // A static list in a file of its own is configuration, and may name everybody.
        Some(prefix) => id.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()),
        None => id == allowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::own::Machine;

    fn rules(may_name: &[&str]) -> Rules {
        Rules {
            ids: ExpectedIds::new("example.org"),
            may_name: may_name.iter().map(|&id| id.to_owned()).collect(),
            own: Own {
                service: "orders".to_owned(),
                inbound: "0.0.0.0:50051".parse().unwrap(),
                others: vec![
                    "127.0.0.1:9090".parse().unwrap(),
                    "127.0.0.1:15001".parse().unwrap(),
                    "[::]:15006".parse().unwrap(),
                ],
                machine: Machine::with(&[("10.0.0.77", 32), ("fd00::7", 128)]),
            },
        }
    }

    fn admits(rules: &Rules, service: &str, host: &str, port: u16, id: Option<&str>) -> bool {
        let mut endpoint = Endpoint::new(host.parse().unwrap(), port);
        endpoint.spiffe_id = id.map(str::to_owned);
        let service = ServiceName::parse(service).unwrap();
        rules.admit(&service, &endpoint).is_ok()
    }

    // threat 48
    #[test]
    fn a_registry_names_no_identity_but_the_expected_one() {
        let strict = rules(&[]);
        let admits_as =
            |rules: &Rules, id: &str| admits(rules, "payments", "10.0.0.7", 50051, Some(id));
        assert!(admits(&strict, "payments", "10.0.0.7", 50051, None));
        assert!(admits_as(&strict, "spiffe://example.org/payments"));
        assert!(!admits_as(&strict, "spiffe://example.org/orders"));
        assert!(!admits_as(&strict, "spiffe://other.org/payments"));
        let loose = rules(&["spiffe://example.org/pay/*", "spiffe://example.org/p2"]);
        assert!(admits_as(&loose, "spiffe://example.org/pay/v2"));
        assert!(admits_as(&loose, "spiffe://example.org/p2"));
        assert!(!admits_as(&loose, "spiffe://example.org/pay/"));
        assert!(!admits_as(&loose, "spiffe://example.org/p22"));
        assert!(!admits_as(&loose, "spiffe://example.org/orders"));
    }

    // threat 49
    #[test]
    fn our_own_listeners_are_no_endpoints_but_of_our_own_service() {
        let rules = rules(&[]);
        for (service, host, port, expected) in [
            ("payments", "10.9.9.9", 50051, true),
            ("payments", "127.0.0.1", 50051, false),
            ("payments", "localhost", 50051, false),
            ("payments", "localhost.", 50051, false),
            ("payments", "any.localhost", 50051, false),
            ("payments", "10.0.0.77", 50051, false),
            ("payments", "10.0.0.8", 50051, true),
            ("payments", "10.0.0.77", 15006, false),
            ("payments", "fd00::7", 15006, false),
            ("payments", "fd00::8", 15006, true),
            ("payments", "127.0.0.1", 50052, true),
            ("orders", "127.0.0.1", 50051, true),
            ("orders", "127.0.0.1", 9090, false),
            ("payments", "127.0.0.1", 15001, false),
            ("payments", "127.0.0.2", 15001, true),
        ] {
            let found = admits(&rules, service, host, port, None);
            assert_eq!(found, expected, "{service} at {host}:{port}");
        }
    }
}
