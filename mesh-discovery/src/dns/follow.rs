//! Following one service.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future;
use hickory_resolver::proto::rr::Name;

use super::Error;
use super::Kind;
use super::answer::Data;
use super::answer::Srv;
use super::exchange::Exchange;
use super::lookup::Found;
use super::lookup::lookup;
use super::mapping;
use super::mapping::Target;
use super::naming::Naming;
use super::schedule::Life;
use super::schedule::Schedule;
use crate::address::AddressRules;
use crate::endpoint::Endpoint;
use crate::endpoint::MAX_ENDPOINTS_PER_SERVICE;
use crate::registry::Reporter;

/// What all services have in common.
#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) naming: Naming,
    pub(super) exchange: Exchange,
    pub(super) schedule: Schedule,
    pub(super) srv: bool,
    pub(super) port: Option<u16>,
    pub(super) addresses: AddressRules,
}

/// What a service's name led to.
struct Resolved {
    endpoints: Vec<Endpoint>,
    life: Life,
    /// What is not as it should be, although there is an answer.
    flaws: Vec<String>,
    /// Some lookups failed, and what they gave before stands in for them.
    is_partial: bool,
}

/// The addresses that names had when they could be looked up last.
type Memory = HashMap<(Name, Kind), Vec<IpAddr>>;

/// Asks for one service until it is dropped.
pub(super) async fn follow(resolver: Arc<Resolver>, reporter: Reporter) {
    let name = match resolver.naming.of(reporter.service()) {
        Ok(name) => name,
        Err(error) => return reporter.failed(&error),
    };
    let mut memory = Memory::new();
    let mut failures = 0_u32;
    let mut told = Vec::new();
    loop {
        let pause = match resolver.resolve(&name, &mut memory).await {
            Ok(outcome) => {
                failures = if outcome.is_partial {
                    failures.saturating_add(1)
                } else {
                    0
                };
                if !outcome.flaws.is_empty() && outcome.flaws != told {
                    tracing::warn!(service = %reporter.service(), %name,
                        count = outcome.flaws.len(), flaws = ?outcome.flaws.get(..SHOWN).unwrap_or(&outcome.flaws),
                        "parts of what dns says can't be used");
                }
                told = outcome.flaws;
                reporter.found(outcome.endpoints);
                let pause = resolver.schedule.after(outcome.life);
                if failures > 0 {
                    pause.min(resolver.schedule.after_failures(failures))
                } else {
                    pause
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                reporter.failed(&error);
                resolver.exchange.look_again();
                resolver.schedule.after_failures(failures)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

impl Resolver {
    async fn resolve(&self, name: &Name, memory: &mut Memory) -> Result<Resolved, Error> {
        let nothing = |life| Resolved {
            endpoints: Vec::new(),
            life,
            flaws: Vec::new(),
            is_partial: false,
        };
        let mut life = None;
        if self.srv {
            let found = lookup(&self.exchange, name, Kind::Srv).await?;
            let records = found.records.into_iter().filter_map(|data| match data {
                Data::Srv(srv) => Some(srv),
                Data::Address(_) => None,
            });
            let records: Vec<Srv> = records.collect();
            if !records.is_empty() {
                return self.targets(name, records, found.life, memory).await;
            }
            life = Some(found.life);
        }
        let Some(port) = self.port else {
            return Ok(nothing(life.unwrap_or(Life::Negative(None))));
        };
        let own = Srv {
            priority: 0,
            weight: 1,
            port,
            target: name.clone(),
        };
        // That there is no SRV record is known for as long as what is there instead, so that one is found when it appears.
        let resolved = self.addresses_of(name, vec![own], memory).await?;
        let life = life.map_or(resolved.life, |life| life.and(resolved.life));
        Ok(Resolved { life, ..resolved })
    }

    async fn targets(
        &self,
        name: &Name,
        mut records: Vec<Srv>,
        life: Life,
        memory: &mut Memory,
    ) -> Result<Resolved, Error> {
        // RFC 2782: a target of "." means that the service is decidedly not available at this domain.
        records.retain(|srv| !srv.target.is_root());
        if records.is_empty() {
            memory.clear();
            let life = match life {
                Life::Positive(ttl) => Life::Negative(Some(ttl)),
                negative @ Life::Negative(_) => negative,
            };
            return Ok(Resolved {
                endpoints: Vec::new(),
                life,
                flaws: Vec::new(),
                is_partial: false,
            });
        }
        let resolved = self.addresses_of(name, records, memory).await?;
        let life = match resolved.life {
            Life::Positive(_) => life.and(resolved.life),
            // No target has an address: they are asked for again as if there were nothing.
            negative @ Life::Negative(_) => negative,
        };
        Ok(Resolved { life, ..resolved })
    }

    /// The endpoints at the addresses of all targets.
    async fn addresses_of(
        &self,
        name: &Name,
        records: Vec<Srv>,
        memory: &mut Memory,
    ) -> Result<Resolved, Error> {
        let mut names: Vec<Name> = records.iter().map(|srv| srv.target.clone()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() > MAX_TARGETS {
            return Err(Error::TooMany {
                name: name.to_ascii(),
                count: names.len(),
                limit: MAX_TARGETS,
            });
        }
        let questions = names
            .iter()
            .flat_map(|name| [(name.clone(), Kind::A), (name.clone(), Kind::Aaaa)]);
        let answers = future::join_all(questions.map(|(name, kind)| async move {
            let found = lookup(&self.exchange, &name, kind).await;
            ((name, kind), found)
        }))
        .await;

        let mut gathered = Gathered::default();
        let mut fresh = Memory::new();
        for (question, found) in answers {
            let before = memory.get(&question);
            let addresses = gathered.take(&question, found, before);
            fresh.insert(question, addresses);
        }
        *memory = fresh;
        let targets = with_addresses(name, &records, memory)?;
        gathered.map(name, targets, &self.addresses)
    }
}

/// The targets of all records with their addresses. Many records may share a target, so what they make together is counted
/// before any of it is made.
fn with_addresses(name: &Name, records: &[Srv], memory: &Memory) -> Result<Vec<Target>, Error> {
    let of = |srv: &Srv| {
        let of_kind = |kind| memory.get(&(srv.target.clone(), kind));
        [of_kind(Kind::A), of_kind(Kind::Aaaa)]
            .into_iter()
            .flatten()
    };
    let count = records.iter().flat_map(of).map(Vec::len).sum();
    if count > MAX_ENDPOINTS_PER_SERVICE {
        return Err(Error::TooMany {
            name: name.to_ascii(),
            count,
            limit: MAX_ENDPOINTS_PER_SERVICE,
        });
    }
    let target = |srv: &Srv| Target {
        name: shown(&srv.target),
        priority: srv.priority,
        weight: srv.weight,
        port: srv.port,
        addresses: of(srv).flatten().copied().collect(),
    };
    Ok(records.iter().map(target).collect())
}

/// The answers for all targets.
#[derive(Default)]
struct Gathered {
    life: Option<Life>,
    flaws: Vec<String>,
    failure: Option<Error>,
    is_answered: bool,
    /// Names that have addresses; of others that is noted.
    names: BTreeMap<Name, bool>,
}

impl Gathered {
    /// The addresses that one answer gives, or those of `before` where it is none.
    fn take(
        &mut self,
        (name, kind): &(Name, Kind),
        found: Result<Found, Error>,
        before: Option<&Vec<IpAddr>>,
    ) -> Vec<IpAddr> {
        let addresses = match found {
            Ok(found) => {
                self.is_answered = true;
                self.life = Some(self.life.map_or(found.life, |life| life.and(found.life)));
                let address = |data| match data {
                    Data::Address(address) => Some(address),
                    Data::Srv(_) => None,
                };
                found.records.into_iter().filter_map(address).collect()
            }
            Err(error) => {
                self.flaws.push(format!("{kind} {name}: {error}"));
                self.failure.get_or_insert(error);
                before.cloned().unwrap_or_default()
            }
        };
        *self.names.entry(name.clone()).or_default() |= !addresses.is_empty();
        addresses
    }

    fn map(
        mut self,
        name: &Name,
        targets: Vec<Target>,
        rules: &AddressRules,
    ) -> Result<Resolved, Error> {
        let mapped = mapping::map(targets, rules);
        let is_partial = self.failure.is_some();
        if !self.is_answered || mapped.endpoints.is_empty() {
            // What can't be had is not what is not there.
            if let Some(error) = self.failure {
                return Err(error);
            }
        }
        if let (true, Some(first)) = (mapped.endpoints.is_empty(), mapped.refused.first()) {
            return Err(Error::Refused {
                name: name.to_ascii(),
                count: mapped.refused.len(),
                first: *first,
            });
        }
        // A name of its own without addresses is how a service without SRV records is not there.
        let empty = self
            .names
            .iter()
            .filter(|(target, has_some)| !**has_some && *target != name);
        self.flaws
            .extend(empty.map(|(target, _)| format!("{target} has no address")));
        self.flaws
            .extend(mapped.refused.iter().map(ToString::to_string));
        Ok(Resolved {
            endpoints: mapped.endpoints,
            life: self.life.unwrap_or(Life::Negative(None)),
            flaws: self.flaws,
            is_partial,
        })
    }
}

/// A name without the dot at its end.
fn shown(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').map(str::to_owned).unwrap_or(text)
}

/// Each costs two questions.
const MAX_TARGETS: usize = 256;
/// Of all that is wrong with an answer.
const SHOWN: usize = 8;

#[cfg(test)]
mod tests;
