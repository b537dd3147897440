//! Configuration as people write it: durations in words, unknown keys refused, defaults as documented.
#![cfg(feature = "serde")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use mesh_resilience::balance::{BalanceConfig, OutlierConfig, Policy, SlowStart};
use mesh_resilience::breaker::{BreakerConfig, SlowCalls, SuccessRate};
use mesh_resilience::bulkhead::BulkheadConfig;
use mesh_resilience::hedge::HedgeConfig;
use mesh_resilience::limit::LimitConfig;
use mesh_resilience::retry::{BudgetConfig, RetryConfig};
use mesh_resilience::shed::ShedConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value, json, to_value};

/// Checks that `config` is written as `text`, read back as itself, and read from nothing as the default.
fn check<C: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(config: &C, text: &Value) {
    assert_eq!(to_value(config).unwrap(), *text);
    assert_eq!(from_value::<C>(json!({})).unwrap(), *config);
    assert_eq!(from_value::<C>(text.clone()).unwrap(), *config);
    from_value::<C>(json!({ "no_such_key": 1 })).unwrap_err();
}

#[test]
fn defaults_are_the_documented_ones() {
    let breaker = json!({
        "threshold": 5, "open_for": "1m", "jitter_ratio": 0.015, "half_open_requests": 3, "successes_to_close": 3,
        "probe_timeout": "1m",
    });
    check(&BreakerConfig::default(), &breaker);
    check(
        &SuccessRate::default(),
        &json!({ "min_ratio": 0.5, "window": "30s", "min_volume": 20 }),
    );
    check(
        &SlowCalls::default(),
        &json!({ "longer_than": "10s", "max_ratio": 0.5, "window": "30s", "min_volume": 20 }),
    );
    check(
        &BulkheadConfig::default(),
        &json!({ "max_concurrent": 100, "max_waiting": 50 }),
    );
    let impatient = BulkheadConfig::default().with_max_wait(std::time::Duration::from_millis(250));
    let text = json!({ "max_concurrent": 100, "max_waiting": 50, "max_wait": "250ms" });
    assert_eq!(to_value(&impatient).unwrap(), text);
    assert_eq!(from_value::<BulkheadConfig>(text).unwrap(), impatient);
    let windows = json!([{ "max_requests": 100, "period": "1m" }, { "max_requests": 10_000, "period": "1h" }]);
    check(
        &LimitConfig::default(),
        &json!({ "windows": windows, "max_keys": 100_000 }),
    );
    let retry =
        json!({ "max_attempts": 3, "initial_delay": "1s", "factor": 2.0, "max_delay": "25s" });
    check(&RetryConfig::default(), &retry);
    check(
        &BudgetConfig::default(),
        &json!({ "ratio": 0.2, "reserve": 10, "window": "10s" }),
    );
    let hedge = json!({ "quantile": 0.95, "window": "1m", "min_delay": "1ms", "max_delay": "1s" });
    check(&HedgeConfig::default(), &hedge);
    let shed = json!({
        "min_limit": 4, "initial_limit": 100, "max_limit": 1000, "tolerance": 1.25, "interval": "100ms", "probe_interval": "10s",
    });
    check(&ShedConfig::default(), &shed);
    let outliers = json!({
        "consecutive_failures": 5, "consecutive_gateway_failures": 5, "ejection": "30s", "max_ejection": "5m", "interval": "30s", "max_ejected_ratio": 0.5,
    });
    check(&OutlierConfig::default(), &outliers);
    let balance = json!({
        "policy": "least_request", "panic_threshold": 0.0, "latency_decay": "10s", "ring_points": 160,
        "max_ring_size": 262_144, "maglev_table_size": 65_537,
    });
    check(&BalanceConfig::default(), &balance);
    check(
        &SlowStart::default(),
        &json!({ "window": "30s", "aggression": 1.0, "min_share": 0.1 }),
    );
    assert_eq!(
        from_value::<Policy>(json!("least_request")).unwrap(),
        Policy::default()
    );
}

#[test]
fn a_wrong_value_is_refused() {
    for wrong in [
        json!({ "open_for": "soon" }),
        json!({ "open_for": 60 }),
        json!({ "threshold": 0 }),
    ] {
        from_value::<BreakerConfig>(wrong).unwrap_err();
    }
}
