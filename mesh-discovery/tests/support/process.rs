//! Child processes that never outlive their test, free ports, and waiting for what they do.

use std::fs;
use std::fs::File;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to `NAME.out` and `NAME.err` in `dir`, behind what an earlier one printed.
    pub(crate) fn start(command: &mut Command, dir: &Path, name: &str) -> Self {
        let (out, err) = (
            dir.join(format!("{name}.out")),
            dir.join(format!("{name}.err")),
        );
        let append = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .unwrap()
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(append(&out))
            .stderr(append(&err))
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("could not start {command:?}: {error}"));
        Self { child, out, err }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it printed.
    pub(crate) fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap()
    }

    /// All that it said on standard error.
    pub(crate) fn err(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.id().to_string();
        let sent = Command::new("/bin/kill")
            .args([signal, &id])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it where it stands, as an overloaded machine or a paused virtual one would; its connections stay open.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        let ended = holds_within(limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(
            ended,
            "the process did not end within {limit:?}\n{}",
            self.err()
        );
        status.unwrap()
    }

    /// The most memory that it ever held, in bytes.
    pub(crate) fn most_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// How much processor time it has used.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // The name in parentheses may hold anything; utime and stime are fields 14 and 15 (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A program that can be started again as it was: on the same ports, with the same data.
#[derive(Debug)]
pub(crate) struct Server {
    command: Command,
    dir: PathBuf,
    name: String,
    pub(crate) process: Process,
}

impl Server {
    pub(crate) fn start(mut command: Command, dir: &Path, name: &str) -> Self {
        let process = Process::start(&mut command, dir, name);
        Self {
            command,
            dir: dir.to_owned(),
            name: name.to_owned(),
            process,
        }
    }

    /// Starts it again after its end.
    pub(crate) fn start_again(&mut self) {
        assert!(!self.process.is_running(), "{} runs", self.name);
        self.process = Process::start(&mut self.command, &self.dir, &self.name);
    }
}

/// Polls until `condition` holds; false when `limit` passes first.
#[expect(
    clippy::disallowed_methods,
    reason = "other processes run on real time, and tell nobody when they are done"
)]
pub(crate) fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = std::time::Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if std::time::Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Polls until `condition` holds, and fails after ten seconds.
#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(
        holds_within(Duration::from_secs(10), condition),
        "waited in vain until {what}"
    );
}

/// Lets a fault last.
#[expect(
    clippy::disallowed_methods,
    reason = "a fault is measured in real time, and its length is the test's"
)]
pub(crate) fn lasts(time: Duration) {
    std::thread::sleep(time);
}

/// A port that nobody listens on. Below those that the system gives to outgoing connections, so that it stays free until
/// a process of ours takes it.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test programs that run side by side begin far apart.
    let start = std::process::id().wrapping_mul(977);
    loop {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let port = 11_000 + u16::try_from(offset).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Whether somebody listens on a port of this machine.
pub(crate) fn is_open(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}
