//! This node's own listeners, and the addresses of the machine that it runs on.

use std::fs::File;
use std::io;
use std::io::Read as _;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use mesh_discovery::Endpoint;
use parking_lot::Mutex;

use crate::config::NodeConfig;
use crate::stack::now;

/// This node's own listeners.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) service: String,
    /// Where other nodes reach it.
    pub(crate) inbound: SocketAddr,
    /// All others.
    pub(crate) others: Vec<SocketAddr>,
    pub(crate) machine: Arc<Machine>,
}

impl Own {
    /// Those that `config` names.
    pub(crate) fn new(config: &NodeConfig) -> Self {
        let mut others = vec![config.outbound.listen, config.admin.listen];
        let upstreams = config.outbound.upstreams.iter();
        others.extend(upstreams.map(|upstream| upstream.bind));
        others.extend(config.service.tcp.iter().map(|tcp| tcp.listen));
        Self {
            service: config.service.id.clone(),
            inbound: config.service.listen,
            others,
            machine: Arc::default(),
        }
    }

    /// The listener of ours that `endpoint` is, unless it is where it belongs. What another name leads to is judged when it
    /// is connected to.
    pub(super) fn listener(&self, service: &str, endpoint: &Endpoint) -> Option<SocketAddr> {
        let ips = match (endpoint.host.name(), endpoint.host.ip()) {
            (Some(name), _) if is_localhost(name) => LOCALHOST.to_vec(),
            (_, ip) => ip.into_iter().collect(),
        };
        let port = endpoint.port;
        ips.into_iter().find_map(|ip| {
            let address = SocketAddr::new(ip, port);
            let inbound = (service != self.service).then_some(&self.inbound);
            let inbound = inbound.filter(|listener| self.is_it(**listener, address));
            self.other_than_inbound(address).or(inbound.copied())
        })
    }

    /// The listener of ours at `address` that no other node may reach.
    pub(crate) fn other_than_inbound(&self, address: SocketAddr) -> Option<SocketAddr> {
        let mut others = self.others.iter().copied();
        others.find(|listener| self.is_it(*listener, address))
    }

    fn is_it(&self, listener: SocketAddr, address: SocketAddr) -> bool {
        let (ip, bound) = (address.ip().to_canonical(), listener.ip().to_canonical());
        listener.port() == address.port()
            && (bound == ip || (bound.is_unspecified() && self.machine.has(ip)))
    }
}

/// RFC 6761 section 6.3: all names below it are loopback too.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// The addresses of this machine, as its kernel lists them.
///
/// # Sources
///
/// Linux, `Documentation/filesystems/proc.rst`, for `/proc/net/fib_trie` and `/proc/net/if_inet6`. Whether an address can be
/// bound to says nothing where `net.ipv4.ip_nonlocal_bind` is set, so that is asked only where the kernel lists none.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    read: Mutex<Option<(Instant, Option<Ranges>)>>,
}

/// Addresses with the lengths of their prefixes.
type Ranges = Vec<(IpAddr, u8)>;

impl Machine {
    /// Whether packets to `ip` stay on this machine.
    fn has(&self, ip: IpAddr) -> bool {
        if ip.is_loopback() || ip.is_unspecified() {
            return true;
        }
        let (mut read, now) = (self.read.lock(), now());
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= READ_AGAIN;
        if read.as_ref().is_none_or(|(at, _)| is_old(at)) {
            // What was read before is better than nothing, such as while there are no descriptors left.
            let before = read.take().and_then(|(_, ranges)| ranges);
            *read = Some((now, ranges().ok().or(before)));
        }
        match read.as_ref().and_then(|(_, ranges)| ranges.as_ref()) {
            Some(ranges) => ranges.iter().any(|range| covers(*range, ip)),
            None => can_be_bound(ip),
        }
    }
}

fn ranges() -> io::Result<Ranges> {
    let mut ranges = v4_ranges(&listed(V4_LIST)?);
    match listed(V6_LIST) {
        Ok(text) => ranges.extend(v6_addresses(&text)),
        // Without IPv6 there is no such list.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(ranges)
}

fn listed(path: &str) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_LIST).read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read < MAX_LIST) {
        Ok(text)
    } else {
        Err(io::Error::other("it is longer than is read"))
    }
}

/// The leaves of the trie of routes (`|-- 10.0.0.7`) that are local (`/32 host LOCAL`).
fn v4_ranges(text: &str) -> Ranges {
    let mut leaf: Option<Ipv4Addr> = None;
    let mut ranges = Ranges::new();
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        }
        let mut words = line.split(' ');
        if let (Some(length), Some("host"), Some("LOCAL")) =
            (words.next(), words.next(), words.next())
            && let Some(length) = length.strip_prefix('/').and_then(|text| text.parse().ok())
            && let Some(leaf) = leaf
        {
            ranges.push((leaf.into(), length));
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

/// One line an address, which comes first in 32 hexadecimal digits.
fn v6_addresses(text: &str) -> impl Iterator<Item = (IpAddr, u8)> {
    text.lines().filter_map(|line| {
        let digits = line.split(' ').next()?;
        let bits = u128::from_str_radix(digits, 16).ok()?;
        Some((Ipv6Addr::from(bits).into(), 128))
    })
}

fn covers((range, length): (IpAddr, u8), ip: IpAddr) -> bool {
    let of_128 = |bits: u128, length: u8| bits.checked_shr(128_u32.saturating_sub(length.into()));
    match (range, ip) {
        (IpAddr::V4(range), IpAddr::V4(ip)) => {
            let of_32 = |ip: Ipv4Addr| of_128(u128::from(ip.to_bits()), length.saturating_add(96));
            of_32(range) == of_32(ip)
        }
        (IpAddr::V6(range), IpAddr::V6(ip)) => {
            of_128(range.to_bits(), length) == of_128(ip.to_bits(), length)
        }
        _ => false,
    }
}

/// Where the kernel lists no addresses. What can't be found out is taken for ours.
fn can_be_bound(ip: IpAddr) -> bool {
    match UdpSocket::bind((ip, 0)) {
        Ok(_socket) => true,
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
    }
}

const LOCALHOST: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];
const V4_LIST: &str = "/proc/self/net/fib_trie";
const V6_LIST: &str = "/proc/self/net/if_inet6";
/// A machine with some hundred routes has 50 KB of them.
const MAX_LIST: u64 = 4 * 1024 * 1024;
/// Addresses hardly ever come and go.
const READ_AGAIN: Duration = Duration::from_secs(10);

#[cfg(test)]
impl Machine {
    /// One with these addresses, for ever.
    pub(crate) fn with(ranges: &[(&str, u8)]) -> Arc<Self> {
        let ranges = ranges
            .iter()
            .map(|(ip, length)| (ip.parse().unwrap(), *length));
        let far = now() + Duration::from_hours(1);
        Arc::new(Self {
            read: Mutex::new(Some((far, Some(ranges.collect())))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
        \x20    +-- 10.0.0.0/8 2 0 2\n        |-- 10.0.0.0\n           /24 link UNICAST\n        |-- 10.0.0.7\n\
        \x20          /32 host LOCAL\n        |-- 10.0.0.255\n           /32 link BROADCAST\n\
        Local:\n     |-- 10.0.0.7\n        /32 host LOCAL\n     |-- 192.0.2.0\n        /24 host LOCAL tos=8\n\
        \x20    |-- 127.0.0.0\n        /8 host LOCAL\n";
    const INET6: &str = "00000000000000000000000000000001 01 80 10 80       lo\n\
        fd000000000000000000000000000002 04 40 00 82     eth0\n";

    #[test]
    fn what_the_kernel_lists_as_local_is_this_machine_and_nothing_else() {
        let mut ranges = v4_ranges(TRIE);
        ranges.extend(v6_addresses(INET6));
        assert_eq!(ranges.len(), 5);
        let covered = |ip: &str| {
            let ip: IpAddr = ip.parse().unwrap();
            ranges.iter().any(|range| covers(*range, ip))
        };
        for ours in ["10.0.0.7", "192.0.2.77", "127.3.2.1", "::1", "fd00::2"] {
            assert!(covered(ours), "{ours}");
        }
        for other in [
            "10.0.0.8",
            "10.0.0.255",
            "192.0.3.1",
            "8.8.8.8",
            "fd00::3",
            "::2",
        ] {
            assert!(!covered(other), "{other}");
        }
        assert!(covers(("0.0.0.0".parse().unwrap(), 0), [9, 9, 9, 9].into()));
    }

    #[test]
    fn the_kernel_of_this_machine_lists_its_addresses() {
        let machine = Machine::default();
        assert!(machine.has([127, 0, 0, 1].into()));
        assert!(
            !machine.has([203, 0, 113, 77].into()),
            "TEST-NET-3 of RFC 5737"
        );
        let listed = ranges().unwrap();
        assert!(
            listed
                .iter()
                .any(|range| covers(*range, [127, 0, 0, 1].into()))
        );
    }
}
