//! Trust domains beside our own, whose roots lie in files: they are added to whatever the source gives.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_auth::bundle::Bundle;
use mesh_auth::spiffe::TrustDomain;
use rustls_pki_types::CertificateDer;

use crate::config::IdentityConfig;
use crate::error::Error;
use crate::identity::Feed;
use crate::identity::Material;
use crate::identity::News;
use crate::identity::Roots;
use crate::identity::Source;
use crate::identity::Surroundings;
use crate::identity::feed;
use crate::identity::judge;
use crate::identity::pem;
use crate::stack::outbound::chain;
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
        let mut kept = Roots::new();
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
            let read = match tasks.blocking(move || federation.read()).await {
                Ok(read) => read,
                Err(error) => {
                    feed.failed(&error);
                    continue;
                }
            };
            let troubles = renewed(&mut kept, read);
            // Our own certificate waits for nobody's file.
            feed.put(joined(material, &kept));
            if !troubles.is_empty() {
                feed.unfit(&Error::missing(troubles.join("; ")));
            }
        }
    }

    /// Each domain's file by itself: one that can't be used says nothing about another.
    fn read(&self) -> Vec<(TrustDomain, Result<Vec<CertificateDer<'static>>, Error>)> {
        let read = |domain: &TrustDomain, file: &Path| {
            let unusable = |source| {
                Error::config(
                    format!("the bundle of {domain} in {} can't be used", file.display()),
                    source,
                )
            };
            let bundle = Bundle::parse(domain.clone(), &pem::read(file)?).map_err(unusable)?;
            let roots = bundle.roots().to_vec();
            if !roots.is_empty() {
                judge::usable(domain, &roots)?;
            }
            Ok(roots)
        };
        let files = self.0.iter();
        files
            .map(|(domain, file)| (domain.clone(), read(domain, file)))
            .collect()
    }
}

/// Takes over what could be read, and keeps the last good roots of the other domains, or none; says what is wrong.
fn renewed(
    kept: &mut Roots,
    read: Vec<(TrustDomain, Result<Vec<CertificateDer<'static>>, Error>)>,
) -> Vec<String> {
    let mut troubles = Vec::new();
    for (domain, read) in read {
        match read {
            Ok(roots) => {
                kept.insert(domain, roots);
            }
            Err(error) => {
                let last = match kept.entry(domain).or_default().len() {
                    0 => "none of its roots is trusted",
                    _ => "its last good roots stay",
                };
                troubles.push(format!("{}; {last}", chain(&error)));
            }
        }
    }
    troubles
}

/// What is configured here counts, where the source says something else about the same domain: also where that is that
/// nobody can come from it at present.
fn joined(material: &Material, federated: &Roots) -> Material {
    let mut bundles = material.bundles.clone();
    bundles.extend(federated.clone());
    bundles.retain(|_domain, roots| !roots.is_empty());
    Material::new(material.chain.clone(), material.key.clone_key(), bundles)
}

#[cfg(test)]
mod tests;
