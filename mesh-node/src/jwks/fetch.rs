//! Fetching one key set over HTTPS, from an address that was checked, and no more of it than a key set can be.
//!
//! The URL is the operator's, the answer is the issuer's, and the names between are anybody's: nothing here leads to the
//! cloud's metadata service or into a private network unless the configuration says so (threat 22).

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::StatusCode;
use http::Uri;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Empty;
use http_body_util::Limited;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_auth::token::MAX_SET_BYTES;
use mesh_discovery::SpecialAddress;
use mesh_discovery::check_address;
use mesh_transport::BoxError;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::Error;

/// Fetches one URL again and again.
pub(crate) struct Fetcher {
    host: Box<str>,
    port: u16,
    name: ServerName<'static>,
    /// Path and query.
    target: Box<str>,
    tls: TlsConnector,
    reach: Reach,
    pub(super) deadline: Duration,
}

/// Which addresses may be connected to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reach {
    /// Those of the open internet.
    Public,
    /// Private networks and this machine too; never link-local and metadata addresses.
    Private,
}

impl Fetcher {
    /// Fetches `url`, trusting the roots in `ca_file` or else those of the system.
    ///
    /// # Errors
    ///
    /// The URL is no HTTPS URL, or there are no roots.
    pub(crate) fn new(url: &str, ca_file: Option<&Path>, reach: Reach) -> Result<Self, Error> {
        let wrong = || Error::missing(format!("{url} is no URL that begins with https://"));
        let uri: Uri = url.parse().map_err(|source| {
            Error::config(format!("{url} is no URL"), source as http::uri::InvalidUri)
        })?;
        let host = uri.host().ok_or_else(wrong)?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|source| Error::config(format!("{host} is no host name"), source))?;
        let roots = match ca_file {
            Some(file) => roots_of(file)?,
            None => system_roots()?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::config("TLS can't be set up", source))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            host: host.into(),
            port: uri.port_u16().unwrap_or(HTTPS),
            name,
            target: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .into(),
            tls: TlsConnector::from(Arc::new(tls)),
            reach,
            deadline: DEADLINE,
        })
    }

    /// Fetches the key set, all in all within 5 s.
    ///
    /// # Errors
    ///
    /// [`FetchError`], also for a redirect: the issuer's URL is what the configuration says, and nobody else's word.
    pub(crate) async fn fetch(&self) -> Result<Bytes, FetchError> {
        let whole = tokio::time::timeout(self.deadline, self.try_fetch()).await;
        whole.map_err(|_elapsed| FetchError::TooSlow)?
    }

    async fn try_fetch(&self) -> Result<Bytes, FetchError> {
        let stream = self.connect().await?;
        let stream = self
            .tls
            .connect(self.name.clone(), stream)
            .await
            .map_err(FetchError::Tls)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(FetchError::http)?;
        let request = Request::get(&*self.target)
            .header(header::HOST, self.authority())
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(FetchError::http)?;
        let mut exchange = std::pin::pin!(async {
            let response = sender
                .send_request(request)
                .await
                .map_err(FetchError::http)?;
            let status = response.status();
            if status.is_redirection() {
                return Err(FetchError::Redirect);
            }
            if status != StatusCode::OK {
                return Err(FetchError::Status { status });
            }
            let body = Limited::new(response.into_body(), MAX_SET_BYTES)
                .collect()
                .await;
            body.map(http_body_util::Collected::to_bytes)
                .map_err(FetchError::body)
        });
        tokio::select! {
            answer = &mut exchange => return answer,
            // What came before the end is still to be read.
            _end = connection => {}
        }
        exchange.await
    }

    /// Resolves the name once, and connects to what was checked and to nothing else. One address that may not be reached
    /// refuses them all: the name is not what it seems.
    async fn connect(&self) -> Result<TcpStream, FetchError> {
        let found = tokio::net::lookup_host((&*self.host, self.port))
            .await
            .map_err(FetchError::Resolve)?;
        let mut addresses = Vec::new();
        for address in found.take(MAX_ADDRESSES) {
            let ip = self.reach.check(address.ip())?;
            addresses.push(SocketAddr::new(ip, address.port()));
        }
        let mut last = std::io::Error::other("the name has no address");
        for address in addresses {
            match tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(elapsed) => last = elapsed.into(),
            }
        }
        Err(FetchError::Connect(last))
    }

    fn authority(&self) -> String {
        let host = match &self.name {
            ServerName::IpAddress(rustls_pki_types::IpAddr::V6(_)) => format!("[{}]", self.host),
            _ => self.host.to_string(),
        };
        if self.port == HTTPS {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("reach", &self.reach)
            .finish_non_exhaustive()
    }
}

impl Reach {
    /// Passes an address on that may be connected to.
    fn check(self, address: IpAddr) -> Result<IpAddr, FetchError> {
        let address = check_address(address)?;
        let is_public = match address {
            IpAddr::V4(v4) => is_public_v4(v4),
            IpAddr::V6(v6) => is_public_v6(v6),
        };
        if is_public || self == Self::Private {
            Ok(address)
        } else {
            Err(FetchError::Private { address })
        }
    }
}

/// IANA IPv4 special-purpose address registry (RFC 6890), what `check_address` refuses left out.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocol = a == 192 && b == 0 && c == 0;
    let is_benchmark = a == 198 && (b == 18 || b == 19);
    !(address.is_private()
        || address.is_loopback()
        || address.is_documentation()
        || is_shared
        || is_protocol
        || is_benchmark)
}

/// Global unicast (RFC 4291 section 2.4) without what leads to IPv4 or is for examples (RFC 6890).
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_global = first & 0xe000 == 0x2000;
    let is_protocol = first == 0x2001 && second < 0x200;
    let is_example = first == 0x2001 && second == 0xdb8;
    is_global && !is_protocol && !is_example && first != 0x2002
}

fn roots_of(file: &Path) -> Result<RootCertStore, Error> {
    let failed = |source| Error::config(format!("could not read {}", file.display()), source);
    let certificates = CertificateDer::pem_file_iter(file).map_err(failed)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(failed)?;
        let wrong =
            |source| Error::config(format!("{} holds what is no root", file.display()), source);
        roots.add(certificate).map_err(wrong)?;
    }
    if roots.is_empty() {
        let message = format!("{} holds no certificate", file.display());
        return Err(Error::missing(message));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let message = "the system has no roots for TLS; install its package of CA certificates, or set jwks_ca_file";
        return Err(Error::missing(message.to_owned()));
    }
    Ok(roots)
}

/// Why a key set could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the name could not be resolved")]
    Resolve(#[source] std::io::Error),
    #[error("the address may not be connected to")]
    Special(#[from] SpecialAddress),
    #[error(
        "{address} is in a private network; set allow_private_address where the issuer is meant to be there"
    )]
    Private { address: IpAddr },
    #[error("no connection could be made")]
    Connect(#[source] std::io::Error),
    #[error(
        "no TLS connection could be made; is the server's root in jwks_ca_file or the system's?"
    )]
    Tls(#[source] std::io::Error),
    #[error("the server gave no proper answer")]
    Http(#[source] BoxError),
    #[error("the answer was cut, or is longer than {MAX_SET_BYTES} bytes")]
    Body(#[source] BoxError),
    #[error(
        "the server answered with a redirect, which is not followed; set jwks_url to where it leads if that is right"
    )]
    Redirect,
    #[error("the server answered {status}")]
    Status { status: StatusCode },
    #[error("the answer took longer than {} s", DEADLINE.as_secs())]
    TooSlow,
}

impl FetchError {
    fn http(source: impl Into<BoxError>) -> Self {
        Self::Http(source.into())
    }

    fn body(source: impl Into<BoxError>) -> Self {
        Self::Body(source.into())
    }
}

const HTTPS: u16 = 443;
/// From the look-up to the last byte.
const DEADLINE: Duration = Duration::from_secs(5);
/// For one address, so that one that swallows everything leaves time for the next.
const CONNECT_DEADLINE: Duration = Duration::from_millis(1500);
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_ADDRESSES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reach: Reach, text: &str) -> bool {
        reach.check(text.parse().unwrap()).is_ok()
    }

    // threat 22
    #[test]
    fn no_url_leads_into_a_private_network_unless_it_may() {
        for private in [
            "127.0.0.1",
            "10.0.0.7",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "198.18.0.1",
            "::1",
            "::ffff:10.0.0.7",
            "fd00::1",
            "64:ff9b::a00:7",
            "2002:a00:7::1",
            "2001::1",
        ] {
            assert!(!check(Reach::Public, private), "{private}");
            assert!(check(Reach::Private, private), "{private}");
        }
        for public in ["8.8.8.8", "203.0.114.1", "2a00:1450::1"] {
            assert!(check(Reach::Public, public), "{public}");
        }
    }

    // threat 22
    #[test]
    fn the_metadata_service_is_never_reached() {
        for address in [
            "169.254.169.254",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "168.63.129.16",
        ] {
            assert!(!check(Reach::Public, address), "{address}");
            assert!(!check(Reach::Private, address), "{address}");
        }
    }
}
