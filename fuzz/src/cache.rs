//! What the file may hold that keeps lists through restarts: nothing but lists that a registry could have given.

use std::collections::HashSet;
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::Context;
use std::task::Waker;
use std::time::Duration;
use std::time::SystemTime;

use mesh_discovery::Endpoint;
use mesh_discovery::Endpoints;
use mesh_discovery::Recall as _;
use mesh_discovery::ServiceName;
use mesh_discovery::cache::Cache;
use mesh_discovery::cache::CacheConfig;
use mesh_discovery::cache::CacheDriver;
use mesh_discovery::cache::CacheError;
use mesh_discovery::cache::CacheImage;
use mesh_discovery::cache::CacheStorage;
use serde::Deserialize;
use sha2::Digest as _;
use sha2::Sha256;

/// A whole file, and the same bytes behind a header that fits them. What is read can be kept on, and is written again as
/// the same.
pub fn cache(data: &[u8]) {
    check(data, &[]);
    let digest = Sha256::digest(data);
    let hex = digest.iter().map(|byte| format!("{byte:02x}"));
    let hash: String = hex.collect();
    let length = data.len();
    let header = format!(
        r#"{{"format":"mesh-discovery-cache","version":1,"written":{NOW},"length":{length},"sha256":"{hash}"}}"#
    );
    let file = [header.as_bytes(), b"\n", data].concat();
    let keys: Vec<Key> = serde_json::from_slice(data).unwrap_or_default();
    check(&file, &keys);
}

/// Which list one of a file is.
#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Key {
    source: String,
    service: String,
}

fn check(file: &[u8], keys: &[Key]) {
    let disk = Disk(Mutex::new(file.to_vec()));
    let (cache, driver) = start();
    let count = match cache.load(&disk) {
        Ok(count) => count,
        Err(error) => {
            let line = error.to_string();
            assert!(
                line.len() < 1000 && !line.contains(char::is_control),
                "{line}"
            );
            return;
        }
    };
    let distinct: HashSet<_> = keys.iter().collect();
    let mut kept = 0;
    for key in distinct {
        let Ok(service) = ServiceName::parse(&key.service) else {
            continue;
        };
        let source = Arc::from(&*key.source);
        if let Some(list) = cache.recall(&source, &service) {
            assert!(Endpoints::new(list.iter().map(|one| (**one).clone()).collect(), 0).is_ok());
            cache.remember(&source, &service, &list);
            kept += usize::from(!list.is_empty());
        }
    }
    assert!(kept <= count, "{kept} of {count}");
    // Something new has the rest written again too.
    let new = Endpoint::new("192.0.2.1".parse().expect("a host"), 1);
    let new = Endpoints::new(vec![new], 0).expect("a list");
    let own = ServiceName::parse("new").expect("a name");
    cache.remember(&SOURCE.into(), &own, &new);
    save(driver, &disk);
    let written = disk.bytes();
    let (cache, driver) = start();
    let count = cache.load(&disk).expect("what was written");
    assert!(count > kept, "{kept} of {count}");
    cache.remember(&SOURCE.into(), &own, &Endpoints::absent());
    cache.remember(&SOURCE.into(), &own, &new);
    save(driver, &disk);
    assert_eq!(disk.bytes(), written);
}

fn start() -> (Arc<Cache>, CacheDriver) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    Cache::new(CacheConfig::default(), Arc::new(move || now))
}

/// Writes what is not written yet; a driver that is to end at once waits for nothing.
fn save(driver: CacheDriver, disk: &Disk) {
    let save = |image: CacheImage| ready(disk.store(&image.encode()).map_err(Into::into));
    let run = pin!(driver.run(save, ready(())));
    assert!(run.poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

struct Disk(Mutex<Vec<u8>>);

impl Disk {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("a lock").clone()
    }
}

impl CacheStorage for Disk {
    fn load(&self, limit: usize) -> Result<Option<Vec<u8>>, CacheError> {
        Ok(Some(self.bytes()).filter(|bytes| bytes.len() <= limit))
    }

    fn store(&self, bytes: &[u8]) -> Result<(), CacheError> {
        *self.0.lock().expect("a lock") = bytes.to_vec();
        Ok(())
    }
}

const SOURCE: &str = "fuzz";
const NOW: u64 = 1_800_000_000;
