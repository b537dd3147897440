//! Which service a request is for, by name.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::header;
use mesh_auth::request::CanonicalRequest;

use super::CALL_PREFIX;
use super::Service;
use super::To;
use super::malformed;
use crate::discovery::services::NotFound;
use crate::discovery::services::Services;
use crate::respond::Code;
use crate::respond::Refusal;

/// A service as it was called.
#[derive(Clone, Debug)]
pub(super) struct Called {
    pub(super) name: Arc<str>,
    /// It, where it is known already. A route may well be about a name that no service has.
    service: Option<Arc<Service>>,
}

impl From<&Arc<Service>> for Called {
    fn from(service: &Arc<Service>) -> Self {
        Self {
            name: Arc::clone(&service.name),
            service: Some(Arc::clone(service)),
        }
    }
}

/// What a request calls: the service that was said, the host's, or the one that a JSON call names, whose request
/// then becomes that of the call.
pub(super) fn called(
    services: &Services<Service>,
    request: &mut CanonicalRequest,
    to: To<'_>,
) -> Result<Called, Refusal> {
    match to {
        To::Service(service) => return Ok(service.into()),
        To::Name(name) => return Ok(by_name(services, name)),
        To::Host => {}
    }
    let by_host = by_name(services, request.host());
    if by_host.service.is_some() {
        return Ok(by_host);
    }
    let Some(call) = request.path().strip_prefix(CALL_PREFIX) else {
        return Ok(by_host);
    };
    let (service, method) = call.split_once('/').unwrap_or((call, ""));
    let (called, method) = (by_name(services, service), format!("/{method}"));
    if request.method() != Method::POST {
        let refusal = Refusal::new(Code::MethodNotAllowed, "calls are made with POST");
        return Err(refusal.with_header(header::ALLOW, HeaderValue::from_static("POST")));
    }
    if method == "/" {
        return Err(Refusal::new(
            Code::NoRoute,
            "a call names its method: POST /v1/call/SERVICE/METHOD",
        ));
    }
    if !is_json(request.headers_mut()) {
        return Err(Refusal::new(
            Code::UnsupportedMediaType,
            "calls take JSON: content-type application/json",
        ));
    }
    let target = request
        .query()
        .map_or_else(|| method.clone(), |query| format!("{method}?{query}"));
    let unnamed = |error: mesh_auth::request::RequestError| malformed(&error);
    request.set_path_and_query(&target).map_err(unnamed)?;
    // What is no authority is the name of no service either.
    if request.set_authority(&called.name).is_err() {
        return Err(unknown(services, &called.name));
    }
    Ok(called)
}

/// The service that a call goes to: the one that its route says, or the one that was called.
pub(super) async fn service(
    services: &Services<Service>,
    called: Called,
    target: Option<&str>,
) -> Result<Arc<Service>, Refusal> {
    let called = match target {
        Some(name) if *name != *called.name => by_name(services, name),
        _ => called,
    };
    match called.service {
        Some(service) => Ok(service),
        // Boxed: it is rare, and must not make every call larger.
        None => Box::pin(looked_up(services, &called.name)).await,
    }
}

fn by_name(services: &Services<Service>, name: &str) -> Called {
    let service = services.get(name);
    Called {
        name: match &service {
            Some(service) => Arc::clone(&service.name),
            None => Arc::from(name),
        },
        service,
    }
}

async fn looked_up(services: &Services<Service>, name: &str) -> Result<Arc<Service>, Refusal> {
    services.find(name).await.map_err(|why| match why {
        NotFound::Unknown => unknown(services, name),
        NotFound::NoAnswer(why) => {
            let name = shortened(name);
            let message = format!("no registry tells yet where {name:?} is: {why}");
            Refusal::new(Code::NoEndpoints, message)
        }
        NotFound::TooMany => {
            let name = shortened(name);
            let message =
                format!("too many services are looked up to look for {name:?}; try again later");
            Refusal::new(Code::Overloaded, message).with_retry_after(LOOK_UP_AGAIN)
        }
    })
}

fn unknown(services: &Services<Service>, name: &str) -> Refusal {
    let (name, known) = (shortened(name), services.known());
    let message = format!("no service is named {name:?}; known here: {known}");
    Refusal::new(Code::NoRoute, message)
}

fn shortened(name: &str) -> String {
    name.chars().take(MAX_NAME_SHOWN).collect()
}

/// Whether a call's body is JSON; a call that does not say is taken to be.
fn is_json(headers: &mut HeaderMap) -> bool {
    let json = HeaderValue::from_static("application/json");
    let given = headers.entry(header::CONTENT_TYPE).or_insert(json);
    let kind = given
        .as_bytes()
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// Names of lookups are forgotten after a minute.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(10);
/// Enough to recognise a mistyped name by.
const MAX_NAME_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_taken_for_a_call() {
        for (given, taken) in [
            (None, true),
            (Some("application/json; charset=utf-8"), true),
            (Some("text/plain"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers
                .extend(given.map(|kind| (header::CONTENT_TYPE, HeaderValue::from_static(kind))));
            assert_eq!(is_json(&mut headers), taken, "{given:?}");
        }
    }
}
