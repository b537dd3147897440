//! The called side: runs a write once, and answers its repeats from memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http::response;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use mesh_auth::caller::User;
use mesh_auth::request::CanonicalRequest;
use mesh_resilience::ConfigError;
use mesh_resilience::once::Attempt;
use mesh_resilience::once::Begin;
use mesh_resilience::once::Observe;
use mesh_resilience::once::Once;
use mesh_resilience::once::OnceConfig;
use mesh_resilience::once::Snapshot;
use mesh_resilience::once::Ticket;
use mesh_transport::Body;
use mesh_transport::tasks::Tasks;
use sha2::Digest as _;
use sha2::Sha256;
use tokio::sync::oneshot;

use super::Asked;
use super::X_MESH_ONCE_LEASE;
use super::outcome_unknown;
use super::stale;
use super::tape::End;
use super::tape::Tape;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::stack::inbound::Application;
use crate::stack::inbound::Peer;
use crate::stack::inbound::Place;
use crate::stack::now;
use crate::stack::replay::MAX_KEPT_BYTES;

/// What callers' writes were answered.
#[derive(Debug)]
pub(crate) struct Memory {
    once: Once<Kept>,
    tasks: Tasks,
    max_answer_bytes: usize,
    /// How long a call runs on when its caller is gone.
    patience: Duration,
}

/// Marks an answer that was not made for the request that it answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FromMemory;

/// An answer, whole, and copied: a field or a piece of a body would hold on to the buffer that it was read into.
#[derive(Debug)]
enum Kept {
    Answer {
        status: StatusCode,
        /// The head as text, up to `head`, and the body.
        bytes: Bytes,
        head: usize,
        trailers: Option<Box<[u8]>>,
    },
    /// A handler of this program failed, which is its answer.
    Refused(Refusal),
}

type Answered = Result<Response<Body>, Refusal>;

/// A write that is to run, with all that it needs to outlive its connection.
struct Run {
    application: Arc<Application>,
    peer: Arc<Peer>,
    request: Request<Body>,
    place: Place,
    ticket: Ticket<Kept>,
    max_answer_bytes: usize,
    patience: Duration,
}

impl Memory {
    /// An empty one. `boot` is random; `patience` is how long a call runs on when its caller is gone.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] as [`Once::new`].
    pub(crate) fn new(
        config: OnceConfig,
        boot: [u8; 16],
        (tasks, patience): (Tasks, Duration),
        observer: Arc<dyn Observe>,
    ) -> Result<Self, ConfigError> {
        let max_answer_bytes = config.max_answer_bytes;
        Ok(Self {
            once: Once::new(config, boot, now(), Some(observer))?,
            tasks,
            max_answer_bytes,
            patience,
        })
    }

    /// What it holds.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.once.snapshot(now())
    }

    /// Answers an attempt that may pass: runs it if it is the first.
    pub(crate) async fn answer(
        &self,
        asked: Asked,
        (application, peer, user): (&Arc<Application>, &Arc<Peer>, Option<&User>),
        request: CanonicalRequest,
        body: Body,
    ) -> Answered {
        let to = (application, peer, user);
        let answered = self.find(asked, to, request, body).await;
        let lease = self.once.lease(&peer.shown, now()).to_string();
        let Ok(lease) = HeaderValue::try_from(lease) else {
            return answered;
        };
        match answered {
            Ok(mut response) => {
                response.headers_mut().insert(X_MESH_ONCE_LEASE, lease);
                Ok(response)
            }
            Err(refusal) => Err(refusal.with_header(X_MESH_ONCE_LEASE, lease)),
        }
    }

    async fn find(
        &self,
        asked: Asked,
        (application, peer, user): (&Arc<Application>, &Arc<Peer>, Option<&User>),
        request: CanonicalRequest,
        body: Body,
    ) -> Answered {
        // Without a lease nothing runs, so its body need not be read.
        if asked.lease.is_none() {
            return Err(stale());
        }
        // Read before anything begins: a body that breaks off has done nothing.
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|_broken| {
            let message = format!(
                "the body of a call with a message id is whole and has at most {MAX_BODY} bytes"
            );
            Refusal::new(Code::BadRequest, message)
        })?;
        let trailers = body.trailers().cloned();
        let body = body.to_bytes();
        let fingerprint = fingerprint(&request, user, &body);
        let attempt = Attempt::new(&peer.shown, asked.id, fingerprint, asked.lease);
        let request = Request::from_parts(request.into_parts(), whole(body, trailers));
        loop {
            let mut place = None;
            // A repeat needs no place of the application's; and what is shed takes none here.
            let admit = || {
                place = Some(application.admit(peer, &request)?);
                Ok(())
            };
            match (self.once.begin_if(&attempt, now(), admit)?, place) {
                (Begin::First(ticket), Some(place)) => {
                    let run = Run {
                        application: Arc::clone(application),
                        peer: Arc::clone(peer),
                        request,
                        place,
                        ticket,
                        max_answer_bytes: self.max_answer_bytes,
                        patience: self.patience,
                    };
                    let (told, answered) = oneshot::channel();
                    self.tasks.start(run.run(told));
                    return answered.await.unwrap_or_else(|_gone| {
                        Err(outcome_unknown("the application gave no answer in time"))
                    });
                }
                (Begin::Running(running), _) => running.settled().await,
                (Begin::Answered(kept), _) => return kept.replay(),
                (Begin::AnswerLost, _) => {
                    let message = "the call was executed, and its answer was too large to be kept; ask for its effect";
                    return Err(Refusal::new(Code::AnswerLost, message).maybe_processed());
                }
                (Begin::Mismatch, _) => {
                    let message = "the idempotency key was used for another request; use a new one";
                    return Err(Refusal::new(Code::KeyReused, message));
                }
                (Begin::Stale(_), _) => return Err(stale()),
                _ => return Err(outcome_unknown("the application gave no answer")),
            }
        }
    }
}

impl Run {
    /// Runs it to its end, also when its caller is gone, but then for no longer than the patience.
    async fn run(self, mut told: oneshot::Sender<Answered>) {
        let Self {
            application,
            peer,
            request,
            place,
            ticket,
            max_answer_bytes,
            patience,
        } = self;
        // Dropped on any way out of here, the ticket says that nobody knows whether it ran.
        let answered = tokio::select! {
            answered = application.answer(&peer, request, place) => answered,
            () = left(&mut told, patience) => return,
        };
        let response = match answered {
            Ok(response) => response,
            Err(refusal) => {
                let refusal = if !refusal.is_processed() {
                    ticket.release();
                    refusal
                } else if refusal.code() == Code::HandlerFailed {
                    ticket.answer(Arc::new(Kept::Refused(refusal.clone())), 0);
                    refusal
                } else {
                    drop(ticket);
                    outcome_unknown(refusal.message())
                };
                drop(told.send(Err(refusal)));
                return;
            }
        };
        let hint = response.body().size_hint();
        if hint.lower() > max_answer_bytes as u64 {
            ticket.answer_lost();
            drop(told.send(Ok(response)));
            return;
        }
        let (head, body) = response.into_parts();
        let (tape, reader, mut gone) = Tape::new(&hint);
        let taking = Taking::new(&head, max_answer_bytes);
        drop(told.send(Ok(Response::from_parts(head, reader))));
        tokio::select! {
            () = taking.take(body, tape, ticket) => {}
            () = left(&mut gone, patience) => {}
        }
    }
}

/// An answer that is being kept.
struct Taking {
    status: StatusCode,
    head: Vec<u8>,
    pieces: Vec<Bytes>,
    bytes: usize,
    most: usize,
}

impl Taking {
    fn new(head: &response::Parts, most: usize) -> Self {
        let (status, head) = (head.status, written(&head.headers));
        Self {
            status,
            bytes: head.len(),
            head,
            pieces: Vec::new(),
            most,
        }
    }

    async fn take(mut self, mut body: Body, tape: Tape, ticket: Ticket<Kept>) {
        let mut trailers = None;
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return tape.end(End::Failed(error)),
            };
            if let Some(data) = frame.data_ref() {
                self.bytes += data.len();
                self.pieces.push(data.clone());
            } else if let Some(fields) = frame.trailers_ref() {
                let fields = written(fields).into_boxed_slice();
                self.bytes += fields.len();
                trailers = Some(fields);
            }
            tape.push(frame);
            if self.bytes > self.most {
                ticket.answer_lost();
                return tape.end(End::Rest(body));
            }
        }
        let head = self.head.len();
        let mut bytes = self.head;
        bytes.reserve_exact(self.bytes.saturating_sub(head));
        self.pieces
            .iter()
            .for_each(|piece| bytes.extend_from_slice(piece));
        bytes.shrink_to_fit();
        let kept = Kept::Answer {
            status: self.status,
            bytes: Bytes::from(bytes),
            head,
            trailers,
        };
        ticket.answer(Arc::new(kept), self.bytes);
        tape.end(End::Complete);
    }
}

impl Kept {
    fn replay(&self) -> Answered {
        let (status, bytes, head, trailers) = match self {
            Self::Refused(refusal) => return Err(refusal.clone()),
            Self::Answer {
                status,
                bytes,
                head,
                trailers,
            } => (*status, bytes, *head, trailers),
        };
        let trailers = trailers.as_deref().map(read);
        let mut response = Response::new(whole(bytes.slice(head..), trailers));
        *response.status_mut() = status;
        *response.headers_mut() = read(bytes.get(..head).unwrap_or_default());
        response.extensions_mut().insert(FromMemory);
        Ok(response)
    }
}

/// Header fields as `NAME:VALUE` and a line feed each: neither holds what ends it (RFC 9110 section 5).
fn written(fields: &HeaderMap) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in fields {
        text.extend_from_slice(name.as_str().as_bytes());
        text.push(b':');
        text.extend_from_slice(value.as_bytes());
        text.push(b'\n');
    }
    text
}

fn read(text: &[u8]) -> HeaderMap {
    let lines = text.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| {
        let (name, value) = line.split_at_checked(line.iter().position(|byte| *byte == b':')?)?;
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_bytes(value.get(1..)?).ok()?;
        Some((name, value))
    });
    // Of a name that stands several times each value is kept.
    let mut read = HeaderMap::new();
    for (name, value) in fields {
        read.append(name, value);
    }
    read
}

fn whole(body: Bytes, trailers: Option<HeaderMap>) -> Body {
    match trailers {
        None if body.is_empty() => Body::empty(),
        None => Body::from(body),
        Some(trailers) => {
            let trailers = std::future::ready(Some(Ok(trailers)));
            let body = Full::new(body).with_trailers(trailers);
            Body::boxed(body.map_err(|never| match never {}))
        }
    }
}

/// Over when the other end has been gone for `patience`.
async fn left<T>(other: &mut oneshot::Sender<T>, patience: Duration) {
    other.closed().await;
    tokio::time::sleep(patience).await;
}

/// What makes two requests the same one: what they say, and whom they are of.
///
/// Credentials are in it since a repeat from memory is not seen by the application, which so can't refuse it.
fn fingerprint(request: &CanonicalRequest, user: Option<&User>, body: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    // With its length, so that no two ways to cut the same bytes are one.
    let mut put = |text: &[u8]| {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    };
    let query = request.query().unwrap_or_default();
    let said = [
        request.method().as_str(),
        request.authority(),
        request.path(),
        query,
    ];
    for text in said {
        put(text.as_bytes());
    }
    put(body);
    put(&[u8::from(user.is_some())]);
    if let Some(user) = user {
        put(user.issuer.as_bytes());
        put(user.subject.as_bytes());
    }
    for name in CREDENTIALS {
        let values = request.headers().get_all(name);
        put(&values.iter().count().to_be_bytes());
        for value in values {
            put(value.as_bytes());
        }
    }
    digest.finalize().into()
}

/// Fields by which applications tell users apart.
const CREDENTIALS: [HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];

/// Calling nodes keep no larger body to send it again, so none asks for this.
#[expect(clippy::cast_possible_truncation, reason = "64 KiB")]
const MAX_BODY: usize = MAX_KEPT_BYTES as usize;

#[cfg(test)]
mod tests {
    use mesh_auth::request::Limits;

    use super::*;

    #[test]
    fn requests_of_different_users_hosts_or_credentials_are_not_the_same() {
        let of = |host: &str, user: Option<&User>, fields: &[(&str, &str)]| {
            let request = Request::post("/payments").header("host", host);
            let request = fields.iter().fold(request, |request, (name, value)| {
                request.header(*name, *value)
            });
            let head = request.body(()).unwrap().into_parts().0;
            let request = CanonicalRequest::new(head, &Limits::default()).unwrap();
            fingerprint(&request, user, b"one")
        };
        let users = [("bank", "ann"), ("bank", "bob"), ("shop", "ann")];
        let [ann, bob, other] = users.map(|(issuer, subject)| User::new(issuer, subject));
        let (token, cookie) = (("authorization", "Bearer a"), ("cookie", "session=a"));
        let all = [
            of("order", None, &[]),
            of("user", None, &[]),
            of("order", Some(&ann), &[]),
            of("order", Some(&bob), &[]),
            of("order", Some(&other), &[]),
            of("order", None, &[token]),
            of("order", None, &[("authorization", "Bearer b")]),
            of("order", None, &[cookie]),
            of("order", None, &[("cookie", "session=b")]),
            of("order", None, &[token, cookie]),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        // What a caller's own retry changes makes no difference.
        assert_eq!(
            of("order", Some(&ann), &[token, ("traceparent", "1")]),
            of("order", Some(&ann), &[token, ("traceparent", "2")])
        );
    }

    #[test]
    fn header_fields_are_read_as_they_were_written() {
        let mut fields = HeaderMap::new();
        for (name, value) in [("set-cookie", "a:b"), ("set-cookie", "c"), ("x-empty", "")] {
            fields.append(name, HeaderValue::from_static(value));
        }
        fields.insert("x-odd", HeaderValue::from_bytes(b"\xff\t:").unwrap());
        assert_eq!(read(&written(&fields)), fields);
        assert_eq!(read(b""), HeaderMap::new());
    }
}
