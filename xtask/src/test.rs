//! `cargo xtask test`: everything that must pass, the cheapest first and the tests last.
//!
//! The steps share what they compile: linting, documentation and the `features` step use the check artifacts
//! of the same packages and features; doctests and tests use one build. Output ends with the summary of
//! the test runner.

use anyhow::bail;

use crate::deny;
use crate::deps;
use crate::features;
use crate::fuzz;
use crate::servers;
use crate::step::execute;
use crate::step::succeeds;
use crate::step::timed;
use crate::tidy;
use crate::workspace::Workspace;

/// Runs the steps one after the other and stops at the first that fails.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<()> {
    let is_quick = match arguments {
        [] => false,
        [flag] if flag == "--quick" => true,
        _ => bail!("`test` takes `--quick` or nothing"),
    };
    let cargo = |arguments: &[&str]| execute(&mut workspace.cargo(arguments));

    timed("format", || cargo(&["fmt", "--all", "--check"]))?;
    timed("deps", || deps::run(workspace))?;
    timed("tidy", || tidy::run(workspace))?;
    timed("deny", || deny::run(workspace))?;
    if !is_quick {
        timed("servers", || servers::run(workspace))?;
    }
    timed("clippy", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--keep-going",
            "--",
            "-D",
            "warnings",
        ])
    })?;
    timed("features", || features::run(workspace))?;
    if !is_quick {
        timed("doc", || doc(workspace))?;
    }
    timed("build", || {
        cargo(&[
            "test",
            "--workspace",
            "--all-features",
            TARGETS[0],
            TARGETS[1],
            TARGETS[2],
            "--no-run",
        ])
    })?;
    timed("doctests", || {
        cargo(&["test", "--quiet", "--workspace", "--all-features", "--doc"])
    })?;
    timed("corpora", || fuzz::replay(workspace))?;
    timed("model", || model(workspace))?;
    // No step around the tests: the summary of the runner is the last line.
    println!("==> test");
    tests(workspace)
}

fn doc(workspace: &Workspace) -> anyhow::Result<()> {
    let mut command = workspace.cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    execute(command.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Every interleaving of the threads that share the numbers of a sealing key: loom needs a build of its own.
fn model(workspace: &Workspace) -> anyhow::Result<()> {
    let arguments = [
        "test",
        "--quiet",
        "--package",
        "mesh-crypto",
        "--no-default-features",
        "--lib",
        "numbers",
    ];
    let mut command = workspace.cargo(&arguments);
    command
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", workspace.target.join("loom"));
    execute(&mut command)
}

fn tests(workspace: &Workspace) -> anyhow::Result<()> {
    let has_nextest = succeeds(&mut workspace.cargo(&["nextest", "--version"]));
    let mut command = if has_nextest {
        workspace.cargo(&[
            "nextest",
            "run",
            "--workspace",
            "--all-features",
            "--no-fail-fast",
        ])
    } else {
        println!("cargo-nextest is not installed, running the tests with cargo test");
        workspace.cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"])
    };
    execute(
        command
            .args(TARGETS)
            .env(servers::ENVIRONMENT, servers::manifest(workspace)),
    )
}

/// Benchmarks have targets of their own, which `cargo xtask bench` runs.
const TARGETS: [&str; 3] = ["--lib", "--bins", "--tests"];
