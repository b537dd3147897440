//! What checks and traffic know of endpoints, in one place that sources can ask.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::time::Instant;

use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::endpoint::MAX_ENDPOINTS_PER_SERVICE;
use crate::evidence::Evidence;
use crate::health::Status;
use crate::host::Host;
use crate::name::ServiceName;

/// What active checks and traffic know of endpoints: the [`Evidence`] that sources ask before they believe a registry.
///
/// An endpoint is [`Status::Unhealthy`] when its checks say so, or while traffic keeps failing on it. It is
/// [`Status::Healthy`] only when a check said so: that calls succeed shows that somebody answers, and may be days old.
/// Peers are told apart as by [`Endpoint::is_same_peer`], so a change of weight or metadata forgets nothing.
///
/// Bounded by what is watched: 10,000 endpoints a service, and those that leave a service's list are forgotten.
#[derive(Debug, Default)]
pub struct Vitals {
    services: RwLock<HashMap<ServiceName, HashMap<Peer, Vital>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    host: Host,
    port: u16,
    spiffe_id: Option<String>,
    public_key_fingerprint: Option<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Vital {
    checked: Option<Status>,
    failing_until: Option<Instant>,
}

impl Vitals {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what active checks say of an endpoint.
    pub fn checked(&self, service: &ServiceName, endpoint: &Endpoint, status: Status) {
        self.change(service, endpoint, |vital| vital.checked = Some(status));
    }

    /// Takes in that calls to an endpoint fail, which counts until `until`.
    pub fn failing(&self, service: &ServiceName, endpoint: &Endpoint, until: Instant) {
        self.change(service, endpoint, |vital| vital.failing_until = Some(until));
    }

    /// Forgets all endpoints of a service that are not in its list.
    pub fn retain(&self, service: &ServiceName, endpoints: &Endpoints) {
        if !self.read().contains_key(service) {
            return;
        }
        let peers: std::collections::HashSet<Peer> = endpoints
            .iter()
            .map(|endpoint| Peer::of(endpoint))
            .collect();
        if let Some(known) = self.write().get_mut(service) {
            known.retain(|peer, _| peers.contains(peer));
        }
    }

    /// Forgets what checks said of a service, for they have ended; what traffic says stays.
    pub fn unchecked(&self, service: &ServiceName) {
        if let Some(known) = self.write().get_mut(service) {
            for vital in known.values_mut() {
                vital.checked = None;
            }
        }
    }

    /// Forgets a service.
    pub fn forget(&self, service: &ServiceName) {
        self.write().remove(service);
    }

    fn change(&self, service: &ServiceName, endpoint: &Endpoint, change: impl FnOnce(&mut Vital)) {
        let mut services = self.write();
        let known = services.entry(service.clone()).or_default();
        let peer = Peer::of(endpoint);
        if known.len() < MAX_ENDPOINTS_PER_SERVICE || known.contains_key(&peer) {
            change(known.entry(peer).or_default());
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<ServiceName, HashMap<Peer, Vital>>> {
        // Nothing panics while the lock is held.
        self.services.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<ServiceName, HashMap<Peer, Vital>>> {
        self.services
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Evidence for Vitals {
    fn status(&self, service: &ServiceName, endpoint: &Endpoint) -> Status {
        let services = self.read();
        let vital = services
            .get(service)
            .and_then(|known| known.get(&Peer::of(endpoint)))
            .copied()
            .unwrap_or_default();
        let now = tokio::time::Instant::now().into_std();
        if vital.failing_until.is_some_and(|until| now < until) {
            return Status::Unhealthy;
        }
        vital.checked.unwrap_or(Status::Unknown)
    }
}

impl Peer {
    fn of(endpoint: &Endpoint) -> Self {
        Self {
            host: endpoint.host.clone(),
            port: endpoint.port,
            spiffe_id: endpoint.spiffe_id.clone(),
            public_key_fingerprint: endpoint.public_key_fingerprint.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new("10.0.0.7".parse().unwrap(), port)
    }

    #[tokio::test(start_paused = true)]
    async fn failing_traffic_outweighs_checks_for_a_while_and_a_new_weight_changes_nothing() {
        let (vitals, service) = (Vitals::new(), ServiceName::parse("orders").unwrap());
        let status = |endpoint: &Endpoint| vitals.status(&service, endpoint);
        assert_eq!(status(&endpoint(1)), Status::Unknown);
        vitals.checked(&service, &endpoint(1), Status::Healthy);
        let now = tokio::time::Instant::now().into_std();
        vitals.failing(&service, &endpoint(1), now + Duration::from_secs(30));
        assert_eq!(status(&endpoint(1)), Status::Unhealthy);
        tokio::time::advance(Duration::from_secs(30)).await;
        let heavier = Endpoint {
            weight: 9.try_into().unwrap(),
            ..endpoint(1)
        };
        assert_eq!(status(&heavier), Status::Healthy);
        let impostor = Endpoint {
            spiffe_id: Some("spiffe://example.org/other".to_owned()),
            ..endpoint(1)
        };
        assert_eq!(status(&impostor), Status::Unknown);
        assert_eq!(
            vitals.status(&ServiceName::parse("users").unwrap(), &endpoint(1)),
            Status::Unknown
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_left_the_list_is_forgotten() {
        let (vitals, service) = (Vitals::new(), ServiceName::parse("orders").unwrap());
        for port in [1, 2] {
            vitals.checked(&service, &endpoint(port), Status::Healthy);
        }
        vitals.retain(&service, &Endpoints::new(vec![endpoint(2)], 1).unwrap());
        let status = |port| vitals.status(&service, &endpoint(port));
        assert_eq!((status(1), status(2)), (Status::Unknown, Status::Healthy));
        vitals.unchecked(&service);
        assert_eq!(status(2), Status::Unknown);
    }
}
