//! What is known of all resources of one type, and what has to be said about them: the protocol, without a connection.
//!
//! - Both variants: state of the world, where a response carries one version, and incremental, where each resource does.
//! - A response is taken resource by resource. What is good in it is used, what is bad is refused by name with its last good
//!   value kept, and the response as a whole is refused (NACK): at once the first time, and where the same is sent again,
//!   after a pause that doubles. Refusing it at once for ever would be a busy loop with a server that answers a refusal with
//!   what was refused; never refusing it again would leave a server waiting that sends nothing before it has an answer.
//! - The last good value of a resource stays until the server says that it is gone.
//!
//! # Sources
//!
//! Envoy, "xDS REST and gRPC protocol": ACK and NACK, "Resource updates", "How the client specifies what resources to
//! return", "Knowing when a requested resource does not exist"; gRFC A46, which takes the good resources of a response that
//! is refused.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::ignored::Ignored;
use super::message::Body;
use super::message::Received;
use super::message::Request;
use super::message::Response;
use super::refusal::Refusal;
use super::wire::Wrong;

/// A type of resources.
pub(super) trait Kind {
    /// One resource, read and checked.
    type Value: PartialEq;
    /// What it is called in errors.
    const LABEL: &'static str;
    const TYPE_URL: &'static str;
    /// A response in state of the world lists all that there are; where not, what it does not list has not changed.
    const IS_WHOLE: bool;

    fn name(bytes: &[u8]) -> Option<&str>;
    fn decode(bytes: &[u8], ignored: &mut Ignored) -> Result<Self::Value, Wrong>;
    /// After this time without another, it is not to be trusted; zero is never.
    fn stale_after(value: &Self::Value) -> Duration;
}

/// All resources of one type.
#[derive(Debug)]
pub(super) struct Topic<K: Kind> {
    is_delta: bool,
    first_answer: Duration,
    entries: BTreeMap<String, Entry<K::Value>>,
    /// Of the last response that was taken as a whole, in state of the world.
    version: String,
    stream: OfStream,
}

/// What begins anew with each stream.
#[derive(Debug, Default)]
struct OfStream {
    nonce: String,
    /// What the last response has to be answered with.
    reply: Option<Reply>,
    is_opened: bool,
    are_names_changed: bool,
    /// Names to unsubscribe, in the incremental variant.
    dropped: BTreeSet<String>,
    /// Version of the last response that was refused since the names changed.
    refused: Option<String>,
    /// The refusal of what was refused before, and when it is to be said again.
    again: Option<(Instant, String)>,
    /// How many such refusals there were in a row.
    repeats: u32,
    trust: Trust,
}

/// Whether the server knows what is subscribed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trust {
    #[default]
    Sure,
    /// Something was unsubscribed, and the server may not know: in state of the world it ignores requests that its own
    /// next response has overtaken. What is subscribed again then is nothing new to it, and gets no answer.
    Unsure,
    /// There was no answer, and that may be why.
    Lost,
}

#[derive(Debug)]
enum Reply {
    Accept,
    Refuse(String),
}

#[derive(Debug)]
struct Entry<V> {
    value: Option<Arc<V>>,
    version: String,
    /// The server says that there is none, or nothing for too long.
    is_absent: bool,
    refusal: Option<Arc<Refusal>>,
    stale_at: Option<Instant>,
    // Of the stream.
    is_asked: bool,
    is_answered: bool,
    due: Option<Instant>,
    refused: Option<String>,
}

impl<V> Default for Entry<V> {
    fn default() -> Self {
        Self {
            value: None,
            version: String::new(),
            is_absent: false,
            refusal: None,
            stale_at: None,
            is_asked: false,
            is_answered: false,
            due: None,
            refused: None,
        }
    }
}

/// What is known of a resource.
#[derive(Debug)]
pub(super) struct Known<'a, V> {
    /// Its last good value.
    pub(super) value: Option<&'a Arc<V>>,
    /// There is none.
    pub(super) is_absent: bool,
    /// Why what the server says of it now is not used.
    pub(super) refusal: Option<&'a Arc<Refusal>>,
    /// The server has spoken of it over this stream, or need not since nothing has changed.
    pub(super) is_answered: bool,
}

/// What became of a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// The resources that were asked for of which it says something.
    pub(super) touched: Vec<String>,
    /// How it is answered.
    pub(super) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verdict {
    #[default]
    Accepted,
    Refused,
    /// Refused as before: the server has been told, and is told again after a while.
    RefusedAgain,
}

impl<K: Kind> Topic<K> {
    pub(super) fn new(is_delta: bool, first_answer: Duration) -> Self {
        Self {
            is_delta,
            first_answer,
            entries: BTreeMap::new(),
            version: String::new(),
            stream: OfStream::default(),
        }
    }

    /// Follows a resource from now on.
    pub(super) fn want(&mut self, name: &str) {
        if !self.entries.contains_key(name) {
            self.entries.insert(name.to_owned(), Entry::default());
            self.stream.dropped.remove(name);
            self.stream.are_names_changed = true;
            self.stream.refused = None;
        }
    }

    /// Forgets a resource.
    pub(super) fn unwant(&mut self, name: &str) {
        if let Some(entry) = self.entries.remove(name) {
            if entry.is_asked {
                self.stream.trust = Trust::Unsure;
            }
            if entry.is_asked && self.is_delta {
                self.stream.dropped.insert(name.to_owned());
            }
            self.stream.are_names_changed = true;
            self.stream.refused = None;
        }
    }

    /// A new stream begins. Versions are carried over where it leads to the same server as the last one, except those of
    /// what is listed as a whole: that is small, and asking for it anew brings an answer at once, which shows that the server
    /// is there and speaks. Without, silence could mean that nothing has changed, or that nobody is there.
    pub(super) fn begin_stream(&mut self, is_same_server: bool) {
        let is_resumed = is_same_server && !K::IS_WHOLE;
        self.stream = OfStream {
            are_names_changed: true,
            ..OfStream::default()
        };
        if !is_resumed {
            self.version.clear();
        }
        for entry in self.entries.values_mut() {
            if !is_resumed {
                entry.version.clear();
            }
            entry.is_asked = false;
            // Of what has not changed since, the server need not speak again.
            entry.is_answered = is_resumed && (entry.value.is_some() || entry.is_absent);
            entry.due = None;
            entry.refused = None;
        }
    }

    /// True when there is something to say.
    pub(super) fn has_request(&self) -> bool {
        self.stream.reply.is_some()
            || (self.stream.are_names_changed
                && (self.stream.is_opened || !self.entries.is_empty()))
    }

    /// What is to be said now.
    pub(super) fn next_request(&mut self, now: Instant) -> Option<Request> {
        if !self.has_request() {
            return None;
        }
        let again = self.stream.again.take();
        let again = again.map(|(_, reason)| Reply::Refuse(reason));
        let reply = self.stream.reply.take().or(again);
        let mut request = Request {
            type_url: K::TYPE_URL,
            ..Request::default()
        };
        if self.is_delta {
            if reply.is_some() {
                request.nonce.clone_from(&self.stream.nonce);
            }
            request.body = self.delta();
        } else {
            // A version is of all that was asked for. To a server that has no other, it says that nothing is missing.
            if !self.stream.is_opened && self.entries.values().any(|entry| !entry.is_answered) {
                self.version.clear();
            }
            request.nonce.clone_from(&self.stream.nonce);
            request.body = Body::Whole {
                version: self.version.clone(),
                names: self.entries.keys().cloned().collect(),
            };
        }
        if let Some(Reply::Refuse(reason)) = reply {
            request.refusal = Some(reason);
        }
        for entry in self.entries.values_mut().filter(|entry| !entry.is_asked) {
            entry.is_asked = true;
            if !entry.is_answered {
                entry.due = Some(now + self.first_answer);
            }
        }
        self.stream.is_opened = true;
        self.stream.are_names_changed = false;
        Some(request)
    }

    fn delta(&mut self) -> Body {
        let new = self.entries.iter().filter(|(_, entry)| !entry.is_asked);
        let versions = new
            .clone()
            .filter(|(_, entry)| !self.stream.is_opened && !entry.version.is_empty())
            .map(|(name, entry)| (name.clone(), entry.version.clone()));
        Body::Delta {
            versions: versions.collect(),
            subscribe: new.map(|(name, _)| name.clone()).collect(),
            unsubscribe: std::mem::take(&mut self.stream.dropped)
                .into_iter()
                .collect(),
        }
    }

    /// Takes a response of this type.
    pub(super) fn take(
        &mut self,
        now: Instant,
        response: &Response<'_>,
        ignored: &mut Ignored,
    ) -> Taken {
        let (found, mut wrong) = self.read(response, ignored);
        let mut is_news =
            !wrong.is_empty() && self.stream.refused.as_deref() != Some(response.version);
        let is_whole = K::IS_WHOLE && !self.is_delta && wrong.is_empty();
        let mut touched = self.remove(&response.removed, &found, is_whole);
        for (name, (version, outcome)) in found {
            let Some(entry) = self.entries.get_mut(name) else {
                continue;
            };
            touched.push(name.to_owned());
            entry.answered();
            match outcome {
                Ok(value) => entry.accept::<K>(now, version, value),
                Err(reason) => {
                    let begin: String = version.chars().take(MAX_VERSION).collect();
                    is_news |= if self.is_delta {
                        entry.refused.as_ref() != Some(&begin)
                    } else {
                        self.stream.refused.as_deref() != Some(response.version)
                    };
                    entry.refused = Some(begin);
                    let refusal = Refusal {
                        kind: K::LABEL,
                        resource: name.to_owned(),
                        reason,
                    };
                    wrong.push(refusal.to_string());
                    entry.refusal = Some(Arc::new(refusal));
                }
            }
        }
        response.nonce.clone_into(&mut self.stream.nonce);
        let verdict = if wrong.is_empty() {
            response.version.clone_into(&mut self.version);
            self.stream.refused = None;
            self.stream.answer(Reply::Accept);
            Verdict::Accepted
        } else if is_news {
            self.stream.refused = Some(response.version.to_owned());
            self.stream.answer(Reply::Refuse(detail(&wrong)));
            Verdict::Refused
        } else {
            self.stream.refuse_again(now, detail(&wrong));
            Verdict::RefusedAgain
        };
        Taken { touched, verdict }
    }

    /// What is gone: by name, or because it is not in what is the whole.
    fn remove<T>(
        &mut self,
        removed: &[&str],
        found: &BTreeMap<&str, T>,
        is_whole: bool,
    ) -> Vec<String> {
        let mut touched = Vec::new();
        for name in removed.iter().filter(|name| !found.contains_key(*name)) {
            if let Some(entry) = self.entries.get_mut(*name) {
                entry.answered();
                entry.remove();
                touched.push((*name).to_owned());
            }
        }
        if !is_whole {
            return touched;
        }
        for (name, entry) in &mut self.entries {
            // One that was never seen may have been asked for after the server began to write this.
            let was_seen = entry.value.is_some() || entry.refusal.is_some();
            if was_seen && !found.contains_key(name.as_str()) {
                entry.answered();
                entry.remove();
                touched.push(name.clone());
            }
        }
        touched
    }

    /// The resources of a response that were asked for, and what is wrong with those that have no name.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn read<'a>(
        &self,
        response: &Response<'a>,
        ignored: &mut Ignored,
    ) -> (
        BTreeMap<&'a str, (&'a str, Result<Option<K::Value>, String>)>,
        Vec<String>,
    ) {
        let mut found = BTreeMap::new();
        let mut nameless = Vec::new();
        let removed: BTreeSet<_> = response.removed.iter().collect();
        for (index, received) in response.resources.iter().enumerate() {
            let own = received.content.and_then(|(_, bytes)| K::name(bytes));
            let name = if received.name.is_empty() {
                own.unwrap_or_default()
            } else {
                received.name
            };
            if name.is_empty() {
                nameless.push(format!(
                    "resource {index} of the response has no name that can be read"
                ));
                continue;
            }
            if !self.entries.contains_key(name) {
                continue;
            }
            ignored.enter(name);
            let outcome = if found.contains_key(name) {
                Err("is there twice".to_owned())
            } else if removed.contains(&name) {
                Err("is given and removed at once".to_owned())
            } else {
                self.decode(name, own, received, ignored)
            };
            found.insert(name, (received.version, outcome));
        }
        (found, nameless)
    }

    /// A resource, or none where its version is only confirmed.
    fn decode(
        &self,
        name: &str,
        own: Option<&str>,
        received: &Received<'_>,
        ignored: &mut Ignored,
    ) -> Result<Option<K::Value>, String> {
        let Some((type_url, bytes)) = received.content else {
            let known = self.entries.get(name);
            let is_known = known
                .is_some_and(|entry| entry.value.is_some() && entry.version == received.version);
            return is_known
                .then_some(None)
                .ok_or_else(|| "has no content".to_owned());
        };
        if received.version.len() > MAX_VERSION {
            return Err(format!("has a version of more than {MAX_VERSION} bytes"));
        }
        if type_url != K::TYPE_URL {
            let shown: String = type_url.chars().take(100).collect();
            return Err(format!("is of type {shown:?}"));
        }
        let value = K::decode(bytes, ignored).map_err(|wrong| wrong.to_string())?;
        if own != Some(name) {
            return Err("has another name inside".to_owned());
        }
        Ok(Some(value))
    }

    /// Lets time pass; gives the resources of which something is to be said because of it.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<String> {
        if let Some((_, reason)) = self.stream.again.take_if(|(due, _)| *due <= now) {
            self.stream.reply = Some(Reply::Refuse(reason));
        }
        let mut touched = Vec::new();
        for (name, entry) in &mut self.entries {
            let refuse = |reason: &str| {
                Some(Arc::new(Refusal {
                    kind: K::LABEL,
                    resource: name.clone(),
                    reason: reason.to_owned(),
                }))
            };
            let is_due = entry.due.is_some_and(|due| due <= now);
            let is_stale = entry.stale_at.is_some_and(|at| at <= now);
            if is_due {
                entry.due = None;
                if entry.value.is_some() {
                    entry.refusal = refuse("is not given by this server");
                } else if entry.refusal.is_none() {
                    if self.stream.trust != Trust::Sure {
                        self.stream.trust = Trust::Lost;
                        continue;
                    }
                    entry.is_absent = true;
                }
            }
            if is_stale {
                entry.stale_at = None;
                entry.refusal = refuse("is older than its endpoint_stale_after allows");
            }
            if is_due || is_stale {
                touched.push(name.clone());
            }
        }
        touched
    }

    /// True when only another stream can tell what is there.
    pub(super) fn needs_stream(&self) -> bool {
        self.stream.trust == Trust::Lost
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let all = self.entries.values();
        let again = self.stream.again.as_ref().map(|(due, _)| *due);
        all.flat_map(|entry| [entry.due, entry.stale_at])
            .chain([again])
            .flatten()
            .min()
    }

    /// Stops waiting for answers: there is no stream that could bring them.
    pub(super) fn end_stream(&mut self) {
        for entry in self.entries.values_mut() {
            entry.due = None;
        }
        self.stream.reply = None;
        self.stream.again = None;
    }

    /// What is known of a resource that is followed.
    pub(super) fn known(&self, name: &str) -> Option<Known<'_, K::Value>> {
        self.entries.get(name).map(|entry| Known {
            value: entry.value.as_ref(),
            is_absent: entry.is_absent,
            refusal: entry.refusal.as_ref(),
            is_answered: entry.is_answered,
        })
    }
}

impl OfStream {
    /// Answers the last response as soon as possible.
    fn answer(&mut self, reply: Reply) {
        self.reply = Some(reply);
        self.again = None;
        self.repeats = 0;
    }

    /// Answers the last response, which was refused before, after a pause that doubles each time.
    fn refuse_again(&mut self, now: Instant, reason: String) {
        // What is about to be said is of an earlier response, but would carry the nonce of this one.
        if let Some(reply) = &mut self.reply {
            *reply = Reply::Refuse(reason);
            return;
        }
        let due = match self.again.take() {
            Some((due, _)) => due,
            None => {
                let pause = FIRST_REPEAT * (1 << self.repeats.min(MAX_DOUBLINGS));
                self.repeats = self.repeats.saturating_add(1);
                now + pause.min(LAST_REPEAT)
            }
        };
        self.again = Some((due, reason));
    }
}

impl<V: PartialEq> Entry<V> {
    fn answered(&mut self) {
        self.is_answered = true;
        self.due = None;
    }

    fn remove(&mut self) {
        self.value = None;
        self.version.clear();
        self.is_absent = true;
        self.refusal = None;
        self.stale_at = None;
    }

    fn accept<K: Kind<Value = V>>(&mut self, now: Instant, version: &str, value: Option<V>) {
        if let Some(value) = value
            && self.value.as_deref() != Some(&value)
        {
            self.value = Some(Arc::new(value));
        }
        version.clone_into(&mut self.version);
        self.is_absent = false;
        self.refusal = None;
        self.refused = None;
        let stale_after = self.value.as_deref().map(K::stale_after);
        self.stale_at = stale_after
            .filter(|after| !after.is_zero())
            .and_then(|after| now.checked_add(after));
    }
}

/// Why a response is refused, in one bounded text.
fn detail(wrong: &[String]) -> String {
    let shown: Vec<_> = wrong.iter().take(MAX_REASONS).map(String::as_str).collect();
    let mut text = shown.join("; ");
    if wrong.len() > shown.len() {
        text = format!("{text}; and {} more", wrong.len() - shown.len());
    }
    text.chars().take(MAX_DETAIL).collect()
}

/// Before the same is refused again.
const FIRST_REPEAT: Duration = Duration::from_secs(1);
/// How long a server that waits for an answer may have to wait with what is better.
const LAST_REPEAT: Duration = Duration::from_secs(30);
const MAX_DOUBLINGS: u32 = 5;
/// It is kept for each resource.
const MAX_VERSION: usize = 1024;
/// Of a response with a thousand bad resources, some are enough to begin with.
const MAX_REASONS: usize = 20;
/// gRPC servers take headers and messages of this size everywhere.
const MAX_DETAIL: usize = 4096;

#[cfg(test)]
mod tests;
