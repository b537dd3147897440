//! `cargo xtask demo`: two nodes and two applications on this machine, in a release build.

use crate::step::execute;
use crate::workspace::Workspace;

/// Runs `mesh-node demo`.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<()> {
    execute(
        workspace
            .cargo(&["run", "--package", "mesh-node", "--release", "--", "demo"])
            .args(arguments),
    )
}
