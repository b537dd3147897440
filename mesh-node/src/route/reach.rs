//! Which services a route's calls may go to, so that only those keep something for it.

use super::Mirror;
use super::Route;

impl Route {
    /// Whether a call that it takes may go to `service`.
    pub fn leads_to(&self, service: &str) -> bool {
        self.targets
            .all()
            .iter()
            .any(|target| match &target.service {
                Some(named) => **named == *service,
                None => self.is_about(service),
            })
    }

    /// The copies that it may send to `service`.
    pub fn mirror_to(&self, service: &str) -> Option<&Mirror> {
        self.mirror.as_ref().filter(|mirror| match &mirror.service {
            Some(named) => **named == *service,
            None => self.leads_to(service),
        })
    }

    fn is_about(&self, service: &str) -> bool {
        let named = &self.matcher.services;
        named.is_empty() || named.iter().any(|named| **named == *service)
    }
}
