//! What both programs of the example share: the types on the wire, the authority, and the shape of their configuration.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use mesh_auth::ca::Authority;
use mesh_auth::spiffe::TrustDomain;
use mesh_node::config::Document;
use mesh_node::config::Environment;
use mesh_node::config::NodeConfig;
use serde::Deserialize;
use serde::Serialize;

/// Whose orders are wanted.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ByUser {
    pub(crate) user: String,
}

/// What somebody ordered.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) text: String,
}

/// Where the programs meet: `PROGRAM [FOLDER] [PORT OF ORDERS] [PORT OF USERS]`.
pub(crate) struct Place {
    folder: PathBuf,
    ports: [u16; 2],
}

impl Place {
    pub(crate) fn from_args() -> Result<Self, Box<dyn Error>> {
        let mut args = std::env::args().skip(1);
        let folder = args
            .next()
            .unwrap_or_else(|| "target/mesh-example".to_owned());
        let mut ports = [50151, 50152];
        for (port, given) in ports.iter_mut().zip(args) {
            *port = given.parse()?;
        }
        Ok(Self {
            folder: folder.into(),
            ports,
        })
    }

    /// The configuration of one of the two. Each knows where the other is, and says itself who may call it.
    pub(crate) fn config(&self, service: &str, rules: &str) -> Result<NodeConfig, Box<dyn Error>> {
        let [orders, users] = self.ports;
        let listen = if service == "order-service" {
            orders
        } else {
            users
        };
        let text = format!(
            "
service: {{ id: {service}, listen: '127.0.0.1:{listen}' }}
identity: {{ trust_domain: example.org, source: builtin, ca_dir: ca }}
security: {{ encryption: hybrid, rsa_key_size: 2048, keys_dir: keys-{service} }}
audit: {{ path: {service}.log }}
discovery:
  sources:
    - mode: static
      services:
        - {{ id: order-service, host: 127.0.0.1, port: {orders} }}
        - {{ id: user-service, host: 127.0.0.1, port: {users} }}
policy:
  default: deny
  rules: [ {rules} ]
"
        );
        let file = self.folder.join(format!("{service}.yaml"));
        Ok(Document::parse(&text, &file, &Environment::new())?.config()?)
    }

    /// Makes an authority in the folder, unless there is one: `mesh-node ca init` in a few lines.
    pub(crate) fn make_authority(&self) -> Result<(), Box<dyn Error>> {
        let ca = self.folder.join("ca");
        if ca.join("ca.key").exists() {
            return Ok(());
        }
        let authority = Authority::generate(&TrustDomain::parse("example.org")?, YEAR, now())?;
        fs::create_dir_all(&ca)?;
        write_private(&ca.join("ca.key"), &authority.key_pem())?;
        fs::write(ca.join("ca.crt"), authority.certificate_pem())?;
        Ok(())
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut options = fs::OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

#[expect(clippy::disallowed_methods, reason = "a program has a clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

const YEAR: Duration = Duration::from_hours(365 * 24);
