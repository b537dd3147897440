//! Services' names and the SPIFFE ids that Consul gives them.
//!
//! Consul names a service `spiffe://TRUST-DOMAIN/ns/default/dc/DATACENTER/svc/SERVICE`. Its users write `SERVICE`, and its
//! intentions mean that service in whichever datacenter it runs. So policies know such a peer under the name that the
//! service would have in any other mesh, `spiffe://TRUST-DOMAIN/SERVICE`: a rule's `from: [web]` and an intention of `web`
//! mean it in every datacenter of the trust domain. Who proves what is settled before that, by the whole id.
//!
//! # Sources
//!
//! - Consul, "Connect: Certificate Authority": the form of ids. `/ap/PARTITION` in front and namespaces other than
//!   `default` are Consul Enterprise's; their services keep their whole id.

use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;

use crate::config::IdentitySource;

/// What Consul's id of a service says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ServiceId<'a> {
    pub(crate) datacenter: &'a str,
    pub(crate) service: &'a str,
}

impl<'a> ServiceId<'a> {
    /// Reads the id of a service in the namespace `default`.
    pub(crate) fn of(id: &'a SpiffeId) -> Option<Self> {
        let rest = id.path().strip_prefix("/ns/default/dc/")?;
        let (datacenter, service) = rest.split_once("/svc/")?;
        let is_one = |part: &str| !part.is_empty() && !part.contains('/');
        (is_one(datacenter) && is_one(service)).then_some(Self {
            datacenter,
            service,
        })
    }
}

/// Under which id policies know a verified peer.
#[derive(Clone, Debug)]
pub(crate) enum Names {
    /// Under its own.
    AsVerified,
    /// Services of this trust domain under their names in Consul.
    Consul(TrustDomain),
}

impl Names {
    /// What the source of identities makes of names in `own`.
    pub(crate) fn new(source: IdentitySource, own: &TrustDomain) -> Self {
        match source {
            IdentitySource::Consul => Self::Consul(own.clone()),
            IdentitySource::Files | IdentitySource::WorkloadApi | IdentitySource::Builtin => {
                Self::AsVerified
            }
        }
    }

    /// The id under which policies know the peer that proved to be `id`.
    ///
    /// # Errors
    ///
    /// [`Ambiguous`]; such a peer is to be refused.
    pub(crate) fn known_as(&self, id: &SpiffeId) -> Result<SpiffeId, Ambiguous> {
        match self {
            Self::AsVerified => Ok(id.clone()),
            Self::Consul(own) => canonical(own, id),
        }
    }
}

/// Consul's id of `service`.
pub(crate) fn id_of(trust_domain: &str, datacenter: &str, service: &str) -> String {
    format!("spiffe://{trust_domain}/ns/default/dc/{datacenter}/svc/{service}")
}

/// Why a peer of our trust domain has no name here.
#[derive(Debug, thiserror::Error)]
#[error(
    "{id} is not of the form that consul gives, and could be taken for the service of that name"
)]
pub(crate) struct Ambiguous {
    id: SpiffeId,
}

/// Fails for an id that no Consul gives: it is what another one's canonical name looks like.
fn canonical(own: &TrustDomain, id: &SpiffeId) -> Result<SpiffeId, Ambiguous> {
    if id.trust_domain() != own {
        return Ok(id.clone());
    }
    if let Some(found) = ServiceId::of(id)
        && let Ok(named) = SpiffeId::for_service(own, found.service)
    {
        return Ok(named);
    }
    let is_one_segment = !id.path().trim_start_matches('/').contains('/');
    if is_one_segment {
        return Err(Ambiguous { id: id.clone() });
    }
    Ok(id.clone())
}

/// Whether a rule's `from` is an id that Consul gives to services of the namespace `default`, or a pattern of such ids:
/// policies never see one of our own trust domain.
pub(crate) fn is_never_seen(from: &str) -> bool {
    let path = from
        .strip_prefix("spiffe://")
        .and_then(|rest| Some(rest.split_once('/')?.1));
    path.is_some_and(|path| path == "ns/default/*" || path.starts_with("ns/default/dc/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        text.parse().unwrap()
    }

    fn own() -> TrustDomain {
        "u.consul".parse().unwrap()
    }

    #[test]
    fn reads_the_ids_of_services_in_the_default_namespace_alone() {
        for (path, expected) in [
            ("/ns/default/dc/dc1/svc/web", Some(("dc1", "web"))),
            ("/ns/other/dc/dc1/svc/web", None),
            ("/ap/x/ns/default/dc/dc1/svc/web", None),
            ("/ns/default/dc/dc1/svc/web/more", None),
            ("/ns/default/dc/a/b/svc/web", None),
            ("/agent/client/dc/dc1/id/node", None),
            ("/gateway/mesh/dc/dc1", None),
            ("/web", None),
        ] {
            let id = id(&format!("spiffe://u.consul{path}"));
            let found = ServiceId::of(&id).map(|found| (found.datacenter, found.service));
            assert_eq!(found, expected, "{path}");
        }
        let made = id_of("u.consul", "dc1", "web");
        assert_eq!(made, "spiffe://u.consul/ns/default/dc/dc1/svc/web");
    }

    #[test]
    fn a_service_has_one_name_in_all_datacenters_and_others_keep_their_ids() {
        for (from, to) in [
            (
                "spiffe://u.consul/ns/default/dc/dc1/svc/web",
                "spiffe://u.consul/web",
            ),
            (
                "spiffe://u.consul/ns/default/dc/dc2/svc/web",
                "spiffe://u.consul/web",
            ),
            (
                "spiffe://u.consul/ns/team/dc/dc1/svc/web",
                "spiffe://u.consul/ns/team/dc/dc1/svc/web",
            ),
            (
                "spiffe://other.consul/ns/default/dc/dc1/svc/web",
                "spiffe://other.consul/ns/default/dc/dc1/svc/web",
            ),
            ("spiffe://example.org/web", "spiffe://example.org/web"),
        ] {
            assert_eq!(canonical(&own(), &id(from)).unwrap(), id(to));
        }
    }

    #[test]
    fn an_id_that_looks_like_the_name_of_another_has_none() {
        for text in ["spiffe://u.consul/web", "spiffe://u.consul"] {
            assert!(canonical(&own(), &id(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn knows_what_no_policy_ever_sees() {
        for (from, expected) in [
            ("web", false),
            ("*", false),
            ("spiffe://u.consul/web", false),
            ("spiffe://u.consul/ns/default/dc/dc1/svc/web", true),
            ("spiffe://u.consul/ns/default/dc/dc1/*", true),
            ("spiffe://u.consul/ns/default/*", true),
            ("spiffe://u.consul/ns/team/dc/dc1/svc/web", false),
        ] {
            assert_eq!(is_never_seen(from), expected, "{from}");
        }
    }
}
