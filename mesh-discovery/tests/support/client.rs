//! Clients: curl, and bytes on a raw connection.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::tools::tool;

/// What curl got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The last answer's header block, trailers behind it.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// What curl measured: its `%{json}`.
    pub(crate) measured: Value,
    pub(crate) exit: i32,
    pub(crate) err: String,
}

impl Answer {
    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The stable code of an answer that the mesh made.
    pub(crate) fn error(&self) -> Option<&str> {
        self.header("x-mesh-error")
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {self:?}", self.text());
        self
    }
}

/// Runs curl; its arguments are the caller's, what it reports ours.
#[track_caller]
pub(crate) fn curl(args: &[&str]) -> Answer {
    let place = TempDir::new().unwrap();
    let (head, body) = (place.path().join("head"), place.path().join("body"));
    let output = Command::new(tool("curl").unwrap())
        .args(["-q", "-sS", "--max-time", "60", "-w", "%{json}", "-D"])
        .arg(&head)
        .arg("-o")
        .arg(&body)
        .args(args)
        .env_clear()
        .output()
        .unwrap();
    let measured: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let heads = fs::read_to_string(&head).unwrap_or_default();
    let last = heads.rfind("HTTP/").unwrap_or_default();
    Answer {
        status: measured["http_code"]
            .as_u64()
            .and_then(|code| u16::try_from(code).ok())
            .unwrap_or_default(),
        head: heads.split_at(last).1.to_owned(),
        body: fs::read(&body).unwrap_or_default(),
        measured,
        exit: output.status.code().unwrap_or(-1),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs curl and gives what it wrote to standard output, for the uses of curl that [`curl`] has no place for.
#[track_caller]
pub(crate) fn curl_raw(args: &[&str]) -> String {
    let output = Command::new(tool("curl").unwrap())
        .args(["-q", "-sS", "--max-time", "60"])
        .args(args)
        .env_clear()
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One request without a program of its own, for those that are many: HTTP/1.0 in plaintext. The status and the body, or
/// nothing where no whole answer comes within two seconds.
pub(crate) fn quick(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let limit = Some(Duration::from_secs(2));
    stream.set_read_timeout(limit).ok()?;
    let len = body.len();
    let request = format!("{method} {path} HTTP/1.0\r\ncontent-length: {len}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Sends bytes as they are and reads until the other side closes or falls silent.
pub(crate) fn raw(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(400)))
        .unwrap();
    // Who refuses may do so before all is sent.
    drop(stream.write_all(bytes));
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        got.extend(buffer.iter().take(len));
    }
    String::from_utf8_lossy(&got).into_owned()
}
