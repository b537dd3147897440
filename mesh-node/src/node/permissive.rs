//! Says again and again that plaintext is taken.

use mesh_audit::Event;
use mesh_audit::EventKind;

use crate::node::Shared;

/// How much plaintext came in when the log was last told.
#[derive(Debug, Default)]
pub(super) struct Permissive {
    told: Option<u64>,
}

impl Permissive {
    /// Tells log, metric, health and, the first time, the audit log; for strict nodes it does nothing.
    pub(super) fn tell(&mut self, shared: &Shared) {
        if shared.gate.plaintext.is_none() {
            return;
        }
        let metrics = &shared.outbound.recorder.telemetry.policy;
        let requests = metrics.plaintext.get();
        let new = requests.saturating_sub(self.told.unwrap_or_default());
        tracing::warn!(
            requests,
            new,
            "plaintext is taken from whoever reaches service.listen (security.mode: permissive)"
        );
        if self.told.is_none() {
            metrics.permissive.set(1);
            let note = "plaintext is taken (security.mode: permissive)";
            shared.health.note("security", note);
            if let Some(auditor) = &shared.auditor {
                auditor.note(Event::new(EventKind::Notice).with("what", note));
            }
        }
        self.told = Some(requests);
    }
}
