//! Where background work runs: the caller's runtime, handed in, so that no library part spawns by itself.

use std::future::Future;

use tokio::runtime::Handle;

/// Runs the drivers of connections on the runtime it was made with.
#[derive(Clone, Debug)]
pub struct Tasks(Handle);

impl Tasks {
    /// Tasks that run on `handle`'s runtime.
    pub fn new(handle: Handle) -> Self {
        Self(handle)
    }

    /// Starts `future` and lets it run to its end by itself.
    pub fn start<F>(&self, future: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        drop(self.0.spawn(future));
    }

    /// Runs `work` on the thread pool for blocking work, off the request threads.
    ///
    /// # Errors
    ///
    /// When the work panicked or the runtime is shutting down.
    pub async fn blocking<T, F>(&self, work: F) -> Result<T, tokio::task::JoinError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.0.spawn_blocking(work).await
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.start(future);
    }
}
