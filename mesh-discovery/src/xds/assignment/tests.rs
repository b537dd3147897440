//! What makes an assignment wrong, and how its weights become one.

use proptest::prelude::*;

use super::super::tests::assignment;
use super::super::tests::socket;
use super::super::wire::Writer;
use super::*;
use crate::endpoint::Condition;

fn decoded(write: impl FnOnce(&mut Writer)) -> Result<Assignment, String> {
    let mut writer = Writer::default();
    write(&mut writer);
    decode(&writer.finish(), &mut Ignored::default()).map_err(|wrong| wrong.to_string())
}

/// A locality with endpoints of these weights, each on a port of its own.
fn locality(writer: &mut Writer, priority: u64, weight: Option<u64>, weights: &[u64], port: u16) {
    writer.message(2, |locality| {
        for (port, weight) in (port..).zip(weights) {
            locality.message(2, |endpoint| {
                socket(endpoint, "10.0.0.1", port);
                endpoint.message(4, |number| number.uint64(1, *weight));
            });
        }
        // Behind the endpoints, where another client than this could miss it.
        locality.uint64(5, priority);
        if let Some(weight) = weight {
            locality.message(3, |number| number.uint64(1, weight));
        }
    });
}

fn weights(assignment: &Assignment) -> Vec<(u16, u16)> {
    let endpoints = assignment.endpoints.iter();
    endpoints
        .map(|endpoint| (endpoint.port, endpoint.weight.get()))
        .collect()
}

/// An assignment of one endpoint that `write` describes.
fn one(write: impl FnOnce(&mut Writer)) -> Result<Assignment, String> {
    decoded(|writer| writer.message(2, |locality| locality.message(2, write)))
}

/// An assignment of one endpoint at the address that `write` describes.
fn at(write: impl FnOnce(&mut Writer)) -> Result<Assignment, String> {
    one(|lb| {
        lb.message(1, |endpoint| {
            endpoint.message(1, |address| address.message(1, write));
        });
    })
}

#[track_caller]
fn assert_refused(cases: impl IntoIterator<Item = (Result<Assignment, String>, &'static str)>) {
    for (outcome, expected) in cases {
        let wrong = outcome.unwrap_err();
        assert!(wrong.contains(expected), "{wrong:?} without {expected:?}");
    }
}

// threat 51
#[test]
fn what_no_endpoint_can_be_is_refused_by_field() {
    assert_refused([
        (
            at(|s| s.text(2, "orders.example.org")),
            "SocketAddress.address is no IP address",
        ),
        (
            at(|s| s.text(2, "169.254.169.254")),
            "SocketAddress.address is refused: address 169.254.169.254 is link-local",
        ),
        (
            at(|s| s.bytes(2, b"\xff")),
            "SocketAddress.address is not UTF-8",
        ),
        (
            at(|s| s.text(2, "10.0.0.1")),
            "SocketAddress.port_value is missing",
        ),
        (
            at(|s| s.uint64(3, 65_536)),
            "SocketAddress.port_value is not 1 to 65535",
        ),
        (at(|s| s.uint64(3, 80)), "SocketAddress.address is missing"),
        (
            at(|s| s.text(4, "http")),
            "SocketAddress.named_port is not resolved",
        ),
        (at(|s| s.uint64(1, 1)), "SocketAddress.protocol is not TCP"),
        (
            one(|lb| lb.message(1, |e| e.message(1, |a| a.bytes(2, b"")))),
            "Address.pipe can't be reached",
        ),
        (
            one(|lb| lb.message(4, |w| w.uint64(1, 0))),
            "LbEndpoint.load_balancing_weight is 0",
        ),
        (
            one(|lb| lb.message(4, |w| w.uint64(1, 1 << 32))),
            "UInt32Value.value is larger than 2^32-1",
        ),
        (
            one(|lb| lb.uint64(2, 6)),
            "LbEndpoint.health_status is no health status",
        ),
        (
            one(|lb| lb.text(5, "named")),
            "LbEndpoint.endpoint_name is not followed",
        ),
    ]);
}

// threat 51
#[test]
fn what_no_assignment_can_be_is_refused_by_field() {
    let most = u64::from(u32::MAX);
    let two = |w: &mut Writer| {
        locality(w, 0, Some(most), &[1], 1);
        locality(w, 0, Some(1), &[1], 2);
    };
    assert_refused([
        (
            decoded(|w| w.message(2, |l| l.uint64(5, 129))),
            "LocalityLbEndpoints.priority is 129, more than 128",
        ),
        (
            decoded(|w| w.message(2, |l| l.bytes(8, b""))),
            "leds_cluster_locality_config is not followed",
        ),
        (
            decoded(|w| locality(w, 1, None, &[1], 1)),
            "LocalityLbEndpoints.priority is 1 somewhere and 0 nowhere",
        ),
        (
            decoded(|w| locality(w, 0, None, &[most, 1], 1)),
            "LbEndpoint.load_balancing_weight of the endpoints of a locality add up",
        ),
        (
            decoded(two),
            "LocalityLbEndpoints.load_balancing_weight of the localities of a priority add up",
        ),
        (
            decoded(|w| w.message(4, |p| p.message(2, |d| d.text(1, "")))),
            "DropOverload.category must be",
        ),
        (
            decoded(|w| w.message(4, |p| p.message(4, |d| d.uint64(1, u64::MAX)))),
            "Duration.seconds is 18446744073709551615",
        ),
    ]);
}

// threat 51
#[test]
fn two_bytes_an_endpoint_fill_no_memory() {
    let mut ports: Vec<u16> = (1..=10_000).collect();
    let full = decode(&assignment("a", &ports), &mut Ignored::default());
    assert_eq!(full.unwrap().endpoints.len(), 10_000);
    ports.push(10_001);
    let wrong = decode(&assignment("a", &ports), &mut Ignored::default()).unwrap_err();
    assert!(
        wrong
            .to_string()
            .ends_with("makes more than 10000 endpoints"),
        "{wrong}"
    );
}

// threat 51
#[test]
fn a_long_name_is_not_copied_into_every_endpoint() {
    let zone = |length: usize| {
        decoded(|writer| {
            writer.message(2, |locality| {
                locality.message(1, |zone| zone.text(1, &"z".repeat(length)));
                locality.message(2, |endpoint| socket(endpoint, "10.0.0.1", 1));
            });
        })
    };
    assert_eq!(zone(512).unwrap().endpoints.len(), 1);
    let wrong = zone(513).unwrap_err();
    assert!(
        wrong.contains("locality has a name of more than 512 bytes"),
        "{wrong}"
    );
}

#[test]
fn without_weights_of_localities_endpoints_keep_their_own() {
    let assignment = decoded(|writer| {
        locality(writer, 0, None, &[1, 7], 1);
        locality(writer, 0, None, &[3], 3);
    });
    assert_eq!(weights(&assignment.unwrap()), [(1, 1), (2, 7), (3, 3)]);
}

#[test]
fn weights_that_do_not_fit_are_scaled_and_none_becomes_nothing() {
    let assignment = decoded(|writer| locality(writer, 0, None, &[1, 1 << 30, 1 << 31], 1));
    assert_eq!(
        weights(&assignment.unwrap()),
        [(1, 1), (2, 32_768), (3, 65_535)]
    );
}

#[test]
fn a_locality_without_weight_gets_nothing_where_others_have_one() {
    let assignment = decoded(|writer| {
        locality(writer, 0, Some(1), &[5], 1);
        locality(writer, 0, None, &[5], 2);
        locality(writer, 0, Some(0), &[5], 3);
    });
    assert_eq!(weights(&assignment.unwrap()), [(1, 65_535)]);
}

#[test]
fn health_becomes_a_condition() {
    let expected = [
        Condition::Passing,
        Condition::Passing,
        Condition::Critical,
        Condition::Draining,
        Condition::Critical,
        Condition::Warning,
    ];
    for (status, condition) in (0..).zip(expected) {
        let assignment = one(|lb| {
            socket(lb, "10.0.0.1", 1);
            lb.uint64(2, status);
        });
        assert_eq!(assignment.unwrap().endpoints[0].condition, condition);
    }
}

#[test]
fn drops_are_parts_of_a_million() {
    let drop = |numerator: u64, denominator: u64| {
        let assignment = decoded(|writer| {
            writer.message(4, |policy| {
                policy.message(2, |drop| {
                    drop.text(1, "lb");
                    drop.message(2, |fraction| {
                        fraction.uint64(1, numerator);
                        fraction.uint64(2, denominator);
                    });
                });
            });
        });
        assignment.unwrap().drops[0].per_million
    };
    assert_eq!([drop(5, 0), drop(5, 1), drop(5, 2)], [50_000, 500, 5]);
    assert_eq!([drop(101, 0), drop(u64::from(u32::MAX), 0)], [1_000_000; 2]);
}

proptest! {
    // threat 51
    #[test]
    fn no_change_of_a_byte_makes_more_than_it_should(at in 0_usize..200, byte in any::<u8>()) {
        let mut bytes = assignment("orders", &[1, 2, 3]);
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(read) = decode(&bytes, &mut Ignored::default()) {
            prop_assert!(read.endpoints.len() <= 3);
        }
    }

    /// The share of an endpoint is that of its locality times its own in there.
    #[test]
    fn traffic_is_shared_as_the_weights_say(
        localities in proptest::collection::vec((1_u64..1000, proptest::collection::vec(1_u64..1000, 1..4)), 1..4),
    ) {
        let assignment = decoded(|writer| {
            for (index, (weight, endpoints)) in (1_u16..).zip(&localities) {
                locality(writer, 0, Some(*weight), endpoints, index * 10);
            }
        });
        let weights = weights(&assignment.unwrap());
        let total: f64 = weights.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let all: u64 = localities.iter().map(|(weight, _)| weight).sum();
        for (index, (weight, _)) in (1_u16..).zip(&localities) {
            let share: f64 = weights.iter().filter(|(port, _)| port / 10 == index).map(|(_, weight)| f64::from(*weight)).sum();
            let expected = f64::from(u32::try_from(*weight).unwrap()) / f64::from(u32::try_from(all).unwrap());
            prop_assert!((share / total - expected).abs() < 0.001, "{share} of {total}, not {expected}");
        }
    }
}
