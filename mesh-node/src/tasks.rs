//! The one place that starts background work, and what all parts of a node share to do so.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use mesh_transport::drain::Drain;
use mesh_transport::drain::Phase;
use mesh_transport::tasks::Tasks;

/// Runs `work` until it ends or draining begins.
pub(crate) fn until_drain(
    tasks: &Tasks,
    mut drain: Drain,
    work: impl Future<Output = ()> + Send + 'static,
) {
    tasks.start(async move {
        tokio::select! {
            () = work => {}
            () = drain.reached(Phase::Draining) => {}
        }
    });
}

/// How work came to its end that should have none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    ByItself,
    Panicked,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByItself => "ended by itself",
            Self::Panicked => "failed by a panic",
        })
    }
}

/// Runs `work`, which has no end, until draining begins; tells `ended` when it ends before that.
pub(crate) fn supervised(
    tasks: &Tasks,
    drain: Drain,
    work: impl Future<Output = ()> + Send + 'static,
    ended: impl Fn(Ended) + Send + 'static,
) {
    let watched = Watched(ended);
    until_drain(tasks, drain, async move {
        work.await;
        (watched.0)(Ended::ByItself);
    });
}

/// Tells of a panic: it is dropped by one, as all that the work holds.
struct Watched<F: Fn(Ended)>(F);

impl<F: Fn(Ended)> Drop for Watched<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)(Ended::Panicked);
        }
    }
}

/// Runs `work` every `period` until draining begins.
pub(crate) fn every(
    tasks: &Tasks,
    drain: Drain,
    period: Duration,
    mut work: impl FnMut() + Send + 'static,
) {
    until_drain(tasks, drain, async move {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            work();
        }
    });
}

#[cfg(test)]
mod tests {
    use mesh_transport::drain;
    use tokio::runtime::Handle;
    use tokio::sync::mpsc;

    use super::*;

    async fn end_of(work: impl Future<Output = ()> + Send + 'static) -> Option<Ended> {
        let (told, mut heard) = mpsc::channel(2);
        let (signal, drain) = drain::channel();
        let tell = move |how| told.try_send(how).unwrap();
        supervised(&Tasks::new(Handle::current()), drain, work, tell);
        tokio::task::yield_now().await;
        signal.enter(Phase::Draining);
        heard.recv().await
    }

    #[tokio::test]
    async fn work_that_ends_or_panics_before_draining_is_told_of_and_work_that_is_stopped_is_not() {
        assert_eq!(end_of(async {}).await, Some(Ended::ByItself));
        let broken = async { assert!(std::env::args().count() == 0, "a driver's bug") };
        assert_eq!(end_of(broken).await, Some(Ended::Panicked));
        assert_eq!(end_of(std::future::pending()).await, None);
    }
}
