//! Where the name of an endpoint may lead: not where no registry may lead calls by an address.

use std::net::SocketAddr;

use mesh_discovery::check_address;
use mesh_transport::BoxError;
use mesh_transport::peer::JudgeAddress;

use crate::discovery::own::Own;

/// Judges the addresses that names of endpoints lead to.
#[derive(Debug)]
pub(crate) struct Elsewhere(pub(crate) Own);

impl JudgeAddress for Elsewhere {
    /// The listener for other nodes is let pass: a service of several instances may have a name for all of them, and whoever
    /// else is meant, we don't prove to be.
    // threat 49
    fn judge(&self, address: SocketAddr) -> Result<(), BoxError> {
        check_address(address.ip())?;
        match self.0.other_than_inbound(address) {
            Some(listener) => {
                Err(format!("{address} is our own listener on {listener}; correct its name").into())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::own::Machine;

    // threat 49
    #[test]
    fn a_name_leads_neither_to_a_special_address_nor_to_a_listener_of_our_own() {
        let own = Own {
            service: "orders".to_owned(),
            inbound: "0.0.0.0:50051".parse().unwrap(),
            others: vec![
                "127.0.0.1:9090".parse().unwrap(),
                "0.0.0.0:15001".parse().unwrap(),
            ],
            machine: Machine::with(&[("10.0.0.7", 32)]),
        };
        let judge = Elsewhere(own);
        for (address, expected) in [
            ("10.0.0.8:50051", true),
            ("127.0.0.1:50051", true),
            ("10.0.0.8:15001", true),
            ("127.0.0.1:9090", false),
            ("[::ffff:127.0.0.1]:9090", false),
            ("10.0.0.7:15001", false),
            ("169.254.169.254:80", false),
            ("[fe80::1]:80", false),
            ("0.0.0.0:80", false),
        ] {
            let judged = judge.judge(address.parse().unwrap());
            assert_eq!(judged.is_ok(), expected, "{address}");
        }
    }
}
