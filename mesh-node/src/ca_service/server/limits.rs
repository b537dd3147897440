//! How often one name, or one address, may come.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use mesh_auth::spiffe::SpiffeId;
use mesh_resilience::limit::LimitConfig;
use mesh_resilience::limit::Limiter;
use mesh_resilience::limit::Window;
use parking_lot::Mutex;

use crate::error::Error;
use crate::stack::now;

#[derive(Debug)]
pub(super) struct Limits {
    renewals: Limiter,
    newcomers: Limiter,
    refusals: Limiter,
    seats: Arc<Mutex<Seats>>,
}

/// How many connections there are at present, by who holds them and from where. Each entry has one at least, so there are
/// at most as many as connections.
type Seats = BTreeMap<(Holder, String), usize>;

/// Who holds a connection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Holder {
    /// Nobody knows, or not yet.
    Stranger,
    /// A workload with a valid certificate.
    Member,
}

/// One connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Mutex<Seats>>,
    key: (Holder, String),
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.seats.lock();
        let left = seats.get(&self.key).map_or(0, |taken| taken - 1);
        if left == 0 {
            seats.remove(&self.key);
        } else {
            seats.insert(self.key.clone(), left);
        }
    }
}

impl Limits {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            renewals: limiter(RENEWALS, Duration::from_mins(1))?,
            newcomers: limiter(NEWCOMERS, Duration::from_mins(1))?,
            refusals: limiter(REFUSALS, Duration::from_secs(1))?,
            seats: Arc::default(),
        })
    }

    /// How long this workload is to wait before its next certificate.
    pub(super) fn renewal(&self, id: &SpiffeId) -> Result<(), Duration> {
        check(&self.renewals, id.as_str())
    }

    /// How long whoever comes from this address is to wait.
    pub(super) fn newcomer(&self, from: IpAddr) -> Result<(), Duration> {
        check(&self.newcomers, &network(from))
    }

    /// One more connection from this address, unless it has too many: nobody else could come (threat 33).
    pub(super) fn seat(&self, holder: Holder, from: IpAddr) -> Option<Seat> {
        let most = match holder {
            Holder::Stranger => STRANGERS,
            Holder::Member => MEMBERS,
        };
        let key = (holder, network(from));
        let mut seats = self.seats.lock();
        let taken = seats.get(&key).copied().unwrap_or_default();
        if taken >= most {
            return None;
        }
        seats.insert(key.clone(), taken + 1);
        Some(Seat {
            seats: Arc::clone(&self.seats),
            key,
        })
    }

    /// Whether one more refusal is written down: whoever reaches the port can cause them (threat 59).
    pub(super) fn is_written_down(&self) -> bool {
        check(&self.refusals, "").is_ok()
    }
}

/// An IPv6 host has a whole /64 to call from (threat 47).
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [one, two, three, four, ..] = address.segments();
            format!("{one:x}:{two:x}:{three:x}:{four:x}::/64")
        }
    }
}

fn check(limiter: &Limiter, key: &str) -> Result<(), Duration> {
    let verdict = limiter.check(key, now());
    if verdict.allowed {
        Ok(())
    } else {
        Err(verdict.retry_after)
    }
}

fn limiter(calls: u32, period: Duration) -> Result<Limiter, Error> {
    let calls = NonZeroU32::new(calls).unwrap_or(NonZeroU32::MIN);
    let config = LimitConfig::default().with_windows(vec![Window::new(calls, period)]);
    let made = Limiter::new(&config);
    made.map_err(|source| Error::config("the limits of the certificate authority", source))
}

/// Certificates of ten seconds' life for ten nodes of one name.
const RENEWALS: u32 = 120;
/// A rack behind one address that starts at once.
const NEWCOMERS: u32 = 600;
const REFUSALS: u32 = 10;
/// Connections from one address at a time whose holder shows no certificate: each asks once and goes.
const STRANGERS: usize = 256;
/// Connections from one address at a time of workloads: a cluster behind one address, where each waits for news.
const MEMBERS: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    // threat 47
    #[test]
    fn who_has_a_network_of_addresses_counts_as_one() {
        let same = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|address| network(address.parse().unwrap()));
            one == other
        };
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
    }

    // threat 33
    #[test]
    fn strangers_from_one_address_keep_nobody_else_out() {
        let limits = Limits::new().unwrap();
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let mut held: Vec<_> = (0..STRANGERS)
            .map(|_| limits.seat(Holder::Stranger, one).unwrap())
            .collect();
        assert!(limits.seat(Holder::Stranger, one).is_none());
        assert!(limits.seat(Holder::Stranger, other).is_some());
        assert!(limits.seat(Holder::Member, one).is_some());
        held.pop();
        held.push(limits.seat(Holder::Stranger, one).unwrap());
        drop(held);
        assert!(limits.seats.lock().is_empty());
    }

    #[test]
    fn each_name_has_a_limit_of_its_own() {
        let limits = Limits::new().unwrap();
        let [one, other] = ["a", "b"]
            .map(|service| SpiffeId::parse(&format!("spiffe://example.org/{service}")).unwrap());
        for _ in 0..RENEWALS {
            limits.renewal(&one).unwrap();
        }
        assert!(limits.renewal(&one).unwrap_err() > Duration::ZERO);
        limits.renewal(&other).unwrap();
    }
}
