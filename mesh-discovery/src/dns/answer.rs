//! What the records of an answer say about a name: pure, and all of it comes from the network.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::Record;

use super::Error;
use super::Kind;

/// One record of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// Where a service is.
    Srv(Srv),
    /// An address.
    Address(IpAddr),
}

/// RFC 2782.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Srv {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: Name,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// These records, for so long.
    Found(Vec<Data>, Duration),
    /// The name is an alias of this one, about which it says nothing; for so long, and after so many aliases.
    Alias(Name, Duration, usize),
}

/// Reads the answer section of a reply to a question for `name`. Records of other names, which nobody asked for, are left
/// out; `hops` aliases were followed before.
///
/// # Errors
///
/// [`Error::TooMany`], [`Error::Aliases`] and [`Error::Unrelated`].
pub(super) fn read(
    (name, kind): (&Name, Kind),
    records: &[Record],
    mut hops: usize,
) -> Result<Read, Error> {
    if records.len() > MAX_RECORDS {
        return Err(Error::TooMany {
            name: name.to_ascii(),
            count: records.len(),
            limit: MAX_RECORDS,
        });
    }
    let mut owner = name;
    let mut life = u32::MAX;
    loop {
        let own = || records.iter().filter(|record| record.name == *owner);
        let mut ttl = life;
        let mut found = Vec::new();
        for record in own() {
            if let Some(data) = data(kind, &record.data) {
                ttl = ttl.min(positive(record.ttl));
                found.push(data);
            }
        }
        if !found.is_empty() {
            return Ok(Read::Found(found, Duration::from_secs(ttl.into())));
        }
        let alias = own().find_map(|record| match &record.data {
            RData::CNAME(alias) => Some((&alias.0, positive(record.ttl))),
            _ => None,
        });
        match alias {
            Some((target, ttl)) => {
                life = life.min(ttl);
                owner = target;
                hops += 1;
                if hops > MAX_ALIASES {
                    return Err(Error::Aliases {
                        name: name.to_ascii(),
                        limit: MAX_ALIASES,
                    });
                }
            }
            None if owner == name => {
                return Err(Error::Unrelated {
                    kind,
                    name: name.to_ascii(),
                });
            }
            None => {
                return Ok(Read::Alias(
                    owner.clone(),
                    Duration::from_secs(life.into()),
                    hops,
                ));
            }
        }
    }
}

fn data(kind: Kind, data: &RData) -> Option<Data> {
    match (kind, data) {
        (Kind::Srv, RData::SRV(srv)) => Some(Data::Srv(Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_lowercase(),
        })),
        (Kind::A, RData::A(address)) => Some(Data::Address(address.0.into())),
        (Kind::Aaaa, RData::AAAA(address)) => Some(Data::Address(address.0.into())),
        _ => None,
    }
}

/// RFC 2181 section 8: a TTL with its first bit set counts as 0.
pub(super) fn positive(ttl: u32) -> u32 {
    if ttl > MAX_TTL { 0 } else { ttl }
}

const MAX_TTL: u32 = i32::MAX.cast_unsigned();
/// More addresses than one service is balanced over; an answer of 64 KiB holds 4,000.
const MAX_RECORDS: usize = 1_000;
/// As most resolvers.
const MAX_ALIASES: usize = 8;

#[cfg(test)]
mod tests;
