//! A network that loses what one side says, or what both say, and tells nobody: two network namespaces with a wire between
//! them. Where the registry is, its packets are sent to a station that does not exist, or ours are.
//!
//! The test starts itself again inside of a namespace, where whoever may make one has the rights of an administrator.

use std::fs;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::Arc;

use mesh_discovery::Driver;
use mesh_discovery::Registry;
use rustix::thread::LinkNameSpaceType;
use rustix::thread::move_into_link_name_space;
use tempfile::TempDir;

use crate::consul;
use crate::etcd;
use crate::events::Fleet;
use crate::events::Target;
use crate::follower::Follower;
use crate::follower::Truth;
use crate::plan::Plan;
use crate::plan::Run;
use crate::say;
use crate::support::consul::Consul;
use crate::support::etcd::Etcd;
use crate::support::process::Process;
use crate::support::process::wait_until;
use crate::support::relay::Relay;
use crate::support::tools::say_skipped;

/// The namespace of whoever asks the registry, at the other end of a wire.
struct Far(Process);

impl Far {
    /// Makes the wire and the namespace, from within one of our own.
    fn make(dir: &TempDir) -> Self {
        ip("link set lo up");
        let mut holder = Command::new("unshare");
        holder.args(["--net", "sleep", "3600"]);
        let far = Self(Process::start(&mut holder, dir.path(), "far"));
        let here = fs::read_link("/proc/self/ns/net").unwrap();
        wait_until("the other namespace is there", || {
            fs::read_link(far.path()).is_ok_and(|there| there != here)
        });
        ip(&format!(
            "link add here type veth peer name there netns {}",
            far.0.id()
        ));
        ip(&format!("addr add {HERE}/24 dev here"));
        ip("link set here up");
        far.ip(&format!("addr add {THERE}/24 dev there"));
        far.ip("link set there up");
        far
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Runs `ip` there.
    fn ip(&self, arguments: &str) {
        let id = self.0.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &id, "--net", "ip"]);
        run(command.args(arguments.split(' ')));
    }

    /// Moves a thread there.
    fn enter(path: &str) {
        let file = fs::File::open(path).unwrap();
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(file.as_fd(), kind).unwrap();
    }

    fn lose_questions(&self, is_lost: bool) {
        self.ip(&neighbour(THERE_DEVICE, HERE, is_lost));
    }

    fn lose_answers(is_lost: bool) {
        ip(&neighbour(HERE_DEVICE, THERE, is_lost));
    }
}

fn neighbour(device: &str, of: &str, is_lost: bool) -> String {
    if is_lost {
        format!("neigh replace {of} lladdr 02:00:00:00:00:01 dev {device} nud permanent")
    } else {
        format!("neigh del {of} dev {device}")
    }
}

fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// True inside of the namespace. Outside it runs `case` inside, where that can be.
fn is_inside(case: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let is_here = |program: &&str| Command::new(program).arg("-V").output().is_ok();
    let can = ["unshare", "nsenter", "ip"].iter().all(is_here);
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net"]);
        command
    };
    if !can
        || !unshare()
            .arg("true")
            .output()
            .is_ok_and(|output| output.status.success())
    {
        say_skipped("a network namespace");
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let case = format!("partition::{case}");
    let mut command = unshare();
    command.arg(program).args([&case, "--exact", "--nocapture"]);
    let status = command.env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "inside of the namespace");
    false
}

fn partitions(
    name: &str,
    far: &Far,
    target: &dyn Target,
    service: &str,
    make: impl FnOnce(&Arc<Truth>) -> (Registry, Driver),
) {
    let plan = Plan::chosen();
    let fleet = Fleet::register(plan.seed, target);
    let path = far.path();
    let enter = move || Far::enter(&path);
    let follower = Follower::start_in(service, &fleet.truth, enter, || make(&fleet.truth));
    let mut run = Run::begin(plan, target, fleet, follower);
    for (fault, questions, answers) in [
        ("questions lost", true, false),
        ("answers lost", false, true),
        ("both lost", true, true),
    ] {
        run.round(fault, |run| {
            let lose = |is_lost| {
                if questions {
                    far.lose_questions(is_lost);
                }
                if answers {
                    Far::lose_answers(is_lost);
                }
            };
            lose(true);
            run.burst();
            run.lasts();
            lose(false);
        });
    }
    say(&format!("D-5 {name}, network partitioned\n{run}"));
}

#[test]
fn consul_is_followed_across_a_network_that_was_parted() {
    if !is_inside("consul_is_followed_across_a_network_that_was_parted") {
        return;
    }
    let dir = TempDir::new().unwrap();
    let far = Far::make(&dir);
    let Some(consul) = Consul::start_lasting(dir.path()) else {
        return;
    };
    let door = Relay::start_on(HERE, consul.http);
    let agent = consul::Agent { http: consul.http };
    partitions("Consul", &far, &agent, consul::SERVICE, |truth| {
        consul::source(&door.address, truth)
    });
}

#[test]
fn etcd_is_followed_across_a_network_that_was_parted() {
    if !is_inside("etcd_is_followed_across_a_network_that_was_parted") {
        return;
    }
    let dir = TempDir::new().unwrap();
    let far = Far::make(&dir);
    let Some(server) = Etcd::start(dir.path()) else {
        return;
    };
    let doors = [Relay::start_on(HERE, server.port())];
    let cluster = etcd::Cluster {
        ports: server.ports(),
    };
    partitions("etcd", &far, &cluster, etcd::SERVICE, |truth| {
        etcd::source(&doors, truth)
    });
}

const INSIDE: &str = "MESH_TEST_INSIDE";
/// The registry's side.
const HERE: &str = "10.9.0.2";
const HERE_DEVICE: &str = "here";
const THERE: &str = "10.9.0.1";
const THERE_DEVICE: &str = "there";
