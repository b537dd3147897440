//! The services that can be called: where they are, and the layers on the way to each.

use std::num::NonZeroUsize;
use std::sync::Arc;

use http::HeaderName;
use mesh_discovery::GrpcProbe;
use mesh_discovery::Host;
use mesh_discovery::ProbeLimit;
use mesh_discovery::ServiceName;
use mesh_discovery::Vitals;
use mesh_discovery::Watch;
use mesh_resilience::balance::Outliers;
use mesh_transport::peer::Dialer;
use mesh_transport::peer::PeerConfig;
use mesh_transport::session::SessionClient;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;

use crate::adapt::address::Elsewhere;
use crate::config::Alpn;
use crate::config::ExpectedIds;
use crate::config::HealthProtocol;
use crate::config::NodeConfig;
use crate::config::ResilienceConfig;
use crate::discovery::own::Own as Listeners;
use crate::discovery::services::Services;
use crate::discovery::services::Work;
use crate::discovery::sources::Sources;
use crate::discovery::sources::sources;
use crate::error::Error;
use crate::node::build::Own;
use crate::node::build::lanes;
use crate::node::build::lanes::Lanes;
use crate::node::wall_clock;
use crate::route::RouteTable;
use crate::service_token::ServiceTokens;
use crate::stack::endpoints::Balancing;
use crate::stack::endpoints::Endpoints;
use crate::stack::endpoints::HashOn;
use crate::stack::endpoints::Links;
use crate::stack::endpoints::Parts;
use crate::stack::endpoints::Pins;
use crate::stack::endpoints::check::Checks;
use crate::stack::endpoints::check::Protocol;
use crate::stack::outbound::Service;
use crate::telemetry::Ends;
use crate::telemetry::PairSeries;
use crate::telemetry::Telemetry;

fn peer_config(config: &NodeConfig) -> PeerConfig {
    let mut peers = PeerConfig::default();
    peers.requires_alpn = config.security.alpn == Alpn::Required;
    // A connection is served by one thread at a time, so a second one pays only where there is a second thread.
    let threads = config
        .runtime
        .worker_threads
        .or_else(|| std::thread::available_parallelism().ok());
    peers.max_connections =
        threads.map_or(1, |threads| threads.get().min(MAX_CONNECTIONS_PER_ENDPOINT));
    peers
}

/// The services that can be called: those of the configuration, and all that registries know.
pub(super) fn services(
    config: &NodeConfig,
    own: &Own,
    (tls, sessions, tokens): (
        &Arc<TlsStore>,
        Option<SessionClient>,
        Option<Arc<ServiceTokens>>,
    ),
    (telemetry, routes): (&Arc<Telemetry>, &Arc<RouteTable>),
    tasks: &Tasks,
) -> Result<(Services<Service>, Sources), Error> {
    let random = Arc::clone(&own.seed) as Arc<_>;
    let listeners = Listeners::new(config);
    let vitals = Arc::new(Vitals::new());
    let sources = sources(config, &listeners, &random, &vitals)?;
    let dialer = Dialer::new(Arc::clone(tls), peer_config(config), tasks.clone())
        .with_judge(Arc::new(Elsewhere(listeners)));
    let maker = Maker {
        own: own.clone(),
        ids: config.expected_ids(),
        pins: pins(config),
        resilience: config.resilience.clone(),
        routes: Arc::clone(routes),
        balancing: Arc::new(balancing(config)),
        dialer,
        sessions,
        checks: checks(config, tokens.as_ref(), telemetry)?,
        vitals,
        tokens,
        telemetry: Arc::clone(telemetry),
    };
    let make = Box::new(move |name: &ServiceName, watch| maker.service(name, watch));
    let asked = (Arc::clone(&sources.discovery), sources.looks_up);
    let services = Services::new(&sources.fixed, asked, make, tasks.clone())?;
    Ok((services, sources))
}

/// All that a service is made with.
struct Maker {
    own: Own,
    ids: ExpectedIds,
    pins: Arc<Pins>,
    resilience: ResilienceConfig,
    routes: Arc<RouteTable>,
    balancing: Arc<Balancing>,
    dialer: Dialer,
    sessions: Option<SessionClient>,
    tokens: Option<Arc<ServiceTokens>>,
    telemetry: Arc<Telemetry>,
    vitals: Arc<Vitals>,
    checks: Option<Checks>,
}

impl Maker {
    fn service(&self, name: &ServiceName, watch: Watch) -> Result<(Arc<Service>, Work), Error> {
        let own = &self.own;
        let expected = self.ids.of(name.as_str());
        let first = watch
            .current()
            .first()
            .and_then(|endpoint| endpoint.spiffe_id.clone());
        let principal = first.unwrap_or_else(|| expected.clone());
        let tokens = self.tokens.as_ref();
        let links = Links {
            dialer: self.dialer.clone(),
            sessions: self.sessions.clone(),
            handshake_token: tokens.map(|tokens| Arc::clone(&tokens.handshakes)),
            expected: PeerId::new(expected),
            pins: Arc::clone(&self.pins),
        };
        let shared: Arc<str> = Arc::from(name.as_str());
        let outliers = Outliers::new(self.resilience.outlier_ejection.outliers());
        let outliers =
            outliers.map_err(|source| Error::config("outlier ejection can't be set up", source))?;
        let parts = Parts {
            balancing: Arc::clone(&self.balancing),
            outliers: Arc::new(outliers),
            random: Arc::clone(&own.seed),
            vitals: Arc::clone(&self.vitals),
            checks: self.checks.clone(),
        };
        let endpoints = Arc::new(Endpoints::new(name.clone(), links, parts, &watch));
        let series = PairSeries::new(
            Ends {
                reporter: "source",
                source: Arc::clone(&own.name),
                source_principal: Arc::from(own.id.to_string()),
                destination: Arc::clone(&shared),
                destination_principal: Arc::from(principal),
                security: "mutual_tls",
            },
            Arc::clone(&self.telemetry),
        );
        let series = Arc::new(series);
        let lanes = lanes::Maker {
            resilience: &self.resilience,
            routes: &self.routes,
            random: Arc::clone(&own.seed) as Arc<_>,
            telemetry: &self.telemetry,
            service: &shared,
            endpoints: &endpoints,
        };
        let Lanes {
            own,
            routes,
            copies,
        } = lanes.lanes()?;
        // Checks are counted for as long as they are made, so the series must not go before.
        let (following, counted) = (Arc::clone(&endpoints), Arc::clone(&series));
        let work = Box::pin(async move {
            following.follow(watch).await;
            drop(counted);
        });
        let service = Service {
            lane: own,
            lanes: routes,
            copies,
            name: shared,
            endpoints,
            series,
        };
        Ok((Arc::new(service), work))
    }
}

/// How endpoints are balanced.
fn balancing(config: &NodeConfig) -> Balancing {
    let balancing = &config.resilience.load_balancing;
    let hash_on = balancing.hash_on.as_ref().and_then(|on| {
        // The configuration was checked: there is exactly one, and the header's is a name.
        let header = on.header.as_ref();
        let header = header.and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let caller = || HashOn::Caller(Arc::from(config.service.id.as_str()));
        header
            .map(HashOn::Header)
            .or_else(|| on.cookie.clone().map(HashOn::Cookie))
            .or_else(|| on.caller.then(caller))
    });
    Balancing {
        config: balancing.balance(config.service.zone.as_deref()),
        hash_on,
    }
}

/// The keys that the configuration pins.
fn pins(config: &NodeConfig) -> Arc<Pins> {
    let pins = config.discovery.static_endpoints().filter_map(|endpoint| {
        let host = Host::parse(&endpoint.host).ok()?;
        let pin = endpoint.public_key_fingerprint.clone()?;
        Some(((host, endpoint.port.get()), pin))
    });
    Arc::new(pins.collect())
}

/// How endpoints are checked; nothing where they are not.
fn checks(
    config: &NodeConfig,
    tokens: Option<&Arc<ServiceTokens>>,
    telemetry: &Arc<Telemetry>,
) -> Result<Option<Checks>, Error> {
    let check = &config.discovery.health_check;
    let protocol = match check.protocol {
        HealthProtocol::None => return Ok(None),
        HealthProtocol::Tls => Protocol::Tls,
        HealthProtocol::Http => Protocol::Http {
            path: Arc::from(check.path.as_str()),
        },
        HealthProtocol::Grpc => {
            let probe = GrpcProbe::new(&config.service.id, &check.grpc_service);
            let wrong = |source| Error::config("discovery.health_check.grpc_service", source);
            Protocol::Grpc(probe.map_err(wrong)?)
        }
    };
    let limit = usize::try_from(check.max_concurrent.get()).ok();
    let limit = limit
        .and_then(NonZeroUsize::new)
        .unwrap_or(NonZeroUsize::MAX);
    Ok(Some(Checks {
        config: check.schedule(),
        protocol,
        limit: ProbeLimit::new(limit),
        tokens: tokens.cloned(),
        clock: wall_clock,
        telemetry: Arc::clone(telemetry),
    }))
}

/// More connections to one endpoint cost memory and help no more.
const MAX_CONNECTIONS_PER_ENDPOINT: usize = 4;
