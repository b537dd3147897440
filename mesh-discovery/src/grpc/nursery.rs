//! The parts of a connection that hyper wants to run by themselves, run by whoever polls the nursery.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::task::Context;
use std::task::Poll;

use futures_util::stream::FuturesUnordered;
use futures_util::stream::StreamExt as _;
use futures_util::task::AtomicWaker;

type Part = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs all its parts; ready when none is left.
pub(super) struct Nursery {
    inbox: Arc<Inbox>,
    running: FuturesUnordered<Part>,
}

/// Adds parts to a nursery. It holds no reference, so that a part which has one does not keep the nursery alive.
#[derive(Clone)]
pub(super) struct Spawner(Weak<Inbox>);

#[derive(Default)]
struct Inbox {
    /// As many as streams were begun since the nursery was polled.
    newcomers: Mutex<Vec<Part>>,
    waker: AtomicWaker,
}

impl Nursery {
    pub(super) fn new() -> Self {
        Self {
            inbox: Arc::default(),
            running: FuturesUnordered::new(),
        }
    }

    pub(super) fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.inbox))
    }
}

impl Future for Nursery {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.inbox.waker.register(cx.waker());
        loop {
            let newcomers = std::mem::take(&mut *self.inbox.newcomers());
            self.running.extend(newcomers);
            match self.running.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => {}
                polled if self.inbox.newcomers().is_empty() => return polled.map(|_none| ()),
                _ => {}
            }
        }
    }
}

impl fmt::Debug for Nursery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Nursery").field(&self.running.len()).finish()
    }
}

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, part: F) {
        // A part of a connection that is gone has nothing left to do.
        if let Some(inbox) = self.0.upgrade() {
            inbox.newcomers().push(Box::pin(part));
            inbox.waker.wake();
        }
    }
}

impl Inbox {
    fn newcomers(&self) -> MutexGuard<'_, Vec<Part>> {
        self.newcomers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
