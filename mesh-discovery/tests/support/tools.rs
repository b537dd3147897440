//! Programs that nobody here wrote.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// The path of a program that `cargo xtask servers` fetched, or of the one on the `PATH`. Says loudly when there is none.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let found = manifest().and_then(|manifest| Some(PathBuf::from(manifest.get(name)?.as_str()?)));
    let found = found.or_else(|| on_path(if name == "python" { "python3" } else { name }));
    if found.is_none() {
        say_skipped(name);
    }
    found
}

/// A Python that has gRPC.
pub(crate) fn python_with_grpc() -> Option<PathBuf> {
    let python = tool("python")?;
    let works = Command::new(&python).args(["-c", "import grpc"]).output();
    if works.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    say_skipped("python with grpcio");
    None
}

#[expect(
    clippy::print_stderr,
    reason = "a test that is skipped must not look like one that passed"
)]
pub(crate) fn say_skipped(name: &str) {
    eprintln!("SKIPPED: {name} is not here; run `cargo xtask servers`");
}

fn manifest() -> Option<Value> {
    let named = std::env::var_os("MESH_TEST_SERVERS").map(PathBuf::from);
    // Tests lie in TARGET/PROFILE/deps; what cargo gives them as a place for files is TARGET/tmp.
    let path = named.or_else(|| {
        Some(
            Path::new(env!("CARGO_TARGET_TMPDIR"))
                .parent()?
                .join("servers/env.json"),
        )
    })?;
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The folder of the Python programs.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python")
}

/// A Python program of the tests, not yet started.
pub(crate) fn python(python: &Path, script: &str, args: &[&str]) -> Command {
    let mut command = Command::new(python);
    command
        .arg("-u")
        .arg(scripts().join(script))
        .args(args)
        .env_clear()
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
