//! Records as endpoints: pure.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use crate::address::AddressRules;
use crate::address::RefusedAddress;
use crate::endpoint::Endpoint;
use crate::host::Host;

/// A target of an SRV record, or the service's own name, with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// In lower case, without the dot at its end.
    pub(super) name: String,
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) addresses: Vec<IpAddr>,
}

/// The endpoints of a service, and what was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapped {
    /// In an order that does not depend on that of the records, which servers change for each answer.
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) refused: Vec<RefusedAddress>,
}

/// Makes each address of each target an endpoint, where `rules` let it pass. A place that stands twice counts once, in its
/// best priority.
pub(super) fn map(mut targets: Vec<Target>, rules: &AddressRules) -> Mapped {
    targets.sort_by(|one, two| {
        let key = |target: &Target| (target.priority, target.port, target.weight);
        (one.priority, &one.name, key(one)).cmp(&(two.priority, &two.name, key(two)))
    });
    let mut seen = HashSet::new();
    let mut refused = HashSet::new();
    let mut mapped = Mapped::default();
    // The targets of each priority, with the addresses that are left of each.
    let mut groups: BTreeMap<u16, Vec<(Target, Vec<SocketAddr>)>> = BTreeMap::new();
    for mut target in targets {
        let mut addresses = std::mem::take(&mut target.addresses);
        addresses.sort_unstable();
        let mut good = Vec::new();
        for address in addresses {
            match rules.check(SocketAddr::new(address, target.port)) {
                Ok(address) if seen.insert(address) => good.push(address),
                Ok(_) => {}
                Err(error) => {
                    if refused.insert(error.address) {
                        mapped.refused.push(error);
                    }
                }
            }
        }
        if !good.is_empty() {
            let group = groups.entry(target.priority).or_default();
            group.push((target, good));
        }
    }
    for group in groups.values() {
        let shares: Vec<_> = group
            .iter()
            .map(|(target, addresses)| (target.weight, addresses.len()))
            .collect();
        for ((target, addresses), weight) in group.iter().zip(weights(&shares)) {
            for address in addresses {
                let mut endpoint = Endpoint::new(Host::listed(address.ip()), address.port());
                endpoint.priority = target.priority;
                endpoint.weight = weight;
                endpoint
                    .metadata
                    .insert(TARGET.to_owned(), target.name.clone());
                mapped.endpoints.push(endpoint);
            }
        }
    }
    mapped
}

/// The weight of each address, of targets that have such weights and so many addresses.
fn weights(shares: &[(u16, usize)]) -> Vec<NonZeroU16> {
    let heaviest = shares.iter().map(|(weight, _)| *weight).max();
    let heaviest = heaviest.unwrap_or_default();
    // "When there isn't any server selection to do", all weigh nothing.
    let weight_of = |weight: u16| if heaviest == 0 { 1 } else { weight };
    let is_even = shares
        .iter()
        .all(|(weight, addresses)| weight_of(*weight) > 0 && *addresses == 1);
    let scale = if is_even {
        1
    } else {
        (u32::from(u16::MAX) / u32::from(heaviest.max(1))).clamp(1, MAX_SCALE)
    };
    let weigh = |(weight, addresses): &(u16, usize)| {
        let scaled = u32::from(weight_of(*weight)) * scale;
        let divisor = u32::try_from(*addresses).unwrap_or(u32::MAX).max(1);
        let share = u16::try_from(scaled / divisor).unwrap_or(u16::MAX);
        NonZeroU16::new(share).unwrap_or(NonZeroU16::MIN)
    };
    shares.iter().map(weigh).collect()
}

/// The key of the metadata that holds the name of the target.
const TARGET: &str = "dns_target";
/// RFC 2782: "in the presence of records containing weights greater than 0, records with weight 0 should have a very small
/// chance of being selected"; a hundredth of the smallest other weight at least.
const MAX_SCALE: u32 = 100;

#[cfg(test)]
mod tests;
