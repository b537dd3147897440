//! What answers behind the node, apart from the checks before it: a call on its way there may outlive its connection.

use std::sync::Arc;

use http::Request;
use http::Response;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::strip_identity_headers;
use mesh_resilience::classify::X_MESH_RETRY;
use mesh_transport::Body;
use mesh_transport::app::AppClient;

use crate::audit::Auditor;
use crate::methods::Methods;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::stack::headers::strip_hop_by_hop;
use crate::stack::headers::trailer_rule;
use crate::stack::inbound::Peer;
use crate::stack::inbound::shedding::Place;
use crate::stack::inbound::shedding::Shedding;
use crate::stack::outbound::chain;

/// What answers behind the node.
#[derive(Debug)]
pub(crate) enum App {
    /// A program that listens on a port.
    Http(AppClient),
    /// Handlers of the program that this node is part of.
    Methods(Arc<Methods>),
    /// Nothing: a node that only calls.
    Absent,
}

/// The local application.
#[derive(Debug)]
pub(crate) struct Application {
    pub(crate) name: Arc<str>,
    pub(crate) app: App,
    pub(crate) auditor: Option<Auditor>,
    /// How many calls it may have under way, where that is limited.
    pub(crate) shedding: Option<Shedding>,
}

impl Application {
    /// Passes on a request that may pass.
    pub(crate) async fn forward(
        &self,
        peer: &Peer,
        request: CanonicalRequest,
        body: Body,
    ) -> Result<Response<Body>, Refusal> {
        let request = Request::from_parts(request.into_parts(), body);
        let place = self.admit(peer, &request)?;
        self.answer(peer, request, place).await
    }

    /// Takes a place for a request that may pass, where there is one.
    pub(crate) fn admit(&self, peer: &Peer, request: &Request<Body>) -> Result<Place, Refusal> {
        Place::take(self.shedding.as_ref(), peer.id.is_some(), request)
    }

    /// Passes on a request that has its place.
    pub(crate) async fn answer(
        &self,
        peer: &Peer,
        request: Request<Body>,
        place: Place,
    ) -> Result<Response<Body>, Refusal> {
        let request = request.map(|body| body.with_trailer_rule(trailer_rule));
        let request = place.watch(request);
        let mut response = match &self.app {
            App::Http(client) => client.send(request).await.map_err(|error| {
                tracing::warn!(error = %chain(&error), "the application gave no answer");
                if let Some(auditor) = &self.auditor {
                    let what = format!("the application gave no answer: {}", chain(&error));
                    auditor.note_error(&peer.shown, &what);
                }
                let refusal = Refusal::new(
                    Code::UpstreamFailed,
                    format!("the application of {} gave no answer", self.name),
                );
                if error.is_unprocessed() {
                    refusal
                } else {
                    refusal.maybe_processed()
                }
            })?,
            App::Methods(methods) => methods.call(request).await?,
            App::Absent => {
                let message = format!("{} has no application; set service.app", self.name);
                return Err(Refusal::new(Code::NoRoute, message));
            }
        };
        place.answered(&response);
        let headers = response.headers_mut();
        strip_hop_by_hop(headers);
        strip_identity_headers(headers, &[X_MESH_RETRY]);
        Ok(response.map(|body| body.with_trailer_rule(trailer_rule)))
    }
}
