//! Which addresses a name may lead to.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::str::FromStr;

use super::MULTICAST;
use super::RESERVED;
use super::THIS_NETWORK;
use super::UNSPECIFIED;
use super::special_range;

/// Which addresses the answers of a name server may hold. Stricter than [`check_address`](crate::check_address), because
/// whoever controls a name points it where he likes, at any time: loopback is refused too, and so are listeners of our own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressRules {
    /// Ranges that are right all the same. Unspecified, multicast and reserved addresses are refused even so.
    pub allow: Vec<AddressRange>,
    /// Where this process listens and no peer has any business, such as its port for the local application: calls that
    /// lead there would go round in circles, or reach what is meant for this machine only. An unspecified address stands
    /// for every loopback address; list the machine's other addresses too.
    pub own: Vec<SocketAddr>,
}

impl AddressRules {
    /// Passes an address on unless it is refused; an IPv4 address inside IPv6 comes out as IPv4.
    ///
    /// # Errors
    ///
    /// [`RefusedAddress`] for one in a special range or of a listener of our own, unless its range is allowed.
    pub fn check(&self, address: SocketAddr) -> Result<SocketAddr, RefusedAddress> {
        let ip = address.ip().to_canonical();
        let address = SocketAddr::new(ip, address.port());
        let range = special_range(ip);
        if range.is_some_and(|range| NEVER.contains(&range)) {
            return Err(RefusedAddress { address, range });
        }
        if self.allow.iter().any(|allowed| allowed.contains(ip)) {
            return Ok(address);
        }
        if range.is_some() || self.own.iter().any(|own| is_same_listener(*own, address)) {
            return Err(RefusedAddress { address, range });
        }
        Ok(address)
    }
}

fn is_same_listener(own: SocketAddr, address: SocketAddr) -> bool {
    let ip = own.ip().to_canonical();
    own.port() == address.port()
        && (ip == address.ip() || (ip.is_unspecified() && address.ip().is_loopback()))
}

/// A name leads where it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedAddress {
    /// Where it leads.
    pub address: SocketAddr,
    /// What the range of its address is for; none where it is a listener of our own.
    pub range: Option<&'static str>,
}

impl fmt::Display for RefusedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, range } = self;
        match range {
            Some(range) if NEVER.contains(range) => {
                write!(f, "{address} is {range}, where no service can be")
            }
            Some(range) => write!(f, "{address} is {range}; allow its range if that is right"),
            None => write!(
                f,
                "{address} is a listener of our own; allow its range if that is right"
            ),
        }
    }
}

impl std::error::Error for RefusedAddress {}

/// A range of addresses, as `10.0.0.0/8`, `fd00::/8` or a single address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct AddressRange {
    first: IpAddr,
    prefix: u8,
}

impl AddressRange {
    /// Reads an address, or an address and the length of its prefix.
    ///
    /// # Errors
    ///
    /// [`AddressRangeError`] when it is neither, or has bits beyond its prefix.
    pub fn parse(text: &str) -> Result<Self, AddressRangeError> {
        let wrong = || AddressRangeError {
            text: text.chars().take(LONGEST_SHOWN).collect(),
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().ok().ok_or_else(wrong)?;
        let bits = if first.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            // No sign, no leading zero.
            Some(digits) => digits
                .parse::<u8>()
                .ok()
                .filter(|prefix| prefix.to_string() == digits)
                .ok_or_else(wrong)?,
            None => bits,
        };
        let range = Self { first, prefix };
        if prefix > bits || first != masked(first, prefix) {
            return Err(wrong());
        }
        Ok(range)
    }

    /// True when `address` lies in the range; an IPv4 address inside IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && masked(address, self.prefix) == self.first
    }
}

/// `address` with all bits after `prefix` cleared.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix));
            Ipv4Addr::from(v4.to_bits() & mask.unwrap_or(0)).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix));
            std::net::Ipv6Addr::from(v6.to_bits() & mask.unwrap_or(0)).into()
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl fmt::Debug for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for AddressRange {
    type Error = AddressRangeError;

    fn try_from(text: String) -> Result<Self, AddressRangeError> {
        Self::parse(&text)
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

/// A text is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no range of addresses; write an address or, as 10.0.0.0/8, its first address and the bits they share"
)]
#[non_exhaustive]
pub struct AddressRangeError {
    /// The text, shortened.
    pub text: String,
}

/// No connection can lead there, or one to this machine whatever its loopback addresses are.
const NEVER: [&str; 4] = [MULTICAST, RESERVED, THIS_NETWORK, UNSPECIFIED];
/// Of a text that is not understood.
const LONGEST_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str], own: &[&str]) -> AddressRules {
        AddressRules {
            allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
            own: own.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn passes(rules: &AddressRules, address: &str) -> bool {
        rules.check(address.parse().unwrap()).is_ok()
    }

    // threat 49
    #[test]
    fn a_name_leads_to_no_special_address_unless_its_range_is_listed() {
        let strict = rules(&[], &[]);
        for ordinary in ["10.0.0.7:80", "192.168.1.1:80", "8.8.8.8:1", "[fd00::1]:80"] {
            assert!(passes(&strict, ordinary), "{ordinary}");
        }
        for special in [
            "127.0.0.1:80",
            "127.8.8.8:80",
            "[::1]:80",
            "[::127.0.0.1]:80",
            "[::ffff:127.0.0.1]:80",
            "[64:ff9b::7f00:1]:80",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "[fd00:ec2::254]:80",
            "100.100.100.200:80",
        ] {
            assert!(!passes(&strict, special), "{special}");
            let open = rules(&["0.0.0.0/0", "::/0"], &[]);
            assert!(passes(&open, special), "{special}");
        }
        let loopback = rules(&["127.0.0.0/8"], &[]);
        assert!(passes(&loopback, "127.0.0.1:80"));
        assert!(!passes(&loopback, "[::1]:80"));
        assert!(!passes(&loopback, "169.254.1.1:80"));
    }

    #[test]
    fn where_no_service_can_be_nothing_is_allowed() {
        let open = rules(&["0.0.0.0/0", "::/0"], &[]);
        for never in [
            "0.0.0.0:80",
            "[::]:80",
            "[::ffff:0.0.0.0]:80",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "255.255.255.255:80",
        ] {
            assert!(!passes(&open, never), "{never}");
        }
    }

    // threat 49
    #[test]
    fn a_name_leads_to_no_listener_of_our_own() {
        let rules = rules(&["127.0.0.0/8"], &["10.0.0.7:15001", "[::]:9090"]);
        assert!(!passes(&rules, "10.0.0.7:15001"));
        assert!(!passes(&rules, "[::ffff:10.0.0.7]:15001"));
        assert!(passes(&rules, "10.0.0.7:15002"));
        assert!(passes(&rules, "10.0.0.8:15001"));
        // Listed on purpose.
        assert!(passes(&rules, "127.0.0.1:9090"));
        let strict = AddressRules {
            own: rules.own,
            ..AddressRules::default()
        };
        let refused = strict.check("127.0.0.1:9090".parse().unwrap()).unwrap_err();
        assert_eq!(refused.range, Some("loopback"));
    }

    #[test]
    fn a_range_is_an_address_or_one_with_the_length_of_its_prefix() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "::1", "1.2.3.4"),
            ("::1/128", "::1", "::2"),
        ] {
            let range: AddressRange = text.parse().unwrap();
            assert!(range.contains(inside.parse().unwrap()), "{text}");
            assert!(!range.contains(outside.parse().unwrap()), "{text}");
            assert_eq!(range.to_string().parse(), Ok(range));
        }
        assert!(
            AddressRange::parse("127.0.0.0/8")
                .unwrap()
                .contains("::ffff:127.0.0.1".parse().unwrap())
        );
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/",
            "::/129",
            "localhost",
            "10.0.0/8",
        ] {
            assert!(AddressRange::parse(bad).is_err(), "{bad}");
        }
    }
}
