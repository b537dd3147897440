//! Calls whose route has a fallback: what they came to is passed on, or something else is given in its place.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use http::HeaderValue;
use http::Response;
use mesh_auth::request::CanonicalRequest;
use mesh_transport::Body;

use super::Kept;
use super::Outbound;
use super::Service;
use super::lookup::Called;
use super::lookup::service;
use super::show_breaker;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::respond::X_MESH_PROCESSED;
use crate::stack::inbound::show_limits;
use crate::stack::record::Record;
use crate::stack::route::Came;
use crate::stack::route::Falling;
use crate::stack::route::Kind;
use crate::stack::route::Spare;
use crate::stack::route::X_MESH_FALLBACK;
use crate::stack::send::OutboundCall;

/// What a call came to.
type Result<T = (Response<Body>, Kept)> = std::result::Result<T, Refusal>;

/// A request of the application as it came.
type Asked = (CanonicalRequest, Body, Instant);

/// Answers a request.
pub(super) async fn answered(
    outbound: &Outbound,
    falling: Falling<'_>,
    asked: Asked,
    called: Called,
) -> Response<Body> {
    let (Falling { way, .. }, started) = (falling, asked.2);
    let target = way.target(falling.drawn);
    let target = target.and_then(|target| target.service.as_ref());
    let service = service(&outbound.services, called, target.map(AsRef::as_ref)).await;
    let (name, series) = match &service {
        Ok(service) => (&service.name, Some(Arc::clone(&service.series))),
        Err(_) => (target.unwrap_or(falling.service), None),
    };
    let line = outbound.line(name, Some(way), &asked.0);
    let record = Record::new(&outbound.recorder, started, falling.is_grpc, (line, series));
    let (response, keep) = match &service {
        Err(refusal) => unfound(outbound, falling, asked, (name, refusal)).await,
        Ok(service) => {
            service.answered().await;
            let (mut response, keep) = carry(outbound, falling, asked, service).await;
            show_breaker(response.headers_mut(), service.lane(Some(way)));
            (response, keep)
        }
    };
    record.attach(response, keep)
}

/// Sends a call to its service, and answers it.
async fn carry(
    outbound: &Outbound,
    falling: Falling<'_>,
    (mut request, body, started): Asked,
    service: &Arc<Service>,
) -> (Response<Body>, Option<Kept>) {
    let way = falling.way;
    let prepared = outbound.prepare(&mut request, &service.name, Some(way));
    let prepared = prepared.await;
    let call = outbound.call(request, body, started);
    let (spare, limits, mut result) = match prepared {
        Err(refusal) => (falling.unsent(call), None, Err(refusal)),
        Ok(limits) => {
            let call = way.aim(call, falling.drawn);
            let spare = falling.spare(&call, service.lane(Some(way)).total);
            let result = outbound.send(call, service, Some(way)).await;
            (spare, limits, result)
        }
    };
    if let Ok((response, _)) = &mut result {
        // Nobody but this node says so.
        response.headers_mut().remove(X_MESH_FALLBACK);
    }
    let came = spare.came(&result);
    let (mut response, keep) = given(outbound, spare, &service.name, (came, result)).await;
    show_limits(response.headers_mut(), limits);
    (response, keep)
}

/// Answers a call whose service is not to be had, for the reason that `refusal` tells.
async fn unfound(
    outbound: &Outbound,
    falling: Falling<'_>,
    (mut request, body, started): Asked,
    (name, refusal): (&Arc<str>, &Refusal),
) -> (Response<Body>, Option<Kept>) {
    let Falling { way, is_grpc, .. } = falling;
    let prepared = outbound.prepare(&mut request, name, Some(way)).await;
    let (refusal, limits) = match prepared {
        Ok(limits) => (refusal.clone(), limits),
        Err(earlier) => (earlier, None),
    };
    let came = match refusal.code() {
        // The route counts on it, so it is no slip of the caller's.
        Code::NoRoute if way.route.names(name) => Came::Unprocessed,
        _ => Came::to_refusal(&refusal, is_grpc),
    };
    let spare = falling.unsent(outbound.call(request, body, started));
    let (mut response, keep) = given(outbound, spare, name, (came, Err(refusal))).await;
    show_limits(response.headers_mut(), limits);
    (response, keep)
}

/// What the caller gets.
async fn given(
    outbound: &Outbound,
    mut spare: Box<Spare<'_>>,
    asked: &str,
    (mut came, mut result): (Came, Result),
) -> (Response<Body>, Option<Kept>) {
    let falling = spare.falling;
    if !spare.is_replaced(came) {
        return passed_on(outbound, falling, result, |response| spare.keep(response));
    }
    let mut is_others = false;
    let was_sent = result.is_ok() || came != Came::Unprocessed;
    if let Some((name, left)) = spare.other(asked, was_sent)
        && let Some(other) = other(outbound, name, left).await
        && let Some(call) = spare.take_call(outbound.writes.as_ref())
    {
        // Frees what the failed call holds before the other one begins.
        drop(result);
        (came, result) = ask(outbound, call, &other, (&spare, came)).await;
        is_others = true;
        if !spare.is_replaced(came) {
            return of_other(outbound, falling, result);
        }
    }
    if let Some(mut response) = spare.stale() {
        let edits = &falling.way.route.response_headers;
        edits.apply(response.headers_mut());
        falling.mark(Kind::Stale, &mut response);
        return (response, None);
    }
    if let Some(mut response) = spare.answer() {
        if came == Came::Unprocessed {
            let no = HeaderValue::from_static("no");
            response.headers_mut().insert(X_MESH_PROCESSED, no);
        }
        falling.mark(Kind::Answer, &mut response);
        return (response, None);
    }
    if is_others {
        of_other(outbound, falling, result)
    } else {
        passed_on(outbound, falling, result, |response| response)
    }
}

/// Another service, where it is to be had within the time that is left.
async fn other(
    outbound: &Outbound,
    name: &Arc<str>,
    left: Option<Duration>,
) -> Option<Arc<Service>> {
    let found = async {
        let service = outbound.services.find(name).await.ok()?;
        service.answered().await;
        Some(service)
    };
    match left {
        Some(left) => tokio::time::timeout(left, found).await.ok()?,
        None => found.await,
    }
}

/// Sends a call to another service after it came to nothing good. Gives what it came to at both.
async fn ask(
    outbound: &Outbound,
    mut call: OutboundCall,
    other: &Arc<Service>,
    (spare, first): (&Spare<'_>, Came),
) -> (Came, Result) {
    let result = match outbound.add_token(&other.name, call.headers_mut()) {
        Ok(()) => outbound.send(call, other, Some(spare.falling.way)).await,
        Err(refusal) => Err(refusal),
    };
    let came = spare.came_at_other(&result);
    if first == Came::Unprocessed {
        return (came, result);
    }
    // What the other service did not do, the first one may have done.
    let result = result
        .map(|(mut response, keep)| {
            response.headers_mut().remove(X_MESH_PROCESSED);
            (response, keep)
        })
        .map_err(Refusal::maybe_processed);
    let came = match came {
        Came::Unprocessed => Came::Failed,
        came => came,
    };
    (came, result)
}

/// What the other service said.
fn of_other(
    outbound: &Outbound,
    falling: Falling<'_>,
    result: Result,
) -> (Response<Body>, Option<Kept>) {
    let (mut response, keep) = match result {
        Ok((mut response, keep)) => {
            let edits = &falling.way.route.response_headers;
            edits.apply(response.headers_mut());
            (response, Some(keep))
        }
        Err(refusal) => (outbound.refuse(&refusal, falling.is_grpc, falling.id), None),
    };
    falling.mark(Kind::Service, &mut response);
    (response, keep)
}

/// What the call came to, as without a fallback.
fn passed_on(
    outbound: &Outbound,
    falling: Falling<'_>,
    result: Result,
    keep: impl FnOnce(Response<Body>) -> Response<Body>,
) -> (Response<Body>, Option<Kept>) {
    match result {
        Ok((response, held)) => {
            let (mut response, Falling { way, drawn, .. }) = (keep(response), falling);
            way.change_answer(drawn, response.headers_mut());
            (response, Some(held))
        }
        Err(refusal) => (outbound.refuse(&refusal, falling.is_grpc, falling.id), None),
    }
}
