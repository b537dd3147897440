//! Which services a route's calls may go to, so that only those keep something for it.

use http::Method;

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

    /// Whether a call that must not run twice may be copied to endpoints that such calls themselves go to, also where these
    /// stand in for others.
    pub fn doubles_writes(&self) -> bool {
        let Some(mirror) = &self.mirror else {
            return false;
        };
        let methods = &self.matcher.methods;
        let has_writes = methods.is_empty() || !methods.iter().all(Method::is_idempotent);
        let copies_to_other = mirror.subset.is_none()
            && mirror
                .service
                .as_deref()
                .is_some_and(|copy| self.falls_back_to(copy));
        let copies_to_target = || {
            self.targets.all().iter().any(|target| {
                let is_same = match (&target.service, &mirror.service) {
                    (_, None) => true,
                    (Some(to), Some(copy)) => to == copy,
                    (None, Some(copy)) => self.is_about(copy),
                };
                let is_apart = mirror.subset.is_some() && mirror.subset != target.subset;
                target.weight > 0 && is_same && !is_apart
            })
        };
        has_writes && (copies_to_other || copies_to_target())
    }

    /// Whether a call that it takes may be answered by `service` in place of the one that it goes to.
    pub fn falls_back_to(&self, service: &str) -> bool {
        let other = self.fallback.as_ref().and_then(|it| it.service.as_deref());
        other == Some(service)
    }

    /// Whether it says the name of `service`, as one that is called or one that calls go to.
    pub fn names(&self, service: &str) -> bool {
        let mut targets = self.targets.all().iter();
        self.matcher
            .services
            .iter()
            .any(|named| **named == *service)
            || targets.any(|target| target.service.as_deref() == Some(service))
    }

    fn is_about(&self, service: &str) -> bool {
        let named = &self.matcher.services;
        named.is_empty() || named.iter().any(|named| **named == *service)
    }
}
