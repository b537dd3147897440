//! Trust domains beside our own, whose roots lie in files: they are added to whatever the source gives.

use std::path::PathBuf;
use std::sync::Arc;

use mesh_auth::bundle::Bundle;
use mesh_auth::spiffe::TrustDomain;

use crate::config::IdentityConfig;
use crate::error::Error;
use crate::identity::Feed;
use crate::identity::Material;
use crate::identity::News;
use crate::identity::Roots;
use crate::identity::Source;
use crate::identity::Surroundings;
use crate::identity::feed;
use crate::identity::pem;
use crate::watch::FileWatch;

/// The bundle files of other trust domains.
#[derive(Clone, Debug)]
pub(super) struct Federation(Arc<[(TrustDomain, PathBuf)]>);

impl Federation {
    pub(super) fn new(config: &IdentityConfig) -> Result<Self, Error> {
        let entries = config.federation.iter().map(|entry| {
            let domain = TrustDomain::parse(&entry.trust_domain).map_err(|source| {
                Error::config(
                    "identity.federation has a name that is no trust domain",
                    source,
                )
            })?;
            Ok((domain, entry.bundle_file.clone()))
        });
        entries.collect::<Result<_, Error>>().map(Self)
    }

    /// Runs `source`, and gives what it gives with the other domains' roots, again whenever their files change.
    pub(super) async fn run(self, source: Source, feed: Feed, around: Surroundings) {
        if self.0.is_empty() {
            return source.run(feed, around).await;
        }
        let files = self.0.iter().map(|(_, file)| file.clone()).collect();
        let mut watch = FileWatch::new(files, Vec::new());
        let (inner, mut intake) = feed::channel();
        let tasks = around.tasks.clone();
        let mut source = std::pin::pin!(source.run(inner, around));
        let mut last: Option<Material> = None;
        loop {
            tokio::select! {
                () = &mut source => return,
                news = intake.next() => match news {
                    News::Material(material) => last = Some(material),
                    News::Unfit(why) => { feed.unfit(&Error::missing(why)); continue }
                    News::Failed(why) => { feed.failed(&Error::missing(why)); continue }
                    News::Ended => return,
                },
                () = watch.changed() => {}
                () = feed.refused() => { intake.refuse(); continue }
            }
            let Some(material) = &last else { continue };
            let federation = self.clone();
            match tasks.blocking(move || federation.read()).await {
                Ok(Ok(roots)) => feed.put(joined(material, roots)),
                Ok(Err(error)) => feed.unfit(&error),
                Err(error) => feed.failed(&error),
            }
        }
    }

    fn read(&self) -> Result<Roots, Error> {
        let roots = self.0.iter().map(|(domain, file)| {
            let bundle = Bundle::parse(domain.clone(), &pem::read(file)?).map_err(|source| {
                Error::config(
                    format!("the bundle of {domain} in {} can't be used", file.display()),
                    source,
                )
            })?;
            Ok((domain.clone(), bundle.roots().to_vec()))
        });
        // One without roots is one that nobody can come from at present.
        let is_someone = |read: &Result<(_, Vec<_>), Error>| {
            read.as_ref().map_or(true, |(_, roots)| !roots.is_empty())
        };
        roots.filter(is_someone).collect()
    }
}

/// What is configured here counts, where the source says something else about the same domain.
fn joined(material: &Material, federated: Roots) -> Material {
    let mut bundles = material.bundles.clone();
    bundles.extend(federated);
    Material::new(material.chain.clone(), material.key.clone_key(), bundles)
}
