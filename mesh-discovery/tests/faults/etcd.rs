//! etcd: three members, each reached over a wire of its own that can be cut.

use std::sync::Arc;

use mesh_discovery::Driver;
use mesh_discovery::Registry;
use mesh_discovery::etcd::Client;
use mesh_discovery::etcd::Config;
use mesh_discovery::etcd::SourceConfig;
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
use crate::support::etcd::Etcd;
use crate::support::etcd::decode;
use crate::support::etcd::encode;
use crate::support::etcd::end_of;
use crate::support::relay::Flow;
use crate::support::relay::Relay;

pub(crate) const SERVICE: &str = "orders";

/// A cluster of etcd; each call goes to the first member that answers.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) ports: Vec<u16>,
}

impl Cluster {
    fn prefix() -> String {
        format!("/mesh/services/{SERVICE}/")
    }

    fn call(&self, path: &str, body: &Value) -> Option<Value> {
        let path = format!("/v3/{path}");
        let mut answers = self
            .ports
            .iter()
            .filter_map(|&port| quick(port, "POST", &path, &body.to_string()));
        let good = answers.find(|(status, _)| *status == 200)?;
        serde_json::from_str(&good.1).ok()
    }
}

impl Target for Cluster {
    fn put(&self, port: u16, number: u64) -> bool {
        let value = json!({ "host": "127.0.0.1", "port": port, "version": number.to_string() });
        let key = format!("{}{port}", Self::prefix());
        let body = json!({ "key": encode(&key), "value": encode(&value.to_string()) });
        self.call("kv/put", &body).is_some()
    }

    fn remove(&self, port: u16) -> bool {
        let body = json!({ "key": encode(&format!("{}{port}", Self::prefix())) });
        self.call("kv/deleterange", &body).is_some()
    }

    fn all(&self) -> Option<Set> {
        let prefix = Self::prefix();
        let body = json!({ "key": encode(&prefix), "range_end": encode(&end_of(&prefix)) });
        let found = self.call("kv/range", &body)?;
        let endpoint = |pair: &Value| {
            let value: Value = serde_json::from_str(&decode(&pair["value"])).ok()?;
            let port = value["port"].as_u64()?;
            Some((
                u16::try_from(port).ok()?,
                value["version"].as_str()?.parse().ok()?,
            ))
        };
        found["kvs"].as_array().map_or_else(
            || Some(Set::new()),
            |pairs| pairs.iter().map(endpoint).collect(),
        )
    }
}

pub(crate) fn source(wires: &[Relay], truth: &Arc<Truth>) -> (Registry, Driver) {
    let urls = wires.iter().map(|wire| format!("http://{}", wire.address));
    let client = Client::new(&Config::new(urls), Arc::new(|| 500)).unwrap();
    mesh_discovery::etcd::source(client, &SourceConfig::default(), registry("etcd", truth)).unwrap()
}

/// A fleet in a cluster, and who follows it over wires that can be cut.
fn begin<'a>(cluster: &'a Cluster, wires: &[Relay]) -> Run<'a> {
    let plan = Plan::chosen();
    let fleet = Fleet::register(plan.seed, cluster);
    let follower = Follower::start(SERVICE, &fleet.truth, || source(wires, &fleet.truth));
    Run::begin(plan, cluster, fleet, follower)
}

/// What befalls all wires at once.
fn let_pass(wires: &[Relay], flow: Flow) {
    for wire in wires {
        wire.let_pass(flow);
    }
}

#[test]
fn whatever_befalls_a_cluster_of_etcd_who_follows_it_comes_to_its_set() {
    let dir = TempDir::new().unwrap();
    let Some(mut etcd) = Etcd::start_cluster(dir.path()) else {
        return;
    };
    let wires: Vec<_> = etcd.ports().into_iter().map(Relay::start).collect();
    let target = Cluster {
        ports: etcd.ports(),
    };
    let mut run = begin(&target, &wires);
    while run.goes_on() {
        faults_of_members(&mut run, &mut etcd);
        faults_of_wires(&mut run, &etcd, &wires);
    }
    say(&format!("D-5 etcd, three members\n{run}"));
}

// threat 50
#[test]
fn an_etcd_that_lost_its_data_takes_nothing_away_while_it_is_told_anew() {
    let dir = TempDir::new().unwrap();
    let Some(mut etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let wires = [Relay::start(etcd.port())];
    let target = Cluster {
        ports: etcd.ports(),
    };
    let mut run = begin(&target, &wires);
    for _ in 0..run.plan.resets {
        run.round("back without its data, revisions anew", |run| {
            etcd.member_mut(0).server.process.kill();
            run.lasts();
            let down = Instant::now();
            etcd.start_empty();
            let took = run.follower.takes_until_answer(down, LIMIT);
            run.note("asked again after its return", took);
            run.fleet.register_again(run.target, run.plan.told_again);
        });
    }
    say(&format!("D-5 etcd without its data\n{run}"));
}

fn faults_of_members(run: &mut Run<'_>, etcd: &mut Etcd) {
    run.round("leader frozen", |run| {
        let leader = etcd.leader();
        etcd.member(leader).server.process.freeze();
        run.lasts();
        etcd.member(leader).server.process.thaw();
    });
    run.round("leader killed, back with its data", |run| {
        let leader = etcd.leader();
        etcd.member_mut(leader).server.process.kill();
        run.burst();
        run.lasts();
        etcd.member_mut(leader).server.start_again();
        etcd.wait_ready();
    });
    run.round("two of three frozen, no leader", |run| {
        for index in 0..2 {
            etcd.member(index).server.process.freeze();
        }
        run.lasts();
        for index in 0..2 {
            etcd.member(index).server.process.thaw();
        }
        etcd.wait_ready();
    });
    run.round("all killed, back with their data", |run| {
        for index in 0..3 {
            etcd.member_mut(index).server.process.kill();
        }
        run.lasts();
        for index in 0..3 {
            etcd.member_mut(index).server.start_again();
        }
        etcd.wait_ready();
    });
}

fn faults_of_wires(run: &mut Run<'_>, etcd: &Etcd, wires: &[Relay]) {
    run.round("history compacted", |_| etcd.compact());
    run.round("history compacted while cut off", |run| {
        let_pass(wires, Flow::None);
        run.burst();
        etcd.compact();
        run.lasts();
        let_pass(wires, Flow::Both);
    });
    run.round("history compacted, connections closed", |run| {
        let_pass(wires, Flow::None);
        run.burst();
        etcd.compact();
        wires.iter().for_each(Relay::cut);
        let_pass(wires, Flow::Both);
    });
    for (fault, flow) in [
        ("answers held back", Flow::There),
        ("questions held back", Flow::Back),
    ] {
        run.round(fault, |run| {
            let_pass(wires, flow);
            run.burst();
            run.lasts();
            let_pass(wires, Flow::Both);
        });
    }
    run.round("every connection closed", |_| {
        wires.iter().for_each(Relay::cut);
    });
}
