//! `cargo xtask transcripts`: changed handshakes, resumptions and records by the million, none of which may be accepted.

use crate::flag;
use crate::step::execute;
use crate::workspace::Workspace;

/// Runs the test `transcripts` of mesh-session in its long form.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<()> {
    let count = flag::number(arguments, "--count", DEFAULT)?;
    let test = [
        "test",
        "--release",
        "--package",
        "mesh-session",
        "--test",
        "transcripts",
    ];
    execute(
        workspace
            .cargo(&test)
            .args(["--", "--nocapture"])
            .env("MESH_TRANSCRIPTS", count.to_string()),
    )
}

/// A quarter of an hour or so on two cores.
const DEFAULT: u64 = 1_000_000;
