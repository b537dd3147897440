//! A control plane: an aggregated discovery service in Python, told over a port of its own what to serve.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;

use serde_json::Value;
use serde_json::json;

use super::process::Server;
use super::process::free_port;
use super::process::is_open;
use super::process::wait_until;
use super::tools::python;
use super::tools::tool;

/// From the folder of Python programs of any crate whose tests use this.
const PROGRAM: &str = "../../../mesh-discovery/tests/python/ads.py";

#[derive(Debug)]
pub(crate) struct Ads {
    pub(crate) port: u16,
    control: u16,
    pub(crate) server: Server,
}

impl Ads {
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        let program = tool("python-xds")?;
        let (port, control) = (free_port(), free_port());
        let ports = [port.to_string(), control.to_string()];
        let args = [ports[0].as_str(), ports[1].as_str()];
        let command = python(&program, PROGRAM, &args);
        let server = Server::start(command, dir, &format!("ads-{port}"));
        let ads = Self {
            port,
            control,
            server,
        };
        ads.wait();
        Some(ads)
    }

    fn wait(&self) {
        wait_until("the control plane listens", || is_open(self.control));
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it again after its end; it serves nothing at first.
    pub(crate) fn start_again(&mut self) {
        self.server.start_again();
        self.wait();
    }

    /// Tells it something, and gives its answer.
    pub(crate) fn tell(&self, command: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.control)).unwrap();
        stream.write_all(format!("{command}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer)
            .unwrap_or_else(|_| panic!("{command}: {}", self.server.process.err()))
    }

    /// Serves a service: a cluster, and an assignment with endpoints on these ports of 10.0.0.1.
    pub(crate) fn serve(&self, name: &str, ports: &[u16]) {
        self.tell(&json!({"batch": [cluster(name), assignment(name, ports)]}));
    }

    /// What clients have asked for since the start.
    pub(crate) fn requests(&self) -> Vec<Value> {
        match self.tell(&json!({"requests": true})) {
            Value::Array(requests) => requests,
            other => panic!("{other}"),
        }
    }

    /// The refusals among them.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let requests = self.requests();
        let refusals = requests.iter().filter_map(|request| {
            let detail = request.get("error_detail")?;
            Some(detail["message"].as_str()?.to_owned())
        });
        refusals.collect()
    }
}

/// The command that serves a cluster whose endpoints come over the same stream.
pub(crate) fn cluster(name: &str) -> Value {
    let resource = json!({
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}}},
    });
    json!({"set": "cluster", "name": name, "resource": resource})
}

/// The command that serves an assignment.
pub(crate) fn assignment(name: &str, ports: &[u16]) -> Value {
    let endpoints: Vec<_> = ports
        .iter()
        .map(|port| endpoint("10.0.0.1", *port))
        .collect();
    let resource = json!({
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": endpoints}],
    });
    json!({"set": "assignment", "name": name, "resource": resource})
}

/// An endpoint of an assignment.
pub(crate) fn endpoint(address: &str, port: u16) -> Value {
    let address = json!({"socket_address": {"address": address, "port_value": port}});
    json!({"endpoint": {"address": address}})
}
