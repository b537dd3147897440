//! A tonic service that checks users' tokens and asks a policy about each call.
//!
//! `cargo run -p mesh-auth --all-features --example tonic`
#![expect(clippy::print_stdout, reason = "that is what an example is for")]

use std::error::Error;
use std::sync::Arc;
use std::time::SystemTime;

use hyper_util::rt::TokioIo;
use jsonwebtoken::{EncodingKey, Header};
use mesh_auth::layer::{AuthenticateLayer, AuthorizeLayer};
use mesh_auth::policy::{Policy, PolicyConfig, RuleConfig};
use mesh_auth::spiffe::TrustDomain;
use mesh_auth::token::{Consumer, UserVerifier};
use tokio_stream::StreamExt;
use tonic::transport::{Endpoint, Server, Uri};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

type BoxError = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // Whose tokens count: a consumer's here, who has a key and a secret; or an issuer's, by its public keys.
    let mut users = UserVerifier::new(10_000);
    users
        .add_consumer(Consumer::new("monitoring", "monitoring-1", SECRET)?.with_groups(&["ops"]))?;
    let authenticate = AuthenticateLayer::new("health", Arc::new(users), unix_seconds);

    // Who may what: here, whoever is in the group `ops` may ask for a check, and nobody may watch.
    let rule = RuleConfig::new("ops-check", &["group:ops"], "health")
        .with_paths(&["/grpc.health.v1.Health/Check"]);
    let domain = TrustDomain::parse("example.org")?;
    let policy = Policy::build(&PolicyConfig::default().with_rule(rule), &domain)?;
    let authorize = AuthorizeLayer::new("health", Arc::new(policy), unix_seconds);

    let (_reporter, health) = tonic_health::server::health_reporter();
    let (client, server) = tokio::io::duplex(64 * 1024);
    let serving = Server::builder()
        .layer(authenticate)
        .layer(authorize)
        .add_service(health)
        .serve_with_incoming(
            tokio_stream::once(Ok::<_, BoxError>(server)).chain(tokio_stream::pending()),
        );

    let calling = async {
        let mut client = Some(TokioIo::new(client));
        let connect = tower::service_fn(move |_: Uri| {
            std::future::ready(client.take().ok_or("there is one connection"))
        });
        let channel = Endpoint::from_static("http://health")
            .connect_with_connector(connect)
            .await?;
        let mut client = HealthClient::new(channel);
        for (what, token) in [
            (
                "a token of the consumer",
                Some(token("monitoring-1", SECRET)?),
            ),
            ("no token", None),
            (
                "a token of somebody else",
                Some(token("monitoring-1", b"0f1e2d3c4b5a69788796a5b4c3d2e1f0")?),
            ),
        ] {
            let mut request = tonic::Request::new(HealthCheckRequest::default());
            if let Some(token) = token {
                let value = format!("Bearer {token}").parse()?;
                request.metadata_mut().insert("authorization", value);
            }
            match client.check(request).await {
                Ok(answer) => println!("{what}: {:?}", answer.into_inner().status()),
                Err(status) => println!("{what}: {:?}", status.code()),
            }
        }
        Ok::<_, BoxError>(())
    };
    tokio::select! {
        ended = serving => Ok(ended?),
        done = calling => done,
    }
}

/// What the consumer makes with a library of its own.
fn token(key: &str, secret: &[u8]) -> Result<String, BoxError> {
    let claims = serde_json::json!({
        "iss": key, "sub": "monitoring", "aud": "health", "exp": unix_seconds() + 60,
    });
    let key = EncodingKey::from_secret(secret);
    Ok(jsonwebtoken::encode(&Header::default(), &claims, &key)?)
}

#[expect(clippy::disallowed_methods, reason = "a program reads the clock")]
fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// From a file that only the two sides can read.
const SECRET: &[u8] = b"8c1f4ad7e20b95638c1d7fe40a2b6395";
