//! Turns the configuration into parts: one function a part, in the order in which they stand on each other.

use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use mesh_audit::EventKind;
use mesh_auth::policy::IntentionConfig;
use mesh_auth::request::Limits;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_auth::spiffe::TrustDomainAliases;
use mesh_crypto::SystemRandom;
use mesh_discovery::Driver;
use mesh_resilience::limit::LimitConfig;
use mesh_resilience::limit::Limiter;
use mesh_resilience::limit::Window;
use mesh_resilience::random::SplitMix64;
use mesh_resilience::shed::Shed;
use mesh_resilience::shed::ShedConfig;
use mesh_transport::app::AppClient;
use mesh_transport::app::AppConfig;
use mesh_transport::server::Server;
use mesh_transport::server::ServerConfig;
use mesh_transport::session::SessionClient;
use mesh_transport::session::SessionServer;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::TlsStore;
use parking_lot::Mutex;
use parking_lot::RwLock;

use crate::access_log::AccessLog;
use crate::audit::Auditor;
use crate::config::AuditEvent;
use crate::config::Durability;
use crate::config::Encryption;
use crate::config::LoadSheddingConfig;
use crate::config::NodeConfig;
use crate::config::SecurityMode;
use crate::consul;
use crate::consul::intentions::Intentions;
use crate::consul::names::Names;
use crate::discovery::cache::Writer;
use crate::discovery::registration::Registrar;
use crate::discovery::sources::Sources;
use crate::error::Error;
use crate::identity::Identity;
use crate::identity::Intake;
use crate::identity::Judge;
use crate::identity::Source;
use crate::identity::Surroundings;
use crate::identity::own_id;
use crate::identity::trust_domain;
use crate::methods::Methods;
use crate::node::rotate::Rotation;
use crate::node::rotate::Seen;
use crate::node::serve::Gate;
use crate::node::serve::series_of_nobody;
use crate::node::wall_clock;
use crate::policy_store::Shown;
use crate::route::RouteTable;
use crate::service_token::ServiceTokens;
use crate::stack::inbound::App;
use crate::stack::inbound::Application;
use crate::stack::inbound::Inbound;
use crate::stack::inbound::Shedding;
use crate::stack::outbound::Outbound;
use crate::stack::record::Recorder;
use crate::stack::route::Routes;
use crate::telemetry::Telemetry;
use crate::trace::Ids;
use crate::workload_api::WorkloadApi;

mod credentials;
mod lanes;
pub(crate) mod limit;
mod policies;
mod services;
pub(crate) mod sessions;
mod workload_api;
mod writes;

pub(super) use self::credentials::Upkeep;
use self::credentials::credentials;
use self::policies::authorizer;
use self::policies::policies;
use self::services::services;
use self::sessions::sessions;
use self::workload_api::workload_api;
use self::writes::memory;
use self::writes::writes;

/// All parts of a node.
pub(super) struct Built {
    pub(super) outbound: Arc<Outbound>,
    pub(super) gate: Gate,
    pub(super) auditor: Option<Auditor>,
    pub(super) audit_driver: Option<mesh_audit::Driver>,
    pub(super) rotation: Rotation,
    pub(super) workload_api: Option<WorkloadApi>,
    pub(super) drivers: Vec<(Arc<str>, Driver)>,
    pub(super) registrars: Vec<Registrar>,
    pub(super) cache: Option<Writer>,
    pub(super) random: Arc<SplitMix64>,
    pub(super) policies: Arc<Shown>,
    pub(super) upkeep: Upkeep,
}

/// Who this node is, in the forms that parts need.
#[derive(Clone)]
pub(super) struct Own {
    name: Arc<str>,
    id: SpiffeId,
    trust_domain: TrustDomain,
    seed: Arc<SplitMix64>,
    /// Who may probe it.
    prober: Option<SpiffeId>,
}

/// The configuration with what its source of identity has to say about names.
pub(super) async fn learnt(config: &NodeConfig) -> Result<NodeConfig, Error> {
    let mut config = config.clone();
    let random = Arc::new(SplitMix64::from_entropy());
    config.identity.learnt = consul::identity::learn(&config, random).await?;
    Ok(config)
}

/// Starts the source of the node's identity, and waits for what it gives.
pub(super) async fn identity(
    config: &NodeConfig,
    own: &Own,
    tasks: &Tasks,
) -> Result<(Identity, Intake), Error> {
    let around = Surroundings {
        clock: wall_clock,
        random: Arc::clone(&own.seed) as Arc<_>,
        tasks: tasks.clone(),
    };
    let judge = Judge::new(own.id.clone());
    let source = Source::new(config, &around.random)?;
    source.start(&judge, around, &config.identity).await
}

/// Consul's intentions and where they come from, where they are asked for.
pub(super) async fn intentions(
    config: &NodeConfig,
    own: &Own,
) -> Result<(Option<Intentions>, Vec<IntentionConfig>), Error> {
    let random = Arc::clone(&own.seed) as Arc<_>;
    let Some(mut source) = Intentions::new(config, random)? else {
        return Ok((None, Vec::new()));
    };
    let first = source.first(config.identity.startup_timeout).await?;
    Ok((Some(source), first))
}

pub(super) fn parts(
    config: &NodeConfig,
    (own, (identity, intake), intentions): (&Own, (Identity, Intake), Vec<IntentionConfig>),
    tasks: &Tasks,
    methods: Option<Arc<Methods>>,
) -> Result<Built, Error> {
    let tls = Arc::new(identity.store()?);
    let telemetry = Arc::new(Telemetry::new());
    telemetry.show_certificate_end(identity.validity().not_after);
    let recorder = Arc::new(Recorder {
        telemetry: Arc::clone(&telemetry),
        access_log: access_log(config)?,
        clock: wall_clock,
    });
    let (auditor, audit_driver) = audit(config)?.unzip();
    let policies = policies(config, (own, intentions), &telemetry, auditor.clone())?;
    let credentials = credentials(config, own, &policies, tasks)?;
    let tokens = credentials.tokens.as_ref();
    let sessions = match config.security.encryption {
        Encryption::Hybrid => Some(sessions(config, (own, tokens), &tls, tasks)?),
        Encryption::Mtls => None,
    };
    let (session_identity, client, server) = sessions.map_or((None, None, None), |s| {
        (Some(s.identity), Some(s.client), Some(s.server))
    });
    let links = (&tls, client, tokens.cloned());
    let (outbound, sources) = outbound(config, own, links, &recorder, tasks)?;
    let inbound = Inbound {
        name: Arc::clone(&own.name),
        limits: Limits::default(),
        ids: Ids::new(Arc::clone(&own.seed)),
        token: tokens.map(|tokens| Arc::clone(&tokens.calls)),
        users: credentials.users,
        authorizer: authorizer(config, own, &policies)?,
        limit: limit::start(
            config,
            own,
            (&policies.health, &telemetry.limit),
            (&tls, tasks),
        )?,
        application: application(config, own, (tasks, methods), auditor.clone())?,
        memory: memory(config, &telemetry, tasks)?,
        auditor: auditor.clone(),
        recorder,
    };
    let (page, workload_api) = workload_api(config, (own, &identity), &telemetry, tasks)?.unzip();
    let gate = gate(config, inbound, (own, &tls), server.clone(), tasks)?;
    let rotation = Rotation {
        intake,
        judge: Judge::new(own.id.clone()),
        tls,
        seen: Seen::of(&identity),
        validity: identity.validity(),
        health: Arc::clone(&policies.health),
        page,
        session: session_identity,
        server,
        telemetry,
        auditor: auditor.clone(),
        clock: wall_clock,
        tasks: tasks.clone(),
    };
    Ok(Built {
        outbound: Arc::new(outbound),
        gate,
        auditor,
        audit_driver,
        rotation,
        workload_api,
        drivers: sources.drivers,
        registrars: sources.registrars,
        cache: sources.cache,
        random: Arc::clone(&own.seed),
        policies,
        upkeep: credentials.upkeep,
    })
}

/// The way from the application, and what tells where services are.
fn outbound(
    config: &NodeConfig,
    own: &Own,
    links: (
        &Arc<TlsStore>,
        Option<SessionClient>,
        Option<Arc<ServiceTokens>>,
    ),
    recorder: &Arc<Recorder>,
    tasks: &Tasks,
) -> Result<(Outbound, Sources), Error> {
    let telemetry = &recorder.telemetry;
    let table = RouteTable::new(&config.routes);
    let table = Arc::new(table.map_err(|source| Error::config("routes can't be used", source))?);
    let api_key = HeaderName::try_from(&config.auth.api_key_header);
    let api_key = api_key.map_err(|source| Error::config("auth.api_key_header", source))?;
    let routes = Routes::new(
        Arc::clone(&table),
        telemetry,
        Arc::clone(&own.seed),
        &api_key,
        lanes::limiter,
    )?;
    let tokens = links.2.clone();
    let (services, sources) = services(config, own, links, (telemetry, &table), tasks)?;
    let outbound = Outbound {
        own_name: Arc::clone(&own.name),
        services: Arc::new(services),
        routes,
        control_planes: Arc::clone(&sources.control_planes),
        limits: Limits::default(),
        ids: Ids::new(Arc::clone(&own.seed)),
        token: tokens,
        recorder: Arc::clone(recorder),
        writes: writes(config)?,
        tasks: tasks.clone(),
    };
    Ok((outbound, sources))
}

impl Own {
    pub(super) fn new(config: &NodeConfig) -> Result<Self, Error> {
        let trust_domain = trust_domain(&config.identity)?;
        let id = own_id(config)?;
        let prober = config.prober_id().map(|id| id.parse()).transpose();
        let prober = prober.map_err(|source| {
            Error::config(
                "security.probe is neither a service nor a spiffe id",
                source,
            )
        })?;
        let mut seed = [0; 8];
        mesh_crypto::Random::fill(&SystemRandom::new(), &mut seed)?;
        let seed = Arc::new(SplitMix64::new(u64::from_ne_bytes(seed)));
        Ok(Self {
            name: Arc::from(config.service.id.as_str()),
            id,
            trust_domain,
            seed,
            prober,
        })
    }
}

fn gate(
    config: &NodeConfig,
    inbound: Inbound,
    (own, tls): (&Own, &Arc<TlsStore>),
    sessions: Option<Arc<SessionServer>>,
    tasks: &Tasks,
) -> Result<Gate, Error> {
    let own_principal: Arc<str> = Arc::from(own.id.to_string());
    let plaintext = (config.security.mode == SecurityMode::Permissive).then(|| {
        let telemetry = &inbound.recorder.telemetry;
        series_of_nobody((&own.name, &own_principal), telemetry)
    });
    Ok(Gate {
        inbound,
        tls: Arc::clone(tls),
        own_principal,
        alpn: config.security.alpn,
        plaintext,
        prober: own.prober.clone(),
        names: Names::new(config.identity.source, &own.trust_domain),
        aliases: aliases(config, own)?,
        sessions,
        peers: RwLock::default(),
        server: Server::new(&ServerConfig::default(), tasks.clone()),
        counted: Mutex::default(),
        refusals: a_few_each_second()?,
    })
}

fn aliases(config: &NodeConfig, own: &Own) -> Result<TrustDomainAliases, Error> {
    let wrong = |source| Error::config("identity.trust_domain_aliases can't be used", source);
    let aliases = config.identity.trust_domain_aliases.iter();
    let aliases: Result<Vec<_>, _> = aliases.map(|alias| TrustDomain::parse(alias)).collect();
    TrustDomainAliases::new(own.trust_domain.clone(), &aliases.map_err(wrong)?).map_err(wrong)
}

fn access_log(config: &NodeConfig) -> Result<Option<AccessLog>, Error> {
    let log = &config.access_log;
    if !log.enabled {
        return Ok(None);
    }
    if log.is_stdout() {
        return Ok(Some(AccessLog::new(Box::new(std::io::stdout()))));
    }
    let failed = |source| Error::Io {
        what: "open access_log.path",
        source,
    };
    if let Some(dir) = log.path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log.path)
        .map_err(failed)?;
    Ok(Some(AccessLog::new(Box::new(file))))
}

fn audit(config: &NodeConfig) -> Result<Option<(Auditor, mesh_audit::Driver)>, Error> {
    let audit = &config.audit;
    if !audit.enabled {
        return Ok(None);
    }
    let is_durable = audit.durability == Durability::Durable;
    let durability = if is_durable {
        mesh_audit::Durability::Durable
    } else {
        mesh_audit::Durability::Async
    };
    let written = mesh_audit::Config::new(&audit.path).with_durability(durability);
    let (log, driver) = mesh_audit::open(written, mesh_audit::OsFileSystem, wall_clock)?;
    let kinds = audit.events.iter().map(|event| match event {
        AuditEvent::Connection => EventKind::Connection,
        AuditEvent::Message => EventKind::Message,
        AuditEvent::Error => EventKind::Error,
        AuditEvent::KeyRotation => EventKind::KeyRotation,
    });
    Ok(Some((
        Auditor::new(log, kinds.collect(), is_durable),
        driver,
    )))
}

/// How much of what anybody can cause is written down, for each of them: ten a second.
fn a_few_each_second() -> Result<Limiter, Error> {
    let window = Window::new(NonZeroU32::MIN.saturating_add(9), Duration::from_secs(1));
    let limiter = Limiter::new(&LimitConfig::default().with_windows(vec![window]));
    limiter.map_err(|source| Error::config("the log of what is refused", source))
}

fn application(
    config: &NodeConfig,
    own: &Own,
    (tasks, methods): (&Tasks, Option<Arc<Methods>>),
    auditor: Option<Auditor>,
) -> Result<Arc<Application>, Error> {
    let app = match (&config.service.app, methods) {
        (_, Some(methods)) => App::Methods(methods),
        (Some(app), None) => App::Http(AppClient::new(
            AppConfig::new(app.to_string()),
            tasks.clone(),
        )),
        (None, None) => App::Absent,
    };
    let name = Arc::clone(&own.name);
    let application = Application {
        name,
        app,
        auditor,
        shedding: shedding(&config.resilience.load_shedding)?,
    };
    Ok(Arc::new(application))
}

/// The limit before the application, where there is one.
fn shedding(config: &LoadSheddingConfig) -> Result<Option<Shedding>, Error> {
    let limits = ShedConfig::default()
        .with_min_limit(config.min_limit)
        .with_initial_limit(config.initial_limit)
        .with_max_limit(config.max_limit)
        .with_tolerance(config.tolerance);
    // Checked also where it is off, so that turning it on brings no surprise.
    let shed =
        Shed::new(limits).map_err(|source| Error::config("resilience.load_shedding", source))?;
    Ok(config.enabled.then(|| Shedding::new(shed)))
}
