//! What becomes of peers as lists change; nothing is connected to.

use mesh_auth::ca::Authority;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_discovery::Condition;
use mesh_discovery::Endpoint;
use mesh_discovery::Evidence as _;
use mesh_discovery::Publisher;
use mesh_resilience::balance::BalanceConfig;
use mesh_resilience::balance::Endpoint as _;
use mesh_resilience::balance::Label;
use mesh_resilience::balance::OutlierConfig;
use mesh_resilience::balance::Policy;
use mesh_resilience::balance::Subset;
use mesh_resilience::balance::hash;
use mesh_resilience::classify::Outcome;
use mesh_transport::peer::Dialer;
use mesh_transport::peer::PeerConfig;
use mesh_transport::spiffe::SpiffeLeaf;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;
use mesh_transport::tls::TrustBundles;
use mesh_transport::tls::certificates;
use tokio::runtime::Handle;

use super::*;
use crate::adapt::peer_key::Pin;
use crate::node::wall_clock;

/// A service and the source of its endpoints.
struct World {
    endpoints: Arc<Endpoints>,
    publisher: Publisher,
    vitals: Arc<Vitals>,
}

impl World {
    fn new(list: Vec<Endpoint>) -> Self {
        Self::balanced(list, Balancing::default())
    }

    fn balanced(list: Vec<Endpoint>, balancing: Balancing) -> Self {
        let publisher = Publisher::new(found(list));
        let vitals = Arc::new(Vitals::new());
        let links = links();
        let parts = Parts {
            balancing: Arc::new(balancing),
            outliers: Arc::new(Outliers::new(OutlierConfig::default()).unwrap()),
            random: Arc::new(SplitMix64::new(7)),
            vitals: Arc::clone(&vitals),
            checks: None,
        };
        let endpoints = Endpoints::new(service(), links, parts, &publisher.watch());
        Self {
            endpoints: Arc::new(endpoints),
            publisher,
            vitals,
        }
    }

    fn becomes(&self, list: Vec<Endpoint>) {
        self.publisher.publish(found(list));
        self.endpoints.update(&self.publisher.current());
    }

    /// The peer at `port`.
    fn member(&self, port: u16) -> Arc<Member> {
        let list = self.endpoints.current();
        let slot = list.all().find(|slot| slot.endpoint.port == port);
        Arc::clone(&slot.unwrap().member)
    }

    /// Which ports many calls go to.
    fn picked(&self) -> Vec<u16> {
        self.picked_as(&Pick::default())
    }

    fn picked_as(&self, pick: &Pick<'_>) -> Vec<u16> {
        let list = self.endpoints.current();
        let mut ports: Vec<u16> = (0..200)
            .filter_map(|_| Some(list.pick(pick).ok()?.1))
            .map(|call| list.slots[call.index()].endpoint.port)
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

fn links() -> Links {
    Links {
        dialer: dialer(),
        sessions: None,
        handshake_token: None,
        expected: PeerId::new("spiffe://example.org/orders"),
        pins: Arc::default(),
    }
}

fn service() -> ServiceName {
    ServiceName::parse("orders").unwrap()
}

fn dialer() -> Dialer {
    let domain = TrustDomain::parse("example.org").unwrap();
    let (hour, now) = (Duration::from_hours(1), wall_clock());
    let authority = Authority::generate(&domain, hour * 2, now).unwrap();
    let id = SpiffeId::for_service(&domain, "users").unwrap();
    let issued = authority.issue(&id, hour, now, &[]).unwrap();
    let (chain, key) = (issued.certificate_pem, issued.key_pem);
    let credentials = Credentials::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let roots = certificates(authority.certificate_pem().as_bytes()).unwrap();
    let bundles = TrustBundles::new().with_domain("example.org", &roots);
    let clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let leaf = Arc::new(SpiffeLeaf::new());
    let tls = TlsStore::new(leaf, clock, credentials, bundles.unwrap()).unwrap();
    let tasks = Tasks::new(Handle::current());
    Dialer::new(Arc::new(tls), PeerConfig::default(), tasks)
}

fn at(port: u16) -> Endpoint {
    Endpoint::new("10.0.0.7".parse().unwrap(), port)
}

fn with_priority(port: u16, priority: u16) -> Endpoint {
    let mut endpoint = at(port);
    endpoint.priority = priority;
    endpoint
}

fn in_condition(port: u16, condition: Condition) -> Endpoint {
    let mut endpoint = at(port);
    endpoint.condition = condition;
    endpoint
}

fn found(list: Vec<Endpoint>) -> mesh_discovery::Endpoints {
    mesh_discovery::Endpoints::new(list, 1).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_peer_keeps_its_connections_whatever_is_said_of_it_and_loses_them_with_its_identity() {
    let world = World::new(vec![at(1)]);
    let before = world.member(1);
    let mut said = at(1);
    said.id = "another-id".to_owned();
    said.weight = 9.try_into().unwrap();
    said.zone = Some("b".to_owned());
    said.priority = 3;
    said.source = Some("consul".into());
    world.becomes(vec![at(2), said.clone()]);
    assert!(Arc::ptr_eq(&before, &world.member(1)));
    let list = world.endpoints.current();
    let slot = list.all().find(|slot| slot.endpoint.port == 1).unwrap();
    assert_eq!((slot.weight(), slot.endpoint.priority), (9, 3));

    said.spiffe_id = Some("spiffe://example.org/other".to_owned());
    world.becomes(vec![said]);
    let after = world.member(1);
    assert!(!Arc::ptr_eq(&before, &after));
    assert_eq!(after.expected().as_str(), "spiffe://example.org/other");
}

#[tokio::test(start_paused = true)]
async fn a_pin_of_the_configuration_is_not_inherited_by_a_registry() {
    let mut pinned = at(1);
    pinned.public_key_fingerprint = Some("sha256:00".to_owned());
    let world = World::new(vec![pinned.clone()]);
    let before = world.member(1);
    pinned.source = Some("consul".into());
    world.becomes(vec![pinned]);
    assert!(!Arc::ptr_eq(&before, &world.member(1)));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_work_or_leaves_gets_no_new_calls_unless_nobody_else_is_left() {
    let list = |first| {
        vec![
            in_condition(1, first),
            in_condition(2, Condition::Draining),
            in_condition(3, Condition::Critical),
        ]
    };
    let world = World::new(list(Condition::Warning));
    assert_eq!(world.picked(), [1]);
    world.becomes(list(Condition::Critical));
    assert_eq!(world.picked(), [1, 2, 3]);
    assert!(world.endpoints.current().is_panic());
}

#[tokio::test(start_paused = true)]
async fn a_lower_priority_is_for_when_the_higher_can_not() {
    let mut first = with_priority(1, 0);
    let rest = [with_priority(2, 1), with_priority(3, 7)];
    let list = |first: &Endpoint| [std::slice::from_ref(first), &rest[..]].concat();
    let world = World::new(list(&first));
    assert_eq!(world.picked(), [1]);
    // Also for the second attempt of one call.
    let now = world.endpoints.current();
    let other = Pick {
        tried: &[0],
        ..Pick::default()
    };
    let second = now.pick(&other).unwrap().1;
    assert_eq!(now.slots[second.index()].endpoint.port, 2);
    drop(second);
    first.condition = Condition::Critical;
    world.becomes(list(&first));
    assert_eq!(world.picked(), [2]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_one_instance_gets_that_one_or_none() {
    let world = World::new(vec![at(1), at(2), at(3)]);
    let id = world.member(2).id();
    let pick = Pick {
        only: Some(&id),
        ..Pick::default()
    };
    let picked = || {
        let (member, mut call) = world.endpoints.current().pick(&pick)?;
        assert_eq!(member.id(), id);
        call.record(Outcome::Failure, || "it is broken".to_owned());
        Ok::<_, Unpicked>(member.destination().to_owned())
    };
    // Also while it is ejected, and where its registry says that it must get nothing.
    for _ in 0..10 {
        assert_eq!(picked().unwrap(), "10.0.0.7:2");
    }
    assert!(world.member(2).state().is_ejected(now()));
    world.becomes(vec![in_condition(2, Condition::Draining), at(3)]);
    assert_eq!(picked().unwrap(), "10.0.0.7:2");
    world.becomes(vec![at(1), at(3)]);
    assert_eq!(picked().unwrap_err(), Unpicked::Gone);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_subset_gets_one_of_it_also_of_the_lists_that_follow() {
    let version = |port, version: &str| {
        let mut endpoint = at(port);
        endpoint.version = Some(version.to_owned());
        endpoint.tags = vec![format!("tag-{port}")];
        endpoint
            .metadata
            .insert("team".to_owned(), "payments".to_owned());
        endpoint
    };
    let world = World::new(vec![version(1, "v1"), version(2, "v2"), version(3, "v2")]);
    let two = Arc::new(Subset::new().with(Label::Version, "v2"));
    let team = Label::Metadata("team".to_owned());
    let narrow = Arc::new(
        Subset::clone(&two)
            .with(Label::Tag, "tag-3")
            .with(team, "payments"),
    );
    let of = |subset| Pick {
        subset: Some(subset),
        ..Pick::default()
    };
    assert_eq!(world.picked_as(&of(&two)), [2, 3]);
    assert_eq!(world.picked_as(&of(&narrow)), [3]);
    assert_eq!(world.picked(), [1, 2, 3]);
    assert_eq!(world.endpoints.current().subsets().len(), 2);

    world.becomes(vec![version(1, "v1"), version(4, "v2")]);
    assert_eq!(
        world.endpoints.current().subsets().len(),
        2,
        "prepared before a call asks"
    );
    assert_eq!(world.picked_as(&of(&two)), [4]);
    let none = world.endpoints.current().pick(&of(&narrow));
    assert_eq!(none.unwrap_err(), Unpicked::NotInSubset);
    world.becomes(Vec::new());
    let none = world.endpoints.current().pick(&of(&narrow));
    assert_eq!(none.unwrap_err(), Unpicked::NoEndpoints);
}

#[tokio::test(start_paused = true)]
async fn calls_with_one_hash_go_to_one_endpoint_and_elsewhere_only_while_it_is_out() {
    let config = BalanceConfig::default().with_policy(Policy::Maglev);
    let balancing = Balancing {
        config,
        hash_on: None,
    };
    let world = World::balanced((1..=9).map(at).collect(), balancing);
    let ann = Pick {
        hash: Some(hash(b"ann")),
        ..Pick::default()
    };
    let first = world.picked_as(&ann);
    assert_eq!(first.len(), 1);
    assert_eq!(world.picked().len(), 9, "without a hash chance decides");
    let (_, mut call) = world.endpoints.current().pick(&ann).unwrap();
    for _ in 0..5 {
        call.gateway_failed(|| "gone".to_owned());
    }
    let second = world.picked_as(&ann);
    assert!(second.len() == 1 && second != first, "{first:?} {second:?}");
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(world.picked_as(&ann), first);
}

// threat 48
#[tokio::test(start_paused = true)]
async fn who_proves_to_be_somebody_else_is_out_at_once_however_many_they_are() {
    let world = World::new(vec![at(1), at(2), at(3)]);
    let wrong = mesh_transport::Error::WrongPeer {
        destination: "10.0.0.7:1".to_owned(),
        found: "spiffe://example.org/thief".to_owned(),
        expected: "spiffe://example.org/orders".to_owned(),
    };
    let list = world.endpoints.current();
    let mut out = HashSet::new();
    while out.len() < 2 {
        let (_, mut call) = list.pick(&Pick::default()).unwrap();
        let endpoint = Arc::clone(&list.slots[call.index()].endpoint);
        if endpoint.port != 3 {
            call.failed(&wrong);
            assert_eq!(
                world.vitals.status(&service(), &endpoint),
                Status::Unhealthy
            );
            out.insert(endpoint.port);
        }
    }
    assert_eq!(world.picked(), [3]);
    let failure = world.member(1).last_failure().unwrap();
    assert!(failure.reason.starts_with("identity: "), "{failure:?}");
    let healthy = world.vitals.status(&service(), &at(3));
    assert_eq!(healthy, Status::Unknown, "calls alone prove nothing");
}

#[tokio::test(start_paused = true)]
async fn who_is_taken_away_finishes_its_calls_and_who_comes_back_in_time_is_as_before() {
    let world = World::new(vec![at(1)]);
    let watch = world.publisher.watch();
    let leaving = || world.endpoints.changing.lock().leaving.len();
    let member = world.member(1);
    let script = async {
        let call = world.endpoints.current().pick(&Pick::default()).unwrap();
        world.publisher.publish(found(vec![at(2)]));
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(world.picked(), [2]);
        assert_eq!(leaving(), 1, "its call is in flight");

        world.publisher.publish(found(vec![at(1), at(2)]));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(Arc::ptr_eq(&member, &world.member(1)));
        assert_eq!(leaving(), 0);

        world.publisher.publish(found(vec![at(2)]));
        drop(call);
        tokio::time::sleep(LEAVE_AFTER / 2).await;
        assert_eq!(leaving(), 1, "a request may be about to pick it");
        tokio::time::sleep(LEAVE_AFTER).await;
        assert_eq!(leaving(), 0);
    };
    tokio::select! {
        () = world.endpoints.follow(watch) => {}
        () = script => {}
    }
}

#[tokio::test(start_paused = true)]
async fn the_list_of_a_source_that_is_gone_stays_and_is_said_to_be_stale() {
    let World {
        endpoints,
        publisher,
        ..
    } = World::new(vec![at(1)]);
    let watch = publisher.watch();
    assert_eq!(endpoints.current().found().standing(), Standing::Fresh);
    drop(publisher);
    endpoints.follow(watch).await;
    let list = endpoints.current();
    let unreachable = Standing::Stale(Staleness::Unreachable);
    assert_eq!((list.found().standing(), list.len()), (unreachable, 1));
}

// threat 48
#[tokio::test]
async fn a_pin_of_the_configuration_binds_also_where_a_registry_says_that_place() {
    let mut links = links();
    let pins = [((at(1).host, 1), "configured".to_owned())];
    links.pins = Arc::new(HashMap::from(pins));
    let mut said = at(1);
    said.source = Some("consul".into());
    for fingerprint in [None, Some("another".to_owned())] {
        said.public_key_fingerprint = fingerprint;
        let pin = links.pin(&said);
        assert!(
            matches!(&pin, Some(Pin::Besides(key)) if key == "configured"),
            "{pin:?}"
        );
    }
    said.port = 2;
    assert!(matches!(links.pin(&said), Some(Pin::Besides(key)) if key == "another"));
    let mut configured = at(1);
    configured.public_key_fingerprint = Some("configured".to_owned());
    assert!(matches!(links.pin(&configured), Some(Pin::Enough(key)) if key == "configured"));
}
