//! What a condition sees of a call: only what it reads.

use std::collections::HashMap;

use cel::objects::Key;
use cel::{Context, Value};

use super::check::Reads;
use super::{Failure, MAX_CHOICES, MAX_ELEMENTS};
use crate::caller::ClaimValue;
use crate::policy::{Call, HttpCall};
use crate::spiffe::TrustDomain;

/// The texts of the headers that a condition reads, and which of each is looked at.
#[derive(Debug, Default)]
pub(super) struct Choices {
    headers: Vec<Header>,
}

#[derive(Debug)]
struct Header {
    name: Box<str>,
    texts: Vec<String>,
    chosen: usize,
}

impl Choices {
    pub(super) fn of(call: &Call<'_>, reads: &Reads) -> Result<Self, Failure> {
        let mut headers = Vec::new();
        let Some(http) = &call.http else {
            return Ok(Self::default());
        };
        let mut choices = 1_usize;
        for name in &reads.headers {
            let mut texts = Vec::new();
            for value in http.headers.get_all(&**name) {
                if value.len() > MAX_TEXT_BYTES {
                    return Err(Failure::TooLarge("a header"));
                }
                let text = std::str::from_utf8(value.as_bytes())
                    .map_err(|_invalid| Failure::NotText(name.clone()))?;
                if !texts.iter().any(|known| known == text) {
                    texts.push(text.to_owned());
                }
            }
            choices = choices.saturating_mul(texts.len().max(1));
            headers.push(Header {
                name: name.clone(),
                texts,
                chosen: 0,
            });
        }
        if choices > MAX_CHOICES {
            return Err(Failure::TooLarge("the number of repeated headers"));
        }
        Ok(Self { headers })
    }

    /// Goes on to the next choice; false where all were made.
    pub(super) fn advance(&mut self) -> bool {
        for header in &mut self.headers {
            if header.chosen + 1 < header.texts.len() {
                header.chosen += 1;
                return true;
            }
            header.chosen = 0;
        }
        false
    }
}

/// Gives `context` the variables that a condition reads.
pub(super) fn provide(
    context: &mut Context<'_, '_>,
    call: &Call<'_>,
    reads: &Reads,
    choices: &Choices,
    own: &TrustDomain,
) -> Result<(), Failure> {
    if reads.now {
        let now = i64::try_from(call.now).unwrap_or(i64::MAX);
        context.add_variable_from_value("now", now);
    }
    if reads.variable("source") {
        context.add_variable_from_value("source", source(call, reads, own));
    }
    if reads.variable("destination") {
        let mut fields = Fields::new();
        if reads.has("destination", "service") {
            fields.insert("service".into(), call.service.into());
        }
        if reads.has("destination", "port") {
            fields.insert("port".into(), Value::Int(call.port.into()));
        }
        context.add_variable_from_value("destination", fields);
    }
    if reads.variable("request") {
        let fields = match &call.http {
            Some(http) => request(http, reads, choices),
            None => Fields::new(),
        };
        context.add_variable_from_value("request", fields);
    }
    if reads.variable("user") {
        context.add_variable_from_value("user", user(call, reads)?);
    }
    Ok(())
}

type Fields = HashMap<Key, Value>;

fn source(call: &Call<'_>, reads: &Reads, own: &TrustDomain) -> Fields {
    let mut fields = Fields::new();
    let Some(id) = &call.caller.spiffe_id else {
        return fields;
    };
    if reads.has("source", "spiffe_id") {
        fields.insert("spiffe_id".into(), id.as_str().into());
    }
    if reads.has("source", "trust_domain") {
        fields.insert("trust_domain".into(), id.trust_domain().as_str().into());
    }
    if reads.has("source", "service") && id.trust_domain() == own {
        fields.insert("service".into(), id.service().into());
    }
    fields
}

fn request(http: &HttpCall<'_>, reads: &Reads, choices: &Choices) -> Fields {
    let mut fields = Fields::new();
    if reads.has("request", "method") {
        fields.insert("method".into(), http.method.as_str().into());
    }
    // A canonical path is UTF-8 with its escapes undone.
    if reads.has("request", "path")
        && let Ok(path) = std::str::from_utf8(&http.plain_path)
    {
        fields.insert("path".into(), path.into());
    }
    if reads.has("request", "host") {
        fields.insert("host".into(), http.host.into());
    }
    if reads.has("request", "headers") {
        let mut headers = Fields::new();
        for header in &choices.headers {
            if let Some(text) = header.texts.get(header.chosen) {
                headers.insert((&*header.name).into(), text.as_str().into());
            }
        }
        fields.insert("headers".into(), headers.into());
    }
    fields
}

fn user(call: &Call<'_>, reads: &Reads) -> Result<Fields, Failure> {
    let mut fields = Fields::new();
    let Some(user) = call.caller.user.as_deref() else {
        return Ok(fields);
    };
    if reads.has("user", "issuer") {
        fields.insert("issuer".into(), (*user.issuer).into());
    }
    if reads.has("user", "subject") {
        fields.insert("subject".into(), (*user.subject).into());
    }
    if reads.has("user", "groups") {
        fields.insert("groups".into(), texts(&user.groups, "user.groups")?);
    }
    if reads.has("user", "roles") {
        fields.insert("roles".into(), texts(&user.roles, "user.roles")?);
    }
    if reads.has("user", "claims") {
        let mut left = MAX_VALUES;
        let mut claims = Fields::new();
        for name in &reads.claims {
            if let Some(claim) = user.claims.get(name) {
                claims.insert((&**name).into(), value(claim, &mut left)?);
            }
        }
        fields.insert("claims".into(), claims.into());
    }
    Ok(fields)
}

fn texts(texts: &[std::sync::Arc<str>], what: &'static str) -> Result<Value, Failure> {
    if texts.len() > MAX_ELEMENTS {
        return Err(Failure::TooLarge(what));
    }
    let texts: Vec<Value> = texts.iter().map(|text| (**text).into()).collect();
    Ok(texts.into())
}

/// `left` counts what may still be taken over of all claims. Tokens are not nested deeper than their parser goes.
fn value(claim: &ClaimValue, left: &mut usize) -> Result<Value, Failure> {
    const TOO_LARGE: Failure = Failure::TooLarge("a claim");
    *left = left.checked_sub(1).ok_or(TOO_LARGE)?;
    Ok(match claim {
        ClaimValue::Null => Value::Null,
        ClaimValue::Bool(value) => Value::Bool(*value),
        ClaimValue::Int(number) => Value::Int(*number),
        ClaimValue::Float(number) => Value::Float(*number),
        ClaimValue::Text(text) => (**text).into(),
        ClaimValue::List(members) if members.len() <= MAX_ELEMENTS => members
            .iter()
            .map(|member| value(member, left))
            .collect::<Result<Vec<Value>, _>>()?
            .into(),
        ClaimValue::Map(members) if members.len() <= MAX_ELEMENTS => members
            .iter()
            .map(|(name, member)| Ok(((&**name).into(), value(member, left)?)))
            .collect::<Result<Fields, Failure>>()?
            .into(),
        ClaimValue::List(_) | ClaimValue::Map(_) => return Err(TOO_LARGE),
    })
}

/// Longest text of a header.
const MAX_TEXT_BYTES: usize = 8192;
/// Most values of all claims that a condition reads.
const MAX_VALUES: usize = 1024;
