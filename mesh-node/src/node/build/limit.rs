//! The rate limit of callers, and what keeps its store.

use std::num::NonZeroU32;
use std::sync::Arc;

use mesh_resilience::BoxError;
use mesh_resilience::limit::LimitConfig;
use mesh_resilience::limit::Limiter;
use mesh_resilience::limit::redis::RedisConfig;
use mesh_resilience::limit::redis::RedisDriver;
use mesh_resilience::limit::redis::RedisStore;
use mesh_resilience::limit::shared;
use mesh_resilience::limit::shared::SharedConfig;
use mesh_resilience::limit::shared::SharedLimiter;
use mesh_resilience::random::Random;
use mesh_resilience::random::SplitMix64;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::TlsStore;
use tokio::sync::oneshot;

use super::Own;
use crate::config::CallerLimitConfig;
use crate::config::NodeConfig;
use crate::config::RateLimitStoreConfig;
use crate::config::RedisStoreConfig;
use crate::config::RlsStoreConfig;
use crate::config::RlsWhenAway;
use crate::config::WhenAway;
use crate::discovery::sources::password_in;
use crate::discovery::sources::tls;
use crate::error::Error;
use crate::health::Board;
use crate::stack::limit::Counter;
use crate::stack::limit::RateLimit;
use crate::stack::limit::Shared;
use crate::stack::limit::Told;
use crate::stack::rls::Rls;
use crate::telemetry::LimitMetrics;

/// The rate limit that `config` describes, and the work that its store needs; opens nothing.
#[expect(clippy::type_complexity, reason = "both are taken apart at once")]
pub(crate) fn rate_limit(
    config: &NodeConfig,
    random: &Arc<dyn Random>,
    (health, metrics): (&Arc<Board>, &LimitMetrics),
) -> Result<Option<(RateLimit, Option<(RedisDriver, oneshot::Receiver<()>)>)>, Error> {
    let Some(limit) = &config.resilience.rate_limit else {
        return Ok(None);
    };
    let unusable = |source| Error::config("resilience.rate_limit", source);
    let limits = limit.rates.limits();
    if let Some(RateLimitStoreConfig::Rls(rls)) = &limit.store {
        // Made by `start`, which has what it takes to ask.
        if rls.when_away == RlsWhenAway::LocalShare {
            Limiter::new(&limits).map_err(unusable)?;
        }
        return Ok(None);
    }
    let Some(RateLimitStoreConfig::Redis(redis)) = &limit.store else {
        let limiter = Limiter::new(&limits).map_err(unusable)?;
        let limit = RateLimit::new(Counter::Here(limiter), metrics.clone());
        return Ok(Some((limit, None)));
    };
    let unusable = |source: BoxError| Error::config("resilience.rate_limit.store", source);
    let (store, driver) = store(config, redis, (&limits, random)).map_err(unusable)?;
    let (when_away, meanwhile) = when_away(redis);
    let told = Told {
        health: Arc::clone(health),
        metrics: metrics.clone(),
        meanwhile,
    };
    metrics.show_store(false);
    let config = SharedConfig::new(limits)
        .with_timeout(redis.timeout)
        .with_when_away(when_away);
    let limiter = SharedLimiter::new(store, &config, Arc::clone(random), Some(Arc::new(told)));
    let limiter = limiter.map_err(|source| unusable(source.into()))?;
    let (upkeep, ends) = oneshot::channel();
    let shared = Shared { limiter, upkeep };
    let limit = RateLimit::new(Counter::Redis(Box::new(shared)), metrics.clone());
    Ok(Some((limit, Some((driver, ends)))))
}

/// The rate limit of a node that runs; its store is reached from now on.
pub(super) fn start(
    config: &NodeConfig,
    own: &Own,
    told: (&Arc<Board>, &LimitMetrics),
    (tls, tasks): (&Arc<TlsStore>, &Tasks),
) -> Result<Option<RateLimit>, Error> {
    let random: Arc<dyn Random> = Arc::<SplitMix64>::clone(&own.seed);
    let limit = config.resilience.rate_limit.as_ref();
    if let Some(CallerLimitConfig {
        rates,
        store: Some(RateLimitStoreConfig::Rls(rls)),
    }) = limit
    {
        let told = Told {
            health: Arc::clone(told.0),
            metrics: told.1.clone(),
            meanwhile: meanwhile(rls),
        };
        told.metrics.show_store(false);
        let metrics = told.metrics.clone();
        let asked = (&own.name, &rates.limits());
        let rls = Rls::new(rls, asked, (tls, tasks), (random, Arc::new(told)));
        let rls = rls.map_err(|source| Error::config("resilience.rate_limit", source))?;
        return Ok(Some(RateLimit::new(Counter::Rls(Box::new(rls)), metrics)));
    }
    let Some((limit, upkeep)) = rate_limit(config, &random, told)? else {
        return Ok(None);
    };
    if let Some((driver, ends)) = upkeep {
        // For as long as there is the limit: also while the node drains.
        tasks.start(async move {
            tokio::select! {
                () = driver.run() => {}
                _ = ends => {}
            }
        });
    }
    Ok(Some(limit))
}

fn meanwhile(rls: &RlsStoreConfig) -> &'static str {
    match rls.when_away {
        RlsWhenAway::Closed => "no request is admitted until it is back",
        RlsWhenAway::Open => "every request is admitted until it is back",
        RlsWhenAway::LocalShare => "this node admits its share of the limit",
    }
}

fn when_away(redis: &RedisStoreConfig) -> (shared::WhenAway, &'static str) {
    match redis.when_away {
        WhenAway::Closed => (
            shared::WhenAway::Closed,
            "no request is admitted until it is back",
        ),
        WhenAway::LocalShare => {
            // The rules of the file ask for it.
            let nodes = redis.nodes.unwrap_or(NonZeroU32::MIN);
            let share = shared::WhenAway::LocalShare { nodes };
            (share, "this node admits its share of the limit")
        }
    }
}

fn store(
    config: &NodeConfig,
    redis: &RedisStoreConfig,
    (limits, random): (&LimitConfig, &Arc<dyn Random>),
) -> Result<(RedisStore, RedisDriver), BoxError> {
    let own = || format!("mesh:limit:{}", config.service.id);
    let mut reached = RedisConfig::new(&*redis.url)
        .with_prefix(redis.prefix.clone().unwrap_or_else(own))
        .with_connect_timeout(redis.connect_timeout);
    let files = (&redis.ca_file, &redis.cert_file, &redis.key_file);
    if let Some(tls) = tls(files, None)? {
        reached = reached.with_tls(tls.client_config(&[])?);
    }
    if let Some(name) = &redis.server_name {
        reached = reached.with_server_name(name);
    }
    if let Some(file) = &redis.password_file {
        reached = reached.with_credentials(redis.username.clone(), password_in(file));
    }
    Ok(RedisStore::new(reached, limits, Arc::clone(random))?)
}
