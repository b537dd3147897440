//! Running a program as a step: announced, timed, and an error when it fails.

use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;

/// Runs a step that is a function and prints how long it took.
pub(crate) fn timed(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("==> {name}");
    let start = now();
    work().with_context(|| format!("step `{name}` failed"))?;
    println!("    {name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a program to its end; its output goes where ours goes.
pub(crate) fn execute(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("could not start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a program and gives what it printed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("could not start {}", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = stderr.trim().lines().collect();
        let end = lines.len().saturating_sub(SHOWN_LINES);
        let last = lines.get(end..).unwrap_or_default().join("\n");
        bail!("{} ended with {}: {last}", shown(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// True when a program starts and says that it did well; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// A command as one would type it, to repeat it by hand.
fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args());
    let words: Vec<_> = words.map(std::ffi::OsStr::to_string_lossy).collect();
    format!("`{}`", words.join(" "))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time that a person waits is wall-clock time"
)]
fn now() -> Instant {
    Instant::now()
}

/// The end of an error output says what went wrong.
const SHOWN_LINES: usize = 5;
