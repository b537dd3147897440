//! One's own instance in etcd, under a lease that ends when nothing is heard of it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use super::Client;
use super::Error;
use super::PREFIX;
use super::check_prefix;
use super::messages::Compare;
use super::messages::DeleteRangeRequest;
use super::messages::KeyValue;
use super::messages::LeaseGrantRequest;
use super::messages::LeaseKeepAliveRequest;
use super::messages::LeaseRevokeRequest;
use super::messages::Op;
use super::messages::PutRequest;
use super::messages::RangeRequest;
use super::messages::RequestOp;
use super::messages::Target;
use super::messages::TxnRequest;
use super::messages::TxnResponse;
use super::value;
use crate::endpoint::Condition;
use crate::register::BoxFuture;
use crate::register::Register;
use crate::register::RegisterError;
use crate::register::Registration;
use crate::register::Renewed;

/// How instances are registered.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RegistrarConfig {
    /// What all keys begin with, up to and with the slash before the service. Default `/mesh/services/`.
    pub prefix: String,
    /// How long after its last sign of life an instance is taken away. Default 15 s, 5 s to 1 h, in whole seconds. It is
    /// renewed three times as often.
    pub ttl: Duration,
}

impl Default for RegistrarConfig {
    fn default() -> Self {
        Self {
            prefix: PREFIX.to_owned(),
            ttl: Duration::from_secs(15),
        }
    }
}

impl RegistrarConfig {
    /// With another prefix.
    #[must_use]
    pub fn with_prefix(self, prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            ..self
        }
    }

    /// With another time to live.
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }
}

/// Writes instances into etcd.
///
/// Where two instances have one id, the one that registers later has the key, and a warning says whose it was. The earlier
/// one goes on renewing its lease, and takes the key back when the later one is gone. An instance that comes back after a
/// crash writes over its own key, whose lease need not have ended. A key that somebody deleted by hand is written again at
/// the next renewal.
#[derive(Debug)]
pub struct Registrar {
    client: Client,
    config: RegistrarConfig,
    /// By key.
    held: Mutex<HashMap<Vec<u8>, Held>>,
}

/// What is registered.
#[derive(Clone, Copy, Debug)]
struct Held {
    lease: i64,
    condition: Condition,
    /// Another instance has written the key since.
    is_taken: bool,
}

impl Registrar {
    /// Writes by `client`.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn new(client: Client, config: &RegistrarConfig) -> Result<Self, Error> {
        check_prefix(&config.prefix)?;
        if !(MIN_TTL..=MAX_TTL).contains(&config.ttl) || config.ttl.subsec_nanos() != 0 {
            return Err(Error::Setting {
                name: "the time to live",
                reason: "use 5 s to 1 h in whole seconds",
            });
        }
        Ok(Self {
            client,
            config: config.clone(),
            held: Mutex::default(),
        })
    }

    async fn write(&self, registration: &Registration) -> Result<(), Error> {
        let endpoint = &registration.endpoint;
        endpoint
            .check()
            .map_err(|source| Error::Registration { source })?;
        let key = self.key(registration);
        let condition = self
            .held(&key)
            .map_or(endpoint.condition, |held| held.condition);
        let grant = LeaseGrantRequest {
            ttl: i64::try_from(self.config.ttl.as_secs()).unwrap_or(i64::MAX),
        };
        let lease = self.client.call(grant).await?.id;
        // What was there is read and written over at one revision.
        let request = TxnRequest {
            compare: Vec::new(),
            success: vec![range(&key), put(&key, registration, condition, lease)],
            failure: Vec::new(),
        };
        let answer = self.client.call(request).await?;
        if let Some(before) = found(answer)
            && let Ok(other) = value::read(&endpoint.id, &before.value)
            && !other.is_same_peer(endpoint)
        {
            tracing::warn!(service = %registration.service, id = %endpoint.id, %other, ours = %endpoint,
                "the id of our registration was another instance's; give each instance its own");
        }
        self.hold(
            key,
            Held {
                lease,
                condition,
                is_taken: false,
            },
        );
        Ok(())
    }

    async fn keep(
        &self,
        registration: &Registration,
        condition: Condition,
    ) -> Result<Renewed, Error> {
        let key = self.key(registration);
        let Some(held) = self.held(&key) else {
            return Ok(Renewed::Forgotten);
        };
        let alive = self
            .client
            .call(LeaseKeepAliveRequest { id: held.lease })
            .await?;
        if alive.ttl <= 0 {
            return Ok(self.forget(&key));
        }
        let ours = Compare::new(&key, Target::Lease(held.lease));
        let write = put(&key, registration, condition, held.lease);
        let is_new = condition != held.condition;
        let request = TxnRequest {
            compare: vec![ours],
            success: is_new.then_some(write).into_iter().collect(),
            failure: vec![range(&key)],
        };
        let answer = self.client.call(request).await?;
        let is_taken = !answer.succeeded;
        if is_taken {
            if found(answer).is_none() {
                return Ok(self.forget(&key));
            }
            if !held.is_taken {
                tracing::warn!(service = %registration.service, id = %registration.endpoint.id,
                    "another instance registered under our id; give each instance its own");
            }
        }
        self.hold(
            key,
            Held {
                condition,
                is_taken,
                ..held
            },
        );
        Ok(Renewed::Kept)
    }

    async fn take_away(&self, registration: &Registration) -> Result<(), Error> {
        let key = self.key(registration);
        if let Some(held) = self.held(&key) {
            // The key goes with its lease, unless it is another instance's by now.
            let revoke = LeaseRevokeRequest { id: held.lease };
            match self.client.call(revoke).await {
                Ok(_) => {}
                Err(Error::Refused { code, .. }) if code == "NotFound" => {}
                Err(error) => return Err(error),
            }
            self.forget(&key);
            return Ok(());
        }
        // Registered by an earlier life of this process, if at all.
        let read = TxnRequest {
            success: vec![range(&key)],
            ..TxnRequest::default()
        };
        let Some(there) = found(self.client.call(read).await?) else {
            return Ok(());
        };
        let is_ours = value::read(&registration.endpoint.id, &there.value)
            .is_ok_and(|other| other.is_same_peer(&registration.endpoint));
        if is_ours {
            let unchanged = Compare::new(&key, Target::ModRevision(there.mod_revision));
            let delete = DeleteRangeRequest { key };
            let delete = TxnRequest {
                compare: vec![unchanged],
                success: vec![op(Op::DeleteRange(delete))],
                failure: Vec::new(),
            };
            self.client.call(delete).await?;
        }
        Ok(())
    }

    fn key(&self, registration: &Registration) -> Vec<u8> {
        let Registration {
            service, endpoint, ..
        } = registration;
        format!("{}{service}/{}", self.config.prefix, endpoint.id).into_bytes()
    }

    fn held(&self, key: &[u8]) -> Option<Held> {
        self.table().get(key).copied()
    }

    fn hold(&self, key: Vec<u8>, held: Held) {
        self.table().insert(key, held);
    }

    fn forget(&self, key: &[u8]) -> Renewed {
        self.table().remove(key);
        Renewed::Forgotten
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Held>> {
        // Nothing panics while the lock is held.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
        Box::pin(async move { Ok(self.keep(registration, condition).await?) })
    }

    fn deregister<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<(), RegisterError>> {
        Box::pin(async { Ok(self.take_away(registration).await?) })
    }

    fn renew_every(&self) -> Duration {
        self.config.ttl / 3
    }
}

fn op(op: Op) -> RequestOp {
    RequestOp { op: Some(op) }
}

fn range(key: &[u8]) -> RequestOp {
    op(Op::Range(RangeRequest {
        key: key.to_vec(),
        ..RangeRequest::default()
    }))
}

fn put(key: &[u8], registration: &Registration, condition: Condition, lease: i64) -> RequestOp {
    op(Op::Put(PutRequest {
        key: key.to_vec(),
        value: value::write(&registration.endpoint, condition),
        lease,
    }))
}

/// What the range of a transaction found.
fn found(answer: TxnResponse) -> Option<KeyValue> {
    let ranges = answer.responses.into_iter().filter_map(|part| part.range);
    ranges.flat_map(|range| range.kvs).next()
}

/// Below this a pause of a leader's election could end leases that are renewed in time.
const MIN_TTL: Duration = Duration::from_secs(5);
const MAX_TTL: Duration = Duration::from_hours(1);
