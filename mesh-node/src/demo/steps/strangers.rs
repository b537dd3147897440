//! Callers whose certificate is missing, or signed by somebody else.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use mesh_auth::ca::Authority;
use mesh_auth::spiffe::TrustDomain;
use mesh_transport::BoxError;
use mesh_transport::tls::certificates;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::folder::Folder;
use super::super::folder::ORDERS;
use super::super::folder::TRUST_DOMAIN;
use super::super::folder::WEB;
use super::super::ports::local;
use super::super::probe;
use super::super::story::Miss;
use super::super::story::Story;
use super::super::story::expect;
use super::super::world::World;
use crate::node::wall_clock;

pub(super) async fn are_refused(world: &mut World, story: &mut Story) -> Result<(), Miss> {
    let before = world.requests(ORDERS).await?;
    let made = || Miss::at("a caller is made");
    let known = probe::identity(&world.folder, WEB).map_err(made())?;
    let callers = [
        (
            "no certificate",
            anonymous(&world.folder).map_err(made())?,
            false,
        ),
        (
            "a certificate for spiffe://shop.example/web, signed by another authority",
            stranger(&world.folder).map_err(made())?,
            false,
        ),
        (
            "web's own certificate, to compare",
            Arc::clone(known.current().client()),
            true,
        ),
    ];
    for (what, config, is_welcome) in callers {
        story.sent(&format!("TLS to the node of orders with {what}"));
        let (port, seen) = greet(world.ports.of(ORDERS).inbound, config).await;
        match seen {
            Ok(()) => {
                story.got("accepted: the connection stays open");
                expect(is_welcome, "the handshake is refused", "the node took it")?;
            }
            Err(alert) => {
                story.got(&format!("refused: {alert}"));
                expect(!is_welcome, "the handshake is accepted", &alert)?;
                expect(
                    alert.contains("fatal alert"),
                    "an alert of the node",
                    &alert,
                )?;
                let from = local(port).to_string();
                let found = world
                    .recorded(ORDERS, |record| record["from"] == *from)
                    .await?;
                let record = &found.record;
                story.say(&format!(
                    "Recorded by orders on line {}: {} from {from}.",
                    found.line, record["verdict"]
                ));
                expect(
                    record["verdict"] == "refused",
                    "a record of the refusal",
                    record,
                )?;
            }
        }
    }
    let after = world.requests(ORDERS).await?;
    expect(
        after == before,
        "no request at the application",
        after - before,
    )?;
    story.look(&format!(
        "grep refused {}",
        world.folder.audit(ORDERS).display()
    ));
    Ok(())
}

/// Connects, and waits for what the node says to our certificate: in TLS 1.3 it looks at it after our handshake is
/// over (RFC 8446 section 2), so a refusal comes as an alert on the first read, and no refusal as silence.
async fn greet(port: u16, config: Arc<ClientConfig>) -> (u16, Result<(), String>) {
    let mut own = 0;
    let greeted = async {
        let stream = TcpStream::connect(local(port)).await?;
        own = stream.local_addr()?.port();
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let mut stream = TlsConnector::from(config).connect(name, stream).await?;
        // A node greets whom it accepts with its HTTP/2 settings.
        let mut first = [0; 1];
        match stream.read(&mut first).await? {
            0 => Err(std::io::Error::other("the node closed the connection")),
            _ => Ok(()),
        }
    };
    let greeted = tokio::time::timeout(PATIENCE, greeted).await;
    let greeted = greeted.unwrap_or_else(|elapsed| Err(elapsed.into()));
    (own, greeted.map_err(|error| error.to_string()))
}

fn anonymous(folder: &Folder) -> Result<Arc<ClientConfig>, BoxError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(&std::fs::read(folder.file("ca/ca.crt"))?)? {
        roots.add(root)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// The right name, from the wrong authority.
fn stranger(folder: &Folder) -> Result<Arc<ClientConfig>, BoxError> {
    let (now, domain) = (wall_clock(), TrustDomain::parse(TRUST_DOMAIN)?);
    let authority = Authority::generate(&domain, LIFETIME, now)?;
    let issued = authority.issue(&probe::spiffe_id(WEB)?, LIFETIME, now, &[])?;
    let (crt, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    let store = probe::store(folder, crt, key)?;
    Ok(Arc::clone(store.current().client()))
}

const LIFETIME: Duration = Duration::from_hours(1);
const PATIENCE: Duration = Duration::from_secs(10);
