//! `cargo xtask servers`: the programs that tests talk to, without root.
//!
//! Everything lands in `servers/` of the target directory: a Python environment with gRPC and `cryptography`, Envoy, and
//! programs from Debian packages that are unpacked, not installed. A program on the `PATH` that is new enough is used
//! as it is. `servers/env.json` maps each program's name to its path; tests find that file by the
//! environment variable [`ENVIRONMENT`], or in the target directory.

mod debian;
mod python;

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::servers::debian::Debian;
use crate::step::output;
use crate::workspace::Workspace;

/// The variable that names the manifest of found programs to the tests.
pub(crate) const ENVIRONMENT: &str = "MESH_TEST_SERVERS";

/// Where the manifest is, made or not.
pub(crate) fn manifest(workspace: &Workspace) -> PathBuf {
    workspace.target.join("servers/env.json")
}

/// Fetches what is missing and writes the manifest.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let path = manifest(workspace);
    let plan = plan();
    if is_ready(&path, &plan) {
        println!("    ready: {}", workspace.shown(&path));
        return Ok(());
    }
    let home = workspace.target.join("servers");
    fs::create_dir_all(&home).with_context(|| format!("could not make {}", home.display()))?;
    let mut debian = Debian::new(&home);
    let mut found = Map::new();
    let mut skipped = Map::new();
    let mut note = |name: &str, result: anyhow::Result<PathBuf>| match result {
        Ok(path) => {
            println!("    {name}: {}", path.display());
            found.insert(name.to_owned(), json!(path));
        }
        Err(error) => {
            println!("    SKIPPED {name}: {error:#}");
            skipped.insert(name.to_owned(), json!(format!("{error:#}")));
        }
    };
    note("python", python::PROGRAMS.prepare(&home, &mut debian));
    note("python-spiffe", python::SPIFFE.prepare(&home, &mut debian));
    note("python-xds", python::XDS.prepare(&home, &mut debian));
    note("envoy", envoy(&home, &mut debian));
    for program in &PROGRAMS {
        note(program.name, program.prepare(&home, &mut debian));
    }
    found.insert("skipped".to_owned(), Value::Object(skipped));
    found.insert("plan".to_owned(), json!(plan));
    let text = serde_json::to_string_pretty(&Value::Object(found))?;
    fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))
}

/// A program that tests run.
#[derive(Debug)]
struct Program {
    /// Its name, on the `PATH` and in the manifest.
    name: &'static str,
    /// The oldest version that will do: what Debian 12 has.
    at_least: (u32, u32),
    /// The Debian package that has it.
    package: &'static str,
    /// The release of Debian that still has the package, where this machine's has not.
    suite: Option<&'static str>,
    /// Whether it needs the libraries of other packages.
    needs_libraries: bool,
}

const PROGRAMS: [Program; 8] = [
    Program {
        name: "curl",
        at_least: (7, 88),
        package: "curl",
        suite: None,
        needs_libraries: true,
    },
    Program {
        name: "promtool",
        at_least: (2, 42),
        package: "prometheus",
        suite: None,
        needs_libraries: false,
    },
    Program {
        name: "h2load",
        at_least: (1, 52),
        package: "nghttp2-client",
        suite: None,
        needs_libraries: true,
    },
    Program {
        name: "nghttp",
        at_least: (1, 52),
        package: "nghttp2-client",
        suite: None,
        needs_libraries: true,
    },
    // One static file. Debian dropped it after bullseye, the last release before its licence changed.
    Program {
        name: "consul",
        at_least: (1, 8),
        package: "consul",
        suite: Some("bullseye"),
        needs_libraries: false,
    },
    Program {
        name: "etcd",
        at_least: (3, 4),
        package: "etcd-server",
        suite: None,
        needs_libraries: false,
    },
    Program {
        name: "redis-server",
        at_least: (7, 0),
        package: "redis-server",
        suite: None,
        needs_libraries: true,
    },
    // A name server with real TTLs, which reads its zones anew when told.
    Program {
        name: "knotd",
        at_least: (3, 2),
        package: "knot",
        suite: None,
        needs_libraries: true,
    },
];

impl Program {
    fn prepare(&self, home: &Path, debian: &mut Debian) -> anyhow::Result<PathBuf> {
        if let Some(path) = on_path(self.name).filter(|path| self.is_new_enough(path)) {
            return Ok(path);
        }
        let mut other = self.suite.map(|suite| Debian::of_suite(home, suite));
        let debian = other.as_mut().unwrap_or(debian);
        debian.unpack(self.package, self.needs_libraries)?;
        let path = debian.wrap(self.name, home)?;
        version(&path).with_context(|| format!("{} does not start", path.display()))?;
        Ok(path)
    }

    fn is_new_enough(&self, path: &Path) -> bool {
        is_at_least(path, self.at_least)
    }
}

/// Envoy on the `PATH`, or the one that a Python package brings.
fn envoy(home: &Path, debian: &mut Debian) -> anyhow::Result<PathBuf> {
    match on_path("envoy").filter(|path| is_at_least(path, (1, 30))) {
        Some(path) => Ok(path),
        None => python::envoy(home, debian),
    }
}

fn is_at_least(program: &Path, oldest: (u32, u32)) -> bool {
    version(program).is_ok_and(|text| first_version(&text).is_some_and(|found| found >= oldest))
}

/// True when an earlier run, with the same plan, found all that the manifest names and skipped nothing.
fn is_ready(path: &Path, plan: &str) -> bool {
    let Ok(text) = fs::read_to_string(path) else {
        return false;
    };
    let Ok(Value::Object(found)) = serde_json::from_str(&text) else {
        return false;
    };
    let is_there = |(name, value): (&String, &Value)| match value {
        Value::String(path) => name == "plan" || Path::new(path).exists(),
        Value::Object(skipped) => skipped.is_empty(),
        _ => false,
    };
    found.get("plan").and_then(Value::as_str) == Some(plan) && found.iter().all(is_there)
}

/// What this version of the code would fetch; a change makes the next run fetch again.
fn plan() -> String {
    let environments = [python::PROGRAMS, python::SPIFFE, python::XDS, python::ENVOY];
    format!("{environments:?} {PROGRAMS:?}")
}

fn version(program: &Path) -> anyhow::Result<String> {
    output(Command::new(program).arg("--version"))
}

/// The first `12.34` in a text.
fn first_version(text: &str) -> Option<(u32, u32)> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.')
        .find_map(|word| {
            let mut numbers = word.split('.').map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
}

/// The first program of this name on the `PATH`.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_version_from_what_a_program_says() {
        for (text, expected) in [
            (
                "curl 7.88.1 (x86_64-pc-linux-gnu) libcurl/7.88.1",
                Some((7, 88)),
            ),
            (
                "promtool, version 2.42.0+ds (branch: debian/sid)",
                Some((2, 42)),
            ),
            ("nghttp nghttp2/1.52.0", Some((1, 52))),
            ("Consul v1.8.7", Some((1, 8))),
            ("etcd Version: 3.4.23\nGit SHA: abcdef", Some((3, 4))),
            ("knotd (Knot DNS), version 3.2.6", Some((3, 2))),
            (
                "envoy  version: 4f3a29/1.40.0/Clean/RELEASE/BoringSSL",
                Some((1, 40)),
            ),
            ("Python 3.11.2", Some((3, 11))),
            ("no version", None),
        ] {
            assert_eq!(first_version(text), expected, "{text}");
        }
    }
}
