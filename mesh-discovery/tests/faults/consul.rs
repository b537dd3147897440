//! Consul: one agent that keeps its data, and one that comes back without.

use std::sync::Arc;

use mesh_discovery::Driver;
use mesh_discovery::Registry;
use mesh_discovery::consul::Client;
use mesh_discovery::consul::Config;
use mesh_discovery::consul::SourceConfig;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::events::Fleet;
use crate::events::Target;
use crate::follower::Follower;
use crate::follower::Set;
use crate::follower::Truth;
use crate::plan::LIMIT;
use crate::plan::Plan;
use crate::plan::Run;
use crate::plan::registry;
use crate::say;
use crate::support::client::quick;
use crate::support::consul::Consul;
use crate::support::relay::Flow;
use crate::support::relay::Relay;

pub(crate) const SERVICE: &str = "orders";

/// The agent of Consul at a port.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) http: u16,
}

impl Agent {
    fn id(port: u16) -> String {
        format!("{SERVICE}-{port}")
    }
}

impl Target for Agent {
    fn put(&self, port: u16, number: u64) -> bool {
        let definition = json!({
            "ID": Self::id(port), "Name": SERVICE, "Address": "127.0.0.1", "Port": port,
            "Meta": { "version": number.to_string() },
        });
        let path = "/v1/agent/service/register";
        quick(self.http, "PUT", path, &definition.to_string())
            .is_some_and(|(status, _)| status == 200)
    }

    fn remove(&self, port: u16) -> bool {
        let path = format!("/v1/agent/service/deregister/{}", Self::id(port));
        // Consul 1.8 answers 500 for what it does not know, as after a first attempt whose answer was lost.
        quick(self.http, "PUT", &path, "")
            .is_some_and(|(status, body)| status == 200 || body.contains("Unknown service"))
    }

    fn all(&self) -> Option<Set> {
        let path = format!("/v1/health/service/{SERVICE}");
        let (status, body) = quick(self.http, "GET", &path, "")?;
        let list: Vec<Value> = serde_json::from_str(&body).ok()?;
        let endpoint = |entry: &Value| {
            let port = entry["Service"]["Port"].as_u64()?;
            let version = entry["Service"]["Meta"]["version"].as_str()?;
            Some((u16::try_from(port).ok()?, version.parse().ok()?))
        };
        (status == 200).then(|| list.iter().map(endpoint).collect())?
    }
}

pub(crate) fn source(address: &str, truth: &Arc<Truth>) -> (Registry, Driver) {
    let config = Config::new(format!("http://{address}"));
    let client = Client::new(&config, None, Arc::new(|| 500)).unwrap();
    let registry = registry("consul", truth);
    mesh_discovery::consul::source(client, SourceConfig::default(), registry).unwrap()
}

/// A fleet in an agent, and who follows it over a wire that can be cut.
fn begin<'a>(agent: &'a Agent, relay: &Relay) -> Run<'a> {
    let plan = Plan::chosen();
    let fleet = Fleet::register(plan.seed, agent);
    let follower = Follower::start(SERVICE, &fleet.truth, || {
        source(&relay.address, &fleet.truth)
    });
    Run::begin(plan, agent, fleet, follower)
}

#[test]
fn whatever_befalls_an_agent_of_consul_who_follows_it_comes_to_its_set() {
    let dir = TempDir::new().unwrap();
    let Some(mut consul) = Consul::start_lasting(dir.path()) else {
        return;
    };
    let relay = Relay::start(consul.http);
    let agent = Agent { http: consul.http };
    let mut run = begin(&agent, &relay);
    while run.goes_on() {
        run.round("frozen", |run| {
            consul.process().freeze();
            run.lasts();
            consul.process().thaw();
        });
        run.round("killed, back with its data", |run| {
            consul.kill();
            run.lasts();
            consul.start_again();
        });
        for (fault, flow) in [
            ("answers held back", Flow::There),
            ("questions held back", Flow::Back),
            ("cut off", Flow::None),
        ] {
            run.round(fault, |run| {
                relay.let_pass(flow);
                run.burst();
                run.lasts();
                relay.let_pass(Flow::Both);
            });
        }
        run.round("every connection closed", |_| relay.cut());
    }
    say(&format!("D-5 Consul\n{run}"));
}

// threat 50
#[test]
fn a_consul_that_lost_its_data_takes_nothing_away_while_it_is_told_anew() {
    let dir = TempDir::new().unwrap();
    let Some(mut consul) = Consul::start(dir.path()) else {
        return;
    };
    let relay = Relay::start(consul.http);
    let agent = Agent { http: consul.http };
    let mut run = begin(&agent, &relay);
    for _ in 0..run.plan.resets {
        run.round("back without its data, index anew", |run| {
            consul.kill();
            run.lasts();
            let down = Instant::now();
            consul.start_again();
            let took = run.follower.takes_until_answer(down, LIMIT);
            run.note("asked again after its return", took);
            run.fleet.register_again(run.target, run.plan.told_again);
        });
    }
    say(&format!("D-5 Consul without its data\n{run}"));
}
