//! What replacing a static list does to those who watch it.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn entry(service: &str, port: u16) -> StaticEntry {
    StaticEntry::new(name(service), "10.0.0.7".parse().unwrap(), port)
}

fn ports(endpoints: &Endpoints) -> Vec<u16> {
    endpoints.iter().map(|endpoint| endpoint.port).collect()
}

#[test]
fn tells_an_unknown_service_from_a_known_one() {
    let source = StaticSource::new(vec![entry("orders", 1)]).unwrap();
    assert!(source.watch(&name("orders")).current().is_known());
    assert!(!source.watch(&name("users")).current().is_known());
    assert_eq!(source.services(), [name("orders")]);
}

#[test]
fn a_watch_sees_a_service_that_comes_later() {
    let source = StaticSource::new(Vec::new()).unwrap();
    let mut watch = source.watch(&name("orders"));
    assert!(watch.latest().is_empty());
    source.replace(vec![entry("orders", 1)]).unwrap();
    assert_eq!(ports(watch.latest()), [1]);
}

// threat 50
#[test]
fn a_list_that_leaves_a_service_out_turns_it_stale() {
    let source = StaticSource::new(vec![entry("orders", 1), entry("users", 2)]).unwrap();
    let watch = source.watch(&name("orders"));
    let replaced = source.replace(vec![entry("users", 2)]).unwrap();
    assert_eq!(
        replaced,
        Replaced {
            changed: Vec::new(),
            stale: vec![name("orders")]
        }
    );
    assert_eq!(
        (ports(&watch.current()), watch.current().is_stale()),
        (vec![1], true)
    );

    let replaced = source
        .replace(vec![entry("orders", 1), entry("users", 2)])
        .unwrap();
    assert_eq!(replaced.changed, [name("orders")]);
    assert!(!watch.current().is_stale());
}

#[test]
fn removing_a_service_empties_it() {
    let source = StaticSource::new(vec![entry("orders", 1)]).unwrap();
    let watch = source.watch(&name("orders"));
    let before = watch.current().revision();
    assert!(source.remove(&name("orders")));
    assert!(!source.remove(&name("orders")));
    assert!(watch.current().is_empty() && !watch.current().is_known());
    assert!(watch.current().revision() > before);
}

// threat 51
#[test]
fn a_refused_list_changes_nothing() {
    let source = StaticSource::new(vec![entry("orders", 1)]).unwrap();
    let watch = source.watch(&name("orders"));
    let error = source
        .replace(vec![entry("orders", 2), entry("users", 0)])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not accept the endpoints of service `users`"
    );
    assert!(
        matches!(error, Error::Service { source, .. } if matches!(*source, Error::Field { field: "port", .. }))
    );
    assert_eq!(
        (ports(&watch.current()), watch.current().is_stale()),
        (vec![1], false)
    );

    let many: Vec<_> = (0..10_001).map(|i| entry(&format!("s{i}"), 1)).collect();
    assert!(matches!(
        source.replace(many),
        Err(Error::TooManyServices { count: 10_002, .. })
    ));
    assert_eq!(source.services(), [name("orders")]);
    let many = vec![entry("orders", 1); 100_001];
    assert!(matches!(
        source.replace(many),
        Err(Error::SourceTooLarge { count: 100_001, .. })
    ));
}

// threat 51
#[test]
fn asking_for_many_unknown_names_does_not_grow_the_table() {
    let source = StaticSource::new(vec![entry("orders", 1)]).unwrap();
    let held = source.watch(&name("held"));
    for i in 0..MAX_NAMES + 10 {
        drop(source.watch(&name(&format!("unknown-{i}"))));
    }
    assert!(source.lock().services.len() < 100);
    source.replace(vec![entry("held", 3)]).unwrap();
    assert_eq!(ports(&held.current()), [3]);
}

#[test]
fn a_watch_beyond_the_limit_is_closed() {
    let source = StaticSource::new(Vec::new()).unwrap();
    let held: Vec<_> = (0..MAX_NAMES)
        .map(|i| source.watch(&name(&format!("n{i}"))))
        .collect();
    let mut refused = source.watch(&name("one-too-many"));
    assert!(!refused.latest().is_known());
    drop(held);
    let accepted = source.watch(&name("one-too-many"));
    source.replace(vec![entry("one-too-many", 4)]).unwrap();
    assert_eq!(
        (ports(refused.latest()), ports(&accepted.current())),
        (vec![], vec![4])
    );
}

fn small_list() -> impl Strategy<Value = Vec<StaticEntry>> {
    let line =
        (0_usize..3, 1_u16..5).prop_map(|(service, port)| entry(["a", "b", "c"][service], port));
    vec(line, 0..6)
}

proptest! {
    // threat 50
    #[test]
    fn no_sequence_of_lists_ever_empties_a_known_service(lists in vec(small_list(), 1..12)) {
        let source = StaticSource::new(Vec::new()).unwrap();
        let watches = ["a", "b", "c"].map(|service| source.watch(&name(service)));
        let mut revisions = [0; 3];
        let mut known = [false; 3];
        for list in lists {
            let _outcome = source.replace(list);
            for (i, watch) in watches.iter().enumerate() {
                let now = watch.current();
                known[i] |= now.is_known();
                prop_assert_eq!(known[i], !now.is_empty());
                prop_assert!(now.revision() >= revisions[i]);
                revisions[i] = now.revision();
            }
        }
    }
}
