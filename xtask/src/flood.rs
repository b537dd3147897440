//! `cargo xtask flood`: what a flood of handshakes costs a node, and what the callers of others notice of it.

use anyhow::Context;

use crate::step::execute;
use crate::workspace::Workspace;

/// Runs the flood of mesh-node's tests against an optimised node, for as long as the one argument says.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<()> {
    let seconds: u32 = match arguments {
        [] => DEFAULT_SECONDS,
        [seconds] => seconds.parse().context("flood takes a number of seconds")?,
        _ => anyhow::bail!("flood takes one argument, a number of seconds"),
    };
    let test = [
        "test",
        "--release",
        "--package",
        "mesh-node",
        "--test",
        "flood",
    ];
    execute(
        workspace
            .cargo(&test)
            .args(["--", "--nocapture"])
            .env("MESH_FLOOD_SECS", seconds.to_string()),
    )
}

const DEFAULT_SECONDS: u32 = 60;
