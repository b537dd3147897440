//! Free ports on loopback.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;

use super::folder::SERVICES;

/// The ports of one service and its node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServicePorts {
    pub(super) app: u16,
    pub(super) inbound: u16,
    pub(super) outbound: u16,
    pub(super) admin: u16,
}

/// All ports of a demonstration but those of the recorders, which stay bound from the start.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    services: [ServicePorts; SERVICES.len()],
    pub(super) wire_tap: u16,
    pub(super) app_tap: u16,
}

impl Ports {
    /// Asks the system for ports that are free now. They are released at once, so another program may take one before
    /// a node does; whoever starts the nodes must be ready for that.
    pub(super) fn free(wire_tap: u16, app_tap: u16) -> io::Result<Self> {
        let mut held = Vec::new();
        let mut free = || -> io::Result<u16> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = listener.local_addr()?.port();
            held.push(listener);
            Ok(port)
        };
        let mut services = [ServicePorts::default(); SERVICES.len()];
        for ports in &mut services {
            *ports = ServicePorts {
                app: free()?,
                inbound: free()?,
                outbound: free()?,
                admin: free()?,
            };
        }
        Ok(Self {
            services,
            wire_tap,
            app_tap,
        })
    }

    /// Ports that count up from `first`.
    #[cfg(test)]
    pub(super) fn numbered(first: u16) -> Self {
        let mut next = first;
        let mut count = || {
            next += 1;
            next
        };
        let services = SERVICES.map(|_| ServicePorts {
            app: count(),
            inbound: count(),
            outbound: count(),
            admin: count(),
        });
        Self {
            services,
            wire_tap: count(),
            app_tap: count(),
        }
    }

    /// The ports of `service`.
    pub(super) fn of(&self, service: &str) -> ServicePorts {
        let index = SERVICES.iter().position(|name| *name == service);
        index
            .and_then(|index| self.services.get(index))
            .copied()
            .unwrap_or_default()
    }
}

/// `port` on loopback.
pub(super) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
