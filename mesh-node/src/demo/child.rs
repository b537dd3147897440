//! The other side of `processes`: what a child does before it becomes an application or a node.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::service::App;

/// A process of the demonstration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Process that this one must not outlive.
    #[arg(long)]
    parent: i32,
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    /// An application.
    App(App),
    /// A node: becomes `mesh-node run -c FILE`.
    Node {
        #[arg(long)]
        config: PathBuf,
    },
}

impl Args {
    /// Runs until the process is stopped; comes back only with an error.
    ///
    /// # Errors
    ///
    /// When the parent is gone, or the address is taken.
    pub(crate) fn run(self) -> io::Result<()> {
        die_with(self.parent)?;
        match self.kind {
            Kind::App(app) => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(app.run()),
            Kind::Node { config } => {
                let mut command = Command::new(std::env::current_exe()?);
                Err(command.arg("run").arg("-c").arg(config).exec())
            }
        }
    }
}

/// Has the system stop this process when its parent ends, however that ends; it holds through `exec` (prctl(2),
/// `PR_SET_PDEATHSIG`).
#[cfg(target_os = "linux")]
fn die_with(parent: i32) -> io::Result<()> {
    use rustix::process;
    process::set_parent_process_death_signal(Some(process::Signal::TERM))?;
    // It may have ended before the line above.
    let now = process::getppid().map(process::Pid::as_raw_nonzero);
    if now.is_some_and(|now| now.get() == parent) {
        Ok(())
    } else {
        Err(io::Error::other(
            "the demo that started this process is gone",
        ))
    }
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "can fail on Linux")]
fn die_with(_: i32) -> io::Result<()> {
    Ok(())
}
