//! `mesh-node ca serve`: signs what nodes ask for, and tells them whom to trust.
//!
//! | request | who may | answer |
//! |---|---|---|
//! | `POST /v1/sign` | a node with a valid certificate of ours: the same name again, for no longer than that one; or anybody with a join token: its name | certificate and trust bundle |
//! | `GET /v1/bundle`, `/v1/bundle.pem` | anybody | every trusted root, as a SPIFFE bundle or as PEM, the signer's first; waits for a change where somebody with a certificate of ours asks it to |
//! | `GET /health` | anybody | whether it signs |
//!
//! TLS 1.3 alone; the server's own certificate is `spiffe://<trust domain>/mesh-ca`. Each connection carries one request,
//! so that every request is about what is true now.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use mesh_auth::bundle::Bundle;
use mesh_auth::ca::roots::RootSet;
use mesh_transport::drain;
use mesh_transport::drain::Phase;
use mesh_transport::listen::Listener;
use mesh_transport::server::Server;
use mesh_transport::server::ServerConfig as HttpConfig;
use mesh_transport::spiffe::SpiffeLeaf;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::TrustBundles;
use mesh_transport::tls::certificates;
use mesh_transport::tls::newcomer;
use tokio::sync::watch;

use self::connection::Shown;
use self::desk::Desk;
use self::limits::Limits;
use super::denied::Denied;
use super::folder::CaFolder;
use super::folder::Locked;
use super::folder::Role;
use super::grants::Grants;
use crate::error::Error;
use crate::stack::outbound::chain;
use crate::tasks::until_drain;
use crate::watch::Marks;

mod answer;
mod connection;
mod desk;
mod limits;

/// How the server is set up.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    /// How long certificates live where nobody asks for less or more.
    pub(crate) lifetime: Duration,
    /// The longest that one lives, whoever asks.
    pub(crate) max_lifetime: Duration,
    /// Where every certificate is recorded before it is given away.
    pub(crate) audit: PathBuf,
}

/// A server with its listener open, which does not serve yet.
#[derive(Debug)]
pub(crate) struct CaServer {
    shared: Arc<Shared>,
    listener: Listener,
    writer: mesh_audit::Driver,
    seen: Marks,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    folder: CaFolder,
    desk: Desk,
    limits: Limits,
    /// The roots at present, and the newest is told.
    current: watch::Sender<Arc<Current>>,
    http: Server,
    tasks: Tasks,
    clock: fn() -> SystemTime,
}

/// The roots as they were when the folder was read.
#[derive(Debug)]
struct Current {
    roots: RootSet,
    denied: Denied,
    /// Every trusted certificate, PEM.
    bundle: String,
    /// The same as SPIFFE servers publish it.
    bundle_json: String,
    tls: Arc<rustls::ServerConfig>,
    /// When the server's own certificate is to be replaced.
    renew_at: SystemTime,
}

impl CaServer {
    /// Reads the authority in `folder`, opens its log and the listener. Blocks; must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error`]; then nothing is left open.
    pub(crate) fn build(
        folder: CaFolder,
        settings: Settings,
        tasks: Tasks,
        clock: fn() -> SystemTime,
    ) -> Result<Self, Error> {
        let seen = marks(&folder);
        let current = Current::read(&folder, settings.listen, clock())?;
        let audit = mesh_audit::Config::new(&settings.audit);
        let (log, writer) = mesh_audit::open(audit, mesh_audit::OsFileSystem, clock)?;
        let listener = Listener::bind(settings.listen, MAX_CONNECTIONS)?;
        let mut http = HttpConfig::default();
        http.max_header_bytes = MAX_HEADER_BYTES;
        let shared = Shared {
            desk: Desk::new(folder.clone(), Grants::new(folder.path()), log),
            folder,
            limits: Limits::new()?,
            current: watch::Sender::new(Arc::new(current)),
            http: Server::new(&http, tasks.clone()),
            settings,
            tasks,
            clock,
        };
        Ok(Self {
            shared: Arc::new(shared),
            listener,
            writer,
            seen,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Result<SocketAddr, Error> {
        Ok(self.listener.address()?)
    }

    /// Serves until `stop` is ready, then finishes what is in flight.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the log's writer can't be started.
    pub(crate) async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let Self {
            shared,
            listener,
            writer,
            seen,
        } = self;
        let writer = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| Error::Io {
                what: "start the audit log's writer",
                source,
            })?;
        let (signal, held) = drain::channel();
        let (looking, for_connections) = (Arc::clone(&shared), held.clone());
        until_drain(&shared.tasks, held.clone(), looking.follow(seen));
        let accepting = Arc::clone(&shared);
        shared.tasks.start(listener.run(held, move |accepted| {
            connection::accept(&accepting, accepted, for_connections.clone());
        }));
        stop.await;
        tracing::info!("draining");
        signal.enter(Phase::Draining);
        if tokio::time::timeout(DRAIN, signal.drained()).await.is_err() {
            tracing::warn!(connections = signal.holders(), "cutting what is left");
        }
        shared.desk.close();
        // The writer ends once all that was queued is on disk.
        if shared.tasks.blocking(move || writer.join()).await.is_err() {
            tracing::error!("the audit log's writer did not end");
        }
        tracing::info!("stopped");
        Ok(())
    }
}

impl Shared {
    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.borrow())
    }

    /// Takes over what changes in the folder, whole or not at all, and renews the server's own certificate.
    async fn follow(self: Arc<Self>, mut seen: Marks) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let found = marks(&self.folder);
            let is_due = (self.clock)() >= self.current().renew_at;
            if found != seen || is_due {
                seen = found;
                self.reread().await;
            }
        }
    }

    /// Reads the folder again; what is not usable is left alone.
    async fn reread(&self) {
        let (folder, listen, now) = (self.folder.clone(), self.settings.listen, (self.clock)());
        let read = move || Current::read(&folder, listen, now);
        let why = match self.tasks.blocking(read).await {
            Ok(Ok(next)) => {
                let signer = &next.roots.signer().facts().fingerprint;
                let roots = next.roots.others().len() + 1;
                tracing::info!(signer, roots, "roots read");
                self.current.send_replace(Arc::new(next));
                return;
            }
            Ok(Err(error)) => chain(&error),
            Err(error) => chain(&error),
        };
        tracing::error!(
            error = why,
            "the folder is not usable; going on with what was there before"
        );
    }

    /// Writes down that somebody was refused, a few times a second.
    fn note_refusal(&self, error: &str, who: &str, from: SocketAddr) {
        if self.limits.is_written_down() {
            tracing::info!(%from, who, error, "refused");
            self.desk.record_refusal(error, who, from);
        }
    }

    /// The lifetime that is asked for within what is allowed, which for whoever shows a certificate is that one's at most:
    /// a short-lived one that was stolen is not to become a long-lived one.
    fn lifetime(&self, asked: Option<Duration>, shown: Option<&Shown>) -> Duration {
        let asked = asked.unwrap_or(self.settings.lifetime);
        let most = self.settings.max_lifetime;
        asked.min(shown.map_or(most, |shown| most.min(shown.life)))
    }
}

impl Current {
    fn read(folder: &CaFolder, listen: SocketAddr, now: SystemTime) -> Result<Self, Error> {
        let unusable = |source| Error::config("the certificate authority can't be read", source);
        let locked = folder.lock().map_err(unusable)?;
        let roots = locked.roots().map_err(unusable)?;
        let denied = locked.denied().map_err(unusable)?;
        let (tls, renew_at) = own_tls(&locked, &roots, listen, now)?;
        let bundle = roots.certificates_pem();
        Ok(Self {
            bundle_json: published(&roots, &bundle)?,
            bundle,
            denied,
            roots,
            tls,
            renew_at,
        })
    }

    /// A name for the bundle: another bundle, another name.
    fn tag(&self) -> String {
        let signer = &self.roots.signer().facts().fingerprint;
        let others = self.roots.others().iter();
        let names: Vec<&str> = std::iter::once(signer)
            .chain(others.map(|root| &root.facts.fingerprint))
            .map(|name| name.get(..16).unwrap_or(name))
            .collect();
        format!("\"{}\"", names.join("-"))
    }
}

/// The bundle for SPIFFE servers that federate with this trust domain.
fn published(roots: &RootSet, pem: &str) -> Result<String, Error> {
    let failed = |source| Error::config("the trust bundle can't be published", source);
    let bundle = Bundle::from_pem(roots.trust_domain().clone(), pem.as_bytes()).map_err(failed)?;
    bundle.with_refresh_hint(REFRESH).to_json().map_err(failed)
}

/// The server's own identity. A former root vouches for it while that is trusted, so that a node which slept through the
/// change of roots still finds its way.
fn own_tls(
    locked: &Locked,
    roots: &RootSet,
    listen: SocketAddr,
    now: SystemTime,
) -> Result<(Arc<rustls::ServerConfig>, SystemTime), Error> {
    let failed = |source| Error::config("could not make the server's own certificate", source);
    let state = locked
        .state()
        .map_err(|source| Error::config("the certificate authority can't be read", source))?;
    let is_former = |name: &str| state.role(roots, name) == Role::Former;
    let newest = roots.others().iter().rev();
    let mut former = newest.filter_map(|root| {
        let authority = root.authority.as_ref();
        authority.filter(|_| is_former(&root.facts.fingerprint))
    });
    let signer = former
        .find(|authority| authority.not_after() > now + SERVER_LIFETIME)
        .unwrap_or(roots.signer());
    let address = listen.ip().to_string();
    let names = if listen.ip().is_unspecified() {
        vec![]
    } else {
        vec![address.as_str()]
    };
    let issued = signer
        .issue_to_server(SERVER_LIFETIME, now, &names)
        .map_err(failed)?;
    let credentials =
        Credentials::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes())?;
    let trusted = certificates(roots.certificates_pem().as_bytes())?;
    let bundles = TrustBundles::new().with_domain(roots.trust_domain().as_str(), &trusted)?;
    let clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let tls = newcomer::server(Arc::new(SpiffeLeaf::new()), clock, bundles, &credentials)?;
    let life = issued.not_after.duration_since(now).unwrap_or_default();
    Ok((tls, now + life / 2))
}

fn marks(folder: &CaFolder) -> Marks {
    let [certificates, keys, denied] = folder.watched_files();
    Marks::of(&[&certificates, &keys, &denied])
}

/// What the SPIFFE federation specification suggests.
const REFRESH: Duration = Duration::from_mins(5);
/// Nobody but the server has its key, which is new with every start.
const SERVER_LIFETIME: Duration = Duration::from_hours(24);
/// Looks at three files cost some microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Signing takes milliseconds; who waits for news of the roots is answered at once.
const DRAIN: Duration = Duration::from_secs(10);
/// Each node holds one connection, on which it waits for news.
const MAX_CONNECTIONS: usize = 16_384;
/// A token and little else.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
