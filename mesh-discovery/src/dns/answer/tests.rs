//! Answers as servers give them, and as somebody might who wishes no good.

use std::net::Ipv4Addr;

use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::rdata::CNAME;
use hickory_resolver::proto::rr::rdata::SRV;
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn a(owner: &str, ttl: u32, last: u8) -> Record {
    let address = Ipv4Addr::new(10, 0, 0, last);
    Record::from_rdata(name(owner), ttl, RData::A(A(address)))
}

fn alias(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

fn found(last: &[u8], ttl: u64) -> Read {
    let address = |last: &u8| Data::Address(Ipv4Addr::new(10, 0, 0, *last).into());
    Read::Found(last.iter().map(address).collect(), Duration::from_secs(ttl))
}

fn read_a(records: &[Record]) -> Result<Read, Error> {
    read((&name("a.test."), Kind::A), records, 0)
}

#[test]
fn an_answer_counts_as_long_as_the_shortest_ttl_on_the_way_to_it() {
    let records = [a("a.test.", 60, 1), a("A.TEST.", 30, 2)];
    assert_eq!(read_a(&records).unwrap(), found(&[1, 2], 30));
    // In whatever order they come.
    let records = [
        a("c.test.", 60, 1),
        alias("b.test.", 10, "c.test."),
        alias("a.test.", 20, "b.test."),
    ];
    assert_eq!(read_a(&records).unwrap(), found(&[1], 10));
    // RFC 2181 section 8.
    assert_eq!(read_a(&[a("a.test.", 1 << 31, 1)]).unwrap(), found(&[1], 0));
}

#[test]
fn an_alias_that_leads_out_of_the_answer_is_followed_from_there() {
    let records = [
        alias("a.test.", 20, "b.test."),
        alias("b.test.", 30, "c.example."),
    ];
    assert_eq!(
        read_a(&records).unwrap(),
        Read::Alias(name("c.example."), Duration::from_secs(20), 2)
    );
}

#[test]
fn records_of_a_service_are_read_whole() {
    let srv = SRV::new(10, 60, 50051, name("Orders-1.Test."));
    let records = [Record::from_rdata(name("a.test."), 5, RData::SRV(srv))];
    let expected = Srv {
        priority: 10,
        weight: 60,
        port: 50051,
        target: name("orders-1.test."),
    };
    assert_eq!(
        read((&name("a.test."), Kind::Srv), &records, 0).unwrap(),
        Read::Found(vec![Data::Srv(expected)], Duration::from_secs(5))
    );
}

// threat 49
#[test]
fn records_that_nobody_asked_for_are_left_out() {
    let records = [a("a.test.", 60, 1), a("evil.test.", 60, 66)];
    assert_eq!(read_a(&records).unwrap(), found(&[1], 60));
    assert!(matches!(
        read_a(&[a("evil.test.", 60, 66)]),
        Err(Error::Unrelated { .. })
    ));
    assert!(matches!(
        read((&name("a.test."), Kind::Aaaa), &[a("a.test.", 60, 1)], 0),
        Err(Error::Unrelated { .. })
    ));
}

#[test]
fn aliases_that_go_round_in_circles_end() {
    for records in [
        vec![alias("a.test.", 60, "a.test.")],
        vec![
            alias("a.test.", 60, "b.test."),
            alias("b.test.", 60, "a.test."),
        ],
    ] {
        assert!(matches!(read_a(&records), Err(Error::Aliases { .. })));
    }
    let last = [alias("a.test.", 60, "b.test.")];
    let far = read((&name("a.test."), Kind::A), &last, MAX_ALIASES);
    assert!(matches!(far, Err(Error::Aliases { .. })));
}

#[test]
fn more_records_than_anybody_needs_are_refused() {
    let records = vec![a("a.test.", 60, 1); MAX_RECORDS + 1];
    assert!(matches!(
        read_a(&records),
        Err(Error::TooMany { count: 1001, .. })
    ));
}

proptest! {
    #[test]
    fn whatever_the_records_are_the_reading_ends_and_is_about_the_name(
        parts in prop::collection::vec((0_u8..6, 0_u8..6, any::<bool>(), any::<u32>()), 0..40)
    ) {
        let owner = |n: u8| format!("n{n}.test.");
        let records: Vec<_> = parts
            .iter()
            .map(|(from, to, is_alias, ttl)| {
                if *is_alias { alias(&owner(*from), *ttl, &owner(*to)) } else { a(&owner(*from), *ttl, *from) }
            })
            .collect();
        match read((&name("n0.test."), Kind::A), &records, 0) {
            Ok(Read::Found(data, _)) => {
                prop_assert!(!data.is_empty());
                // All of one owner, which the name is or is an alias of.
                prop_assert!(data.windows(2).all(|pair| pair[0] == pair[1]));
            }
            Ok(Read::Alias(next, _, hops)) => {
                prop_assert!(hops <= MAX_ALIASES && next != name("n0.test."));
            }
            Err(error) => {
                let is_known = matches!(error, Error::Aliases { .. } | Error::Unrelated { .. });
                prop_assert!(is_known, "{error}");
            }
        }
    }
}
