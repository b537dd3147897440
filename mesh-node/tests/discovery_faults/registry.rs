//! Consul and etcd as the operators of a fleet write to them.

use std::path::Path;

use serde_json::Value;
use serde_json::json;

use crate::support::client::quick;
use crate::support::consul::Consul;
use crate::support::etcd::Etcd;
use crate::support::etcd::encode;
use crate::support::process::wait_until;

/// A registry that keeps its data when it is killed.
#[derive(Debug)]
pub(crate) enum Registry {
    Consul(Box<Consul>),
    Etcd(Etcd),
}

impl Registry {
    /// Each kind that is here.
    pub(crate) fn start(kind: &str, dir: &Path) -> Option<Self> {
        match kind {
            "consul" => Consul::start_lasting(dir).map(|consul| Self::Consul(Box::new(consul))),
            _ => Etcd::start(dir).map(Self::Etcd),
        }
    }

    /// The source of a node that asks it.
    pub(crate) fn source(&self) -> Value {
        match self {
            Self::Consul(consul) => json!({ "mode": "consul", "url": consul.url() }),
            Self::Etcd(etcd) => json!({ "mode": "etcd", "endpoints": etcd.urls() }),
        }
    }

    /// Registers an instance of the order service.
    #[track_caller]
    pub(crate) fn add(&self, id: &str, port: u16) {
        match self {
            Self::Consul(_) => {
                let definition = json!({
                    "ID": id, "Name": "order-service", "Address": "127.0.0.1", "Port": port,
                });
                self.write("PUT", "/v1/agent/service/register", &definition.to_string());
            }
            Self::Etcd(_) => {
                let value = json!({ "host": "127.0.0.1", "port": port }).to_string();
                let pair = json!({ "key": key(id), "value": encode(&value) });
                self.write("POST", "/v3/kv/put", &pair.to_string());
            }
        }
    }

    /// Takes an instance away.
    #[track_caller]
    pub(crate) fn remove(&self, id: &str) {
        match self {
            Self::Consul(_) => self.write("PUT", &format!("/v1/agent/service/deregister/{id}"), ""),
            Self::Etcd(_) => {
                let body = json!({ "key": key(id) }).to_string();
                self.write("POST", "/v3/kv/deleterange", &body);
            }
        }
    }

    #[track_caller]
    fn write(&self, method: &str, path: &str, body: &str) {
        let port = match self {
            Self::Consul(consul) => consul.http,
            Self::Etcd(etcd) => etcd.port(),
        };
        wait_until("the registry takes a write", || {
            quick(port, method, path, body).is_some_and(|(status, _)| status == 200)
        });
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Consul(consul) => consul.kill(),
            Self::Etcd(etcd) => etcd.member_mut(0).server.process.kill(),
        }
    }

    /// Starts it again, with what it knew.
    pub(crate) fn start_again(&mut self) {
        match self {
            Self::Consul(consul) => consul.start_again(),
            Self::Etcd(etcd) => {
                etcd.member_mut(0).server.start_again();
                etcd.wait_ready();
            }
        }
    }
}

fn key(id: &str) -> String {
    encode(&format!("/mesh/services/order-service/{id}"))
}
