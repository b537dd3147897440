//! One connection: TLS, who came, one request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::Request;
use http::header;
use hyper::body::Incoming;
use hyper::service::service_fn;
use mesh_auth::ca::BACKDATE;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::svid;
use mesh_auth::svid::SvidError;
use mesh_transport::drain::Drain;
use mesh_transport::listen::Accepted;
use mesh_transport::server::Protocol;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::answer;
use super::limits::Holder;
use crate::stack::outbound::chain;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) from: SocketAddr,
    /// The name in the certificate, which was verified in the handshake.
    pub(super) id: Option<SpiffeId>,
    /// What else that certificate says.
    pub(super) shown: Option<Shown>,
}

/// What a certificate that was shown says beside its name.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// How long it lives in all, from when it was made.
    pub(super) life: Duration,
    /// SHA-256, in hex.
    pub(super) fingerprint: String,
}

/// Serves one connection in the background until it ends.
pub(super) fn accept(shared: &Arc<Shared>, accepted: Accepted, drain: Drain) {
    let serving = Arc::clone(shared);
    shared.tasks.start(async move {
        let Accepted {
            stream, from, slot, ..
        } = accepted;
        Box::pin(serve(&serving, stream, from, drain)).await;
        drop(slot);
    });
}

async fn serve(shared: &Arc<Shared>, stream: TcpStream, from: SocketAddr, drain: Drain) {
    let Some(seat) = shared.limits.seat(Holder::Stranger, from.ip()) else {
        return shared.note_refusal(TOO_MANY, "", from);
    };
    let acceptor = TlsAcceptor::from(Arc::clone(&shared.current().tls));
    let accepted = tokio::time::timeout(TLS_DEADLINE, acceptor.accept(stream)).await;
    let found = match accepted {
        Ok(Ok(stream)) => caller(&stream, from).map(|caller| (stream, caller)),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_elapsed) => Err("the TLS handshake took too long".to_owned()),
    };
    let (stream, caller) = match found {
        Ok(found) => found,
        Err(error) => return shared.note_refusal(&error, "", from),
    };
    let seat = match &caller.id {
        None => seat,
        Some(id) => match shared.limits.seat(Holder::Member, from.ip()) {
            Some(seat) => seat,
            None => return shared.note_refusal(TOO_MANY, id.as_str(), from),
        },
    };
    let (answering, held) = (Arc::clone(shared), drain.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, caller, held) = (Arc::clone(&answering), caller.clone(), held.clone());
        async move {
            let mut response = answer::answer(&shared, request, &caller, held).await;
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
            Ok::<_, Infallible>(response)
        }
    });
    shared
        .http
        .serve(stream, Protocol::Http1, service, drain)
        .await;
    drop(seat);
}

fn caller(stream: &TlsStream<TcpStream>, from: SocketAddr) -> Result<Caller, String> {
    let certificates = stream.get_ref().1.peer_certificates();
    let read = |leaf| {
        let id = svid::leaf_identity(leaf)?;
        let facts = svid::inspect(leaf)?;
        // The authority dates certificates back a little; their life begins when they are made.
        let made = facts.not_before + BACKDATE;
        let shown = Shown {
            fingerprint: facts.fingerprint,
            life: facts.not_after.duration_since(made).unwrap_or_default(),
        };
        Ok((id, shown))
    };
    let read = certificates
        .and_then(<[_]>::first)
        .map(|leaf| read(leaf).map_err(|error: SvidError| chain(&error)))
        .transpose()?;
    let (id, shown) = read.unzip();
    Ok(Caller { from, id, shown })
}

const TOO_MANY: &str = "too many connections from this address at a time";
/// A TLS handshake takes a few milliseconds; who needs longer is slow on purpose (threat 33).
const TLS_DEADLINE: Duration = Duration::from_secs(5);
