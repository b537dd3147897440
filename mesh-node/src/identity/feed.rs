//! Between the driver of a source and who takes what it gets: room for the newest alone.

use std::error::Error;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::identity::Material;
use crate::stack::outbound::chain;

/// Where a driver puts what it gets, and says why it gets nothing.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    slot: Arc<Slot>,
    news: watch::Sender<()>,
}

/// Where it comes out.
#[derive(Debug)]
pub(crate) struct Intake {
    slot: Arc<Slot>,
    news: watch::Receiver<()>,
}

/// What came out.
#[derive(Debug)]
pub(crate) enum News {
    /// An identity, not yet judged.
    Material(Material),
    /// There is something new that is no identity, and why.
    Unfit(String),
    /// The source could not be asked, and says why.
    Failed(String),
    /// The driver has ended; nothing comes any more.
    Ended,
}

#[derive(Debug, Default)]
struct Slot {
    held: Mutex<Held>,
    refusals: Notify,
}

#[derive(Debug, Default)]
struct Held {
    material: Option<Material>,
    failure: Option<News>,
    is_refused: bool,
}

/// A feed and its other end.
pub(crate) fn channel() -> (Feed, Intake) {
    let slot = Arc::new(Slot::default());
    let (told, news) = watch::channel(());
    let feed = Feed {
        slot: Arc::clone(&slot),
        news: told,
    };
    (feed, Intake { slot, news })
}

impl Feed {
    /// Offers an identity in place of one that was not taken yet. It is judged by who takes it.
    pub(crate) fn put(&self, material: Material) {
        *self.slot.held.lock() = Held {
            material: Some(material),
            ..Held::default()
        };
        self.news.send_replace(());
    }

    /// Says that there is something new, and why it can't be read as an identity.
    pub(crate) fn unfit(&self, error: &(dyn Error + 'static)) {
        self.say(News::Unfit(reason(error)));
    }

    /// Says why the source can't be asked at present.
    pub(crate) fn failed(&self, error: &(dyn Error + 'static)) {
        self.say(News::Failed(reason(error)));
    }

    fn say(&self, news: News) {
        self.slot.held.lock().failure = Some(news);
        self.news.send_replace(());
    }

    /// Ready once what was put last has been refused; once for each refusal.
    pub(crate) async fn refused(&self) {
        loop {
            let told = self.slot.refusals.notified();
            if std::mem::take(&mut self.slot.held.lock().is_refused) {
                return;
            }
            told.await;
        }
    }

    /// Ready once nobody takes anything any more.
    pub(super) async fn closed(&self) {
        self.news.closed().await;
    }
}

impl Intake {
    /// The next thing that the driver has to say. Cancel safe.
    pub(crate) async fn next(&mut self) -> News {
        loop {
            {
                let mut held = self.slot.held.lock();
                if let Some(material) = held.material.take() {
                    return News::Material(material);
                }
                if let Some(failure) = held.failure.take() {
                    return failure;
                }
            }
            if self.news.changed().await.is_err() {
                return News::Ended;
            }
        }
    }

    /// Tells the driver that what it put last can't be used.
    pub(crate) fn refuse(&self) {
        self.slot.held.lock().is_refused = true;
        self.slot.refusals.notify_one();
    }
}

fn reason(error: &(dyn Error + 'static)) -> String {
    let mut why = chain(error);
    why.truncate(why.floor_char_boundary(LONGEST_REASON));
    why
}

/// A reason is for people; what others wrote may be long.
const LONGEST_REASON: usize = 1024;

#[cfg(test)]
mod tests;
