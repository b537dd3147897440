//! The host of an endpoint: a checked name or address.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use crate::address::SpecialAddress;
use crate::address::check_address;

/// Where an endpoint is: an IP address, or a host name that the caller resolves; cheap to clone.
///
/// Made by [`Host::parse`] only, so that a value of this type is always a syntactically right name in lower
/// case, or an address outside the special ranges.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct Host(Repr);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Ip(IpAddr),
    Name(Arc<str>),
}

impl Host {
    /// Reads an IPv4 address, an IPv6 address (with or without brackets) or a host name.
    ///
    /// A name whose last label is a number is refused: resolvers take `2130706433` or `0x7f.1` for an
    /// address and would go round the check of address ranges.
    ///
    /// # Errors
    ///
    /// [`HostError`] when it is none of these or its address lies in a special range.
    pub fn parse(host: &str) -> Result<Self, HostError> {
        if let Some(inner) = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            return match inner.parse::<Ipv6Addr>() {
                Ok(address) => Self::from_ip(IpAddr::V6(address)),
                Err(_) => Err(HostError::Name),
            };
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return Self::from_ip(address);
        }
        check_name(host)?;
        Ok(Self(Repr::Name(host.to_ascii_lowercase().into())))
    }

    /// Takes an address.
    ///
    /// # Errors
    ///
    /// [`HostError::Special`] when the address lies in a special range.
    pub fn from_ip(address: IpAddr) -> Result<Self, HostError> {
        Ok(Self(Repr::Ip(check_address(address)?)))
    }

    /// Takes an address that [`AddressRules`](crate::AddressRules) let pass, which may be in a special range on purpose.
    #[cfg(feature = "dns")]
    pub(crate) fn listed(address: IpAddr) -> Self {
        Self(Repr::Ip(address.to_canonical()))
    }

    /// The address, unless this is a name.
    pub fn ip(&self) -> Option<IpAddr> {
        match &self.0 {
            Repr::Ip(address) => Some(*address),
            Repr::Name(_) => None,
        }
    }

    /// The name, unless this is an address.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Repr::Ip(_) => None,
            Repr::Name(name) => Some(name),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As it stands in an authority: an IPv6 address in brackets (RFC 3986 section 3.2.2).
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Repr::Ip(IpAddr::V4(address)) => write!(f, "{address}"),
            Repr::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(host: &str) -> Result<Self, HostError> {
        Self::parse(host)
    }
}

impl TryFrom<String> for Host {
    type Error = HostError;

    fn try_from(host: String) -> Result<Self, HostError> {
        Self::parse(&host)
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.to_string()
    }
}

/// Why a text is not the host of an endpoint.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Neither an address nor a host name.
    #[error(
        "a host must be an IP address or a name of at most 253 letters, digits, `-`, `_` and `.`"
    )]
    Name,

    /// A name that resolvers would take for an address in an unusual notation.
    #[error("a host name must not end in a number; write an IPv4 address as four decimal numbers")]
    Numeric,

    /// An address where no service can be.
    #[error("the address is in a special range")]
    Special(#[from] SpecialAddress),
}

fn check_name(name: &str) -> Result<(), HostError> {
    // One dot at the end marks an absolute name (RFC 1034 section 3.1).
    let relative = name.strip_suffix('.').unwrap_or(name);
    if relative.len() > MAX_NAME_BYTES || !relative.split('.').all(is_label) {
        return Err(HostError::Name);
    }
    // "Ends in a number" as in the WHATWG URL standard, section 3.5.
    let last = relative.rsplit('.').next().unwrap_or(relative);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = last.bytes().all(|b| b.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if is_number {
        Err(HostError::Numeric)
    } else {
        Ok(())
    }
}

/// RFC 1123 section 2.1, and `_`, which container tools put into names.
fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// RFC 1035 section 2.3.4: 255 octets on the wire are 253 as text.
const MAX_NAME_BYTES: usize = 253;
/// RFC 1035 section 2.3.4.
const MAX_LABEL_BYTES: usize = 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(host: &str, expected: Result<&str, HostError>) {
        let got = Host::parse(host).map(|host| host.to_string());
        assert_eq!(got.as_deref().map_err(|error| *error), expected, "{host:?}");
    }

    #[test]
    fn accepts_names_and_addresses() {
        check("10.0.0.7", Ok("10.0.0.7"));
        check("::1", Ok("[::1]"));
        check("[2001:DB8::1]", Ok("[2001:db8::1]"));
        check("::ffff:10.0.0.7", Ok("10.0.0.7"));
        check("Orders.Example.ORG", Ok("orders.example.org"));
        check("orders.example.org.", Ok("orders.example.org."));
        check("compose_orders_1", Ok("compose_orders_1"));
        check("localhost", Ok("localhost"));
        check("10.in-addr.arpa", Ok("10.in-addr.arpa"));
        check("0xcafe", Err(HostError::Numeric));
    }

    // threat 49, threat 51
    #[test]
    fn refuses_what_is_no_host_or_hides_an_address() {
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a/b",
            "a:80",
            "user@a",
            "a\0",
            "ä",
            "[::1",
            "[10.0.0.7]",
            "fe80::1%eth0",
        ] {
            check(bad, Err(HostError::Name));
        }
        check(&"a".repeat(64), Err(HostError::Name));
        check(&["a"; 128].join("."), Err(HostError::Name));
        for number in [
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "127.1",
            "1.2.3.4.5",
            "0177.0.0.01",
            "a.0x",
            "999.1.1.1.",
        ] {
            check(number, Err(HostError::Numeric));
        }
        assert!(matches!(
            Host::parse("169.254.169.254"),
            Err(HostError::Special(_))
        ));
        assert!(matches!(
            Host::parse("[::ffff:169.254.169.254]"),
            Err(HostError::Special(_))
        ));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_reads_back_the_same(text in "\\PC{0,40}|[a-z0-9.:\\[\\]-]{0,24}") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert_eq!(Host::parse(&host.to_string()), Ok(host));
            }
        }
    }
}
