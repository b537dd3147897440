//! Knot DNS: an authoritative server of one zone that a test rewrites.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::process::Process;
use super::process::Server;
use super::process::free_port;
use super::process::wait_until;
use super::tools::tool;

/// A running server of the zone `mesh.test`.
#[derive(Debug)]
pub(crate) struct Knot {
    pub(crate) port: u16,
    zone: PathBuf,
    serial: u32,
    server: Server,
}

impl Knot {
    /// Serves `records`: lines of a zone file below the origin `mesh.test.`, whose times to live are 1 s where they do not
    /// say otherwise. That there is none is remembered for 1 s too.
    pub(crate) fn start(records: &str, dir: &Path) -> Option<Self> {
        let program = tool("knotd")?;
        let port = free_port();
        let home = dir.join(format!("knot-{port}"));
        fs::create_dir(&home).unwrap();
        let (config, zone) = (home.join("knot.conf"), home.join("zone"));
        fs::write(&config, configuration(port, &home)).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(&config).env_clear();
        write_zone(&zone, 1, records);
        let knot = Self {
            port,
            zone,
            serial: 1,
            server: Server::start(command, dir, &format!("knot-{port}")),
        };
        knot.wait_loaded();
        Some(knot)
    }

    /// The server's address.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Serves other records from now on.
    #[track_caller]
    pub(crate) fn publish(&mut self, records: &str) {
        self.serial += 1;
        write_zone(&self.zone, self.serial, records);
        self.server.process.signal("-HUP");
        self.wait_loaded();
    }

    #[track_caller]
    fn wait_loaded(&self) {
        let loaded = format!("-> {}, ", self.serial);
        wait_until("Knot has loaded the zone and serves", || {
            let said = self.server.process.err();
            said.contains(&loaded) && said.contains("server started")
        });
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.server.process.kill();
    }

    /// Starts it again on the same port, with the records that it had.
    pub(crate) fn start_again(&mut self) {
        let starts = |knot: &Self| knot.server.process.err().matches("server started").count();
        let before = starts(self);
        self.server.start_again();
        wait_until("Knot serves again", || starts(self) > before);
    }

    /// The server's process, to freeze it.
    pub(crate) fn process(&self) -> &Process {
        &self.server.process
    }
}

fn write_zone(path: &Path, serial: u32, records: &str) {
    let text = format!(
        "$ORIGIN mesh.test.\n$TTL 1\n@ SOA ns hostmaster {serial} 60 60 60 1\n@ NS ns\nns A 127.0.0.1\n{records}\n"
    );
    // Whoever reads while it is written must not see half of it.
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

fn configuration(port: u16, home: &Path) -> String {
    let home = home.display();
    format!(
        "\
server:
    rundir: {home}
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {home}
log:
  - target: stderr
    any: info
template:
  - id: default
    storage: {home}
    zonefile-load: whole
    zonefile-sync: -1
    journal-content: none
zone:
  - domain: mesh.test.
    file: zone
"
    )
}
