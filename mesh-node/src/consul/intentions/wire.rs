//! Consul's intentions as they stand on the wire.

use std::collections::BTreeMap;

use mesh_auth::policy::IntentionAction;
use mesh_auth::policy::IntentionConfig;
use mesh_auth::policy::IntentionHeader;
use mesh_auth::policy::IntentionPermission;
use serde::Deserialize;
use serde_json::Value;

/// The intentions about one service, by its name.
pub(super) type Matched = BTreeMap<String, Option<Vec<Intention>>>;

/// One intention. What stands in `rest` and says something is nothing that is known here.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Intention {
    #[serde(rename = "ID", default)]
    id: String,
    source_name: String,
    destination_name: String,
    #[serde(rename = "SourceNS", default)]
    source_ns: String,
    #[serde(rename = "DestinationNS", default)]
    destination_ns: String,
    #[serde(default)]
    source_partition: String,
    #[serde(default)]
    destination_partition: String,
    #[serde(default)]
    source_type: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    permissions: Option<Vec<Permission>>,
    // What changes nothing about who may call whom.
    #[serde(default, rename = "Description")]
    _description: Value,
    #[serde(default, rename = "Meta")]
    _meta: Value,
    #[serde(default, rename = "Precedence")]
    _precedence: Value,
    #[serde(default, rename = "CreatedAt")]
    _created_at: Value,
    #[serde(default, rename = "UpdatedAt")]
    _updated_at: Value,
    #[serde(default, rename = "Hash")]
    _hash: Value,
    #[serde(default, rename = "CreateIndex")]
    _create_index: Value,
    #[serde(default, rename = "ModifyIndex")]
    _modify_index: Value,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Permission {
    action: String,
    #[serde(rename = "HTTP", default)]
    http: Option<Http>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct Http {
    path_exact: String,
    path_prefix: String,
    path_regex: String,
    methods: Option<Vec<String>>,
    header: Option<Vec<Header>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Header {
    name: String,
    #[serde(default)]
    present: bool,
    #[serde(default)]
    exact: String,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    suffix: String,
    #[serde(default)]
    contains: String,
    #[serde(default)]
    regex: String,
    #[serde(default)]
    invert: bool,
    #[serde(default)]
    ignore_case: bool,
}

/// Why an intention can't be enforced here.
#[derive(Debug, thiserror::Error)]
#[error("consul's intention {of} can't be enforced here: {why}")]
pub(super) struct Unenforceable {
    of: String,
    why: String,
}

impl Intention {
    /// The same in the words of the policy engine.
    ///
    /// # Errors
    ///
    /// [`Unenforceable`]: an intention that is not enforced as it stands must not look as if it were.
    pub(super) fn read(self) -> Result<IntentionConfig, Unenforceable> {
        let of = format!("{}=>{}", self.source_name, self.destination_name);
        let refused = |why: String| Unenforceable {
            of: of.clone(),
            why,
        };
        for (what, value) in [
            ("SourceNS", &self.source_ns),
            ("DestinationNS", &self.destination_ns),
            ("SourcePartition", &self.source_partition),
            ("DestinationPartition", &self.destination_partition),
        ] {
            if !matches!(&**value, "" | "default") {
                return Err(refused(format!("{what} is {value:?} and not the default")));
            }
        }
        if !matches!(&*self.source_type, "" | "consul") {
            return Err(refused(format!("SourceType is {:?}", self.source_type)));
        }
        if let Some((key, _)) = self.rest.iter().find(|(key, value)| says(key, value)) {
            return Err(refused(format!("{key} is not known here")));
        }
        let permissions = self.permissions.unwrap_or_default();
        let permissions = permissions.into_iter().map(Permission::read);
        let permissions = permissions
            .collect::<Result<Vec<_>, _>>()
            .map_err(&refused)?;
        let (source, destination) = (&self.source_name, &self.destination_name);
        let intention = if permissions.is_empty() {
            let action = action(&self.action).map_err(&refused)?;
            IntentionConfig::new(source, destination, action)
        } else {
            IntentionConfig::with_permissions(source, destination, permissions)
        };
        Ok(if self.id.is_empty() {
            intention
        } else {
            intention.with_id(&self.id)
        })
    }
}

/// Whether an unknown key says something. `DefaultAddr` and `DefaultPort` never did anything in Consul, `Legacy…` is how it
/// was stored.
fn says(key: &str, value: &Value) -> bool {
    let is_empty = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    };
    !is_empty && !matches!(key, "DefaultAddr" | "DefaultPort") && !key.starts_with("Legacy")
}

fn action(text: &str) -> Result<IntentionAction, String> {
    match text {
        "allow" => Ok(IntentionAction::Allow),
        "deny" => Ok(IntentionAction::Deny),
        _ => Err(format!("Action is {text:?}")),
    }
}

impl Permission {
    fn read(self) -> Result<IntentionPermission, String> {
        let mut read = IntentionPermission::new(action(&self.action)?);
        let http = self.http.unwrap_or_default();
        if !http.path_regex.is_empty() {
            return Err("PathRegex is a regular expression".to_owned());
        }
        read.path_exact = given(http.path_exact);
        read.path_prefix = given(http.path_prefix);
        read.methods = http.methods.unwrap_or_default();
        let headers = http.header.unwrap_or_default().into_iter();
        read.headers = headers.map(Header::read).collect::<Result<_, _>>()?;
        Ok(read)
    }
}

impl Header {
    fn read(self) -> Result<IntentionHeader, String> {
        if !self.regex.is_empty() {
            return Err(format!("header {} has a regular expression", self.name));
        }
        let mut read = IntentionHeader::default();
        read.name = self.name;
        read.present = self.present;
        read.exact = given(self.exact);
        read.prefix = given(self.prefix);
        read.suffix = given(self.suffix);
        read.contains = given(self.contains);
        read.ignore_case = self.ignore_case;
        read.invert = self.invert;
        Ok(read)
    }
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
