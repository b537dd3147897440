//! Writes that can be sent again: the calling node gives a call an id, the called node answers a repeat from memory.
//!
//! | field | on | says |
//! |---|---|---|
//! | `x-mesh-once` | each attempt | which call it is of, and the lease that it may run under: `ID` or `ID LEASE` |
//! | `x-mesh-once-lease` | each answer to one | the lease for the next calls, and that the caller's memory is kept |
//!
//! Both pass between nodes only; in a session they are sealed with the rest of the head. What is guaranteed, and why, is in
//! `docs/retry-safe-writes.md`; the memory is [`mesh_resilience::once`].
//!
//! # Sources
//!
//! IETF draft-ietf-httpapi-idempotency-key-header-07: the field `Idempotency-Key` of applications, and what a key that is
//! used for another request is answered (section 2.7).

mod memory;
mod tape;
mod write;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use mesh_resilience::once::Lease;
use mesh_resilience::once::MessageId;

use crate::respond::Code;
use crate::respond::Refusal;

pub(crate) use self::memory::FromMemory;
pub(crate) use self::memory::Memory;
pub(crate) use self::write::IDEMPOTENCY_KEY;
pub(crate) use self::write::OutcomeUnknown;
pub(crate) use self::write::Write;
pub(crate) use self::write::Writes;

/// Which call an attempt is of, and under which lease it may run.
const X_MESH_ONCE: HeaderName = HeaderName::from_static("x-mesh-once");
/// The lease for the next calls.
const X_MESH_ONCE_LEASE: HeaderName = HeaderName::from_static("x-mesh-once-lease");

/// What `x-mesh-once` says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Asked {
    id: MessageId,
    lease: Option<Lease>,
}

impl Asked {
    /// What a request says, if it says something.
    ///
    /// # Errors
    ///
    /// A refusal of what can't be read: its caller takes the call to be one that can be repeated.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        let mut values = headers.get_all(X_MESH_ONCE).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let read = value.to_str().ok().and_then(Self::parse);
        let read = read.filter(|_| values.next().is_none());
        read.map(Some)
            .ok_or_else(|| Refusal::new(Code::BadRequest, "x-mesh-once is no message id and lease"))
    }

    fn parse(text: &str) -> Option<Self> {
        let (id, lease) = match text.split_once(' ') {
            Some((id, lease)) => (id, Some(lease.parse().ok()?)),
            None => (text, None),
        };
        let id = id.parse().ok()?;
        Some(Self { id, lease })
    }

    /// Whether it may run only where its lease is known.
    pub(crate) fn is_leased(&self) -> bool {
        self.lease.is_some()
    }

    fn value(&self) -> Option<HeaderValue> {
        let Self { id, lease } = self;
        let text = lease.map_or_else(|| id.to_string(), |lease| format!("{id} {lease}"));
        HeaderValue::try_from(text).ok()
    }
}

/// The answer to an attempt under no lease, or one that is not of this memory: it did not run.
pub(crate) fn stale() -> Refusal {
    Refusal::new(
        Code::StaleLease,
        "the call was not run: send it again with the lease of this answer, or without one if it has none",
    )
}

/// The answer where nobody knows whether a call was executed.
pub(crate) fn outcome_unknown(why: &str) -> Refusal {
    let message = format!(
        "the call was executed once or not at all, and nobody knows which: {why}; ask for its effect before you send it again"
    );
    Refusal::new(Code::OutcomeUnknown, message).maybe_processed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_attempt_says_is_read_as_it_was_written_and_anything_else_is_refused() {
        let id = "0f".repeat(32);
        let boot = "a5".repeat(16);
        let read = |texts: &[&str]| {
            let mut headers = HeaderMap::new();
            for text in texts {
                headers.append(X_MESH_ONCE, HeaderValue::from_str(text).unwrap());
            }
            Asked::read(&headers)
        };
        for text in [id.clone(), format!("{id} {boot}-17")] {
            let asked = read(&[&text]).unwrap().unwrap();
            assert_eq!(asked.value().unwrap(), text.as_str());
        }
        assert_eq!(read(&[]).unwrap(), None);
        for wrong in [
            "",
            "x",
            &format!("{id} "),
            &format!("{id}  {boot}-17"),
            &boot,
        ] {
            assert_eq!(read(&[wrong]).unwrap_err().code(), Code::BadRequest);
        }
        assert_eq!(read(&[&id, &id]).unwrap_err().code(), Code::BadRequest);
    }
}
