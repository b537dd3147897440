//! Which services are followed, and what there is to say of each: clusters and their assignments together, without a
//! connection.
//!
//! Whoever drives it tells it what is wanted, which stream there is and what came over it, and takes from it requests for
//! the server and reports for those who watch. It takes the time as an argument.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::assignment;
use super::assignment::Assignment;
use super::cluster;
use super::cluster::Cluster;
use super::ignored::Ignored;
use super::message::Request;
use super::message::Response;
use super::refusal::Refusal;
use super::refusal::shorten;
use super::topic::Kind;
use super::topic::Topic;
use super::topic::Verdict;
use super::wire::Wrong;

/// CDS.
#[derive(Debug)]
pub(super) enum Clusters {}

impl Kind for Clusters {
    type Value = Cluster;
    const LABEL: &'static str = "cluster";
    const TYPE_URL: &'static str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    const IS_WHOLE: bool = true;

    fn name(bytes: &[u8]) -> Option<&str> {
        cluster::name(bytes)
    }

    fn decode(bytes: &[u8], ignored: &mut Ignored) -> Result<Cluster, Wrong> {
        cluster::decode(bytes, ignored)
    }

    fn stale_after(value: &Cluster) -> Duration {
        match value {
            Cluster::Inline(assignment) => assignment.stale_after,
            Cluster::Assigned(_) => Duration::ZERO,
        }
    }
}

/// EDS.
#[derive(Debug)]
pub(super) enum Assignments {}

impl Kind for Assignments {
    type Value = Assignment;
    const LABEL: &'static str = "cluster load assignment";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    const IS_WHOLE: bool = false;

    fn name(bytes: &[u8]) -> Option<&str> {
        assignment::name(bytes)
    }

    fn decode(bytes: &[u8], ignored: &mut Ignored) -> Result<Assignment, Wrong> {
        assignment::decode(bytes, ignored)
    }

    fn stale_after(value: &Assignment) -> Duration {
        value.stale_after
    }
}

/// What there is to say of a service.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Report {
    /// These are its endpoints.
    Found(Arc<Assignment>),
    /// The server knows none.
    Absent,
    /// Nothing has changed.
    Confirmed,
    /// What the server says of it can't be used.
    Refused(Arc<Refusal>),
}

/// Follows services, each by the cluster of its name.
#[derive(Debug)]
pub(super) struct Follower {
    is_delta: bool,
    clusters: Topic<Clusters>,
    assignments: Topic<Assignments>,
    /// By name; of each the assignment that its cluster names, and what was said last.
    services: BTreeMap<String, Service>,
    /// Who uses an assignment.
    users: BTreeMap<String, BTreeSet<String>>,
    reports: Vec<(String, Report)>,
    /// The last stream ended badly, and the one that is there now has shown no life yet.
    is_in_doubt: bool,
}

#[derive(Debug, Default)]
struct Service {
    assignment: Option<String>,
    said: Option<Said>,
}

/// What was said last of a service's endpoints.
#[derive(Debug)]
enum Said {
    Found(Arc<Assignment>),
    Absent,
}

impl Follower {
    /// `first_answer` is how long the server has for its first word on a resource.
    pub(super) fn new(is_delta: bool, first_answer: Duration) -> Self {
        Self {
            is_delta,
            clusters: Topic::new(is_delta, first_answer),
            assignments: Topic::new(is_delta, first_answer),
            services: BTreeMap::new(),
            users: BTreeMap::new(),
            reports: Vec::new(),
            is_in_doubt: false,
        }
    }

    pub(super) fn want(&mut self, service: &str) {
        self.services.entry(service.to_owned()).or_default();
        self.clusters.want(service);
    }

    pub(super) fn unwant(&mut self, service: &str) {
        self.assign(service, None);
        self.services.remove(service);
        self.clusters.unwant(service);
        self.reports.retain(|(name, _)| name != service);
    }

    /// True when no service is followed, and no stream needed.
    pub(super) fn is_idle(&self) -> bool {
        self.services.is_empty()
    }

    /// True when only another stream can tell what is there.
    pub(super) fn needs_stream(&self) -> bool {
        self.clusters.needs_stream() || self.assignments.needs_stream()
    }

    pub(super) fn begin_stream(&mut self, is_same_server: bool) {
        self.clusters.begin_stream(is_same_server);
        self.assignments.begin_stream(is_same_server);
    }

    /// The stream is over; `is_bad` when what was said over it is in doubt now.
    pub(super) fn end_stream(&mut self, is_bad: bool) {
        self.clusters.end_stream();
        self.assignments.end_stream();
        self.is_in_doubt |= is_bad;
    }

    /// The stream works: what was said before it holds, as far as it need not say it again.
    fn confirm(&mut self) {
        if std::mem::take(&mut self.is_in_doubt) {
            self.reaffirm();
        }
    }

    /// The stream lives, so what was said over it holds, however long ago that was: a server that is subscribed to says what
    /// changes.
    pub(super) fn reaffirm(&mut self) {
        if self.is_in_doubt {
            return;
        }
        for (name, service) in &self.services {
            if service.said.is_some()
                && self.is_answered(name, service)
                && self.refusal(name, service).is_none()
            {
                self.reports.push((name.clone(), Report::Confirmed));
            }
        }
    }

    /// The next request for the stream; of clusters first, since they lead to assignments.
    pub(super) fn next_request(&mut self, now: Instant) -> Option<Request> {
        let request = self.clusters.next_request(now);
        request.or_else(|| self.assignments.next_request(now))
    }

    /// True when there is something to say.
    pub(super) fn has_request(&self) -> bool {
        self.clusters.has_request() || self.assignments.has_request()
    }

    /// Takes a response from the bytes of its message; an error means that the stream is of no use.
    pub(super) fn take(
        &mut self,
        now: Instant,
        bytes: &[u8],
        ignored: &mut Ignored,
    ) -> Result<Verdict, Wrong> {
        let response = Response::decode(bytes, self.is_delta, ignored)?;
        match response.type_url {
            Clusters::TYPE_URL => {
                let taken = self.clusters.take(now, &response, ignored);
                self.confirm();
                for service in taken.touched {
                    self.settle(&service);
                }
                Ok(taken.verdict)
            }
            Assignments::TYPE_URL => {
                let taken = self.assignments.take(now, &response, ignored);
                self.confirm();
                for assignment in taken.touched {
                    self.settle_users(&assignment);
                }
                Ok(taken.verdict)
            }
            other => Err(Wrong::new(
                super::message::response_type(self.is_delta),
                4,
                format!("is {:?}, which was not asked for", shorten(other)),
            )),
        }
    }

    /// Lets time pass.
    pub(super) fn expire(&mut self, now: Instant) {
        for service in self.clusters.expire(now) {
            self.settle(&service);
        }
        for assignment in self.assignments.expire(now) {
            self.settle_users(&assignment);
        }
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let both = [self.clusters.next_due(), self.assignments.next_due()];
        both.into_iter().flatten().min()
    }

    /// What there is to say of services since the last time, in order.
    pub(super) fn take_reports(&mut self) -> Vec<(String, Report)> {
        std::mem::take(&mut self.reports)
    }

    fn settle_users(&mut self, assignment: &str) {
        let users = self.users.get(assignment).cloned();
        for service in users.into_iter().flatten() {
            self.settle(&service);
        }
    }

    /// Looks at all that is known of a service, of which the server has just spoken, and says what is new.
    fn settle(&mut self, name: &str) {
        let assigned = match self.clusters.known(name).and_then(|known| known.value) {
            Some(value) => match &**value {
                Cluster::Assigned(assignment) => Some(assignment.clone()),
                Cluster::Inline(_) => None,
            },
            None => None,
        };
        self.assign(name, assigned.as_deref());
        let Some(now) = self.now(name) else {
            self.report_refusal(name);
            return;
        };
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        let report = match (&service.said, &now) {
            (Some(Said::Found(before)), Said::Found(now)) if Arc::ptr_eq(before, now) => {
                Report::Confirmed
            }
            (_, Said::Found(now)) => Report::Found(Arc::clone(now)),
            (_, Said::Absent) => Report::Absent,
        };
        service.said = Some(now);
        let is_answered = self
            .services
            .get(name)
            .is_some_and(|service| self.is_answered(name, service));
        if report != Report::Confirmed || is_answered {
            self.reports.push((name.to_owned(), report));
        }
        self.report_refusal(name);
    }

    fn report_refusal(&mut self, name: &str) {
        let service = self.services.get(name);
        if let Some(refusal) = service.and_then(|service| self.refusal(name, service)) {
            self.reports
                .push((name.to_owned(), Report::Refused(refusal)));
        }
    }

    /// Why what the server says of a service is not used.
    fn refusal(&self, name: &str, service: &Service) -> Option<Arc<Refusal>> {
        let cluster = self.clusters.known(name).and_then(|known| known.refusal);
        let assignment = service.assignment.as_deref();
        let assignment = assignment
            .and_then(|assignment| self.assignments.known(assignment))
            .and_then(|known| known.refusal);
        cluster.or(assignment).cloned()
    }

    /// True when the server has spoken of all that a service needs, or need not since nothing has changed.
    fn is_answered(&self, name: &str, service: &Service) -> bool {
        let cluster = self.clusters.known(name);
        let assignment = service.assignment.as_deref();
        cluster.is_some_and(|known| known.is_answered)
            && assignment.is_none_or(|assignment| {
                let known = self.assignments.known(assignment);
                known.is_some_and(|known| known.is_answered)
            })
    }

    /// The endpoints of a service, as far as they are known.
    fn now(&self, name: &str) -> Option<Said> {
        let known = self.clusters.known(name)?;
        if known.is_absent {
            return Some(Said::Absent);
        }
        match &**known.value? {
            Cluster::Inline(assignment) => Some(Said::Found(Arc::clone(assignment))),
            Cluster::Assigned(assignment) => {
                let known = self.assignments.known(assignment)?;
                if known.is_absent {
                    return Some(Said::Absent);
                }
                known.value.map(Arc::clone).map(Said::Found)
            }
        }
    }

    /// Notes which assignment a service needs, and follows as many as are needed.
    fn assign(&mut self, name: &str, assignment: Option<&str>) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        if service.assignment.as_deref() == assignment {
            return;
        }
        let before = std::mem::replace(&mut service.assignment, assignment.map(str::to_owned));
        if let Some(assignment) = assignment {
            let users = self.users.entry(assignment.to_owned()).or_default();
            users.insert(name.to_owned());
            self.assignments.want(assignment);
        }
        let Some(before) = before else { return };
        let Some(users) = self.users.get_mut(&before) else {
            return;
        };
        users.remove(name);
        if users.is_empty() {
            self.users.remove(&before);
            self.assignments.unwant(&before);
        }
    }
}

#[cfg(test)]
mod tests;
