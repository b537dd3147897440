//! `mesh-node prove` against real nodes: one that does what its file says, and one that does not.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::process::Command;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::mesh::Mesh;
use support::mesh::SECRET;
use support::mesh::try_cli;

mod support;

with_both_encryptions!(
    a_node_that_keeps_to_its_policy_is_proven_and_the_report_says_by_whom,
    a_node_that_runs_another_policy_is_found_out,
    a_prober_reaches_no_application_and_nobody_else_can_probe,
);

/// Two rules that allow, one that refuses, one about another service.
fn rules() -> Value {
    json!([
        { "name": "read", "from": ["user-service", "spiffe://example.org/team/*"],
          "to": { "service": "order-service", "methods": ["GET", "HEAD"], "paths": ["/api/*", "/users/{id}"] }, "action": "allow" },
        { "name": "all", "from": ["*"], "to": { "service": "order-service", "paths": ["/public"] }, "action": "allow" },
        { "name": "no-export", "from": ["*"], "to": { "service": "order-service", "paths": ["*/export"] }, "action": "deny" },
        { "name": "elsewhere", "from": ["*"], "to": { "service": "stock" }, "action": "deny" },
    ])
}

fn mesh(encryption: &str) -> Option<(Mesh, App)> {
    let mut mesh = Mesh::new(encryption);
    let app = App::start(mesh.path())?;
    mesh.order.serve(app.port).configure(json!({
        "security": { "probe": "mesh-probe" },
        "policy": { "rules": rules() },
        "resilience": { "rate_limit": { "max_requests": 1000, "window": "1s" } },
    }));
    mesh.start();
    Some((mesh, app))
}

/// Runs `prove` with the file of the order service; gives the exit code and what it says.
fn prove(mesh: &Mesh, args: &[&str]) -> (i32, Value) {
    let output = mesh
        .order
        .program(&["--json", "prove"])
        .args(["--ca-dir", "../ca"])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said = serde_json::from_str(&text).unwrap_or(Value::String(format!("{output:?}")));
    (output.status.code().unwrap(), said)
}

fn a_node_that_keeps_to_its_policy_is_proven_and_the_report_says_by_whom(encryption: &str) {
    let Some((mesh, app)) = mesh(encryption) else {
        return;
    };
    let (code, said) = prove(&mesh, &["--out", "report.json"]);
    let proof = &said["proof"];
    assert_eq!(code, 0, "{said:#}");
    // read: 1 + 1 caller + 1 method + 1 path + 3 near misses; all and no-export: 1 + 3 near misses each, less what repeats.
    let probes = proof["probes"].as_array().unwrap();
    assert!(probes.len() >= 13, "{said:#}");
    assert!(probes.iter().all(|probe| probe["ok"] == true), "{said:#}");
    for rule in ["read", "all", "no-export"] {
        let decided = |probe: &&Value| probe["found"]["rule"] == rule;
        assert!(
            probes.iter().any(|probe| decided(&probe)),
            "{rule}: {said:#}"
        );
    }
    let unproven = proof["unproven"].as_array().unwrap();
    assert_eq!(unproven.len(), 1, "{said:#}");
    assert_eq!(unproven[0]["rule"], "elsewhere");

    let attacks = proof["attacks"].as_array().unwrap();
    let skipped = |attack: &&Value| attack["outcome"] != "refused";
    let left: Vec<_> = attacks.iter().filter(skipped).collect();
    // The rule `all` has a path of its own, so strangers are tried too; without sessions there is nothing to replay.
    assert_eq!(left.len(), usize::from(encryption == "mtls"), "{left:#?}");
    assert!(attacks.len() >= 19, "{said:#}");
    assert_eq!(app.seen(), Vec::<Value>::new());

    let report = mesh.order.dir().join("report.json");
    let verify = "prove verify order/report.json --ca-file ca/ca.crt --signer spiffe://example.org/mesh-probe";
    let verified = try_cli(mesh.path(), verify);
    let text = String::from_utf8(verified.stdout).unwrap();
    assert!(
        verified.status.success() && text.contains("spiffe://example.org/mesh-probe"),
        "{text}"
    );
    // The node that is proven, and everybody else, can't sign for the prober; and a proof does not count for ever.
    let other = verify.replace("mesh-probe", "order-service");
    let refused = try_cli(mesh.path(), &other);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("mesh-probe signed it, not"));
    let old = try_cli(mesh.path(), &format!("{verify} --max-age 0s"));
    assert!(String::from_utf8_lossy(&old.stderr).contains("older than --max-age"));
    // One byte of it changed, and it is nobody's report any more.
    let whole = fs::read_to_string(&report).unwrap();
    fs::write(&report, whole.replacen("no-export", "no-expert", 1)).unwrap();
    let edited = try_cli(mesh.path(), verify);
    assert_eq!(edited.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&edited.stderr).contains("signature is not valid"));
}

fn a_node_that_runs_another_policy_is_found_out(encryption: &str) {
    let Some((mesh, app)) = mesh(encryption) else {
        return;
    };
    // The node goes on with what it was started with: it lets through what this file refuses.
    let mut paper = mesh.order.config.clone();
    paper["policy"]["rules"] = json!([
        { "name": "nobody", "from": ["*"], "to": { "service": "order-service", "paths": ["/public"] }, "action": "deny" },
    ]);
    fs::write(mesh.order.dir().join("paper.yaml"), paper.to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-node"))
        .args(["--json", "prove", "--ca-dir", "../ca", "-c", "paper.yaml"])
        .current_dir(mesh.order.dir())
        .env("JWT_SECRET", SECRET)
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said:#}");
    let probes = said["proof"]["probes"].as_array().unwrap();
    let wrong = probes.iter().find(|probe| probe["ok"] == false).unwrap();
    assert_eq!(wrong["expected"]["rule"], "nobody");
    assert_eq!(
        (&wrong["found"]["verdict"], &wrong["found"]["rule"]),
        (&json!("allow"), &json!("all"))
    );
    assert_eq!(app.seen(), Vec::<Value>::new());
}

fn a_prober_reaches_no_application_and_nobody_else_can_probe(encryption: &str) {
    let Some((mesh, app)) = mesh(encryption) else {
        return;
    };
    // From everybody else the header is dropped, and the call is an ordinary one.
    let admin = r#"x-mesh-probe: {"spiffe_id":"spiffe://example.org/admin"}"#;
    mesh.call("/api/orders", &["-H", admin]).expect(200);
    let seen = app.seen();
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].to_string().contains("mesh-probe"), "{seen:?}");
    mesh.call("/api/orders", &["-X", "DELETE", "-H", admin])
        .expect(403);

    // A rule may say what it likes of the prober: nothing of it is passed on.
    let (code, _) = prove(&mesh, &[]);
    assert_eq!(code, 0);
    assert_eq!(app.seen().len(), 1);
    let log = fs::read_to_string(mesh.order.dir().join("logs/mesh-audit.log")).unwrap();
    let probes: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(r#""direction":"probe""#))
        .collect();
    assert!(probes.len() >= 13);
    // Whoever they stand for, the record says who sent them; of a call, its peer says so already.
    let certificate = r#""certificate":"spiffe://example.org/mesh-probe""#;
    let decided: Vec<_> = probes
        .iter()
        .filter(|line| line.contains(r#""decision":"#))
        .collect();
    assert!(!decided.is_empty());
    assert!(
        decided.iter().all(|line| line.contains(certificate)),
        "{decided:?}"
    );
    assert_eq!(
        log.matches(r#""certificate":"#).count(),
        decided.len(),
        "{log}"
    );

    // Without security.probe there is no prober at all.
    let refused = mesh
        .user
        .program(&["prove", "--ca-dir", "../ca"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("security.probe"));
}
