//! Keeps the identity fresh: new files are taken over, the built-in CA issues before the old certificate ends.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_transport::session::SessionServer;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::TlsStore;
use notify::RecursiveMode;
use notify::Watcher;
use tokio::sync::mpsc;

use crate::audit::Auditor;
use crate::error::Error;
use crate::identity::Seen;
use crate::identity::Source;
use crate::node::session_identity::SessionIdentity;
use crate::stack::outbound::chain;
use crate::telemetry::Telemetry;

/// The identity's source and all that changes with it.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) source: Source,
    pub(crate) tls: Arc<TlsStore>,
    pub(crate) not_after: SystemTime,
    pub(crate) seen: Seen,
    pub(crate) session: Option<Arc<SessionIdentity>>,
    pub(crate) server: Option<Arc<SessionServer>>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) auditor: Option<Auditor>,
    pub(crate) clock: fn() -> SystemTime,
    pub(crate) tasks: Tasks,
}

impl Rotation {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let (told, mut changes) = mpsc::channel(1);
        let _watcher = self.watch(told);
        loop {
            let now = (self.clock)();
            let renewal = self.source.renew_after(now, self.not_after);
            let look = self.session.as_ref().map(|session| session.look_after(now));
            let by_change = tokio::select! {
                () = sleep(renewal) => {
                    self.renew(false);
                    continue;
                }
                () = sleep(look) => false,
                Some(()) = changes.recv() => {
                    // Certificate and key are two files: wait until both are there.
                    tokio::time::sleep(SETTLE).await;
                    while changes.try_recv().is_ok() {}
                    true
                }
            };
            if by_change {
                self.renew(true);
            }
            self.refresh_key().await;
        }
    }

    /// Takes over a new identity whole, or nothing of it; `None` where the files say what they said before.
    fn replace(&mut self, by_change: bool) -> Result<Option<SystemTime>, Error> {
        let identity = self.source.load((self.clock)())?;
        let (seen, not_after) = (identity.seen(), identity.not_after());
        if by_change && seen.inputs == self.seen.inputs {
            return Ok(None);
        }
        let session = self.session.as_deref();
        let renewed = session
            .map(|session| session.renewed(identity.credentials()))
            .transpose()?;
        let next = identity.prepare(&self.tls)?;
        if let (Some(session), Some(local)) = (session, renewed) {
            session.take_over(local)?;
        }
        // Nothing can fail from here on.
        self.tls.put(next);
        if self
            .seen
            .roots
            .iter()
            .any(|root| !seen.roots.contains(root))
        {
            self.end_sessions();
        }
        self.seen = seen;
        Ok(Some(not_after))
    }

    /// A root is trusted no more that was before, and no session shows any more which root vouched for it. (One that is
    /// new ends nothing.)
    fn end_sessions(&self) {
        if let Some(server) = &self.server {
            let sessions = server.end_sessions();
            tracing::info!(sessions, "a root is trusted no more; sessions ended");
        }
    }

    /// Looks after the RSA key of sessions, off the request threads: making one takes seconds.
    async fn refresh_key(&self) {
        let Some(session) = self.session.clone() else {
            return;
        };
        let (tls, at) = (Arc::clone(&self.tls), (self.clock)());
        let work = move || session.refresh(tls.current().credentials(), at);
        let found = match self.tasks.blocking(work).await {
            Ok(found) => found,
            Err(error) => {
                return tracing::error!(%error, "no new identity key; the old one stays");
            }
        };
        match found {
            Ok(None) => {}
            Ok(Some(fingerprint)) => {
                let fingerprint = fingerprint.to_string();
                tracing::info!(fingerprint, "identity key replaced");
                if let Some(auditor) = &self.auditor {
                    auditor.note(
                        Event::new(EventKind::KeyRotation)
                            .with("what", "identity key")
                            .with("fingerprint", &*fingerprint),
                    );
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "no new identity key; the old one stays");
            }
        }
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
        let keys = self
            .session
            .as_ref()
            .map(|session| session.directory().to_owned());
        for dir in self.source.directories().into_iter().chain(keys) {
            if let Err(error) = watcher.watch(&dir, RecursiveMode::NonRecursive) {
                tracing::warn!(%error, dir = %dir.display(), "identity files can't be watched; restart after replacing them");
            }
        }
        Some(watcher)
    }
}

/// Without a duration it never ends.
async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Whoever replaces certificate and key does so within this.
const SETTLE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
