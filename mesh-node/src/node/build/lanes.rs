//! The layers on the way to a service, from what the configuration says.

use std::num::NonZeroUsize;
use std::sync::Arc;

use mesh_resilience::breaker::Breaker;
use mesh_resilience::breaker::BreakerConfig;
use mesh_resilience::breaker::SlowCalls;
use mesh_resilience::breaker::SuccessRate;
use mesh_resilience::bulkhead::Bulkhead;
use mesh_resilience::bulkhead::BulkheadConfig;
use mesh_resilience::retry::Budget;
use mesh_resilience::retry::BudgetConfig;
use mesh_resilience::retry::RetryConfig;
use mesh_resilience::retry::RetryLayer;
use mesh_resilience::timeout::TimeoutLayer;

use crate::config::Backoff;
use crate::config::ResilienceConfig;
use crate::error::Error;
use crate::node::build::Own;
use crate::stack::lane::Layers;
use crate::stack::send::Judge;
use crate::telemetry::Telemetry;

/// The layers that calls to `service` pass.
pub(super) fn layers(
    resilience: &ResilienceConfig,
    own: &Own,
    (telemetry, service): (&Arc<Telemetry>, &Arc<str>),
) -> Result<Layers, Error> {
    let wrong = |key: &'static str| {
        move |source: mesh_resilience::ConfigError| {
            Error::config(format!("resilience.{key}"), source)
        }
    };
    let random: Arc<dyn mesh_resilience::random::Random> = Arc::clone(&own.seed) as Arc<_>;

    let breaker = breaker_config(resilience);
    let breaker = Breaker::with_parts(breaker, Arc::clone(&random), None)
        .map_err(wrong("circuit_breaker"))?;

    let retry = &resilience.retry;
    let factor = match retry.backoff {
        Backoff::Exponential => 2.0,
        Backoff::Fixed => 1.0,
    };
    let retries = RetryConfig::default()
        .with_max_attempts(retry.max_attempts)
        .with_initial_delay(retry.initial_delay)
        .with_max_delay(retry.max_delay)
        .with_factor(factor);
    let budget =
        Budget::new(BudgetConfig::default().with_ratio(retry.budget)).map_err(wrong("retry"))?;
    let retry = RetryLayer::new(retries, budget, Judge)
        .map_err(wrong("retry"))?
        .with_random(random)
        .with_observer(Arc::new(telemetry.retries_of(service)));

    let per_try = resilience.retry.per_try_timeout;
    let per_try = per_try.unwrap_or(resilience.timeout);
    Ok(Layers {
        timeout: TimeoutLayer::total(resilience.timeout).map_err(wrong("timeout"))?,
        attempt_timeout: TimeoutLayer::within_deadline(per_try)
            .map_err(wrong("retry.per_try_timeout"))?,
        retry,
        breaker,
        bulkhead: Bulkhead::new(&bulkhead_config(resilience)),
    })
}

fn breaker_config(resilience: &ResilienceConfig) -> BreakerConfig {
    let config = &resilience.circuit_breaker;
    let mut breaker = BreakerConfig::default()
        .with_threshold(config.threshold)
        .with_open_for(config.timeout)
        .with_half_open_requests(config.half_open_requests)
        .with_successes_to_close(config.half_open_requests)
        // No call takes longer than its timeout, so that no probe is given up that may still answer.
        .with_probe_timeout(resilience.timeout.saturating_mul(2));
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
