//! What the node writes to its audit log, and how long an answer waits for it.

use std::fmt::Display;

use http::Response;
use mesh_audit::AppendError;
use mesh_audit::AuditLog;
use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_transport::Body;

use crate::decision::Told;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::respond::X_MESH_ERROR;
use crate::stack::once::FromMemory;
use crate::stack::record::client_closed;

/// Writes the kinds of events that the configuration asks for.
#[derive(Clone, Debug)]
pub(crate) struct Auditor {
    log: AuditLog,
    kinds: Vec<EventKind>,
    is_durable: bool,
}

/// One call, as the audit log names it. Only what is listed here is ever recorded, with the facts of the decision: no
/// body, no query, and of the headers only those that a rule reads.
pub(crate) struct Message<'a> {
    pub(crate) direction: &'static str,
    /// Who calls, where a certificate says so, as it stands there.
    pub(crate) certificate: Option<&'a str>,
    pub(crate) service: &'a str,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// What was decided, if it came to that.
    pub(crate) told: Option<&'a Told>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) session: Option<&'a dyn Display>,
}

/// The record of a call under way.
pub(crate) struct Entry<'a> {
    auditor: &'a Auditor,
    draft: Option<Event>,
}

impl Auditor {
    pub(crate) fn new(log: AuditLog, kinds: Vec<EventKind>, is_durable: bool) -> Self {
        Self {
            log,
            kinds,
            is_durable,
        }
    }

    /// The log itself.
    pub(crate) fn log(&self) -> &AuditLog {
        &self.log
    }

    /// Whether events of this kind are recorded.
    pub(crate) fn records(&self, kind: EventKind) -> bool {
        self.kinds.contains(&kind)
    }

    /// Whether nothing can be recorded at present, so that nothing may pass.
    pub(crate) fn has_failed(&self) -> bool {
        self.log.stats().is_failed
    }

    /// The record of a call, complete but for its outcome.
    pub(crate) fn message(&self, message: &Message<'_>) -> Entry<'_> {
        let is_wanted = self.kinds.contains(&EventKind::Message);
        let draft = is_wanted.then(|| {
            let event = Event::new(EventKind::Message).with("direction", message.direction);
            let mut event = match message.told {
                Some(told) => decided(event, told, message.certificate),
                None => undecided(event, message),
            };
            if let Some(id) = message.request_id {
                event = event.with("request_id", id);
            }
            if let Some(session) = message.session {
                event = event.with_display("session", session);
            }
            event
        });
        Entry {
            auditor: self,
            draft,
        }
    }

    /// Records what must not happen unrecorded; in durable mode this waits until it is on disk.
    pub(crate) async fn record(&self, event: Event) -> Result<(), Refusal> {
        if !self.kinds.contains(&event.kind()) {
            return Ok(());
        }
        let written = if self.is_durable {
            self.log.append(event).await.map(|_| ())
        } else {
            self.log.try_append(event)
        };
        written.map_err(|error| failed(&error))
    }

    /// Records what went wrong with a peer.
    pub(crate) fn note_error(&self, peer: &str, what: &str) {
        let event = Event::new(EventKind::Error).with("peer", peer);
        self.note(event.with("error", what));
    }

    /// Records something that nobody waits for; a failure is counted by the log and seen in its metrics. What is noted about
    /// the node itself is recorded always.
    pub(crate) fn note(&self, event: Event) {
        let is_wanted = event.kind() == EventKind::Notice || self.kinds.contains(&event.kind());
        if is_wanted && let Err(error) = self.log.try_append(event) {
            tracing::error!(%error, "could not write to the audit log");
        }
    }
}

impl Entry<'_> {
    /// Records how the call went. In durable mode this waits until the record is on disk.
    ///
    /// # Cancel safety
    ///
    /// The record is queued before the first wait, so it is written even if this is dropped.
    pub(crate) async fn finish(mut self, response: &Response<Body>) -> Result<(), Refusal> {
        let Some(draft) = self.draft.take() else {
            return Ok(());
        };
        let mut event = draft.with("status", response.status().as_u16());
        let code = response.headers().get(X_MESH_ERROR);
        if let Some(code) = code.and_then(|code| code.to_str().ok()) {
            event = event.with("error", code);
        }
        if response.extensions().get::<FromMemory>().is_some() {
            event = event.with("repeat", "from memory");
        }
        let log = &self.auditor.log;
        let written = if self.auditor.is_durable {
            log.append(event).await.map(|_| ())
        } else {
            log.try_append(event)
        };
        written.map_err(|error| failed(&error))
    }
}

impl Drop for Entry<'_> {
    /// The caller left before there was an answer; the application may have acted all the same.
    fn drop(&mut self) {
        if let Some(draft) = self.draft.take() {
            let status = client_closed().as_u16();
            self.auditor
                .note(draft.with("status", status).with("error", "client_closed"));
        }
    }
}

/// A call that was refused before anything was decided.
fn undecided(mut event: Event, message: &Message<'_>) -> Event {
    if let Some(peer) = message.certificate {
        event = event.with("peer", peer);
    }
    event
        .with("service", message.service)
        .with("method", message.method)
        .with("path", message.path)
        .with("verdict", "none")
}

/// A decision: what it was made about, and what it was. Policies may know the peer by another id than that in its
/// certificate, which is then a field of its own.
pub(crate) fn decided(event: Event, told: &Told, certificate: Option<&str>) -> Event {
    let fields = told.fields.iter();
    let mut event = fields.fold(event, |event, (name, text)| event.with(name, text.as_str()));
    if let Some(certificate) = certificate
        && told.field("peer") != Some(certificate)
    {
        event = event.with("certificate", certificate);
    }
    event = event.with("verdict", told.verdict);
    if let Some(rule) = &told.rule {
        event = event.with("rule", &**rule);
    }
    if let Some(shadow) = &told.shadow {
        event = event.with("shadow_verdict", shadow.verdict);
        if let Some(rule) = &shadow.rule {
            event = event.with("shadow_rule", &**rule);
        }
    }
    event
}

fn failed(error: &AppendError) -> Refusal {
    tracing::error!(%error, "could not write to the audit log");
    unavailable().maybe_processed()
}

/// The answer while nothing can be recorded.
pub(crate) fn unavailable() -> Refusal {
    Refusal::new(
        Code::AuditUnavailable,
        "the audit log can't be written, and nothing passes unrecorded",
    )
}
