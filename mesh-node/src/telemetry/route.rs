//! What is counted of routes. All labels come from the configuration and from services that are called.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::Names;
use crate::route::Fallback;

/// The metrics of routes.
pub(crate) struct RouteMetrics {
    requests: Family<TargetLabels, Counter>,
    faults: Family<KindLabels, Counter>,
    mirrored: Family<ResultLabels, Counter>,
    fallbacks: Family<KindLabels, Counter>,
}

/// The series of one route, looked up once and then only counted up.
#[derive(Clone, Debug)]
pub(crate) struct RouteSeries {
    /// One for each target, in their order; one for a route that names none.
    pub(crate) targets: Box<[Counter]>,
    pub(crate) delayed: Counter,
    pub(crate) aborted: Counter,
    /// Copies that were answered, and those that were not.
    pub(crate) mirrored: Counter,
    pub(crate) mirror_failed: Counter,
    /// Copies that were not sent: too many under way, or a body that is not held.
    pub(crate) mirror_dropped: Counter,
}

/// The series of a route's fallback: calls that were answered by each kind that it has.
#[derive(Clone, Debug)]
pub(crate) struct FallbackSeries {
    pub(crate) service: Option<Counter>,
    pub(crate) stale: Option<Counter>,
    pub(crate) answer: Option<Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct TargetLabels {
    route: Arc<str>,
    target: Arc<str>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct KindLabels {
    route: Arc<str>,
    kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabels {
    route: Arc<str>,
    result: &'static str,
}

impl RouteMetrics {
    pub(super) fn new(names: &mut Names<'_>) -> Self {
        Self {
            requests: names.register(
                "mesh_route_requests",
                "Requests that a route took, by the target that was drawn",
            ),
            faults: names.register(
                "mesh_route_faults",
                "Faults that a route injected: delay, abort",
            ),
            mirrored: names.register(
                "mesh_route_mirrored",
                "Copies of requests of a route: answered, failed, dropped (not sent)",
            ),
            fallbacks: names.register(
                "mesh_route_fallback",
                "Requests of a route whose answer says x-mesh-fallback, whatever else it says: service, stale, answer",
            ),
        }
    }

    /// The series of a route whose targets are these.
    pub(crate) fn series(&self, route: &Arc<str>, targets: &[Arc<str>]) -> RouteSeries {
        let name = || Arc::clone(route);
        let fault = |kind| {
            let labels = KindLabels {
                route: name(),
                kind,
            };
            self.faults.get_or_create(&labels).clone()
        };
        let mirrored = |result| {
            let labels = ResultLabels {
                route: name(),
                result,
            };
            self.mirrored.get_or_create(&labels).clone()
        };
        let target = |target: &Arc<str>| {
            let labels = TargetLabels {
                route: name(),
                target: Arc::clone(target),
            };
            self.requests.get_or_create(&labels).clone()
        };
        RouteSeries {
            targets: targets.iter().map(target).collect(),
            delayed: fault("delay"),
            aborted: fault("abort"),
            mirrored: mirrored("answered"),
            mirror_failed: mirrored("failed"),
            mirror_dropped: mirrored("dropped"),
        }
    }

    /// The series of a route's fallback.
    pub(crate) fn fallback(&self, route: &Arc<str>, fallback: &Fallback) -> FallbackSeries {
        let of = |kind, is_there: bool| {
            let labels = KindLabels {
                route: Arc::clone(route),
                kind,
            };
            is_there.then(|| self.fallbacks.get_or_create(&labels).clone())
        };
        FallbackSeries {
            service: of("service", fallback.service.is_some()),
            stale: of("stale", fallback.stale.is_some()),
            answer: of("answer", fallback.answer.is_some()),
        }
    }
}
