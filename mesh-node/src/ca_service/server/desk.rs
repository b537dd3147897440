//! Where certificates are signed: who may have one, what is promised and recorded before it leaves.

use std::net::SocketAddr;
use std::time::Duration;
use std::time::SystemTime;

use mesh_audit::AppendError;
use mesh_audit::AuditLog;
use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_auth::ca::CaError;
use mesh_auth::ca::Signed;
use mesh_auth::ca::csr::SigningRequest;
use mesh_auth::ca::join::JoinToken;
use mesh_auth::ca::roots::RootSet;
use mesh_auth::spiffe::SpiffeId;
use mesh_transport::tasks::Tasks;
use parking_lot::Mutex;

use crate::ca_service::folder::CaFolder;
use crate::ca_service::folder::FolderError;
use crate::ca_service::grants::Grants;
use crate::ca_service::grants::GrantsError;

#[derive(Debug)]
pub(super) struct Desk {
    folder: CaFolder,
    grants: Grants,
    log: AuditLog,
    /// What the signer of this name has promised: that nothing of it lives longer.
    promised: Mutex<(String, SystemTime)>,
}

/// Who asks.
#[derive(Debug)]
pub(super) enum Applicant {
    /// A workload with a valid certificate.
    Member(SpiffeId),
    /// Whoever holds a join token.
    Newcomer(JoinToken),
}

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum DeskError {
    #[error("the newcomer is not let in")]
    Join(#[source] GrantsError),
    #[error("the certificate is not signed")]
    Sign(#[source] CaError),
    #[error("{id} is denied certificates")]
    Denied { id: SpiffeId },
    #[error("could not write down what is promised")]
    Promise(#[source] FolderError),
    #[error("could not record the certificate")]
    Record(#[source] AppendError),
    #[error("the work was cut off")]
    Cut(#[source] tokio::task::JoinError),
}

impl Desk {
    pub(super) fn new(folder: CaFolder, grants: Grants, log: AuditLog) -> Self {
        Self {
            folder,
            grants,
            log,
            promised: Mutex::new((String::new(), SystemTime::UNIX_EPOCH)),
        }
    }

    /// Who the applicant is; a join token is used up by that.
    pub(super) async fn identify(
        &self,
        applicant: Applicant,
        request: &SigningRequest,
        now: SystemTime,
        tasks: &Tasks,
    ) -> Result<SpiffeId, DeskError> {
        let token = match applicant {
            Applicant::Member(id) => return Ok(id),
            Applicant::Newcomer(token) => token,
        };
        let (grants, key) = (self.grants.clone(), request.key_fingerprint().to_owned());
        let joined = tasks.blocking(move || grants.take(&token, &key, now)).await;
        joined.map_err(DeskError::Cut)?.map_err(DeskError::Join)
    }

    /// Signs a certificate that nobody has seen before it is promised for and recorded.
    ///
    /// # Errors
    ///
    /// [`DeskError`]; with [`FolderError::Replaced`] in it the roots are to be read again.
    pub(super) async fn sign(
        &self,
        roots: &RootSet,
        (request, id): (&SigningRequest, &SpiffeId),
        lifetime: Duration,
        (now, tasks): (SystemTime, &Tasks),
    ) -> Result<Signed, DeskError> {
        let root = roots.signer();
        let signed = root
            .sign(request, id, lifetime, now)
            .map_err(DeskError::Sign)?;
        self.promise(&root.facts().fingerprint, signed.not_after, now, tasks)
            .await?;
        Ok(signed)
    }

    /// Records a certificate for good.
    pub(super) async fn record(
        &self,
        signed: &Signed,
        (id, how): (&SpiffeId, &'static str),
        from: SocketAddr,
    ) -> Result<(), DeskError> {
        let until = humantime::format_rfc3339_seconds(signed.not_after).to_string();
        let event = Event::new(EventKind::KeyRotation)
            .with("what", "certificate issued")
            .with_display("id", id)
            .with("how", how)
            .with("serial", &*signed.serial)
            .with("until", &*until)
            .with_display("from", &from);
        let written = self.log.append(event).await;
        written.map(drop).map_err(DeskError::Record)
    }

    /// Records that somebody was refused; nobody waits for that.
    pub(super) fn record_refusal(&self, error: &str, who: &str, from: SocketAddr) {
        let event = Event::new(EventKind::Error)
            .with("what", "certificate refused")
            .with("who", who)
            .with("error", error)
            .with_display("from", &from);
        if let Err(error) = self.log.try_append(event) {
            tracing::error!(%error, "could not write to the audit log");
        }
    }

    /// Whether nothing can be recorded at present, so that nothing is signed.
    pub(super) fn has_failed(&self) -> bool {
        self.log.stats().is_failed
    }

    pub(super) fn close(&self) {
        self.log.shutdown();
    }

    /// Sees to it that the folder says how long certificates of `signer` may live before one leaves.
    async fn promise(
        &self,
        signer: &str,
        end: SystemTime,
        now: SystemTime,
        tasks: &Tasks,
    ) -> Result<(), DeskError> {
        let is_promised = {
            let promised = self.promised.lock();
            promised.0 == signer && promised.1 >= end
        };
        if is_promised {
            return Ok(());
        }
        // A little more than is needed, so that not every certificate costs a write.
        let life = end.duration_since(now).unwrap_or_default();
        let ahead = end + (life / 4).min(PROMISE_AHEAD);
        let (folder, name) = (self.folder.clone(), signer.to_owned());
        let promise = move || folder.lock()?.promise(&name, ahead);
        let done = tasks.blocking(promise).await.map_err(DeskError::Cut)?;
        done.map_err(DeskError::Promise)?;
        *self.promised.lock() = (signer.to_owned(), ahead);
        Ok(())
    }
}

/// By so much a root may be kept longer than is needed.
const PROMISE_AHEAD: Duration = Duration::from_mins(5);
