//! gRPC between a client and a server on grpcio, through two nodes.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use support::mesh::Mesh;
use support::process::Process;
use support::process::free_port;
use support::process::is_open;
use support::process::wait_until;
use support::tools::python;
use support::tools::python_with_grpc;

mod support;

with_both_encryptions!(
    carries_all_four_kinds_of_calls,
    carries_metadata_both_ways,
    carries_every_status_with_its_details_and_trailers,
    a_deadline_ends_the_call_on_both_sides,
    a_cancelled_call_is_cancelled_at_the_server,
    carries_messages_of_four_mebibytes,
    carries_a_hundred_calls_at_once,
    answers_of_the_mesh_are_grpc_statuses,
);

/// Two nodes with a gRPC server behind one of them.
struct Shop {
    mesh: Mesh,
    app: Process,
    python: PathBuf,
}

impl Shop {
    fn open(encryption: &str) -> Option<Self> {
        let found = python_with_grpc()?;
        let mut mesh = Mesh::new(encryption);
        let port = free_port();
        let mut app = python(&found, "grpc_app.py", &[&port.to_string()]);
        let app = Process::start(&mut app, mesh.path(), "grpc");
        mesh.order.serve(port).configure(json!({
            "policy": { "rules": [
                { "name": "users", "from": ["user-service"], "to": { "service": "order-service" }, "action": "allow" },
                {
                    "name": "secret", "from": ["user-service"],
                    "to": { "service": "order-service", "paths": ["/shop.Orders/Secret"] }, "action": "deny",
                },
            ] },
        }));
        mesh.start();
        wait_until("the server listens", || is_open(port));
        Some(Self {
            mesh,
            app,
            python: found,
        })
    }

    /// What the client prints for a case.
    #[track_caller]
    fn client(&self, case: &str) -> Value {
        let port = self.mesh.user.outbound.to_string();
        let mut command = python(&self.python, "grpc_client.py", &[&port, case]);
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.app.err()
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Whether the server has said this.
    fn has_said(&self, text: &str) -> bool {
        self.app.out().contains(text)
    }
}

fn carries_all_four_kinds_of_calls(encryption: &str) {
    let Some(shop) = Shop::open(encryption) else {
        return;
    };
    let expected = json!({
        "unary": "hello", "empty": 0, "sum": "499500", "count": true, "chat": 200, "rest": 0, "chatCode": "OK",
    });
    assert_eq!(shop.client("streams"), expected);
}

fn carries_metadata_both_ways(encryption: &str) {
    let Some(shop) = Shop::open(encryption) else {
        return;
    };
    let got = shop.client("metadata");
    let every_byte = (0..=255).fold(String::new(), |text, byte: u8| format!("{text}{byte:02x}"));
    assert_eq!(got["seen"]["x-plain"], "value");
    assert_eq!(got["seen"]["x-bytes-bin"], *every_byte);
    // The server shows the last of several.
    assert_eq!(got["seen"]["x-twice"], "2");
    assert_eq!(
        got["seen"]["x-mesh-peer-id"],
        "spiffe://example.org/user-service"
    );
    assert_eq!(got["seen"]["x-mesh-token"], Value::Null);
    assert_eq!(got["initial"]["x-initial"], "first");
    assert_eq!(got["initial"]["x-initial-bin"], *every_byte);
    assert_eq!(got["initial"]["x-circuit-breaker-state"], "CLOSED");
    assert_eq!(got["trailing"]["x-trailing"], "last");
    assert_eq!(got["trailing"]["x-trailing-bin"], "00ff10");
}

fn carries_every_status_with_its_details_and_trailers(encryption: &str) {
    let Some(shop) = Shop::open(encryption) else {
        return;
    };
    let got = shop.client("codes");
    let codes = got.as_object().unwrap();
    assert_eq!(codes.len(), 16);
    for (code, failed) in codes {
        assert_eq!(failed["code"], *code);
        assert_eq!(failed["details"], format!("why: größer 100 %\n{code}"));
        assert_eq!(failed["trailers"]["x-detail-bin"], "0102", "{code}");
    }
    // An application that says that it failed has acted: nothing is repeated. threat 43
    assert_eq!(shop.app.out().matches(r#""method": "Fail""#).count(), 16);
    let half = shop.client("half");
    assert_eq!(
        (&half["got"], &half["code"]),
        (&json!(1), &json!("DATA_LOSS"))
    );
    assert_eq!(half["details"], "half is gone");
    assert_eq!(shop.client("unknown")["code"], "UNIMPLEMENTED");
}

fn a_deadline_ends_the_call_on_both_sides(encryption: &str) {
    let Some(shop) = Shop::open(encryption) else {
        return;
    };
    let failed = shop.client("deadline");
    assert_eq!(failed["code"], "DEADLINE_EXCEEDED");
    let seconds = failed["seconds"].as_f64().unwrap();
    assert!((0.9..3.0).contains(&seconds), "{seconds}");
    wait_until("the server sees that nobody waits", || {
        shop.has_said(r#""cancelled": true"#)
    });
    // The server was told of the deadline too: it would have given up by itself.
    let out = shop.app.out();
    let told = out.lines().find(|line| line.contains("remaining")).unwrap();
    let told: Value = serde_json::from_str(told).unwrap();
    assert!(
        told["remaining"].as_f64().is_some_and(|left| left < 1.5),
        "{told}"
    );
}

fn a_cancelled_call_is_cancelled_at_the_server(encryption: &str) {
    let Some(shop) = Shop::open(encryption) else {
        return;
    };
    let port = shop.mesh.user.outbound.to_string();
    let mut client = python(&shop.python, "grpc_client.py", &[&port, "cancel"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the server has the call", || shop.has_said("remaining"));
    assert!(!shop.has_said(r#""cancelled""#));
    client.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = client.wait_with_output().unwrap();
    let got: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(got, json!({ "cancelled": true, "code": "CANCELLED" }));
    wait_until("the server sees that nobody waits", || {
        shop.has_said(r#""cancelled": true"#)
    });
}

fn carries_messages_of_four_mebibytes(encryption: &str) {
    let Some(shop) = Shop::open(encryption) else {
        return;
    };
    assert_eq!(
        shop.client("large"),
        json!({ "same": true, "down": 4 << 20 })
    );
}

fn carries_a_hundred_calls_at_once(encryption: &str) {
    let Some(shop) = Shop::open(encryption) else {
        return;
    };
    assert_eq!(shop.client("many"), json!({ "same": 100, "chats": 50 }));
}

fn answers_of_the_mesh_are_grpc_statuses(encryption: &str) {
    let Some(mut shop) = Shop::open(encryption) else {
        return;
    };
    let denied = shop.client("denied");
    assert_eq!(denied["code"], "PERMISSION_DENIED");
    let details = denied["details"].as_str().unwrap();
    assert!(details.starts_with("not allowed; decision "), "{details}");
    assert!(!shop.has_said("Secret"));

    let lost = shop.client("no_route");
    assert_eq!(lost["code"], "UNIMPLEMENTED");
    assert_eq!(
        lost["details"],
        r#"no service is named "nobody"; known here: order-service"#
    );

    shop.app.kill();
    let dead = shop.client("echo");
    assert_eq!(dead["code"], "UNAVAILABLE", "{dead}");
    assert!(
        dead["details"].as_str().unwrap().contains("order-service"),
        "{dead}"
    );
    shop.mesh.order.process().kill();
    let dead = shop.client("echo");
    assert_eq!(dead["code"], "UNAVAILABLE", "{dead}");
    assert!(
        dead["details"].as_str().unwrap().contains("order-service"),
        "{dead}"
    );
}
