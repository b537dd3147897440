//! The second implementation by itself: its own tests, and the vectors.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::support::python;
use crate::support::script;
use crate::support::scripts;

#[test]
fn the_second_implementation_passes_its_own_tests() {
    let Some(python) = python() else {
        return;
    };
    let mut command = std::process::Command::new(python);
    command
        .args(["-B", "-m", "unittest", "discover"])
        .current_dir(scripts())
        .env_clear();
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.ends_with("OK\n"), "{said}");
}

#[test]
fn the_vectors_hold_in_the_second_implementation() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let entries = fs::read_dir(folder).unwrap();
    let files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    assert!(!files.is_empty(), "no vectors");
    let Some(python) = python() else {
        return;
    };
    let output = script(&python, "check_vectors.py")
        .args(&files)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), files.len(), "{lines}");
}
