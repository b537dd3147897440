//! Keeps the identity fresh: new files are taken over, the built-in CA issues before the old certificate ends.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_crypto::RsaKeyPair;
use mesh_session::Responder;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::TlsStore;
use notify::RecursiveMode;
use notify::Watcher;
use tokio::sync::mpsc;

use crate::adapt::peer_key::attest;
use crate::audit::Auditor;
use crate::error::Error;
use crate::identity::Source;
use crate::stack::outbound::chain;
use crate::telemetry::Telemetry;

/// The identity's source and all that changes with it.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) source: Source,
    pub(crate) tls: Arc<TlsStore>,
    pub(crate) not_after: SystemTime,
    pub(crate) inputs: u64,
    pub(crate) session: Option<SessionIdentity>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) auditor: Option<Auditor>,
    pub(crate) clock: fn() -> SystemTime,
}

/// The RSA key whose attestation the certificate signs, and where both are in use.
pub(crate) struct SessionIdentity {
    pub(crate) name: String,
    pub(crate) key: Arc<RsaKeyPair>,
    pub(crate) config: mesh_session::Config,
    pub(crate) engine: Arc<dyn mesh_crypto::Engine>,
    pub(crate) local: Arc<ArcSwap<mesh_session::Local>>,
    pub(crate) responder: Arc<ArcSwap<Responder>>,
}

impl SessionIdentity {
    /// What a session needs of this side, attested by the certificate in `credentials`.
    pub(crate) fn attested(
        credentials: &Credentials,
        (name, key): (&str, &Arc<RsaKeyPair>),
        (config, engine): (&mesh_session::Config, &Arc<dyn mesh_crypto::Engine>),
    ) -> Result<(Arc<mesh_session::Local>, Responder), Error> {
        let attestation = attest(credentials, name, key.public().spki_der())?;
        let identity =
            mesh_session::LocalIdentity::new(name.to_owned(), Arc::clone(key), attestation);
        let random = Arc::new(mesh_crypto::SystemRandom::new());
        let local = Arc::new(mesh_session::Local::new(
            config.clone(),
            Arc::clone(engine),
            random,
            identity,
        )?);
        let responder = Responder::new(Arc::clone(&local))?;
        Ok((local, responder))
    }

    fn renewed(
        &self,
        credentials: &Credentials,
    ) -> Result<(Arc<mesh_session::Local>, Responder), Error> {
        Self::attested(
            credentials,
            (&self.name, &self.key),
            (&self.config, &self.engine),
        )
    }
}

impl std::fmt::Debug for SessionIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionIdentity")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Rotation {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let (told, mut changes) = mpsc::channel(1);
        let _watcher = self.watch(told);
        loop {
            let renewal = self
                .source
                .renew_after((self.clock)(), self.not_after)
                .unwrap_or(NEVER);
            let by_change = tokio::select! {
                () = tokio::time::sleep(renewal) => false,
                found = changes.recv() => {
                    if found.is_none() {
                        // Nothing can be watched; renewal by time goes on.
                        tokio::time::sleep(renewal).await;
                    }
                    // Certificate and key are two files: wait until both are there.
                    tokio::time::sleep(SETTLE).await;
                    while changes.try_recv().is_ok() {}
                    found.is_some()
                }
            };
            self.renew(by_change);
        }
    }

    /// Takes over a new identity whole, or nothing of it; `None` where the files say what they said before.
    fn replace(&mut self, by_change: bool) -> Result<Option<SystemTime>, Error> {
        let identity = self.source.load((self.clock)())?;
        if by_change && identity.inputs() == self.inputs {
            return Ok(None);
        }
        let inputs = identity.inputs();
        let session = self.session.as_ref();
        let renewed = session
            .map(|session| session.renewed(identity.credentials()))
            .transpose()?;
        let not_after = identity.replace(&self.tls)?;
        if let (Some(session), Some((local, responder))) = (session, renewed) {
            session.local.store(local);
            session.responder.store(Arc::new(responder));
        }
        self.inputs = inputs;
        Ok(Some(not_after))
    }

    fn renew(&mut self, by_change: bool) {
        match self.replace(by_change) {
            Ok(None) => {}
            Ok(Some(not_after)) => {
                self.not_after = not_after;
                self.telemetry.show_certificate_end(not_after);
                let until = humantime::format_rfc3339_seconds(not_after).to_string();
                tracing::info!(until, "identity replaced");
                if let Some(auditor) = &self.auditor {
                    auditor.note(
                        Event::new(EventKind::KeyRotation)
                            .with("what", "certificate")
                            .with("until", &*until),
                    );
                }
            }
            // Half-written files are common; the next change, or the old identity, will do.
            Err(error) => {
                tracing::error!(error = %chain(&error), "new identity refused; the old one stays");
            }
        }
    }

    /// Watches folders, not files: files are replaced by renaming.
    fn watch(&self, changed: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
        let told = move |event: notify::Result<notify::Event>| {
            let is_change = event.is_ok_and(|event| !event.kind.is_access());
            if is_change && changed.try_send(()).is_err() {
                tracing::trace!("a change is already waiting");
            }
        };
        let mut watcher = notify::recommended_watcher(told)
            .inspect_err(|error| tracing::warn!(%error, "identity files can't be watched; restart after replacing them"))
            .ok()?;
        for dir in self.source.directories() {
            if let Err(error) = watcher.watch(&dir, RecursiveMode::NonRecursive) {
                tracing::warn!(%error, dir = %dir.display(), "identity files can't be watched; restart after replacing them");
            }
        }
        Some(watcher)
    }
}

/// A year: certificates from files are renewed when the files change.
const NEVER: Duration = Duration::from_hours(365 * 24);
/// Whoever replaces certificate and key does so within this.
const SETTLE: Duration = Duration::from_millis(250);
