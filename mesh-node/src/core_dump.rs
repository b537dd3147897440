//! Keeps what the process holds in memory, private keys above all, out of core files and out of reach of debuggers.
//!
//! # Sources
//!
//! prctl(2) on `PR_SET_DUMPABLE`, core(5), ptrace(2); threat 20 and threat 61 of the threat model.

use std::collections::BTreeMap;
use std::io;

/// Takes from this process, for the rest of its life, the ability to leave a core file: the limit is 0 and can't be raised
/// again without privilege, and on Linux the process is not dumpable, whatever handles core dumps there, and can be traced
/// by nobody without privilege. Does nothing where [`ALLOW`] is `1`.
pub(crate) fn switch_off(environment: &BTreeMap<String, String>) -> io::Result<()> {
    if environment.get(ALLOW).is_some_and(|value| value == "1") {
        return Ok(());
    }
    limit_to_nothing()
}

#[cfg(unix)]
fn limit_to_nothing() -> io::Result<()> {
    use rustix::process::Resource;
    use rustix::process::Rlimit;

    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, nothing)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(not(unix))]
fn limit_to_nothing() -> io::Result<()> {
    Ok(())
}

/// For those who debug a node: with `1` it leaves core files as any other program does, with every secret in them.
pub(crate) const ALLOW: &str = "MESH_ALLOW_CORE_DUMPS";
