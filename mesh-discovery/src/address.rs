//! Addresses that no endpoint may have, whatever a registry says.
//!
//! A registry or a name server that lies could send traffic to the cloud's metadata service, or to every
//! host of a link. Loopback and private ranges stay allowed: a mesh without Kubernetes lives there. Answers of name servers
//! are judged more strictly, by [`AddressRules`].
//!
//! # Sources
//!
//! IANA IPv4 and IPv6 special-purpose address registries (RFC 6890); RFC 4291 sections 2.5.5 (IPv4 inside
//! IPv6) and 2.7 (multicast); RFC 6052 section 2.1 (NAT64 prefix); the metadata addresses as published by
//! the cloud providers.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

mod rules;

pub use self::rules::AddressRange;
pub use self::rules::AddressRangeError;
pub use self::rules::AddressRules;
pub use self::rules::RefusedAddress;

/// An address lies in a range that an endpoint must not have.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("address {address} is {range}, where no service can be; correct the registry entry")]
pub struct SpecialAddress {
    /// The address.
    pub address: IpAddr,
    /// What the range is for.
    pub range: &'static str,
}

/// Passes an address on unless it lies in a special range; an IPv4 address inside IPv6 comes out as IPv4.
///
/// Whoever resolves the host name of an endpoint passes every answer through here, so that a name can't
/// lead where an address is refused.
///
/// # Errors
///
/// [`SpecialAddress`] for unspecified, multicast, link-local, reserved and cloud metadata addresses.
pub fn check_address(address: IpAddr) -> Result<IpAddr, SpecialAddress> {
    let address = address.to_canonical();
    match special_range(address) {
        None | Some(LOOPBACK) => Ok(address),
        Some(range) => Err(SpecialAddress { address, range }),
    }
}

/// What the range is for that an address lies in, unless it is an ordinary one.
fn special_range(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [first, second, ..] = address.octets();
    match first {
        0 => Some(THIS_NETWORK),
        127 => Some(LOOPBACK),
        169 if second == 254 => Some("link-local"),
        224..=239 => Some(MULTICAST),
        240..=255 => Some(RESERVED),
        _ if METADATA_V4.contains(&address) => Some("a cloud metadata service"),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some(UNSPECIFIED);
    }
    if address.is_multicast() {
        return Some(MULTICAST);
    }
    if address.is_unicast_link_local() {
        return Some("link-local");
    }
    if address == METADATA_V6 {
        return Some("a cloud metadata service");
    }
    if address.is_loopback() {
        return Some(LOOPBACK);
    }
    // NAT64 and the old IPv4-compatible form lead to the IPv4 address in the last four octets.
    let [prefix @ .., high, low] = address.segments();
    if prefix == [0; 6] || prefix == NAT64 {
        return special_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    }
    None
}

const LOOPBACK: &str = "loopback";
const MULTICAST: &str = "multicast";
const RESERVED: &str = "reserved or broadcast";
const THIS_NETWORK: &str = "unspecified or of this network";
const UNSPECIFIED: &str = "unspecified";

/// The well-known prefix `64:ff9b::/96` (RFC 6052 section 2.1).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Metadata services outside the link-local range: Azure, Alibaba Cloud, Oracle Cloud.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// The metadata service of AWS over IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

#[cfg(test)]
mod tests {
    use super::*;

    fn range_of(text: &str) -> Option<&'static str> {
        check_address(text.parse().unwrap())
            .err()
            .map(|special| special.range)
    }

    #[test]
    fn lets_ordinary_addresses_pass() {
        for text in [
            "10.0.0.7",
            "127.0.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "8.8.8.8",
            "::1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert_eq!(range_of(text), None, "{text}");
        }
        assert_eq!(
            check_address("::ffff:10.0.0.7".parse().unwrap()),
            Ok("10.0.0.7".parse().unwrap())
        );
    }

    // threat 49
    #[test]
    fn refuses_special_ranges_in_every_disguise() {
        for (text, range) in [
            ("0.0.0.0", "unspecified or of this network"),
            ("0.1.2.3", "unspecified or of this network"),
            ("::", "unspecified"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "reserved or broadcast"),
            ("240.0.0.1", "reserved or broadcast"),
            ("169.254.169.254", "link-local"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("::ffff:169.254.169.254", "link-local"),
            ("::ffff:0.0.0.0", "unspecified or of this network"),
            ("64:ff9b::a9fe:a9fe", "link-local"),
            ("::169.254.169.254", "link-local"),
            ("168.63.129.16", "a cloud metadata service"),
            ("100.100.100.200", "a cloud metadata service"),
            ("fd00:ec2::254", "a cloud metadata service"),
        ] {
            assert_eq!(range_of(text), Some(range), "{text}");
        }
    }
}
