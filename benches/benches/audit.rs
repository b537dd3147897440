//! Appends to the audit log: what an asynchronous one costs its caller, and how many durable ones share a sync.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::SystemTime;

use criterion::Criterion;
use criterion::SamplingMode;
use criterion::Throughput;
use mesh_audit::AuditLog;
use mesh_audit::Config;
use mesh_audit::Durability;
use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_audit::OsFileSystem;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

fn main() {
    let mut criterion = benches::criterion();
    append_async(&mut criterion);
    append_durable(&mut criterion);
    criterion.final_summary();
}

fn append_async(criterion: &mut Criterion) {
    let opened = Opened::new(Durability::Async);
    let mut group = criterion.benchmark_group("audit");
    // What is appended is written too, untimed: less of it keeps the file small.
    group
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200));
    group.throughput(Throughput::Elements(1));
    group.bench_function("append_async", |b| {
        b.iter_custom(|count| {
            let (mut took, mut left) = (Duration::ZERO, count);
            while left > 0 {
                let burst = left.min(BURST);
                let start = Instant::now();
                for number in 0..burst {
                    opened.log.try_append(event(number)).unwrap();
                }
                took += start.elapsed();
                left -= burst;
                while opened.log.stats().queued > 0 {
                    std::thread::park_timeout(Duration::from_millis(1));
                }
            }
            took
        });
    });
    group.finish();
    opened.close();
}

/// Time from the first append to the last answer, divided by the appends: 64 callers that each wait for their record to
/// be on disk before they go on.
fn append_durable(criterion: &mut Criterion) {
    let opened = Opened::new(Durability::Durable);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut group = criterion.benchmark_group("audit");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(1));
    group.bench_function("append_durable_64_waiters", |b| {
        b.to_async(&runtime).iter_custom(|count| {
            let log = opened.log.clone();
            async move {
                let left = Arc::new(AtomicU64::new(count));
                let start = Instant::now();
                let mut waiters = JoinSet::new();
                for _waiter in 0..WAITERS {
                    waiters.spawn(append_while(log.clone(), Arc::clone(&left)));
                }
                waiters.join_all().await;
                start.elapsed()
            }
        });
    });
    group.finish();
    opened.close();
}

async fn append_while(log: AuditLog, left: Arc<AtomicU64>) {
    let take = |left: u64| left.checked_sub(1);
    while let Ok(number) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
        log.append(event(number)).await.unwrap();
    }
}

/// A log in a folder of its own, and its writer.
struct Opened {
    log: AuditLog,
    writer: JoinHandle<()>,
    folder: TempDir,
}

impl Opened {
    fn new(durability: Durability) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path().join("audit.log"))
            .with_durability(durability)
            // Twice a burst, so that none is refused.
            .with_queue(
                NonZeroUsize::new(2 * 4096).unwrap(),
                NonZeroUsize::new(8 << 20).unwrap(),
            );
        let (log, driver) = mesh_audit::open(config, OsFileSystem, wall_clock).unwrap();
        let writer = std::thread::spawn(move || driver.run());
        Self {
            log,
            writer,
            folder,
        }
    }

    fn close(self) {
        self.log.shutdown();
        drop(self.log);
        self.writer.join().unwrap();
        self.folder.close().unwrap();
    }
}

/// What a node records of a call.
fn event(number: u64) -> Event {
    Event::new(EventKind::Message)
        .with("direction", "inbound")
        .with("peer", "spiffe://example.org/ns/shop/sa/user-service")
        .with("service", "order-service")
        .with("method", "GET")
        .with("path", "/api/orders/123456")
        .with("verdict", "allow")
        .with("rule", "users-read-orders")
        .with("request_id", "7b1f0c52-6c0e-4d0a-9f5e-0f4f5c1b8d11")
        .with("status", 200_u16)
        .with("number", number)
}

#[expect(clippy::disallowed_methods, reason = "a program may read the clock")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

const WAITERS: usize = 64;
const BURST: u64 = 4096;
