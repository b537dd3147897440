//! The layers on the way to a service, from what the configuration says: its own, and those of the routes that lead to it and
//! say something else.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use mesh_resilience::ConfigError;
use mesh_resilience::breaker::Breaker;
use mesh_resilience::breaker::BreakerConfig;
use mesh_resilience::breaker::SlowCalls;
use mesh_resilience::breaker::SuccessRate;
use mesh_resilience::bulkhead::Bulkhead;
use mesh_resilience::bulkhead::BulkheadConfig;
use mesh_resilience::hedge::Hedge;
use mesh_resilience::hedge::HedgeConfig;
use mesh_resilience::limit::Limiter;
use mesh_resilience::random::Random;
use mesh_resilience::retry::Budget;
use mesh_resilience::retry::BudgetConfig;
use mesh_resilience::retry::RetryConfig;
use mesh_resilience::retry::RetryLayer;
use mesh_resilience::timeout::TimeoutLayer;
use mesh_resilience::timeout::Total;

use crate::config::Backoff;
use crate::config::ResilienceConfig;
use crate::error::Error;
use crate::route::Mirror;
use crate::route::Overrides;
use crate::route::Route;
use crate::route::RouteTable;
use crate::stack::endpoints::Endpoints;
use crate::stack::lane::ByRoute;
use crate::stack::lane::Lane;
use crate::stack::lane::Layers;
use crate::stack::lane::Seen;
use crate::stack::route::CopyLane;
use crate::stack::send::Judge;
use crate::telemetry::Telemetry;

/// The ways to one service.
pub(super) struct Lanes {
    pub(super) own: Lane,
    pub(super) routes: ByRoute<Lane>,
    pub(super) copies: ByRoute<CopyLane>,
}

/// What the lanes to one service are made of.
pub(super) struct Maker<'a> {
    pub(super) resilience: &'a ResilienceConfig,
    pub(super) routes: &'a RouteTable,
    pub(super) random: Arc<dyn Random>,
    pub(super) telemetry: &'a Telemetry,
    pub(super) service: &'a Arc<str>,
    pub(super) endpoints: &'a Arc<Endpoints>,
}

impl Maker<'_> {
    pub(super) fn lanes(&self) -> Result<Lanes, Error> {
        let layers = self.layers()?;
        let (mut routes, mut copies) = (Vec::new(), Vec::new());
        for route in self.routes.routes() {
            if (route.leads_to(self.service) || route.falls_back_to(self.service))
                && let Some(lane) = self.lane(&layers, route)?
            {
                routes.push((route.index, lane));
            }
            if let Some(mirror) = route.mirror_to(self.service) {
                copies.push((route.index, self.copies(route, mirror)?));
            }
        }
        Ok(Lanes {
            own: Lane::new(&layers, Arc::clone(self.endpoints), Seen::all(&layers)),
            routes: ByRoute::new(routes),
            copies: ByRoute::new(copies),
        })
    }

    /// Those that all calls to the service share, unless their route says something else.
    fn layers(&self) -> Result<Layers, Error> {
        let resilience = self.resilience;
        let wrong = |key: &'static str| wrong(format!("resilience.{key}"));
        let (timeout, attempt_timeout) = timeouts(resilience).map_err(wrong("timeout"))?;
        let (retry, budget) = self.retry(resilience).map_err(wrong("retry"))?;
        let longest = longest_timeout(resilience.timeout, self.routes, self.service);
        let breaker = self.breaker(resilience, longest);
        Ok(Layers {
            total: resilience.timeout,
            timeout,
            attempt_timeout,
            retry,
            hedge: self.hedge(resilience, &budget).map_err(wrong("hedge"))?,
            budget,
            breaker: breaker.map_err(wrong("circuit_breaker"))?,
            bulkhead: Bulkhead::new(&bulkhead_config(resilience)),
        })
    }

    /// The way of a route that has one of its own. What it says nothing of it shares with the service.
    fn lane(&self, shared: &Layers, route: &Route) -> Result<Option<Lane>, Error> {
        let overrides = &route.overrides;
        let Some(resilience) = overridden(self.resilience, overrides) else {
            return Ok(None);
        };
        let wrong = |key: &'static str| wrong(format!("{key} of the route {}", route.name));
        let mut layers = shared.clone();
        layers.total = resilience.timeout;
        (layers.timeout, layers.attempt_timeout) =
            timeouts(&resilience).map_err(wrong("timeout"))?;
        if overrides.retry.is_some() {
            (layers.retry, layers.budget) = self.retry(&resilience).map_err(wrong("retry"))?;
        }
        // Also where only the retries are the route's own: hedges draw on their budget.
        if overrides.hedge.is_some() || overrides.retry.is_some() {
            let hedge = self.hedge(&resilience, &layers.budget);
            layers.hedge = hedge.map_err(wrong("hedge"))?;
        }
        if overrides.circuit_breaker.is_some() {
            layers.breaker = self
                .breaker(&resilience, resilience.timeout)
                .map_err(wrong("circuit_breaker"))?;
        }
        if overrides.bulkhead.is_some() {
            layers.bulkhead = Bulkhead::new(&bulkhead_config(&resilience));
        }
        let seen = Seen::of_route(route, &layers);
        Ok(Some(Lane::new(&layers, Arc::clone(self.endpoints), seen)))
    }

    /// The way of a route's copies. Their breaker is as the service's, and counts nothing else.
    fn copies(&self, route: &Route, mirror: &Mirror) -> Result<CopyLane, Error> {
        let wrong = |key: &'static str| wrong(format!("{key} of the route {}", route.name));
        let timeout = TimeoutLayer::new(mirror.timeout).map_err(wrong("mirror.timeout"))?;
        let breaker = self
            .breaker(self.resilience, mirror.timeout)
            .map_err(wrong("circuit_breaker"))?;
        Ok(CopyLane::new(timeout, breaker, Arc::clone(self.endpoints)))
    }

    /// A breaker for calls that take no longer than `longest`.
    fn breaker(
        &self,
        resilience: &ResilienceConfig,
        longest: Duration,
    ) -> Result<Breaker, ConfigError> {
        let config = breaker_config(resilience, longest);
        Breaker::with_parts(config, Arc::clone(&self.random), None)
    }

    fn hedge(
        &self,
        resilience: &ResilienceConfig,
        retries: &Budget,
    ) -> Result<Option<Hedge>, ConfigError> {
        let Some(config) = &resilience.hedge else {
            return Ok(None);
        };
        let budget = Budget::new(HedgeConfig::budget().with_ratio(config.budget))?;
        let hedges = HedgeConfig::default()
            .with_quantile(config.quantile)
            .with_min_delay(config.min_delay)
            .with_max_delay(config.max_delay);
        let hedge = Hedge::new(hedges, budget)?.sharing(retries.clone());
        let observer = self.telemetry.hedges_of(self.service);
        Ok(Some(hedge.with_observer(Arc::new(observer))))
    }

    fn retry(
        &self,
        resilience: &ResilienceConfig,
    ) -> Result<(RetryLayer<Judge>, Budget), ConfigError> {
        let config = &resilience.retry;
        let factor = match config.backoff {
            Backoff::Exponential => 2.0,
            Backoff::Fixed => 1.0,
        };
        let retries = RetryConfig::default()
            .with_max_attempts(config.max_attempts)
            .with_initial_delay(config.initial_delay)
            .with_max_delay(config.max_delay)
            .with_factor(factor);
        let budget = Budget::new(BudgetConfig::default().with_ratio(config.budget))?;
        let retry = RetryLayer::new(retries, budget.clone(), Judge)?
            .with_random(Arc::clone(&self.random))
            .with_observer(Arc::new(self.telemetry.retries_of(self.service)));
        Ok((retry, budget))
    }
}

/// What holds for the calls of a route; nothing where it is what holds for all.
fn overridden(resilience: &ResilienceConfig, overrides: &Overrides) -> Option<ResilienceConfig> {
    let limited = Overrides {
        rate_limit: None,
        ..overrides.clone()
    };
    if limited == Overrides::default() {
        return None;
    }
    let Overrides {
        timeout,
        retry,
        hedge,
        circuit_breaker,
        bulkhead,
        ..
    } = limited;
    let mut own = resilience.clone();
    own.timeout = timeout.unwrap_or(own.timeout);
    own.retry = retry.unwrap_or(own.retry);
    own.hedge = hedge.or(own.hedge);
    own.circuit_breaker = circuit_breaker.unwrap_or(own.circuit_breaker);
    own.bulkhead = bulkhead.unwrap_or(own.bulkhead);
    Some(own)
}

/// The limit of a call, and that of each of its attempts.
fn timeouts(
    resilience: &ResilienceConfig,
) -> Result<(TimeoutLayer<Total>, TimeoutLayer<Total>), ConfigError> {
    let per_try = resilience.retry.per_try_timeout;
    Ok((
        TimeoutLayer::total(resilience.timeout)?,
        TimeoutLayer::total(per_try.unwrap_or(resilience.timeout))?,
    ))
}

/// The longest that a call to `service` may take which goes through the service's breaker: where a route has a timeout of its
/// own, and no breaker, its calls do too.
fn longest_timeout(own: Duration, routes: &RouteTable, service: &str) -> Duration {
    let shares = |route: &&Arc<Route>| {
        route.overrides.circuit_breaker.is_none()
            && (route.leads_to(service) || route.falls_back_to(service))
    };
    let sharing = routes.routes().iter().filter(shares);
    sharing
        .filter_map(|route| route.overrides.timeout)
        .fold(own, Duration::max)
}

fn breaker_config(resilience: &ResilienceConfig, longest: Duration) -> BreakerConfig {
    let config = &resilience.circuit_breaker;
    let mut breaker = BreakerConfig::default()
        .with_threshold(config.threshold)
        .with_open_for(config.timeout)
        .with_half_open_requests(config.half_open_requests)
        .with_successes_to_close(config.half_open_requests)
        // No call takes longer than its timeout, so that no probe is given up that may still answer.
        .with_probe_timeout(longest.saturating_mul(2));
    if let Some(rate) = &config.success_rate {
        let rate = SuccessRate::default()
            .with_min_ratio(rate.min_ratio)
            .with_window(rate.window)
            .with_min_volume(rate.min_volume);
        breaker = breaker.with_success_rate(rate);
    }
    if let Some(slow) = &config.slow_calls {
        let slow = SlowCalls::default()
            .with_longer_than(slow.longer_than)
            .with_max_ratio(slow.max_ratio)
            .with_window(slow.window)
            .with_min_volume(slow.min_volume);
        breaker = breaker.with_slow_calls(slow);
    }
    breaker
}

fn bulkhead_config(resilience: &ResilienceConfig) -> BulkheadConfig {
    let config = &resilience.bulkhead;
    let concurrent = NonZeroUsize::try_from(config.max_concurrent).unwrap_or(NonZeroUsize::MAX);
    let waiting = usize::try_from(config.max_waiting).unwrap_or(usize::MAX);
    let bulkhead = BulkheadConfig::default()
        .with_max_concurrent(concurrent)
        .with_max_waiting(waiting);
    match config.max_wait {
        Some(wait) => bulkhead.with_max_wait(wait),
        None => bulkhead,
    }
}

/// The limit that all calls of a route share.
pub(super) fn limiter(route: &Route) -> Result<Option<Limiter>, Error> {
    let Some(limit) = &route.overrides.rate_limit else {
        return Ok(None);
    };
    let config = limit.limits().with_max_keys(NonZeroUsize::MIN);
    Limiter::new(&config)
        .map(Some)
        .map_err(wrong(format!("rate_limit of the route {}", route.name)))
}

fn wrong(what: String) -> impl FnOnce(ConfigError) -> Error {
    move |source| Error::config(what, source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CircuitBreakerConfig;
    use crate::config::RouteConfig;
    use crate::config::RouteTargetConfig;

    #[test]
    fn a_probe_may_take_as_long_as_any_call_through_the_breaker() {
        let route = |name: &str, seconds, service: &str| {
            let mut route = RouteConfig {
                name: name.to_owned(),
                timeout: Some(Duration::from_secs(seconds)),
                ..RouteConfig::default()
            };
            route.to.push(RouteTargetConfig {
                service: Some(service.to_owned()),
                ..RouteTargetConfig::default()
            });
            route
        };
        let mut alone = route("alone", 90, "api");
        alone.circuit_breaker = Some(CircuitBreakerConfig::default());
        let routes = [
            route("short", 2, "api"),
            route("long", 60, "api"),
            alone,
            route("elsewhere", 80, "other"),
        ];
        let routes = RouteTable::new(&routes).unwrap();
        let longest = |service| longest_timeout(Duration::from_secs(10), &routes, service);
        assert_eq!(longest("api"), Duration::from_mins(1));
        assert_eq!(longest("none"), Duration::from_secs(10));
    }
}
