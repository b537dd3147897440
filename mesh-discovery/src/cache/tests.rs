//! What is remembered, what is read again, and when it is written, on clocks that the tests turn.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use super::*;
use crate::endpoint::Condition;
use crate::endpoint::Endpoint;

/// A disk in memory that can fail.
#[derive(Default)]
struct Disk {
    bytes: Mutex<Option<Vec<u8>>>,
    writes: AtomicU64,
    is_full: Mutex<bool>,
}

impl CacheStorage for Disk {
    fn load(&self, _limit: usize) -> Result<Option<Vec<u8>>, CacheError> {
        Ok(self.bytes.lock().unwrap().clone())
    }

    fn store(&self, bytes: &[u8]) -> Result<(), CacheError> {
        if *self.is_full.lock().unwrap() {
            return Err(CacheError::Write {
                path: "disk".into(),
                source: io::Error::other("no space"),
            });
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        *self.bytes.lock().unwrap() = Some(bytes.to_vec());
        Ok(())
    }
}

struct Test {
    disk: Arc<Disk>,
    time: Arc<AtomicU64>,
}

const BEGUN: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

impl Test {
    fn new() -> Self {
        Self {
            disk: Arc::default(),
            time: Arc::new(AtomicU64::new(BEGUN)),
        }
    }

    fn cache(&self, config: CacheConfig) -> (Arc<Cache>, CacheDriver) {
        let time = Arc::clone(&self.time);
        let clock =
            move || SystemTime::UNIX_EPOCH + Duration::from_secs(time.load(Ordering::Relaxed));
        Cache::new(config, Arc::new(clock))
    }

    /// A new process.
    fn restarted(&self) -> Result<(Arc<Cache>, usize), CacheError> {
        let (cache, _driver) = self.cache(CacheConfig::default());
        let count = cache.load(&*self.disk)?;
        Ok((cache, count))
    }

    fn set(&self, time: u64) {
        self.time.store(time, Ordering::Relaxed);
    }

    /// Writes what is there now.
    fn write(&self, cache: &Cache) {
        self.disk.store(&cache.image().encode()).unwrap();
    }

    async fn run(&self, driver: CacheDriver, until: impl Future<Output = ()>) {
        let save = |image: CacheImage| {
            let disk = Arc::clone(&self.disk);
            async move { Ok(disk.store(&image.encode())?) }
        };
        driver.run(save, until).await;
    }

    fn writes(&self) -> u64 {
        self.disk.writes.load(Ordering::Relaxed)
    }
}

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn at(ports: &[u16]) -> Endpoints {
    let list = ports
        .iter()
        .map(|port| Endpoint::new("10.0.0.7".parse().unwrap(), *port));
    Endpoints::new(list.collect(), 0).unwrap()
}

#[test]
fn every_field_survives_a_restart() {
    let test = Test::new();
    let (cache, _driver) = test.cache(CacheConfig::default());
    let mut full = Endpoint::new("db.example.org".parse().unwrap(), 5432);
    full.id = "a \"quoted\" é".into();
    full.weight = 7.try_into().unwrap();
    full.priority = 3;
    full.zone = Some("z".into());
    full.version = Some("1.2".into());
    full.public_key_fingerprint = Some("ff".into());
    full.tags = vec!["t".into()];
    full.metadata = [("k".to_owned(), "v".to_owned())].into();
    full.spiffe_id = Some("spiffe://example.org/db".into());
    full.condition = Condition::Draining;
    full.source = Some("consul".into());
    let mut six = Endpoint::new("fd00::1".parse().unwrap(), 1);
    six.source = Some("consul".into());
    let list = Endpoints::new(vec![full, six], 0).unwrap();
    cache.remember(&"consul".into(), &name("db"), &list);
    cache.remember(&"etcd".into(), &name("db"), &at(&[1]));
    test.write(&cache);
    let (cache, count) = test.restarted().unwrap();
    assert_eq!(count, 2);
    assert_eq!(*cache.recall(&"consul".into(), &name("db")).unwrap(), *list);
    assert_eq!(
        cache.recall(&"etcd".into(), &name("db")).unwrap()[0].port,
        1
    );
    assert!(cache.recall(&"consul".into(), &name("users")).is_none());
    assert!(cache.recall(&"dns".into(), &name("db")).is_none());
}

// threat 51
#[test]
fn a_list_from_the_end_of_time_is_followed_on() {
    let test = Test::new();
    let item = format::Item {
        source: "dns".into(),
        service: name("db"),
        seen: u64::MAX,
        endpoints: at(&[1]),
    };
    let (bytes, _) = format::encode(&[item], BEGUN, 1 << 20);
    test.disk.store(&bytes).unwrap();
    let (cache, _) = test.restarted().unwrap();
    cache.remember(&"dns".into(), &name("db"), &at(&[1]));
    assert_eq!(cache.recall(&"dns".into(), &name("db")).unwrap()[0].port, 1);
}

#[test]
fn nothing_is_there_at_the_first_start() {
    assert_eq!(Test::new().restarted().unwrap().1, 0);
}

#[test]
fn what_is_gone_is_forgotten() {
    let test = Test::new();
    let (cache, _driver) = test.cache(CacheConfig::default());
    cache.remember(&"consul".into(), &name("db"), &at(&[1]));
    cache.remember(&"consul".into(), &name("db"), &Endpoints::absent());
    test.write(&cache);
    assert_eq!(test.restarted().unwrap().1, 0);
}

/// Changes what is on disk; gives the error of reading it.
fn spoil(change: impl FnOnce(&mut Vec<u8>)) -> CacheError {
    let test = Test::new();
    let (cache, _driver) = test.cache(CacheConfig::default());
    cache.remember(&"consul".into(), &name("db"), &at(&[1, 2]));
    test.write(&cache);
    change(test.disk.bytes.lock().unwrap().as_mut().unwrap());
    test.restarted().unwrap_err()
}

// threat 51
#[test]
fn a_file_that_is_damaged_is_refused_whole() {
    let replace = |from: &'static str, to: &'static str| {
        move |bytes: &mut Vec<u8>| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(from), "{text}");
            *bytes = text.replacen(from, to, 1).into_bytes();
        }
    };
    assert!(matches!(spoil(Vec::clear), CacheError::NoHeader));
    assert!(matches!(
        spoil(|bytes| *bytes = vec![b'x'; 1 << 20]),
        CacheError::NoHeader
    ));
    assert!(matches!(
        spoil(replace("-cache", "-other")),
        CacheError::NoHeader
    ));
    let version = spoil(replace("\"version\":1", "\"version\":2"));
    assert!(matches!(version, CacheError::Version { found: 2, read: 1 }));
    assert!(matches!(
        spoil(|bytes| bytes.truncate(250)),
        CacheError::Length { .. }
    ));
    assert!(matches!(
        spoil(|bytes| bytes.push(b' ')),
        CacheError::Length { .. }
    ));
    assert!(matches!(
        spoil(replace("10.0.0.7", "10.0.0.8")),
        CacheError::Damaged
    ));
}

#[test]
fn every_changed_byte_is_found() {
    let test = Test::new();
    let (cache, _driver) = test.cache(CacheConfig::default());
    cache.remember(&"consul".into(), &name("db"), &at(&[1]));
    test.write(&cache);
    let good = test.disk.bytes.lock().unwrap().clone().unwrap();
    let time = good
        .windows(10)
        .position(|part| part == b"1800000000")
        .unwrap();
    for index in (0..good.len()).filter(|index| !(time..time + 10).contains(index)) {
        let mut bad = good.clone();
        bad[index] ^= 1;
        *test.disk.bytes.lock().unwrap() = Some(bad);
        test.restarted().unwrap_err();
    }
}

// threat 51
#[test]
fn what_no_registry_may_say_no_file_may_say() {
    let body = |endpoint: &str| {
        let body = format!(
            r#"[{{"source":"consul","service":"db","seen":{BEGUN},"endpoints":[{endpoint}]}}]"#
        );
        let hash: Vec<_> = <sha2::Sha256 as sha2::Digest>::digest(&body)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let header = format!(
            r#"{{"format":"mesh-discovery-cache","version":1,"written":{BEGUN},"length":{},"sha256":"{}"}}"#,
            body.len(),
            hash.concat(),
        );
        format::decode(format!("{header}\n{body}").as_bytes(), BEGUN, MAX_AGE)
    };
    let endpoints = |decoded: &format::Decoded| -> usize {
        let items = decoded.items.iter();
        items.map(|item| item.endpoints.len()).sum()
    };
    let endpoint = |host: &str, port: &str| {
        format!(
            r#"{{"id":"a","host":"{host}","port":{port},"weight":1,"priority":0,"zone":null,"version":null,"public_key_fingerprint":null,"tags":[],"metadata":{{}},"spiffe_id":null,"condition":"passing"}}"#
        )
    };
    let good = endpoint("10.0.0.7", "80");
    assert_eq!(endpoints(&body(&good).unwrap()), 1);
    for bad in [endpoint("169.254.169.254", "80"), endpoint("10.0.0.7", "0")] {
        let decoded = body(&bad).unwrap();
        assert_eq!((decoded.items.len(), decoded.left_out), (0, 1));
        let decoded = body(&format!("{bad},{good}")).unwrap();
        assert_eq!((endpoints(&decoded), decoded.left_out), (1, 1));
        assert!(decoded.first.is_some());
    }
    assert!(matches!(
        body(&endpoint("10.0.0.7", "65536")),
        Err(CacheError::Content { .. })
    ));
    assert!(matches!(
        body(r#"{"id":"a"}"#),
        Err(CacheError::Content { .. })
    ));
}

#[test]
fn what_is_old_is_not_used() {
    let test = Test::new();
    let (cache, _driver) = test.cache(CacheConfig::default());
    cache.remember(&"consul".into(), &name("old"), &at(&[1]));
    test.set(BEGUN + 3 * DAY);
    cache.remember(&"consul".into(), &name("new"), &at(&[1]));
    test.write(&cache);
    test.set(BEGUN + 7 * DAY);
    assert_eq!(test.restarted().unwrap().1, 2);
    test.set(BEGUN + 7 * DAY + 1);
    let (cache, count) = test.restarted().unwrap();
    assert_eq!(count, 1);
    assert!(cache.recall(&"consul".into(), &name("old")).is_none());
    test.set(BEGUN + 10 * DAY + 1);
    assert!(
        cache.recall(&"consul".into(), &name("new")).is_none(),
        "it grew too old meanwhile"
    );
    let error = test.restarted().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the cache of endpoints is 168 hours old, and the limit is 168"
    );
    test.set(0);
    assert_eq!(
        test.restarted().unwrap().1,
        2,
        "a clock that was set back makes nothing older"
    );
}

// threat 51
#[test]
fn services_and_bytes_are_bounded_and_the_oldest_leave() {
    let test = Test::new();
    let (cache, _driver) = test.cache(CacheConfig::default().with_bounds(3, 1 << 20));
    for n in 0..5 {
        test.set(BEGUN + n);
        cache.remember(&"consul".into(), &name(&format!("s{n}")), &at(&[1]));
    }
    test.write(&cache);
    let (cache, count) = test.restarted().unwrap();
    assert_eq!(count, 3);
    assert!(cache.recall(&"consul".into(), &name("s1")).is_none());

    let (cache, _driver) = test.cache(CacheConfig::default().with_bounds(100, 2000));
    for n in 0..100 {
        test.set(BEGUN + n);
        cache.remember(&"consul".into(), &name(&format!("s{n}")), &at(&[1]));
    }
    test.write(&cache);
    assert!(test.disk.bytes.lock().unwrap().as_ref().unwrap().len() <= 2000);
    let (cache, count) = test.restarted().unwrap();
    assert!((3..8).contains(&count), "{count}");
    assert!(cache.recall(&"consul".into(), &name("s99")).is_some());
}

#[tokio::test(start_paused = true)]
async fn is_written_at_most_once_a_second_and_in_the_end() {
    let test = Test::new();
    let (cache, driver) = test.cache(CacheConfig::default());
    let script = async {
        for port in 1..=95 {
            cache.remember(&"consul".into(), &name("db"), &at(&[port]));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!((9..=11).contains(&test.writes()), "{}", test.writes());
        tokio::time::sleep(Duration::from_mins(10)).await;
        let before = test.writes();
        for _ in 0..10 {
            cache.remember(&"consul".into(), &name("db"), &at(&[95]));
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        assert_eq!(test.writes(), before, "nothing new");
        test.set(BEGUN + 3600);
        cache.remember(&"consul".into(), &name("db"), &at(&[95]));
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(test.writes(), before + 1, "the time is news now and then");
        cache.remember(&"consul".into(), &name("db"), &at(&[96]));
    };
    test.run(driver, script).await;
    let (cache, _) = test.restarted().unwrap();
    assert_eq!(
        cache.recall(&"consul".into(), &name("db")).unwrap()[0].port,
        96
    );
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_is_tried_again() {
    let test = Test::new();
    let (cache, driver) = test.cache(CacheConfig::default());
    let script = async {
        *test.disk.is_full.lock().unwrap() = true;
        cache.remember(&"consul".into(), &name("db"), &at(&[1]));
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert_eq!(test.writes(), 0);
        *test.disk.is_full.lock().unwrap() = false;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(test.writes(), 1);
    };
    test.run(driver, script).await;
    assert_eq!(test.writes(), 1);
}
