//! Keeps the identity fresh: new files are taken over, the built-in CA issues before the old certificate ends.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_crypto::RsaKeyPair;
use mesh_session::Responder;
use mesh_transport::tls::TlsStore;
use notify::RecursiveMode;
use notify::Watcher;
use tokio::sync::mpsc;

use crate::adapt::peer_key::attest;
use crate::audit::Auditor;
use crate::error::Error;
use crate::identity::Source;
use crate::stack::outbound::chain;
use crate::stack::outbound::unix_seconds;
use crate::telemetry::Telemetry;

/// The identity's source and all that changes with it.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) source: Source,
    pub(crate) tls: Arc<TlsStore>,
    pub(crate) not_after: SystemTime,
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
    /// What a session needs of this side, attested by the certificate that `tls` holds now.
    pub(crate) fn attested(
        tls: &TlsStore,
        (name, key): (&str, &Arc<RsaKeyPair>),
        (config, engine): (&mesh_session::Config, &Arc<dyn mesh_crypto::Engine>),
    ) -> Result<(Arc<mesh_session::Local>, Responder), Error> {
        let attestation = attest(tls.current().credentials(), name, key.public().spki_der())?;
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

    fn renew(&self, tls: &TlsStore) -> Result<(), Error> {
        let (local, responder) =
            Self::attested(tls, (&self.name, &self.key), (&self.config, &self.engine))?;
        self.local.store(local);
        self.responder.store(Arc::new(responder));
        Ok(())
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
        self.telemetry
            .certificate_expiry
            .set(i64::try_from(unix_seconds(self.not_after)).unwrap_or(i64::MAX));
        loop {
            let renewal = self
                .source
                .renew_after((self.clock)(), self.not_after)
                .unwrap_or(NEVER);
            tokio::select! {
                () = tokio::time::sleep(renewal) => {}
                found = changes.recv() => {
                    if found.is_none() {
                        // Nothing can be watched; renewal by time goes on.
                        tokio::time::sleep(renewal).await;
                    }
                    // Certificate and key are two files: wait until both are there.
                    tokio::time::sleep(SETTLE).await;
                    while changes.try_recv().is_ok() {}
                }
            }
            self.renew();
        }
    }

    fn renew(&mut self) {
        let loaded = self.source.load((self.clock)());
        let replaced = loaded.and_then(|identity| {
            let not_after = identity.replace(&self.tls)?;
            self.session
                .as_ref()
                .map_or(Ok(()), |session| session.renew(&self.tls))?;
            Ok(not_after)
        });
        match replaced {
            Ok(not_after) => {
                self.not_after = not_after;
                self.telemetry
                    .certificate_expiry
                    .set(i64::try_from(unix_seconds(not_after)).unwrap_or(i64::MAX));
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
