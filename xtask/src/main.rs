//! The tasks of the workspace: `cargo xtask COMMAND`.
//!
//! Needs nothing but the Rust toolchain; what else a task uses it fetches, or says that it did without.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool talks to its user"
)]

use std::process::ExitCode;

use anyhow::bail;

use crate::workspace::Workspace;

mod bench;
mod demo;
mod deny;
mod deps;
mod features;
mod flag;
mod flood;
mod fuzz;
mod reference;
mod servers;
mod soak;
mod step;
mod test;
mod tidy;
mod timing;
mod transcripts;
mod workspace;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    let Some((command, rest)) = arguments.split_first() else {
        println!("{USAGE}");
        return Ok(());
    };
    if matches!(command.as_str(), "help" | "--help" | "-h") {
        println!("{USAGE}");
        return Ok(());
    }
    let workspace = Workspace::load()?;
    match (command.as_str(), rest) {
        ("test", rest) => test::run(&workspace, rest),
        ("demo", rest) => demo::run(&workspace, rest),
        ("bench", rest) => bench::run(&workspace, rest),
        ("deny", []) => deny::run(&workspace),
        ("deps", []) => deps::run(&workspace),
        ("features", []) => features::run(&workspace),
        ("flood", rest) => flood::run(&workspace, rest),
        ("fuzz", rest) => fuzz::run(&workspace, rest),
        ("reference" | "readme", rest) => reference::run(&workspace, rest),
        ("servers", []) => servers::run(&workspace),
        ("soak", rest) => soak::run(&workspace, rest),
        ("tidy", []) => tidy::run(&workspace),
        ("timing", rest) => timing::run(&workspace, rest),
        ("transcripts", rest) => transcripts::run(&workspace, rest),
        ("deny" | "deps" | "features" | "servers" | "tidy", _) => {
            bail!("`{command}` takes no arguments")
        }
        _ => bail!("there is no command `{command}`\n\n{USAGE}"),
    }
}

const USAGE: &str = "\
cargo xtask COMMAND

  test [--quick]   everything that must pass before a change goes in; --quick leaves out servers and docs
  servers          fetch the programs that tests talk to into the target directory
  deps             check the edges between our crates against the allowed ones
  features         lint every package alone: no features, and each feature on its own
  tidy             check what the compiler does not
  deny             check licences, duplicates, sources and advisories with cargo-deny
  reference [CRATE…]
                   write README.md of these crates, or of all, from the crate documentation (also: readme)
  demo [ARGS]      run `mesh-node demo` in a release build
  bench [ARGS]     run the benchmarks
  flood [SECONDS]  flood a node with handshakes for a minute, and say what its callers notice
  fuzz [TARGET] [--secs N]
                   fuzz every parser of bytes from outside, or one, for a minute each (needs a C++ compiler)
  soak NAME [--rate N]
                   inflict faults on running programs at length, and hold the figures against the goals: discovery
  transcripts [--count N]
                   change a million handshakes, resumptions and records; none may be accepted
  timing [--samples N]
                   measure whether the time of a refusal says what was wrong, on both engines";
