//! Appends until it is killed, and says which records were answered: `append PATH FIRST_ID`.
//!
//! Sixteen tasks append at once; each prints `ID SEQ` after the answer, a line at a time.

#![expect(clippy::print_stdout, reason = "the lines are what the program is for")]
#![expect(clippy::disallowed_methods, reason = "a program may read the clock")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use mesh_audit::{AuditLog, Config, Event, EventKind, OsFileSystem};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(path), Some(first)) = (arguments.next(), arguments.next()) else {
        return Err("usage: append PATH FIRST_ID".into());
    };
    let next = Arc::new(AtomicU64::new(first.to_string_lossy().parse()?));
    let (log, driver) = mesh_audit::open(Config::new(path), OsFileSystem, SystemTime::now)?;
    let writer = std::thread::spawn(move || driver.run());

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()?;
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..16 {
            tasks.spawn(append_for_ever(log.clone(), Arc::clone(&next)));
        }
        tasks.join_next().await
    });
    drop((log, runtime));
    writer.join().map_err(|_panic| "the writer panicked")?;
    Ok(())
}

async fn append_for_ever(log: AuditLog, next: Arc<AtomicU64>) {
    loop {
        let id = next.fetch_add(1, Ordering::Relaxed);
        let event = Event::new(EventKind::Message)
            .with("id", id)
            .with("peer", "spiffe://example.org/web");
        match log.append(event).await {
            Ok(receipt) => println!("{id} {}", receipt.head().map_or(0, |head| head.seq)),
            Err(_) => return,
        }
    }
}
