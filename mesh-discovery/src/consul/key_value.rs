//! Consul's key-value store, for configuration that changes.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::Client;
use super::Error;
use super::escaped;
use super::exchange::Ask;
use super::exchange::Fetched;
use super::query::Query;
use super::rights::Rights;

/// A key and what it holds.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// What it holds; Consul takes up to 512 KiB.
    pub value: Vec<u8>,
    /// Consul's index of its last change.
    pub modify_index: u64,
    /// A number that belongs to the application.
    pub flags: u64,
}

impl fmt::Debug for KeyValue {
    /// Without the value, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValue")
            .field("key", &self.key)
            .field("value_bytes", &self.value.len())
            .field("modify_index", &self.modify_index)
            .field("flags", &self.flags)
            .finish()
    }
}

/// Follows one key.
#[derive(Debug)]
pub struct KeyWatch {
    query: Query,
    last: Option<Vec<KeyValue>>,
}

/// Follows all keys that begin alike.
#[derive(Debug)]
pub struct PrefixWatch {
    client: Client,
    prefix: String,
    query: Query,
    rights: Rights,
    last: Option<Vec<KeyValue>>,
}

/// Follows `key`, as `shop/config`. Nothing is asked before [`KeyWatch::next`].
///
/// # Errors
///
/// [`Error::Setting`] for a key that is empty or has an empty segment, or one of dots, which Consul can't be asked for.
pub fn watch_key(client: &Client, key: &str) -> Result<KeyWatch, Error> {
    let query = query(client, key, "")?;
    Ok(KeyWatch { query, last: None })
}

/// Follows all keys that begin with `prefix`, as `shop/`. Nothing is asked before [`PrefixWatch::next`]. All of them
/// together may be as long as [`Config::max_answer`](super::Config::max_answer), in Base64.
///
/// # Errors
///
/// As [`watch_key`].
pub fn watch_prefix(client: &Client, prefix: &str) -> Result<PrefixWatch, Error> {
    Ok(PrefixWatch {
        client: client.clone(),
        prefix: prefix.to_owned(),
        query: query(client, prefix, "?recurse")?,
        rights: Rights::default(),
        last: None,
    })
}

impl KeyWatch {
    /// Waits until the key holds something else than when this was called last; the first time, for what it holds now.
    /// None where there is no such key.
    ///
    /// # Errors
    ///
    /// [`Error`]: nothing is known of the key then, and what was known before is the best there is. Call again to go on;
    /// attempts are spread as those of [`Query::next`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<KeyValue>, Error> {
        loop {
            let Some(answer) = self.query.round(read).await?.answer else {
                continue;
            };
            let found = answer.value;
            if self.last.as_ref() != Some(&found) {
                let key = found.first().cloned();
                self.last = Some(found);
                return Ok(key);
            }
        }
    }
}

impl PrefixWatch {
    /// Waits until a key that begins with the prefix holds something else than when this was called last, or comes or
    /// goes; the first time, for what they hold now. In the order of the keys, empty where there are none.
    ///
    /// A token must have `key_prefix` rights to read the whole prefix. Consul before 1.11 leaves keys out that the token
    /// may not read and says nothing of it; only that it may read none of them is noticed.
    ///
    /// # Errors
    ///
    /// As [`KeyWatch::next`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Vec<KeyValue>, Error> {
        loop {
            let Some(answer) = self.query.round(read).await?.answer else {
                continue;
            };
            let found = answer.value;
            if found.is_empty() {
                let needed = [("key", &*self.prefix)];
                let asked = self.query.asked();
                let granted = self.rights.check(&self.client, asked, &needed).await;
                granted.inspect_err(|_| self.query.refuse())?;
            } else {
                self.rights.forget();
            }
            if self.last.as_ref() != Some(&found) {
                self.last = Some(found.clone());
                return Ok(found);
            }
        }
    }
}

fn query(client: &Client, key: &str, parameters: &str) -> Result<Query, Error> {
    let whole = key.strip_suffix('/').unwrap_or(key);
    if whole
        .split('/')
        .any(|segment| matches!(segment, "" | "." | ".."))
    {
        return Err(Error::Setting {
            what: "the key",
            reason: "it must not be empty, nor have a segment that is empty or dots",
        });
    }
    let key: Vec<_> = key.split('/').map(escaped).collect();
    let mut ask = Ask::get(client, format!("/v1/kv/{}{parameters}", key.join("/")));
    ask.may_be_absent = true;
    Ok(Query::new(client.clone(), ask))
}

/// The keys of an answer.
fn read(client: &Client, ask: &Ask, fetched: &Fetched) -> Result<Vec<KeyValue>, Error> {
    if fetched.is_absent {
        return Ok(Vec::new());
    }
    let entries: Vec<Entry> = ask.decode(client, fetched)?;
    let read = |entry: Entry| {
        let value = BASE64_STANDARD.decode(entry.value.unwrap_or_default());
        Ok(KeyValue {
            key: entry.key,
            value: value.map_err(|source| ask.misunderstood(client, source.to_string()))?,
            modify_index: entry.modify_index,
            flags: entry.flags,
        })
    };
    entries.into_iter().map(read).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    value: Option<String>,
    modify_index: u64,
    #[serde(default)]
    flags: u64,
}
