//! From when to when a certificate is valid.

use std::time::{Duration, SystemTime};

use rcgen::CertificateParams;

use super::{BACKDATE, CaError};

/// From when to when, in seconds since the Unix epoch.
#[derive(Clone, Copy)]
pub(super) struct Span {
    from: u64,
    to: u64,
}

impl Span {
    pub(super) fn of(now: SystemTime, length: Duration) -> Result<Self, CaError> {
        let now = seconds(now).ok_or(CaError::Time)?;
        let to = now
            .checked_add(length.as_secs())
            .filter(|to| *to <= END_OF_TIME)
            .ok_or(CaError::Time)?;
        if to == now {
            return Err(CaError::Time);
        }
        Ok(Self {
            from: now.saturating_sub(BACKDATE.as_secs()),
            to,
        })
    }

    pub(super) fn not_before(self, earliest: SystemTime) -> Self {
        Self {
            from: self.from.max(seconds(earliest).unwrap_or(0)),
            ..self
        }
    }

    pub(super) fn not_after(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.to)
    }

    pub(super) fn write(self, params: &mut CertificateParams) {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(self.from);
        params.not_after = epoch + Duration::from_secs(self.to);
    }
}

fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}

/// 9999-12-31T23:59:59Z, the last second that X.509 can write (RFC 5280 section 4.1.2.5).
pub(super) const END_OF_TIME: u64 = 253_402_300_799;
