//! Several sources as one, each played by the test.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use mesh_discovery::Combination;
use mesh_discovery::Combined;
use mesh_discovery::CombinedConfig;
use mesh_discovery::Discover;
use mesh_discovery::Driver;
use mesh_discovery::Endpoint;
use mesh_discovery::Endpoints;
use mesh_discovery::Publisher;
use mesh_discovery::ServiceName;
use mesh_discovery::SourceReport;
use mesh_discovery::Staleness;
use mesh_discovery::Standing;
use mesh_discovery::Watch;

/// A source that says what it is told to.
struct Model {
    name: &'static str,
    services: Mutex<HashMap<ServiceName, Arc<Publisher>>>,
}

impl Model {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            services: Mutex::default(),
        })
    }

    fn of(&self, service: &ServiceName) -> Arc<Publisher> {
        let mut services = self.services.lock().unwrap();
        let new = || Arc::new(Publisher::new(Endpoints::pending()));
        Arc::clone(services.entry(service.clone()).or_insert_with(new))
    }

    /// Says of `orders`: `id:port` each, with a standing.
    fn says(&self, list: &str, standing: Standing) {
        let list = list.split_whitespace().map(|word| {
            let (id, port) = word.split_once(':').unwrap();
            let mut endpoint = Endpoint::new("10.0.0.7".parse().unwrap(), port.parse().unwrap());
            endpoint.id = id.into();
            endpoint.source = Some(self.name.into());
            endpoint
        });
        let list = Endpoints::new(list.collect(), 0).unwrap();
        self.of(&orders()).publish(list.with_standing(standing, 0));
    }

    fn is_watched(&self) -> bool {
        self.of(&orders()).is_watched()
    }
}

impl Discover for Model {
    fn watch(&self, service: &ServiceName) -> Watch {
        self.of(service).watch()
    }

    fn reports(&self, service: &ServiceName) -> Vec<SourceReport> {
        let mut report = SourceReport::new(self.name, &self.of(service).current());
        report.is_used = true;
        vec![report]
    }
}

fn orders() -> ServiceName {
    ServiceName::parse("orders").unwrap()
}

const FRESH: Standing = Standing::Fresh;
const STALE: Standing = Standing::Stale(Staleness::Unreachable);

struct Test {
    models: [Arc<Model>; 2],
    combined: Combined,
    driver: Driver,
    watch: Watch,
}

impl Test {
    fn new(combination: Combination) -> Self {
        let models = [Model::new("one"), Model::new("two")];
        let sources = models.iter().map(|model| {
            let source: Arc<dyn Discover> = Arc::<Model>::clone(model);
            source
        });
        let config = CombinedConfig::default().with_combination(combination);
        let (combined, driver) = Combined::new(sources.collect(), config);
        let watch = combined.watch(&orders());
        Self {
            models,
            combined,
            driver,
            watch,
        }
    }

    /// Lets time pass; gives the list as `id` each, and how it stands.
    async fn pass(&mut self, milliseconds: u64) -> String {
        tokio::select! {
            () = &mut self.driver => panic!("a driver does not end by itself"),
            () = tokio::time::sleep(Duration::from_millis(milliseconds)) => {}
        }
        let list = self.watch.latest();
        let ids: Vec<_> = list.iter().map(|one| one.id.as_str()).collect();
        format!("{} [{}]", list.standing(), ids.join(" "))
    }

    fn used(&self) -> Vec<String> {
        let reports = self.combined.reports(&orders());
        assert_eq!(
            reports.iter().map(|one| &*one.source).collect::<Vec<_>>(),
            ["one", "two"]
        );
        let used = reports.iter().filter(|report| report.is_used);
        used.map(|report| report.source.to_string()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn fails_over_to_the_next_source_and_back() {
    let mut test = Test::new(Combination::First);
    assert_eq!(test.pass(1).await, "pending []");
    let [one, two] = test.models.clone();
    two.says("c:1 d:2", FRESH);
    assert_eq!(
        test.pass(1900).await,
        "pending []",
        "the first may yet answer"
    );
    assert_eq!(test.pass(200).await, "fresh [c d]");
    one.says("a:1 b:3", FRESH);
    assert_eq!(test.pass(1).await, "fresh [a b]");
    assert_eq!(test.used(), ["one"]);
    let before = test.watch.latest().clone();
    one.says("a:1 b:3", STALE);
    assert_eq!(test.pass(9900).await, "stale: source unreachable [a b]");
    assert_eq!(test.pass(200).await, "fresh [c d]");
    assert_eq!(test.used(), ["two"]);
    let after = test.watch.latest().clone();
    assert!(after.revision() > before.revision());
    assert!(after[0].is_same_peer(&before[0]) && !after[1].is_same_peer(&before[1]));
    two.says("c:1 d:2", STALE);
    assert_eq!(test.pass(60_000).await, "stale: source unreachable [c d]");
    one.says("a:1", FRESH);
    assert_eq!(test.pass(1).await, "fresh [a]");
}

#[tokio::test(start_paused = true)]
async fn merges_by_id_and_by_place_and_the_first_source_wins() {
    let mut test = Test::new(Combination::Merged);
    let [one, two] = test.models.clone();
    two.says("a:9 z:1 y:8 x:8", FRESH);
    assert_eq!(test.pass(1).await, "fresh [a x y z]", "it waits for nobody");
    one.says("b:1 a:2", FRESH);
    assert_eq!(test.pass(1).await, "fresh [a b x y]");
    assert_eq!(test.watch.latest()[0].source.as_deref(), Some("one"));
    assert_eq!(test.used(), ["one", "two"]);
    one.says("b:1 a:2", STALE);
    assert_eq!(test.pass(1).await, "stale: source unreachable [a b x y]");
    two.says("", Standing::Absent);
    one.says("b:1 a:2", FRESH);
    assert_eq!(test.pass(1).await, "fresh [a b]");
    assert_eq!(test.used(), ["one"]);
    one.says("", Standing::Absent);
    assert_eq!(test.pass(1).await, "absent []");
}

#[tokio::test(start_paused = true)]
async fn what_did_not_change_keeps_its_pointer_and_wakes_nobody() {
    let mut test = Test::new(Combination::Merged);
    let [one, two] = test.models.clone();
    one.says("a:1", FRESH);
    two.says("b:2", FRESH);
    test.pass(1).await;
    let before = test.watch.latest().clone();
    two.says("a:1 b:2", FRESH);
    test.pass(1).await;
    assert_eq!(test.watch.latest().revision(), before.revision());
    two.says("b:2 c:3", FRESH);
    test.pass(1).await;
    assert!(Arc::ptr_eq(&test.watch.latest()[0], &before[0]));
}

#[tokio::test(start_paused = true)]
async fn sources_are_asked_while_somebody_watches() {
    let mut test = Test::new(Combination::First);
    let [one, two] = test.models.clone();
    assert!(!one.is_watched());
    test.pass(1).await;
    assert!(one.is_watched() && two.is_watched());
    test.watch = Watch::closed(Endpoints::pending());
    test.pass(61_000).await;
    assert!(!one.is_watched() && !two.is_watched());
    assert!(test.combined.reports(&orders()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_ended_is_one_that_can_t_be_reached() {
    let mut test = Test::new(Combination::First);
    let [one, two] = test.models.clone();
    one.says("a:1", FRESH);
    two.says("b:2", FRESH);
    test.pass(1).await;
    one.services.lock().unwrap().clear();
    assert_eq!(test.pass(5000).await, "stale: source unreachable [a]");
    assert_eq!(test.pass(6000).await, "fresh [b]");
    two.services.lock().unwrap().clear();
    assert_eq!(test.pass(60_000).await, "stale: source unreachable [b]");
}

#[tokio::test(start_paused = true)]
async fn without_sources_nothing_is_known() {
    let (combined, mut driver) = Combined::new(Vec::new(), CombinedConfig::default());
    let mut watch = combined.watch(&orders());
    tokio::select! {
        () = &mut driver => panic!("a driver does not end by itself"),
        list = watch.resolved() => assert_eq!(list.unwrap().standing(), Standing::Absent),
    }
    drop(driver);
    watch.changed().await.unwrap_err();
}

// threat 51
#[tokio::test(start_paused = true)]
async fn a_merged_list_is_no_longer_than_any_other() {
    let mut test = Test::new(Combination::Merged);
    let ids = |from: u16, to: u16| {
        let words = (from..to).map(|n| format!("{n:05}:{n}"));
        words.collect::<Vec<_>>().join(" ")
    };
    test.models[0].says(&ids(1, 9001), FRESH);
    test.models[1].says(&ids(8001, 18_001), FRESH);
    test.pass(1).await;
    assert_eq!(test.watch.latest().len(), 10_000);
    assert_eq!(
        test.watch
            .latest()
            .iter()
            .filter(|one| one.source.as_deref() == Some("one"))
            .count(),
        9000
    );
}
