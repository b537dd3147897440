//! The processors: which one to stay on, and how much of them this process used.

use std::io;
use std::time::Duration;

/// Keeps this thread, and those it starts from now on, on one processor.
///
/// # Errors
///
/// When there is no such processor, or the system has no way to do so.
#[cfg(target_os = "linux")]
pub(super) fn pin(cpu: usize) -> io::Result<()> {
    use rustix::thread::CpuSet;
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::other(format!("there is no processor {cpu}")));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn pin(_: usize) -> io::Result<()> {
    Err(io::Error::other(
        "staying on one processor is possible on Linux only",
    ))
}

/// What this process has used, all threads, user and system.
pub(super) fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
