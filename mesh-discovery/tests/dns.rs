//! The source against a real name server, and against one of the test that answers as no server should.

#![cfg(feature = "dns")]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::rdata::CNAME;
use hickory_resolver::proto::rr::rdata::SOA;
use hickory_resolver::proto::rr::rdata::SRV;
use mesh_discovery::AddressRules;
use mesh_discovery::Discover as _;
use mesh_discovery::Endpoints;
use mesh_discovery::Registry;
use mesh_discovery::RegistryConfig;
use mesh_discovery::ServiceName;
use mesh_discovery::Staleness;
use mesh_discovery::Standing;
use mesh_discovery::Watch;
use mesh_discovery::dns;
use support::knot::Knot;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::UdpSocket;
use tokio::time::Instant;

mod support;

fn orders() -> ServiceName {
    ServiceName::parse("orders").unwrap()
}

/// Short times, as the tests' zone has.
fn config(servers: &[SocketAddr]) -> dns::Config {
    let mut config = dns::Config::new("_mesh._tcp.{service}.mesh.test");
    config.servers = servers.to_vec();
    config.min_ttl = Duration::from_secs(1);
    config.timeout = Duration::from_millis(500);
    config
}

#[expect(
    clippy::disallowed_methods,
    reason = "the driver runs beside the test until its runtime ends"
)]
fn start(config: dns::Config) -> Registry {
    let (registry, driver) =
        dns::source(config, Arc::new(|| 7), RegistryConfig::new("dns")).unwrap();
    drop(tokio::task::spawn(driver));
    registry
}

/// Waits until the list is as `is` wants it.
async fn until(watch: &mut Watch, limit: Duration, is: impl Fn(&Endpoints) -> bool) -> Endpoints {
    let reached = async {
        while !is(watch.latest()) {
            watch.changed().await.unwrap();
        }
    };
    let is_reached = tokio::time::timeout(limit, reached).await.is_ok();
    assert!(is_reached, "{:?}", watch.latest());
    watch.latest().clone()
}

fn rows(endpoints: &Endpoints) -> Vec<String> {
    endpoints
        .iter()
        .map(|endpoint| format!("{endpoint} {} {}", endpoint.priority, endpoint.weight))
        .collect()
}

fn failure(registry: &Registry) -> String {
    let report = registry.reports(&orders()).remove(0);
    report.failure.unwrap_or_default().to_string()
}

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_service_is_where_its_srv_records_and_the_addresses_of_their_targets_are() {
    let dir = TempDir::new().unwrap();
    let records = "\
_mesh._tcp.orders SRV 10 60 50051 a
_mesh._tcp.orders SRV 10 20 50052 b
_mesh._tcp.orders SRV 20 0 50053 c
a A 10.0.0.1
a AAAA 2001:db8::1
b CNAME d
d A 10.0.0.2
c A 10.0.0.3";
    let Some(knot) = Knot::start(records, dir.path()) else {
        return;
    };
    let source = start(config(&[knot.address().parse().unwrap()]));
    let mut watch = source.watch(&orders());
    let endpoints = until(&mut watch, LONG, |list| !list.is_empty()).await;
    assert_eq!(endpoints.standing(), Standing::Fresh);
    assert_eq!(
        rows(&endpoints),
        [
            "10.0.0.1:50051 10 3000",
            "10.0.0.2:50052 10 2000",
            "10.0.0.3:50053 20 1",
            "[2001:db8::1]:50051 10 3000",
        ]
    );
    assert_eq!(endpoints[0].metadata["dns_target"], "a.mesh.test");
    assert_eq!(endpoints[0].source.as_deref(), Some("dns"));
    // What is in no zone is not there, and what is in the zone and has no such record neither.
    for name in ["payments", "ns"] {
        let mut watch = source.watch(&ServiceName::parse(name).unwrap());
        let resolved = tokio::time::timeout(LONG, watch.resolved()).await.unwrap();
        assert_eq!(resolved.unwrap().standing(), Standing::Absent);
    }
}

#[tokio::test]
async fn a_change_is_seen_a_second_after_the_ttl_at_the_latest() {
    let dir = TempDir::new().unwrap();
    let zone =
        |address: &str| format!("_mesh._tcp.orders SRV 1 1 80 a\na A {address}\nb A 10.0.0.9");
    let Some(mut knot) = Knot::start(&zone("10.0.0.1"), dir.path()) else {
        return;
    };
    let source = start(config(&[knot.address().parse().unwrap()]));
    let mut watch = source.watch(&orders());
    until(&mut watch, LONG, |list| !list.is_empty()).await;
    for round in 2..6 {
        let address = format!("10.0.0.{round}");
        knot.publish(&zone(&address));
        let began = Instant::now();
        until(&mut watch, LONG, |list| {
            list.iter().any(|one| one.host.to_string() == address)
        })
        .await;
        let took = began.elapsed();
        assert!(took <= Duration::from_secs(2), "{took:?}");
    }
}

#[tokio::test]
async fn a_service_that_appears_is_seen_when_it_is_no_longer_known_to_be_missing() {
    let dir = TempDir::new().unwrap();
    let Some(mut knot) = Knot::start("", dir.path()) else {
        return;
    };
    let source = start(config(&[knot.address().parse().unwrap()]));
    let mut watch = source.watch(&orders());
    watch.resolved().await.unwrap();
    assert_eq!(watch.latest().standing(), Standing::Absent);
    knot.publish("_mesh._tcp.orders SRV 1 1 80 a\na A 10.0.0.1");
    let began = Instant::now();
    until(&mut watch, LONG, |list| !list.is_empty()).await;
    // The zone's SOA record says one second.
    assert!(began.elapsed() <= Duration::from_secs(2));
}

#[tokio::test]
async fn a_name_without_srv_records_is_its_addresses_with_the_port_of_the_configuration() {
    let dir = TempDir::new().unwrap();
    let zone = "orders A 10.0.0.2\norders A 10.0.0.1\norders AAAA 2001:db8::1";
    let Some(mut knot) = Knot::start(zone, dir.path()) else {
        return;
    };
    let mut plain = config(&[knot.address().parse().unwrap()]);
    "{service}.mesh.test".clone_into(&mut plain.template);
    plain.port = Some(50051);
    let source = start(plain);
    let mut watch = source.watch(&orders());
    let endpoints = until(&mut watch, LONG, |list| !list.is_empty()).await;
    let expected = [
        "10.0.0.1:50051 0 33",
        "10.0.0.2:50051 0 33",
        "[2001:db8::1]:50051 0 33",
    ];
    assert_eq!(rows(&endpoints), expected);
    // SRV records count from when they are there.
    knot.publish("orders SRV 1 1 80 a\norders A 10.0.0.2\na A 10.0.0.7");
    until(&mut watch, LONG, |list| {
        list.iter().any(|one| one.to_string() == "10.0.0.7:80")
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_gone_or_frozen_leaves_the_list_stale_and_is_found_again() {
    let dir = TempDir::new().unwrap();
    let zone = "_mesh._tcp.orders SRV 1 1 80 a\na A 10.0.0.1";
    let Some(mut knot) = Knot::start(zone, dir.path()) else {
        return;
    };
    let source = start(config(&[knot.address().parse().unwrap()]));
    let mut watch = source.watch(&orders());
    let first = until(&mut watch, LONG, |list| !list.is_empty()).await;
    let stale = Standing::Stale(Staleness::Unreachable);

    knot.kill();
    let kept = until(&mut watch, LONG, |list| list.standing() == stale).await;
    assert!(Arc::ptr_eq(&kept[0], &first[0]));
    assert!(failure(&source).contains("_mesh._tcp.orders.mesh.test"));
    knot.start_again();
    until(&mut watch, LONG, |list| list.standing() == Standing::Fresh).await;
    assert_eq!(failure(&source), "");

    knot.process().freeze();
    until(&mut watch, LONG, |list| list.standing() == stale).await;
    knot.process().thaw();
    until(&mut watch, LONG, |list| list.standing() == Standing::Fresh).await;
}

#[tokio::test]
async fn another_server_answers_while_the_first_is_silent() {
    let dir = TempDir::new().unwrap();
    let Some(knot) = Knot::start("_mesh._tcp.orders SRV 1 1 80 a\na A 10.0.0.1", dir.path()) else {
        return;
    };
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let refusing = Fake::start(|_| Reply::Code(ResponseCode::Refused)).await;
    let servers = [
        silent.local_addr().unwrap(),
        refusing.address,
        knot.address().parse().unwrap(),
    ];
    let source = start(config(&servers));
    until(&mut source.watch(&orders()), LONG, |list| !list.is_empty()).await;
}

#[tokio::test]
async fn the_servers_of_the_system_are_looked_for_again_when_none_answers() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("resolv.conf");
    let mut system = config(&[]);
    system.resolv_conf.clone_from(&path);
    let source = start(system);
    let watch = source.watch(&orders());
    says(&source, "resolv.conf").await;
    // Nobody answers at either; the port can't be given there.
    for server in ["127.0.0.77", "127.0.0.78"] {
        std::fs::write(&path, format!("nameserver {server}\n")).unwrap();
        says(&source, server).await;
    }
    assert_eq!(watch.current().standing(), Standing::Pending);
}

/// What the server of a test answers.
enum Reply {
    Records(Vec<Record>),
    /// None, with an SOA record.
    Nothing(ResponseCode),
    Code(ResponseCode),
    /// Over UDP only that there is more, over TCP this.
    Truncated(Vec<Record>),
    /// Before the right answer one of another id, one to another question, and one that is none.
    Forged(Vec<Record>),
    /// Bytes in place of a message.
    Bytes(Vec<u8>),
}

/// A name server that answers each question as `answer` says, over UDP and TCP.
struct Fake {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, RecordType)>>>,
}

impl Fake {
    #[expect(
        clippy::disallowed_methods,
        reason = "the server of a test runs beside it"
    )]
    async fn start(
        answer: impl Fn(&(String, RecordType)) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        let over_tcp = Arc::clone(&answer);
        drop(tokio::task::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let question = question(&query);
                seen.lock().unwrap().push(question.clone());
                for datagram in datagrams(&query, answer(&question)) {
                    udp.send_to(&datagram, from).await.unwrap();
                }
            }
        }));
        drop(tokio::task::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                while let Ok(length) = stream.read_u16().await {
                    let mut buffer = vec![0; length.into()];
                    stream.read_exact(&mut buffer).await.unwrap();
                    let query = Message::from_vec(&buffer).unwrap();
                    if let Reply::Truncated(records) = over_tcp(&question(&query)) {
                        let bytes = message(&query, records).to_vec().unwrap();
                        let length = u16::try_from(bytes.len()).unwrap();
                        stream.write_u16(length).await.unwrap();
                        stream.write_all(&bytes).await.unwrap();
                    }
                }
            }
        }));
        Self { address, asked }
    }
}

fn question(query: &Message) -> (String, RecordType) {
    let question = &query.queries[0];
    (
        question.name().to_lowercase().to_ascii(),
        question.query_type(),
    )
}

fn message(query: &Message, records: Vec<Record>) -> Message {
    let mut message = Message::response(query.id, query.op_code);
    message.metadata.recursion_available = true;
    message.add_query(query.queries[0].clone());
    message.add_answers(records);
    message
}

fn datagrams(query: &Message, reply: Reply) -> Vec<Vec<u8>> {
    let message = match reply {
        Reply::Bytes(bytes) => return vec![bytes],
        Reply::Records(records) => message(query, records),
        Reply::Truncated(_) => {
            let mut message = message(query, Vec::new());
            message.metadata.truncation = true;
            message
        }
        Reply::Code(code) => {
            let mut message = message(query, Vec::new());
            message.metadata.response_code = code;
            message
        }
        Reply::Nothing(code) => {
            let mut message = message(query, Vec::new());
            message.metadata.response_code = code;
            let soa = SOA::new(
                name("ns.mesh.test."),
                name("h.mesh.test."),
                1,
                60,
                60,
                60,
                1,
            );
            let soa = Record::from_rdata(name("mesh.test."), 60, RData::SOA(soa));
            message.add_authority(soa);
            message
        }
        Reply::Forged(records) => {
            let evil = vec![a("orders.mesh.test.", [10, 6, 6, 6])];
            let mut other_id = message(query, evil.clone());
            other_id.metadata.id = query.id.wrapping_add(1);
            let mut other_name = message(query, evil);
            other_name.queries[0].set_name(name("evil.test."));
            let right = message(query, records);
            return [other_id, other_name]
                .iter()
                .map(|message| message.to_vec().unwrap())
                .chain([vec![0], right.to_vec().unwrap()])
                .collect();
        }
    };
    vec![message.to_vec().unwrap()]
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn a(owner: &str, address: [u8; 4]) -> Record {
    Record::from_rdata(name(owner), 1, RData::A(A(address.into())))
}

fn srv(owner: &str, target: &str) -> Record {
    let srv = SRV::new(1, 1, 80, name(target));
    Record::from_rdata(name(owner), 1, RData::SRV(srv))
}

/// Follows the name `orders.mesh.test` at a server of the test.
async fn follow(
    srv: bool,
    answer: impl Fn(&(String, RecordType)) -> Reply + Send + Sync + 'static,
) -> (Registry, Watch, Fake) {
    let fake = Fake::start(answer).await;
    let mut config = config(&[fake.address]);
    "{service}.mesh.test".clone_into(&mut config.template);
    config.srv = srv;
    config.port = (!srv).then_some(80);
    let source = start(config);
    let watch = source.watch(&orders());
    (source, watch, fake)
}

/// Waits until a failure is reported that speaks of `part`.
async fn says(source: &Registry, part: &str) {
    let said = async {
        while !failure(source).contains(part) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let is_said = tokio::time::timeout(LONG, said).await.is_ok();
    assert!(is_said, "{part}: {}", failure(source));
}

/// A first answer like that gives a failure that speaks of `part`, and no list.
async fn fails(srv: bool, part: &str, answer: impl Fn() -> Reply + Send + Sync + 'static) {
    let (source, watch, _fake) = follow(srv, move |question| match question.1 {
        RecordType::AAAA => Reply::Nothing(ResponseCode::NoError),
        _ => answer(),
    })
    .await;
    says(&source, part).await;
    assert_eq!(watch.current().standing(), Standing::Pending);
}

// threat 51
#[tokio::test]
async fn what_is_no_answer_is_a_failure_that_says_why_and_no_empty_list() {
    let many = || {
        (0..1100).map(|n: u16| {
            a(
                "orders.mesh.test.",
                [10, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]],
            )
        })
    };
    let targets = || (0..300).map(|n| srv("orders.mesh.test.", &format!("t{n}.test.")));
    let alias = |owner: &str, target: &str| {
        Record::from_rdata(name(owner), 1, RData::CNAME(CNAME(name(target))))
    };
    tokio::join!(
        fails(false, "Server Failure", || Reply::Code(
            ResponseCode::ServFail
        )),
        fails(true, "Query Refused", || Reply::Code(ResponseCode::Refused)),
        fails(true, "within 500ms", || Reply::Bytes(vec![1, 2, 3])),
        fails(false, "aliases", move || Reply::Records(vec![
            alias("orders.mesh.test.", "b.test."),
            alias("b.test.", "orders.mesh.test.")
        ])),
        fails(false, "no record of that name", || Reply::Records(vec![a(
            "evil.test.",
            [10, 6, 6, 6]
        )])),
        fails(false, "limit of 1000", move || Reply::Truncated(
            many().collect()
        )),
        fails(true, "limit of 256", move || Reply::Truncated(
            targets().collect()
        )),
    );
}

// threat 49
#[tokio::test]
async fn a_name_that_leads_only_where_it_must_not_is_a_failure_and_no_endpoint() {
    for address in [[127, 0, 0, 1], [169, 254, 169, 254], [0, 0, 0, 0]] {
        fails(false, "all refused", move || {
            Reply::Records(vec![a("orders.mesh.test.", address)])
        })
        .await;
    }
    // Beside others it is left out.
    let answer = |question: &(String, RecordType)| match question.1 {
        RecordType::A => Reply::Records(vec![
            a("orders.mesh.test.", [127, 0, 0, 1]),
            a("orders.mesh.test.", [10, 0, 0, 1]),
        ]),
        _ => Reply::Nothing(ResponseCode::NoError),
    };
    let (_source, mut watch, _fake) = follow(false, answer).await;
    let endpoints = until(&mut watch, LONG, |list| !list.is_empty()).await;
    assert_eq!(rows(&endpoints), ["10.0.0.1:80 0 1"]);
    // Where it is listed, it is one like any other.
    let fake = Fake::start(answer).await;
    let mut open = config(&[fake.address]);
    "{service}.mesh.test".clone_into(&mut open.template);
    (open.srv, open.port) = (false, Some(80));
    open.addresses = AddressRules::default();
    open.addresses.allow = vec!["127.0.0.0/8".parse().unwrap()];
    let source = start(open);
    let endpoints = until(&mut source.watch(&orders()), LONG, |list| !list.is_empty()).await;
    assert_eq!(endpoints.len(), 2);
}

// threat 49
#[tokio::test]
async fn forged_answers_before_the_right_one_are_passed_over() {
    let answer = |question: &(String, RecordType)| match question.1 {
        RecordType::A => Reply::Forged(vec![a("orders.mesh.test.", [10, 0, 0, 1])]),
        _ => Reply::Nothing(ResponseCode::NoError),
    };
    let (_source, mut watch, _fake) = follow(false, answer).await;
    let endpoints = until(&mut watch, LONG, |list| !list.is_empty()).await;
    assert_eq!(rows(&endpoints), ["10.0.0.1:80 0 1"]);
}

#[tokio::test]
async fn a_truncated_answer_is_had_over_tcp() {
    let answer = |question: &(String, RecordType)| match question.1 {
        RecordType::SRV => Reply::Truncated(
            (0..200)
                .map(|n| srv("orders.mesh.test.", &format!("t{n}.test.")))
                .collect(),
        ),
        RecordType::A => {
            let digits: String = question.0.chars().filter(char::is_ascii_digit).collect();
            Reply::Records(vec![a(&question.0, [10, 0, 1, digits.parse().unwrap()])])
        }
        _ => Reply::Nothing(ResponseCode::NoError),
    };
    let (_source, mut watch, _fake) = follow(true, answer).await;
    let endpoints = until(&mut watch, LONG, |list| !list.is_empty()).await;
    assert_eq!(endpoints.len(), 200);
}

#[tokio::test]
async fn a_target_that_can_not_be_looked_up_keeps_the_addresses_that_it_had() {
    let is_broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let broken = Arc::clone(&is_broken);
    let answer = move |question: &(String, RecordType)| {
        let is_broken = broken.load(std::sync::atomic::Ordering::Relaxed);
        match (&*question.0, question.1) {
            ("orders.mesh.test.", RecordType::SRV) if is_broken => Reply::Records(vec![
                srv("orders.mesh.test.", "a.test."),
                srv("orders.mesh.test.", "c.test."),
            ]),
            ("orders.mesh.test.", RecordType::SRV) => Reply::Records(vec![
                srv("orders.mesh.test.", "a.test."),
                srv("orders.mesh.test.", "b.test."),
            ]),
            ("a.test.", _) if is_broken => Reply::Code(ResponseCode::ServFail),
            ("a.test.", RecordType::A) => Reply::Records(vec![a("a.test.", [10, 0, 0, 1])]),
            ("b.test.", RecordType::A) => Reply::Records(vec![a("b.test.", [10, 0, 0, 2])]),
            ("c.test.", RecordType::A) => Reply::Records(vec![a("c.test.", [10, 0, 0, 3])]),
            _ => Reply::Nothing(ResponseCode::NoError),
        }
    };
    let (_source, mut watch, _fake) = follow(true, answer).await;
    let endpoints = until(&mut watch, LONG, |list| !list.is_empty()).await;
    assert_eq!(rows(&endpoints), ["10.0.0.1:80 1 1", "10.0.0.2:80 1 1"]);
    is_broken.store(true, std::sync::atomic::Ordering::Relaxed);
    let endpoints = until(&mut watch, LONG, |list| {
        list.iter().any(|one| one.to_string() == "10.0.0.3:80")
    })
    .await;
    assert!(endpoints.iter().any(|one| one.to_string() == "10.0.0.1:80"));
}

#[tokio::test]
async fn a_target_that_is_only_a_dot_says_that_there_is_no_service() {
    let answer = |_: &(String, RecordType)| Reply::Records(vec![srv("orders.mesh.test.", ".")]);
    let (_source, mut watch, fake) = follow(true, answer).await;
    assert_eq!(watch.resolved().await.unwrap().standing(), Standing::Absent);
    let asked = fake.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|(_, kind)| *kind == RecordType::SRV));
}

#[tokio::test]
async fn only_absolute_names_are_asked_for() {
    let (_source, mut watch, fake) = follow(true, |_| Reply::Nothing(ResponseCode::NXDomain)).await;
    watch.resolved().await.unwrap();
    let asked = fake.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|(name, _)| name == "orders.mesh.test."));
}
