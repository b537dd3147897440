//! The SPIFFE Workload API of an agent on this machine: X509-SVIDs and bundles over a Unix socket, pushed as they change.
//!
//! # Sources
//!
//! SPIFFE Workload API, sections 5 (X.509-SVID profile) and 6 (how errors are met: by asking again, with backoff).

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream as _;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivatePkcs8KeyDer;
use spiffe::WorkloadApiClient;
use spiffe::X509Context;
use spiffe::transport::Endpoint;

use crate::config::NodeConfig;
use crate::error::Error;
use crate::identity::Backoff;
use crate::identity::Feed;
use crate::identity::Material;
use crate::identity::Surroundings;

/// Where the agent listens, and which of the identities that it gives is ours.
#[derive(Debug)]
pub(crate) struct WorkloadApi {
    socket: PathBuf,
    id: SpiffeId,
}

impl WorkloadApi {
    pub(super) fn new(config: &NodeConfig) -> Result<Self, Error> {
        let socket = config.identity.workload_api_socket.as_ref();
        Ok(Self {
            socket: super::needed(socket, "workload_api_socket")?,
            id: super::own_id(config)?,
        })
    }

    /// Follows what the agent pushes, and asks again whenever it goes silent.
    pub(super) async fn run(self, feed: Feed, around: Surroundings) {
        let mut backoff = Backoff::new(Arc::clone(&around.random));
        loop {
            if let Err(error) = self.follow(&feed, &mut backoff).await {
                feed.failed(&error);
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Takes what one connection brings, until it ends.
    async fn follow(&self, feed: &Feed, backoff: &mut Backoff) -> Result<(), Error> {
        let path = self.socket.display();
        let failed = |source| {
            let what = format!("the Workload API at {path} gives nothing");
            Error::config(what, source)
        };
        let connecting = WorkloadApiClient::connect(Endpoint::Unix(self.socket.clone()));
        let client = tokio::time::timeout(CONNECT, connecting).await;
        let client = client.map_err(|late| {
            Error::config(format!("the Workload API at {path} does not answer"), late)
        })?;
        let contexts = client.map_err(failed)?.stream_x509_contexts().await;
        let mut contexts = pin!(contexts.map_err(failed)?);
        while let Some(context) = poll_fn(|waiter| contexts.as_mut().poll_next(waiter)).await {
            match self.material(&context.map_err(failed)?) {
                Ok(material) => {
                    feed.put(material);
                    backoff.reset();
                }
                // The agent may yet be told who we are.
                Err(error) => feed.unfit(&error),
            }
        }
        Err(Error::missing(format!(
            "the Workload API at {path} ended the stream"
        )))
    }

    fn material(&self, context: &X509Context) -> Result<Material, Error> {
        let ours = |id: &spiffe::SpiffeId| id.to_string() == self.id.as_str();
        let svid = context.svids().iter().find(|svid| ours(svid.spiffe_id()));
        let svid = svid.ok_or_else(|| {
            let given: Vec<_> = context.svids().iter().map(|svid| svid.spiffe_id().to_string()).collect();
            Error::missing(format!(
                "the Workload API does not give {} to this node, but {}; register it with the agent, or set \
                 service.spiffe_id",
                self.id,
                given.join(", ")
            ))
        })?;
        let der = |certificate: &spiffe::cert::Certificate| {
            CertificateDer::from(certificate.as_bytes().to_vec())
        };
        let chain = svid.cert_chain().iter().map(der).collect();
        let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
        let mut bundles = BTreeMap::new();
        for (domain, bundle) in context.bundle_set().iter() {
            let name = TrustDomain::parse(domain.as_ref()).map_err(|source| {
                Error::config("the Workload API names a trust domain that is none", source)
            })?;
            let roots: Vec<_> = bundle.authorities().iter().map(der).collect();
            // A federated domain that has no roots at present is one that nobody can come from.
            if !roots.is_empty() {
                bundles.insert(name, roots);
            }
        }
        Ok(Material::new(chain, key.into(), bundles))
    }
}

/// An agent on this machine answers at once, or is not there.
const CONNECT: Duration = Duration::from_secs(5);
