//! Where calls go: the own zone as far as it goes, the same endpoint for the same user, new endpoints little by little, and
//! not to who fails.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use serde_json::Value;
use serde_json::json;

use support::mesh::Mesh;
use support::mesh::Node;
use support::process::wait_until;

mod support;

/// An application that counts what it is asked.
struct Counted {
    port: u16,
    requests: Arc<AtomicUsize>,
}

impl Counted {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        // Ends with the process; the system closes what it holds.
        let _serving = thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                let _answering = thread::spawn(move || {
                    while read_head(&mut stream).is_some() {
                        counted.fetch_add(1, Ordering::SeqCst);
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, requests }
    }

    /// How many there were since the last time.
    fn take(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }
}

/// The next message of those that have no body.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        read.push(byte[0]);
    }
    String::from_utf8(read).ok()
}

/// Three nodes of the order service, each before an application of its own, in the zones a, b and b.
struct World {
    mesh: Mesh,
    others: [Node; 2],
    apps: [Counted; 3],
}

impl World {
    /// All of them run but the calling one.
    fn new() -> Self {
        let mut mesh = Mesh::new("mtls");
        let mut others = ["second", "third"].map(|name| mesh.node("order-service", name));
        let apps = [Counted::start(), Counted::start(), Counted::start()];
        let policy = json!({ "policy": mesh.order.config["policy"] });
        for (node, app) in others.iter_mut().chain([&mut mesh.order]).zip(&apps) {
            node.configure(policy.clone()).serve(app.port);
            node.spawn();
        }
        let [second, third, first] = apps;
        Self {
            mesh,
            others,
            apps: [first, second, third],
        }
    }

    fn services(&self) -> Vec<Value> {
        let [second, third] = &self.others;
        let nodes = [(&self.mesh.order, "a"), (second, "b"), (third, "b")];
        nodes
            .iter()
            .map(|(node, zone)| {
                json!({ "id": "order-service", "host": "127.0.0.1", "port": node.inbound, "zone": zone })
            })
            .collect()
    }

    /// Starts the calling node with these changes, and endpoints that are not checked.
    fn start(&mut self, changes: Value) {
        let sources = json!([ { "mode": "static", "services": self.services() } ]);
        self.mesh.user.configure(json!({
            "discovery": { "sources": sources, "health_check": { "protocol": "none" } },
        }));
        self.mesh.user.configure(changes);
        for node in &mut self.others {
            node.wait_ready();
        }
        self.mesh.start_rest();
    }

    /// Makes so many calls one after the other, all of which must be answered with 200, and says where they went.
    #[track_caller]
    fn calls(&self, count: usize, user: impl Fn(usize) -> String) -> [usize; 3] {
        for app in &self.apps {
            app.take();
        }
        let mut stream = TcpStream::connect(("127.0.0.1", self.mesh.user.outbound)).unwrap();
        for number in 0..count {
            let user = user(number);
            let head = format!("GET / HTTP/1.1\r\nhost: order-service\r\nx-user: {user}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let answer = read_head(&mut stream).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{number}: {answer}");
        }
        let counts = [&self.apps[0], &self.apps[1], &self.apps[2]].map(Counted::take);
        assert_eq!(
            counts.iter().sum::<usize>(),
            count,
            "each was executed once"
        );
        counts
    }

    #[track_caller]
    fn page(&self) -> Value {
        let page = self.mesh.user.admin("/services/order-service");
        page.expect(200).json()
    }

    /// What the page says of the node at that place.
    #[track_caller]
    fn endpoint(&self, index: usize) -> Value {
        let port = self.services()[index]["port"].clone();
        let address = format!("127.0.0.1:{port}");
        let page = self.page();
        let mut list = page["endpointList"].as_array().unwrap().iter();
        let found = list.find(|endpoint| endpoint["address"] == address);
        found.unwrap_or(&Value::Null).clone()
    }
}

fn nobody(_: usize) -> String {
    "nobody".to_owned()
}

/// R-1 in short form: one of three is killed under load, no call that may be repeated fails, and it is ejected.
#[test]
fn a_zone_keeps_what_it_can_take_and_nobody_notices_when_it_is_killed() {
    let mut world = World::new();
    let zone_aware = json!({ "zone_aware": { "factor": 1.0 } });
    world.start(json!({
        "service": { "zone": "a" },
        "resilience": { "load_balancing": zone_aware, "retry": { "initial_delay": "10ms" } },
    }));
    // One of three endpoints, and two zones: two thirds.
    let [first, second, third] = world.calls(600, nobody);
    assert!((340..460).contains(&first), "{first} {second} {third}");
    assert!(second > 50 && third > 50, "{first} {second} {third}");
    let balancing = world.page()["balancing"].clone();
    assert_eq!(balancing["policy"], "least_request");
    assert_eq!(balancing["zone"], "a");
    assert_eq!(balancing["priorities"][0]["shareInZone"], 0.667);

    world.mesh.order.process().kill();
    let [first, second, third] = world.calls(600, nobody);
    assert_eq!(first, 0);
    assert!(second > 200 && third > 200, "{second} {third}");
    let ejected = world.endpoint(0);
    assert_eq!(ejected["state"], "ejected", "{ejected}");
    assert_eq!(ejected["ejection"]["recent"], 1);
    assert_eq!(
        ejected["ejection"]["why"], "consecutive_gateway_failures",
        "{ejected}"
    );
    let balancing = world.page()["balancing"].clone();
    assert_eq!(balancing["priorities"][0]["shareInZone"], 0.0);
    assert_eq!(balancing["priorities"][0]["healthy"], 2);
}

#[test]
fn a_user_stays_at_one_endpoint_and_goes_elsewhere_only_while_that_is_gone() {
    let mut world = World::new();
    world.start(json!({ "resilience": {
        "load_balancing": { "policy": "maglev", "hash_on": { "header": "x-user" } },
        "retry": { "initial_delay": "10ms" },
    } }));
    let user = |number: usize| move |_: usize| format!("user-{number}");
    let home = |number| {
        let counts = world.calls(5, user(number));
        let home = counts.iter().position(|count| *count == 5);
        home.unwrap_or_else(|| panic!("{number} goes to {counts:?}"))
    };
    let before: Vec<usize> = (0..24).map(home).collect();
    for place in 0..3 {
        assert!(before.contains(&place), "{before:?}");
    }
    let spread = world.calls(600, |number| format!("user-{number}"));
    assert!(
        spread.iter().all(|count| (140..260).contains(count)),
        "{spread:?}"
    );

    world.mesh.order.process().kill();
    for (number, home) in before.iter().enumerate() {
        let counts = world.calls(5, user(number));
        assert_eq!(counts[0], 0);
        if *home != 0 {
            assert_eq!(counts[*home], 5, "{number} was at {home}: {counts:?}");
        }
    }
}

#[test]
fn a_new_endpoint_gets_its_share_little_by_little() {
    let mut world = World::new();
    let file = world.mesh.user.dir().join("services.yaml");
    let say = |services: &[Value]| {
        let text = format!("{}\n", json!(services));
        // Renamed into place, so that nobody reads half of it.
        let beside = file.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, &file).unwrap();
    };
    let services = world.services();
    say(&services[..2]);
    let sources = json!([ { "mode": "file", "path": file } ]);
    world.start(json!({
        "discovery": { "sources": sources },
        "resilience": { "load_balancing": { "policy": "random", "slow_start": { "window": "5s" } } },
    }));
    let first = world.calls(200, nobody);
    assert_eq!(first[2], 0);
    wait_until(
        "those that were there from the beginning have their share",
        || world.endpoint(0)["weightFactor"] == 1.0,
    );
    say(&services);
    wait_until("the third is known", || {
        world.endpoint(2)["state"] == "healthy"
    });
    let [_, _, young] = world.calls(400, nobody);
    // It only grows, so that no more than this was due at any moment before.
    let factor = world.endpoint(2)["weightFactor"].as_f64().unwrap();
    let most = 400.0 * factor / (2.0 + factor);
    let young = f64::from(u32::try_from(young).unwrap());
    assert!(young < most * 1.4 + 15.0, "{young}, and at most {most}");
    assert!(factor > 0.99 || young < 110.0, "{young} with {factor}");
    wait_until("it has its share", || {
        world.endpoint(2)["weightFactor"] == 1.0
    });
    let [_, _, grown] = world.calls(400, nobody);
    assert!((90..180).contains(&grown), "{grown}");
}
