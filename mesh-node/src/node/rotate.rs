//! Keeps the identity fresh: what its source gives is judged and taken over, whole or not at all.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_auth::spiffe::SpiffeId;
use mesh_transport::session::SessionServer;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::TlsStore;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use crate::audit::Auditor;
use crate::error::Error;
use crate::health::Board;
use crate::identity::Identity;
use crate::identity::Intake;
use crate::identity::Judge;
use crate::identity::Material;
use crate::identity::News;
use crate::identity::Roots;
use crate::identity::Validity;
use crate::node::session_identity::SessionIdentity;
use crate::stack::outbound::chain;
use crate::telemetry::Telemetry;
use crate::watch::FileWatch;
use crate::workload_api::Page;

mod expiry;

use self::expiry::Nearness;

/// What the identity's source gives, and all that changes with it.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) intake: Intake,
    pub(crate) judge: Judge,
    pub(crate) tls: Arc<TlsStore>,
    pub(crate) seen: Seen,
    pub(crate) validity: Validity,
    pub(crate) health: Arc<Board>,
    /// What programs on this machine are told.
    pub(crate) page: Option<Publisher>,
    pub(crate) session: Option<Arc<SessionIdentity>>,
    pub(crate) server: Option<Arc<SessionServer>>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) auditor: Option<Auditor>,
    pub(crate) clock: fn() -> SystemTime,
    pub(crate) tasks: Tasks,
}

/// Where programs on this machine learn of a new identity.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) id: SpiffeId,
    pub(crate) pages: watch::Sender<Arc<Page>>,
}

/// The identity in use, to tell what is new about the next one.
#[derive(Debug)]
pub(crate) struct Seen {
    chain: Vec<CertificateDer<'static>>,
    roots: Roots,
    left_out: Vec<String>,
}

impl Seen {
    pub(crate) fn of(identity: &Identity) -> Self {
        Self {
            chain: identity.chain().to_vec(),
            roots: identity.roots().clone(),
            left_out: identity.left_out().to_vec(),
        }
    }
}

impl Rotation {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let keys = self.session.as_ref();
        let keys = keys.map(|session| session.directory().to_owned());
        let mut keys = keys.map(|folder| FileWatch::new(Vec::new(), vec![folder]));
        let mut is_fed = true;
        self.look_at_the_end();
        self.tell_left_out();
        loop {
            let look = self.session.as_ref();
            let look = look.map(|session| session.look_after((self.clock)()));
            let key_changed = async {
                match &mut keys {
                    Some(keys) => keys.changed().await,
                    None => std::future::pending().await,
                }
            };
            let end = expiry::look_after(self.validity, (self.clock)());
            tokio::select! {
                () = tokio::time::sleep(end) => self.look_at_the_end(),
                news = self.intake.next(), if is_fed => {
                    is_fed = !matches!(news, News::Ended);
                    self.take(news);
                }
                () = sleep(look) => self.refresh_key().await,
                () = key_changed => self.refresh_key().await,
            }
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Material(material) => self.renew(material),
            News::Unfit(error) => self.refuse(&error),
            News::Failed(error) => {
                self.telemetry.identity_failures.inc();
                self.health.degraded(SOURCE, &*error);
                tracing::error!(error, "the identity's source gives none; the old one stays");
            }
            News::Ended => {
                self.telemetry.identity_failures.inc();
                self.health
                    .degraded(SOURCE, "it has ended; restart the node");
                tracing::error!("the identity's source has ended; restart the node");
            }
        }
    }

    /// Takes over a new identity whole, or nothing of it; `None` where it is the one in use.
    fn replace(&mut self, material: Material) -> Result<Option<Validity>, Error> {
        if material.chain == self.seen.chain && material.bundles == self.seen.roots {
            return Ok(None);
        }
        let identity = self.judge.judge(material, (self.clock)())?;
        let (seen, validity) = (Seen::of(&identity), identity.validity());
        let session = self.session.as_deref();
        let renewed = session
            .map(|session| session.renewed(identity.credentials()))
            .transpose()?;
        let page = self.page.as_ref();
        let page = page.map(|page| Page::new(&page.id, identity.material()));
        let page = page.transpose()?;
        let next = identity.prepare(&self.tls)?;
        if let (Some(session), Some(local)) = (session, renewed) {
            session.take_over(local)?;
        }
        // Nothing can fail from here on.
        self.tls.put(next);
        if let (Some(publisher), Some(page)) = (&self.page, page) {
            publisher.pages.send_replace(Arc::new(page));
        }
        let is_gone = |(domain, root)| {
            !seen
                .roots
                .get(domain)
                .is_some_and(|roots| roots.contains(root))
        };
        let before = self.seen.roots.iter();
        if before
            .flat_map(|(domain, roots)| roots.iter().map(move |root| (domain, root)))
            .any(is_gone)
        {
            self.end_sessions();
        }
        self.seen = seen;
        Ok(Some(validity))
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

    fn renew(&mut self, material: Material) {
        match self.replace(material) {
            Ok(None) => self.is_well(),
            Ok(Some(validity)) => {
                self.validity = validity;
                self.is_well();
                self.tell_left_out();
                self.health.ok(CERTIFICATE);
                self.look_at_the_end();
                self.telemetry.show_certificate_end(validity.not_after);
                let until = humantime::format_rfc3339_seconds(validity.not_after).to_string();
                tracing::info!(until, "identity replaced");
                if let Some(auditor) = &self.auditor {
                    auditor.note(
                        Event::new(EventKind::KeyRotation)
                            .with("what", "certificate")
                            .with("until", &*until),
                    );
                }
            }
            // Half-written files are common; what comes next, or the old identity, will do.
            Err(error) => {
                self.intake.refuse();
                self.refuse(&chain(&error));
            }
        }
    }

    /// The source gives what is, or can be, in use.
    fn is_well(&self) {
        self.health.ok(SOURCE);
        self.health.ok(REFUSED);
    }

    /// Says so where the identity was taken over without some of the trust domains that came with it.
    fn tell_left_out(&self) {
        if !self.seen.left_out.is_empty() {
            self.refuse(&self.seen.left_out.join("; "));
        }
    }

    /// Says so where no new certificate came in time (threat 5).
    fn look_at_the_end(&self) {
        let end = humantime::format_rfc3339_seconds(self.validity.not_after);
        match expiry::nearness(self.validity, (self.clock)()) {
            Nearness::Far => {}
            Nearness::Near => {
                let message = format!("our certificate ends at {end}, and no new one has come");
                tracing::warn!("{message}");
                self.health.degraded(CERTIFICATE, message);
            }
            Nearness::Over => {
                let message = format!("our certificate has ended at {end}; peers refuse it");
                tracing::error!("{message}");
                self.health.degraded(CERTIFICATE, message);
            }
        }
    }

    fn refuse(&self, error: &str) {
        self.telemetry.refused_identities.inc();
        self.health.degraded(REFUSED, error);
        tracing::error!(error, "new identity refused, or roots that came with it");
        if let Some(auditor) = &self.auditor {
            auditor.note(
                Event::new(EventKind::Error)
                    .with("what", "new identity refused")
                    .with("error", error),
            );
        }
    }
}

/// Without a duration it never ends.
async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Parts on the health page.
const SOURCE: &str = "identity_source";
const REFUSED: &str = "identity";
const CERTIFICATE: &str = "certificate";

#[cfg(test)]
mod tests;
