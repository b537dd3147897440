//! The SPIFFE Workload API from both sides: an agent that others wrote gives a node its identity, and a node gives its
//! own to programs that others wrote.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::client::curl_raw;
use support::mesh::Mesh;
use support::mesh::cli;
use support::process::Process;
use support::process::wait_until;
use support::tools::python;
use support::tools::tool;

mod support;

/// An agent that gives what is in its folder.
struct Agent {
    process: Process,
    dir: PathBuf,
}

impl Agent {
    /// Starts it in `dir`, which has certificates for `order-service`.
    fn start(dir: &Path) -> Option<Self> {
        let interpreter = tool("python-spiffe")?;
        let (socket, file) = (dir.join("agent.sock"), dir.join("agent.json"));
        if !file.exists() {
            fs::write(&file, giving(&json!([ours("order-service")]), &json!({}))).unwrap();
        }
        let args = [socket.to_str().unwrap(), file.to_str().unwrap()];
        let mut command = python(&interpreter, "workload_agent.py", &args);
        drop(fs::remove_file(dir.join("agent.out")));
        let process = Process::start(&mut command, dir, "agent");
        wait_until("the agent listens", || process.out().contains("ready"));
        Some(Self {
            process,
            dir: dir.to_owned(),
        })
    }

    /// Gives something else from now on.
    fn give(&self, svids: &Value, federated: &Value) {
        let next = self.dir.join("agent.json.new");
        fs::write(&next, giving(svids, federated)).unwrap();
        fs::rename(next, self.dir.join("agent.json")).unwrap();
    }
}

fn giving(svids: &Value, federated: &Value) -> String {
    json!({ "svids": svids, "federated": federated }).to_string()
}

/// The entry of a service whose certificate lies in the agent's folder.
fn ours(service: &str) -> Value {
    json!({
        "id": format!("spiffe://example.org/{service}"), "chain": format!("{service}.crt"),
        "key": format!("{service}.key"), "bundle": "ca.crt", "hint": service,
    })
}

/// `order-service` with an application, its identity from an agent's socket; nothing runs yet.
fn mesh(encryption: &str) -> Option<(Mesh, App, PathBuf)> {
    let mut mesh = Mesh::new(encryption);
    let app = App::start(mesh.path())?;
    mesh.order.serve(app.port);
    let dir = mesh.path().join("agent");
    cli(
        mesh.path(),
        "ca issue order-service --out agent --lifetime 1h",
    );
    mesh.order.config["identity"] = json!({
        "trust_domain": "example.org", "source": "workload_api", "startup_timeout": "20s",
        "workload_api_socket": format!("unix://{}/agent.sock", dir.display()),
    });
    Some((mesh, app, dir))
}

#[test]
fn a_node_takes_its_identity_from_an_agent_and_follows_it() {
    // threat 63
    let Some((mut mesh, _app, dir)) = mesh("hybrid") else {
        return;
    };
    // The node is there first, and waits.
    mesh.order.spawn();
    wait_until("the node asks", || {
        mesh.order.log().contains("no identity yet")
    });
    let Some(agent) = Agent::start(&dir) else {
        return;
    };
    mesh.start_rest();
    mesh.call("/api/first", &[]).expect(200);
    let replaced = |mesh: &Mesh| mesh.order.log().matches("identity replaced").count();
    let refused = |mesh: &Mesh| {
        mesh.order
            .metric("mesh_identity_refused_total")
            .unwrap_or(0.0)
    };

    // Another certificate; it is one of several that the agent gives.
    cli(
        mesh.path(),
        "ca issue order-service --out agent --lifetime 2h",
    );
    cli(mesh.path(), "ca issue user-service --out agent");
    let several = json!([ours("user-service"), ours("order-service")]);
    agent.give(&several, &json!({}));
    wait_until("the new one is taken over", || replaced(&mesh) == 1);
    mesh.call("/api/second", &[]).expect(200);

    // None of ours: the old one stays.
    agent.give(&json!([ours("user-service")]), &json!({}));
    wait_until("it is refused", || refused(&mesh) > 0.0);
    let log = mesh.order.log();
    assert!(
        log.contains("does not give spiffe://example.org/order-service"),
        "{log}"
    );
    mesh.call("/api/third", &[]).expect(200);

    // A federated domain comes with it.
    cli(mesh.path(), "ca init --trust-domain other.org --dir other");
    fs::copy(mesh.path().join("other/ca.crt"), dir.join("other.crt")).unwrap();
    agent.give(&several, &json!({ "spiffe://other.org": "other.crt" }));
    wait_until("the federated bundle is taken over", || {
        replaced(&mesh) == 2
    });

    // The agent goes, and comes back with another certificate.
    drop(agent);
    wait_until("the node misses it", || {
        mesh.order.metric("mesh_identity_source_failures_total") > Some(0.0)
    });
    mesh.call("/api/fourth", &[]).expect(200);
    cli(
        mesh.path(),
        "ca issue order-service --out agent --lifetime 3h",
    );
    let agent = Agent::start(&dir).unwrap();
    wait_until("the node has found it again", || replaced(&mesh) == 3);
    mesh.call("/api/fifth", &[]).expect(200);
    drop(agent);
}

#[test]
fn without_an_identity_the_start_ends_with_the_reason() {
    let Some((mut mesh, _app, dir)) = mesh("mtls") else {
        return;
    };
    mesh.order
        .configure(json!({ "identity": { "startup_timeout": "1s" } }));
    mesh.order.spawn();
    let status = mesh.order.process().wait(Duration::from_secs(20));
    assert!(!status.success());
    let log = mesh.order.log();
    assert!(
        log.contains("identity.source workload_api gave no identity"),
        "{log}"
    );

    let Some(agent) = Agent::start(&dir) else {
        return;
    };
    agent.give(&json!([]), &json!({}));
    mesh.order.spawn();
    assert!(!mesh.order.process().wait(Duration::from_secs(20)).success());
    let log = mesh.order.log();
    assert!(log.contains("no identity issued"), "{log}");
    assert!(agent.process.out().contains("stream"));
}

/// A node of `order-service` that gives its identity to programs, and the path of its socket.
fn serving(uids: &[u32]) -> Option<(Mesh, App, PathBuf)> {
    let mut mesh = Mesh::new("mtls");
    let app = App::start(mesh.path())?;
    mesh.order.serve(app.port);
    mesh.order
        .configure(json!({ "workload_api": { "socket": "run/agent.sock", "uids": uids } }));
    mesh.start();
    let socket = mesh.order.dir().join("run/agent.sock");
    Some((mesh, app, socket))
}

fn ask(interpreter: &Path, socket: &Path, dir: &Path, args: &[&str], name: &str) -> Process {
    let mut all = vec![socket.to_str().unwrap()];
    all.extend(args);
    Process::start(
        &mut python(interpreter, "workload_client.py", &all),
        dir,
        name,
    )
}

fn lines(process: &Process) -> Vec<Value> {
    let out = process.out();
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn programs_that_others_wrote_get_the_identity_and_every_new_one() {
    let (Some(interpreter), Some((mut mesh, _app, socket))) = (tool("python-spiffe"), serving(&[]))
    else {
        return;
    };
    let mut once = ask(&interpreter, &socket, mesh.path(), &[], "once");
    once.wait(Duration::from_secs(30));
    let said = lines(&once);
    assert_eq!(
        said[0]["id"],
        "spiffe://example.org/order-service",
        "{said:?} {}",
        once.err()
    );
    assert_eq!(said[0]["key_fits"], true);
    assert_eq!(said[0]["bundles"], json!({ "example.org": 1 }));
    assert_eq!(said[0]["own_roots"], 1);
    assert!(
        said[1]["jwt"]
            .as_str()
            .unwrap()
            .contains("X509-SVIDs and X.509 bundles are served"),
        "{said:?}"
    );

    let watching = ask(&interpreter, &socket, mesh.path(), &["watch"], "watch");
    wait_until("the client has the first", || lines(&watching).len() == 1);
    for number in 2..=4 {
        cli(
            mesh.path(),
            "ca issue order-service --out order/certs --lifetime 1h",
        );
        wait_until("the client has the next", || {
            lines(&watching).len() == number
        });
    }
    let mut serials: Vec<_> = lines(&watching)
        .iter()
        .map(|line| line["serial"].to_string())
        .collect();
    serials.dedup();
    assert_eq!(serials.len(), 4, "{serials:?}");
    drop(watching);
    assert!(mesh.order.stop().success());
    assert!(!socket.exists());
}

#[test]
fn a_node_gets_its_identity_from_another_one() {
    let Some((mut mesh, app, socket)) = serving(&[]) else {
        return;
    };
    let mut second = mesh.node("order-service", "second");
    second.serve(app.port).config["identity"] = json!({
        "trust_domain": "example.org", "source": "workload_api", "workload_api_socket": socket,
    });
    second.configure(json!({ "policy": mesh.order.config["policy"] }));
    second.start();
    mesh.user.stop();
    mesh.user
        .discover("order-service", &[second.inbound])
        .start();
    mesh.call("/api/through-the-second", &[]).expect(200);
    cli(
        mesh.path(),
        "ca issue order-service --out order/certs --lifetime 2h",
    );
    wait_until("the new identity has reached the second node", || {
        second.log().contains("identity replaced")
    });
    mesh.call("/api/again", &[]).expect(200);
}

// threat 61
#[test]
fn a_program_of_another_user_gets_nothing() {
    let ours: u32 = id();
    let (Some(interpreter), Some((mesh, _app, socket))) =
        (tool("python-spiffe"), serving(&[ours + 1]))
    else {
        return;
    };
    let mut once = ask(&interpreter, &socket, mesh.path(), &[], "once");
    once.wait(Duration::from_mins(1));
    let said = lines(&once);
    assert!(
        said[0]["error"]
            .as_str()
            .unwrap()
            .contains("no identity issued"),
        "{said:?}"
    );
    assert!(mesh.order.metric("mesh_workload_api_refused_total") > Some(0.0));
    let log = mesh.order.log();
    assert!(log.contains("asked for our identity and got none"), "{log}");
}

// threat 61
#[test]
fn a_request_without_the_metadata_that_only_a_client_of_this_api_sends_gets_nothing() {
    let Some((_mesh, _app, socket)) = serving(&[]) else {
        return;
    };
    let ask = |extra: &[&str]| {
        let mut args = vec![
            "--http2-prior-knowledge",
            "--unix-socket",
            socket.to_str().unwrap(),
            "-i",
            "--data-binary",
            "@/dev/null",
            "-H",
            "content-type: application/grpc",
            "--max-time",
            "2",
            "http://localhost/SpiffeWorkloadAPI/FetchX509SVID",
        ];
        args.extend(extra);
        curl_raw(&args)
    };
    let without = ask(&[]);
    assert!(without.contains("grpc-status: 3"), "{without}");
    assert!(!without.contains("spiffe://"), "{without}");
    let wrong = ask(&["-H", "workload.spiffe.io: false"]);
    assert!(wrong.contains("grpc-status: 3"), "{wrong}");
}

/// The user that the tests run as.
fn id() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").unwrap().uid()
}
