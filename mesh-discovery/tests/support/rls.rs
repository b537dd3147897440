//! A rate limit service and a client of one, in Python with Envoy's own messages.

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
const SERVER: &str = "../../../mesh-resilience/tests/python/rls_server.py";
const CLIENT: &str = "../../../mesh-resilience/tests/python/rls_client.py";

/// A service that answers as it is told: at first that all is well.
#[derive(Debug)]
pub(crate) struct RateLimits {
    pub(crate) port: u16,
    control: u16,
    pub(crate) server: Server,
}

impl RateLimits {
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        let program = tool("python-xds")?;
        let (port, control) = (free_port(), free_port());
        let ports = [port.to_string(), control.to_string()];
        let args = [ports[0].as_str(), ports[1].as_str()];
        let command = python(&program, SERVER, &args);
        let service = Self {
            port,
            control,
            server: Server::start(command, dir, &format!("rls-{port}")),
        };
        service.wait();
        Some(service)
    }

    fn wait(&self) {
        wait_until("the rate limit service listens", || is_open(self.control));
    }

    /// Starts it again after its end; it forgets what it was told.
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

    /// What it was asked since the start.
    pub(crate) fn requests(&self) -> Vec<Value> {
        match self.tell(&json!({"requests": true})) {
            Value::Array(requests) => requests,
            other => panic!("{other}"),
        }
    }
}

/// Asks the service at `port` one question after the other; nothing where there is no such client.
pub(crate) fn ask(port: u16, questions: &[Value]) -> Option<Vec<Value>> {
    let program = tool("python-xds")?;
    let (port, questions) = (port.to_string(), Value::from(questions).to_string());
    let output = python(&program, CLIENT, &[&port, &questions])
        .output()
        .unwrap();
    let answers = serde_json::from_slice(&output.stdout);
    Some(answers.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

/// A question about one descriptor of these entries.
pub(crate) fn question(domain: &str, entries: &[(&str, &str)]) -> Value {
    let entries: Vec<_> = entries
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect();
    json!({"domain": domain, "descriptors": [{"entries": entries}]})
}
