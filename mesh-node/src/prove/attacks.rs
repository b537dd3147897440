//! What must not work, tried on the running node: connections without a good certificate, and requests from one with a
//! good certificate that no node may take.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use http::StatusCode;
use mesh_auth::ca::Authority;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_transport::BoxError;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::PeerId;
use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::SignatureScheme;
use rustls::SupportedProtocolVersion;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::version::TLS12;
use rustls::version::TLS13;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::UnixTime;
use rustls_pki_types::pem::PemObject;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Prober;
use super::line::Answer;
use super::line::Line;
use super::plan::Call;
use super::plan::STRANGER;
use super::replay::ANSWERED;
use super::replay::Relay;
use super::report::Attack;
use super::report::Outcome;
use crate::node::wall_clock;
use crate::stack::probe::StandIn;
use crate::stack::probe::X_MESH_PROBE;

/// Tries everything.
pub(super) async fn all(prober: &Prober<'_>, line: &Line, tasks: &Tasks) -> Vec<Attack> {
    let mut attacks = connections(prober).await;
    attacks.push(plaintext(prober.target.address).await);
    attacks.extend(requests(prober, line).await);
    attacks.extend(tokens(prober, line).await);
    attacks.push(replayed(prober, tasks).await);
    attacks.push(borrowed_probe(prober, tasks).await);
    attacks
}

/// TLS with something wrong about the certificate.
async fn connections(prober: &Prober<'_>) -> Vec<Attack> {
    let mut attacks = Vec::new();
    for (what, shown) in shown(prober) {
        attacks.push(match shown {
            Ok(config) => greet(prober.target.address, what, config).await,
            Err(error) => attack(what, error, Outcome::Skipped),
        });
    }
    attacks
}

/// What is shown, and how; an error where it can't be made here.
type Shown = (&'static str, Result<Arc<ClientConfig>, String>);

fn shown(prober: &Prober<'_>) -> Vec<Shown> {
    let domain = prober.target.id.trust_domain();
    let made = |made: Result<Arc<ClientConfig>, BoxError>| made.map_err(|error| error.to_string());
    let own = (prober.pair.0.as_slice(), prober.pair.1.as_slice());
    let stranger = |domain: &TrustDomain, id: &SpiffeId| {
        let authority = Authority::generate(domain, LIFETIME, wall_clock())?;
        signed(&authority, id, (LIFETIME, wall_clock()))
    };
    let expired = prober.ca_dir.ok_or(NEEDS_CA).map_err(BoxError::from);
    let expired = expired.and_then(|dir| {
        let authority = super::authority(dir)?;
        // Made in the first second of the authority, for a second.
        let begin = authority.facts().not_before;
        signed(&authority, &prober.id, (Duration::from_secs(1), begin))
    });
    let foreign = || {
        let domain = TrustDomain::parse("mesh-probe.invalid")?;
        stranger(&domain, &SpiffeId::for_service(&domain, "mesh-probe")?)
    };
    vec![
        ("no certificate", made(config(None, &TLS13))),
        ("a certificate that has expired", made(expired)),
        (
            "a certificate of another trust domain and its own authority",
            made(foreign()),
        ),
        (
            "the prober's name, signed by an authority that nobody trusts",
            made(stranger(domain, &prober.id)),
        ),
        (
            "a good certificate over TLS 1.2",
            made(config(Some(own), &TLS12)),
        ),
    ]
}

fn signed(
    authority: &Authority,
    id: &SpiffeId,
    (lifetime, now): (Duration, SystemTime),
) -> Result<Arc<ClientConfig>, BoxError> {
    let issued = authority.issue(id, lifetime, now, &[])?;
    let pair = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    config(Some(pair), &TLS13)
}

fn config(
    pair: Option<(&[u8], &[u8])>,
    version: &'static SupportedProtocolVersion,
) -> Result<Arc<ClientConfig>, BoxError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Takes whoever answers: an attacker does not mind. Who the node is, the probes have shown.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Connects, and waits for what the node says to our certificate: in TLS 1.3 it looks at it after our handshake is over
/// (RFC 8446 section 2), so a refusal comes as an alert on the first read; whom it takes it greets with its settings of
/// HTTP/2.
async fn greet(address: SocketAddr, what: &str, config: Arc<ClientConfig>) -> Attack {
    let greeted = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let mut stream = TlsConnector::from(config).connect(name, stream).await?;
        let mut first = [0; 1];
        stream.read(&mut first).await
    };
    match tokio::time::timeout(PATIENCE, greeted).await {
        Ok(Ok(0)) => attack(what, "the connection was closed", Outcome::Refused),
        Ok(Ok(_)) => attack(what, "the node took the connection", Outcome::GotThrough),
        Ok(Err(error)) if is_refusal(&error) => attack(what, error.to_string(), Outcome::Refused),
        Ok(Err(error)) => attack(what, error.to_string(), Outcome::Skipped),
        Err(_) => attack(what, "no answer", Outcome::Skipped),
    }
}

/// Whether the node itself ended it, and not the way to it.
fn is_refusal(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    let is_alert = error.get_ref().is_some_and(|inner| {
        let tls = inner.downcast_ref::<rustls::Error>();
        matches!(tls, Some(rustls::Error::AlertReceived(_)))
    });
    let ended = [
        ErrorKind::ConnectionReset,
        ErrorKind::UnexpectedEof,
        ErrorKind::BrokenPipe,
    ];
    is_alert || ended.contains(&error.kind())
}

async fn plaintext(address: SocketAddr) -> Attack {
    let what = "plaintext HTTP";
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /mesh-probe HTTP/1.1\r\nhost: mesh-probe\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        let read = stream.take(MOST_OF_ANSWER).read_to_end(&mut answer).await;
        // What came before the connection was reset counts.
        match read {
            Err(error) if answer.is_empty() => Err(error),
            _ => Ok(answer),
        }
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) if answer.starts_with(b"HTTP/1.1 2") => {
            attack(what, "the node answered it", Outcome::GotThrough)
        }
        Ok(Ok(answer)) => {
            let line = answer
                .split(|byte| *byte == b'\r')
                .next()
                .unwrap_or_default();
            let seen = match line {
                [] => "the connection was closed".to_owned(),
                line => String::from_utf8_lossy(line)
                    .escape_debug()
                    .take(80)
                    .collect(),
            };
            attack(what, seen, Outcome::Refused)
        }
        Ok(Err(error)) if is_refusal(&error) => attack(what, error.to_string(), Outcome::Refused),
        Ok(Err(error)) => attack(what, error.to_string(), Outcome::Skipped),
        Err(_) => attack(what, "no answer", Outcome::Skipped),
    }
}

/// Requests that can be read in two ways, or that are too large; and identities that a caller writes itself.
async fn requests(prober: &Prober<'_>, line: &Line) -> Vec<Attack> {
    let long = format!("/{}", "p".repeat(9_000));
    let shapes: [(&str, &str, &[StatusCode]); 6] = [
        (
            "a hidden slash, /mesh-probe/..%2fadmin",
            "/mesh-probe/..%2fadmin",
            &[StatusCode::BAD_REQUEST],
        ),
        (
            "a path above the root, /../admin",
            "/../admin",
            &[StatusCode::BAD_REQUEST],
        ),
        (
            "a NUL in the path, /mesh-probe%00",
            "/mesh-probe%00",
            &[StatusCode::BAD_REQUEST],
        ),
        (
            "an overlong form of UTF-8, /%c0%af",
            "/%c0%af",
            &[StatusCode::BAD_REQUEST],
        ),
        (
            "a path that is encoded twice, /%252e%252e/admin",
            "/%252e%252e/admin",
            &[StatusCode::BAD_REQUEST],
        ),
        (
            "a path of 9,000 bytes",
            &long,
            &[
                StatusCode::URI_TOO_LONG,
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ],
        ),
    ];
    let mut attacks = Vec::new();
    for (what, path, expected) in shapes {
        let answer = line.send(prober.probe_of(path)).await;
        attacks.push(judge(what, answer, |answer| {
            expected.contains(&answer.status)
        }));
    }
    let mut many = prober.probe_of("/mesh-probe");
    for number in 0..120 {
        let name = http::HeaderName::try_from(format!("x-filler-{number}"));
        if let Ok(name) = name {
            many.headers_mut()
                .insert(name, http::HeaderValue::from_static("1"));
        }
    }
    let answer = line.send(many).await;
    let too_many = |answer: &Answer| answer.status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    attacks.push(judge("120 more header fields", answer, too_many));
    let mut silent = prober.probe_of("/mesh-probe");
    silent.headers_mut().remove(X_MESH_PROBE);
    let answer = line.send(silent).await;
    attacks.push(judge(
        "a request in the prober's own name",
        answer,
        |answer| !answer.status.is_success(),
    ));
    attacks
}

async fn tokens(prober: &Prober<'_>, line: &Line) -> Vec<Attack> {
    let Some(tokens) = &prober.target.tokens else {
        return vec![attack(
            "service tokens of others",
            "the node asks for none",
            Outcome::Skipped,
        )];
    };
    let service = &*prober.target.service;
    let other = SpiffeId::for_service(prober.target.id.trust_domain(), STRANGER).ok();
    let good = tokens.issue(&prober.id, service);
    let edited = good.as_deref().map(|token| {
        let (rest, signature) = token.rsplit_once('.').unwrap_or((token, ""));
        let first = if signature.starts_with('A') { 'B' } else { 'A' };
        format!("{rest}.{first}{}", signature.get(1..).unwrap_or_default())
    });
    let forged = [
        ("no service token", None),
        (
            "a service token for somebody else to check",
            tokens.issue(&prober.id, "mesh-probe-elsewhere"),
        ),
        (
            "another caller's service token, replayed",
            other.and_then(|other| tokens.issue(&other, service)),
        ),
        ("a service token with another signature", edited),
    ];
    let mut attacks = Vec::new();
    for (what, token) in forged {
        let answer = line.send_with(prober.probe_of("/mesh-probe"), token).await;
        let is_refused = |answer: &Answer| answer.status == StatusCode::UNAUTHORIZED;
        attacks.push(judge(what, answer, is_refused));
    }
    attacks
}

/// A sealed call that somebody recorded and sends again.
async fn replayed(prober: &Prober<'_>, tasks: &Tasks) -> Attack {
    let what = "a sealed call, recorded and sent again";
    if prober.target.terms.is_none() {
        return attack(
            what,
            "this node takes calls that are not sealed (security.encryption: mtls)",
            Outcome::Skipped,
        );
    }
    let name = PeerId::new(prober.target.id.to_string());
    let tried = async {
        let relay = Relay::start(prober.target.address, (&prober.tls, name), tasks).await?;
        let through = (relay.address, &prober.id);
        let line = Line::new(&prober.target, (&prober.tls, &prober.id), through, tasks)?;
        let first = line.send(prober.probe_of("/mesh-probe")).await?;
        Ok::<_, BoxError>((first, relay.answers()))
    };
    match tried.await {
        Err(error) => attack(what, error.to_string(), Outcome::Skipped),
        Ok((first, again)) if first.found.is_none() || again.is_empty() => attack(
            what,
            "the call that was to be recorded failed",
            Outcome::Skipped,
        ),
        Ok((_, again)) => {
            let got_through = again.iter().any(|answer| answer.ends_with(ANSWERED));
            let outcome = if got_through {
                Outcome::GotThrough
            } else {
                Outcome::Refused
            };
            attack(what, again.join(", "), outcome)
        }
    }
}

/// Somebody ordinary who asks in another's name.
async fn borrowed_probe(prober: &Prober<'_>, tasks: &Tasks) -> Attack {
    let what = "x-mesh-probe from somebody who is not the prober";
    let tried = async {
        let dir = prober.ca_dir.ok_or(NEEDS_CA)?;
        let id = SpiffeId::for_service(prober.target.id.trust_domain(), STRANGER)?;
        let call = Call {
            rule: String::new(),
            what: String::new(),
            caller: StandIn {
                spiffe_id: Some(id.to_string()),
                user: None,
            },
            method: "GET".to_owned(),
            path: "/mesh-probe".to_owned(),
        };
        if prober.paper.expects(&call)?.verdict != "deny" {
            return Err("a rule lets strangers in, so this would reach the application".into());
        }
        let issued = super::authority(dir)?.issue(&id, LIFETIME, wall_clock(), &[])?;
        let pair = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
        let tls = super::store(&prober.target, &prober.roots, pair)?;
        let direct = (prober.target.address, &prober.target.id);
        let line = Line::new(&prober.target, (&tls, &id), direct, tasks)?;
        Ok::<_, BoxError>(line.send(prober.probe_of("/mesh-probe")).await)
    };
    match tried.await {
        Err(error) => attack(what, error.to_string(), Outcome::Skipped),
        Ok(answer) => judge(what, answer, |answer| {
            answer.found.is_none() && !answer.status.is_success()
        }),
    }
}

fn judge(
    what: &str,
    answer: Result<Answer, String>,
    is_refused: impl FnOnce(&Answer) -> bool,
) -> Attack {
    match answer {
        Err(error) => attack(what, error, Outcome::Skipped),
        Ok(answer) => {
            let code = answer.code.as_deref().unwrap_or("no code");
            let seen = format!("{} {code}", answer.status.as_u16());
            let outcome = if is_refused(&answer) {
                Outcome::Refused
            } else {
                Outcome::GotThrough
            };
            attack(what, seen, outcome)
        }
    }
}

fn attack(what: &str, seen: impl Into<String>, outcome: Outcome) -> Attack {
    Attack {
        what: what.to_owned(),
        seen: seen.into(),
        outcome,
    }
}

/// Said of what needs certificates that only the authority can make.
const NEEDS_CA: &str = "needs --ca-dir";
const LIFETIME: Duration = Duration::from_hours(1);
const PATIENCE: Duration = Duration::from_secs(10);
/// The first line of an answer is enough.
const MOST_OF_ANSWER: u64 = 4096;
