//! One name and kind, through all its aliases.

use hickory_resolver::proto::rr::Name;

use super::Error;
use super::Kind;
use super::answer;
use super::answer::Data;
use super::answer::Read;
use super::exchange::Exchange;
use super::exchange::Reply;
use super::schedule::Life;

/// What there is under a name.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// None where there is nothing.
    pub(super) records: Vec<Data>,
    pub(super) life: Life,
}

/// Asks for `name` and what it is an alias of.
pub(super) async fn lookup(exchange: &Exchange, name: &Name, kind: Kind) -> Result<Found, Error> {
    let mut name = name.clone();
    let mut hops = 0;
    // Of the aliases on the way.
    let mut alias: Option<Life> = None;
    loop {
        let within = |life: Life| alias.map_or(life, |alias| alias.and(life));
        match exchange.ask(&name, kind).await? {
            Reply::Nothing(ttl) => {
                // An alias of nothing is nothing, and counts as such for no longer than either.
                let life = match (within(Life::Negative(ttl)), ttl) {
                    (Life::Positive(both), Some(_)) => Life::Negative(Some(both)),
                    _ => Life::Negative(ttl),
                };
                return Ok(Found {
                    records: Vec::new(),
                    life,
                });
            }
            Reply::Records(records) => match answer::read((&name, kind), &records, hops)? {
                Read::Found(records, ttl) => {
                    return Ok(Found {
                        records,
                        life: within(Life::Positive(ttl)),
                    });
                }
                Read::Alias(next, ttl, so_far) => {
                    alias = Some(within(Life::Positive(ttl)));
                    (name, hops) = (next, so_far);
                }
            },
        }
    }
}
