//! Active checks of a service's endpoints, over mutual TLS as every call.
//!
//! | protocol | what is asked | what it shows |
//! |---|---|---|
//! | `tls` | a whole handshake, and no request | the node is there and proves to be who it must be |
//! | `http` | `GET path`, as an ordinary call: sealed, with a token, decided by the peer's policy | its application answers with 200 to 399 |
//! | `grpc` | `grpc.health.v1.Health/Check`, likewise | its application says SERVING |
//!
//! `tls` needs no rule in anybody's policy, and a plain Envoy with a certificate of the mesh passes it too. The other two
//! reach the application, so the peer must allow this service to ask; a denial counts as a failure, and the reason says so.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use futures_core::future::BoxFuture;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Limited;
use mesh_discovery::GrpcProbe;
use mesh_discovery::Health;
use mesh_discovery::HealthConfig;
use mesh_discovery::HealthDriver;
use mesh_discovery::ProbeLimit;
use mesh_discovery::Watch;
use mesh_resilience::random::Random as _;
use mesh_transport::Body;

use super::Endpoints;
use super::Member;
use super::member::reason;
use crate::respond::Code;
use crate::respond::X_MESH_ERROR;
use crate::service_token::ServiceTokens;
use crate::stack::inbound::X_MESH_CHECK;
use crate::stack::outbound::X_MESH_TOKEN;
use crate::stack::outbound::unix_seconds;
use crate::telemetry::Telemetry;

/// How the endpoints of a service are checked.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    pub(crate) config: HealthConfig,
    pub(crate) protocol: Protocol,
    /// Over all services.
    pub(crate) limit: ProbeLimit,
    pub(crate) tokens: Option<Arc<ServiceTokens>>,
    pub(crate) clock: fn() -> SystemTime,
    pub(crate) telemetry: Arc<Telemetry>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) enum Protocol {
    Tls,
    Http { path: Arc<str> },
    Grpc(GrpcProbe),
}

/// What the checks of `watch` find, and the work of checking; nothing where no checks are configured.
pub(super) fn start(
    endpoints: &Arc<Endpoints>,
    watch: &Watch,
) -> (Option<Health>, BoxFuture<'static, ()>) {
    let Some(checks) = &endpoints.checks else {
        return (None, Box::pin(std::future::pending()));
    };
    let checked = Arc::clone(endpoints);
    let probe_one = move |endpoint: Arc<mesh_discovery::Endpoint>| {
        let checked = Arc::clone(&checked);
        async move { probe(&checked, &endpoint).await }
    };
    let made = HealthDriver::new(checks.config.clone(), watch.clone(), probe_one);
    let (health, driver) = match made {
        Ok(made) => made,
        // The configuration was checked when it was read.
        Err(error) => {
            tracing::error!(service = %endpoints.common.service, %error, "endpoints are not checked");
            return (None, Box::pin(std::future::pending()));
        }
    };
    let (vitals, name) = (
        Arc::clone(&endpoints.common.vitals),
        endpoints.common.name.clone(),
    );
    let random = Arc::clone(&endpoints.common.random);
    let driver = driver
        .with_limit(checks.limit.clone())
        .with_random(Arc::new(move || random.next_u64()))
        .with_vitals(vitals, name);
    (Some(health), Box::pin(driver.run()))
}

async fn probe(endpoints: &Endpoints, endpoint: &mesh_discovery::Endpoint) -> io::Result<()> {
    let list = endpoints.current();
    let slot = list
        .all()
        .find(|slot| slot.endpoint.is_same_peer(endpoint))
        .ok_or_else(|| io::Error::other("it is not in the list any more"))?;
    let member = Arc::clone(&slot.member);
    drop(list);
    let checks = endpoints.checks.as_ref();
    let checks = checks.ok_or_else(|| io::Error::other("nothing is to be checked"))?;
    let outcome = checks.ask(&endpoints.common.service, &member).await;
    let is_good = outcome.is_ok();
    checks
        .telemetry
        .discovery
        .checked(&endpoints.common.service, is_good);
    outcome
}

impl Checks {
    async fn ask(&self, service: &str, member: &Member) -> io::Result<()> {
        match &self.protocol {
            Protocol::Tls => {
                let verified = member.verify().await;
                verified.map_err(|error| io::Error::other(reason(&error)))
            }
            Protocol::Http { path } => {
                let request = Request::get(&**path)
                    .header(X_MESH_CHECK, "1")
                    .body(Body::empty());
                let request = request.map_err(io::Error::other)?;
                let response = self.exchange(service, member, request).await?;
                if is_busy(&response)? {
                    return Ok(());
                }
                match response.status().as_u16() {
                    200..=399 => Ok(()),
                    status => Err(io::Error::other(format!(
                        "status {status}, and not one from 200 to 399"
                    ))),
                }
            }
            Protocol::Grpc(probe) => {
                let request = Request::post(GrpcProbe::PATH)
                    .header(header::CONTENT_TYPE, "application/grpc")
                    .header(header::TE, "trailers")
                    .header(X_MESH_CHECK, "1")
                    .body(Body::from(probe.message()));
                let request = request.map_err(io::Error::other)?;
                let response = self.exchange(service, member, request).await?;
                if is_busy(&response)? {
                    return Ok(());
                }
                let (head, body) = response.into_parts();
                let body = Limited::new(body, MAX_ANSWER).collect().await;
                let body = body.map_err(io::Error::other)?;
                let trailers = body.trailers().cloned();
                let fields: &HeaderMap = trailers.as_ref().unwrap_or(&head.headers);
                GrpcProbe::judge(&body.to_bytes(), fields)
            }
        }
    }

    /// Sends a request as this node sends its application's.
    async fn exchange(
        &self,
        service: &str,
        member: &Member,
        mut request: Request<Body>,
    ) -> io::Result<Response<Body>> {
        let headers = request.headers_mut();
        let host = HeaderValue::try_from(service).map_err(io::Error::other)?;
        headers.insert(header::HOST, host);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(tokens) = &self.tokens {
            let token = tokens.for_call(service, unix_seconds((self.clock)()));
            let token = token.map_err(io::Error::other)?;
            let mut token = HeaderValue::try_from(&*token).map_err(io::Error::other)?;
            token.set_sensitive(true);
            headers.insert(X_MESH_TOKEN, token);
        }
        let sent = member.exchange(request).await;
        sent.map_err(|unsent| io::Error::other(reason(&unsent.error)))
    }
}

/// Whether the peer's node says that its application is busy. That one is alive: without it the others would get its calls
/// too.
///
/// # Errors
///
/// Anything else that the node says in place of its application.
fn is_busy(response: &Response<Body>) -> io::Result<bool> {
    let Some(code) = response.headers().get(X_MESH_ERROR) else {
        return Ok(false);
    };
    let message = match code.to_str().unwrap_or_default() {
        code if code == Code::Overloaded.as_str() => return Ok(true),
        "denied" => "its policy denies the check; allow this service to ask".to_owned(),
        code => format!("its node answered {code}"),
    };
    Err(io::Error::other(message))
}

const AGENT: &str = concat!("mesh-node/", env!("CARGO_PKG_VERSION"), " (health check)");
/// The answer to a gRPC check is 7 bytes.
const MAX_ANSWER: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    // threat 44
    #[test]
    fn a_node_that_is_overloaded_is_alive_and_one_that_refuses_is_not() {
        let says = |code: &str| {
            let response = Response::builder().header(X_MESH_ERROR, code);
            is_busy(&response.body(Body::empty()).unwrap())
        };
        assert!(says("overloaded").unwrap());
        assert!(
            says("denied")
                .unwrap_err()
                .to_string()
                .contains("allow this service")
        );
        assert_eq!(
            says("timeout").unwrap_err().to_string(),
            "its node answered timeout"
        );
        assert!(!is_busy(&Response::new(Body::empty())).unwrap());
    }
}
