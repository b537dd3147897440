//! What a decision was made about, in a form that can be recorded and decided again.
//!
//! A record holds what rules can read and nothing else: of the headers and claims only those that the policy in force
//! reads. A header or claim that was looked for and not there is recorded as absent, so that another policy that reads it
//! too can decide; one that nobody looked for makes a later decision about it [`Replayed::Undecidable`], never a guess.
//!
//! # The fields
//!
//! | field | what |
//! |---|---|
//! | `decision` | id of the decision |
//! | `at` | the time that rules saw, in seconds since the Unix epoch |
//! | `service`, `port` | what was called |
//! | `peer` | SPIFFE id of the caller |
//! | `user_issuer`, `user_subject` | the user, where a credential named one |
//! | `groups`, `roles` | of the user, as a JSON list; left out where there are none |
//! | `claims` | of the user, those that rules read, as a JSON map from name to a list: empty for an absent claim |
//! | `method`, `path`, `host` | the request; left out for a connection that is not HTTP |
//! | `headers` | those that rules read, as a JSON map from name to the list of its values: empty for an absent one |
//! | `unrecorded` | names of fields above that were too long to record, as a JSON list |
//!
//! Each is a text of at most [`MAX_FIELD_BYTES`]. Issuer, subject and path are what somebody sent: whoever writes a line of
//! them escapes them, as `mesh_audit::Event` does.

mod json;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Version};
use serde_json::Value;
use thiserror::Error;

pub use self::json::claim_of_text;

use self::json::{claim_of_json, claim_to_json};
use super::{Call, Decision, Explanation, Policy, Query, needs};
use crate::caller::{Caller, ClaimValue, User};
use crate::request::{CanonicalRequest, Limits};
use crate::spiffe::{SpiffeId, SpiffeIdError};

/// Longest text of a recorded field, in bytes; what is longer is left out and named in `unrecorded`.
pub const MAX_FIELD_BYTES: usize = 4096;

/// What the rules of a policy read, beside what every record holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Needs {
    /// Headers, sorted by name, each once.
    pub headers: Vec<HeaderName>,
    /// Claims, sorted by name, each once.
    pub claims: Vec<Box<str>>,
}

impl Needs {
    /// What either of two policies reads, as for a policy and its shadow.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.headers.extend(other.headers.iter().cloned());
        self.headers.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        self.headers.dedup();
        self.claims.extend(other.claims.iter().cloned());
        self.claims.sort();
        self.claims.dedup();
        self
    }
}

/// What one decision was made about.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Facts {
    /// Id of the decision.
    pub decision: Box<str>,
    /// The time that rules saw, in seconds since the Unix epoch.
    pub at: u64,
    /// The called service.
    pub service: Box<str>,
    /// The called port, 0 where it is not known.
    pub port: u16,
    /// The identity in the peer's certificate.
    pub spiffe_id: Option<SpiffeId>,
    /// The user that a credential named.
    pub user: Option<UserFacts>,
    /// The request; none for a connection that is not HTTP.
    pub http: Option<HttpFacts>,
    /// Fields that were too long to record.
    unrecorded: Vec<Box<str>>,
}

/// A user, as far as rules read it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct UserFacts {
    /// Who vouches.
    pub issuer: Arc<str>,
    /// Who it is.
    pub subject: Arc<str>,
    /// Groups.
    pub groups: Vec<Arc<str>>,
    /// Roles.
    pub roles: Vec<Arc<str>>,
    /// The claims that rules read; none for one that the user does not have.
    pub claims: BTreeMap<Box<str>, Option<ClaimValue>>,
}

/// A request, as far as rules read it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct HttpFacts {
    /// The method.
    pub method: Method,
    /// The canonical path.
    pub path: Box<str>,
    /// The host, empty where the request named none.
    pub host: Box<str>,
    /// The headers that rules read, in lower case; an empty list for one that the request does not have.
    pub headers: BTreeMap<Box<str>, Vec<Box<str>>>,
}

/// A recorded decision, made again.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever replays must handle what can't be decided"
)]
pub enum Replayed {
    /// What the policy says.
    Decided(Decision),
    /// A rule that may have a say reads what was not recorded.
    Undecidable {
        /// What is missing: `header x-tenant`, `claim tenant`, `groups`.
        missing: Vec<String>,
    },
}

impl Facts {
    /// What `query` asks about, under the id `decision`; of headers and claims only those in `needs`.
    pub fn of(decision: &str, query: &Query<'_>, needs: &Needs) -> Self {
        Self {
            decision: decision.into(),
            at: query.now,
            service: query.service.into(),
            port: query.port,
            spiffe_id: query.caller.spiffe_id.clone(),
            user: query.caller.user.as_deref().map(|user| UserFacts {
                issuer: Arc::clone(&user.issuer),
                subject: Arc::clone(&user.subject),
                groups: user.groups.clone(),
                roles: user.roles.clone(),
                claims: needs
                    .claims
                    .iter()
                    .map(|name| (name.clone(), user.claims.get(name).cloned()))
                    .collect(),
            }),
            http: query.request.map(|request| HttpFacts::of(request, needs)),
            unrecorded: Vec::new(),
        }
    }

    /// The fields of a record, those that are empty left out.
    pub fn to_fields(&self) -> Vec<(&'static str, String)> {
        let mut unrecorded = self.unrecorded.clone();
        let mut fields = Vec::with_capacity(FIELDS);
        let mut put = |name: &'static str, text: String| {
            if text.len() > MAX_FIELD_BYTES {
                unrecorded.push(name.into());
            } else if !text.is_empty() {
                fields.push((name, text));
            }
        };
        put("decision", self.decision.to_string());
        put("at", self.at.to_string());
        if let Some(id) = &self.spiffe_id {
            put("peer", id.to_string());
        }
        put("service", self.service.to_string());
        put("port", self.port.to_string());
        if let Some(user) = &self.user {
            put("user_issuer", user.issuer.to_string());
            put("user_subject", user.subject.to_string());
            put("groups", list_text(&user.groups));
            put("roles", list_text(&user.roles));
            put(
                "claims",
                map_text(&user.claims, |value| {
                    value.iter().map(claim_to_json).collect()
                }),
            );
        }
        if let Some(http) = &self.http {
            put("method", http.method.to_string());
            put("path", http.path.to_string());
            put("host", http.host.to_string());
            put(
                "headers",
                map_text(&http.headers, |values| {
                    values.iter().map(|value| Value::from(&**value)).collect()
                }),
            );
        }
        if !unrecorded.is_empty() {
            fields.push(("unrecorded", list_text(&unrecorded)));
        }
        fields
    }

    /// Reads the fields of a record; `get` gives a field's text by its name, numbers in decimal.
    ///
    /// # Errors
    /// When a field that every record has is missing, or one is not what [`Self::to_fields`] writes.
    pub fn from_fields<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, FactsError> {
        let fields = Fields(get);
        if fields.text("omitted")?.is_some() {
            return Err(FactsError::Incomplete);
        }
        let unrecorded: Vec<Box<str>> = fields.list("unrecorded")?;
        let is_unrecorded = |name: &str| unrecorded.iter().any(|field| **field == *name);
        let spiffe_id = match fields.text("peer")? {
            None => None,
            Some(text) => Some(SpiffeId::parse(text).map_err(FactsError::Peer)?),
        };
        let subject = fields.text("user_subject")?;
        let issuer = fields.text("user_issuer")?;
        let user = match (issuer, subject) {
            (None, None) if !is_unrecorded("user_subject") && !is_unrecorded("user_issuer") => None,
            _ => Some(UserFacts {
                issuer: issuer.unwrap_or_default().into(),
                subject: subject.unwrap_or_default().into(),
                groups: fields.list("groups")?,
                roles: fields.list("roles")?,
                claims: fields.map("claims", |list| match list {
                    [] => Some(None),
                    [value] => Some(Some(claim_of_json(value))),
                    _ => None,
                })?,
            }),
        };
        let http = match fields.text("method")? {
            None => None,
            Some(method) => Some(HttpFacts {
                method: Method::from_bytes(method.as_bytes())
                    .map_err(|_invalid| FactsError::Malformed { field: "method" })?,
                path: match fields.text("path")? {
                    Some(path) => path.into(),
                    None if is_unrecorded("path") => "/".into(),
                    None => return Err(FactsError::Missing { field: "path" }),
                },
                host: fields.text("host")?.unwrap_or_default().into(),
                headers: fields.map("headers", |list| {
                    list.iter()
                        .map(|value| value.as_str().map(Into::into))
                        .collect()
                })?,
            }),
        };
        let facts = Self {
            decision: fields.needed("decision")?.into(),
            at: fields.number("at")?,
            service: fields.needed("service")?.into(),
            port: u16::try_from(fields.number("port")?)
                .map_err(|_too_large| FactsError::Malformed { field: "port" })?,
            spiffe_id,
            user,
            http,
            unrecorded,
        };
        facts.request()?;
        Ok(facts)
    }

    /// Who called.
    pub fn caller(&self) -> Caller {
        let user = self.user.as_ref().map(|facts| {
            let mut user = User::new(&facts.issuer, &facts.subject);
            user.groups.clone_from(&facts.groups);
            user.roles.clone_from(&facts.roles);
            user.claims = facts
                .claims
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
                .collect();
            Arc::new(user)
        });
        Caller::new(self.spiffe_id.clone(), user)
    }

    /// What `policy` says about the same call at the same time.
    pub fn decide(&self, policy: &Policy) -> Replayed {
        self.ask(policy, Policy::decide).map_or_else(
            |missing| Replayed::Undecidable { missing },
            Replayed::Decided,
        )
    }

    /// As [`Self::decide`], with the reasons.
    ///
    /// # Errors
    /// What is missing, where the policy reads what was not recorded.
    pub fn explain(&self, policy: &Policy) -> Result<Explanation, Vec<String>> {
        self.ask(policy, Policy::explain)
    }

    fn ask<T>(
        &self,
        policy: &Policy,
        answer: impl Fn(&Policy, &Query<'_>) -> T,
    ) -> Result<T, Vec<String>> {
        let request = self
            .request()
            .map_err(|_changed| vec!["request".to_owned()])?;
        let caller = self.caller();
        let query = Query::new(&caller, &self.service, self.at).with_port(self.port);
        let query = match &request {
            Some(request) => query.with_request(request),
            None => query,
        };
        let missing = self.missing(&needs::for_call(policy, &Call::new(&query)));
        if missing.is_empty() {
            Ok(answer(policy, &query))
        } else {
            Err(missing)
        }
    }

    fn missing(&self, needs: &Needs) -> Vec<String> {
        let mut missing: Vec<String> = self.unrecorded.iter().map(ToString::to_string).collect();
        missing.retain(|field| field != "claims" && field != "headers");
        if let Some(user) = &self.user {
            let unread = |name: &&str| !user.claims.contains_key(*name);
            let names = needs.claims.iter().map(|name| &**name).filter(unread);
            missing.extend(names.map(|name| format!("claim {name}")));
        }
        if let Some(http) = &self.http {
            let unread = |name: &&HeaderName| !http.headers.contains_key(name.as_str());
            let names = needs.headers.iter().filter(unread);
            missing.extend(names.map(|name| format!("header {name}")));
        }
        missing
    }

    /// The request, canonical as it was.
    fn request(&self) -> Result<Option<CanonicalRequest>, FactsError> {
        let Some(http) = &self.http else {
            return Ok(None);
        };
        let wrong = || FactsError::Malformed { field: "path" };
        let mut request = Request::builder()
            .method(http.method.clone())
            .uri(&*http.path);
        if http.host.is_empty() {
            request = request.version(Version::HTTP_10);
        } else {
            request = request.header(http::header::HOST, &*http.host);
        }
        let request = request.body(()).map_err(|_invalid| wrong())?;
        // Only what was accepted is recorded, also where a listener accepts path parameters.
        let limits = Limits::default()
            .with_max_uri_bytes(MAX_FIELD_BYTES)
            .with_path_parameters(true);
        let mut request =
            CanonicalRequest::new(request.into_parts().0, &limits).map_err(|_refused| wrong())?;
        if request.path() != &*http.path {
            return Err(wrong());
        }
        for (name, values) in &http.headers {
            let wrong = || FactsError::Malformed { field: "headers" };
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_invalid| wrong())?;
            for value in values {
                let value =
                    HeaderValue::from_bytes(value.as_bytes()).map_err(|_invalid| wrong())?;
                request.headers_mut().append(&name, value);
            }
        }
        Ok(Some(request))
    }
}

impl HttpFacts {
    fn of(request: &CanonicalRequest, needs: &Needs) -> Self {
        let values = |name: &HeaderName| -> Option<Vec<Box<str>>> {
            let values = request.headers().get_all(name).iter();
            // A value that is no text can't be written down; it counts as not recorded.
            values
                .map(|value| std::str::from_utf8(value.as_bytes()).ok().map(Into::into))
                .collect()
        };
        let headers = needs.headers.iter();
        Self {
            method: request.method().clone(),
            path: request.path().into(),
            host: request.host().into(),
            headers: headers
                .filter_map(|name| Some((name.as_str().into(), values(name)?)))
                .collect(),
        }
    }
}

/// The fields of a record, by name.
struct Fields<F>(F);

impl<'a, F: Fn(&str) -> Option<&'a str>> Fields<F> {
    fn text(&self, name: &str) -> Result<Option<&'a str>, FactsError> {
        // The audit log says so where it cut a text.
        if (self.0)(&format!("{name}.cut")).is_some() {
            return Err(FactsError::Incomplete);
        }
        Ok((self.0)(name).filter(|text| !text.is_empty()))
    }

    fn needed(&self, field: &'static str) -> Result<&'a str, FactsError> {
        self.text(field)?.ok_or(FactsError::Missing { field })
    }

    fn number(&self, field: &'static str) -> Result<u64, FactsError> {
        let text = self.needed(field)?;
        text.parse()
            .map_err(|_invalid| FactsError::Malformed { field })
    }

    fn list<T: for<'b> From<&'b str>>(&self, field: &'static str) -> Result<Vec<T>, FactsError> {
        let Some(text) = self.text(field)? else {
            return Ok(Vec::new());
        };
        let list: Vec<String> =
            serde_json::from_str(text).map_err(|source| FactsError::Json { field, source })?;
        Ok(list.iter().map(|text| T::from(text)).collect())
    }

    fn map<T>(
        &self,
        field: &'static str,
        read: impl Fn(&[Value]) -> Option<T>,
    ) -> Result<BTreeMap<Box<str>, T>, FactsError> {
        let Some(text) = self.text(field)? else {
            return Ok(BTreeMap::new());
        };
        let map: BTreeMap<Box<str>, Vec<Value>> =
            serde_json::from_str(text).map_err(|source| FactsError::Json { field, source })?;
        map.into_iter()
            .map(|(name, list)| Some((name, read(&list)?)))
            .collect::<Option<_>>()
            .ok_or(FactsError::Malformed { field })
    }
}

/// A JSON list; empty for no texts.
fn list_text<T: AsRef<str>>(texts: &[T]) -> String {
    if texts.is_empty() {
        return String::new();
    }
    texts
        .iter()
        .map(AsRef::as_ref)
        .collect::<Value>()
        .to_string()
}

/// A JSON map from name to list. Entries that would make it too long are left out: what is not there was not recorded.
fn map_text<T>(map: &BTreeMap<Box<str>, T>, list: impl Fn(&T) -> Vec<Value>) -> String {
    let mut text = String::new();
    for (name, value) in map {
        let entry = format!("{}:{}", Value::from(&**name), Value::Array(list(value)));
        if text.len() + entry.len() + "{,}".len() <= MAX_FIELD_BYTES {
            text.push(if text.is_empty() { '{' } else { ',' });
            text.push_str(&entry);
        }
    }
    if !text.is_empty() {
        text.push('}');
    }
    text
}

/// Why the fields of a record are not those of a decision.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FactsError {
    /// A field that every decision has is not there.
    #[error("the record has no {field}")]
    Missing {
        /// Name of the field.
        field: &'static str,
    },
    /// A field is not what a decision has there.
    #[error("the record's {field} is not one of a decision")]
    Malformed {
        /// Name of the field.
        field: &'static str,
    },
    /// A list or map is not JSON.
    #[error("the record's {field} can't be read")]
    Json {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The peer is no SPIFFE id.
    #[error("the record's peer is not a SPIFFE id")]
    Peer(#[source] SpiffeIdError),
    /// The record was cut when it was written.
    #[error("the record was too long and is not complete")]
    Incomplete,
}

/// Most fields of a record.
const FIELDS: usize = 14;

#[cfg(test)]
mod tests;
