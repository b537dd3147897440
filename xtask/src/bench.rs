//! `cargo xtask bench`: the benchmarks of all components.

use crate::step::execute;
use crate::workspace::Workspace;

/// Runs the benchmarks; arguments select some of them.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<()> {
    execute(
        workspace
            .cargo(&["bench", "--package", "benches"])
            .args(arguments),
    )
}
