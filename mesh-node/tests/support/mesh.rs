//! Two services with a node each: `user-service` calls, `order-service` answers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Output;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use super::app::App;
use super::client::Answer;
use super::client::curl;
use super::process::Process;
use super::process::free_port;
use super::process::holds_within;

/// What the nodes sign their tokens with, unless a test says otherwise.
pub(crate) const SECRET: &str = "9f2c51d07be84c3aa6d15e0b7f3c8e1294ad60b5c7f1e83d";

/// A certificate authority, two nodes and a folder for everything.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) user: Node,
    pub(crate) order: Node,
    pub(crate) encryption: String,
    pub(crate) dir: TempDir,
}

/// A node, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) config: Value,
    pub(crate) inbound: u16,
    pub(crate) outbound: u16,
    pub(crate) admin: u16,
    pub(crate) secret: String,
    /// Variables that it is started with beside the secret.
    pub(crate) environment: Vec<(&'static str, String)>,
    dir: PathBuf,
    process: Option<Process>,
}

impl Mesh {
    /// Certificates and configurations; nothing runs yet.
    pub(crate) fn new(encryption: &str) -> Self {
        let dir = TempDir::new().unwrap();
        cli(dir.path(), "ca init --trust-domain example.org");
        let user = Node::new("user-service", "user", encryption, dir.path());
        let order = Node::new("order-service", "order", encryption, dir.path());
        let mut mesh = Self {
            user,
            order,
            encryption: encryption.to_owned(),
            dir,
        };
        mesh.user.configure(json!({
            "discovery": { "sources": [ { "mode": "static", "services": [
                { "id": "order-service", "host": "127.0.0.1", "port": mesh.order.inbound },
            ] } ] },
        }));
        mesh.order.configure(json!({
            "policy": { "rules": [
                { "name": "users", "from": ["user-service"], "to": { "service": "order-service" }, "action": "allow" },
            ] },
        }));
        mesh
    }

    /// The same with an application behind `order-service`, and both nodes running.
    pub(crate) fn with_app(encryption: &str) -> Option<(Self, App)> {
        let mut mesh = Self::new(encryption);
        let app = App::start(mesh.path())?;
        mesh.order.serve(app.port);
        mesh.start();
        Some((mesh, app))
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts both nodes and waits until they serve.
    pub(crate) fn start(&mut self) {
        self.order.spawn();
        self.user.spawn();
        self.order.wait_ready();
        self.user.wait_ready();
    }

    /// Starts the calling node where the other one was started before, and waits until both serve.
    pub(crate) fn start_rest(&mut self) {
        self.user.spawn();
        self.order.wait_ready();
        self.user.wait_ready();
    }

    /// Another node, with a certificate of its own.
    pub(crate) fn node(&self, service: &str, name: &str) -> Node {
        Node::new(service, name, &self.encryption, self.path())
    }

    /// A call of the user service's application to the order service.
    #[track_caller]
    pub(crate) fn call(&self, target: &str, args: &[&str]) -> Answer {
        self.user.call("order-service", target, args)
    }
}

impl Node {
    fn new(service: &str, name: &str, encryption: &str, mesh: &Path) -> Self {
        let dir = mesh.join(name);
        fs::create_dir(&dir).unwrap();
        cli(
            mesh,
            &format!("ca issue {service} --out {name}/certs --lifetime 1h"),
        );
        if encryption == "hybrid" {
            copy_keys(service, &dir.join("keys"));
        }
        let [inbound, outbound, admin] = [free_port(), free_port(), free_port()];
        let address = |port: u16| format!("127.0.0.1:{port}");
        let config = json!({
            "service": { "id": service, "listen": address(inbound) },
            "outbound": { "listen": address(outbound) },
            "admin": { "listen": address(admin) },
            "identity": {
                "trust_domain": "example.org",
                "cert_file": format!("certs/{service}.crt"),
                "key_file": format!("certs/{service}.key"),
                "ca_file": "certs/ca.crt",
            },
            "security": { "encryption": encryption, "rsa_key_size": 2048 },
            "auth": { "jwt": { "secret": "${JWT_SECRET}" } },
            "runtime": { "worker_threads": 2 },
        });
        Self {
            name: name.to_owned(),
            config,
            inbound,
            outbound,
            admin,
            secret: SECRET.to_owned(),
            environment: Vec::new(),
            dir,
            process: None,
        }
    }

    /// Lays `changes` over the configuration: objects are merged, all else replaced.
    pub(crate) fn configure(&mut self, changes: Value) -> &mut Self {
        merge(&mut self.config, changes);
        self
    }

    /// Puts the node in front of an application.
    pub(crate) fn serve(&mut self, port: u16) -> &mut Self {
        self.configure(json!({ "service": { "app": format!("127.0.0.1:{port}") } }))
    }

    /// Lets the node call `service` at `port`.
    pub(crate) fn discover(&mut self, service: &str, ports: &[u16]) -> &mut Self {
        let services: Vec<_> = ports
            .iter()
            .map(|port| json!({ "id": service, "host": "127.0.0.1", "port": port }))
            .collect();
        self.configure(
            json!({ "discovery": { "sources": [ { "mode": "static", "services": services } ] } }),
        )
    }

    /// Starts it.
    pub(crate) fn spawn(&mut self) {
        let mut command = self.program(&["run"]);
        let process = Process::start(&mut command, &self.dir, "node");
        self.process = Some(process);
    }

    /// The program with a command that takes this node's configuration.
    pub(crate) fn program(&self, args: &[&str]) -> Command {
        // Every JSON text is a YAML text.
        let text = format!("{:#}\n", self.config);
        fs::write(self.dir.join("mesh.yaml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-node"));
        command
            .args(args)
            .arg("-c")
            .arg(self.dir.join("mesh.yaml"))
            .current_dir(&self.dir)
            .env_clear()
            .envs(self.environment.iter().cloned());
        // The variable alone would switch tokens on.
        if self.config["auth"]["jwt"].is_object() {
            command.env("JWT_SECRET", &self.secret);
        }
        command
    }

    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        let url = self.admin_url("/health/ready");
        let ready = holds_within(Duration::from_secs(20), || {
            let process = self.process.as_mut().unwrap();
            assert!(
                process.is_running(),
                "{} ended\n{}",
                self.name,
                process.err()
            );
            super::process::is_open(self.admin) && curl(&[&url]).status == 200
        });
        assert!(ready, "{} did not get ready\n{}", self.name, self.log());
    }

    pub(crate) fn start(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// Asks it to stop, and waits until it has.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let process = self.process();
        process.terminate();
        process.wait(Duration::from_secs(30))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it wrote to its log.
    pub(crate) fn log(&self) -> String {
        self.process.as_ref().unwrap().err()
    }

    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin)
    }

    /// A page of its admin listener.
    #[track_caller]
    pub(crate) fn admin(&self, path: &str) -> Answer {
        curl(&[&self.admin_url(path)])
    }

    /// The sum of the lines of its metrics that begin like this.
    #[track_caller]
    pub(crate) fn metric(&self, prefix: &str) -> Option<f64> {
        let page = self.admin("/metrics").expect(200).text();
        let lines = page.lines().filter(|line| line.starts_with(prefix));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.reduce(|sum, value| sum + value)
    }

    /// A call of its application to a service, which it names in `Host`.
    #[track_caller]
    pub(crate) fn call(&self, service: &str, target: &str, args: &[&str]) -> Answer {
        let host = format!("Host: {service}");
        let url = format!("http://127.0.0.1:{}{target}", self.outbound);
        let mut all = vec!["-H", &host, &url];
        all.extend(args);
        curl(&all)
    }
}

fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, value) in changes {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value,
    }
}

/// Runs a command of the program in `dir`, which must succeed.
#[track_caller]
pub(crate) fn cli(dir: &Path, line: &str) -> String {
    let output = try_cli(dir, line);
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command of the program in `dir`.
pub(crate) fn try_cli(dir: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh-node"))
        .args(line.split_whitespace())
        .current_dir(dir)
        .env_clear()
        .output()
        .unwrap()
}

/// Copies the RSA key of a service. Making one takes a second or more without optimisation, so one is made for all tests,
/// and kept in the target directory.
fn copy_keys(service: &str, to: &Path) {
    static MADE: LazyLock<PathBuf> = LazyLock::new(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("keys-2048");
        let is_whole = |service| {
            try_cli(&home, &format!("keys list --dir {service}"))
                .status
                .success()
        };
        if home.is_dir() && SERVICES.into_iter().all(is_whole) {
            return home;
        }
        let made = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
        for service in SERVICES {
            cli(&made, &format!("keys generate --bits 2048 --dir {service}"));
        }
        // Test programs may run side by side: whoever is first wins, the others use what they made.
        if fs::rename(&made, &home).is_ok() {
            home
        } else {
            made
        }
    });
    let from = MADE.join(service);
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

const SERVICES: [&str; 3] = ["user-service", "order-service", "payment-service"];
