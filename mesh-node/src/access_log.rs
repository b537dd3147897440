//! One JSON line for each request, formatted into a buffer and written in batches.

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Serialize;

/// What one line tells.
#[derive(Debug, Serialize)]
pub(crate) struct Entry<'a> {
    pub(crate) timestamp: String,
    pub(crate) direction: &'static str,
    pub(crate) peer: &'a str,
    pub(crate) service: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<&'a str>,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) protocol: &'static str,
    pub(crate) response_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grpc_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fallback: Option<&'a str>,
    pub(crate) duration_ms: f64,
    pub(crate) bytes_sent: u64,
    pub(crate) complete: bool,
    pub(crate) request_id: &'a str,
    pub(crate) trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) correlation_id: Option<&'a str>,
}

/// The log. Clones write to the same place.
#[derive(Clone)]
pub(crate) struct AccessLog(Arc<Mutex<Buffered>>);

struct Buffered {
    lines: Vec<u8>,
    to: Box<dyn Write + Send>,
    lost: u64,
}

impl AccessLog {
    pub(crate) fn new(to: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(Buffered {
            lines: Vec::with_capacity(FLUSH_BYTES * 2),
            to,
            lost: 0,
        })))
    }

    /// Adds a line; it is written with others, at the latest at the next [`AccessLog::flush`].
    pub(crate) fn write(&self, entry: &Entry<'_>) {
        let mut buffered = self.0.lock();
        let start = buffered.lines.len();
        // A broken line must not stay; serialising into memory fails for no value that an entry can hold.
        if serde_json::to_writer(&mut buffered.lines, entry).is_err() {
            buffered.lines.truncate(start);
            return;
        }
        buffered.lines.push(b'\n');
        if buffered.lines.len() >= FLUSH_BYTES {
            buffered.flush();
        }
    }

    /// Writes what is buffered.
    pub(crate) fn flush(&self) {
        self.0.lock().flush();
    }
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}

impl Buffered {
    fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let written = self
            .to
            .write_all(&self.lines)
            .and_then(|()| self.to.flush());
        self.lines.clear();
        if let Err(error) = written {
            self.complain(&error);
        }
    }

    fn complain(&mut self, error: &io::Error) {
        self.lost += 1;
        // Once at the first failure and then rarely: the log of a full disk must not fill another.
        if self.lost.is_power_of_two() {
            tracing::error!(%error, batches_lost = self.lost, "could not write the access log");
        }
    }
}

/// RFC 3339 in UTC with milliseconds, from the system's time.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// Milliseconds with three decimals.
pub(crate) fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// A page or two: few system calls at high rates, little memory at low ones.
const FLUSH_BYTES: usize = 16 * 1024;
