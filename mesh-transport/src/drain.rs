//! Shutting down without losing a request: first say so, then stop, then wait.

use tokio::sync::watch;

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Phase {
    /// Normal work.
    Running,
    /// New work is still taken, but every answer asks its client to go elsewhere.
    Leaving,
    /// No new work; what is in flight finishes.
    Draining,
}

/// Starts the shutdown of everything that holds a [`Drain`] made with it.
#[derive(Debug)]
pub struct DrainSignal(watch::Sender<Phase>);

/// Tells its holder of the shutdown; the shutdown waits until every holder has dropped it.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<Phase>);

/// A signal and the first holder's end of it.
pub fn channel() -> (DrainSignal, Drain) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (DrainSignal(sender), Drain(receiver))
}

impl DrainSignal {
    /// Moves on to `phase`; a phase that has passed is not returned to.
    pub fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = phase > *now;
            if later {
                *now = phase;
            }
            later
        });
    }

    /// Waits until nobody holds a [`Drain`] any more.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn drained(&self) {
        self.0.closed().await;
    }

    /// How many hold a [`Drain`].
    pub fn holders(&self) -> usize {
        self.0.receiver_count()
    }

    /// One more holder's end.
    pub fn subscribe(&self) -> Drain {
        Drain(self.0.subscribe())
    }
}

impl Drain {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until `phase` or a later one is entered, or the signal is gone.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn reached(&mut self, phase: Phase) {
        // An error says that the signal is gone, which ends everything as well.
        drop(self.0.wait_for(|now| *now >= phase).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_every_holder_and_never_goes_back() {
        let (signal, mut first) = channel();
        let second = first.clone();
        signal.enter(Phase::Draining);
        signal.enter(Phase::Leaving);
        first.reached(Phase::Leaving).await;
        assert_eq!(second.phase(), Phase::Draining);
        assert_eq!(signal.holders(), 2);
        drop((first, second));
        signal.drained().await;
    }
}
