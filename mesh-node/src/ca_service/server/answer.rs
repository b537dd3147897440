//! What is answered to each request.

use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use hyper::body::Incoming;
use mesh_auth::ca::csr::MAX_REQUEST_BYTES;
use mesh_auth::ca::csr::SigningRequest;
use mesh_auth::ca::join::JoinToken;
use mesh_auth::svid::CertificateFacts;
use mesh_transport::Body;
use mesh_transport::drain::Drain;
use mesh_transport::drain::Phase;
use serde_json::json;

use super::Shared;
use super::connection::Caller;
use super::desk::Applicant;
use super::desk::DeskError;
use crate::ca_service::folder::FolderError;
use crate::ca_service::grants::GrantsError;
use crate::stack::outbound::chain;

/// A refusal: its status, what the caller is told, and what only we are told.
struct Refusal {
    status: StatusCode,
    told: String,
    cause: Option<String>,
    retry_after: Option<Duration>,
}

/// How the bundle is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// As SPIFFE servers publish it.
    Json,
    /// Certificates one after the other.
    Pem,
}

impl Form {
    fn kind(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Pem => "application/x-pem-file",
        }
    }
}

impl Refusal {
    fn new(status: StatusCode, told: impl Into<String>) -> Self {
        Self {
            status,
            told: told.into(),
            cause: None,
            retry_after: None,
        }
    }

    fn because(status: StatusCode, told: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self {
            cause: Some(chain(error)),
            ..Self::new(status, told)
        }
    }

    fn too_often(retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests; come again later",
            )
        }
    }
}

pub(super) async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
    caller: &Caller,
    drain: Drain,
) -> Response<Body> {
    let method = request.method().clone();
    let answered = match (request.uri().path(), &method) {
        ("/v1/sign", &Method::POST) => sign(shared, request, caller).await,
        ("/v1/bundle", &Method::GET) => {
            Ok(bundle(shared, (caller, request.headers()), Form::Json, drain).await)
        }
        ("/v1/bundle.pem", &Method::GET) => {
            Ok(bundle(shared, (caller, request.headers()), Form::Pem, drain).await)
        }
        ("/health", &Method::GET) => Ok(health(shared)),
        ("/v1/sign" | "/v1/bundle" | "/v1/bundle.pem" | "/health", _) => Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "sign with POST, read with GET",
        )),
        _ => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "here are: POST /v1/sign, GET /v1/bundle, GET /v1/bundle.pem, GET /health",
        )),
    };
    answered.unwrap_or_else(|refusal| {
        let who = caller.id.as_ref().map_or("", |id| id.as_str());
        let cause = refusal.cause.as_ref().unwrap_or(&refusal.told);
        shared.note_refusal(cause, who, caller.from);
        let mut response = page(
            refusal.status,
            "application/json",
            json!({ "error": refusal.told }).to_string(),
        );
        if let Some(after) = refusal.retry_after {
            let seconds = HeaderValue::from(after.as_secs() + 1);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    })
}

async fn sign(
    shared: &Shared,
    request: Request<Incoming>,
    caller: &Caller,
) -> Result<Response<Body>, Refusal> {
    let applicant = applicant(caller, request.headers())?;
    // What has not even the form of a token uses up nothing of what newcomers behind the same address may ask.
    let (how, limited) = match &applicant {
        Applicant::Member(id) => ("renewal", shared.limits.renewal(id)),
        Applicant::Newcomer(_) => ("join token", shared.limits.newcomer(caller.from.ip())),
    };
    limited.map_err(Refusal::too_often)?;
    let asked = lifetime(request.uri().query())?;
    let lifetime = shared.lifetime(asked, caller.shown.as_ref());
    let request = read(request.into_body()).await?;
    let (now, tasks) = ((shared.clock)(), &shared.tasks);
    // Whoever has a token that we could not honour now keeps it.
    if shared.desk.has_failed() {
        return Err(unavailable("the audit log can't be written"));
    }
    let id = shared
        .desk
        .identify(applicant, &request, now, tasks)
        .await
        .map_err(|error| refused(&error))?;
    let mut current = shared.current();
    let shown = caller.shown.as_ref();
    let fingerprint = shown.map(|shown| shown.fingerprint.as_str());
    if current.denied.has(&id, fingerprint) {
        return Err(refused(&DeskError::Denied { id }));
    }
    let mut signed = shared
        .desk
        .sign(&current.roots, (&request, &id), lifetime, (now, tasks))
        .await;
    if let Err(DeskError::Promise(FolderError::Replaced)) = signed {
        // We had not yet heard that another root signs.
        shared.reread().await;
        current = shared.current();
        signed = shared
            .desk
            .sign(&current.roots, (&request, &id), lifetime, (now, tasks))
            .await;
    }
    let signed = signed.map_err(|error| refused(&error))?;
    shared
        .desk
        .record(&signed, (&id, how), caller.from)
        .await
        .map_err(|error| refused(&error))?;
    tracing::info!(%id, how, serial = signed.serial, "certificate issued");
    let said = json!({
        "spiffe_id": id.as_str(),
        "certificate": signed.certificate_pem,
        "bundle": current.bundle,
    });
    Ok(page(StatusCode::OK, "application/json", said.to_string()))
}

/// The lifetime that is asked for: `?lifetime=SECONDS`.
fn lifetime(query: Option<&str>) -> Result<Option<Duration>, Refusal> {
    let Some(query) = query else {
        return Ok(None);
    };
    let asked = query
        .strip_prefix("lifetime=")
        .and_then(|seconds| seconds.parse().ok())
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs);
    let wrong = || Refusal::new(StatusCode::BAD_REQUEST, "write ?lifetime=SECONDS");
    asked.ok_or_else(wrong).map(Some)
}

/// The trust bundle. Who has it already (`if-none-match`) and asks to (`prefer: wait=SECONDS`, RFC 7240 section 4.3)
/// waits until it is another one, if it came with a certificate: strangers could hold every connection that there is.
async fn bundle(
    shared: &Shared,
    (caller, headers): (&Caller, &HeaderMap),
    form: Form,
    mut drain: Drain,
) -> Response<Body> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let known = text(header::IF_NONE_MATCH);
    let wait = text(header::HeaderName::from_static("prefer"))
        .and_then(|prefer| prefer.strip_prefix("wait=")?.parse().ok())
        .filter(|_| caller.id.is_some())
        .map_or(Duration::ZERO, Duration::from_secs)
        .min(LONGEST_WAIT);
    let mut news = shared.current.subscribe();
    let changed = news.wait_for(|current| known != Some(current.tag().as_str()));
    tokio::select! {
        biased;
        // The other end of the channel is ours, so this ends by a change alone.
        found = changed => drop(found),
        () = tokio::time::sleep(wait) => {}
        () = drain.reached(Phase::Leaving) => {}
    }
    let current = shared.current();
    let tag = current.tag();
    let mut response = if known == Some(&tag) {
        page(StatusCode::NOT_MODIFIED, form.kind(), String::new())
    } else {
        let text = match form {
            Form::Json => current.bundle_json.clone(),
            Form::Pem => current.bundle.clone(),
        };
        page(StatusCode::OK, form.kind(), text)
    };
    if let Ok(tag) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn health(shared: &Shared) -> Response<Body> {
    let current = shared.current();
    let signer: &CertificateFacts = current.roots.signer().facts();
    let now: SystemTime = (shared.clock)();
    let (status, code) = if shared.desk.has_failed() {
        (
            "the audit log can't be written",
            StatusCode::SERVICE_UNAVAILABLE,
        )
    } else if signer.not_after <= now {
        (
            "the signing root has expired",
            StatusCode::SERVICE_UNAVAILABLE,
        )
    } else {
        ("ok", StatusCode::OK)
    };
    let said = json!({
        "status": status,
        "trust_domain": current.roots.trust_domain().as_str(),
        "signer": signer.fingerprint,
        "until": humantime::format_rfc3339_seconds(signer.not_after).to_string(),
    });
    page(code, "application/json", said.to_string())
}

fn applicant(caller: &Caller, headers: &HeaderMap) -> Result<Applicant, Refusal> {
    let token = headers.get(header::AUTHORIZATION);
    match (&caller.id, token) {
        (Some(_), Some(_)) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "come with a certificate or with a join token, not with both",
        )),
        (Some(id), None) => Ok(Applicant::Member(id.clone())),
        (None, None) => Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "come with a certificate of this authority, or with a join token (mesh-node ca token)",
        )),
        (None, Some(value)) => {
            let text = value.to_str().unwrap_or_default();
            let token = text.strip_prefix("Bearer ").unwrap_or_default();
            let parsed = JoinToken::parse(token);
            parsed
                .map(Applicant::Newcomer)
                .map_err(|error| Refusal::because(StatusCode::UNAUTHORIZED, NOT_LET_IN, &error))
        }
    }
}

async fn read(body: Incoming) -> Result<SigningRequest, Refusal> {
    let whole = Limited::new(body, MAX_REQUEST_BYTES).collect();
    let read = tokio::time::timeout(BODY_DEADLINE, whole)
        .await
        .map_err(|_elapsed| {
            Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "the request took too long to arrive",
            )
        })?;
    let pem = read.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let told = format!("a request has at most {MAX_REQUEST_BYTES} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, told)
        } else {
            Refusal::because(
                StatusCode::BAD_REQUEST,
                "the request did not arrive whole",
                &*error,
            )
        }
    })?;
    let request = SigningRequest::from_pem(&pem.to_bytes());
    request.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, chain(&error)))
}

/// Whoever is not let in is not told whether the token was wrong, old or used: that is for our log.
fn refused(error: &DeskError) -> Refusal {
    match error {
        DeskError::Join(GrantsError::Refused(_) | GrantsError::Unknown) => {
            Refusal::because(StatusCode::UNAUTHORIZED, NOT_LET_IN, error)
        }
        DeskError::Sign(_) | DeskError::Denied { .. } => Refusal::because(
            StatusCode::FORBIDDEN,
            "this authority signs no certificate for that name now",
            error,
        ),
        _ => {
            tracing::error!(error = %chain(error), "nothing is signed");
            Refusal::because(
                StatusCode::SERVICE_UNAVAILABLE,
                "nothing is signed at present; try again later",
                error,
            )
        }
    }
}

fn unavailable(why: &str) -> Refusal {
    tracing::error!(why, "nothing is signed");
    Refusal {
        cause: Some(why.to_owned()),
        ..Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "nothing is signed at present; try again later",
        )
    }
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const NOT_LET_IN: &str = "the join token is unknown, used or expired";
/// A request is a few hundred bytes.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Shorter than what takes a silent connection for a dead one.
const LONGEST_WAIT: Duration = Duration::from_secs(55);
