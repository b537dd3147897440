//! What records become.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::endpoint::Endpoints;

fn target(priority: u16, weight: u16, name: &str, last: &[u8]) -> Target {
    let address = |last: &u8| IpAddr::from(Ipv4Addr::new(10, 0, 0, *last));
    Target {
        name: name.to_owned(),
        priority,
        weight,
        port: 80,
        addresses: last.iter().map(address).collect(),
    }
}

/// Address, priority and weight of each endpoint.
fn mapped(targets: &[Target]) -> Vec<(String, u16, u16)> {
    let mapped = map(targets.to_vec(), &AddressRules::default());
    let row = |endpoint: &Endpoint| {
        (
            endpoint.id.clone(),
            endpoint.priority,
            endpoint.weight.get(),
        )
    };
    mapped.endpoints.iter().map(row).collect()
}

fn row(last: u8, priority: u16, weight: u16) -> (String, u16, u16) {
    (format!("10.0.0.{last}:80"), priority, weight)
}

#[test]
fn priorities_and_weights_are_those_of_the_records() {
    let targets = [
        target(20, 5, "c", &[3]),
        target(10, 60, "a", &[1]),
        target(10, 10, "b", &[2]),
    ];
    let expected = [row(1, 10, 60), row(2, 10, 10), row(3, 20, 5)];
    assert_eq!(mapped(&targets), expected);
    let endpoints = map(targets.to_vec(), &AddressRules::default()).endpoints;
    assert_eq!(endpoints[0].metadata["dns_target"], "a");
}

#[test]
fn a_record_of_weight_0_has_a_small_chance_unless_all_have() {
    let even = [target(0, 0, "a", &[1]), target(0, 0, "b", &[2])];
    assert_eq!(mapped(&even), [row(1, 0, 1), row(2, 0, 1)]);
    let uneven = [target(0, 0, "a", &[1]), target(0, 1, "b", &[2])];
    assert_eq!(mapped(&uneven), [row(1, 0, 1), row(2, 0, 100)]);
    let heavy = [target(0, 0, "a", &[1]), target(0, 65535, "b", &[2])];
    assert_eq!(mapped(&heavy), [row(1, 0, 1), row(2, 0, 65535)]);
}

#[test]
fn the_addresses_of_a_target_share_its_weight() {
    let targets = [target(0, 10, "a", &[1, 2]), target(0, 10, "b", &[3])];
    let expected = [row(1, 0, 500), row(2, 0, 500), row(3, 0, 1000)];
    assert_eq!(mapped(&targets), expected);
}

#[test]
fn a_place_that_stands_twice_counts_once_in_its_best_priority() {
    let targets = [target(20, 1, "b", &[1]), target(10, 1, "a", &[1, 1])];
    assert_eq!(mapped(&targets), [row(1, 10, 1)]);
}

// threat 49
#[test]
fn refused_addresses_are_left_out_and_named_once() {
    let mut targets = vec![
        target(0, 1, "a", &[1]),
        target(0, 1, "b", &[]),
        target(1, 1, "b", &[]),
    ];
    for target in &mut targets[1..] {
        target.addresses.push("127.0.0.1".parse().unwrap());
        target
            .addresses
            .push("::ffff:169.254.169.254".parse().unwrap());
    }
    let mapped = map(targets, &AddressRules::default());
    assert_eq!(mapped.endpoints.len(), 1);
    let refused: Vec<_> = mapped
        .refused
        .iter()
        .map(|refused| refused.address.to_string())
        .collect();
    assert_eq!(refused, ["127.0.0.1:80", "169.254.169.254:80"]);
}

proptest! {
    #[test]
    fn whatever_the_records_are_the_list_is_whole_and_does_not_depend_on_their_order(
        parts in prop::collection::vec(
            (0_u16..3, any::<u16>(), 0_u8..4, prop::collection::vec(1_u8..20, 0..4), 1_u16..4),
            0..20,
        ),
        turn in 0_usize..20,
    ) {
        let mut targets: Vec<_> = parts
            .iter()
            .map(|(priority, weight, name, last, port)| Target {
                port: *port,
                ..target(*priority, *weight, &name.to_string(), last)
            })
            .collect();
        let first = map(targets.clone(), &AddressRules::default()).endpoints;
        let places: HashSet<_> = parts
            .iter()
            .flat_map(|(_, _, _, last, port)| last.iter().map(move |last| (*last, *port)))
            .collect();
        prop_assert_eq!(first.len(), places.len());
        prop_assert!(Endpoints::new(first.clone(), 0).is_ok());
        if !targets.is_empty() {
            let turn = turn % targets.len();
            targets.rotate_left(turn);
        }
        prop_assert_eq!(map(targets, &AddressRules::default()).endpoints, first);
    }

    #[test]
    fn weights_keep_their_order(weights_of in prop::collection::vec(any::<u16>(), 1..20)) {
        let shares: Vec<_> = weights_of.iter().map(|weight| (*weight, 1)).collect();
        let made = weights(&shares);
        for (one, made_one) in weights_of.iter().zip(&made) {
            for (two, made_two) in weights_of.iter().zip(&made) {
                prop_assert!(one < two || made_one >= made_two);
            }
        }
    }
}
