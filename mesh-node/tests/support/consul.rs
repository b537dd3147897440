//! A Consul of its own: one agent that is server and client, and Consul's built-in proxy.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use serde_json::json;

use super::client::Answer;
use super::client::curl;
use super::process::Process;
use super::process::free_port;
use super::process::is_open;
use super::process::wait_until;
use super::tools::tool;

/// A running agent.
#[derive(Debug)]
pub(crate) struct Consul {
    pub(crate) http: u16,
    program: PathBuf,
    dir: PathBuf,
    /// What its ACLs take from whoever may do everything.
    master: Option<String>,
    process: Process,
}

impl Consul {
    /// An agent without ACLs.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        Self::start_on(free_port(), None, dir)
    }

    /// An agent that denies what no token allows.
    pub(crate) fn start_with_acls(dir: &Path) -> Option<Self> {
        Self::start_on(free_port(), Some("root-token"), dir)
    }

    /// An agent whose API is at `http`.
    pub(crate) fn start_on(http: u16, master: Option<&str>, dir: &Path) -> Option<Self> {
        let program = tool("consul")?;
        let mut command = Command::new(&program);
        command
            .args([
                "agent",
                "-dev",
                "-client",
                "127.0.0.1",
                "-bind",
                "127.0.0.1",
                "-node",
                "t",
            ])
            .args(["-http-port", &http.to_string()]);
        for port in [
            "-grpc-port",
            "-dns-port",
            "-server-port",
            "-serf-lan-port",
            "-serf-wan-port",
        ] {
            command.args([port, &free_port().to_string()]);
        }
        if let Some(master) = master {
            let acls = json!({ "acl": {
                "enabled": true, "default_policy": "deny", "tokens": { "master": master, "agent": master },
            } });
            fs::write(dir.join("acl.json"), acls.to_string()).unwrap();
            command.arg("-config-file").arg(dir.join("acl.json"));
        }
        command.env_clear();
        let process = Process::start(&mut command, dir, &format!("consul-{http}"));
        let consul = Self {
            http,
            program,
            dir: dir.to_owned(),
            master: master.map(str::to_owned),
            process,
        };
        wait_until("Consul has a leader and a CA", || {
            let answer = consul.get("/v1/connect/ca/roots");
            let has_rights = master.is_none() || consul.get("/v1/acl/tokens").status == 200;
            answer.status == 200 && answer.text().contains("RootCert") && has_rights
        });
        Some(consul)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// A read of its API.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(path, &[])
    }

    /// A write of JSON to its API.
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.ask(path, &["-X", method, "-d", &body.to_string()])
            .expect(200)
    }

    fn ask(&self, path: &str, args: &[&str]) -> Answer {
        let url = format!("{}{path}", self.url());
        let master = self.master.as_deref().unwrap_or_default();
        let token = format!("X-Consul-Token: {master}");
        let mut all = vec!["-H", &*token, &*url];
        all.extend(args);
        curl(&all)
    }

    /// A token that may do what `rules` say.
    #[track_caller]
    pub(crate) fn token(&self, name: &str, rules: &str) -> String {
        self.send(
            "PUT",
            "/v1/acl/policy",
            &json!({ "Name": name, "Rules": rules }),
        );
        let policies = json!({ "Policies": [ { "Name": name } ] });
        let made = self.send("PUT", "/v1/acl/token", &policies).json();
        made["SecretID"].as_str().unwrap().to_owned()
    }

    /// Says where `service` takes mutual TLS.
    #[track_caller]
    pub(crate) fn register(&self, service: &str, port: u16) {
        let definition = json!({
            "Name": service, "Address": "127.0.0.1", "Port": port, "Connect": { "Native": true },
        });
        self.send("PUT", "/v1/agent/service/register", &definition);
    }

    /// Consul's trust domain.
    #[track_caller]
    pub(crate) fn trust_domain(&self) -> String {
        let roots = self.get("/v1/connect/ca/roots").expect(200).json();
        roots["TrustDomain"].as_str().unwrap().to_owned()
    }

    /// Makes a new root, of the private key in `key`.
    #[track_caller]
    pub(crate) fn replace_root(&self, key: &Path) {
        let config = json!({
            "Provider": "consul",
            "Config": {
                "LeafCertTTL": "72h", "RotationPeriod": "2160h",
                "PrivateKey": fs::read_to_string(key).unwrap(), "RootCert": "",
            },
        });
        self.send("PUT", "/v1/connect/ca/configuration", &config);
    }

    /// Its proxy beside the application of `service` at `app`: takes mutual TLS and passes bytes on.
    pub(crate) fn proxy_before(&self, service: &str, app: u16) -> (u16, Process) {
        let port = free_port();
        let (listen, app) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{app}"));
        self.proxy(service, &["-listen", &listen, "-service-addr", &app], port)
    }

    /// Its proxy beside a caller: takes bytes and passes them on over mutual TLS to `upstream`, as `service`.
    pub(crate) fn proxy_behind(&self, service: &str, upstream: &str) -> (u16, Process) {
        let port = free_port();
        self.proxy(service, &["-upstream", &format!("{upstream}:{port}")], port)
    }

    fn proxy(&self, service: &str, args: &[&str], port: u16) -> (u16, Process) {
        let mut command = Command::new(&self.program);
        command
            .args([
                "connect",
                "proxy",
                "-log-level",
                "debug",
                "-http-addr",
                &self.url(),
            ])
            .args(["-service", service])
            .args(args)
            .env_clear();
        let process = Process::start(&mut command, &self.dir, &format!("proxy-{port}"));
        wait_until("Consul's proxy listens", || is_open(port));
        (port, process)
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }
}
