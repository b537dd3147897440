//! What becomes of a call that a route takes, beside the layers that it passes.
//!
//! In this order: the target is drawn ([`choice`]), the route's limit is asked, its faults are made ([`fault`]), path, host and
//! header fields are changed; the call passes its lane; a copy is sent ([`mirror`]); where there is no good answer, something
//! else is given ([`fallback`]); and the answer's header fields are changed.
//! Which route takes a call is decided in [`crate::route`], which `explain` asks too.

mod choice;
mod fallback;
mod fault;
mod mirror;

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Response;
use http::header;
use http::request::Parts;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::RequestError;
use mesh_resilience::balance::Label;
use mesh_resilience::balance::Subset;
use mesh_resilience::fallback::stale::Snapshot;
use mesh_resilience::limit::Limiter;
use mesh_resilience::limit::Verdict;
use mesh_resilience::random::Random;
use mesh_resilience::random::SplitMix64;
use mesh_transport::Body;

pub(crate) use self::choice::Drawn;
pub(crate) use self::fallback::Came;
pub(crate) use self::fallback::Falling;
pub(crate) use self::fallback::Kind;
pub(crate) use self::fallback::Spare;
pub(crate) use self::fallback::X_MESH_FALLBACK;
pub(crate) use self::mirror::CopyLane;
pub(crate) use self::mirror::X_MESH_MIRRORED;

use self::choice::Choice;
use self::fallback::Fallback;
use self::mirror::Bounds;
use crate::config::SubsetConfig;
use crate::error::Error;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::route::Asked;
use crate::route::Fault;
use crate::route::FaultStatus;
use crate::route::Mirror;
use crate::route::Redirect;
use crate::route::Route;
use crate::route::RouteTable;
use crate::route::Target;
use crate::stack::inbound::LimitHeaders;
use crate::stack::inbound::limit_headers;
use crate::stack::now;
use crate::stack::send::Original;
use crate::stack::send::OutboundCall;
use crate::telemetry::RouteSeries;
use crate::telemetry::Telemetry;

/// The routes of a node with what their calls share.
#[derive(Debug)]
pub(crate) struct Routes {
    table: Arc<RouteTable>,
    /// One for each route, in their order.
    ways: Box<[Way]>,
    random: Arc<SplitMix64>,
}

/// What the calls of one route share.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) route: Arc<Route>,
    choice: Choice,
    /// Which endpoints, of each target and of the copies; one value for all calls that mean the same.
    subsets: Box<[Option<Arc<Subset>>]>,
    copied_to: Option<Arc<Subset>>,
    series: RouteSeries,
    /// What its calls are limited by, where they are.
    limiter: Option<Limiter>,
    copies: Option<Bounds>,
    /// What is given where the service gave no good answer.
    pub(crate) fallback: Option<Fallback>,
}

/// A copy that is to be made of a call.
#[derive(Debug)]
pub(crate) struct Copy<'a> {
    pub(crate) mirror: &'a Mirror,
    /// The route's place.
    pub(crate) route: usize,
    bounds: &'a Bounds,
    original: Original,
    subset: Option<&'a Arc<Subset>>,
    series: &'a RouteSeries,
}

impl Routes {
    /// Routes of which none has taken a call; `limiter` makes the limit of one, and API keys come in the field `api_key`.
    pub(crate) fn new(
        table: Arc<RouteTable>,
        telemetry: &Telemetry,
        random: Arc<SplitMix64>,
        api_key: &HeaderName,
        limiter: impl Fn(&Route) -> Result<Option<Limiter>, Error>,
    ) -> Result<Self, Error> {
        let way = |route: &Arc<Route>| {
            let labels: Vec<Arc<str>> = route.targets.all().iter().map(label).collect();
            let targets = route.targets.all().iter();
            let subsets = targets.map(|target| target.subset.as_deref().map(subset));
            let bounds = |mirror: &Mirror| {
                let most = usize::try_from(mirror.max_concurrent.get()).unwrap_or(usize::MAX);
                Bounds::new(most, mirror.timeout)
            };
            Ok(Way {
                choice: Choice::new(&labels),
                subsets: subsets.collect(),
                copied_to: (route.mirror.as_ref())
                    .and_then(|mirror| mirror.subset.as_deref())
                    .map(subset),
                series: telemetry.routes.series(&route.name, &labels),
                limiter: limiter(route)?,
                copies: route.mirror.as_ref().map(bounds),
                fallback: Fallback::new(route, api_key, |fallback| {
                    telemetry.routes.fallback(&route.name, fallback)
                })?,
                route: Arc::clone(route),
            })
        };
        let ways: Result<_, Error> = table.routes().iter().map(way).collect();
        Ok(Self {
            ways: ways?,
            table,
            random,
        })
    }

    /// The limits of routes that have one, as they stand.
    pub(crate) fn limits(&self, now: Instant) -> impl Iterator<Item = (&Arc<str>, Verdict)> {
        self.ways.iter().filter_map(move |way| {
            let limiter = way.limiter.as_ref()?;
            Some((&way.route.name, limiter.peek(&(), now)))
        })
    }

    /// The routes that keep old answers, and what they keep.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (&Arc<str>, Snapshot)> {
        self.ways.iter().filter_map(|way| {
            let kept = way.fallback.as_ref()?.kept()?;
            Some((&way.route.name, kept))
        })
    }

    /// The route that takes a call of `service`.
    pub(crate) fn find(&self, service: &str, request: &CanonicalRequest) -> Option<&Way> {
        let route = self.table.find(&Asked::new(service, request)).route?;
        self.ways.get(route.index)
    }

    /// Where a call of a route goes.
    pub(crate) fn draw(&self, way: &Way, headers: &HeaderMap) -> Drawn {
        let drawn = way.choice.draw(&way.route, headers, &*self.random);
        if let Some(counter) = way.series.targets.get(drawn.index) {
            counter.inc();
        }
        drawn
    }

    /// Makes the faults of a route: waits, and gives the answer of a call that is to fail.
    pub(crate) async fn fail(&self, way: &Way, headers: &HeaderMap) -> Option<Refusal> {
        let fault = way
            .route
            .fault
            .as_ref()
            .filter(|fault| fault.is_for(headers))?;
        let Fault { delay, abort, .. } = fault;
        if let Some(delay) = delay.filter(|delay| delay.percent.takes(self.random.next_u64())) {
            way.series.delayed.inc();
            // Boxed: it is rare, and must not make every call larger.
            Box::pin(tokio::time::sleep(delay.time)).await;
        }
        let abort = abort.filter(|abort| abort.percent.takes(self.random.next_u64()))?;
        way.series.aborted.inc();
        Some(match abort.status {
            FaultStatus::Http(status) => fault::aborted(status),
            FaultStatus::Grpc(status) => fault::aborted_grpc(u16::from(status)),
        })
    }

    /// Whether a copy is to be made of a call, and of what.
    pub(crate) fn copy<'a>(&self, way: &'a Way, call: &OutboundCall) -> Option<Copy<'a>> {
        let (mirror, bounds) = way.route.mirror.as_ref().zip(way.copies.as_ref())?;
        if call.is_fallback() || !mirror.percent.takes(self.random.next_u64()) {
            return None;
        }
        let Some(original) = call.original() else {
            way.series.mirror_dropped.inc();
            return None;
        };
        Some(Copy {
            mirror,
            route: way.route.index,
            bounds,
            original,
            subset: way.copied_to.as_ref(),
            series: &way.series,
        })
    }
}

impl Way {
    /// The target that was drawn.
    pub(crate) fn target(&self, drawn: &Drawn) -> Option<&Target> {
        self.route.targets.all().get(drawn.index)
    }

    /// Aims a call at what was drawn for it.
    pub(crate) fn aim(&self, call: OutboundCall, drawn: &Drawn) -> OutboundCall {
        let subset = self.subsets.get(drawn.index).cloned().flatten();
        call.with_aim(subset, drawn.hash)
    }

    /// Counts a call against the route's limit; gives the headers that tell how many are left.
    ///
    /// # Errors
    ///
    /// The refusal of a call beyond the limit.
    pub(crate) fn admit(&self) -> Result<Option<LimitHeaders>, Refusal> {
        let Some(limiter) = &self.limiter else {
            return Ok(None);
        };
        let verdict = limiter.check(&(), now());
        let headers = limit_headers(&verdict);
        if verdict.allowed {
            return Ok(Some(headers.into()));
        }
        let message = format!(
            "more calls than the {} that route {} may have in the window; try again later",
            verdict.limit, self.route.name
        );
        let refusal =
            Refusal::new(Code::RateLimited, message).with_retry_after(verdict.retry_after);
        Err(headers.into_iter().fold(refusal, |refusal, (name, value)| {
            refusal.with_header(name, value)
        }))
    }

    /// Changes path, host and header fields of a request; what is sent is normalised again.
    ///
    /// # Errors
    ///
    /// When the changed request can't be sent; the caller's path is then too long, or its rest is none behind the new prefix.
    pub(crate) fn change(&self, request: &mut CanonicalRequest) -> Result<(), RequestError> {
        if let Some(rewrite) = &self.route.rewrite {
            if let Some(path) = &rewrite.path {
                let target = path.apply(request.path(), request.query());
                request.set_path_and_query(&target)?;
            }
            if let Some(host) = &rewrite.host {
                request.set_authority(host)?;
            }
        }
        self.route.request_headers.apply(request.headers_mut());
        Ok(())
    }

    /// Changes the header fields of the service's answer.
    pub(crate) fn change_answer(&self, drawn: &Drawn, headers: &mut HeaderMap) {
        self.route.response_headers.apply(headers);
        if let Some(cookie) = &drawn.cookie {
            headers.append(header::SET_COOKIE, cookie.clone());
        }
    }
}

impl Copy<'_> {
    /// What sends the copy, to be run by itself; nothing where it can't be sent, which is counted.
    pub(crate) fn into_task(
        self,
        lane: impl Future<Output = Option<CopyLane>> + Send + 'static,
        change: impl FnOnce(&mut Parts),
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let series = self.series.clone();
        let copy = self.original.into_copy(|head| {
            change(head);
            head.headers.insert(X_MESH_MIRRORED, mirror::MIRRORED);
        });
        let copy = copy.map(|copy| copy.with_aim(self.subset.cloned(), None));
        let Some(sending) = copy.and_then(|copy| self.bounds.send(lane, copy)) else {
            series.mirror_dropped.inc();
            return None;
        };
        Some(async move {
            let counter = if sending.await {
                &series.mirrored
            } else {
                &series.mirror_failed
            };
            counter.inc();
        })
    }

    /// Counts that the copy is not sent.
    pub(crate) fn dropped(self) {
        self.series.mirror_dropped.inc();
    }
}

/// The answer of a route that redirects.
pub(crate) fn redirected(redirect: &Redirect, request: &CanonicalRequest) -> Response<Body> {
    let location = redirect.location(request.authority(), request.path(), request.query());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = redirect.status;
    // A canonical path and authority are no more than a header field may hold.
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Which endpoints the configuration means.
fn subset(config: &SubsetConfig) -> Arc<Subset> {
    let SubsetConfig {
        zone,
        version,
        tags,
        metadata,
    } = config;
    let zone = zone.iter().map(|zone| (Label::Zone, zone));
    let version = version.iter().map(|version| (Label::Version, version));
    let tags = tags.iter().map(|tag| (Label::Tag, tag));
    let metadata = metadata
        .iter()
        .map(|(name, value)| (Label::Metadata(name.clone()), value));
    let wanted = zone.chain(version).chain(tags).chain(metadata);
    Arc::new(wanted.fold(Subset::new(), |subset, (label, value)| {
        subset.with(label, value.as_str())
    }))
}

/// What a target is called in metrics and cookies.
fn label(target: &Target) -> Arc<str> {
    let mut label = target.service.as_deref().unwrap_or("called").to_owned();
    if let Some(subset) = &target.subset {
        let SubsetConfig {
            zone,
            version,
            tags,
            metadata,
        } = &**subset;
        let named = [("zone", zone), ("version", version)];
        let named = named
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let tags = tags.iter().map(|tag| ("tag", tag.as_str()));
        let metadata = metadata
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in named.chain(tags).chain(metadata) {
            label.extend([" ", name, "=", value]);
        }
    }
    label.into()
}
