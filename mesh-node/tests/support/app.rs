//! The application behind a node.

use std::path::Path;

use serde_json::Value;

use super::process::Process;
use super::process::free_port;
use super::process::is_open;
use super::process::wait_until;
use super::tools::python;
use super::tools::tool;

/// An HTTP application that writes down every request that reaches it.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) port: u16,
    pub(crate) process: Process,
}

impl App {
    /// Starts it on a free port.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        Self::start_on(free_port(), dir)
    }

    /// Starts it on `port`.
    pub(crate) fn start_on(port: u16, dir: &Path) -> Option<Self> {
        let mut command = python(&tool("python")?, "app.py", &[&port.to_string()]);
        let process = Process::start(&mut command, dir, &format!("app-{port}"));
        wait_until("the application listens", || is_open(port));
        Some(Self { port, process })
    }

    /// The requests that reached it, in their order.
    pub(crate) fn seen(&self) -> Vec<Value> {
        let out = self.process.out();
        let whole = out.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// How many requests reached it whose target holds `part`.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.seen()
            .iter()
            .filter(|request| request["target"].as_str().unwrap().contains(part))
            .count()
    }
}
