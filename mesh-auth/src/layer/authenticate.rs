//! Users' credentials in front of a service.

use std::fmt;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, Request};
use tower_layer::Layer;

use super::answer::Refusal;
use super::guard::{Admit, Guarded};
use crate::caller::{Caller, User};
use crate::token::UserVerifier;

/// Checks the credential of a request and adds the user that it names to the [`Caller`] in the extensions.
///
/// A credential that is there and wrong is refused (401 `unauthenticated`), and so are two of them; none at all passes,
/// unless [`AuthenticateLayer::required`] says otherwise: what nobody may do, a policy says. A scheme other than `Bearer`
/// in `Authorization` is the service's own business (RFC 6750 section 2.1).
///
/// ```
/// use std::sync::Arc;
/// use mesh_auth::layer::AuthenticateLayer;
/// use mesh_auth::token::{IssuerConfig, UserVerifier};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # fn unix_seconds() -> u64 { 1_800_000_000 }
/// let mut users = UserVerifier::new(10_000);
/// users.add_issuer(IssuerConfig::new("https://login.example.org").with_audiences(&["orders"]))?;
/// // users.put_keys("https://login.example.org", Some(keys)), whenever the issuer's keys change
/// let layer = AuthenticateLayer::new("orders", Arc::new(users), unix_seconds);
/// // let service = layer.layer(service);
/// # drop(layer);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AuthenticateLayer {
    service: Arc<str>,
    users: Arc<UserVerifier>,
    clock: fn() -> u64,
    api_key: Option<HeaderName>,
    is_required: bool,
}

impl AuthenticateLayer {
    /// Accepts who `users` accepts, as callers of `service`; `clock` gives seconds since the Unix epoch.
    pub fn new(service: &str, users: Arc<UserVerifier>, clock: fn() -> u64) -> Self {
        Self {
            service: service.into(),
            users,
            clock,
            api_key: None,
            is_required: false,
        }
    }

    /// Also takes API keys from a header field of this name, which does not reach the service.
    #[must_use]
    pub fn with_api_key_header(mut self, name: HeaderName) -> Self {
        self.api_key = Some(name);
        self
    }

    /// Refuses requests without a credential too.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.is_required = true;
        self
    }

    fn user(&self, headers: &HeaderMap) -> Result<Option<Arc<User>>, Refusal> {
        let token = only(headers, &AUTHORIZATION)?.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            let is_bearer = scheme.eq_ignore_ascii_case("bearer");
            is_bearer.then(|| token.trim_start_matches(' '))
        });
        let api_key = match &self.api_key {
            Some(name) => only(headers, name)?,
            None => None,
        };
        let user = match (token, api_key) {
            (None, None) if self.is_required => return Err(Refusal::UNAUTHENTICATED),
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(Refusal::UNAUTHENTICATED),
            (Some(token), None) => self.users.verify(token, &self.service, (self.clock)()),
            (None, Some(key)) => self.users.verify_api_key(key),
        };
        // Which rule it broke tells a forger too much.
        user.map(Some).map_err(|_error| Refusal::UNAUTHENTICATED)
    }
}

/// The value of a field that may stand once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text)),
            Err(_not_ascii) => Err(Refusal::UNAUTHENTICATED),
        },
        (Some(_), Some(_)) => Err(Refusal::UNAUTHENTICATED),
    }
}

impl Admit for AuthenticateLayer {
    fn admit<B>(&self, mut request: Request<B>) -> Result<Request<B>, Refusal> {
        let user = self.user(request.headers())?;
        if let Some(name) = &self.api_key {
            request.headers_mut().remove(name);
        }
        if let Some(user) = user {
            let caller = request.extensions_mut().get_or_insert_default::<Caller>();
            caller.user = Some(user);
        }
        Ok(request)
    }
}

impl fmt::Debug for AuthenticateLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateLayer")
            .field("service", &self.service)
            .field("api_key", &self.api_key)
            .field("is_required", &self.is_required)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded::new(inner, self.clone())
    }
}

/// The service made by [`AuthenticateLayer`].
pub type Authenticate<S> = Guarded<S, AuthenticateLayer>;
