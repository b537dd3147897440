//! What the node takes from Consul: its identity, from the Connect CA, and intentions.
//!
//! # Sources
//!
//! - Consul HTTP API, "Connect": `/v1/agent/connect/ca/leaf/:service`, `/v1/connect/ca/roots`, `/v1/connect/intentions`,
//!   `/v1/connect/intentions/match`.

use std::path::Path;
use std::sync::Arc;

use mesh_discovery::TlsConfig;
use mesh_discovery::consul::Client;
use mesh_discovery::consul::Config;
use mesh_resilience::random::Random;

use crate::config::ConsulConfig;
use crate::error::Error;

pub(crate) mod identity;
pub(crate) mod intentions;
pub(crate) mod names;
mod wire;

/// A client as `config` (the section `section`) says.
///
/// # Errors
///
/// [`Error::Config`] with the key that is wrong, or [`Error::Read`].
fn client(config: &ConsulConfig, section: &str, random: Arc<dyn Random>) -> Result<Client, Error> {
    let mut reached = Config::new(&*config.url);
    let roots = config.ca_file.as_deref().map(read).transpose()?;
    reached.tls = roots.map(TlsConfig::new);
    let token = config.token_file.clone().map(|file| {
        let token: Arc<mesh_discovery::consul::TokenFor> = Arc::new(move || read_token(&file));
        token
    });
    let random = Arc::new(move || random.next_u64());
    Client::new(&reached, token, random)
        .map_err(|source| Error::config(format!("{section} can't be used"), source))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn read_token(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;

    let named = |source: std::io::Error| {
        std::io::Error::new(source.kind(), format!("{}: {source}", path.display()))
    };
    let mut token = String::new();
    let file = std::fs::File::open(path).map_err(named)?;
    file.take(MAX_TOKEN)
        .read_to_string(&mut token)
        .map_err(named)?;
    let token = token.trim();
    if token.is_empty() {
        return Err(named(std::io::Error::other("the file holds no token")));
    }
    Ok(token.to_owned())
}

/// Consul's are 36 bytes.
const MAX_TOKEN: u64 = 4096;
