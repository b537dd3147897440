//! Requests from other nodes to the local application, outermost layer first.
//!
//! | # | layer | refuses with | why here |
//! |--:|---|---|---|
//! | 1 | normalise | `bad_request`, `headers_too_large` | what is decided about is what is forwarded |
//! | 2 | deadline | `timeout` | of the calling node: bounds all below, down to the application's connection |
//! | 3 | rate limit | `rate_limited`, `limit_unavailable` | per caller, whose certificate is verified; refused calls count too |
//! | 4 | token, then the user's credential | `unauthenticated` | who calls is settled before what it may |
//! | 5 | identity headers | – | a caller's are dropped, ours are set |
//! | 6 | policy | `denied` | no byte reaches the application without it |
//! | 7 | probe | – | what `mesh-node prove` sends is answered here, always |
//! | 8 | memory | `outcome_unknown`, `answer_lost`, `key_reused`, `stale_lease` | a repeat of a write is authorised as any call, and runs no second time; one that is new is remembered once it has its place below |
//! | 9 | load shedding | `overloaded` | what the application could not answer in time; a few places are kept for health checks of nodes |
//! | 10 | application | `upstream_failed`, `no_route` | |
//! | 11 | audit | `audit_unavailable` | no answer leaves that is not recorded |

mod application;
mod authorize;
mod shedding;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::Response;
use mesh_auth::caller::Caller;
use mesh_auth::caller::User;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;
use mesh_auth::request::strip_identity_headers;
use mesh_auth::spiffe::SpiffeId;
use mesh_resilience::deadline::Deadline;
use mesh_resilience::deadline::carried::carried;
use mesh_resilience::deadline::carried::carry;
use mesh_resilience::deadline::carried::for_next_hop;
use mesh_resilience::replay::Attempt;
use mesh_transport::Body;
use mesh_transport::app::is_grpc;
use mesh_transport::tls::PeerId;

pub(crate) use self::application::App;
pub(crate) use self::application::Application;
pub(crate) use self::authorize::Authorizer;
use self::authorize::Judgement;
pub(crate) use self::authorize::verdict_of;
pub(crate) use self::shedding::Place;
pub(crate) use self::shedding::Shedding;
pub(crate) use self::shedding::X_MESH_CHECK;

use crate::audit::Auditor;
use crate::audit::Message;
use crate::credentials::UserCheck;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::respond::X_REQUEST_ID;
use crate::service_token::TokenCheck;
use crate::stack::limit::Counted;
use crate::stack::limit::RateLimit;
use crate::stack::now;
use crate::stack::once;
use crate::stack::once::Asked;
use crate::stack::once::Memory;
use crate::stack::outbound::X_MESH_TOKEN;
use crate::stack::outbound::chain;
use crate::stack::outbound::malformed;
use crate::stack::outbound::unix_seconds;
use crate::stack::probe::Found;
use crate::stack::probe::StandIn;
use crate::stack::probe::X_MESH_PROBE;
use crate::stack::record::Record;
use crate::stack::record::Recorder;
use crate::stack::rls::Requested;
use crate::stack::route::X_MESH_MIRRORED;
use crate::telemetry::PairSeries;
use crate::trace::Ids;

/// Who calls, set for the application from what was verified; what a caller sends under this name is dropped.
pub(crate) const X_MESH_PEER_ID: HeaderName = HeaderName::from_static("x-mesh-peer-id");

/// Everything between the connections from peers and the local application.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) name: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) ids: Ids,
    pub(crate) token: Option<Arc<TokenCheck>>,
    pub(crate) users: Option<Arc<UserCheck>>,
    pub(crate) authorizer: Authorizer,
    pub(crate) limit: Option<RateLimit>,
    pub(crate) application: Arc<Application>,
    /// What writes were answered, where they can be sent again.
    pub(crate) memory: Option<Memory>,
    pub(crate) auditor: Option<Auditor>,
    pub(crate) recorder: Arc<Recorder>,
}

/// Who is at the other end of a connection, for as long as it lasts: a verified peer, or nobody.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Who it is; nobody, where it came in plaintext (`security.mode: permissive`).
    pub(crate) id: Option<SpiffeId>,
    /// A caller without a user, under the id by which policies know it: its own, but where Consul names services, or it is
    /// of an alias of our trust domain.
    pub(crate) caller: Caller,
    /// Its own id as text, or where the plaintext comes from: one key for one caller.
    pub(crate) shown: Arc<str>,
    /// The id as it stands in the certificate.
    pub(crate) tls_id: Option<PeerId>,
    pub(crate) name: Arc<str>,
    pub(crate) header: Option<HeaderValue>,
    pub(crate) series: Arc<PairSeries>,
    /// Whether it is the one that may probe; nothing that it sends reaches the application.
    pub(crate) is_prober: bool,
}

/// What passed all checks.
struct Admitted {
    /// The rate limit's headers.
    limits: Option<LimitHeaders>,
    /// For a probe, what was decided: that is its answer.
    found: Option<Found>,
    /// Who the request's own credential names.
    user: Option<Arc<User>>,
}

impl Inbound {
    /// Answers one request of a peer. `session` names the secure session that it came in, if it did.
    pub(crate) async fn handle(
        &self,
        peer: &Arc<Peer>,
        session: Option<&dyn DisplaySync>,
        request: Request<Body>,
    ) -> Response<Body> {
        let started = now();
        let is_grpc = is_grpc(&request);
        let (parts, body) = request.into_parts();
        let mut request = match CanonicalRequest::new(parts, &self.limits) {
            Ok(request) => request,
            Err(error) => {
                let refusal = malformed(&error);
                self.recorder.refused(refusal.code());
                self.note_error(peer, refusal.message());
                return refusal.into_response(is_grpc, None);
            }
        };
        self.ids.ensure(request.headers_mut());
        let id = request.headers().get(X_REQUEST_ID).cloned();
        let line = self
            .recorder
            .line("inbound", (&peer.name, &self.name), &request);
        let seen = (line, Some(Arc::clone(&peer.series)));
        let record = Record::new(&self.recorder, started, is_grpc, seen);
        let asked = self.asked(peer, request.headers());
        let deadline = carried(request.headers()).map(|left| Deadline::after(started, left));
        let mut judged = None;
        let admitted = self.admit(peer, &mut request, &mut judged);
        let admitted = within(deadline, admitted).await;
        let entry = self.auditor.as_ref().map(|auditor| {
            auditor.message(&Message {
                direction: if peer.is_prober { "probe" } else { "inbound" },
                certificate: peer.tls_id.as_ref().map(PeerId::as_str),
                service: &self.name,
                method: request.method().as_str(),
                path: request.path(),
                told: judged.as_ref().map(|judged| &*judged.told),
                request_id: id.as_ref().and_then(|id| id.to_str().ok()),
                session: session.map(|session| session as &dyn Display),
            })
        });
        let answered = match admitted {
            Ok(Admitted {
                found: Some(found), ..
            }) => Ok(found.into_response()),
            Ok(Admitted {
                limits,
                found: None,
                user,
            }) => {
                if let Some(deadline) = deadline {
                    let now = now();
                    let left = for_next_hop(deadline.remaining(now));
                    let spent = now.saturating_duration_since(started);
                    carry(request.headers_mut(), left, spent);
                }
                let from = (peer, user.as_deref());
                let passed = within(deadline, self.pass(from, request, body, asked)).await;
                passed.map(|mut response| {
                    show_limits(response.headers_mut(), limits);
                    response
                })
            }
            Err(refusal) => Err(refusal),
        };
        let refuse = |refusal: Refusal| {
            self.recorder.refused(refusal.code());
            refusal.into_response(is_grpc, id.as_ref())
        };
        let mut response = answered.unwrap_or_else(refuse);
        if let Some(entry) = entry
            && let Err(refusal) = entry.finish(&response).await
        {
            self.recorder.telemetry.audit_failures.inc();
            response = refuse(refusal);
        }
        record.attach(response, ())
    }

    /// Records what went wrong with a peer.
    pub(crate) fn note_error(&self, peer: &Peer, what: &str) {
        if let Some(auditor) = &self.auditor {
            auditor.note_error(&peer.shown, what);
        }
    }

    /// Which write a request is an attempt at; nothing where none is remembered, and of nobody.
    ///
    /// There an attempt under a lease is refused: an earlier one may have run while something was remembered.
    fn asked(&self, peer: &Peer, headers: &HeaderMap) -> Result<Option<Asked>, Refusal> {
        let asked = Asked::read(headers)?;
        if self.memory.is_some() && peer.id.is_some() {
            return Ok(asked);
        }
        match asked {
            Some(asked) if asked.is_leased() => Err(once::stale()),
            _ => Ok(None),
        }
    }

    /// Passes an admitted request on to the application, or answers it from memory.
    async fn pass(
        &self,
        (peer, user): (&Arc<Peer>, Option<&User>),
        request: CanonicalRequest,
        body: Body,
        asked: Result<Option<Asked>, Refusal>,
    ) -> Result<Response<Body>, Refusal> {
        match (&self.memory, asked?) {
            (Some(memory), Some(asked)) => {
                let to = (&self.application, peer, user);
                // Boxed: it is rare, and must not make every call larger.
                Box::pin(memory.answer(asked, to, request, body)).await
            }
            _ => self.application.forward(peer, request, body).await,
        }
    }

    /// Everything that must hold before the application sees the request.
    async fn admit(
        &self,
        peer: &Peer,
        request: &mut CanonicalRequest,
        judged: &mut Option<Judgement>,
    ) -> Result<Admitted, Refusal> {
        if self.auditor.as_ref().is_some_and(Auditor::has_failed) {
            return Err(crate::audit::unavailable());
        }
        // First, so that calls that are refused below count too (threat 59).
        let limits = self.limit(peer, Some(request)).await?;
        let at = (self.recorder.clock)();
        self.verify_token(peer, request.headers(), unix_seconds(at))?;
        let stand_in = peer
            .is_prober
            .then(|| StandIn::read(request.headers().get(X_MESH_PROBE)))
            .transpose()?;
        let user = self.user(request, unix_seconds(at)).await?;
        let attempt = Attempt::of(request.headers());
        strip_identity_headers(request.headers_mut(), &[X_MESH_MIRRORED, X_MESH_CHECK]);
        attempt.write(request.headers_mut());
        if let Some(header) = &peer.header {
            let headers = request.headers_mut();
            headers.insert(X_MESH_PEER_ID, header.clone());
        }

        // Groups in a service token count for nothing here: whoever shares the secret can write any.
        let with_user = user.clone();
        let with_user =
            with_user.map(|user| Caller::new(peer.caller.spiffe_id.clone(), Some(user)));
        let caller = stand_in.as_ref().or(with_user.as_ref());
        let caller = (caller.unwrap_or(&peer.caller), &*peer.shown);
        let judgement = judged.insert(self.authorizer.judge(caller, Some(request), at));
        let found = stand_in.is_some().then(|| Found::of(&judgement.told));
        if judgement.is_allowed || found.is_some() {
            Ok(Admitted {
                limits,
                found,
                user,
            })
        } else {
            Err(self.authorizer.refusal(judgement))
        }
    }

    /// Who the request's own credential names; the application sees of it what the configuration says.
    async fn user(
        &self,
        request: &mut CanonicalRequest,
        now: u64,
    ) -> Result<Option<Arc<User>>, Refusal> {
        let Some(users) = &self.users else {
            return Ok(None);
        };
        let user = users.identify(request.headers(), &self.name, now).await?;
        users.strip(request.headers_mut());
        Ok(user)
    }

    /// Counts a call of `peer`; gives the headers that tell it how many are left.
    pub(crate) async fn limit(
        &self,
        peer: &Peer,
        request: Option<&CanonicalRequest>,
    ) -> Result<Option<LimitHeaders>, Refusal> {
        let Some(limit) = &self.limit else {
            return Ok(None);
        };
        let peer = &*peer.shown;
        let counted = limit.check(Requested { peer, request }).await;
        let counted = counted.map_err(|away| {
            let message = "requests can't be counted for all nodes now; try again later";
            Refusal::new(Code::LimitUnavailable, message).with_retry_after(away.retry_after)
        })?;
        let headers = counted_headers(&counted);
        if counted.allowed {
            return Ok(Some(headers));
        }
        let message = match counted.verdict {
            Some(verdict) => format!(
                "{peer} made more requests than the {} it may in the window",
                verdict.limit
            ),
            None => format!("{peer} made more requests than it may"),
        };
        let refusal =
            Refusal::new(Code::RateLimited, message).with_retry_after(counted.retry_after);
        Err(headers.into_iter().fold(refusal, |refusal, (name, value)| {
            refusal.with_header(name, value)
        }))
    }

    fn verify_token(&self, peer: &Peer, headers: &HeaderMap, now: u64) -> Result<(), Refusal> {
        // A service token is bound to a certificate; without one it counts for nothing, and is dropped below.
        let (Some(check), Some(id)) = (&self.token, &peer.id) else {
            return Ok(());
        };
        let refused = |message: &'static str| Refusal::new(Code::Unauthenticated, message);
        let token = headers
            .get(X_MESH_TOKEN)
            .and_then(|value| value.to_str().ok());
        let token = token.ok_or_else(|| {
            refused("the call carries no service token; the calling node needs auth.jwt")
        })?;
        check.verify(token, id, now).map(drop).map_err(|error| {
            tracing::info!(peer.id = %id, error = %chain(&error), "service token refused");
            // Which rule it broke is for our log; a forger learns nothing.
            refused("the call's service token is not valid here; do both nodes have the same auth.jwt secret?")
        })
    }
}

/// Does `work` for as long as somebody waits for it; after that it is dropped, and what it waits for with it.
async fn within<T>(
    deadline: Option<Deadline>,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let Some(deadline) = deadline else {
        return work.await;
    };
    let done = tokio::time::timeout_at(deadline.instant().into(), work).await;
    done.unwrap_or_else(|_| {
        let message = "no answer within the time that the caller waits";
        Err(Refusal::new(Code::Timeout, message).maybe_processed())
    })
}

/// A name that can be shown from any thread.
pub(crate) trait DisplaySync: Display + Sync {}
impl<T: Display + Sync> DisplaySync for T {}

/// Says how much of a limit is left, in place of what others said of theirs.
pub(crate) fn show_limits(headers: &mut HeaderMap, limits: Option<LimitHeaders>) {
    for (name, value) in limits.into_iter().flatten() {
        headers.insert(name, value);
    }
}

pub(crate) type LimitHeaders = Vec<(HeaderName, HeaderValue)>;

/// What a caller is told of its limit, behind what a service wants it to be told.
fn counted_headers(counted: &Counted) -> LimitHeaders {
    let theirs = counted.headers.iter();
    let theirs = theirs.filter(|(name, _)| is_for_services(name));
    let theirs = theirs.map(|(name, value)| (name.clone(), value.clone()));
    let ours = counted.verdict.as_ref().map(limit_headers);
    theirs.chain(ours.into_iter().flatten()).collect()
}

pub(crate) fn limit_headers(
    verdict: &mesh_resilience::limit::Verdict,
) -> [(HeaderName, HeaderValue); 3] {
    let seconds = |time: Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
    [
        (
            HeaderName::from_static("x-ratelimit-limit"),
            HeaderValue::from(verdict.limit),
        ),
        (
            HeaderName::from_static("x-ratelimit-remaining"),
            HeaderValue::from(verdict.remaining),
        ),
        (
            HeaderName::from_static("x-ratelimit-reset"),
            HeaderValue::from(seconds(verdict.reset_after)),
        ),
    ]
}

/// Whether a rate limit service may set this on an answer: what frames the answer, and what the mesh says itself, it may not.
fn is_for_services(name: &HeaderName) -> bool {
    let is_ours = ["x-mesh-", "content-", "grpc-"];
    !is_ours.iter().any(|start| name.as_str().starts_with(start))
        && !matches!(
            name.as_str(),
            "connection"
                | "keep-alive"
                | "proxy-connection"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
        )
}
