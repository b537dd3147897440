//! A process that is killed while it appends loses no record that it was answered, and repeats none.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mesh_audit::{Config, OsFileSystem, VerifyOptions, verify};

/// The example program, which `cargo test` builds; `cargo test --test kill` alone does not.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/append");
    if !program.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--package",
                "mesh-audit",
                "--example",
                "append",
            ])
            .status();
        assert!(built.unwrap().success());
    }
    program
}

/// Appends from `first_id` until `answers` were seen, kills, and gives every answer: id and sequence number.
fn append_and_kill(path: &Path, first_id: u64, answers: usize) -> Vec<(u64, u64)> {
    let mut child = Command::new(program())
        .arg(path)
        .arg(first_id.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answered: Vec<String> = lines.by_ref().take(answers).map(Result::unwrap).collect();
    // SIGKILL to this process only.
    child.kill().unwrap();
    // What it printed before it died counts too.
    answered.extend(lines.map_while(Result::ok));
    child.wait().unwrap();
    let parse = |line: &String| {
        line.split_once(' ')
            .map(|(id, seq)| (id.parse().unwrap(), seq.parse().unwrap()))
    };
    answered.iter().filter_map(parse).collect()
}

// threat 58
#[test]
fn a_killed_writer_loses_and_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let mut answered = HashMap::new();
    let mut next_id = 0;
    for round in 0..12_usize {
        let answers = append_and_kill(&path, next_id, 1 + round * 37 % 200);
        assert!(!answers.is_empty());
        // Ids that were taken and not answered are not taken again.
        next_id = answers.iter().map(|(id, _)| id + 1000).max().unwrap();
        answered.extend(answers);
    }
    // Repairs what the last kill tore.
    drop(mesh_audit::open(Config::new(&path), OsFileSystem, || std::time::UNIX_EPOCH).unwrap());
    let content = std::fs::read(&path).unwrap();
    verify(&*content, &VerifyOptions::default()).unwrap();

    let mut found = HashMap::new();
    for line in content
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let record: serde_json::Value = serde_json::from_slice(line).unwrap();
        if let Some(id) = record["id"].as_u64() {
            assert_eq!(
                found.insert(id, record["seq"].as_u64().unwrap()),
                None,
                "record {id} is there twice"
            );
        }
    }
    for (id, seq) in &answered {
        assert_eq!(found.get(id), Some(seq), "record {id} was answered");
    }
}
