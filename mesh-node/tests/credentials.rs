//! Credentials from outside: users behind calls, secrets that are replaced under traffic, and `PyJWT` as the other side.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use support::app::App;
use support::mesh::Mesh;
use support::mesh::Node;
use support::mesh::SECRET;
use support::mesh::cli;
use support::mesh::try_cli;
use support::process::Process;
use support::process::wait_until;
use support::tools::python;
use support::tools::tool;

mod support;

/// What replaces [`SECRET`].
const NEW: &str = "1b8e63f0a97d42c5be047de18c2f93a65c70b4d2e89f1a36";

/// Puts a secret under its name in one step, for its owner alone.
fn put_secret(dir: &Path, name: &str, secret: &str) {
    let new = dir.join(format!("{name}.new"));
    fs::write(&new, format!("{secret}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&new, dir.join(name)).unwrap();
}

#[test]
fn a_user_is_who_the_calls_own_credential_proves() {
    let mut mesh = Mesh::new("mtls");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    let made = cli(mesh.path(), "token api-key --consumer mobile --json");
    let made: Value = serde_json::from_str(&made).unwrap();
    let (api_key, hash) = (
        made["key"].as_str().unwrap(),
        made["hash"].as_str().unwrap(),
    );
    put_secret(mesh.order.dir(), "mobile.secret", NEW);
    mesh.order.configure(json!({
        "auth": {
            "consumers": [ { "name": "mobile", "key": "mobile-key", "secret_file": "mobile.secret", "groups": ["user"] } ],
            "api_keys": [ { "consumer": "mobile", "hash": hash } ],
        },
        "policy": { "rules": [ {
            "name": "app-users", "from": ["user-service"], "users": ["group:user"],
            "to": { "service": "order-service" }, "action": "allow",
        } ] },
    }));
    mesh.start();
    let anonymous = mesh.call("/none", &[]).expect(403);
    assert_eq!(anonymous.error(), Some("denied"));

    let issue =
        "token issue -c mesh.yaml --consumer mobile --subject alice --audience order-service";
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-node"));
    let output = command
        .args(issue.split(' '))
        .current_dir(mesh.order.dir())
        .env_clear()
        .env("JWT_SECRET", SECRET)
        .output()
        .unwrap();
    let token = String::from_utf8(output.stdout).unwrap();
    let bearer = format!("Authorization: Bearer {}", token.trim());
    mesh.call("/token", &["-H", &bearer]).expect(200);
    let key = format!("x-api-key: {api_key}");
    mesh.call("/key", &["-H", &key]).expect(200);
    let log = mesh.order.log();
    assert!(
        !log.contains(api_key) && !log.contains(token.trim()),
        "{log}"
    );
    let of = |target: &str| {
        let seen = app.seen();
        let found = seen.iter().find(|request| request["target"] == target);
        found.unwrap().to_string().to_ascii_lowercase()
    };
    assert!(of("/token").contains("bearer"), "{}", of("/token"));
    assert!(!of("/key").contains("x-api-key"), "{}", of("/key"));

    let forged = format!("{bearer}x");
    let wrong = format!("{}0", key.split_at(key.len() - 1).0);
    for args in [
        &["-H", &forged][..],
        &["-H", &wrong],
        &["-H", "Authorization: Bearer"],
        &["-H", &bearer, "-H", &key],
        &["-H", &key, "-H", &key],
    ] {
        let refused = mesh.call("/wrong", args).expect(401);
        assert_eq!(refused.error(), Some("unauthenticated"), "{args:?}");
        assert!(refused.header("www-authenticate").is_some());
    }
    // Another scheme is no credential of ours, and so none at all.
    mesh.call("/basic", &["-H", "Authorization: Basic YTpi"])
        .expect(403);
    assert_eq!(
        app.count("/wrong") + app.count("/basic") + app.count("/none"),
        0
    );
}

with_both_encryptions!(secrets_are_replaced_under_traffic_without_a_false_refusal);

fn secrets_are_replaced_under_traffic_without_a_false_refusal(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    for node in [&mut mesh.user, &mut mesh.order] {
        let names = ["now", "next", "before"];
        for name in names {
            put_secret(node.dir(), name, SECRET);
        }
        let secrets = names.map(|name| json!({ "secret_file": name }));
        node.config["auth"]["jwt"] = json!({ "secrets": secrets });
        // An empty variable is none.
        node.secret = String::new();
    }
    mesh.start();
    let port = mesh.user.outbound.to_string();
    let mut command = python(&tool("python").unwrap(), "load.py", &[&port, "2", "GET"]);
    let mut load = Process::start(&mut command, mesh.path(), "load");
    let answered = |load: &Process| load.out().matches(" 200 ").count();
    wait_until("requests are answered", || answered(&load) > 20);
    // First all nodes learn the new secret, then they sign with it, then they forget the old one.
    for name in ["next", "now", "before"] {
        for node in [&mesh.order, &mesh.user] {
            let before = reloads(node);
            put_secret(node.dir(), name, NEW);
            wait_until("the secrets are read again", || reloads(node) > before);
            let count = answered(&load);
            wait_until("calls go on", || answered(&load) > count + 20);
        }
    }
    // A secret that is refused changes nothing.
    // threat 54
    put_secret(mesh.order.dir(), "next", "too short");
    let health = || mesh.order.admin("/health").text();
    wait_until("it is said", || {
        health().contains("the last good secrets stay")
    });
    assert_eq!(
        mesh.order.metric("mesh_auth_secret_reload_failures_total"),
        Some(1.0)
    );
    let count = answered(&load);
    wait_until("calls go on", || answered(&load) > count + 20);
    load.terminate();
    load.wait(std::time::Duration::from_secs(40));
    let refused: Vec<_> = load
        .out()
        .lines()
        .filter(|line| !line.contains(" 200 ") && *line != "done")
        .map(str::to_owned)
        .collect();
    assert!(refused.is_empty(), "{refused:?}");

    // The old secret is forgotten, and the new one is really in use.
    let before = reloads(&mesh.user);
    for name in ["now", "next", "before"] {
        put_secret(mesh.user.dir(), name, SECRET);
    }
    wait_until("the secrets are read again", || {
        reloads(&mesh.user) > before
    });
    let refused = mesh.call("/", &[]).expect(401);
    assert_eq!(refused.error(), Some("unauthenticated"));
}

fn reloads(node: &Node) -> u64 {
    let count = node.metric("mesh_auth_secret_reloads_total").unwrap();
    count.to_string().parse().unwrap()
}

/// A folder with a configuration that trusts what `PyJWT` made.
struct Cross {
    dir: TempDir,
    python: PathBuf,
    made: Value,
}

impl Cross {
    /// Says loudly when there is no `PyJWT`.
    fn new() -> Option<Self> {
        let python = tool("python")?;
        let dir = TempDir::new().unwrap();
        let output = Command::new(&python).args(["-c", "import jwt"]).output();
        if !output.is_ok_and(|output| output.status.success()) {
            support::tools::say_skipped("python with PyJWT");
            return None;
        }
        let now = Command::new("date").arg("+%s").output().unwrap();
        let now = String::from_utf8(now.stdout).unwrap();
        let made = run(support::tools::python(
            &python,
            "tokens.py",
            &["make", now.trim(), NEW],
        ));
        cli(dir.path(), "init --force");
        fs::write(dir.path().join("keys.json"), made["jwks"].to_string()).unwrap();
        put_secret(dir.path(), "app.secret", NEW);
        let config = fs::read_to_string(dir.path().join("mesh.yaml")).unwrap();
        let auth = json!({
            "issuers": [ { "issuer": "https://login.example.org/", "jwks_file": "keys.json" } ],
            "consumers": [ { "name": "app", "key": "app-key", "secret_file": "app.secret", "groups": ["user"] } ],
        });
        let (head, tail) = config.split_at(config.find("\nauth:\n").unwrap() + "\nauth:\n".len());
        let lines = auth
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| format!("  {name}: {value}\n"));
        fs::write(
            dir.path().join("mesh.yaml"),
            format!("{head}{}{tail}", lines.collect::<String>()),
        )
        .unwrap();
        Some(Self { dir, python, made })
    }

    fn verify(&self, token: &Value) -> std::process::Output {
        let line = format!(
            "token verify {} -c mesh.yaml --audience orders --json",
            token.as_str().unwrap()
        );
        try_cli(self.dir.path(), &line)
    }
}

fn run(mut command: Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

// threat 16
#[test]
fn tokens_of_pyjwt_are_accepted_and_its_attacks_refused() {
    let Some(cross) = Cross::new() else {
        return;
    };
    let good = cross.made["good"].as_object().unwrap();
    assert_eq!(good.len(), 5);
    for (name, token) in good {
        let output = cross.verify(token);
        assert!(output.status.success(), "{name}: {output:?}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (subject, groups) = if name == "HS256" {
            ("app", ["user"])
        } else {
            ("alice", ["teller"])
        };
        assert_eq!(
            (&said["subject"], &said["groups"]),
            (&json!(subject), &json!(groups)),
            "{name}"
        );
    }
    let bad = cross.made["bad"].as_object().unwrap();
    assert_eq!(bad.len(), 20);
    for (name, token) in bad {
        let output = cross.verify(token);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && said.contains("the token is not valid"),
            "{name}: {output:?}"
        );
        // Whatever it is, people may look at it, and see no signature.
        let shown = cli(
            cross.dir.path(),
            &format!("token inspect {}", token.as_str().unwrap()),
        );
        let signature = token.as_str().unwrap().rsplit('.').next().unwrap();
        assert!(
            shown.starts_with("not verified")
                && (signature.is_empty() || !shown.contains(signature)),
            "{shown}"
        );
    }
}

#[test]
fn pyjwt_accepts_the_tokens_that_we_issue() {
    let Some(cross) = Cross::new() else {
        return;
    };
    let dir = cross.dir.path();
    let check = |line: &str, secret: &str, issuer: &str| {
        let token = cli(dir, line);
        let args = ["verify", token.trim(), secret, "orders", issuer];
        run(python(&cross.python, "tokens.py", &args))
    };
    let of_app = check(
        "token issue -c mesh.yaml --consumer app --subject bob --audience orders --expiry 5m",
        NEW,
        "app-key",
    );
    assert_eq!(of_app["sub"], "bob");
    let secret = fs::read_to_string(dir.join("jwt.secret")).unwrap();
    let of_service = check(
        "token issue -c mesh.yaml --subject users --audience orders",
        secret.trim(),
        "example.org",
    );
    assert_eq!(of_service["sub"], "spiffe://example.org/users");
}
