//! Telling a registry where one's own service is, and keeping it told.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;

use crate::endpoint::Condition;
use crate::endpoint::Endpoint;
use crate::error::chain;
use crate::name::ServiceName;

/// A future on the heap, so that registries can be trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Any error of a registry.
pub type RegisterError = Box<dyn std::error::Error + Send + Sync>;

/// One's own endpoint, as a registry is to show it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The service.
    pub service: ServiceName,
    /// Where it is; the id must be unique within the registry, and the same after a restart of the same instance.
    pub endpoint: Endpoint,
}

impl Registration {
    /// `endpoint` as one of `service`.
    pub fn new(service: ServiceName, endpoint: Endpoint) -> Self {
        Self { service, endpoint }
    }
}

/// A registry that can be written to.
///
/// Each call is one attempt; [`keep_registered`] repeats them as needed. All may be called again at any time.
pub trait Register: Send + Sync {
    /// Writes the registration, in place of one of the same id.
    fn register<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<(), RegisterError>>;

    /// Tells the registry that the endpoint is alive, and how it does.
    fn renew<'a>(
        &'a self,
        registration: &'a Registration,
        condition: Condition,
    ) -> BoxFuture<'a, Result<Renewed, RegisterError>>;

    /// Takes the registration away; one that is not there is no error.
    fn deregister<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<(), RegisterError>>;

    /// How often [`Self::renew`] must be called: about a third of the time after which the registry would give it up.
    fn renew_every(&self) -> Duration;
}

/// What a registry says to a sign of life.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Renewed {
    /// It knows the registration.
    Kept,
    /// It has forgotten it, as after a loss of its data; register again.
    Forgotten,
}

/// How a registration does.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RegistrationState {
    /// Not yet in the registry.
    #[default]
    Pending,
    /// In the registry.
    Registered,
    /// The registry can't be told; why.
    Failing(String),
    /// Taken away.
    Deregistered,
}

/// Registers, renews, and registers again when the registry has forgotten; when `until` ends, deregisters and ends.
///
/// The pair is how the endpoint does, and where to tell how the registration does. An attempt may take 30 s. Failed ones
/// are repeated after 1 s, doubling up to 10 s, with full jitter from `random`. A new `condition` is told at once. The last
/// step gives up after 5 s: the registry's own time limit does the rest.
///
/// # Cancel safety
///
/// Dropping the future leaves the registration to the registry's time limit.
pub async fn keep_registered(
    registry: &dyn Register,
    registration: &Registration,
    (mut condition, state): (
        watch::Receiver<Condition>,
        &watch::Sender<RegistrationState>,
    ),
    random: &(dyn Fn() -> u64 + Send + Sync),
    until: impl Future<Output = ()> + Send,
) {
    let mut until = std::pin::pin!(until);
    let mut failures: u32 = 0;
    let mut is_registered = false;
    loop {
        let told = *condition.borrow_and_update();
        let attempt = async {
            if !is_registered {
                registry.register(registration).await?;
            }
            match registry.renew(registration, told).await? {
                Renewed::Kept => Ok(true),
                Renewed::Forgotten => Ok(false),
            }
        };
        let outcome: Result<bool, RegisterError> = tokio::select! {
            biased;
            () = &mut until => break,
            outcome = tokio::time::timeout(ATTEMPT, attempt) => {
                outcome.unwrap_or_else(|elapsed| Err(elapsed.into()))
            }
        };
        let pause = match outcome {
            Ok(true) => {
                (is_registered, failures) = (true, 0);
                state.send_replace(RegistrationState::Registered);
                registry.renew_every()
            }
            Ok(false) => {
                failures = failures.saturating_add(1);
                is_registered = false;
                state.send_replace(RegistrationState::Pending);
                backoff(failures, random())
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                // What failed may have been a registry that comes back without its data.
                is_registered = false;
                let failing = RegistrationState::Failing(chain(&*error));
                let is_news = state.send_if_modified(|state| {
                    let is_news = *state != failing;
                    *state = failing;
                    is_news
                });
                if is_news {
                    tracing::warn!(service = %registration.service, error = %chain(&*error), "the registry can't be told where we are");
                }
                backoff(failures, random())
            }
        };
        tokio::select! {
            biased;
            () = &mut until => break,
            changed = condition.changed(), if is_registered => {
                if changed.is_err() {
                    // Nobody is left who could change it.
                    tokio::select! {
                        () = &mut until => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
    let gone = tokio::time::timeout(FAREWELL, registry.deregister(registration)).await;
    match gone {
        Ok(Ok(())) => {
            state.send_replace(RegistrationState::Deregistered);
        }
        Ok(Err(error)) => {
            tracing::warn!(service = %registration.service, error = %chain(&*error), "the registry can't be told that we go");
        }
        Err(_elapsed) => {
            tracing::warn!(service = %registration.service, "the registry did not take our farewell in time");
        }
    }
}

/// Full jitter, so that a thousand nodes do not come back at the same moment.
fn backoff(failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = FIRST_BACKOFF
        .saturating_mul(1 << doublings)
        .min(MAX_BACKOFF);
    let thousandths = u32::try_from(random % 1000).unwrap_or_default();
    (full * thousandths / 1000).max(SHORTEST)
}

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_millis(100);
/// Longer than any registrar of this crate lets a request take.
const ATTEMPT: Duration = Duration::from_secs(30);
const FAREWELL: Duration = Duration::from_secs(5);
