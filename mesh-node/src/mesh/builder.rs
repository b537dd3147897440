//! Putting an embedded node together and starting it.

use std::future::Future;
use std::sync::Arc;

use mesh_transport::drain;
use mesh_transport::tasks::Tasks;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::SecureMesh;
use crate::config::NodeConfig;
use crate::error::Error;
use crate::methods::HandlerError;
use crate::methods::Methods;
use crate::node::Local;
use crate::node::Node;

/// An embedded node that is not started yet.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    config: NodeConfig,
    local: Local,
    methods: Arc<Methods>,
    max_answer_bytes: usize,
}

impl Builder {
    pub(super) fn new(config: NodeConfig) -> Self {
        Self {
            config,
            local: Local::Embedded,
            methods: Arc::default(),
            max_answer_bytes: MAX_ANSWER_BYTES,
        }
    }

    /// Opens the outbound and admin listeners too, as a sidecar does: for metrics and health pages, and for other
    /// programs on this machine that call through this node. Off by default.
    pub fn with_local_listeners(mut self) -> Self {
        self.local = Local::Listeners;
        self
    }

    /// The largest answer that [`Client::call`](super::Client::call) takes, in bytes; each call holds its answer whole.
    /// Default 4 MiB, as gRPC's for a message.
    pub fn with_max_answer_bytes(mut self, bytes: usize) -> Self {
        self.max_answer_bytes = bytes;
        self
    }

    /// See [`SecureMesh::handle`]. A handler that is registered here is there for the first call.
    pub fn handle<I, O, F, Fut>(self, method: &str, handler: F) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        F: Fn(I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
    {
        self.methods.set(method, handler);
        self
    }

    /// Reads what the configuration names, opens the listeners and starts to serve on the current tokio runtime, which
    /// needs its time and I/O drivers. With `encryption: hybrid` the first start makes an RSA key, which takes a second.
    ///
    /// # Errors
    ///
    /// [`Error`]; then nothing is left open.
    pub async fn start(self) -> Result<SecureMesh, Error> {
        let Self {
            config,
            local,
            methods,
            max_answer_bytes,
        } = self;
        let tasks = Tasks::new(Handle::current());
        let (service, drain_timeout) = (config.service.id.clone(), config.drain.timeout);
        // Boxed: it is large, and whoever waits for it should not be.
        let built = Node::build_with(&config, local, Some(Arc::clone(&methods)));
        let node = Box::pin(built).await?;
        let (shared, addresses) = (Arc::clone(node.shared()), node.addresses().clone());

        let (stop, stopped) = oneshot::channel::<()>();
        let (is_up, up) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        tasks.start(async move {
            let until = async move {
                // First polled once the node serves. When the start was cancelled nobody hears of it, and it stops again.
                if is_up.send(()).is_ok() {
                    drop(stopped.await);
                }
            };
            drop(end.send(node.run(until).await));
        });
        if up.await.is_err() {
            ended.await.unwrap_or(Ok(()))?;
            return Err(Error::missing(
                "the node ended as soon as it was started".to_owned(),
            ));
        }
        Ok(SecureMesh {
            shared,
            methods,
            addresses,
            service,
            started: Instant::now(),
            drain_timeout,
            max_answer_bytes,
            calls: Arc::new(drain::channel().0),
            stop: Some(stop),
            ended: Some(ended),
        })
    }
}

/// gRPC's default for a message.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
