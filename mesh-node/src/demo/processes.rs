//! The processes of a demonstration: three applications and three nodes, none of which outlives it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use mesh_transport::BoxError;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tokio::process::Child;
use tokio::process::Command;
use tokio::time::Instant;

use super::client::Call;
use super::folder::Folder;
use super::folder::SERVICES;
use super::ports::Ports;
use super::ports::local;
use super::service::REQUESTS_PATH;

/// What runs for one service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    App,
    Node,
}

/// The children of this process.
#[derive(Debug)]
pub(super) struct Processes {
    program: PathBuf,
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    service: &'static str,
    role: Role,
    log: PathBuf,
    /// Killed when this is dropped, also when this process panics.
    child: Child,
}

/// A child did not become what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("could not start the {role:?} of {service}")]
    Spawn {
        service: &'static str,
        role: Role,
        source: io::Error,
    },
    #[error("the {role:?} of {service} ended before it was ready; the last line of {} is: {last}", log.display())]
    Ended {
        service: &'static str,
        role: Role,
        log: PathBuf,
        last: String,
    },
    #[error("the {role:?} of {service} was not ready within {:?}; look at {}", READY_WITHIN, log.display())]
    NotReady {
        service: &'static str,
        role: Role,
        log: PathBuf,
    },
}

impl Processes {
    /// None yet. They will run the program that this process runs.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            running: Vec::new(),
        })
    }

    /// Starts all six at once, so that the nodes make their keys side by side, and waits until all are ready.
    pub(super) async fn start_all(
        &mut self,
        folder: &Folder,
        ports: &Ports,
    ) -> Result<(), StartError> {
        for service in SERVICES {
            self.start(service, folder, ports)?;
        }
        self.ready(&SERVICES, ports).await
    }

    /// Starts the application and the node of `service`.
    pub(super) fn start(
        &mut self,
        service: &'static str,
        folder: &Folder,
        ports: &Ports,
    ) -> Result<(), StartError> {
        let own = ports.of(service);
        let mut app: Vec<OsString> = vec!["app".into(), "--name".into(), service.into()];
        app.extend(["--listen".into(), local(own.app).to_string().into()]);
        let position = SERVICES.iter().position(|name| *name == service);
        if let Some(next) = position.and_then(|position| SERVICES.get(position + 1)) {
            let proxy = local(own.outbound).to_string();
            app.extend([
                "--next".into(),
                next.into(),
                "--http-proxy".into(),
                proxy.into(),
            ]);
        }
        let config = folder.file(&format!("{service}/mesh.yaml"));
        let node: Vec<OsString> = vec!["node".into(), "--config".into(), config.into()];
        for (role, arguments, log) in [(Role::App, app, "app.log"), (Role::Node, node, "node.log")]
        {
            let log = folder.file(&format!("{service}/logs/{log}"));
            let started = self.spawn(&arguments, &log);
            let child = started.map_err(|source| StartError::Spawn {
                service,
                role,
                source,
            })?;
            self.running.push(Running {
                service,
                role,
                log,
                child,
            });
        }
        Ok(())
    }

    fn spawn(&self, arguments: &[OsString], log: &PathBuf) -> io::Result<Child> {
        if let Some(parent) = log.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let log = File::options().create(true).append(true).open(log)?;
        let parent = std::process::id().to_string();
        Command::new(&self.program)
            .args(["demo-service", "--parent", &parent])
            .args(arguments)
            // A variable of the person who tries this must not change what the configurations say.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A key pressed at the terminal reaches this process alone, which then stops the others in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Waits until the applications and nodes of `services` answer.
    pub(super) async fn ready(
        &mut self,
        services: &[&str],
        ports: &Ports,
    ) -> Result<(), StartError> {
        let deadline = Instant::now() + READY_WITHIN;
        for running in &mut self.running {
            if !services.contains(&running.service) {
                continue;
            }
            let own = ports.of(running.service);
            let (address, path) = match running.role {
                Role::App => (local(own.app), REQUESTS_PATH),
                Role::Node => (local(own.admin), "/health/ready"),
            };
            loop {
                let answer = Call::get(path).send(address).await;
                if answer.is_ok_and(|answer| answer.status == 200) {
                    break;
                }
                let (service, role, log) = (running.service, running.role, running.log.clone());
                if !matches!(running.child.try_wait(), Ok(None)) {
                    let last = last_line(&log);
                    return Err(StartError::Ended {
                        service,
                        role,
                        log,
                        last,
                    });
                }
                if Instant::now() >= deadline {
                    return Err(StartError::NotReady { service, role, log });
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// The process id of one child.
    pub(super) fn pid(&self, service: &str, role: Role) -> Option<u32> {
        let found = self
            .running
            .iter()
            .find(|running| running.service == service && running.role == role);
        found?.child.id()
    }

    /// Kills the application and the node of `service` with SIGKILL, which no process can prepare for.
    pub(super) async fn kill(&mut self, service: &str) -> Result<Vec<u32>, BoxError> {
        let mut pids = Vec::new();
        for running in &mut self.running {
            if running.service == service {
                pids.extend(running.child.id());
                running.child.kill().await?;
            }
        }
        self.running.retain(|running| running.service != service);
        Ok(pids)
    }

    /// Asks all to stop, waits, and kills what is left. Gives the number of those that had to be killed.
    pub(super) async fn stop(&mut self) -> usize {
        for running in &self.running {
            let pid = running.child.id().and_then(|pid| i32::try_from(pid).ok());
            if let Some(pid) = pid.and_then(Pid::from_raw)
                && let Err(error) = kill_process(pid, Signal::TERM)
            {
                tracing::debug!(%error, service = running.service, "already gone");
            }
        }
        let deadline = Instant::now() + STOP_WITHIN;
        let mut killed = 0;
        for running in &mut self.running {
            let ended = tokio::time::timeout_at(deadline, running.child.wait()).await;
            if ended.is_err() {
                killed += 1;
                if let Err(error) = running.child.kill().await {
                    tracing::debug!(%error, service = running.service, "already gone");
                }
            }
        }
        self.running.clear();
        killed
    }
}

fn last_line(log: &PathBuf) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or_default().to_owned()
}

/// RSA-4096 keys take up to some ten seconds to find on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(45);
/// The nodes' `drain.timeout` and what they need beside it.
const STOP_WITHIN: Duration = Duration::from_secs(5);
pub(super) const POLL: Duration = Duration::from_millis(20);
