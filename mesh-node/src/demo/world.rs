//! The mesh of a demonstration while it runs.

use std::path::Path;
use std::time::Duration;

use mesh_transport::BoxError;
use mesh_transport::tasks::Tasks;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Options;
use super::client::Call;
use super::folder::Folder;
use super::folder::ORDERS;
use super::folder::SERVICES;
use super::ports::Ports;
use super::ports::local;
use super::processes::POLL;
use super::processes::Processes;
use super::processes::Role;
use super::processes::StartError;
use super::service::REQUESTS_PATH;
use super::story::Miss;
use super::story::Story;
use super::tap::Tap;
use crate::node::wall_clock;

/// Everything that a step needs.
#[derive(Debug)]
pub(super) struct World {
    pub(super) folder: Folder,
    pub(super) ports: Ports,
    pub(super) processes: Processes,
    /// Between the nodes of web and orders.
    pub(super) wire: Tap,
    /// Between the node of orders and its application.
    pub(super) app: Tap,
    pub(super) tasks: Tasks,
    /// Signs the tokens of this mesh.
    pub(super) secret: Zeroizing<String>,
    /// What to type for this program.
    pub(super) program: String,
}

/// A record of an audit log.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    /// From 1.
    pub(super) line: usize,
    pub(super) record: Value,
}

impl World {
    /// Makes the folder and starts everything.
    pub(super) async fn start(options: &Options, story: &mut Story) -> Result<Self, BoxError> {
        let folder = Folder::open(options.dir.as_deref())?;
        story.headline("A mesh of three services on this machine");
        for line in PICTURE {
            story.raw(line);
        }
        let started = Instant::now();
        folder.issue(wall_clock())?;
        let shown = folder.display();
        story.say(&format!(
            "{shown}/ has a certificate authority, certificates, a token secret, three commented configurations \
             and, from now on, logs. Each node makes its RSA-4096 key now."
        ));
        let secret = std::fs::read_to_string(folder.file("jwt.secret"))?;
        let tasks = Tasks::new(Handle::current());
        let mut attempt = 1;
        let (ports, processes, wire, app) = loop {
            match launch(&folder, &tasks).await {
                Ok(launched) => break launched,
                // Another program may have taken a port that was free a moment ago.
                Err(error) if attempt < ATTEMPTS && is_collision(&error) => attempt += 1,
                Err(error) => return Err(error),
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        story.say(&format!("Six processes, ready after {seconds:.1} s:"));
        let world = Self {
            folder,
            ports,
            processes,
            wire,
            app,
            tasks,
            secret: Zeroizing::new(secret.trim_end().to_owned()),
            program: options.program.clone(),
        };
        for service in SERVICES {
            let pid = |role| world.processes.pid(service, role).unwrap_or_default();
            let (port, config) = (world.ports.of(service).app, format!("{service}/mesh.yaml"));
            story.raw(&format!(
                "{service:<9} app: process {}, port {port:<5}   node: process {}, {}",
                pid(Role::App),
                pid(Role::Node),
                world.folder.shown(&config)
            ));
        }
        Ok(world)
    }

    /// How many requests an application has had.
    pub(super) async fn requests(&self, service: &str) -> Result<u64, Miss> {
        let address = local(self.ports.of(service).app);
        let answer = Call::get(REQUESTS_PATH).send(address).await;
        let answer = answer.map_err(Miss::at("the application counts its requests"))?;
        let count = answer.json()["requests"].as_u64();
        count.ok_or_else(|| Miss::new("a number of requests", answer.text()))
    }

    /// The last record of `service`'s audit log that `matches`. Connections are recorded without anybody waiting, so
    /// this waits a little.
    pub(super) async fn recorded(
        &self,
        service: &str,
        matches: impl Fn(&Value) -> bool,
    ) -> Result<Recorded, Miss> {
        let path = self.folder.audit(service);
        let deadline = Instant::now() + RECORDED_WITHIN;
        loop {
            if let Some(found) = find(&path, &matches) {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                let expected = format!("a record of it in {}", path.display());
                return Err(Miss::new(expected, "none"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The last record of the request with this id.
    pub(super) async fn recorded_request(&self, service: &str, id: &str) -> Result<Recorded, Miss> {
        self.recorded(service, |record| record["request_id"] == id)
            .await
    }

    /// The command that makes a call as `service`'s application would.
    pub(super) fn curl(&self, service: &str, rest: &str) -> String {
        let proxy = local(self.ports.of(service).outbound);
        format!("curl -i -x http://{proxy} {rest}")
    }
}

type Launched = (Ports, Processes, Tap, Tap);

/// Chooses ports, writes the configurations, starts the recorders and all processes.
async fn launch(folder: &Folder, tasks: &Tasks) -> Result<Launched, BoxError> {
    let (mut wire, mut app) = (Tap::bind().await?, Tap::bind().await?);
    let ports = Ports::free(wire.address.port(), app.address.port())?;
    wire.run(local(ports.of(ORDERS).inbound), tasks);
    app.run(local(ports.of(ORDERS).app), tasks);
    folder.configure(&ports)?;
    let mut processes = Processes::new()?;
    if let Err(error) = processes.start_all(folder, &ports).await {
        processes.stop().await;
        return Err(error.into());
    }
    Ok((ports, processes, wire, app))
}

fn is_collision(error: &BoxError) -> bool {
    matches!(
        error.downcast_ref::<StartError>(),
        Some(StartError::Ended { .. })
    )
}

fn find(path: &Path, matches: &impl Fn(&Value) -> bool) -> Option<Recorded> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines().enumerate().collect::<Vec<_>>();
    lines.reverse();
    lines.into_iter().find_map(|(index, line)| {
        let record: Value = serde_json::from_str(line).ok()?;
        matches(&record).then_some(Recorded {
            line: index + 1,
            record,
        })
    })
}

const PICTURE: [&str; 9] = [
    "",
    "customer",
    "   |",
    "  web             orders           payments     three plain HTTP services",
    "   |              ^    |              ^",
    "   |              |    |              |         plain HTTP, on loopback only",
    "   v              |    v              |",
    "  node =========> node node =======> node       mutual TLS, a sealed session inside",
    "",
];
const ATTEMPTS: u32 = 3;
const RECORDED_WITHIN: Duration = Duration::from_secs(5);
