//! `cargo xtask fuzz`: every fuzz target for a while, with libFuzzer and the address sanitizer.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::bail;

use crate::flag;
use crate::step::execute;
use crate::step::succeeds;
use crate::workspace::Workspace;

/// Runs the target that the arguments name, or all, each for some seconds.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<()> {
    let (named, rest) = match arguments.split_first() {
        Some((name, rest)) if !name.starts_with('-') => (Some(name), rest),
        _ => (None, arguments),
    };
    let seconds = flag::number(rest, "--secs", DEFAULT_SECONDS)?;
    let all = targets(workspace)?;
    let chosen: Vec<_> = match named {
        None => all,
        Some(name) if all.contains(name) => vec![name.clone()],
        Some(name) => bail!("there is no target `{name}`, only {}", all.join(", ")),
    };
    let tool = Tool::find(workspace)?;
    execute(&mut tool.cargo_fuzz(workspace, "build"))?;
    println!("{:<22} {:>12} {:>10}", "target", "executions", "a second");
    let mut failed = Vec::new();
    for target in chosen {
        if !tool.fuzz(workspace, &target, seconds)? {
            failed.push(target);
        }
    }
    if !failed.is_empty() {
        let folder = folder(workspace, "artifacts");
        bail!(
            "{} failed; what did it lies in {}",
            failed.join(", "),
            workspace.shown(&folder)
        );
    }
    Ok(())
}

/// Runs every corpus through its target once, without libFuzzer.
pub(crate) fn replay(workspace: &Workspace) -> anyhow::Result<()> {
    execute(
        workspace
            .cargo(&["test", "--quiet", "--no-default-features"])
            .arg("--manifest-path")
            .arg(workspace.root.join("fuzz/Cargo.toml"))
            .arg("--target-dir")
            .arg(&workspace.target),
    )
}

fn targets(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let folder = workspace.root.join("fuzz/fuzz_targets");
    for entry in fs::read_dir(&folder).context("could not list fuzz/fuzz_targets")? {
        let path = entry?.path();
        if let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Where things of fuzzing are that nobody keeps.
fn folder(workspace: &Workspace, name: &str) -> PathBuf {
    workspace.target.join("fuzz").join(name)
}

/// cargo-fuzz, wherever it is.
struct Tool {
    path: OsString,
}

impl Tool {
    /// On the `PATH`, or in the target directory, where it is installed if it is nowhere.
    fn find(workspace: &Workspace) -> anyhow::Result<Self> {
        let tools = folder(workspace, "tools");
        let own = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&own).chain([tools.join("bin")]);
        let path = env::join_paths(folders).context("could not add a folder to `PATH`")?;
        let tool = Self { path };
        let version = |tool: &Self| {
            succeeds(
                workspace
                    .cargo(&["fuzz", "--version"])
                    .env("PATH", &tool.path),
            )
        };
        if !version(&tool) {
            println!("installing cargo-fuzz");
            let install = ["install", "cargo-fuzz", "--locked", "--root"];
            execute(workspace.cargo(&install).arg(&tools))?;
        }
        Ok(tool)
    }

    fn cargo_fuzz(&self, workspace: &Workspace, verb: &str) -> Command {
        let mut command = workspace.cargo(&["fuzz", verb, "--fuzz-dir", "fuzz", "--release"]);
        command.arg("--target-dir").arg(folder(workspace, "build"));
        // The sanitizer is behind an unstable option of the compiler, which the stable one has too.
        command.env("PATH", &self.path).env("RUSTC_BOOTSTRAP", "1");
        command
    }

    /// Runs one target, and says whether it found nothing.
    fn fuzz(&self, workspace: &Workspace, target: &str, seconds: u64) -> anyhow::Result<bool> {
        let found = folder(workspace, "corpus").join(target);
        let artifacts = folder(workspace, "artifacts").join(target);
        let logs = folder(workspace, "logs");
        for folder in [&found, &artifacts, &logs] {
            fs::create_dir_all(folder)
                .with_context(|| format!("could not make {}", folder.display()))?;
        }
        let log = logs.join(format!("{target}.log"));
        let file =
            File::create(&log).with_context(|| format!("could not make {}", log.display()))?;
        let mut command = self.cargo_fuzz(workspace, "run");
        // What is found goes to the first corpus; the second, of the repository, is only read.
        command.arg(target).arg(&found);
        command.arg(workspace.root.join("fuzz/corpus").join(target));
        command.args(["--", "-print_final_stats=1", "-timeout=20", "-max_len=8192"]);
        command.arg(format!("-max_total_time={seconds}"));
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        let status = command
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()
            .context("could not start cargo")?;
        let executions = executions(&log)?;
        let rate = executions / seconds.max(1);
        let end = if status.success() { "" } else { "  FAILED" };
        println!("{target:<22} {executions:>12} {rate:>10}{end}");
        if !status.success() {
            println!("{}", workspace.shown(&log));
        }
        Ok(status.success())
    }
}

/// How many inputs libFuzzer says that it tried.
fn executions(log: &Path) -> anyhow::Result<u64> {
    let bytes = fs::read(log).with_context(|| format!("could not read {}", log.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let number = text
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    Ok(number.map_or(0, |number| number.trim().parse().unwrap_or(0)))
}

const DEFAULT_SECONDS: u64 = 60;
