//! Other trust domains whose workloads count as ours: for a migration from one domain to another, or two that merge.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{MAX_ID_BYTES, SCHEME, SpiffeId, SpiffeIdError, TrustDomain};

/// Most aliases of one trust domain.
pub const MAX_ALIASES: usize = 64;

/// The trust domains that mean the same as ours to policies, as Istio's `trustDomainAliases` do.
///
/// An alias changes nothing about who proves an identity: a workload of an alias is verified against
/// the bundle of *its own* domain, under its own name. Only then does [`Self::canonical`] say under
/// which name policies know it. Asking before the verification would let the authority of one domain
/// speak for the other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrustDomainAliases {
    own: TrustDomain,
    aliases: BTreeSet<Box<str>>,
}

impl TrustDomainAliases {
    /// `aliases` of `own`; there may be none.
    ///
    /// # Errors
    /// When there are more than [`MAX_ALIASES`], or one of them is `own`.
    pub fn new(own: TrustDomain, aliases: &[TrustDomain]) -> Result<Self, SpiffeIdError> {
        if aliases.len() > MAX_ALIASES {
            return Err(SpiffeIdError::TooManyAliases {
                aliases: aliases.len(),
            });
        }
        if aliases.contains(&own) {
            return Err(SpiffeIdError::OwnAlias { domain: own });
        }
        let aliases = aliases.iter().map(|alias| alias.as_str().into()).collect();
        Ok(Self { own, aliases })
    }

    /// Our own trust domain.
    pub fn own(&self) -> &TrustDomain {
        &self.own
    }

    /// Whether `domain` is one of the aliases.
    pub fn contains(&self, domain: &TrustDomain) -> bool {
        self.aliases.contains(domain.as_str())
    }

    /// The name under which policies know the workload that was verified as `id`: with our trust domain
    /// in the place of an alias, else `id` itself.
    ///
    /// # Errors
    /// [`SpiffeIdError::TooLong`] when the id would pass [`MAX_ID_BYTES`] with our longer trust domain;
    /// such a peer is to be refused, since no rule could name it.
    pub fn canonical<'a>(&self, id: &'a SpiffeId) -> Result<Cow<'a, SpiffeId>, SpiffeIdError> {
        if !self.contains(id.trust_domain()) {
            return Ok(Cow::Borrowed(id));
        }
        let bytes = SCHEME.len() + self.own.as_str().len() + id.path().len();
        if bytes > MAX_ID_BYTES {
            return Err(SpiffeIdError::TooLong { bytes });
        }
        SpiffeId::parse(&format!("{SCHEME}{}{}", self.own, id.path())).map(Cow::Owned)
    }
}
