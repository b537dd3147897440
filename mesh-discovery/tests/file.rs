//! A file that changes in the ways in which files do, and what its watchers see of that.

#![cfg(feature = "file")]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use mesh_discovery::Discover as _;
use mesh_discovery::Endpoints;
use mesh_discovery::Registry;
use mesh_discovery::RegistryConfig;
use mesh_discovery::ServiceName;
use mesh_discovery::Standing;
use mesh_discovery::Watch;
use mesh_discovery::file;
use tempfile::TempDir;
use tokio::time::Instant;

fn orders() -> ServiceName {
    ServiceName::parse("orders").unwrap()
}

fn list(last: &[u8]) -> String {
    let line = |last: &u8| format!("- {{ id: orders, host: 10.0.0.{last}, port: 80 }}\n");
    last.iter().map(line).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the driver runs beside the test until its runtime ends"
)]
fn start(path: &Path, look_every: Duration) -> (Registry, Watch) {
    let mut config = file::Config::new(path);
    config.look_every = look_every;
    config.max_bytes = 10_000;
    let (registry, driver) = file::source(config, RegistryConfig::new("file")).unwrap();
    drop(tokio::task::spawn(driver));
    let watch = registry.watch(&orders());
    (registry, watch)
}

/// Where the service is, once it is at `last`.
async fn is_at(watch: &mut Watch, last: &[u8]) -> Endpoints {
    let expected: Vec<_> = last
        .iter()
        .map(|last| format!("10.0.0.{last}:80"))
        .collect();
    let reached = async {
        loop {
            let endpoints = watch.latest();
            let at: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
            if at == expected && endpoints.standing() == Standing::Fresh {
                break endpoints.clone();
            }
            watch.changed().await.unwrap();
        }
    };
    tokio::time::timeout(LIMIT, reached).await.unwrap()
}

/// Waits until the list is stale, and gives what the source says why.
async fn is_stale(registry: &Registry, watch: &mut Watch) -> String {
    let reached = async {
        while !watch.latest().is_stale() {
            watch.changed().await.unwrap();
        }
    };
    tokio::time::timeout(LIMIT, reached).await.unwrap();
    assert_eq!(watch.latest().len(), 1);
    let report = registry.reports(&orders()).remove(0);
    report.failure.unwrap().to_string()
}

/// Puts a file in place at once.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

const LIMIT: Duration = Duration::from_secs(10);
/// Longer than any test waits: only what the system tells of is seen.
const NEVER: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_file_that_is_replaced_or_written_over_is_seen_at_once() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("services.yaml");
    fs::write(&path, list(&[1])).unwrap();
    let (_registry, mut watch) = start(&path, NEVER);
    is_at(&mut watch, &[1]).await;
    let began = Instant::now();
    replace(&path, &list(&[1, 2]));
    is_at(&mut watch, &[1, 2]).await;
    assert!(began.elapsed() < Duration::from_millis(500));
    fs::write(&path, list(&[1, 2, 3])).unwrap();
    is_at(&mut watch, &[1, 2, 3]).await;
}

#[tokio::test]
async fn a_link_that_is_pointed_elsewhere_is_seen() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    for last in 1..4 {
        let generation = at(&format!("..{last}"));
        fs::create_dir(&generation).unwrap();
        let all: Vec<_> = (1..=last).collect();
        fs::write(generation.join("services.yaml"), list(&all)).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/services.yaml", at("services.yaml")).unwrap();
    let (_registry, mut watch) = start(&at("services.yaml"), NEVER);
    is_at(&mut watch, &[1]).await;
    for last in 2..4 {
        symlink(format!("..{last}"), at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        fs::remove_dir_all(at(&format!("..{}", last - 1))).unwrap();
        let all: Vec<_> = (1..=last).collect();
        is_at(&mut watch, &all).await;
    }
}

#[tokio::test]
async fn a_file_that_is_gone_or_wrong_leaves_the_list_stale_and_says_why() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("services.yaml");
    let elsewhere = |name: &str| -> PathBuf { dir.path().join(name) };
    let wrongs: [(&str, &dyn Fn()); 7] = [
        ("can't be read", &|| fs::remove_file(&path).unwrap()),
        ("is empty", &|| fs::write(&path, "").unwrap()),
        ("line 2, column 26, key `port`", &|| {
            let half = "- {id: orders, host: b, port: 1}\n- {id: a, host: b, port: a}";
            fs::write(&path, half).unwrap();
        }),
        ("is no file", &|| {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }),
        ("can't be read", &|| {
            symlink("services.yaml", elsewhere("circle")).unwrap();
            fs::rename(elsewhere("circle"), &path).unwrap();
        }),
        ("is no file", &|| {
            symlink("/dev/zero", elsewhere("device")).unwrap();
            fs::rename(elsewhere("device"), &path).unwrap();
        }),
        ("larger than 10000 bytes", &|| {
            replace(&path, &list(&[1; 1000]));
        }),
    ];
    replace(&path, &list(&[1]));
    let (registry, mut watch) = start(&path, NEVER);
    for (expected, wrong) in wrongs {
        is_at(&mut watch, &[1]).await;
        wrong();
        let failure = is_stale(&registry, &mut watch).await;
        assert!(failure.contains(expected), "{failure}");
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        }
        replace(&path, &list(&[1]));
    }
}

#[tokio::test]
async fn a_service_that_the_file_leaves_out_is_not_believed_to_be_gone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("services.json");
    let entry = r#"{ "id": "orders", "host": "10.0.0.1", "port": 80 }"#;
    fs::write(&path, format!("[{entry}]")).unwrap();
    let (registry, mut watch) = start(&path, NEVER);
    is_at(&mut watch, &[1]).await;
    replace(&path, "[]");
    while !watch.latest().is_stale() {
        watch.changed().await.unwrap();
    }
    assert_eq!(watch.latest().len(), 1);
    assert_eq!(registry.reports(&orders())[0].failure, None);
    // One that it never had is not there.
    let mut other = registry.watch(&ServiceName::parse("payments").unwrap());
    assert_eq!(other.resolved().await.unwrap().standing(), Standing::Absent);
}

#[tokio::test]
async fn what_nobody_tells_of_is_seen_by_looking() {
    let dir = TempDir::new().unwrap();
    // The system watches no folder that is not there.
    let folder = dir.path().join("a/b/c");
    let path = folder.join("services.yaml");
    let (_registry, mut watch) = start(&path, Duration::from_millis(100));
    tokio::time::timeout(Duration::from_millis(300), watch.resolved())
        .await
        .unwrap_err();
    fs::create_dir_all(&folder).unwrap();
    fs::write(&path, list(&[1])).unwrap();
    is_at(&mut watch, &[1]).await;
}

#[test]
fn a_file_whose_name_does_not_say_what_is_in_it_is_refused() {
    for name in ["services", "services.toml", "services.YAML"] {
        let made = file::source(file::Config::new(name), RegistryConfig::new("file"));
        assert!(made.unwrap_err().to_string().contains(name));
    }
}
