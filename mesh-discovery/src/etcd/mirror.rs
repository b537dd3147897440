//! What etcd holds of one service, kept up to date by its events.

use std::collections::BTreeMap;

use super::messages::Event;
use super::messages::KeyValue;
use super::value;
use crate::endpoint::Endpoint;
use crate::endpoint::MAX_ENDPOINTS_PER_SERVICE;
use crate::endpoint::Refused;
use crate::error::Error;

/// All keys of a service at one revision.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    /// What all keys begin with.
    prefix: Vec<u8>,
    /// By what follows the prefix.
    instances: BTreeMap<Vec<u8>, Instance>,
    /// Of all values that were read.
    bytes: usize,
    /// What happened up to here is in it, and nothing that happened later.
    revision: i64,
}

#[derive(Debug)]
struct Instance {
    /// What its value says, or why it says nothing.
    read: Result<Endpoint, Error>,
    bytes: usize,
}

/// Why a service can't be mirrored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// So many keys.
    TooMany(usize),
    /// So many bytes of values.
    TooLarge,
    /// An event is not about this service, or says nothing.
    Foreign,
}

impl Mirror {
    /// What a range of all that begins with `prefix` gave at `revision`.
    pub(super) fn new(prefix: Vec<u8>, kvs: Vec<KeyValue>, revision: i64) -> Result<Self, Fault> {
        let mut mirror = Self {
            prefix,
            revision,
            ..Self::default()
        };
        for kv in kvs {
            mirror.put(&kv)?;
        }
        Ok(mirror)
    }

    /// Takes over what happened; false where it is in already.
    pub(super) fn apply(&mut self, event: Event) -> Result<bool, Fault> {
        let kv = event.kv.ok_or(Fault::Foreign)?;
        // Events of one revision come one by one, so those of the present one may be new.
        if kv.mod_revision < self.revision {
            return Ok(false);
        }
        let revision = kv.mod_revision;
        match event.kind {
            Event::PUT => self.put(&kv)?,
            Event::DELETE => {
                let suffix = self.suffix(&kv.key)?;
                self.remove(&suffix);
            }
            _ => return Err(Fault::Foreign),
        }
        self.revision = revision;
        Ok(true)
    }

    /// All endpoints, and what was left out.
    pub(super) fn list(&self) -> (Vec<Endpoint>, Refused) {
        let mut refused = Refused::default();
        let mut list = Vec::with_capacity(self.instances.len());
        for instance in self.instances.values() {
            match &instance.read {
                Ok(endpoint) => list.push(endpoint.clone()),
                Err(error) => refused.add(error.clone()),
            }
        }
        (list, refused)
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    fn put(&mut self, kv: &KeyValue) -> Result<(), Fault> {
        let suffix = self.suffix(&kv.key)?;
        self.remove(&suffix);
        if self.instances.len() >= MAX_ENDPOINTS_PER_SERVICE {
            return Err(Fault::TooMany(self.instances.len() + 1));
        }
        let bytes = suffix.len().saturating_add(kv.value.len());
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_BYTES {
            return Err(Fault::TooLarge);
        }
        let read = match std::str::from_utf8(&suffix) {
            Ok(id) => value::read(id, &kv.value),
            Err(_) => {
                let id = String::from_utf8_lossy(&suffix);
                Err(Error::field(&id, "id", "use UTF-8"))
            }
        };
        self.instances.insert(suffix, Instance { read, bytes });
        Ok(())
    }

    fn remove(&mut self, suffix: &[u8]) {
        if let Some(gone) = self.instances.remove(suffix) {
            self.bytes = self.bytes.saturating_sub(gone.bytes);
        }
    }

    fn suffix(&self, key: &[u8]) -> Result<Vec<u8>, Fault> {
        let suffix = key.strip_prefix(&*self.prefix).ok_or(Fault::Foreign)?;
        Ok(suffix.to_vec())
    }
}

/// What one service may hold in memory: 10,000 endpoints of a kilobyte and a half.
const MAX_BYTES: usize = 16 << 20;
