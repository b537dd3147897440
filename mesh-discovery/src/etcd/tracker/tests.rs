//! What is asked for, watched and told.

mod model;

use proptest::prelude::*;

use self::model::Action;
use self::model::Model;
use super::*;
use crate::etcd::messages::Event;
use crate::etcd::messages::KeyValue;
use crate::etcd::messages::ResponseHeader;

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn kv(key: &str, port: u16, mod_revision: i64) -> KeyValue {
    KeyValue {
        key: key.into(),
        mod_revision,
        value: format!(r#"{{"host":"10.0.0.7","port":{port}}}"#).into_bytes(),
        lease: 0,
    }
}

fn range(kvs: Vec<KeyValue>, revision: i64) -> RangeResponse {
    RangeResponse {
        header: Some(ResponseHeader { revision }),
        count: i64::try_from(kvs.len()).unwrap(),
        kvs,
    }
}

fn put(watch_id: i64, kv: KeyValue) -> WatchResponse {
    WatchResponse {
        watch_id,
        events: vec![Event {
            kind: Event::PUT,
            kv: Some(kv),
        }],
        ..WatchResponse::default()
    }
}

/// A tracker that watches `orders`, with one endpoint at revision 7, and the id of that watch.
fn watching() -> (Tracker, i64) {
    let mut tracker = Tracker::new("/mesh/services/");
    let orders = service("orders");
    tracker.ask(&orders);
    let Some(Step::Ask(_, number)) = tracker.next_step() else {
        panic!("it is not asked for");
    };
    let found = vec![kv("/mesh/services/orders/1", 1, 3)];
    tracker.answered(&orders, number, Ok(range(found, 7)));
    let Some(Step::Send(WatchOp::Create(create))) = tracker.next_step() else {
        panic!("it is not watched");
    };
    assert_eq!(create.key, b"/mesh/services/orders/");
    assert_eq!(create.range_end, b"/mesh/services/orders0");
    assert_eq!(create.start_revision, 8);
    tracker.settle();
    assert!(matches!(tracker.next_step(), Some(Step::Tell(_))));
    assert!(tracker.next_step().is_none());
    (tracker, create.watch_id)
}

fn ports(tracker: &Tracker) -> Vec<u16> {
    let (list, _) = tracker.list(&service("orders"));
    list.iter().map(|endpoint| endpoint.port).collect()
}

fn refusal(tracker: &mut Tracker) -> String {
    tracker.settle();
    while let Some(step) = tracker.next_step() {
        if let Step::Refuse(_, error) = step {
            return error.to_string();
        }
    }
    panic!("nothing is refused");
}

#[test]
fn events_are_taken_over_and_told_once_for_all_of_them() {
    let (mut tracker, watch) = watching();
    for port in 2..10 {
        let kv = kv("/mesh/services/orders/2", port, 8 + i64::from(port));
        tracker.heard(put(watch, kv)).unwrap();
    }
    tracker.settle();
    assert_eq!(ports(&tracker), [1, 9]);
    assert!(matches!(tracker.next_step(), Some(Step::Tell(_))));
    assert!(tracker.next_step().is_none());
}

#[test]
fn what_is_older_than_what_is_known_changes_nothing() {
    let (mut tracker, watch) = watching();
    let old = kv("/mesh/services/orders/1", 9, 6);
    tracker.heard(put(watch, old)).unwrap();
    tracker.settle();
    assert_eq!(ports(&tracker), [1]);
    assert!(tracker.next_step().is_none());
}

#[test]
fn a_part_of_a_revision_is_not_told() {
    let (mut tracker, watch) = watching();
    let mut first = put(watch, kv("/mesh/services/orders/2", 2, 8));
    first.fragment = true;
    tracker.heard(first).unwrap();
    tracker.settle();
    assert!(tracker.next_step().is_none());
    tracker
        .heard(put(watch, kv("/mesh/services/orders/3", 3, 8)))
        .unwrap();
    tracker.settle();
    assert!(matches!(tracker.next_step(), Some(Step::Tell(_))));
    assert_eq!(ports(&tracker), [1, 2, 3]);
}

// threat 51
#[test]
fn an_event_of_another_key_is_refused() {
    let (mut tracker, watch) = watching();
    let foreign = kv("/mesh/services/orders-v2/1", 2, 8);
    tracker.heard(put(watch, foreign)).unwrap();
    assert!(refusal(&mut tracker).contains("another key"));
    let (mut tracker, _) = watching();
    let (mut none, watch) = watching();
    tracker.heard(put(999, kv("x", 1, 8))).unwrap_err();
    let empty = WatchResponse {
        watch_id: watch,
        events: vec![Event::default()],
        ..WatchResponse::default()
    };
    none.heard(empty).unwrap();
    assert!(refusal(&mut none).contains("another key"));
}

// threat 51
#[test]
fn more_keys_or_bytes_than_are_taken_are_refused_with_their_number() {
    let orders = service("orders");
    let ask = |tracker: &mut Tracker| {
        tracker.ask(&orders);
        match tracker.next_step() {
            Some(Step::Ask(_, number)) => number,
            other => panic!("{other:?}"),
        }
    };
    let mut tracker = Tracker::new("/mesh/services/");
    let number = ask(&mut tracker);
    let mut many = range(Vec::new(), 7);
    many.count = 10_001;
    tracker.answered(&orders, number, Ok(many));
    let text = refusal(&mut tracker);
    assert!(text.contains("orders") && text.contains("10001"), "{text}");

    // One by one as well.
    let key = |number: i64| kv(&format!("/mesh/services/orders/{number}"), 1, number);
    let number = ask(&mut tracker);
    tracker.answered(
        &orders,
        number,
        Ok(range((0..10_000).map(key).collect(), 9_999)),
    );
    let Some(Step::Send(WatchOp::Create(create))) = tracker.next_step() else {
        panic!("it is not watched");
    };
    tracker.heard(put(create.watch_id, key(10_000))).unwrap();
    let text = refusal(&mut tracker);
    assert!(text.contains("10001"), "{text}");

    let number = ask(&mut tracker);
    let mut large: Vec<_> = (0..200).map(key).collect();
    for kv in &mut large {
        kv.value = vec![b' '; 100_000];
    }
    tracker.answered(&orders, number, Ok(range(large, 7)));
    let text = refusal(&mut tracker);
    assert!(text.contains("16 MiB") && text.contains("orders"), "{text}");
    assert!(ports(&tracker).is_empty());
}

#[test]
fn answers_that_nobody_waits_for_any_more_change_nothing() {
    let orders = service("orders");
    let mut tracker = Tracker::new("/mesh/services/");
    tracker.ask(&orders);
    tracker.restart();
    let mut numbers = Vec::new();
    while let Some(Step::Ask(_, number)) = tracker.next_step() {
        numbers.push(number);
    }
    let [now] = *numbers else {
        panic!("{numbers:?}");
    };
    tracker.answered(&orders, now - 1, Ok(range(Vec::new(), 7)));
    assert!(tracker.next_step().is_none());
    tracker.end(&orders);
    tracker.answered(&orders, now, Ok(range(Vec::new(), 7)));
    assert!(tracker.next_step().is_none());
}

#[test]
fn a_watch_that_is_not_permitted_means_that_the_stream_is_to_be_opened_anew() {
    let (mut tracker, _) = watching();
    let canceled = WatchResponse {
        watch_id: -1,
        created: true,
        canceled: true,
        cancel_reason: "etcdserver: permission denied".to_owned(),
        ..WatchResponse::default()
    };
    let text = tracker.heard(canceled).unwrap_err().to_string();
    assert!(
        text.contains("orders") && text.contains("not permit"),
        "{text}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 3000 }))]

    #[test]
    fn whatever_breaks_in_between_each_list_was_once_true_and_the_last_is_etcds(
        actions in proptest::collection::vec(Action::any(), 0..150),
    ) {
        let mut model = Model::new();
        for action in actions {
            model.perform(action);
        }
        model.finish();
    }
}
