//! The composition root: builds every part in order, runs them, and drains them.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use mesh_audit::EventKind;
use mesh_discovery::Condition;
use mesh_transport::drain;
use mesh_transport::drain::Drain;
use mesh_transport::drain::DrainSignal;
use mesh_transport::drain::Phase;
use mesh_transport::listen::Listener;
use mesh_transport::tasks::Tasks;
use tokio::runtime::Handle;

use crate::admin::Admin;
use crate::audit::Auditor;
use crate::config::DrainConfig;
use crate::config::Environment;
use crate::config::NodeConfig;
use crate::config::OnStart;
use crate::config::UpstreamProtocol;
use crate::consul::intentions::Intentions;
use crate::discovery::cache::LAST_WRITE;
use crate::discovery::cache::Writer;
use crate::discovery::registration::Kept;
use crate::discovery::registration::Registrations;
use crate::discovery::services::FORGET_EVERY;
use crate::discovery::view::Look;
use crate::discovery::view::View;
use crate::error::Error;
use crate::health::Board;
use crate::methods::Methods;
use crate::policy_store::Ending;
use crate::policy_store::Follow;
use crate::policy_store::Reload;
use crate::policy_store::ReloadHandle;
use crate::policy_store::Shown;
use crate::rate_limits::RateLimits;
use crate::stack::now;
use crate::stack::outbound::Outbound;
use crate::stack::outbound::Service;
use crate::tasks::Ended;
use crate::tasks::every;
use crate::tasks::supervised;
use crate::tasks::until_drain;
use crate::tcp::TcpApp;
use crate::workload_api::WorkloadApi;

pub(crate) mod build;
mod permissive;
mod rotate;
pub(crate) mod serve;
mod session_identity;

use self::build::Upkeep;
use self::permissive::Permissive;
use self::rotate::Rotation;
use self::serve::Gate;

/// A node that is built, with its listeners open, but does not serve yet.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    listeners: Listeners,
    audit_driver: Option<mesh_audit::Driver>,
    rotation: Rotation,
    workload_api: Option<WorkloadApi>,
    drivers: Vec<(Arc<str>, mesh_discovery::Driver)>,
    registrations: Option<Registrations>,
    cache: Option<Writer>,
    policies: Arc<Shown>,
    upkeep: Upkeep,
    reload: Option<Reload>,
    intentions: Option<Intentions>,
    drain: DrainConfig,
}

/// Which listeners a node opens beside the one for other nodes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Local {
    /// The outbound and admin listeners, as a sidecar does.
    Listeners,
    /// None: the program that this node is part of calls it directly.
    Embedded,
}

/// The addresses that a node listens on.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Addresses {
    /// Other nodes reach it here.
    pub inbound: SocketAddr,
    /// The local application calls through here.
    pub outbound: Option<SocketAddr>,
    /// Applications that do not speak HTTP are reached here, in the order of the configuration.
    pub tcp: Vec<SocketAddr>,
    /// Single services have these, in the order of the configuration.
    pub upstreams: Vec<(String, SocketAddr)>,
    /// Admin pages.
    pub admin: Option<SocketAddr>,
    /// Envoy's rate limit service.
    pub rate_limits: Option<SocketAddr>,
}

/// What all connections of a node share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) gate: Gate,
    pub(crate) admin: Admin,
    pub(crate) auditor: Option<Auditor>,
    pub(crate) is_ready: Arc<AtomicBool>,
    /// Registries have not answered yet about services of the configuration, and that is waited for.
    pub(crate) is_waiting: AtomicBool,
    pub(crate) health: Arc<Board>,
    pub(crate) tasks: Tasks,
}

#[derive(Debug)]
struct Listeners {
    inbound: Listener,
    outbound: Option<Listener>,
    tcp: Vec<(Arc<TcpApp>, Listener)>,
    upstreams: Vec<(Arc<Service>, UpstreamProtocol, Listener)>,
    admin: Option<Listener>,
    rate_limits: Option<(Arc<RateLimits>, Listener)>,
    addresses: Addresses,
}

impl Node {
    /// Waits for the node's identity, reads what else `config` names, builds all parts and opens the listeners. Must be
    /// called inside a tokio runtime with its time and I/O drivers.
    ///
    /// # Errors
    ///
    /// [`Error`]; then nothing is left open.
    pub async fn build(config: &NodeConfig, local: Local) -> Result<Self, Error> {
        Self::build_with(config, local, None).await
    }

    pub(crate) async fn build_with(
        config: &NodeConfig,
        local: Local,
        methods: Option<Arc<Methods>>,
    ) -> Result<Self, Error> {
        let tasks = Tasks::new(Handle::current());
        let config = build::learnt(config).await?;
        let own = build::Own::new(&config)?;
        let identity = build::identity(&config, &own, &tasks).await?;
        let (source, intentions) = build::intentions(&config, &own).await?;
        let for_parts = tasks.clone();
        // Reading files and making keys stays off the threads that serve requests.
        let make = move || {
            let built = build::parts(&config, (&own, identity, intentions), &for_parts, methods)?;
            Self::assemble(&config, local, built, for_parts)
        };
        let mut node = tasks.blocking(make).await.map_err(Error::task)??;
        node.intentions = source;
        if let Some(limit) = &node.shared.gate.inbound.limit {
            limit.ready().await;
        }
        Ok(node)
    }

    fn assemble(
        config: &NodeConfig,
        local: Local,
        built: build::Built,
        tasks: Tasks,
    ) -> Result<Self, Error> {
        let listeners = Listeners::open(config, local, (&built.outbound, &built.gate))?;
        let port = listeners.addresses.inbound.port();
        let registrations = Registrations::new(config, built.registrars, (port, built.random))?;
        let is_ready = Arc::new(AtomicBool::new(false));
        let admin = Admin::new(config, Arc::clone(&is_ready), &listeners.addresses);
        let shared = Shared {
            outbound: built.outbound,
            gate: built.gate,
            admin,
            auditor: built.auditor,
            is_ready,
            is_waiting: AtomicBool::new(config.discovery.cache.on_start == OnStart::Wait),
            health: Arc::clone(&built.policies.health),
            tasks,
        };
        Ok(Self {
            shared: Arc::new(shared),
            listeners,
            audit_driver: built.audit_driver,
            rotation: built.rotation,
            workload_api: built.workload_api,
            drivers: built.drivers,
            registrations,
            cache: built.cache,
            policies: built.policies,
            upkeep: built.upkeep,
            reload: None,
            intentions: None,
            drain: config.drain.clone(),
        })
    }

    /// Keeps the policy in step with the configuration at `path`, which was read with `environment`, and with the policy
    /// files that it names: they are watched while the node runs, and looked at whenever the handle asks for it. A policy
    /// that can't be enforced is refused whole; the last good one stays, and log, metrics and `/health` say so.
    pub fn reloads(&mut self, path: &Path, environment: &Environment) -> ReloadHandle {
        let asked = ReloadHandle::default();
        self.reload = Some(Reload {
            path: path.to_owned(),
            environment: environment.clone(),
            asked: asked.clone(),
            shown: Arc::clone(&self.policies),
            tasks: self.shared.tasks.clone(),
        });
        asked
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.listeners.addresses
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Serves until `stop` is ready, then drains: readiness goes off, peers and clients are asked to go elsewhere, no
    /// new connection is taken, and what is in flight may finish within `drain.timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the audit log's writer can't be started.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let Self {
            shared,
            listeners,
            audit_driver,
            rotation,
            workload_api,
            drivers,
            registrations,
            cache,
            policies,
            upkeep,
            reload,
            intentions,
            drain: stopping,
        } = self;
        let writer = audit_driver.map(start_writer).transpose()?;
        let (inbound, from_peers) = drain::channel();
        let (outbound, from_here) = drain::channel();
        start(&shared, &from_here, rotation);
        if let Some(api) = workload_api {
            shared.tasks.start(api.run(from_here.clone()));
        }
        if let Some(reload) = reload {
            until_drain(&shared.tasks, from_here.clone(), reload.run());
        }
        let cached = cache.map(|cache| cache.start(&shared.tasks, from_here.clone()));
        for (source, driver) in drivers {
            let health = Arc::clone(&shared.health);
            supervised(&shared.tasks, from_here.clone(), driver, move |how| {
                source_ended(&health, &source, how);
            });
        }
        upkeep.start(&shared.tasks, &from_here);
        if let Some(source) = intentions {
            let (shown, tasks) = (Arc::clone(&policies), shared.tasks.clone());
            let follow = Follow {
                source,
                shown,
                tasks,
            };
            until_drain(&shared.tasks, from_here.clone(), follow.run());
        }
        let (mut ending, mut permissive) = (Ending::default(), Permissive::default());
        let told = Arc::clone(&shared);
        every(&shared.tasks, from_here.clone(), LOOK_EVERY, move || {
            ending.look(&policies);
            permissive.tell(&told);
        });
        listeners.serve(&shared, &from_peers, &from_here);
        shared.is_ready.store(true, Ordering::Release);
        tracing::info!(service = %shared.outbound.own_name, "ready");
        let registered = registrations.map(|wanted| keep(wanted, &shared, &from_here));
        drop((from_peers, from_here));

        stop.await;
        shared.is_ready.store(false, Ordering::Release);
        tracing::info!("draining");
        if let Some(registered) = registered {
            // First of all: whoever asks a registry from here on is sent elsewhere, while we still answer the others.
            registered.leave(stopping.deregister_wait).await;
        }
        leave(&inbound, &outbound, stopping.timeout).await;
        // A courtesy: the peers forget the sessions now, or else by their timeouts.
        let closing = shared.outbound.close_sessions();
        drop(tokio::time::timeout(CLOSE_SESSIONS, closing).await);
        if let Some(written) = cached {
            drop(tokio::time::timeout(LAST_WRITE, written).await);
        }
        if let Some(log) = &shared.outbound.recorder.access_log {
            log.flush();
        }
        if let Some(auditor) = &shared.auditor {
            auditor.log().shutdown();
        }
        // The writer ends once all that was queued is on disk.
        if let Some(writer) = writer
            && shared.tasks.blocking(move || writer.join()).await.is_err()
        {
            tracing::error!("the audit log's writer did not end");
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Leaves in order: first what others ask of us, and then, since the application needs it to answer them, what it asks
/// of others.
async fn leave(inbound: &DrainSignal, outbound: &DrainSignal, timeout: Duration) {
    let deadline = tokio::time::Instant::now() + timeout;
    inbound.enter(Phase::Leaving);
    tokio::time::sleep(LINGER.min(timeout)).await;
    inbound.enter(Phase::Draining);
    outbound.enter(Phase::Leaving);
    for signal in [inbound, outbound] {
        signal.enter(Phase::Draining);
        if tokio::time::timeout_at(deadline, signal.drained())
            .await
            .is_err()
        {
            let connections = signal.holders();
            tracing::warn!(connections, "drain timeout passed; cutting what is left");
        }
    }
}

fn start_writer(driver: mesh_audit::Driver) -> Result<std::thread::JoinHandle<()>, Error> {
    let thread = std::thread::Builder::new()
        .name("audit".to_owned())
        .spawn(move || driver.run());
    thread.map_err(|source| Error::Io {
        what: "start the audit log's writer",
        source,
    })
}

/// Starts everything that runs beside the listeners.
fn start(shared: &Arc<Shared>, drain: &Drain, rotation: Rotation) {
    let services = Arc::clone(shared);
    every(&shared.tasks, drain.clone(), FORGET_EVERY, move || {
        services.outbound.services.forget_unused();
    });
    until_drain(&shared.tasks, drain.clone(), rotation.run());
    let (looking, mut look) = (Arc::clone(shared), Look::default());
    every(&shared.tasks, drain.clone(), COUNT_EVERY, move || {
        let services = &looking.outbound.services;
        let view = |service: Arc<Service>| {
            let reports = services.reports(&service.name);
            View::new(service, reports, now())
        };
        let views = services.all().into_iter().map(view);
        look.take(views, &looking.outbound.recorder.telemetry, &looking.health);
    });
    let ticking = Arc::clone(shared);
    every(&shared.tasks, drain.clone(), FLUSH_EVERY, move || {
        tick(&ticking);
    });
}

/// A source that nobody works for any more keeps its lists, and they do not change again.
fn source_ended(health: &Board, source: &str, how: Ended) {
    tracing::error!(source, %how, "a source of endpoints works no more, its lists stay as they are");
    let message =
        format!("{source} {how}: its lists stay as they are until the node is started anew");
    health.degraded(SOURCE_WORK, message);
}

/// Keeps the node's entries in registries, and tells them how it does.
fn keep(wanted: Registrations, shared: &Arc<Shared>, drain: &Drain) -> Arc<Kept> {
    let kept = Arc::new(wanted.keep(&shared.tasks));
    let (telling, shared) = (Arc::clone(&kept), Arc::clone(shared));
    every(
        &shared.tasks.clone(),
        drain.clone(),
        TELL_EVERY,
        move || {
            telling.tell(condition(&shared));
            match telling.failing() {
                Some(why) => shared.health.degraded(REGISTRATION, why),
                None => shared.health.ok(REGISTRATION),
            }
        },
    );
    kept
}

/// How this node does, for others.
fn condition(shared: &Shared) -> Condition {
    let recorder = &shared.outbound.recorder;
    let is_recorded = shared
        .auditor
        .as_ref()
        .is_none_or(|auditor| !auditor.log().stats().is_failed);
    if is_recorded && shared.is_settled() && recorder.telemetry.has_certificate((recorder.clock)())
    {
        Condition::Passing
    } else {
        Condition::Critical
    }
}

fn tick(shared: &Shared) {
    if let Some(log) = &shared.outbound.recorder.access_log {
        log.flush();
    }
    let telemetry = &shared.outbound.recorder.telemetry;
    shared.gate.sweep(telemetry);
    if let Some(memory) = &shared.gate.inbound.memory {
        telemetry.once.show(&memory.snapshot());
    }
}

impl Listeners {
    fn open(
        config: &NodeConfig,
        local: Local,
        (outbound, gate): (&Outbound, &Gate),
    ) -> Result<Self, Error> {
        let bind = |address| Listener::bind(address, MAX_CONNECTIONS);
        let inbound = bind(config.service.listen)?;
        let is_local = local == Local::Listeners;
        let outbound_listener = is_local.then(|| bind(config.outbound.listen)).transpose()?;
        let mut tcp = Vec::new();
        for served in &config.service.tcp {
            let mut authorizer = gate.inbound.authorizer.clone();
            authorizer.port = served.listen.port();
            let auditor = gate.inbound.auditor.as_ref();
            authorizer.is_recorded =
                auditor.is_some_and(|auditor| auditor.records(EventKind::Connection));
            let address = served.app.to_string();
            let app = Arc::new(TcpApp {
                address,
                authorizer,
            });
            tcp.push((app, bind(served.listen)?));
        }
        let mut upstreams = Vec::new();
        for upstream in config.outbound.upstreams.iter().filter(|_| is_local) {
            let service = outbound.services.get(&upstream.service);
            let service = service.ok_or_else(|| {
                let name = &upstream.service;
                Error::missing(format!("outbound.upstreams: {name} is in no discovery source; add it under discovery.sources"))
            })?;
            let listener = bind(upstream.bind)?;
            upstreams.push((service, upstream.protocol, listener));
        }
        let admin = is_local.then(|| bind(config.admin.listen)).transpose()?;
        let rate_limits = config.rate_limit_service.as_ref().map(|service| {
            let telemetry = &outbound.recorder.telemetry;
            let limits = RateLimits::new(service, telemetry);
            let limits = limits.map_err(|error| Error::config("rate_limit_service", error))?;
            Ok::<_, Error>((Arc::new(limits), bind(service.listen)?))
        });
        let rate_limits = rate_limits.transpose()?;
        let address =
            |listener: &Option<Listener>| listener.as_ref().map(Listener::address).transpose();
        let addresses = Addresses {
            inbound: inbound.address()?,
            tcp: tcp
                .iter()
                .map(|(_, listener)| listener.address())
                .collect::<Result<_, _>>()?,
            outbound: address(&outbound_listener)?,
            upstreams: upstreams
                .iter()
                .map(|(service, _, listener)| Ok((service.name.to_string(), listener.address()?)))
                .collect::<Result<_, mesh_transport::Error>>()?,
            admin: address(&admin)?,
            rate_limits: rate_limits
                .as_ref()
                .map(|(_, listener)| listener.address())
                .transpose()?,
        };
        Ok(Self {
            inbound,
            outbound: outbound_listener,
            tcp,
            upstreams,
            admin,
            rate_limits,
            addresses,
        })
    }

    fn serve(self, shared: &Arc<Shared>, from_peers: &Drain, from_here: &Drain) {
        let start = |listener: Listener, entry: serve::Entry, drain: &Drain| {
            let (shared, for_loop, for_connections) =
                (Arc::clone(shared), drain.clone(), drain.clone());
            shared.tasks.clone().start(async move {
                listener
                    .run(for_loop, move |accepted| {
                        shared.accept(accepted, entry.clone(), for_connections.clone());
                    })
                    .await;
            });
        };
        start(self.inbound, serve::Entry::Inbound, from_peers);
        if let Some(listener) = self.outbound {
            start(listener, serve::Entry::Outbound(None), from_here);
        }
        for (app, listener) in self.tcp {
            start(listener, serve::Entry::TcpInbound(app), from_peers);
        }
        for (service, protocol, listener) in self.upstreams {
            let entry = match protocol {
                UpstreamProtocol::Http => serve::Entry::Outbound(Some(service)),
                UpstreamProtocol::Tcp => serve::Entry::TcpOutbound(service),
            };
            start(listener, entry, from_here);
        }
        if let Some((limits, listener)) = self.rate_limits {
            start(listener, serve::Entry::RateLimits(limits), from_peers);
        }
        if let Some(listener) = self.admin {
            start(listener, serve::Entry::Admin, from_here);
        }
    }
}

/// The wall clock of a running node. The one place that reads it; everything else takes it as a parameter.
#[expect(
    clippy::disallowed_methods,
    reason = "the composition root supplies the clock"
)]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Peers that answer do so within a round trip.
const CLOSE_SESSIONS: Duration = Duration::from_secs(1);
/// Long enough that every connected client has made a request and seen `connection: close`, short enough for a restart.
const LINGER: Duration = Duration::from_millis(500);
/// What `/health` calls the entries in registries.
const REGISTRATION: &str = "registration";
/// The part of `/health` that says that nobody works for a source any more.
const SOURCE_WORK: &str = "discovery_source";
/// How often registries may hear of a change in how this node does.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How stale a line of the access log may be.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// How often what sources of endpoints say is counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How often rules are looked at that are about to end, and plaintext is warned of.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// Connections that one listener has open at once (threat 41).
const MAX_CONNECTIONS: usize = 16_384;
