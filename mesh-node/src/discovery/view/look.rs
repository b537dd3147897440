//! A look at all services from time to time: what changed is counted, and what stays wrong is told on `/health`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use mesh_discovery::SourceReport;
use mesh_discovery::Standing;

use super::View;
use crate::health::Board;
use crate::telemetry::Telemetry;

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(crate) struct Look {
    services: HashMap<Arc<str>, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    updates: u64,
    failures: HashMap<Arc<str>, Arc<str>>,
    wrong_since: Option<Instant>,
}

impl Look {
    /// Takes in how the services do now, and says what is wrong with those that have been wrong for a while.
    pub(crate) fn take(
        &mut self,
        views: impl Iterator<Item = View>,
        telemetry: &Telemetry,
        board: &Board,
    ) {
        let mut before = std::mem::take(&mut self.services);
        let mut wrong = Vec::new();
        for view in views {
            let name = Arc::clone(&view.service.name);
            let mut seen = before.remove(&name).unwrap_or_default();
            let updates = view.service.endpoints.updates();
            let news = updates.saturating_sub(seen.updates);
            telemetry.discovery.updated(&name, news);
            seen.updates = updates;
            seen.count_failures(&view.reports, telemetry);
            let fault = fault(&view);
            seen.wrong_since = fault.as_ref().map(|_| seen.wrong_since.unwrap_or(view.now));
            if let (Some(fault), Some(since)) = (fault, seen.wrong_since)
                && view.now.saturating_duration_since(since) >= PATIENCE
            {
                wrong.push(format!("{name}: {fault}"));
            }
            self.services.insert(name, seen);
        }
        wrong.sort_unstable();
        match wrong.split_first() {
            None => board.ok(PART),
            Some((first, [])) => board.degraded(PART, first.as_str()),
            Some((first, rest)) => {
                let more = rest.len();
                board.degraded(PART, format!("{first}; and {more} more, see /services"));
            }
        }
    }
}

impl Seen {
    /// A source that gives another reason each time is counted each time.
    fn count_failures(&mut self, reports: &[SourceReport], telemetry: &Telemetry) {
        let mut now = HashMap::new();
        for report in reports {
            let Some(failure) = &report.failure else {
                continue;
            };
            if self.failures.get(&report.source) != Some(failure) {
                telemetry.discovery.failed(&report.source);
            }
            now.insert(Arc::clone(&report.source), Arc::clone(failure));
        }
        self.failures = now;
    }
}

/// What is wrong with where a service's endpoints come from.
fn fault(view: &View) -> Option<String> {
    let failing = view.reports.iter().find_map(|report| {
        let failure = report.failure.as_ref()?;
        Some(format!("{} gives no answer: {failure}", report.source))
    });
    let is_stale = matches!(view.standing, Standing::Stale(_));
    match (is_stale, failing) {
        (true, Some(failing)) => Some(format!("{}; {failing}", view.standing)),
        (true, None) => Some(view.standing.to_string()),
        (false, failing) => failing,
    }
}

const PART: &str = "discovery";
/// A registry that elects a new leader or restarts is back by then.
const PATIENCE: Duration = Duration::from_secs(5);
