//! The format is what its description says: a script that knows only the description agrees.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]
#![expect(clippy::print_stderr, reason = "says that the test did nothing")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use mesh_audit::{ChainKey, Event, EventKind};
use support::{MemFs, Running, block_on, config};

/// `None` where there is no Python.
fn run_script(log: &Path, key: Option<&str>) -> Option<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify.py");
    let output = Command::new("python3")
        .arg(script)
        .arg(log)
        .args(key)
        .output();
    if output.is_err() {
        eprintln!("skipped: python3 is not here");
    }
    output.ok()
}

fn check(key: Option<[u8; 32]>) {
    let hex = key.map(|bytes| mesh_audit::RecordHash::from_bytes(bytes).to_string());
    let mut config = config();
    config.key = key.map(|bytes| ChainKey::from_bytes(&bytes).unwrap());
    let fs = MemFs::default();
    fs.with(|disk| disk.content.extend_from_slice(b"torn"));
    let running = Running::start(config, &fs);
    for kind in EventKind::ALL {
        let event = Event::new(kind)
            .with("text", "\r\n\u{1b}[0m é\u{202e}\"\\")
            .with("number", 1.25)
            .with("none", None::<u32>);
        block_on(running.log.append(event)).unwrap();
    }
    let head = running.log.head();
    running.stop();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let mut content = fs.content();
    std::fs::write(&path, &content).unwrap();
    let Some(output) = run_script(&path, hex.as_deref()) else {
        return;
    };
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        head.to_string()
    );

    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&path, &content).unwrap();
    assert!(!run_script(&path, hex.as_deref()).unwrap().status.success());
}

#[test]
fn a_python_script_verifies_a_plain_log() {
    check(None);
}

#[test]
fn a_python_script_verifies_a_keyed_log() {
    check(Some([0x5a; 32]));
}
