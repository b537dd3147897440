//! A steady rate of calls while something else happens.

use std::time::Duration;

use super::mesh::Mesh;
use super::process::Process;
use super::process::wait_until;
use super::tools::python;
use super::tools::tool;

/// A client that keeps calling over connections that stay open.
#[derive(Debug)]
pub(crate) struct Load(Process);

impl Load {
    pub(crate) fn start(mesh: &Mesh, methods: &str) -> Option<Self> {
        let port = mesh.user.outbound.to_string();
        let mut command = python(&tool("python")?, "load.py", &[&port, "4", methods]);
        let load = Self(Process::start(&mut command, mesh.path(), "load"));
        wait_until("requests are answered", || load.answered() > 40);
        Some(load)
    }

    /// How many requests were answered so far.
    pub(crate) fn answered(&self) -> usize {
        self.0
            .out()
            .lines()
            .filter(|line| line.contains(" 200 "))
            .count()
    }

    /// Waits until some more requests are answered.
    pub(crate) fn go_on(&self) {
        let before = self.answered();
        wait_until("more requests are answered", || {
            self.answered() > before + 40
        });
    }

    /// Ends it and gives what failed.
    pub(crate) fn end(mut self) -> Vec<String> {
        self.0.terminate();
        self.0.wait(Duration::from_secs(20));
        let out = self.0.out();
        assert!(
            out.lines().any(|line| line.starts_with("done")),
            "{out}\n{}",
            self.0.err()
        );
        out.lines()
            .filter(|line| !line.contains(" 200 ") && !line.starts_with("done"))
            .map(str::to_owned)
            .collect()
    }
}
