//! Targets follow from weights, header fields and cookies.

use mesh_resilience::random::SplitMix64;
use serde_json::Value;
use serde_json::json;

use super::*;
use crate::route::RouteTable;

/// A route whose three targets have these weights.
fn route(weights: [u32; 3], sticky: &Value) -> (Arc<Route>, Choice) {
    let names = ["orders-a", "orders-b", "orders-c"];
    let to: Vec<Value> = names
        .iter()
        .zip(weights)
        .map(|(service, weight)| json!({ "service": service, "weight": weight }))
        .collect();
    let config = json!([{ "name": "orders", "to": to, "sticky": sticky }]);
    let table = RouteTable::new(&serde_json::from_value::<Vec<_>>(config).unwrap()).unwrap();
    let route = Arc::clone(&table.routes()[0]);
    (route, Choice::new(&names.map(Arc::from)))
}

fn with(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.append(name, HeaderValue::from_str(value).unwrap());
    headers
}

#[test]
fn targets_are_drawn_by_their_weight() {
    let random = SplitMix64::new(1);
    let (route, choice) = route([5, 0, 95], &Value::Null);
    let mut drawn = [0_u32; 3];
    for _ in 0..100_000 {
        drawn[choice.draw(&route, &HeaderMap::new(), &random).index] += 1;
    }
    // Five standard deviations of a binomial count with n = 100,000 and p = 0.05 are 345.
    assert_eq!(drawn[1], 0);
    assert!(drawn[0].abs_diff(5000) < 345, "{drawn:?}");
}

#[test]
fn the_same_header_leads_to_the_same_target_and_headers_are_spread_by_weight() {
    let random = SplitMix64::new(1);
    let (route, choice) = route([5, 0, 95], &json!({ "header": "x-user" }));
    let mut drawn = [0_u32; 3];
    for user in 0..100_000 {
        let headers = with("x-user", &format!("user-{user}"));
        let first = choice.draw(&route, &headers, &random);
        assert_eq!(first, choice.draw(&route, &headers, &random));
        drawn[first.index] += 1;
    }
    assert_eq!(drawn[1], 0);
    assert!(drawn[0].abs_diff(5000) < 345, "{drawn:?}");
}

#[test]
fn a_larger_canary_takes_callers_from_the_others_only() {
    let random = SplitMix64::new(1);
    let sticky = json!({ "header": "x-user" });
    let (before, choice) = route([5, 0, 95], &sticky);
    let (after, _) = route([20, 0, 80], &sticky);
    for user in 0..10_000 {
        let headers = with("x-user", &format!("user-{user}"));
        if choice.draw(&before, &headers, &random).index == 0 {
            assert_eq!(choice.draw(&after, &headers, &random).index, 0);
        }
    }
}

#[test]
fn a_cookie_leads_back_to_its_target_until_that_takes_no_calls() {
    let random = SplitMix64::new(2);
    let sticky = json!({ "cookie": { "name": "mesh-canary", "ttl": "1h" } });
    let (before, choice) = route([50, 0, 50], &sticky);
    for _ in 0..100 {
        let first = choice.draw(&before, &HeaderMap::new(), &random);
        let set = first.cookie.as_ref().unwrap().to_str().unwrap();
        let (pair, attributes) = set.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Max-Age=3600");
        let headers = with("cookie", &format!("other=1; {pair}"));
        let again = choice.draw(&before, &headers, &random);
        assert_eq!((again.index, again.hash), (first.index, first.hash));
        assert_eq!(again.cookie, None);

        let mut weights = [50, 0, 50];
        weights[first.index] = 0;
        let (drained, _) = route(weights, &sticky);
        let moved = choice.draw(&drained, &headers, &random);
        assert_ne!(moved.index, first.index);
        assert!(moved.cookie.is_some());
    }
}

#[test]
fn a_cookie_that_names_no_target_is_as_none() {
    let random = SplitMix64::new(3);
    let (route, choice) = route([1, 1, 1], &json!({ "cookie": { "name": "c" } }));
    for value in [
        "",
        "7",
        "0-0",
        "zzzzzzzzzzzzzzzz-0000000000000000",
        "+000000000000007-0000000000000000",
        "0000000000000007-0000000000000000",
    ] {
        let headers = with("cookie", &format!("c={value}"));
        let drawn = choice.draw(&route, &headers, &random);
        assert!(drawn.cookie.is_some(), "{value:?}");
    }
}
