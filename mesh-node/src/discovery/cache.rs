//! The last good lists on disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh_discovery::cache::Cache;
use mesh_discovery::cache::CacheDriver;
use mesh_discovery::cache::CacheImage;
use mesh_discovery::cache::CacheStorage as _;
use mesh_discovery::cache::FileStorage;
use mesh_transport::drain::Drain;
use mesh_transport::drain::Phase;
use mesh_transport::tasks::Tasks;
use tokio::sync::oneshot;

use crate::config::CacheConfig;
use crate::node::wall_clock;

/// Writes the lists when they have changed.
#[derive(Debug)]
pub(crate) struct Writer {
    driver: CacheDriver,
    storage: Arc<FileStorage>,
}

/// The lists in the file that `config` names; nothing where they are not kept. A file that can't be used is named in the
/// log, and is no reason not to start.
pub(crate) fn open(config: &CacheConfig) -> Option<(Arc<Cache>, Writer)> {
    if !config.enabled {
        return None;
    }
    let bounds = mesh_discovery::cache::CacheConfig::default().with_max_age(config.max_age);
    let (cache, driver) = Cache::new(bounds, Arc::new(wall_clock));
    let storage = Arc::new(FileStorage::new(&config.path));
    if let Some(folder) = config
        .path
        .parent()
        .filter(|folder| *folder != Path::new(""))
    {
        // What is wrong with the folder is said when the file can't be written.
        drop(std::fs::create_dir_all(folder));
    }
    match cache.load(&*storage) {
        Ok(0) => {}
        Ok(services) => tracing::info!(services, "endpoints from before are known from disk"),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            let path = config.path.display();
            tracing::warn!(error, %path, "the endpoints on disk are not used");
        }
    }
    Some((cache, Writer { driver, storage }))
}

impl Writer {
    /// Writes until draining begins, and a last time then; what is given back ends when that is done.
    pub(crate) fn start(self, tasks: &Tasks, mut drain: Drain) -> oneshot::Receiver<()> {
        let (done, ended) = oneshot::channel::<()>();
        let (storage, blocking) = (self.storage, tasks.clone());
        let save = move |image: CacheImage| {
            let (storage, blocking) = (Arc::clone(&storage), blocking.clone());
            async move {
                let store = move || storage.store(&image.encode());
                Ok(blocking.blocking(store).await??)
            }
        };
        tasks.start(async move {
            let until = async { drain.reached(Phase::Draining).await };
            self.driver.run(save, until).await;
            drop(done);
        });
        ended
    }
}

/// How long the last writing may hold up the end of the node.
pub(crate) const LAST_WRITE: Duration = Duration::from_secs(2);
