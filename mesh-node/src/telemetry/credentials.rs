//! What is counted about credentials: users', and issuers' keys.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Names;

/// The metrics of credentials. Issuers are those of the configuration.
pub(crate) struct CredentialMetrics {
    users: Family<ResultLabel, Counter>,
    fetches: Family<FetchLabels, Counter>,
    keys: Family<IssuerLabel, Gauge>,
    /// Times that other secrets of service tokens were taken over.
    pub(crate) secret_reloads: Counter,
    /// Times that they were refused.
    pub(crate) secret_failures: Counter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FetchLabels {
    issuer: Arc<str>,
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct IssuerLabel {
    issuer: Arc<str>,
}

impl CredentialMetrics {
    pub(super) fn new(names: &mut Names<'_>) -> Self {
        Self {
            users: names.register(
                "mesh_auth_credentials",
                "Credentials of users that were checked",
            ),
            fetches: names.register(
                "mesh_auth_jwks_fetches",
                "Fetches of issuers' keys: ok, failed, or refused for what came",
            ),
            keys: names.register(
                "mesh_auth_jwks_keys",
                "Keys of an issuer that are in force; 0 where none of its tokens is accepted",
            ),
            secret_reloads: names.register(
                "mesh_auth_secret_reloads",
                "Times that other secrets of service tokens were taken over",
            ),
            secret_failures: names.register(
                "mesh_auth_secret_reload_failures",
                "Secrets of service tokens that were refused while the last good ones stayed",
            ),
        }
    }

    /// Counts a credential that was accepted or refused.
    pub(crate) fn checked(&self, is_accepted: bool) {
        let result = if is_accepted { "accepted" } else { "refused" };
        self.users.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a fetch of an issuer's keys.
    pub(crate) fn fetched(&self, issuer: &Arc<str>, result: &'static str) {
        let issuer = Arc::clone(issuer);
        self.fetches
            .get_or_create(&FetchLabels { issuer, result })
            .inc();
    }

    /// Shows how many keys of an issuer are in force.
    pub(crate) fn keys_of(&self, issuer: &Arc<str>, keys: usize) {
        let issuer = Arc::clone(issuer);
        let keys = i64::try_from(keys).unwrap_or(i64::MAX);
        self.keys.get_or_create(&IssuerLabel { issuer }).set(keys);
    }
}
