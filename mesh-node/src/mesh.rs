//! A node inside a Rust program: calls go from the program into the mesh and back without a sidecar in between.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mesh_transport::drain::DrainSignal;
use mesh_transport::drain::Phase;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::NodeConfig;
use crate::error::Error;
use crate::methods::HandlerError;
use crate::methods::Methods;
use crate::node::Addresses;
use crate::node::Shared;

mod builder;
mod client;
mod error;
mod figures;

pub use self::builder::Builder;
pub use self::client::Client;
pub use self::error::CallError;
pub use self::figures::AuditStats;
pub use self::figures::Health;
pub use self::figures::HealthStatus;
pub use self::figures::ServiceHealth;
pub use self::figures::Stats;

/// A node that is part of this program: it answers calls with the program's own handlers and makes calls for it, with
/// the identity, encryption, policy, resilience and records that a sidecar has.
///
/// ```no_run
/// use std::path::Path;
///
/// use mesh_node::SecureMesh;
/// use mesh_node::config::{Environment, NodeConfig};
///
/// # async fn program() -> Result<(), Box<dyn std::error::Error>> {
/// let config = NodeConfig::load(Path::new("mesh.yaml"), &Environment::new())?;
/// let mesh = SecureMesh::builder(config)
///     .handle("greet", |name: String| async move { Ok::<_, mesh_node::HandlerError>(format!("hello, {name}")) })
///     .start()
///     .await?;
/// let orders = mesh.connect("order-service")?;
/// let ids: Vec<u64> = orders.call("getOrdersByUser", &"ada").await?;
/// println!("{ids:?}");
/// mesh.shutdown().await?;
/// # Ok(())
/// # }
/// ```
///
/// Dropping it asks the node to stop and waits for nothing; [`SecureMesh::shutdown`] waits for what is in flight.
pub struct SecureMesh {
    shared: Arc<Shared>,
    methods: Arc<Methods>,
    addresses: Addresses,
    service: String,
    started: Instant,
    drain_timeout: Duration,
    max_answer_bytes: usize,
    /// Held by every call of this program that is under way.
    calls: Arc<DrainSignal>,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<Result<(), Error>>>,
}

impl SecureMesh {
    /// Begins to build a node from `config`. `service.app` has no meaning here: the handlers answer in its place.
    pub fn builder(config: NodeConfig) -> Builder {
        Builder::new(config)
    }

    /// A client for `service`. Costs little: make one wherever it is needed, or keep it.
    ///
    /// # Errors
    ///
    /// [`CallError`] with the code `no_route` when no discovery source knows the service; its text names those known. Where
    /// there are registries, they are asked at the first call, which then fails with that code.
    pub fn connect(&self, service: &str) -> Result<Client, CallError> {
        let services = &self.shared.outbound.services;
        let found = services.get(service);
        if found.is_none() && !services.looks_up() {
            return Err(CallError::unknown_service(service, &services.known()));
        }
        let (shared, calls) = (Arc::clone(&self.shared), Arc::clone(&self.calls));
        let name = found.map_or_else(|| Arc::from(service), |found| Arc::clone(&found.name));
        Client::new(shared, name, calls, self.max_answer_bytes)
    }

    /// Answers calls of `method` with `handler`, in place of the handler that it had; JSON in and out.
    ///
    /// The policy judges such a call as `POST /METHOD` to this service. A call without a body gives `null` as input.
    pub fn handle<I, O, F, Fut>(&self, method: &str, handler: F)
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        F: Fn(I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
    {
        self.methods.set(method, handler);
    }

    /// Where this node listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The figures of the admin page `/stats`.
    pub fn stats(&self) -> Stats {
        figures::stats(&self.shared, &self.service, self.started.elapsed())
    }

    /// Whether this node does its work, and how the services do that it calls.
    pub fn health_check(&self) -> Health {
        figures::health(&self.shared)
    }

    /// Leaves the mesh: peers are asked to go elsewhere, no new connection is taken, and what is in flight, calls of
    /// this program included, may finish within `drain.timeout`. Clients that are left over fail with the code
    /// `stopped` from then on.
    ///
    /// # Errors
    ///
    /// [`Error`] when the node could not end in order.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the node goes on draining in the background.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        let deadline = Instant::now() + self.drain_timeout;
        drop(self.stop.take());
        let ended = match self.ended.take() {
            Some(ended) => ended.await.unwrap_or(Ok(())),
            None => Ok(()),
        };
        // Handlers may make calls until the last of them is done, so calls end after handlers.
        self.calls.enter(Phase::Draining);
        if tokio::time::timeout_at(deadline, self.calls.drained())
            .await
            .is_err()
        {
            tracing::warn!("drain timeout passed with calls under way");
        }
        ended
    }
}

impl Drop for SecureMesh {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.calls.enter(Phase::Draining);
    }
}

impl fmt::Debug for SecureMesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureMesh")
            .field("service", &self.service)
            .field("addresses", &self.addresses)
            .field("methods", &self.methods)
            .finish_non_exhaustive()
    }
}

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<SecureMesh>();
    assert_send_sync::<Client>();
};
