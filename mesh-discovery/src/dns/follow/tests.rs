//! What several answers make together.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use super::*;

/// So many records of one target, on ports of their own, and so many addresses of each kind.
fn crossed(records: u16, addresses: u16) -> Result<Vec<Target>, Error> {
    let target = Name::from_ascii("one.example.org.").unwrap();
    let records: Vec<_> = (1..=records)
        .map(|port| Srv {
            priority: 0,
            weight: 1,
            port,
            target: target.clone(),
        })
        .collect();
    let numbers = 0..u32::from(addresses);
    let four = numbers
        .clone()
        .map(|number| Ipv4Addr::from(0x0a00_0000 + number).into());
    let six = numbers.map(|number| Ipv6Addr::from(u128::from(number)).into());
    let memory = Memory::from([
        ((target.clone(), Kind::A), four.collect()),
        ((target, Kind::Aaaa), six.collect()),
    ]);
    let name = Name::from_ascii("orders.example.org.").unwrap();
    with_addresses(&name, &records, &memory)
}

// threat 51
#[test]
fn many_records_of_one_target_with_many_addresses_make_nothing() {
    let error = crossed(1_000, 1_000).unwrap_err();
    let text = "2000000 records, targets or endpoints of orders.example.org. are more than the limit of 10000";
    assert_eq!(error.to_string(), text);
    crossed(5, 1_001).unwrap_err();
    let targets = crossed(5, 1_000).unwrap();
    let count: usize = targets.iter().map(|target| target.addresses.len()).sum();
    assert_eq!((targets.len(), count), (5, MAX_ENDPOINTS_PER_SERVICE));
}
