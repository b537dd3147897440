//! Writes that can be sent again: what gives them ids, and what remembers them.

use std::num::NonZeroU32;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use mesh_crypto::SystemRandom;
use mesh_resilience::ConfigError;
use mesh_resilience::once::OnceConfig;
use mesh_transport::tasks::Tasks;

use crate::config::NodeConfig;
use crate::error::Error;
use crate::stack::once::Memory;
use crate::stack::once::Writes;
use crate::telemetry::Telemetry;

/// What gives ids to writes, where they can be sent again.
pub(super) fn writes(config: &NodeConfig) -> Result<Option<Writes>, Error> {
    let is_on = config.resilience.safe_writes.enabled;
    is_on.then(|| random_bytes().map(Writes::new)).transpose()
}

/// What writes were answered, where they can be sent again.
pub(super) fn memory(
    config: &NodeConfig,
    telemetry: &Telemetry,
    tasks: &Tasks,
) -> Result<Option<Memory>, Error> {
    let (writes, timeout) = (&config.resilience.safe_writes, config.resilience.timeout);
    if !writes.enabled {
        return Ok(None);
    }
    let wrong = |source| Error::config("resilience.safe_writes", source);
    // A memory shorter than callers go on repeating would let most repeats end in doubt.
    let (window, timeout) = (writes.window.as_secs_f64(), timeout.as_secs_f64());
    let longest = Duration::from_hours(24).as_secs_f64();
    ConfigError::check_range("window", window, timeout, longest).map_err(wrong)?;
    let size = |number: NonZeroU32| usize::try_from(number.get()).unwrap_or(usize::MAX);
    let entries = NonZeroUsize::try_from(writes.max_entries).unwrap_or(NonZeroUsize::MAX);
    let kept = OnceConfig::default()
        .with_window(writes.window)
        .with_max_entries(entries)
        .with_max_bytes(size(writes.max_bytes))
        .with_max_answer_bytes(size(writes.max_answer_bytes));
    let runs = (tasks.clone(), config.resilience.timeout);
    let observer = Arc::new(telemetry.once.clone());
    let memory = Memory::new(kept, random_bytes()?, runs, observer);
    memory.map(Some).map_err(wrong)
}

/// What no other node has, and this one not after a restart.
fn random_bytes() -> Result<[u8; 16], Error> {
    let mut bytes = [0; 16];
    mesh_crypto::Random::fill(&SystemRandom::new(), &mut bytes)?;
    Ok(bytes)
}
