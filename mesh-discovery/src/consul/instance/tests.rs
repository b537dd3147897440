//! Answers as Consul 1.8.7 gives them, and as it should not.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// One instance as Consul 1.8.7 gives it; `change` makes it another.
fn instance(change: impl FnOnce(&mut Value)) -> Value {
    let mut instance = json!({
        "Node": {
            "ID": "a9437eb3-4d86-9c62-44cf-c443e85b6fc0", "Node": "t", "Address": "10.0.0.1",
            "Datacenter": "dc1", "TaggedAddresses": { "lan": "10.0.0.1" },
            "Meta": { "consul-network-segment": "", "zone": "rack-7" }, "CreateIndex": 13, "ModifyIndex": 15,
        },
        "Service": {
            "ID": "web-1", "Service": "web", "Tags": ["blue", "v2"], "Address": "", "Port": 8080,
            "Meta": { "version": "2.1", "spiffe_id": "spiffe://example.org/web", "team": "shop" },
            "Weights": { "Passing": 10, "Warning": 2 }, "EnableTagOverride": false,
            "Proxy": { "MeshGateway": {}, "Expose": {} }, "Connect": {}, "CreateIndex": 16,
        },
        "Checks": [
            { "Node": "t", "CheckID": "serfHealth", "Status": "passing", "ServiceID": "" },
            { "Node": "t", "CheckID": "service:web-1", "Status": "passing", "ServiceID": "web-1" },
        ],
    });
    change(&mut instance);
    instance
}

fn read(list: &[Value]) -> (Vec<Endpoint>, Refused) {
    endpoints(&serde_json::to_vec(list).unwrap()).unwrap()
}

fn only(change: impl FnOnce(&mut Value)) -> Endpoint {
    let (mut list, refused) = read(&[instance(change)]);
    assert_eq!(refused, Refused::default());
    list.pop().unwrap()
}

#[test]
fn every_field_has_its_place() {
    let endpoint = only(|_| ());
    assert_eq!(endpoint.id, "t/web-1");
    assert_eq!(endpoint.to_string(), "10.0.0.1:8080");
    assert_eq!(endpoint.weight.get(), 10);
    assert_eq!(endpoint.version.as_deref(), Some("2.1"));
    assert_eq!(endpoint.zone.as_deref(), Some("rack-7"));
    assert_eq!(
        endpoint.spiffe_id.as_deref(),
        Some("spiffe://example.org/web")
    );
    assert_eq!(endpoint.tags, ["blue", "v2"]);
    assert_eq!(endpoint.condition, Condition::Passing);
    let metadata: Vec<_> = endpoint
        .metadata
        .iter()
        .map(|(k, v)| (&**k, &**v))
        .collect();
    assert_eq!(
        metadata,
        [("datacenter", "dc1"), ("node", "t"), ("team", "shop")]
    );
}

#[test]
fn what_the_service_says_goes_before_what_its_node_says_but_for_where_it_is() {
    let endpoint = only(|instance| {
        instance["Service"]["Address"] = json!("web.example.org");
        instance["Service"]["Meta"] = json!({
            "zone": "b", "weight": "77", "node": "other", "datacenter": "other", "namespace": "kept",
        });
    });
    assert_eq!(endpoint.host.to_string(), "web.example.org");
    assert_eq!(endpoint.zone.as_deref(), Some("b"));
    assert_eq!(endpoint.weight.get(), 77);
    let metadata: Vec<_> = endpoint.metadata.values().map(String::as_str).collect();
    assert_eq!(metadata, ["dc1", "kept", "t"]);
}

#[test]
fn what_may_be_missing_is_not_missed() {
    let bare = json!({ "Node": { "Node": "t", "Address": "10.0.0.1" }, "Service": { "ID": "w", "Port": 1 } });
    let null = instance(|instance| {
        instance["Service"]["Tags"] = Value::Null;
        instance["Service"]["Meta"] = Value::Null;
        instance["Checks"] = Value::Null;
    });
    let (list, refused) = read(&[bare, null]);
    assert_eq!((list.len(), refused.count), (2, 0));
    assert_eq!(list.first().unwrap().condition, Condition::Passing);
    assert_eq!(endpoints(b"[]").unwrap(), (Vec::new(), Refused::default()));
}

#[test]
fn the_worst_check_counts_and_maintenance_before_all() {
    let with = |checks: &[(&str, &str)]| {
        only(|instance| {
            let check = |(id, status): &(&str, &str)| json!({ "CheckID": id, "Status": status });
            instance["Checks"] = checks.iter().map(check).collect();
        })
    };
    for (checks, condition, weight) in [
        (vec![], Condition::Passing, 10),
        (vec![("a", "passing")], Condition::Passing, 10),
        (
            vec![("a", "passing"), ("b", "warning")],
            Condition::Warning,
            2,
        ),
        (
            vec![("a", "critical"), ("b", "warning")],
            Condition::Critical,
            10,
        ),
        (
            vec![("_node_maintenance", "critical"), ("b", "critical")],
            Condition::Draining,
            10,
        ),
        (
            vec![("a", "warning"), ("_service_maintenance:web-1", "critical")],
            Condition::Draining,
            10,
        ),
        (
            vec![("_node_maintenance_of_mine", "critical")],
            Condition::Critical,
            10,
        ),
    ] {
        let endpoint = with(&checks);
        assert_eq!(
            (endpoint.condition, endpoint.weight.get()),
            (condition, weight),
            "{checks:?}"
        );
    }
}

#[test]
fn a_weight_of_zero_while_it_warns_means_no_traffic() {
    let endpoint = only(|instance| {
        instance["Service"]["Weights"]["Warning"] = json!(0);
        instance["Checks"][1]["Status"] = json!("warning");
    });
    assert_eq!(endpoint.condition, Condition::Draining);
}

// threat 51
#[test]
fn a_bad_instance_is_left_out_and_named_and_the_others_stay() {
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/Service/Port", json!(0), "port"),
        ("/Service/Port", json!(70000), "port"),
        ("/Service/Port", json!(-1), "port"),
        ("/Service/Port", json!("80"), "can't be read"),
        ("/Service/Port", json!(1.5), "can't be read"),
        ("/Service/Weights/Passing", json!(0), "weight"),
        ("/Service/Weights/Passing", json!(-1), "weight"),
        (
            "/Service/Weights/Passing",
            json!(4_294_967_296_u64),
            "weight",
        ),
        ("/Service/Weights/Warning", json!(65536), "weight"),
        ("/Service/Weights/Warning", json!(1e300), "can't be read"),
        (
            "/Service/Meta/version",
            json!({ "deep": 1 }),
            "can't be read",
        ),
        ("/Service/Meta", json!({ "weight": "0" }), "weight"),
        ("/Service/Tags", json!("blue"), "can't be read"),
        ("/Service/Address", json!("169.254.169.254"), "host"),
        ("/Service/Address", json!("unix:/run/web"), "host"),
        ("/Service/Address", json!("web\u{0}"), "host"),
        ("/Node/Address", json!(""), "host"),
        ("/Checks/1/Status", json!("fine"), "status"),
        ("/Checks/1/Status", Value::Null, "can't be read"),
        ("/Service", Value::Null, "can't be read"),
        ("/Node", json!([1]), "can't be read"),
        ("", json!("text"), "can't be read"),
    ];
    for (path, value, what) in cases {
        let bad = instance(|instance| *instance.pointer_mut(path).unwrap() = value.clone());
        let (list, refused) = read(&[bad, instance(|_| ())]);
        assert_eq!((list.len(), refused.count), (1, 1), "{path} {value}");
        let error = refused.first.unwrap().to_string();
        assert!(error.contains(what), "{path} {value}: {error}");
        assert!(
            error.contains("web-1") || path.len() < 9,
            "{path} {value}: {error}"
        );
    }
}

// threat 51
#[test]
fn a_million_instances_cost_no_more_than_their_bytes_and_are_refused() {
    let million = format!("[{}{{}}]", "{},".repeat(999_999));
    let error = endpoints(million.as_bytes()).unwrap_err().to_string();
    assert!(
        error.contains("1000000") && error.contains("10000"),
        "{error}"
    );
}

// threat 51
#[test]
fn what_is_no_list_is_no_answer() {
    let deep = "[".repeat(100_000);
    for text in ["", "null", "{}", "1", "[", "[1,]", "[{}", "[]x", &deep] {
        endpoints(text.as_bytes()).unwrap_err();
    }
    endpoints(b"[{\"Node\":{\"Node\":\"\xff\"}}]").unwrap_err();
}

#[test]
fn a_hostile_error_is_short_and_has_no_control_characters() {
    let name = "\u{1b}[2J".repeat(10_000);
    let bad = instance(|instance| {
        instance["Node"]["Node"] = json!(name);
        instance["Service"]["Port"] = json!(name);
    });
    let error = read(&[bad]).1.first.unwrap().to_string();
    assert!(
        error.len() < 2500 && !error.contains(char::is_control),
        "{error}"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(endpoints(&bytes));
    }

    #[test]
    fn no_value_in_place_of_another_makes_it_panic_or_drops_an_instance_without_a_word(
        place in 0..12_usize,
        text in "\\PC{0,12}|null|[0-9-]{1,12}|\"[a-z]{0,3}\"|\\[\\]|\\{\\}",
    ) {
        let place = [
            "/Node", "/Node/Node", "/Node/Address", "/Node/Meta", "/Service", "/Service/ID",
            "/Service/Port", "/Service/Tags", "/Service/Meta", "/Service/Weights", "/Checks", "/Checks/0/Status",
        ][place];
        let value = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
        let odd = instance(|instance| *instance.pointer_mut(place).unwrap() = value);
        let (list, refused) = read(&[odd]);
        prop_assert_eq!(list.len() + refused.count, 1);
    }
}
