//! What the node writes to its audit log, and how long an answer waits for it.

use std::fmt::Display;

use http::Response;
use mesh_audit::AppendError;
use mesh_audit::AuditLog;
use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_transport::Body;

use crate::respond::Code;
use crate::respond::Refusal;
use crate::respond::X_MESH_ERROR;

/// Writes the kinds of events that the configuration asks for.
#[derive(Clone, Debug)]
pub(crate) struct Auditor {
    log: AuditLog,
    kinds: Vec<EventKind>,
    is_durable: bool,
}

/// One call, as the audit log names it. Only what is listed here is ever recorded: no header, no body, no query.
pub(crate) struct Message<'a> {
    pub(crate) direction: &'static str,
    pub(crate) peer: &'a dyn Display,
    pub(crate) service: &'a str,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) verdict: &'static str,
    pub(crate) rule: Option<&'a str>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) session: Option<&'a dyn Display>,
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

    /// The record of a call, complete but for its outcome; `None` where calls are not recorded.
    pub(crate) fn message(&self, message: &Message<'_>) -> Option<Event> {
        if !self.kinds.contains(&EventKind::Message) {
            return None;
        }
        let mut event = Event::new(EventKind::Message)
            .with("direction", message.direction)
            .with_display("peer", message.peer)
            .with("service", message.service)
            .with("method", message.method)
            .with("path", message.path)
            .with("verdict", message.verdict);
        if let Some(rule) = message.rule {
            event = event.with("rule", rule);
        }
        if let Some(id) = message.request_id {
            event = event.with("request_id", id);
        }
        if let Some(session) = message.session {
            event = event.with_display("session", session);
        }
        Some(event)
    }

    /// Records how a call went. In durable mode this waits until the record is on disk.
    pub(crate) async fn finish(
        &self,
        event: Event,
        response: &Response<Body>,
    ) -> Result<(), Refusal> {
        let mut event = event.with("status", response.status().as_u16());
        if let Some(code) = response
            .headers()
            .get(X_MESH_ERROR)
            .and_then(|code| code.to_str().ok())
        {
            event = event.with("error", code);
        }
        let written = if self.is_durable {
            self.log.append(event).await.map(|_| ())
        } else {
            self.log.try_append(event)
        };
        written.map_err(|error| unavailable(&error))
    }

    /// Records something that nobody waits for; a failure is counted by the log and seen in its metrics.
    pub(crate) fn note(&self, event: Event) {
        if self.kinds.contains(&event.kind())
            && let Err(error) = self.log.try_append(event)
        {
            tracing::error!(%error, "could not write to the audit log");
        }
    }
}

fn unavailable(error: &AppendError) -> Refusal {
    tracing::error!(%error, "could not write to the audit log");
    Refusal::new(
        Code::AuditUnavailable,
        "the audit log can't be written, and nothing passes unrecorded",
    )
    .maybe_processed()
}
