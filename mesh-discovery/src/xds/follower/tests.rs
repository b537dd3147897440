//! A model of a server, with messages under way in both directions: whatever happens on the way, in the end what was
//! reported is what the server says.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::message::Body;
use super::super::tests::CDS;
use super::super::tests::EDS;
use super::super::tests::assignment;
use super::super::tests::bad_cluster;
use super::super::tests::delta;
use super::super::tests::eds_cluster;
use super::super::tests::static_cluster;
use super::super::tests::whole;
use super::*;

#[derive(Clone, Debug)]
enum Op {
    Want(u8),
    Unwant(u8),
    /// What the cluster of this number is: none, bad, static, or assigned to one of this number.
    Cluster(u8, Option<Kinds>),
    /// What the assignment of this number is: none, bad, or so many endpoints.
    Assignment(u8, Option<u16>),
    /// Lets so many messages arrive.
    Pump(u8),
    /// The stream ends, and another leads to the same server or to one that has never heard of the first.
    Reconnect(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kinds {
    Bad,
    Static(u16),
    Assigned(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        Just(Kinds::Bad),
        (1_u16..4).prop_map(Kinds::Static),
        (0_u8..4).prop_map(Kinds::Assigned),
    ];
    prop_oneof![
        4 => (0_u8..4).prop_map(Op::Want),
        1 => (0_u8..4).prop_map(Op::Unwant),
        4 => (0_u8..4, proptest::option::weighted(0.8, kind)).prop_map(|(name, kind)| Op::Cluster(name, kind)),
        4 => (0_u8..4, proptest::option::weighted(0.8, 0_u16..5)).prop_map(|(name, ports)| Op::Assignment(name, ports)),
        4 => (0_u8..6).prop_map(Op::Pump),
        1 => any::<bool>().prop_map(Op::Reconnect),
    ]
}

/// What one stream knows of the names of one type.
#[derive(Default)]
struct Subscription {
    is_begun: bool,
    names: BTreeSet<String>,
    nonce: u32,
    /// Incremental: versions that the client has, 0 where it knows that there is none.
    known: BTreeMap<String, u32>,
    sent: u32,
}

struct Server {
    is_delta: bool,
    /// Of each type, by name: version and content.
    resources: [BTreeMap<String, (u32, Vec<u8>)>; 2],
    /// Of each type; grows with each change, and begins elsewhere at another server.
    versions: [u32; 2],
    subscriptions: [Subscription; 2],
    responses: VecDeque<Vec<u8>>,
    requests: VecDeque<Request>,
    refusals: Vec<(u32, String)>,
}

const URLS: [&str; 2] = [CDS, EDS];

impl Server {
    fn set(&mut self, index: usize, name: &str, content: Option<Vec<u8>>) {
        self.versions[index] += 1;
        let version = self.versions[index];
        match content {
            Some(content) => {
                drop(self.resources[index].insert(name.to_owned(), (version, content)));
            }
            None => drop(self.resources[index].remove(name)),
        }
        if self.subscriptions[index].is_begun {
            self.push(index);
        }
    }

    fn reconnect(&mut self) {
        self.subscriptions = Default::default();
        self.responses.clear();
        self.requests.clear();
    }

    /// Another server, where the same versions mean something else.
    fn replace(&mut self) {
        for (version, resources) in self.versions.iter_mut().zip(&mut self.resources) {
            *version += 1000;
            for (own, _) in resources.values_mut() {
                *own += 1000;
            }
        }
    }

    fn take(&mut self, request: Request) {
        let index = URLS
            .iter()
            .position(|url| *url == request.type_url)
            .unwrap();
        let subscription = &mut self.subscriptions[index];
        if let Some(refusal) = request.refusal {
            self.refusals.push((self.versions[index], refusal));
        }
        let is_first = !std::mem::replace(&mut subscription.is_begun, true);
        match request.body {
            Body::Whole { version, names } => {
                let names: BTreeSet<_> = names.into_iter().collect();
                if !is_first && request.nonce != subscription.nonce.to_string() {
                    // Overtaken: the client will answer the last response with what it wants.
                    return;
                }
                let is_news = subscription.names != names;
                subscription.names = names;
                let has_all = is_first && version == self.versions[index].to_string();
                if is_news && !has_all {
                    self.push(index);
                }
            }
            Body::Delta {
                subscribe,
                unsubscribe,
                versions,
            } => {
                for (name, version) in versions {
                    subscription.known.insert(name, version.parse().unwrap());
                }
                subscription.names.extend(subscribe);
                for name in unsubscribe {
                    subscription.names.remove(&name);
                    subscription.known.remove(&name);
                }
                self.push(index);
            }
        }
    }

    /// Says what the client does not have, or all.
    fn push(&mut self, index: usize) {
        let subscription = &mut self.subscriptions[index];
        let have: BTreeMap<_, _> = self.resources[index]
            .iter()
            .filter(|(name, _)| subscription.names.contains(*name))
            .collect();
        subscription.nonce += 1;
        let nonce = subscription.nonce.to_string();
        if !self.is_delta {
            subscription.sent = self.versions[index];
            let resources: Vec<_> = have.values().map(|(_, content)| content.clone()).collect();
            let version = self.versions[index].to_string();
            self.responses
                .push_back(whole(URLS[index], &version, &nonce, &resources));
            return;
        }
        let new: Vec<_> = have
            .iter()
            .filter(|(name, (version, _))| subscription.known.get(name.as_str()) != Some(version))
            .map(|(name, (version, content))| (name.as_str(), *version, content.clone()))
            .collect();
        let gone: Vec<_> = subscription
            .names
            .iter()
            .filter(|name| !have.contains_key(name) && subscription.known.get(*name) != Some(&0))
            .cloned()
            .collect();
        if new.is_empty() && gone.is_empty() {
            return;
        }
        for (name, version, _) in &new {
            subscription.known.insert((*name).to_owned(), *version);
        }
        subscription
            .known
            .extend(gone.iter().map(|name| (name.clone(), 0)));
        let shown: Vec<_> = new
            .iter()
            .map(|(_, version, _)| version.to_string())
            .collect();
        let resources: Vec<_> = new
            .into_iter()
            .zip(&shown)
            .map(|((name, _, content), version)| (name, version.as_str(), content))
            .collect();
        let gone: Vec<_> = gone.iter().map(String::as_str).collect();
        self.responses
            .push_back(delta(URLS[index], &nonce, &resources, &gone));
    }
}

/// The client, and what was reported of each service: its ports, and whether that is in doubt.
struct World {
    follower: Follower,
    server: Server,
    now: Instant,
    seen: BTreeMap<String, (Option<Vec<u16>>, bool)>,
}

impl World {
    fn new(is_delta: bool) -> Self {
        let mut follower = Follower::new(is_delta, Duration::from_secs(15));
        follower.begin_stream(false);
        let server = Server {
            is_delta,
            resources: Default::default(),
            versions: [1, 1],
            subscriptions: Default::default(),
            responses: VecDeque::new(),
            requests: VecDeque::new(),
            refusals: Vec::new(),
        };
        let now = tokio::time::Instant::now().into_std();
        Self {
            follower,
            server,
            now,
            seen: BTreeMap::new(),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Want(name) => {
                self.seen.entry(name.to_string()).or_insert((None, false));
                self.follower.want(&name.to_string());
            }
            Op::Unwant(name) => {
                self.seen.remove(&name.to_string());
                self.follower.unwant(&name.to_string());
            }
            Op::Cluster(name, kind) => {
                let name = name.to_string();
                let content = kind.map(|kind| match kind {
                    Kinds::Bad => bad_cluster(&name),
                    Kinds::Static(ports) => static_cluster(&name, &list(ports)),
                    Kinds::Assigned(to) => eds_cluster(&name, &format!("to-{to}")),
                });
                self.server.set(0, &name, content);
            }
            // A state of the world has no words for an assignment that is gone.
            Op::Assignment(_, None) if !self.server.is_delta => {}
            Op::Assignment(name, ports) => {
                let name = format!("to-{name}");
                let content = ports.map(|ports| match ports {
                    // A bad one: port 0.
                    0 => assignment(&name, &[0]),
                    ports => assignment(&name, &list(ports)),
                });
                self.server.set(1, &name, content);
            }
            Op::Pump(count) => {
                for _ in 0..count {
                    self.pump();
                }
            }
            Op::Reconnect(is_same_server) => {
                self.follower.end_stream(true);
                for (_, is_doubted) in self.seen.values_mut() {
                    *is_doubted = true;
                }
                self.server.reconnect();
                if !is_same_server {
                    self.server.replace();
                }
                self.follower.begin_stream(is_same_server);
            }
        }
        self.listen();
    }

    /// One message in each direction; false when there was none.
    fn pump(&mut self) -> bool {
        if let Some(request) = self.follower.next_request(self.now) {
            self.server.requests.push_back(request);
        }
        let mut is_news = false;
        if let Some(request) = self.server.requests.pop_front() {
            self.server.take(request);
            is_news = true;
        }
        if let Some(bytes) = self.server.responses.pop_front() {
            self.follower
                .take(self.now, &bytes, &mut Ignored::default())
                .unwrap();
            is_news = true;
        }
        self.listen();
        is_news
    }

    fn listen(&mut self) {
        for (name, report) in self.follower.take_reports() {
            let Some((ports, is_doubted)) = self.seen.get_mut(&name) else {
                continue;
            };
            *is_doubted = matches!(report, Report::Refused(_));
            match report {
                Report::Found(found) => {
                    let endpoints = found.endpoints.iter();
                    *ports = Some(endpoints.map(|endpoint| endpoint.port).collect());
                }
                Report::Absent => *ports = Some(Vec::new()),
                Report::Confirmed | Report::Refused(_) => {}
            }
        }
    }

    /// What must have been reported of a service in the end: its ports, or none where that is open; and whether what the
    /// server says is refused.
    fn expected(&self, name: &str) -> (Option<Vec<u16>>, bool) {
        let [clusters, assignments] = &self.server.resources;
        let Some((_, cluster)) = clusters.get(name) else {
            return (Some(Vec::new()), false);
        };
        match cluster::decode(cluster, &mut Ignored::default()) {
            Err(_) => (None, true),
            Ok(Cluster::Inline(assignment)) => (Some(ports(&assignment)), false),
            Ok(Cluster::Assigned(to)) => match assignments.get(&to) {
                None => (Some(Vec::new()), false),
                Some((_, content)) => match assignment::decode(content, &mut Ignored::default()) {
                    Ok(assignment) => (Some(ports(&assignment)), false),
                    Err(_) => (None, true),
                },
            },
        }
    }
}

fn list(count: u16) -> Vec<u16> {
    (1..=count).collect()
}

fn ports(assignment: &Assignment) -> Vec<u16> {
    assignment
        .endpoints
        .iter()
        .map(|endpoint| endpoint.port)
        .collect()
}

#[test]
fn what_was_said_holds_while_the_stream_lives_and_no_longer() {
    for is_delta in [false, true] {
        let mut world = World::new(is_delta);
        for op in [
            Op::Want(0),
            Op::Want(1),
            Op::Cluster(0, Some(Kinds::Assigned(0))),
            Op::Assignment(0, Some(2)),
            Op::Cluster(1, Some(Kinds::Bad)),
            Op::Pump(9),
        ] {
            world.apply(&op);
        }
        world.listen();
        world.follower.reaffirm();
        let confirmed = vec![("0".to_owned(), Report::Confirmed)];
        assert_eq!(world.follower.take_reports(), confirmed);
        world.follower.end_stream(true);
        world.follower.begin_stream(true);
        world.follower.reaffirm();
        assert_eq!(world.follower.take_reports(), []);
    }
}

proptest! {
    /// D-7 of the reliability targets, without a network: final sets are equal.
    #[test]
    fn in_the_end_what_was_reported_is_what_the_server_says(
        is_delta in any::<bool>(),
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let mut world = World::new(is_delta);
        for op in ops {
            world.apply(&op);
        }
        // Until nothing moves, which also shows that nobody goes on for ever; where a subscription was lost on the way, once
        // more over another stream.
        for _ in 0..2 {
            let mut rounds = 0;
            while world.pump() {
                rounds += 1;
                prop_assert!(rounds < 200, "they never stop talking");
            }
            world.now += Duration::from_mins(1);
            world.follower.expire(world.now);
            world.listen();
            if world.follower.needs_stream() {
                world.apply(&Op::Reconnect(true));
            }
        }
        for (name, (seen, is_doubted)) in &world.seen {
            let (expected, is_refused) = world.expected(name);
            prop_assert_eq!(*is_doubted, is_refused, "{}", name);
            if let Some(expected) = expected {
                prop_assert_eq!(seen.as_ref(), Some(&expected), "{}", name);
            }
        }
    }

    // threat 51
    #[test]
    fn no_bytes_of_a_server_make_it_fail_or_talk_without_end(
        is_delta in any::<bool>(),
        changes in proptest::collection::vec((any::<bool>(), any::<usize>(), any::<u8>()), 1..20),
        junk in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut world = World::new(is_delta);
        for op in [Op::Want(0), Op::Cluster(0, Some(Kinds::Assigned(0))), Op::Assignment(0, Some(2)), Op::Pump(9)] {
            world.apply(&op);
        }
        prop_assert_eq!(&world.seen["0"], &(Some(vec![1, 2]), false));
        for (is_cluster, at, byte) in changes {
            let (url, name, content) = if is_cluster {
                (CDS, "0", eds_cluster("0", "to-0"))
            } else {
                (EDS, "to-0", assignment("to-0", &[1, 2]))
            };
            let mut bytes = if is_delta {
                delta(url, "n", &[(name, "9", content)], &[])
            } else {
                whole(url, "9", "n", &[content])
            };
            let at = at % bytes.len();
            bytes[at] = byte;
            for bytes in [&bytes, &junk] {
                // An error ends the stream; whatever it was, requests stay as small as what is wanted.
                drop(world.follower.take(world.now, bytes, &mut Ignored::default()));
                while let Some(request) = world.follower.next_request(world.now) {
                    prop_assert!(request.encode(None).len() < 10_000);
                }
            }
            world.listen();
        }
        prop_assert!(world.follower.next_due().is_none_or(|due| due > world.now));
    }
}
