//! The demonstration, run as a stranger would: every step holds, and nothing stays behind.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;

/// One at a time: each makes three RSA-4096 keys.
fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn demo(dir: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_mesh-node"))
        .arg("demo")
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .env_clear()
        // None of this may reach the nodes.
        .env("MESH_SERVICE_ID", "somebody-else")
        .env("JWT_SECRET", "0123456789abcdef0123456789ABCDEF-another")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The processes that run with `dir` or the demonstration `parent` in their command line.
fn left_over(parent: u32, dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let parent = format!("--parent {parent} ");
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<u32>().is_ok()
            && (command.contains(&*dir.to_string_lossy()) || command.contains(&parent))
        {
            found.push(format!("{name} {command}"));
        }
    }
    found
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Reads lines until one contains `text`; gives all of them.
fn read_until(lines: &mut impl BufRead, text: &str) -> String {
    let mut all = String::new();
    loop {
        let start = all.len();
        assert_ne!(
            lines.read_line(&mut all).unwrap(),
            0,
            "no {text:?} in:\n{all}"
        );
        if all.split_at(start).1.contains(text) {
            return all;
        }
    }
}

#[test]
fn every_step_holds_and_no_process_is_left() {
    let _alone = alone();
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("demo");
    let child = demo(&dir, &["--once"]);
    let pid = child.id();
    let ran = child.wait_with_output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert_eq!(ran.status.code(), Some(0), "{out}{err}");
    assert_eq!(
        out.lines().last(),
        Some("demo: 9 of 9 steps held"),
        "{out}{err}"
    );
    assert!(!out.contains('\u{1b}'), "colour without a terminal");
    assert_eq!(left_over(pid, &dir), Vec::<String>::new());
    for file in [
        "ca/ca.crt",
        "orders/mesh.yaml",
        "web/logs/node.log",
        "payments/logs/mesh-audit.log",
    ] {
        assert!(dir.join(file).exists(), "{file} does not stay");
    }
}

#[test]
fn it_stays_up_until_it_is_asked_to_stop() {
    let _alone = alone();
    let place = tempfile::tempdir().unwrap();
    let mut child = demo(place.path(), &[]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let story = read_until(&mut out, "Ctrl-C stops");
    assert!(
        story.contains("9. ") && story.contains("/metrics"),
        "{story}"
    );
    assert!(left_over(child.id(), place.path()).len() >= 6);
    signal(&child, Signal::TERM);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{story}{rest}");
    assert_eq!(
        rest.lines().last(),
        Some("demo: 9 of 9 steps held"),
        "{rest}"
    );
    assert_eq!(left_over(child.id(), place.path()), Vec::<String>::new());
}

#[test]
#[cfg(target_os = "linux")]
fn its_processes_end_with_it_even_when_it_is_killed() {
    let _alone = alone();
    let place = tempfile::tempdir().unwrap();
    let mut child = demo(place.path(), &[]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    read_until(&mut out, "Six processes");
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    // They drain first; a process that hangs on would be cut off after two seconds.
    let pid = child.id();
    #[expect(
        clippy::disallowed_methods,
        reason = "no event tells that another process's children are gone"
    )]
    let ended = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        left_over(pid, place.path()).is_empty()
    });
    assert!(ended, "{:?}", left_over(pid, place.path()));
}

#[test]
fn a_folder_of_something_else_is_not_touched() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("thesis.txt"), "years of work").unwrap();
    let ran = demo(place.path(), &["--once"]).wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&ran.stdout);
    assert_eq!(ran.status.code(), Some(1), "{out}");
    assert!(out.contains("is not the folder of a demo"), "{out}");
    assert_eq!(out.lines().last(), Some("demo: 0 of 9 steps held"));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}
