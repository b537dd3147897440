//! What the value of a key says of an instance, and how it is written. The page of the module above says what each field
//! means.

use std::num::NonZeroU16;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::endpoint::Condition;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::host::Host;
use crate::metadata;

/// Reads the value of the instance `id`. What it gives has been checked.
///
/// # Errors
///
/// [`Error`] that names the instance.
// threat 51
pub fn read(id: &str, value: &[u8]) -> Result<Endpoint, Error> {
    let refuse = |field, reason| Error::field(id, field, reason);
    if value.len() > MAX_VALUE {
        return Err(refuse("value", "use at most 128 KiB"));
    }
    let fields = match serde_json::from_slice(value) {
        Ok(Value::Object(fields)) => Fields { id, fields },
        _ => return Err(refuse("value", "use a JSON object in UTF-8")),
    };
    let host = fields
        .text("host")?
        .ok_or_else(|| refuse("host", "it must be there"))?;
    let host = Host::parse(host).map_err(|source| Error::host(id, source))?;
    let port = fields.number("port", 1, u16::MAX, "use a whole number from 1 to 65535")?;
    let port = port.ok_or_else(|| refuse("port", "it must be there"))?;
    let mut endpoint = Endpoint::new(host, port);
    id.clone_into(&mut endpoint.id);
    metadata::apply(fields.metadata()?, &mut endpoint)?;
    let weight = fields.number("weight", 1, u16::MAX, "use a whole number from 1 to 65535")?;
    if let Some(weight) = weight.and_then(NonZeroU16::new) {
        endpoint.weight = weight;
    }
    if let Some(priority) = fields.number(
        "priority",
        0,
        u16::MAX,
        "use a whole number from 0 to 65535",
    )? {
        endpoint.priority = priority;
    }
    let known = [
        ("zone", &mut endpoint.zone),
        ("version", &mut endpoint.version),
        ("spiffe_id", &mut endpoint.spiffe_id),
        (
            "public_key_fingerprint",
            &mut endpoint.public_key_fingerprint,
        ),
    ];
    for (name, field) in known {
        if let Some(text) = fields.text(name)?.filter(|text| !text.is_empty()) {
            *field = Some(text.to_owned());
        }
    }
    endpoint.tags = fields.tags()?;
    endpoint.condition = match fields.text("condition")? {
        None => Condition::Passing,
        Some(word) => CONDITIONS
            .into_iter()
            .find(|known| known.to_string() == word)
            .ok_or_else(|| {
                let reason = "use passing, warning, draining or critical";
                refuse("condition", reason)
            })?,
    };
    endpoint.check()?;
    Ok(endpoint)
}

/// Writes down `endpoint`, in that condition, so that [`read`] gives it back.
pub(super) fn write(endpoint: &Endpoint, condition: Condition) -> Vec<u8> {
    // As `Display` has it, without the brackets that only an authority needs.
    let host = match endpoint.host.ip() {
        Some(address) => address.to_string(),
        None => endpoint.host.to_string(),
    };
    let mut value = json!({
        "host": host,
        "port": endpoint.port,
        "condition": condition.to_string(),
    });
    let mut put = |name: &str, field: Value| value[name] = field;
    let known = [
        ("zone", &endpoint.zone),
        ("version", &endpoint.version),
        ("spiffe_id", &endpoint.spiffe_id),
        ("public_key_fingerprint", &endpoint.public_key_fingerprint),
    ];
    for (name, text) in known {
        if let Some(text) = text {
            put(name, json!(text));
        }
    }
    if endpoint.weight != NonZeroU16::MIN {
        put("weight", json!(endpoint.weight));
    }
    if endpoint.priority != 0 {
        put("priority", json!(endpoint.priority));
    }
    if !endpoint.tags.is_empty() {
        put("tags", json!(endpoint.tags));
    }
    if !endpoint.metadata.is_empty() {
        put("metadata", json!(endpoint.metadata));
    }
    value.to_string().into_bytes()
}

/// What stands in a value; `null` counts as nothing.
struct Fields<'a> {
    id: &'a str,
    fields: Map<String, Value>,
}

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &'static str) -> Result<Option<&str>, Error> {
        let text = |value: &Value| value.as_str().map(str::len).is_some();
        match self.get(name) {
            Some(value) if !text(value) => Err(Error::field(self.id, name, "use text")),
            value => Ok(value.and_then(Value::as_str)),
        }
    }

    fn number(
        &self,
        name: &'static str,
        least: u16,
        most: u16,
        reason: &'static str,
    ) -> Result<Option<u16>, Error> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
        let number = number.filter(|number| (least..=most).contains(number));
        number
            .map(Some)
            .ok_or_else(|| Error::field(self.id, name, reason))
    }

    fn tags(&self) -> Result<Vec<String>, Error> {
        let refuse = || Error::field(self.id, "tags", "use a list of texts");
        let Some(tags) = self.get("tags") else {
            return Ok(Vec::new());
        };
        let tags = tags.as_array().ok_or_else(refuse)?.iter();
        let tags = tags.map(|tag| tag.as_str().map(str::to_owned).ok_or_else(refuse));
        tags.collect()
    }

    fn metadata(&self) -> Result<Vec<(String, String)>, Error> {
        let refuse = || Error::field(self.id, "metadata", "use an object of texts");
        let Some(metadata) = self.get("metadata") else {
            return Ok(Vec::new());
        };
        let pairs = metadata.as_object().ok_or_else(refuse)?.iter();
        let pairs = pairs.map(|(key, value)| {
            let value = value.as_str().ok_or_else(refuse)?;
            Ok((key.clone(), value.to_owned()))
        });
        pairs.collect()
    }
}

const CONDITIONS: [Condition; 4] = [
    Condition::Passing,
    Condition::Warning,
    Condition::Draining,
    Condition::Critical,
];

/// About what an endpoint has that is at all its limits; a bound on what is parsed.
const MAX_VALUE: usize = 128 * 1024;

#[cfg(test)]
mod tests;
