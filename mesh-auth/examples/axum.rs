//! An axum service that proves its callers by mutual TLS and asks a policy about each request.
//!
//! `cargo run -p mesh-auth --all-features --example axum`
#![expect(clippy::print_stdout, reason = "that is what an example is for")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::routing::get;
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use mesh_auth::ca::{Authority, Issued};
use mesh_auth::caller::Caller;
use mesh_auth::layer::{Authorize, AuthorizeLayer};
use mesh_auth::policy::{Policy, PolicyConfig, RuleConfig};
use mesh_auth::spiffe::{SpiffeId, TrustDomain};
use mesh_auth::svid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tower_layer::Layer;
use tower_service::Service;

type BoxError = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // Who may what: a file of yours. Deny is the default.
    let domain = TrustDomain::parse("example.org")?;
    let rule = RuleConfig::new("users-read", &["user-service"], "orders").with_methods(&["GET"]);
    let policy = Policy::build(&PolicyConfig::default().with_rule(rule), &domain)?;
    let layer = AuthorizeLayer::new("orders", Arc::new(policy), unix_seconds).with_observer(
        |_, decision| {
            println!("  decided: {:?} by {:?}", decision.verdict, decision.rule);
        },
    );

    // The service. The layer is around the router, so that the router sees the path that was decided about.
    let router = axum::Router::new().route("/orders", get(async || "42 orders\n"));
    let service = layer.layer(router);

    // Certificates: from your SPIFFE issuer. Here, an authority of our own.
    let authority = Authority::generate(&domain, Duration::from_hours(24), now())?;
    let issue = |name: &str| {
        let id = SpiffeId::for_service(&domain, name)?;
        Ok::<_, BoxError>(authority.issue(&id, Duration::from_hours(1), now(), &["localhost"])?)
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(
        authority.certificate_pem().as_bytes(),
    )?)?;
    let roots = Arc::new(roots);

    let (chain, key) = pair(&issue("orders")?)?;
    let verifier = WebPkiClientVerifier::builder(Arc::clone(&roots)).build()?;
    let tls = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = serve(listener, TlsAcceptor::from(Arc::new(tls)), service);

    let calling = async {
        for (caller, method) in [
            ("user-service", "GET"),
            ("user-service", "DELETE"),
            ("stranger", "GET"),
        ] {
            let (chain, key) = pair(&issue(caller)?)?;
            let tls = ClientConfig::builder()
                .with_root_certificates(Arc::clone(&roots))
                .with_client_auth_cert(chain, key)?;
            println!("{caller} sends {method} /orders");
            let stream = TcpStream::connect(address).await?;
            let connector = TlsConnector::from(Arc::new(tls));
            let stream = connector
                .connect(ServerName::try_from("localhost")?, stream)
                .await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let request = Request::builder()
                .method(method)
                .uri("/orders")
                .header("host", "orders")
                .body(Body::empty())?;
            let answer = tokio::select! {
                answer = sender.send_request(request) => answer?,
                ended = connection => return Err(format!("the connection ended: {ended:?}").into()),
            };
            println!("  answer: {}", answer.status());
        }
        Ok::<_, BoxError>(())
    };
    tokio::select! {
        ended = serving => ended,
        done = calling => done,
    }
}

/// Takes one connection at a time, which is enough here, and puts who calls into each of its requests.
async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    service: Authorize<axum::Router>,
) -> Result<(), BoxError> {
    loop {
        let (stream, _) = listener.accept().await?;
        let stream = tls.accept(stream).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let leaf = certificates
            .and_then(<[_]>::first)
            .ok_or("no certificate")?;
        let caller = Caller::new(Some(svid::leaf_identity(leaf)?), None);
        let service = service.clone();
        let service = tower::service_fn(move |mut request: Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(caller.clone());
            service.clone().call(request.map(Body::new))
        });
        let server = auto::Builder::new(TokioExecutor::new());
        let ended = server
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
            .await;
        if let Err(error) = ended {
            println!("  the connection broke: {error}");
        }
    }
}

fn pair(
    issued: &Issued,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), BoxError> {
    let chain = CertificateDer::pem_slice_iter(issued.certificate_pem.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?;
    Ok((chain.collect::<Result<_, _>>()?, key))
}

#[expect(clippy::disallowed_methods, reason = "a program reads the clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn unix_seconds() -> u64 {
    let since = now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
