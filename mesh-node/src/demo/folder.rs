//! The folder of a demonstration: certificates, keys, the token secret, configurations and logs, all kept for reading.

use std::fs;
use std::fs::File;
use std::fs::TryLockError;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use mesh_auth::ca::Authority;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_crypto::Random as _;
use mesh_crypto::SystemRandom;
use mesh_transport::BoxError;
use zeroize::Zeroizing;

use super::ports::Ports;

/// The services, in the order in which a request passes them.
pub(super) const WEB: &str = "web";
pub(super) const ORDERS: &str = "orders";
pub(super) const PAYMENTS: &str = "payments";
pub(super) const SERVICES: [&str; 3] = [WEB, ORDERS, PAYMENTS];
/// Reserved for examples (RFC 2606 section 2).
pub(super) const TRUST_DOMAIN: &str = "shop.example";

/// A folder that this process alone uses.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Held locked, so that a second demonstration takes another folder.
    _lock: File,
}

/// Why there is no folder to work in.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    #[error("{} is there and is not the folder of a demo; name another one with --dir", path.display())]
    Foreign { path: PathBuf },
    #[error("a demo is running in {}; name another folder with --dir", path.display())]
    Busy { path: PathBuf },
    #[error("could not make the folder {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Folder {
    /// Takes `asked`, else the first of `mesh-demo`, `mesh-demo-2` … that is not in use. What an earlier demonstration
    /// left in it is removed; a folder of anything else is refused.
    pub(super) fn open(asked: Option<&Path>) -> Result<Self, FolderError> {
        if let Some(path) = asked {
            return Self::take(path);
        }
        let mut last = FolderError::Foreign {
            path: DEFAULT.into(),
        };
        for number in 1..=MOST_FOLDERS {
            let path = if number == 1 {
                PathBuf::from(DEFAULT)
            } else {
                PathBuf::from(format!("{DEFAULT}-{number}"))
            };
            match Self::take(&path) {
                Err(error @ (FolderError::Busy { .. } | FolderError::Foreign { .. })) => {
                    last = error;
                }
                taken => return taken,
            }
        }
        Err(last)
    }

    fn take(path: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Io {
            path: path.to_owned(),
            source,
        };
        let marker = path.join(MARKER);
        if !marker.exists() {
            let is_empty = match fs::read_dir(path) {
                Ok(mut entries) => entries.next().is_none(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => false,
                Err(error) => return Err(failed(error)),
            };
            if !is_empty {
                return Err(FolderError::Foreign {
                    path: path.to_owned(),
                });
            }
            make_dir(path).map_err(failed)?;
        }
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&marker)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError::Busy {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let folder = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        folder.clear().map_err(failed)?;
        // There are keys in it.
        folder.write(".gitignore", b"*\n", PUBLIC).map_err(failed)?;
        Ok(folder)
    }

    /// Removes what an earlier demonstration made, and nothing else.
    fn clear(&self) -> io::Result<()> {
        for made in MADE {
            let path = self.path.join(made);
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the authority, a certificate for each service, and the secret of the tokens.
    pub(super) fn issue(&self, now: SystemTime) -> Result<(), BoxError> {
        let domain = TrustDomain::parse(TRUST_DOMAIN)?;
        let authority = Authority::generate(&domain, VALIDITY, now)?;
        self.write("ca/ca.crt", authority.certificate_pem().as_bytes(), PUBLIC)?;
        self.write("ca/ca.key", authority.key_pem().as_bytes(), PRIVATE)?;
        for service in SERVICES {
            let id = SpiffeId::for_service(&domain, service)?;
            // The addresses are for curl; nodes look at the SPIFFE id alone.
            let issued = authority.issue(&id, VALIDITY, now, &["127.0.0.1", "localhost"])?;
            let file = |end: &str| format!("{service}/certs/{service}.{end}");
            self.write(&file("crt"), issued.certificate_pem.as_bytes(), PUBLIC)?;
            self.write(&file("key"), issued.key_pem.as_bytes(), PRIVATE)?;
        }
        self.write("jwt.secret", random_hex(SECRET_BYTES)?.as_bytes(), PRIVATE)?;
        Ok(())
    }

    /// Writes the three configurations.
    pub(super) fn configure(&self, ports: &Ports) -> io::Result<()> {
        for service in SERVICES {
            self.write(
                &format!("{service}/mesh.yaml"),
                configuration(service, ports).as_bytes(),
                PUBLIC,
            )?;
        }
        Ok(())
    }

    /// Writes a file below the folder.
    pub(super) fn write(&self, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&path)?
            .write_all(content)
    }

    /// A file below the folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The same as text that can be typed.
    pub(super) fn shown(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// The folder itself, as text.
    pub(super) fn display(&self) -> String {
        self.path.display().to_string()
    }

    /// A service's audit log.
    pub(super) fn audit(&self, service: &str) -> PathBuf {
        self.file(&format!("{service}/logs/mesh-audit.log"))
    }
}

/// Fills the template for `service`.
fn configuration(service: &str, ports: &Ports) -> String {
    let own = ports.of(service);
    let (app, app_comment) = match service {
        ORDERS => (
            ports.app_tap,
            "The application, through the demo's recorder, which hands every byte on to it.",
        ),
        _ => (own.app, "The application, in plain HTTP."),
    };
    TEMPLATE
        .replace("{discovery}", &discovery(service, ports))
        .replace("{rules}", rules(service))
        .replace("{name}", service)
        .replace("{trust_domain}", TRUST_DOMAIN)
        .replace("{app_comment}", app_comment)
        .replace("{app}", &app.to_string())
        .replace("{inbound}", &own.inbound.to_string())
        .replace("{outbound}", &own.outbound.to_string())
        .replace("{admin}", &own.admin.to_string())
}

fn discovery(service: &str, ports: &Ports) -> String {
    let entry =
        |id: &str, port: u16| format!("\n        - {{ id: {id}, host: 127.0.0.1, port: {port} }}");
    let services = match service {
        WEB => {
            let comment = "\n        # The demo's recorder on the wire, which hands every byte on to the node of orders.";
            let payments = entry(PAYMENTS, ports.of(PAYMENTS).inbound);
            format!("{comment}{}{payments}", entry(ORDERS, ports.wire_tap))
        }
        ORDERS => entry(PAYMENTS, ports.of(PAYMENTS).inbound),
        _ => return " { sources: [] }".to_owned(),
    };
    format!("\n  sources:\n    - mode: static\n      services:{services}")
}

fn rules(service: &str) -> &'static str {
    match service {
        ORDERS => {
            r#"
  rules:
    - name: web-places-orders
      from: [web]
      to: { service: orders, methods: [GET, POST], paths: ["/orders/*"] }
      action: allow
      reason: customers order on the web site"#
        }
        PAYMENTS => {
            r#"
  rules:
    - name: orders-asks-for-payment
      from: [orders]
      to: { service: payments, methods: [GET], paths: ["/payments/*"] }
      action: allow
      reason: an order is sent once it is paid"#
        }
        _ => "",
    }
}

/// `bytes` random bytes, in hex.
pub(super) fn random_hex(bytes: usize) -> Result<Zeroizing<String>, mesh_crypto::Error> {
    let mut random = Zeroizing::new(vec![0; bytes]);
    SystemRandom::new().fill(&mut random)?;
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes));
    for byte in random.iter() {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
        }
    }
    Ok(text)
}

fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
}

const TEMPLATE: &str = include_str!("node.yaml");
const DEFAULT: &str = "mesh-demo";
/// Says that a folder is a demonstration's.
const MARKER: &str = ".mesh-demo";
/// What a demonstration makes in its folder.
const MADE: [&str; 7] = [
    "ca",
    "jwt.secret",
    WEB,
    ORDERS,
    PAYMENTS,
    "wire",
    "tampered",
];
const MOST_FOLDERS: u32 = 99;
pub(super) const PUBLIC: u32 = 0o644;
pub(super) const PRIVATE: u32 = 0o600;
const SECRET_BYTES: usize = 32;
/// Long enough to play with for a week; a mesh in use has certificates of an hour.
const VALIDITY: Duration = Duration::from_hours(7 * 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Document;
    use crate::config::Environment;

    #[test]
    fn every_configuration_is_one_that_a_node_takes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(Some(dir.path())).unwrap();
        folder
            .write("jwt.secret", random_hex(32).unwrap().as_bytes(), PRIVATE)
            .unwrap();
        let ports = Ports::numbered(20_000);
        for service in SERVICES {
            let path = folder.file(&format!("{service}/mesh.yaml"));
            let text = configuration(service, &ports);
            assert!(!text.contains("{name}"), "{text}");
            folder
                .write(&format!("{service}/mesh.yaml"), text.as_bytes(), PUBLIC)
                .unwrap();
            let config = Document::parse(&text, &path, &Environment::new())
                .unwrap()
                .config()
                .unwrap();
            assert_eq!(config.service.id, service);
            assert_eq!(config.policy.rules.len(), usize::from(service != WEB));
        }
    }

    #[test]
    fn a_folder_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
        let refused = Folder::open(Some(dir.path())).unwrap_err();
        assert!(matches!(refused, FolderError::Foreign { .. }));
        assert!(dir.path().join("thesis.txt").exists());
    }

    #[test]
    fn a_folder_in_use_is_left_alone_and_free_again_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo");
        let first = Folder::open(Some(&path)).unwrap();
        first.write("jwt.secret", b"old", PRIVATE).unwrap();
        let refused = Folder::open(Some(&path)).unwrap_err();
        assert!(matches!(refused, FolderError::Busy { .. }));
        drop(first);
        Folder::open(Some(&path)).unwrap();
        assert!(!path.join("jwt.secret").exists());
    }
}
