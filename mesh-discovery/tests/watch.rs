//! What a watch promises, whoever publishes.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::sync::Arc;

use mesh_discovery::Discover;
use mesh_discovery::Endpoint;
use mesh_discovery::Endpoints;
use mesh_discovery::Publisher;
use mesh_discovery::ServiceName;
use mesh_discovery::SourceReport;
use mesh_discovery::Watch;

fn list(port: u16) -> Endpoints {
    Endpoints::new(
        vec![Endpoint::new("10.0.0.7".parse().unwrap(), port)],
        u64::from(port),
    )
    .unwrap()
}

#[tokio::test]
async fn gives_the_snapshot_now_and_each_later_one() {
    let publisher = Publisher::new(list(1));
    let mut watch = publisher.watch();
    assert_eq!(watch.current(), list(1));
    assert!(publisher.publish(list(2)));
    assert_eq!(watch.changed().await, Ok(&list(2)));
    assert_eq!((watch.current(), watch.latest()), (list(2), &list(2)));
}

#[tokio::test]
async fn an_equal_snapshot_wakes_nobody() {
    let publisher = Publisher::new(list(1));
    let mut watch = publisher.watch();
    assert!(!publisher.publish(list(1).with_revision(9)));
    assert_eq!(watch.latest().revision(), 1);
    drop(publisher);
    watch.changed().await.unwrap_err();
}

#[tokio::test]
async fn the_last_change_arrives_after_the_source_is_gone() {
    let publisher = Publisher::new(list(1));
    let (mut by_latest, mut by_changed) = (publisher.watch(), publisher.watch());
    publisher.publish(list(2));
    drop(publisher);
    assert_eq!(by_latest.latest(), &list(2));
    assert_eq!(by_changed.changed().await, Ok(&list(2)));
    by_changed.changed().await.unwrap_err();
    assert_eq!(by_changed.current(), list(2));
}

#[tokio::test]
async fn a_source_can_stand_behind_a_trait_object() {
    struct One(Publisher);
    impl Discover for One {
        fn reports(&self, _service: &ServiceName) -> Vec<SourceReport> {
            Vec::new()
        }

        fn watch(&self, _service: &ServiceName) -> Watch {
            self.0.watch()
        }
    }
    let source: Arc<dyn Discover> = Arc::new(One(Publisher::new(list(1))));
    let watch = source.watch(&ServiceName::parse("orders").unwrap());
    assert_eq!(watch.current(), list(1));
}
