//! Telling an agent of Consul where one's own service is.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use super::Client;
use super::Error;
use super::escaped;
use super::exchange::Ask;
use crate::endpoint::Condition;
use crate::host::Host;
use crate::metadata;
use crate::register::BoxFuture;
use crate::register::Register;
use crate::register::RegisterError;
use crate::register::Registration;
use crate::register::Renewed;

/// How an agent is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistrarConfig {
    /// How the agent learns how the endpoint does. Default a sign of life each 5 s that counts for 15.
    pub check: AgentCheck,
    /// After how long in a critical state the agent gives the endpoint up; at least 1 min, and Consul looks each 30 s.
    /// None for never. Default 10 min.
    pub deregister_after: Option<Duration>,
    /// The weight while it warns; 0 for no traffic then. Default the endpoint's.
    pub warning_weight: Option<u16>,
}

/// How an agent learns how an endpoint does. But for the first, the agent asks by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentCheck {
    /// Signs of life, each of which counts for this long.
    Ttl(Duration),
    /// A GET of this URL: 2xx is passing, 429 warning, all else critical.
    Http {
        /// As `http://127.0.0.1:8080/health`.
        url: String,
        /// How often; an answer may take that long too, 10 s at most.
        interval: Duration,
    },
    /// The health protocol of gRPC.
    Grpc {
        /// As `127.0.0.1:50051`, or `127.0.0.1:50051/package.Service` for one of its services.
        target: String,
        /// By TLS, which shows no certificate.
        uses_tls: bool,
        /// How often; an answer may take that long too, 10 s at most.
        interval: Duration,
    },
    /// A connection.
    Tcp {
        /// As `127.0.0.1:8080`.
        address: String,
        /// How often; connecting may take that long too, 10 s at most.
        interval: Duration,
    },
}

impl Default for RegistrarConfig {
    fn default() -> Self {
        Self {
            check: AgentCheck::Ttl(TTL),
            deregister_after: Some(DEREGISTER_AFTER),
            warning_weight: None,
        }
    }
}

impl RegistrarConfig {
    /// With another check.
    #[must_use]
    pub fn with_check(self, check: AgentCheck) -> Self {
        Self { check, ..self }
    }

    /// Given up after another time, or never.
    #[must_use]
    pub fn with_deregister_after(self, deregister_after: Option<Duration>) -> Self {
        Self {
            deregister_after,
            ..self
        }
    }

    /// With a weight of its own while it warns.
    #[must_use]
    pub fn with_warning_weight(self, weight: u16) -> Self {
        Self {
            warning_weight: Some(weight),
            ..self
        }
    }

    fn check(&self) -> Result<(), Error> {
        let (AgentCheck::Ttl(period)
        | AgentCheck::Http {
            interval: period, ..
        }
        | AgentCheck::Grpc {
            interval: period, ..
        }
        | AgentCheck::Tcp {
            interval: period, ..
        }) = &self.check;
        if *period < SHORTEST_CHECK {
            return Err(Error::Setting {
                what: "the time of a check",
                reason: "use at least 1 s",
            });
        }
        if self
            .deregister_after
            .is_some_and(|after| after < SHORTEST_DEREGISTER)
        {
            return Err(Error::Setting {
                what: "the time after which an endpoint is given up",
                reason: "consul takes no less than 1 min",
            });
        }
        Ok(())
    }
}

/// Registers endpoints with an agent, which must be one that lives as long as they do: the one of their machine.
///
/// An endpoint's id is the service id, which the agent keeps unique; its weight, tags, zone, version and other metadata
/// are registered as a [`source`](super::source()) reads them. The agent has the check called `service:ID`. A token needs
/// `service:write` for the service.
///
/// While it is [`Condition::Draining`] the service is in Consul's maintenance mode, so that others see it drain too.
/// Maintenance that somebody else put it into is never touched, other than by [`Self::disable_maintenance`].
#[derive(Debug)]
pub struct Registrar {
    client: Client,
    config: RegistrarConfig,
    /// The ids that were put into maintenance from here because they drain.
    draining: Mutex<HashSet<String>>,
}

impl Registrar {
    /// Registers with the agent that `client` asks.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn new(client: Client, config: RegistrarConfig) -> Result<Self, Error> {
        config.check()?;
        Ok(Self {
            client,
            config,
            draining: Mutex::default(),
        })
    }

    /// Puts a registered endpoint into maintenance, which keeps traffic away until it ends, through restarts too.
    ///
    /// # Errors
    ///
    /// [`Error`]; a status of 404 where the agent does not know it.
    pub async fn enable_maintenance(
        &self,
        registration: &Registration,
        reason: &str,
    ) -> Result<(), Error> {
        let id = escaped(&registration.endpoint.id);
        let reason = escaped(reason);
        let path = format!("/v1/agent/service/maintenance/{id}?enable=true&reason={reason}");
        self.put(path, Bytes::new()).await
    }

    /// Takes a registered endpoint out of maintenance, whoever put it there.
    ///
    /// # Errors
    ///
    /// As [`Self::enable_maintenance`].
    pub async fn disable_maintenance(&self, registration: &Registration) -> Result<(), Error> {
        let id = escaped(&registration.endpoint.id);
        let path = format!("/v1/agent/service/maintenance/{id}?enable=false");
        self.put(path, Bytes::new()).await
    }

    /// As the agent is to have it.
    fn definition(&self, registration: &Registration) -> Value {
        let endpoint = &registration.endpoint;
        let mut meta = metadata::of(endpoint);
        // It has a place of its own.
        meta.remove("weight");
        let weight = endpoint.weight.get();
        let warning = self.config.warning_weight.unwrap_or(weight);
        json!({
            "ID": endpoint.id,
            "Name": registration.service.as_str(),
            "Address": bare(&endpoint.host),
            "Port": endpoint.port,
            "Tags": endpoint.tags,
            "Meta": meta,
            "Weights": { "Passing": weight, "Warning": warning },
            "Check": self.check(registration),
        })
    }

    fn check(&self, registration: &Registration) -> Value {
        let mut check = match &self.config.check {
            AgentCheck::Ttl(ttl) => json!({ "TTL": text(*ttl) }),
            AgentCheck::Http { url, interval } => {
                json!({ "HTTP": url, "Interval": text(*interval) })
            }
            AgentCheck::Grpc {
                target,
                uses_tls,
                interval,
            } => json!({ "GRPC": target, "GRPCUseTLS": uses_tls, "Interval": text(*interval) }),
            AgentCheck::Tcp { address, interval } => {
                json!({ "TCP": address, "Interval": text(*interval) })
            }
        };
        if let Some(interval) = self.config.check.interval() {
            check["Timeout"] = json!(text(interval.min(LONGEST_ANSWER)));
        }
        check["CheckID"] = json!(check_id(registration));
        check["Name"] = json!(format!("health of {}", registration.service));
        // Until the first sign of life nobody knows that it works.
        check["Status"] = json!("critical");
        if let Some(after) = self.config.deregister_after {
            check["DeregisterCriticalServiceAfter"] = json!(text(after));
        }
        check
    }

    async fn write(&self, registration: &Registration) -> Result<(), Error> {
        let definition = Bytes::from(self.definition(registration).to_string());
        self.put("/v1/agent/service/register".to_owned(), definition)
            .await?;
        // A process of the same id may have ended while it drained.
        self.stop_draining(registration).await
    }

    async fn tell(
        &self,
        registration: &Registration,
        condition: Condition,
    ) -> Result<Renewed, Error> {
        let id = &registration.endpoint.id;
        let is_draining = self.draining().contains(id);
        let told = async {
            if condition == Condition::Draining && !is_draining {
                self.enable_maintenance(registration, DRAINING).await?;
                self.draining().insert(id.clone());
            } else if condition != Condition::Draining && is_draining {
                self.stop_draining(registration).await?;
            }
            if !matches!(self.config.check, AgentCheck::Ttl(_)) {
                let path = format!("/v1/agent/service/{}", escaped(id));
                return Ask::get(&self.client, path)
                    .send(&self.client)
                    .await
                    .map(drop);
            }
            let (status, output) = match condition {
                Condition::Passing => ("passing", "it says that it works"),
                // Maintenance keeps traffic away; what it has yet to do, it can do.
                Condition::Draining => ("passing", "it says that it drains"),
                Condition::Warning => ("warning", "it says that somebody should look"),
                Condition::Critical => ("critical", "it says that it does not work"),
            };
            let body = json!({ "Status": status, "Output": output }).to_string();
            let check = escaped(&check_id(registration));
            let path = format!("/v1/agent/check/update/{check}");
            self.put(path, Bytes::from(body)).await
        };
        match told.await {
            Ok(()) => Ok(Renewed::Kept),
            Err(Error::Status {
                status, message, ..
            }) if is_forgotten(status, &message) => {
                self.draining().remove(id);
                Ok(Renewed::Forgotten)
            }
            Err(error) => Err(error),
        }
    }

    /// Ends the maintenance of who drained, and no other.
    async fn stop_draining(&self, registration: &Registration) -> Result<(), Error> {
        let id = &registration.endpoint.id;
        // A JSON string is one for Consul's filters too.
        let filter = format!(
            "CheckID == {}",
            Value::from(format!("_service_maintenance:{id}"))
        );
        let path = format!("/v1/agent/checks?filter={}", escaped(&filter));
        let checks: Checks = self.client.get(&path).await?;
        if checks.values().any(|check| check.notes == DRAINING) {
            self.disable_maintenance(registration).await?;
        }
        self.draining().remove(id);
        Ok(())
    }

    async fn take_away(&self, registration: &Registration) -> Result<(), Error> {
        let id = escaped(&registration.endpoint.id);
        let gone = self.put(format!("/v1/agent/service/deregister/{id}"), Bytes::new());
        match gone.await {
            // What is not there need not go; before 1.12 that was no error.
            Err(Error::Status { status: 404, .. }) | Ok(()) => {}
            Err(error) => return Err(error),
        }
        self.draining().remove(&registration.endpoint.id);
        Ok(())
    }

    async fn put(&self, path: String, body: Bytes) -> Result<(), Error> {
        let ask = Ask::put(&self.client, path, body);
        ask.send(&self.client).await.map(drop)
    }

    fn draining(&self) -> MutexGuard<'_, HashSet<String>> {
        // Nothing panics while the lock is held.
        self.draining.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Register for Registrar {
    fn register<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<(), RegisterError>> {
        Box::pin(async { Ok(self.write(registration).await?) })
    }

    fn renew<'a>(
        &'a self,
        registration: &'a Registration,
        condition: Condition,
    ) -> BoxFuture<'a, Result<Renewed, RegisterError>> {
        Box::pin(async move { Ok(self.tell(registration, condition).await?) })
    }

    fn deregister<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<(), RegisterError>> {
        Box::pin(async { Ok(self.take_away(registration).await?) })
    }

    /// A third of a sign of life's time; 10 s where the agent asks by itself, and this only looks whether it still knows
    /// the endpoint.
    fn renew_every(&self) -> Duration {
        match self.config.check {
            AgentCheck::Ttl(ttl) => ttl / 3,
            _ => LOOK_EVERY,
        }
    }
}

impl AgentCheck {
    /// How often the agent asks, where it does.
    fn interval(&self) -> Option<Duration> {
        match self {
            Self::Ttl(_) => None,
            Self::Http { interval, .. }
            | Self::Grpc { interval, .. }
            | Self::Tcp { interval, .. } => Some(*interval),
        }
    }
}

/// The agent's checks by their id.
type Checks = std::collections::HashMap<String, Check>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(default)]
    notes: String,
}

/// As Consul itself would call it.
fn check_id(registration: &Registration) -> String {
    format!("service:{}", registration.endpoint.id)
}

/// What an agent says of an endpoint or a check that it does not know: 404 since 1.12, 500 with these words before.
fn is_forgotten(status: u16, message: &str) -> bool {
    status == 404 || (status == 500 && message.contains("does not have associated TTL"))
}

/// An IPv6 address stands without brackets.
fn bare(host: &Host) -> String {
    host.ip()
        .map_or_else(|| host.to_string(), |address| address.to_string())
}

/// As Go reads a time.
fn text(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

const TTL: Duration = Duration::from_secs(15);
const DEREGISTER_AFTER: Duration = Duration::from_mins(10);
/// Consul's `check_deregister_interval_min`; it takes anything shorter for this.
const SHORTEST_DEREGISTER: Duration = Duration::from_mins(1);
const SHORTEST_CHECK: Duration = Duration::from_secs(1);
const LONGEST_ANSWER: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// By this reason is known that maintenance is ours.
const DRAINING: &str = "it drains, as mesh-discovery was told";

#[cfg(test)]
mod tests;
