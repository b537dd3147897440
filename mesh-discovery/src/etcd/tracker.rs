//! Which service is asked for, watched or neither, and what follows from what etcd says: a state machine without input
//! and output.
//!
//! A service goes through three phases. It is asked for, with a range of all its keys; the answer is true at a revision.
//! A watch of what happened after that revision is created. Then its events come. Whatever goes wrong begins with the
//! first phase again: a revision that is compacted, a connection that broke, an answer that can't be taken.
//!
//! After a break the watch does not go on where it was. That would save a range, and would be wrong after a loss of data:
//! etcd that lost its data and is started again as before is the same cluster by its id, and may be beyond the old
//! revision soon; what it no longer has would then be believed for ever.
//!
//! # Sources
//!
//! etcd, "API guarantees" (watch is ordered, reliable and atomic) and "Interacting with etcd", "Watch", on compacted
//! revisions; `rpc.proto` on `watch_id`, `fragment` and `compact_revision`.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;

use super::Error;
use super::messages::RangeResponse;
use super::messages::WatchCancelRequest;
use super::messages::WatchCreateRequest;
use super::messages::WatchOp;
use super::messages::WatchResponse;
use super::mirror::Fault;
use super::mirror::Mirror;
use crate::endpoint::Endpoint;
use crate::endpoint::MAX_ENDPOINTS_PER_SERVICE;
use crate::endpoint::Refused;
use crate::name::ServiceName;

/// All services of one source.
#[derive(Debug)]
pub(super) struct Tracker {
    /// What all keys begin with.
    prefix: String,
    services: HashMap<ServiceName, Tracked>,
    /// By the ids of the watches that are created or being created.
    watches: HashMap<i64, ServiceName>,
    /// Those that etcd has not confirmed, in the order in which it will.
    unconfirmed: VecDeque<(i64, ServiceName)>,
    /// The last number that was given to a watch or a question; none is given twice.
    last: i64,
    /// Those whose lists have changed since they were told.
    changed: HashSet<ServiceName>,
    steps: VecDeque<Step>,
}

#[derive(Debug)]
struct Tracked {
    phase: Phase,
    mirror: Mirror,
    /// More of the mirror's revision comes.
    is_partial: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Asked for; under this number.
    Asking(i64),
    /// Being created or created; the id of the watch.
    Watching(i64),
    /// Left alone until [`Tracker::ask`].
    Idle,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Step {
    /// Ask for all keys of a service, and give [`Tracker::answered`] this number with the answer.
    Ask(ServiceName, i64),
    /// Send this on the stream of watches.
    Send(WatchOp),
    /// The list of this service is new or known to be the present one.
    Tell(ServiceName),
    /// Nothing is known of this service, because of this; ask again later.
    Refuse(ServiceName, Error),
    /// All that are watched are as they were told.
    Confirm,
}

impl Tracker {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            services: HashMap::new(),
            watches: HashMap::new(),
            unconfirmed: VecDeque::new(),
            last: 0,
            changed: HashSet::new(),
            steps: VecDeque::new(),
        }
    }

    /// What to do next; none where there is nothing.
    pub(super) fn next_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Tells of this service from now on, or begins with it again.
    pub(super) fn ask(&mut self, service: &ServiceName) {
        self.last += 1;
        let asking = Phase::Asking(self.last);
        let tracked = self.services.entry(service.clone()).or_insert(Tracked {
            phase: Phase::Idle,
            mirror: Mirror::default(),
            is_partial: false,
        });
        tracked.is_partial = false;
        let before = std::mem::replace(&mut tracked.phase, asking);
        self.steps.push_back(Step::Ask(service.clone(), self.last));
        self.leave(before);
    }

    /// Tells of this service no more.
    pub(super) fn end(&mut self, service: &ServiceName) {
        if let Some(tracked) = self.services.remove(service) {
            self.leave(tracked.phase);
        }
        self.changed.remove(service);
    }

    /// The connection is another, and knows of nothing.
    pub(super) fn restart(&mut self) {
        self.watches.clear();
        self.unconfirmed.clear();
        self.steps.clear();
        self.changed.clear();
        let services: Vec<_> = self.services.keys().cloned().collect();
        for service in services {
            if let Some(tracked) = self.services.get_mut(&service) {
                tracked.phase = Phase::Idle;
            }
            self.ask(&service);
        }
    }

    /// The answer to the question of that number.
    pub(super) fn answered(
        &mut self,
        service: &ServiceName,
        number: i64,
        answer: Result<RangeResponse, Error>,
    ) {
        let prefix = keys_of(&self.prefix, service).0;
        let Some(tracked) = self.services.get_mut(service) else {
            return;
        };
        if tracked.phase != Phase::Asking(number) {
            return;
        }
        let mirror = answer.and_then(|answer| read(service, prefix, answer));
        match mirror {
            Ok(mirror) => {
                self.last += 1;
                let (prefix, watch) = (keys_of(&self.prefix, service), self.last);
                let create = WatchCreateRequest {
                    key: prefix.0,
                    range_end: prefix.1,
                    start_revision: mirror.revision().saturating_add(1),
                    progress_notify: false,
                    watch_id: watch,
                    fragment: true,
                };
                tracked.mirror = mirror;
                tracked.phase = Phase::Watching(watch);
                self.watches.insert(watch, service.clone());
                self.unconfirmed.push_back((watch, service.clone()));
                self.changed.insert(service.clone());
                self.steps.push_back(Step::Send(WatchOp::Create(create)));
            }
            Err(error) => self.refuse(service, error),
        }
    }

    /// A message on the stream of watches. What it changes is told by [`Self::settle`].
    ///
    /// # Errors
    ///
    /// Where the stream can't be understood; begin a new one.
    pub(super) fn heard(&mut self, message: WatchResponse) -> Result<(), Error> {
        if message.created {
            self.created(&message)?;
        }
        if message.watch_id < 0 {
            self.steps.push_back(Step::Confirm);
            return Ok(());
        }
        let Some(service) = self.watches.get(&message.watch_id).cloned() else {
            // One that was cancelled may still speak. One that was not asked for is of a server that gives out ids itself.
            let is_ours = (1..=self.last).contains(&message.watch_id);
            return if is_ours {
                Ok(())
            } else {
                Err(Error::Unexpected {
                    what: "a watch that was not asked for; it must be of version 3.4 or later",
                })
            };
        };
        if message.canceled {
            self.watches.remove(&message.watch_id);
            self.canceled(&service, &message);
            return Ok(());
        }
        let Some(tracked) = self.services.get_mut(&service) else {
            return Ok(());
        };
        tracked.is_partial = message.fragment;
        for event in message.events {
            match tracked.mirror.apply(event) {
                Ok(false) => {}
                Ok(true) => {
                    self.changed.insert(service.clone());
                }
                Err(fault) => {
                    self.refuse(&service, explain(&service, fault));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Tells what has changed. Call it when nothing more is there to be heard at once.
    pub(super) fn settle(&mut self) {
        let services = &self.services;
        let is_whole = |service: &ServiceName| {
            let tracked = services.get(service);
            tracked.is_some_and(|tracked| !tracked.is_partial)
        };
        let whole = self.changed.extract_if(is_whole);
        self.steps.extend(whole.map(Step::Tell));
    }

    /// The endpoints of a service, and what was left out.
    pub(super) fn list(&self, service: &ServiceName) -> (Vec<Endpoint>, Refused) {
        self.services
            .get(service)
            .map(|tracked| tracked.mirror.list())
            .unwrap_or_default()
    }

    /// Those whose lists are the present ones.
    pub(super) fn watched(&self) -> impl Iterator<Item = &ServiceName> {
        self.watches.values()
    }

    /// What is asked for to learn all of a service: the first key, and the first behind the last.
    pub(super) fn range(&self, service: &ServiceName) -> (Vec<u8>, Vec<u8>) {
        keys_of(&self.prefix, service)
    }

    /// A watch is there, or is not permitted, and then etcd does not say which one. As the same keys were read a moment ago,
    /// it is the token of the stream that has expired, and not the permission that lacks.
    fn created(&mut self, message: &WatchResponse) -> Result<(), Error> {
        let next = self.unconfirmed.pop_front();
        if message.canceled
            && message.compact_revision == 0
            && let Some((_, service)) = next
        {
            return Err(Error::canceled(&service, &message.cancel_reason));
        }
        Ok(())
    }

    fn canceled(&mut self, service: &ServiceName, message: &WatchResponse) {
        if message.compact_revision > 0 {
            self.ask(service);
        } else {
            let reason = &message.cancel_reason;
            self.refuse(service, Error::canceled(service, reason));
        }
    }

    fn refuse(&mut self, service: &ServiceName, error: Error) {
        if let Some(tracked) = self.services.get_mut(service) {
            let before = std::mem::replace(&mut tracked.phase, Phase::Idle);
            tracked.mirror = Mirror::default();
            self.changed.remove(service);
            self.leave(before);
        }
        self.steps.push_back(Step::Refuse(service.clone(), error));
    }

    fn leave(&mut self, phase: Phase) {
        if let Phase::Watching(watch_id) = phase
            && self.watches.remove(&watch_id).is_some()
        {
            let cancel = WatchCancelRequest { watch_id };
            self.steps.push_back(Step::Send(WatchOp::Cancel(cancel)));
        }
    }
}

fn read(service: &ServiceName, prefix: Vec<u8>, answer: RangeResponse) -> Result<Mirror, Error> {
    let header = answer.header.ok_or(Error::Unexpected {
        what: "a range without a revision",
    })?;
    let count = usize::try_from(answer.count).unwrap_or(usize::MAX);
    if count > MAX_ENDPOINTS_PER_SERVICE {
        return Err(explain(service, Fault::TooMany(count)));
    }
    Mirror::new(prefix, answer.kvs, header.revision).map_err(|fault| explain(service, fault))
}

fn explain(service: &ServiceName, fault: Fault) -> Error {
    match fault {
        Fault::TooMany(count) => Error::TooMany {
            service: service.clone(),
            count,
            limit: MAX_ENDPOINTS_PER_SERVICE,
        },
        Fault::TooLarge => Error::TooLarge {
            what: format!("the service {service}"),
        },
        Fault::Foreign => Error::Unexpected {
            what: "an event of another key than is watched",
        },
    }
}

/// The slash behind the name belongs to it, so that `orders` has nothing of `orders-v2`; the byte behind the slash in ASCII is `0`.
fn keys_of(prefix: &str, service: &ServiceName) -> (Vec<u8>, Vec<u8>) {
    let range = [b'/', b'0'].map(|last| {
        let mut key = format!("{prefix}{service}").into_bytes();
        key.push(last);
        key
    });
    let [first, end] = range;
    (first, end)
}

#[cfg(test)]
mod tests;
