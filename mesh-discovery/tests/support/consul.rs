//! A Consul of its own: one agent that is server and client, and Consul's built-in proxy.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use serde_json::json;

use super::certificates::Certificates;
use super::client::Answer;
use super::client::curl;
use super::process::Process;
use super::process::Server;
use super::process::free_port;
use super::process::is_open;
use super::process::wait_until;
use super::tools::tool;

/// A running agent.
#[derive(Debug)]
pub(crate) struct Consul {
    pub(crate) http: u16,
    pub(crate) dns: u16,
    program: PathBuf,
    dir: PathBuf,
    /// What its ACLs take from whoever may do everything.
    master: Option<String>,
    /// Whom it shows itself to, where it asks for client certificates.
    certificates: Option<Certificates>,
    server: Server,
}

impl Consul {
    /// An agent without ACLs, which keeps nothing: started again it is empty and its index begins anew.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        Self::start_on(free_port(), None, dir)
    }

    /// An agent that denies what no token allows.
    pub(crate) fn start_with_acls(dir: &Path) -> Option<Self> {
        Self::start_on(free_port(), Some("root-token"), dir)
    }

    /// An agent whose API is at `http`.
    pub(crate) fn start_on(http: u16, master: Option<&str>, dir: &Path) -> Option<Self> {
        Self::launch(http, master, None, false, dir)
    }

    /// An agent that keeps its data: started again it knows all that it knew.
    pub(crate) fn start_lasting(dir: &Path) -> Option<Self> {
        Self::launch(free_port(), None, None, true, dir)
    }

    /// An agent whose API is HTTPS and takes clients with a certificate of the same authority only.
    pub(crate) fn start_with_tls(certificates: &Certificates, dir: &Path) -> Option<Self> {
        Self::launch(free_port(), None, Some(certificates), false, dir)
    }

    fn launch(
        http: u16,
        master: Option<&str>,
        certificates: Option<&Certificates>,
        is_lasting: bool,
        dir: &Path,
    ) -> Option<Self> {
        let program = tool("consul")?;
        let mut command = Command::new(&program);
        command.arg("agent");
        if is_lasting {
            command.args(["-server", "-bootstrap-expect", "1", "-data-dir"]);
            command.arg(dir.join(format!("consul-{http}")));
        } else {
            command.arg("-dev");
        }
        command.args(["-client", "127.0.0.1", "-bind", "127.0.0.1", "-node", "t"]);
        let dns = free_port();
        command.args(["-dns-port", &dns.to_string()]);
        let api = if certificates.is_some() {
            command.args(["-http-port", "-1"]);
            "-https-port"
        } else {
            "-http-port"
        };
        command.args([api, &http.to_string()]);
        for port in [
            "-grpc-port",
            "-server-port",
            "-serf-lan-port",
            "-serf-wan-port",
        ] {
            command.args([port, &free_port().to_string()]);
        }
        let file = dir.join(format!("consul-{http}.json"));
        fs::write(&file, settings(master, certificates).to_string()).unwrap();
        command.arg("-config-file").arg(file).env_clear();
        let consul = Self {
            http,
            dns,
            program,
            dir: dir.to_owned(),
            master: master.map(str::to_owned),
            certificates: certificates.cloned(),
            server: Server::start(command, dir, &format!("consul-{http}")),
        };
        consul.wait_ready();
        Some(consul)
    }

    /// Waits until it answers reads and writes.
    #[track_caller]
    pub(crate) fn wait_ready(&self) {
        wait_until("Consul has a leader and a CA", || {
            let answer = self.get("/v1/connect/ca/roots");
            let has_rights = self.master.is_none() || self.get("/v1/acl/tokens").status == 200;
            answer.status == 200 && answer.text().contains("RootCert") && has_rights
        });
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.certificates.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://127.0.0.1:{}", self.http)
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
        let flags = self.certificates.as_ref().map(Certificates::curl_flags);
        all.extend(flags.iter().flatten().map(String::as_str));
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
        self.server.process.kill();
    }

    /// Starts it again on the same ports and waits until it answers.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.server.start_again();
        self.wait_ready();
    }

    /// The agent's process, to freeze it.
    pub(crate) fn process(&self) -> &Process {
        &self.server.process
    }
}

fn settings(master: Option<&str>, certificates: Option<&Certificates>) -> Value {
    let mut settings =
        json!({ "performance": { "raft_multiplier": 1 }, "connect": { "enabled": true } });
    if let Some(master) = master {
        settings["acl"] = json!({
            "enabled": true, "default_policy": "deny", "tokens": { "master": master, "agent": master },
        });
    }
    if let Some(certificates) = certificates {
        settings["ca_file"] = json!(certificates.authority);
        settings["cert_file"] = json!(certificates.server);
        settings["key_file"] = json!(certificates.server_key);
        settings["verify_incoming_https"] = json!(true);
    }
    settings
}
