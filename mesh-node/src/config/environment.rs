//! Environment variables over the file: `MESH_<SECTION>_<KEY>` for every key with a single value, and the names that
//! other meshes use.
//!
//! A variable that is set but empty counts as not set. A `MESH_<SECTION>_…` variable that names no key is an error: a
//! misspelt override that silently does nothing would be worse.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Environment;
use super::NodeConfig;
use super::discovery::EndpointConfig;
use super::discovery::SourceConfig;
use super::discovery::XdsSourceConfig;
use super::error::ConfigError;
use super::error::Place;
use super::error::did_you_mean;
use super::identity::IdentitySource;
use super::tree::Node;
use super::value;
use super::value::HostPort;

/// Puts the variables that stand for a key into the tree.
pub(super) fn override_keys(
    root: &mut Node,
    environment: &Environment,
    file: &str,
) -> Result<(), ConfigError> {
    let keys = variables();
    for (variable, text) in environment.iter().filter(|(_, text)| !text.is_empty()) {
        let named = NAMED
            .iter()
            .find(|(name, mesh)| name == variable && !is_set(environment, mesh));
        let path = match (keys.get(variable.as_str()), named) {
            (Some(path), _) => Some(path),
            (None, Some((_, mesh))) => keys.get(*mesh),
            (None, None) if is_ours(variable, &keys) => return Err(unknown(variable, &keys, file)),
            (None, None) => None,
        };
        let Some(path) = path else { continue };
        root.set(path, text, variable).map_err(|name| {
            let message =
                format!("can't be set: \"{name}\" or what it stands in is not a map in {file}");
            ConfigError::new(
                file,
                Place::Variable(variable.clone()),
                &path.join("."),
                message,
            )
        })?;
    }
    Ok(())
}

/// Takes `EXTERNAL_SERVICES_<NAME>_ADDRESS` and `…_SPIFFE_ID` as endpoints.
///
/// An address replaces the endpoints that the file gives for that service; a SPIFFE id holds for all of them.
pub(super) fn add_services(
    config: &mut NodeConfig,
    environment: &Environment,
    file: &str,
) -> Result<(), ConfigError> {
    let refuse = |variable: &str, message: String| {
        ConfigError::new(file, Place::Variable(variable.into()), "", message)
    };
    for (variable, text) in environment.iter().filter(|(_, text)| !text.is_empty()) {
        let Some(id) = service_of(variable, "_ADDRESS") else {
            continue;
        };
        if !value::is_service_name(&id) {
            return Err(refuse(variable, format!("{id:?} {}", value::NOT_A_SERVICE)));
        }
        let address =
            HostPort::parse(text).map_err(|why| refuse(variable, format!("the value {why}")))?;
        let discovery = &mut config.discovery;
        for list in discovery.static_lists() {
            list.retain(|endpoint| endpoint.id != id);
        }
        let endpoint = EndpointConfig::new(&id, &address.host, address.port);
        // In front of all other sources: what is said here counts.
        match discovery.sources.first_mut() {
            Some(SourceConfig::Static(list)) => list.services.push(endpoint),
            _ => discovery
                .sources
                .insert(0, SourceConfig::fixed(vec![endpoint])),
        }
    }
    for (variable, text) in environment.iter().filter(|(_, text)| !text.is_empty()) {
        let Some(id) = service_of(variable, "_SPIFFE_ID") else {
            continue;
        };
        if !value::is_spiffe_id(text) {
            return Err(refuse(
                variable,
                format!("the value {}", value::NOT_A_SPIFFE_ID),
            ));
        }
        let endpoints = config.discovery.static_lists().flatten();
        let mut known = false;
        for endpoint in endpoints.filter(|endpoint| endpoint.id == id) {
            endpoint.spiffe_id = Some(text.clone());
            known = true;
        }
        if !known {
            let address = variable.replace("_SPIFFE_ID", "_ADDRESS");
            return Err(refuse(
                variable,
                format!("no endpoint of {id} is known; set {address} too"),
            ));
        }
    }
    Ok(())
}

/// Takes `SERVICE_MESH_DISCOVERY_ENVOY_ADDRESS`, `host:port` or a URL, as an xDS control plane behind all other sources.
pub(super) fn add_control_plane(
    config: &mut NodeConfig,
    environment: &Environment,
    file: &str,
) -> Result<(), ConfigError> {
    let Some(text) = environment
        .get(CONTROL_PLANE)
        .filter(|text| !text.is_empty())
    else {
        return Ok(());
    };
    let server = if text.starts_with("http://") || text.starts_with("https://") {
        text.clone()
    } else {
        let address = HostPort::parse(text).map_err(|why| {
            let place = Place::Variable(CONTROL_PLANE.to_owned());
            ConfigError::new(file, place, "", format!("the value {why}"))
        })?;
        format!("http://{address}")
    };
    let source = SourceConfig::Xds(XdsSourceConfig::new(server));
    config.discovery.sources.push(source);
    Ok(())
}

/// Takes the Workload API's socket from the variable that its specification names (section 4), where one is needed and the
/// file has none.
pub(super) fn add_socket(
    config: &mut NodeConfig,
    environment: &Environment,
    file: &str,
) -> Result<(), ConfigError> {
    let identity = &mut config.identity;
    let is_wanted =
        identity.source == IdentitySource::WorkloadApi && identity.workload_api_socket.is_none();
    let text = environment
        .get(SOCKET)
        .filter(|text| is_wanted && !text.is_empty());
    let Some(text) = text else { return Ok(()) };
    let path = value::socket_path(text).map_err(|why| {
        let place = Place::Variable(SOCKET.into());
        ConfigError::new(file, place, "", format!("the value {why}"))
    })?;
    identity.workload_api_socket = Some(path);
    Ok(())
}

/// The variables that [`add_services`] and [`add_socket`] look at.
pub(super) fn of_services(environment: &Environment) -> Environment {
    let ours = environment.iter().filter(|(name, _)| {
        name.starts_with(SERVICES) || [SOCKET, CONTROL_PLANE].contains(&name.as_str())
    });
    ours.map(|(name, text)| (name.clone(), text.clone()))
        .collect()
}

/// `EXTERNAL_SERVICES_ORDER_SERVICE_ADDRESS` is about `order-service`.
fn service_of(variable: &str, ending: &str) -> Option<String> {
    let name = variable.strip_prefix(SERVICES)?.strip_suffix(ending)?;
    Some(name.to_lowercase().replace('_', "-"))
}

fn is_set(environment: &Environment, variable: &str) -> bool {
    environment
        .get(variable)
        .is_some_and(|text| !text.is_empty())
}

/// Whether the name begins with `MESH_` and one of our sections.
fn is_ours(variable: &str, keys: &BTreeMap<String, Vec<String>>) -> bool {
    let section = |path: &Vec<String>| {
        variable.starts_with(&format!("{}_", variable_of(path.get(..1).unwrap_or(path))))
    };
    variable.starts_with("MESH_") && keys.values().any(section)
}

fn unknown(variable: &str, keys: &BTreeMap<String, Vec<String>>, file: &str) -> ConfigError {
    let near = did_you_mean(
        variable,
        &keys.keys().map(String::as_str).collect::<Vec<_>>(),
    );
    let end = if near.is_empty() {
        "; `mesh-node schema` lists every key"
    } else {
        ""
    };
    ConfigError::new(
        file,
        Place::Variable(variable.to_owned()),
        "",
        format!("names no key{near}{end}"),
    )
}

/// Every key with a single value, by the variable that overrides it.
fn variables() -> BTreeMap<String, Vec<String>> {
    let schema = NodeConfig::schema();
    let mut found = BTreeMap::new();
    collect(&schema, &schema, &mut Vec::new(), &mut found);
    found
}

fn collect(
    root: &Value,
    schema: &Value,
    path: &mut Vec<String>,
    found: &mut BTreeMap<String, Vec<String>>,
) {
    let target = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|name| root.pointer(name.trim_start_matches('#')));
    let schema = target.unwrap_or(schema);
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (key, below) in properties {
            path.push(key.clone());
            collect(root, below, path, found);
            path.pop();
        }
    } else if let Some(shapes) = schema.get("anyOf").and_then(Value::as_array) {
        for shape in shapes {
            collect(root, shape, path, found);
        }
    } else if schema
        .get("additionalProperties")
        .is_some_and(Value::is_object)
    {
        // A map whose keys are names has no single value.
    } else if schema.get("type").and_then(Value::as_str) != Some("array") && !path.is_empty() {
        found.insert(variable_of(path), path.clone());
    }
}

fn variable_of(path: &[String]) -> String {
    format!("MESH_{}", path.join("_").to_uppercase())
}

const SERVICES: &str = "EXTERNAL_SERVICES_";
const CONTROL_PLANE: &str = "SERVICE_MESH_DISCOVERY_ENVOY_ADDRESS";
const SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";
/// Names that other meshes use, and the variable each stands for; that one wins where both are set.
const NAMED: [(&str, &str); 5] = [
    ("SERVICE_MESH_SPIFFE_ID", "MESH_SERVICE_SPIFFE_ID"),
    ("MTLS_CERT_FILE", "MESH_IDENTITY_CERT_FILE"),
    ("MTLS_KEY_FILE", "MESH_IDENTITY_KEY_FILE"),
    ("MTLS_CA_FILE", "MESH_IDENTITY_CA_FILE"),
    ("JWT_SECRET", "MESH_AUTH_JWT_SECRET"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_single_value_has_a_variable_of_its_own() {
        let keys = variables();
        for expected in [
            "MESH_SERVICE_LISTEN",
            "MESH_RESILIENCE_CIRCUIT_BREAKER_THRESHOLD",
            "MESH_AUTH_JWT_SECRET",
        ] {
            assert!(keys.contains_key(expected), "{expected} in {keys:?}");
        }
        assert!(
            keys.contains_key("MESH_SECURITY_ENCRYPTION") && keys.contains_key("MESH_SERVICE_APP")
        );
        assert!(!keys.contains_key("MESH_POLICY_RULES"), "lists have none");
        assert!(NAMED.iter().all(|(_, mesh)| keys.contains_key(*mesh)));
    }
}
