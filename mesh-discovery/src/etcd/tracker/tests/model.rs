//! A small etcd with a slow connection to it, which forgets, breaks and loses its data.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;

use proptest::prelude::*;

use super::kv;
use super::range;
use super::service;
use crate::etcd::messages::Event;
use crate::etcd::messages::KeyValue;
use crate::etcd::messages::WatchOp;
use crate::etcd::messages::WatchResponse;
use crate::etcd::tracker::Step;
use crate::etcd::tracker::Tracker;
use crate::name::ServiceName;

#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Begin(usize),
    End(usize),
    /// A service, an instance and its port.
    Put(usize, u8, u16),
    Delete(usize, u8),
    /// One instance in place of another, at one revision.
    Move(usize, u8, u8),
    Compact,
    /// The data is gone, and the connection with it.
    Wipe,
    Disconnect,
    /// What was shown when the stream was opened counts no more.
    Expire,
    /// etcd answers the question that has waited longest.
    Answer,
    /// etcd sends what is new on one watch, in parts where it says so.
    Send(usize, bool),
    /// The tracker takes so many messages.
    Hear(usize),
}

impl Action {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        let (name, id) = (0..NAMES.len(), 0..4_u8);
        prop_oneof![
            2 => name.clone().prop_map(Self::Begin),
            1 => name.clone().prop_map(Self::End),
            6 => (name.clone(), id.clone(), 1..9_u16).prop_map(|(s, i, p)| Self::Put(s, i, p)),
            4 => (name.clone(), id.clone()).prop_map(|(s, i)| Self::Delete(s, i)),
            2 => (name, id.clone(), id).prop_map(|(s, a, b)| Self::Move(s, a, b)),
            1 => Just(Self::Compact),
            1 => Just(Self::Wipe),
            1 => Just(Self::Disconnect),
            1 => Just(Self::Expire),
            4 => Just(Self::Answer),
            6 => (0..4_usize, any::<bool>()).prop_map(|(w, parts)| Self::Send(w, parts)),
            6 => (1..4_usize).prop_map(Self::Hear),
        ]
    }
}

/// Instances of a service and their ports.
type Contents = BTreeMap<String, u16>;

#[derive(Default)]
struct Store {
    revision: i64,
    compacted: i64,
    keys: BTreeMap<String, (u16, i64)>,
    /// What happened at each revision since the beginning.
    history: Vec<(i64, Vec<Event>)>,
}

pub(super) struct Model {
    tracker: Tracker,
    store: Store,
    /// All that each service ever had.
    truths: HashMap<ServiceName, Vec<Contents>>,
    /// What the tracker told last.
    told: HashMap<ServiceName, Contents>,
    questions: VecDeque<(ServiceName, i64)>,
    /// By id: what the keys begin with, and the revision that is sent next.
    watches: BTreeMap<i64, (Vec<u8>, i64)>,
    messages: VecDeque<WatchResponse>,
    is_expired: bool,
}

impl Model {
    pub(super) fn new() -> Self {
        let mut model = Self {
            tracker: Tracker::new("/mesh/services/"),
            store: Store {
                revision: 1,
                ..Store::default()
            },
            truths: HashMap::new(),
            told: HashMap::new(),
            questions: VecDeque::new(),
            watches: BTreeMap::new(),
            messages: VecDeque::new(),
            is_expired: false,
        };
        model.remember();
        model
    }

    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Begin(name) => {
                let service = service(NAMES[name]);
                if !self.told.contains_key(&service) {
                    self.told.insert(service.clone(), Contents::new());
                    self.tracker.ask(&service);
                }
            }
            Action::End(name) => {
                let service = service(NAMES[name]);
                self.told.remove(&service);
                self.tracker.end(&service);
            }
            Action::Put(name, id, port) => self.write(&[(key(name, id), Some(port))]),
            Action::Delete(name, id) => self.write(&[(key(name, id), None)]),
            Action::Move(name, from, to) if from != to => {
                self.write(&[(key(name, from), None), (key(name, to), Some(1))]);
            }
            Action::Move(..) => {}
            Action::Compact => self.compact(),
            Action::Wipe => {
                self.store = Store {
                    revision: 1,
                    ..Store::default()
                };
                self.remember();
                self.disconnect();
            }
            Action::Disconnect => self.disconnect(),
            Action::Expire => self.is_expired = true,
            Action::Answer => self.answer(),
            Action::Send(watch, in_parts) => {
                if let Some(id) = self.watches.keys().nth(watch).copied() {
                    self.send(id, in_parts);
                }
            }
            Action::Hear(count) => self.hear(count),
        }
        self.settle();
    }

    /// Lets everything arrive, and compares.
    pub(super) fn finish(&mut self) {
        while !self.questions.is_empty() || !self.messages.is_empty() || self.has_news() {
            self.answer();
            let ids: Vec<_> = self.watches.keys().copied().collect();
            for id in ids {
                self.send(id, false);
            }
            self.hear(usize::MAX);
            self.settle();
        }
        for (service, told) in &self.told {
            assert_eq!(*told, self.contents(service), "{service}");
        }
        assert_eq!(self.watches.len(), self.told.len(), "no watch is left over");
    }

    fn has_news(&self) -> bool {
        let revision = self.store.revision;
        self.watches.values().any(|(_, next)| *next <= revision)
    }

    /// Changes keys at one revision.
    fn write(&mut self, changes: &[(String, Option<u16>)]) {
        let revision = self.store.revision + 1;
        let mut events = Vec::new();
        for (key, port) in changes {
            match port {
                Some(port) => {
                    self.store.keys.insert(key.clone(), (*port, revision));
                    events.push(Event {
                        kind: Event::PUT,
                        kv: Some(kv(key, *port, revision)),
                    });
                }
                None if self.store.keys.remove(key).is_some() => {
                    events.push(Event {
                        kind: Event::DELETE,
                        kv: Some(KeyValue {
                            key: key.clone().into_bytes(),
                            mod_revision: revision,
                            ..KeyValue::default()
                        }),
                    });
                }
                None => {}
            }
        }
        if !events.is_empty() {
            self.store.revision = revision;
            self.store.history.push((revision, events));
            self.remember();
        }
    }

    fn compact(&mut self) {
        self.store.compacted = self.store.revision;
        let compacted = self.store.compacted;
        // Whoever has not been sent what is forgotten is told so.
        let late: Vec<_> = self
            .watches
            .iter()
            .filter(|(_, (_, next))| *next <= compacted)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.watches.remove(&id);
            self.cancel(id, compacted);
        }
    }

    fn cancel(&mut self, watch_id: i64, compact_revision: i64) {
        self.messages.push_back(WatchResponse {
            watch_id,
            canceled: true,
            compact_revision,
            ..WatchResponse::default()
        });
    }

    fn disconnect(&mut self) {
        self.questions.clear();
        self.watches.clear();
        self.messages.clear();
        self.is_expired = false;
        self.tracker.restart();
    }

    fn answer(&mut self) {
        let Some((service, number)) = self.questions.pop_front() else {
            return;
        };
        let prefix = format!("/mesh/services/{service}/");
        let keys = self.store.keys.iter();
        let found = keys
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(key, (port, revision))| kv(key, *port, *revision));
        let answer = range(found.collect(), self.store.revision);
        self.tracker.answered(&service, number, Ok(answer));
    }

    fn send(&mut self, id: i64, in_parts: bool) {
        let (prefix, next) = self.watches[&id].clone();
        for (revision, events) in &self.store.history {
            let events = events.iter().filter(|event| {
                let kv = event.kv.as_ref().unwrap();
                *revision >= next && kv.key.starts_with(&prefix)
            });
            let events: Vec<_> = events.cloned().collect();
            let parts = if in_parts { 1 } else { events.len().max(1) };
            let count = events.len().div_ceil(parts);
            for (index, part) in events.chunks(parts).enumerate() {
                self.messages.push_back(WatchResponse {
                    watch_id: id,
                    fragment: index + 1 < count,
                    events: part.to_vec(),
                    ..WatchResponse::default()
                });
            }
        }
        self.watches.insert(id, (prefix, self.store.revision + 1));
    }

    fn hear(&mut self, count: usize) {
        for _ in 0..count {
            let Some(message) = self.messages.pop_front() else {
                return;
            };
            if let Err(error) = self.tracker.heard(message) {
                assert!(error.to_string().contains("not permit"), "{error}");
                self.disconnect();
            }
        }
    }

    /// Does what the tracker asks for.
    fn settle(&mut self) {
        self.tracker.settle();
        while let Some(step) = self.tracker.next_step() {
            match step {
                Step::Ask(service, number) => self.questions.push_back((service, number)),
                Step::Send(WatchOp::Create(create)) => {
                    let (id, from) = (create.watch_id, create.start_revision);
                    self.messages.push_back(WatchResponse {
                        watch_id: if self.is_expired { -1 } else { id },
                        created: true,
                        canceled: self.is_expired,
                        cancel_reason: "etcdserver: permission denied".to_owned(),
                        ..WatchResponse::default()
                    });
                    if self.is_expired {
                        // It is not there.
                    } else if from <= self.store.compacted {
                        self.cancel(id, self.store.compacted);
                    } else {
                        let before = self.watches.insert(id, (create.key, from));
                        assert!(before.is_none(), "no id is given twice");
                    }
                }
                Step::Send(WatchOp::Cancel(cancel)) => {
                    self.watches.remove(&cancel.watch_id);
                    self.cancel(cancel.watch_id, 0);
                }
                Step::Tell(service) => self.take(service),
                other => panic!("{other:?}"),
            }
        }
    }

    fn take(&mut self, service: ServiceName) {
        let (list, refused) = self.tracker.list(&service);
        assert_eq!(refused.count, 0);
        let told: Contents = list
            .into_iter()
            .map(|endpoint| (endpoint.id, endpoint.port))
            .collect();
        assert!(
            self.truths[&service].contains(&told),
            "{service} never had {told:?}"
        );
        self.told.insert(service, told);
    }

    fn contents(&self, service: &ServiceName) -> Contents {
        let prefix = format!("/mesh/services/{service}/");
        let keys = self.store.keys.iter();
        keys.filter_map(|(key, (port, _))| Some((key.strip_prefix(&prefix)?.to_owned(), *port)))
            .collect()
    }

    fn remember(&mut self) {
        for name in NAMES {
            let service = service(name);
            let contents = self.contents(&service);
            self.truths.entry(service).or_default().push(contents);
        }
    }
}

fn key(name: usize, id: u8) -> String {
    format!("/mesh/services/{}/{id}", NAMES[name])
}

/// One name begins like another.
const NAMES: [&str; 3] = ["orders", "orders-v2", "carts"];
