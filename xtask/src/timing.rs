//! `cargo xtask timing`: whether the time of a refusal says what was wrong, measured at length on both engines.

use std::process::Command;

use crate::flag;
use crate::step::execute;
use crate::step::succeeds;
use crate::workspace::Workspace;

/// Runs the test `timing` of mesh-crypto in its long form, on one core if it can be kept there.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<()> {
    let samples = flag::number(arguments, "--samples", DEFAULT)?;
    let test = [
        "test",
        "--release",
        "--package",
        "mesh-crypto",
        "--all-features",
        "--test",
        "timing",
    ];
    // Compiling may use every core.
    execute(workspace.cargo(&test).arg("--no-run"))?;
    let cargo = workspace.cargo(&test);
    let mut command = if succeeds(Command::new("taskset").args(["-c", CORE, "true"])) {
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", CORE]).arg(cargo.get_program());
        pinned.args(cargo.get_args()).current_dir(&workspace.root);
        pinned
    } else {
        println!("taskset is not there, so the system may move the measurement from core to core");
        cargo
    };
    execute(
        command
            .args(["--", "--nocapture", "--test-threads=1"])
            .env("MESH_TIMING_SAMPLES", samples.to_string()),
    )
}

/// Not the first one, which serves more interrupts than others.
const CORE: &str = "1";
/// Some minutes; goal C-7 asks for 100,000, which take some hours with the slower engine.
const DEFAULT: u64 = 5_000;
