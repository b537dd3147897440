//! A policy in front of a service.

use std::fmt;
use std::sync::Arc;

use http::{Request, StatusCode};
use tower_layer::Layer;

use super::answer::Refusal;
use super::guard::{Admit, Guarded};
use crate::caller::Caller;
use crate::policy::{Decision, Policy, Query};
use crate::request::{CanonicalRequest, Limits, RequestError, strip_identity_headers};

/// Lets through what a policy allows.
///
/// The request that reaches the service is the normalised one that was decided about; header fields in which callers
/// claim an identity are gone (`strip_identity_headers`), and so are hop-by-hop fields, which makes an upgrade
/// impossible. The [`Decision`] and the [`Caller`] are in its extensions.
///
/// | refusal | when |
/// |---|---|
/// | 400, 413, 414, 431 | the request can be read in two ways, or is too large |
/// | 401 `unauthenticated` | no rule lets it pass, and nothing proves who calls |
/// | 403 `denied` | no rule lets it pass |
///
/// ```
/// use std::sync::Arc;
/// use mesh_auth::layer::AuthorizeLayer;
/// use mesh_auth::policy::{Policy, PolicyConfig, RuleConfig};
/// use mesh_auth::spiffe::TrustDomain;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # fn unix_seconds() -> u64 { 1_800_000_000 }
/// let rule = RuleConfig::new("users-read", &["user-service"], "orders").with_methods(&["GET"]);
/// let policy = Policy::build(&PolicyConfig::default().with_rule(rule), &TrustDomain::parse("example.org")?)?;
/// let layer = AuthorizeLayer::new("orders", Arc::new(policy), unix_seconds);
/// // let service = layer.layer(router);
/// # drop(layer);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AuthorizeLayer {
    service: Arc<str>,
    port: u16,
    limits: Limits,
    policy: Arc<dyn Fn() -> Arc<Policy> + Send + Sync>,
    clock: fn() -> u64,
    observe: Option<Arc<Observe>>,
}

type Observe = dyn Fn(&Query<'_>, &Decision) + Send + Sync;

impl AuthorizeLayer {
    /// Decides by `policy` about calls to `service`, its name in the rules; `clock` gives seconds since the Unix epoch.
    pub fn new(service: &str, policy: Arc<Policy>, clock: fn() -> u64) -> Self {
        Self {
            service: service.into(),
            port: 0,
            limits: Limits::default(),
            policy: Arc::new(move || Arc::clone(&policy)),
            clock,
            observe: None,
        }
    }

    /// Asks for the policy at each request, so that it can be replaced while the service runs.
    #[must_use]
    pub fn with_policy_from(
        mut self,
        policy: impl Fn() -> Arc<Policy> + Send + Sync + 'static,
    ) -> Self {
        self.policy = Arc::new(policy);
        self
    }

    /// Sets the port that the service listens on, for rules that name ports. Default 0, which no rule names.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets what a request may cost and hold.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Calls `observe` with every decision, for logs and metrics. It runs before the request goes on.
    #[must_use]
    pub fn with_observer(
        mut self,
        observe: impl Fn(&Query<'_>, &Decision) + Send + Sync + 'static,
    ) -> Self {
        self.observe = Some(Arc::new(observe));
        self
    }
}

impl Admit for AuthorizeLayer {
    fn admit<B>(&self, request: Request<B>) -> Result<Request<B>, Refusal> {
        let (parts, body) = request.into_parts();
        let mut request =
            CanonicalRequest::new(parts, &self.limits).map_err(|error| malformed(&error))?;
        strip_identity_headers(request.headers_mut(), &[]);
        let caller = request
            .extensions_mut()
            .remove::<Caller>()
            .unwrap_or_default();
        let query = Query::new(&caller, &self.service, (self.clock)())
            .with_port(self.port)
            .with_request(&request);
        let decision = (self.policy)().decide(&query);
        if let Some(observe) = &self.observe {
            observe(&query, &decision);
        }
        if !decision.is_allowed() {
            return Err(if caller.is_authenticated() {
                DENIED
            } else {
                Refusal::UNAUTHENTICATED
            });
        }
        let extensions = request.extensions_mut();
        extensions.insert(caller);
        extensions.insert(decision);
        Ok(Request::from_parts(request.into_parts(), body))
    }
}

impl fmt::Debug for AuthorizeLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizeLayer")
            .field("service", &self.service)
            .field("port", &self.port)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded::new(inner, self.clone())
    }
}

/// The service made by [`AuthorizeLayer`].
pub type Authorize<S> = Guarded<S, AuthorizeLayer>;

fn malformed(error: &RequestError) -> Refusal {
    let status = error.status();
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "headers_too_large",
        _ => "bad_request",
    };
    Refusal {
        code,
        status,
        grpc_status: if code == "bad_request" { "3" } else { "8" },
    }
}

const DENIED: Refusal = Refusal {
    code: "denied",
    status: StatusCode::FORBIDDEN,
    grpc_status: "7",
};
