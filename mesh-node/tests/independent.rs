//! A real node and the second implementation of the session protocol, in Python, as its peer: gRPC over mutual TLS.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::mesh::Mesh;
use support::mesh::cli;
use support::process::Process;
use support::process::is_open;
use support::process::wait_until;
use support::tools::python_with_grpc;

mod support;

/// The protocol's name of the suite with ML-KEM, and of the one without.
const ML_KEM: &str = "0101";
const CLASSIC: &str = "0001";

/// One real node; the other is Python.
struct Neighbours {
    mesh: Mesh,
    python: PathBuf,
    suites: String,
}

impl Neighbours {
    /// `suites` are those that Python speaks.
    fn new(suites: &str) -> Option<Self> {
        let python = python_with_grpc()?;
        let mesh = Mesh::new("hybrid");
        // grpcio looks for a DNS name where a node looks for a SPIFFE id.
        cli(
            mesh.path(),
            "ca issue order-service --out order/certs --lifetime 1h --dns order-service",
        );
        Some(Self {
            mesh,
            python,
            suites: suites.to_owned(),
        })
    }

    fn script(&self, name: &str) -> Command {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mesh-session/tests/python");
        let mut command = Command::new(&self.python);
        command
            .args(["-B", "-u"])
            .arg(folder.join(name))
            .env_clear();
        command
    }

    /// Python in the place of a node: `role` and port, with that node's certificate, a token, and an RSA key of its own.
    fn peer(&self, (role, port): (&str, u16), (own, other): (&str, &str)) -> Command {
        let folder = self.mesh.path().join(own);
        let key = folder.join("python.pem");
        let made = self
            .script("peer.py")
            .args(["key", "2048"])
            .arg(&key)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let id = |name: &str| format!("spiffe://example.org/{name}-service");
        let mut command = self.script("node_peer.py");
        command
            .args([role, &port.to_string()])
            .args(["--name", &id(own), "--peer", &id(other)])
            .arg("--certs")
            .arg(folder.join(format!("certs/{own}-service")))
            .arg("--ca")
            .arg(folder.join("certs/ca.crt"))
            .arg("--rsa")
            .arg(key)
            // The token of a handshake is for the node, that of a call for the service.
            .args(["--token", &self.token(own, &id(other))])
            .args([
                "--call-token",
                &self.token(own, &format!("{other}-service")),
            ])
            .args(["--suites", &self.suites]);
        command
    }

    /// What the node itself would show, from the command line.
    fn token(&self, own: &str, audience: &str) -> String {
        let node = if own == "user" {
            &self.mesh.user
        } else {
            &self.mesh.order
        };
        let subject = format!("{own}-service");
        let args = [
            "token",
            "issue",
            "--subject",
            &subject,
            "--audience",
            audience,
        ];
        let output = node.program(&args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Starts the node of the order service with an application behind it.
    fn start_order(&mut self) -> App {
        let app = App::start(self.mesh.path()).unwrap();
        self.mesh.order.serve(app.port).start();
        app
    }

    /// What Python, in the place of the user service's node, gets for each of these commands.
    fn commands(&self, commands: &[&str]) -> Vec<Value> {
        let target = ("call", self.mesh.order.inbound);
        let mut child = self
            .peer(target, ("user", "order"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        for command in commands {
            writeln!(input, "{command}").unwrap();
        }
        drop(input);
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.mesh.order.log()
        );
        let said = String::from_utf8(output.stdout).unwrap();
        let said: Vec<Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(said.len(), commands.len());
        said
    }
}

#[test]
fn python_calls_an_application_behind_a_node_with_ml_kem() {
    python_calls(ML_KEM);
}

#[test]
fn python_calls_an_application_behind_a_node_with_x25519_alone() {
    python_calls(CLASSIC);
}

fn python_calls(suite: &str) {
    let Some(mut neighbours) = Neighbours::new(suite) else {
        return;
    };
    let app = neighbours.start_order();
    let said = neighbours.commands(&[
        "handshake",
        "get /orders/1",
        "get /orders/2?all=yes",
        "advance",
        "get /orders/3",
        "post /orders 300000",
        "resume",
        "get /orders/4",
        "get /orders/5",
    ]);
    let log = neighbours.mesh.order.log();
    assert_eq!(said[0]["suite"], suite, "{said:#?}\n{log}");
    // The node shows a token of its own, in the box of the reply.
    assert!(said[0]["token"].as_str().unwrap().starts_with("eyJ"));
    for (at, path, epoch) in [
        (1, "/orders/1", 0),
        (2, "/orders/2?all=yes", 0),
        (4, "/orders/3", 1),
        (7, "/orders/4", 0),
        (8, "/orders/5", 0),
    ] {
        let answer = &said[at];
        assert_eq!(answer["status"], 200, "{answer:#}\n{log}");
        // The other side followed.
        assert_eq!(answer["epochs"][0], epoch, "{answer:#}");
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["target"], path);
        assert_eq!(body["headers"]["x-from"], "python");
        // Who calls comes from the certificate.
        let id = "spiffe://example.org/user-service";
        assert_eq!(body["headers"]["x-mesh-peer-id"], id);
    }
    // A body in seven records, and a step to the next epoch in the middle of them.
    let answer = &said[5];
    assert_eq!(answer["status"], 200, "{answer:#}\n{log}");
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&body["bytes"], &body["sha256"]),
        (&json!(300_000), &answer["sent"])
    );
    assert_eq!(said[6]["suite"], suite, "{said:#?}\n{log}");
    assert_ne!(said[6]["id"], said[0]["id"]);
    assert_eq!(app.seen().len(), 6);
}

#[test]
fn a_node_calls_python_with_ml_kem() {
    node_calls(ML_KEM);
}

#[test]
fn a_node_calls_python_with_x25519_alone() {
    node_calls(CLASSIC);
}

fn node_calls(suite: &str) {
    let Some(mut neighbours) = Neighbours::new(suite) else {
        return;
    };
    let port = neighbours.mesh.order.inbound;
    let mut python = neighbours.peer(("serve", port), ("order", "user"));
    let python = Process::start(&mut python, neighbours.mesh.path(), "python");
    wait_until("Python listens", || is_open(port));
    neighbours.mesh.user.start();
    let call = |target: &str, args: &[&str]| {
        let answer = neighbours.mesh.call(target, args);
        let log = neighbours.mesh.user.log();
        assert_eq!(answer.status, 200, "{answer:?}\n{}\n{log}", python.err());
        serde_json::from_str::<Value>(&answer.text()).unwrap()
    };
    let first = call("/orders/1?all=yes", &["-H", "X-From: curl"]);
    assert_eq!(first["method"], "GET");
    assert_eq!(first["path"], "/orders/1?all=yes");
    assert_eq!(first["headers"]["x-from"], "curl");
    assert_eq!(
        (&first["suite"], &first["epoch"]),
        (&json!(suite), &json!(0))
    );
    // Python goes on to the next epoch in the middle of its second answer, and the node follows.
    call("/orders/2", &[]);
    let third = call("/orders/3", &["-X", "DELETE"]);
    assert_eq!(
        (&third["method"], &third["epoch"]),
        (&json!("DELETE"), &json!(1))
    );
    assert_eq!(third["session"], first["session"]);

    let body = neighbours.mesh.path().join("body");
    std::fs::write(&body, "ten bytes\n".repeat(100_000)).unwrap();
    let body = format!("@{}", body.display());
    let posted = call("/orders", &["--data-binary", &body]);
    assert_eq!(posted["bytes"], 1_000_000);
    assert_eq!(posted["session"], first["session"]);
}

#[test]
fn changed_and_repeated_messages_get_one_and_the_same_answer() {
    for suite in [ML_KEM, CLASSIC] {
        let Some(mut neighbours) = Neighbours::new(suite) else {
            return;
        };
        let _app = neighbours.start_order();
        let said = neighbours.commands(&[
            "first",
            "send changed",
            "send first",
            "send first",
            "handshake",
            "resume",
            "send resumption",
            "get /orders/1",
        ]);
        let log = neighbours.mesh.order.log();
        assert_eq!(said[2]["kind"], 2, "{said:#?}\n{log}");
        // The reason is for the log of the node alone. threat 28
        for again in [3, 6] {
            assert!(said[again]["failed"].is_string(), "{said:#?}");
            assert_eq!(said[again], said[1]);
        }
        assert_eq!(said[7]["status"], 200, "{said:#?}\n{log}");
    }
}

#[test]
fn a_session_ends_at_the_node_when_its_peer_says_so() {
    let Some(mut neighbours) = Neighbours::new(ML_KEM) else {
        return;
    };
    let _app = neighbours.start_order();
    let said = neighbours.commands(&[
        "handshake",
        "get /orders/1",
        "close",
        "reopen",
        "get /orders/2",
        "handshake",
        "get /orders/3",
    ]);
    let log = neighbours.mesh.order.log();
    assert_eq!(said[1]["status"], 200, "{said:#?}\n{log}");
    assert_eq!(said[2], json!({}));
    assert!(said[4]["failed"].is_string(), "{said:#?}\n{log}");
    assert_eq!(said[6]["status"], 200, "{said:#?}\n{log}");
}
