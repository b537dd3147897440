//! A node that dies leaves no copy of its memory behind.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::process::ExitStatus;
use std::time::Duration;

use support::mesh::Mesh;
use support::process::Process;
use support::process::is_open;
use support::process::wait_until;

mod support;

/// A node started by a shell that allows core files of any size, as far as it may.
struct Running {
    mesh: Mesh,
    process: Process,
}

impl Running {
    fn start(environment: &[(&str, &str)]) -> Self {
        let mesh = Mesh::new("hybrid");
        let node = &mesh.user;
        let program = node.program(&["run"]);
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""])
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(node.dir())
            .env_clear()
            .env("JWT_SECRET", &node.secret)
            .envs(environment.iter().copied());
        let process = Process::start(&mut command, node.dir(), "node");
        // It has read its keys by then.
        wait_until("the node answers", || is_open(node.admin));
        Self { mesh, process }
    }

    /// What the system says of the size of core files: the limit in force, and how far that may be raised.
    fn limits(&self) -> String {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.process.id())).unwrap();
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max core file size"));
        let words: Vec<_> = line.unwrap().split_whitespace().take(2).collect();
        words.join(" ")
    }

    /// Runs a program on it, and says whether that worked.
    fn tried(&self, program: &str, arguments: &[&str]) -> bool {
        let mut command = Command::new(program);
        command.args(arguments).arg(self.process.id().to_string());
        command.output().is_ok_and(|output| output.status.success())
    }

    fn abort(&mut self) -> ExitStatus {
        assert!(self.tried("/bin/kill", &["-ABRT"]));
        self.process.wait(Duration::from_secs(30))
    }
}

// threat 20, threat 61
#[test]
fn a_node_that_crashes_leaves_no_core_file() {
    let mut running = Running::start(&[]);
    assert_eq!(running.limits(), "0 0");
    let status = running.abort();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    let left = fs::read_dir(running.mesh.user.dir()).unwrap();
    let names = left.map(|entry| entry.unwrap().file_name());
    assert_eq!(
        names
            .filter(|name| name.to_string_lossy().starts_with("core"))
            .count(),
        0
    );
}

// threat 61: root may raise the limit of another process, and then it still can't be dumped.
#[test]
fn a_limit_raised_from_outside_changes_nothing() {
    let mut running = Running::start(&[]);
    if !running.tried("prlimit", &["--core=unlimited", "--pid"]) {
        // Whoever is not privileged may not even do that.
        assert_eq!(running.limits(), "0 0");
    }
    assert!(!running.abort().core_dumped());
}

#[test]
fn who_debugs_a_node_may_ask_for_core_files() {
    let mut running = Running::start(&[("MESH_ALLOW_CORE_DUMPS", "1")]);
    let is_allowed = running.limits() == "unlimited unlimited";
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let status = running.abort();
    // A shell that may not raise its limit, or a system that sends core files elsewhere, decides otherwise.
    if is_allowed && pattern.trim() == "core" {
        assert!(status.core_dumped());
    }
}
