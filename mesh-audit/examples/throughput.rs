//! Measures a log on a real disk: `throughput PATH [SECONDS]`. The file must not exist yet.
//!
//! First durable appends of 64 tasks, then what an asynchronous append costs its caller, then the
//! verifier. Build with `--release`.

#![expect(
    clippy::print_stdout,
    reason = "the figures are what the program is for"
)]
#![expect(clippy::disallowed_methods, reason = "a program may read the clock")]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use mesh_audit::{AuditLog, Config, Durability, Event, EventKind, OsFileSystem, VerifyOptions};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args_os().skip(1);
    let path = arguments.next().ok_or("usage: throughput PATH [SECONDS]")?;
    let seconds = arguments
        .next()
        .map_or(Ok(3), |text| text.to_string_lossy().parse())?;
    let path = Path::new(&path);
    if path.exists() {
        return Err("the file exists already".into());
    }
    durable(path, Duration::from_secs(seconds))?;
    asynchronous(path)?;
    let start = Instant::now();
    let report = mesh_audit::verify(std::fs::File::open(path)?, &VerifyOptions::default())?;
    let (records, bytes) = (report.records, report.bytes);
    println!(
        "verify: {records} records, {bytes} bytes in {:?}",
        start.elapsed()
    );
    Ok(())
}

fn event(id: u64) -> Event {
    Event::new(EventKind::Message)
        .with("id", id)
        .with("peer", "spiffe://example.org/ns/shop/sa/web")
        .with("service", "order-service")
        .with("method", "GET")
        .with("path", "/api/orders/123456")
        .with("decision", "allow")
        .with("status", 200_u16)
}

fn durable(path: &Path, limit: Duration) -> Result<(), Error> {
    let (log, driver) = mesh_audit::open(Config::new(path), OsFileSystem, SystemTime::now)?;
    let writer = std::thread::spawn(move || driver.run());
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let start = Instant::now();
    let mut waits = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..64 {
            tasks.spawn(append_until(log.clone(), task, start + limit));
        }
        tasks.join_all().await.concat()
    });
    let elapsed = start.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |share: usize| {
        waits
            .get(waits.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    let syncs = log.stats().syncs;
    drop(log);
    writer.join().map_err(|_panic| "the writer panicked")?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = waits.len() as f64 / elapsed;
    println!(
        "durable, 64 tasks: {rate:.0} records/s, {syncs} syncs, p50 {:?}, p99 {:?}",
        at(50),
        at(99)
    );
    Ok(())
}

async fn append_until(log: AuditLog, id: u64, end: Instant) -> Vec<Duration> {
    let mut waits = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        if log.append(event(id)).await.is_ok() {
            waits.push(start.elapsed());
        }
    }
    waits
}

fn asynchronous(path: &Path) -> Result<(), Error> {
    let config = Config::new(path).with_durability(Durability::Async);
    let (log, driver) = mesh_audit::open(config, OsFileSystem, SystemTime::now)?;
    let writer = std::thread::spawn(move || driver.run());
    let (mut nanos, mut refused) = (Vec::new(), 0);
    for id in 0..200_000 {
        let start = Instant::now();
        let result = log.try_append(event(id));
        nanos.push(start.elapsed().as_nanos());
        while result.is_err() && log.stats().queued > 4096 {
            std::thread::yield_now();
        }
        refused += u32::from(result.is_err());
    }
    nanos.sort_unstable();
    let at = |share: usize| {
        nanos
            .get(nanos.len() * share / 1000)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "async, event and append: p50 {} ns, p99 {} ns, p99.9 {} ns, {refused} refused",
        at(500),
        at(990),
        at(999)
    );
    drop(log);
    writer.join().map_err(|_panic| "the writer panicked")?;
    Ok(())
}
