//! Probes of `mesh-node prove`: one peer may ask what this node decides about somebody else's request.
//!
//! That peer is named in the configuration (`security.probe`) and proves its name like every other. Its requests take the
//! whole way in and are answered by the node itself after the decision: none of them reaches the application, whatever
//! the rules say. From everybody else the header is dropped like any other claim of an identity.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;
use http::HeaderValue;
use http::Response;
use mesh_auth::caller::Caller;
use mesh_auth::caller::ClaimValue;
use mesh_auth::caller::User;
use mesh_auth::policy::Decision;
use mesh_transport::Body;
use serde::Deserialize;
use serde::Serialize;

use crate::decision::Told;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::stack::inbound::verdict_of;

/// Whose request the probe stands for, as JSON.
pub(crate) const X_MESH_PROBE: HeaderName = HeaderName::from_static("x-mesh-probe");

/// Whose request a probe stands for.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StandIn {
    /// The SPIFFE id in its certificate; absent for a caller without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spiffe_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<StandInUser>,
}

/// What a credential would say.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StandInUser {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) roles: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) claims: BTreeMap<String, String>,
}

/// What was decided.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Found {
    /// `allow`, `would_deny` (it passes, and an audit rule or default is against it) or `deny`.
    pub(crate) verdict: String,
    /// What decided; absent for the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    /// The id of the decision, where a node made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) decision: Option<String>,
}

impl PartialEq for Found {
    /// The same, whichever decision it was.
    fn eq(&self, other: &Self) -> bool {
        (&self.verdict, &self.rule) == (&other.verdict, &other.rule)
    }
}

impl StandIn {
    /// Reads what a probe says of itself.
    ///
    /// # Errors
    ///
    /// When it says nothing, or something that can't be read.
    pub(crate) fn read(value: Option<&HeaderValue>) -> Result<Caller, Refusal> {
        let refused = |message| Refusal::new(Code::BadRequest, message);
        let value = value.ok_or_else(|| {
            refused("a probe says in x-mesh-probe for whom it stands; nothing of it is passed on")
        })?;
        let stand_in = serde_json::from_slice::<Self>(value.as_bytes()).ok();
        stand_in
            .and_then(|stand_in| stand_in.caller())
            .ok_or_else(|| refused("x-mesh-probe is not the JSON of a caller"))
    }

    /// The caller that it stands for; none where the SPIFFE id is not one.
    pub(crate) fn caller(&self) -> Option<Caller> {
        let id = match &self.spiffe_id {
            Some(id) => Some(id.parse().ok()?),
            None => None,
        };
        let user = self.user.as_ref().map(|user| Arc::new(user.user()));
        Some(Caller::new(id, user))
    }

    /// As it travels.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(serde_json::to_vec(self).ok()?).ok()
    }
}

impl StandInUser {
    fn user(&self) -> User {
        let mut user = User::new(&self.issuer, &self.subject);
        user.groups = self
            .groups
            .iter()
            .map(|group| group.as_str().into())
            .collect();
        user.roles = self.roles.iter().map(|role| role.as_str().into()).collect();
        let claims = self.claims.iter();
        user.claims = claims
            .map(|(name, value)| (name.as_str().into(), ClaimValue::from(value.as_str())))
            .collect();
        user
    }
}

impl Found {
    /// What a node decided.
    pub(crate) fn of(told: &Told) -> Self {
        Self {
            verdict: told.verdict.to_owned(),
            rule: told.rule.as_ref().map(ToString::to_string),
            decision: Some(told.id.to_string()),
        }
    }

    /// What a policy on paper says.
    pub(crate) fn on_paper(decision: &Decision) -> Self {
        let rule = decision.would_deny.as_ref().or(decision.rule.as_ref());
        Self {
            verdict: verdict_of(decision).to_owned(),
            rule: rule.map(ToString::to_string),
            decision: None,
        }
    }

    /// The answer to a probe: in a header, since an answer to HEAD has no body. Its status says nothing of the verdict.
    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        let written = serde_json::to_vec(&self).ok();
        // The name of a rule has no control characters, so it fits.
        let value = written.and_then(|text| HeaderValue::try_from(text).ok());
        let value = value.unwrap_or(HeaderValue::from_static("{}"));
        response.headers_mut().insert(X_MESH_PROBE, value);
        response
    }

    /// What such an answer says.
    pub(crate) fn read(value: &HeaderValue) -> Option<Self> {
        serde_json::from_slice(value.as_bytes()).ok()
    }
}
