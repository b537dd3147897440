//! etcd, alone or as a cluster of three, and what a test writes to it.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::json;

use super::certificates::Certificates;
use super::client::Answer;
use super::client::curl;
use super::process::Server;
use super::process::free_port;
use super::process::wait_until;
use super::tools::tool;

/// Running members of one cluster.
#[derive(Debug)]
pub(crate) struct Etcd {
    members: Vec<Member>,
    /// Whom it shows itself to, where it asks for client certificates.
    certificates: Option<Certificates>,
    /// What it takes from whoever may do everything, where it asks for a password.
    root: Option<&'static str>,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) port: u16,
    pub(crate) server: Server,
    data: PathBuf,
}

impl Etcd {
    /// One member.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        Self::launch(1, None, dir, &[])
    }

    /// One member, with more flags.
    pub(crate) fn start_with_flags(dir: &Path, flags: &[&str]) -> Option<Self> {
        Self::launch(1, None, dir, flags)
    }

    /// Three members.
    pub(crate) fn start_cluster(dir: &Path) -> Option<Self> {
        Self::launch(3, None, dir, &[])
    }

    /// One member that takes HTTPS and clients with a certificate of the same authority only.
    pub(crate) fn start_with_tls(certificates: &Certificates, dir: &Path) -> Option<Self> {
        Self::launch(1, Some(certificates), dir, &[])
    }

    fn launch(
        count: usize,
        certificates: Option<&Certificates>,
        dir: &Path,
        flags: &[&str],
    ) -> Option<Self> {
        let program = tool("etcd")?;
        let scheme = if certificates.is_some() {
            "https"
        } else {
            "http"
        };
        let ports: Vec<_> = (0..count).map(|_| (free_port(), free_port())).collect();
        let peers: Vec<_> = ports
            .iter()
            .map(|(port, peer)| format!("m{port}=http://127.0.0.1:{peer}"))
            .collect();
        let start = |&(port, peer): &(u16, u16)| {
            let url = format!("{scheme}://127.0.0.1:{port}");
            let peer = format!("http://127.0.0.1:{peer}");
            let data = dir.join(format!("etcd-{port}"));
            let mut command = Command::new(&program);
            command
                .args(["--name", &format!("m{port}"), "--logger", "zap"])
                .arg("--data-dir")
                .arg(&data)
                .args([
                    "--listen-client-urls",
                    &url,
                    "--advertise-client-urls",
                    &url,
                ])
                .args(["--listen-peer-urls", &peer])
                .args(["--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &peers.join(",")])
                // A tenth of what is usual: a leader that is gone is missed within half a second.
                .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
                .args(flags)
                .env_clear();
            if let Some(files) = certificates {
                command.arg("--client-cert-auth");
                command.arg("--cert-file").arg(&files.server);
                command.arg("--key-file").arg(&files.server_key);
                command.arg("--trusted-ca-file").arg(&files.authority);
            }
            let server = Server::start(command, dir, &format!("etcd-{port}"));
            Member { port, server, data }
        };
        let etcd = Self {
            members: ports.iter().map(start).collect(),
            certificates: certificates.cloned(),
            root: None,
        };
        etcd.wait_ready();
        Some(etcd)
    }

    /// Waits until each member that runs knows a leader.
    #[track_caller]
    pub(crate) fn wait_ready(&self) {
        for member in &self.members {
            wait_until("etcd has a leader", || {
                let answer = self.ask(member.port, "maintenance/status", &json!({}));
                // Zero is not written, and no member's id.
                answer.status == 200 && answer.json()["leader"].is_string()
            });
        }
    }

    /// Starts a lone member again without its data: it is another cluster, whose revisions begin anew.
    #[track_caller]
    pub(crate) fn start_empty(&mut self) {
        let member = &mut self.members[0];
        fs::remove_dir_all(&member.data).unwrap();
        member.server.start_again();
        self.wait_ready();
    }

    /// Where each member takes clients.
    pub(crate) fn urls(&self) -> Vec<String> {
        let scheme = if self.certificates.is_some() {
            "https"
        } else {
            "http"
        };
        let url = |member: &Member| format!("{scheme}://127.0.0.1:{}", member.port);
        self.members.iter().map(url).collect()
    }

    /// The ports where the members take clients.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.port).collect()
    }

    /// Where the first member takes clients.
    pub(crate) fn port(&self) -> u16 {
        self.member(0).port
    }

    pub(crate) fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    pub(crate) fn member_mut(&mut self, index: usize) -> &mut Member {
        &mut self.members[index]
    }

    /// Which member leads, as the first that answers says.
    #[track_caller]
    pub(crate) fn leader(&self) -> usize {
        let leader = self.call("maintenance/status", &json!({}))["leader"].clone();
        let is_leader = |member: &Member| {
            let status = self.ask(member.port, "maintenance/status", &json!({}));
            status.status == 200 && status.json()["header"]["member_id"] == leader
        };
        self.members.iter().position(is_leader).unwrap()
    }

    /// A call of its gRPC gateway (`/v3/PATH`), at the first member that answers it.
    #[track_caller]
    pub(crate) fn call(&self, path: &str, body: &Value) -> Value {
        let mut answer = None;
        wait_until("a member of etcd answers", || {
            answer = self.members.iter().find_map(|member| {
                let answer = self.ask(member.port, path, body);
                (answer.status == 200).then(|| answer.json())
            });
            answer.is_some()
        });
        answer.unwrap()
    }

    fn ask(&self, port: u16, path: &str, body: &Value) -> Answer {
        let flags = self.certificates.as_ref().map(Certificates::curl_flags);
        let scheme = if flags.is_some() { "https" } else { "http" };
        let flags: Vec<_> = flags.iter().flatten().map(String::as_str).collect();
        let url = |path: &str| format!("{scheme}://127.0.0.1:{port}/v3/{path}");
        let send = |path: &str, body: &Value, extra: &[&str]| {
            let (url, body) = (url(path), body.to_string());
            let mut all = vec!["--max-time", "2", "-X", "POST", "-d", &*body, &*url];
            all.extend(&flags);
            all.extend(extra);
            curl(&all)
        };
        let Some(password) = self.root else {
            return send(path, body, &[]);
        };
        let login = json!({ "name": "root", "password": password });
        let token = send("auth/authenticate", &login, &[]);
        if token.status != 200 {
            return token;
        }
        let header = format!("Authorization: {}", token.json()["token"].as_str().unwrap());
        send(path, body, &["-H", &header])
    }

    /// Asks for passwords from now on: `root` may do everything, and `user` read and write what begins with `prefix`.
    #[track_caller]
    pub(crate) fn require_passwords(&mut self, user: &str, password: &str, prefix: &str) {
        let root = "root-password";
        self.call("auth/role/add", &json!({ "name": "root" }));
        self.call("auth/role/add", &json!({ "name": "mesh" }));
        self.call(
            "auth/role/grant",
            &json!({ "name": "mesh", "perm": {
                "permType": "READWRITE", "key": encode(prefix), "range_end": encode(&end_of(prefix)),
            } }),
        );
        for (name, password, role) in [("root", root, "root"), (user, password, "mesh")] {
            self.call(
                "auth/user/add",
                &json!({ "name": name, "password": password }),
            );
            self.call("auth/user/grant", &json!({ "user": name, "role": role }));
        }
        self.call("auth/enable", &json!({}));
        self.root = Some(root);
    }

    /// Writes a key; gives the revision.
    #[track_caller]
    pub(crate) fn put(&self, key: &str, value: &str) -> u64 {
        let body = json!({ "key": encode(key), "value": encode(value) });
        revision(&self.call("kv/put", &body))
    }

    /// Takes a key away; gives the revision.
    #[track_caller]
    pub(crate) fn delete(&self, key: &str) -> u64 {
        let body = json!({ "key": encode(key) });
        revision(&self.call("kv/deleterange", &body))
    }

    /// Takes away every key that begins like this; gives the revision.
    #[track_caller]
    pub(crate) fn delete_all(&self, prefix: &str) -> u64 {
        let body = json!({ "key": encode(prefix), "range_end": encode(&end_of(prefix)) });
        revision(&self.call("kv/deleterange", &body))
    }

    /// Every key that begins like this, with its value.
    #[track_caller]
    pub(crate) fn get_all(&self, prefix: &str) -> Vec<(String, String)> {
        let body = json!({ "key": encode(prefix), "range_end": encode(&end_of(prefix)) });
        let found = self.call("kv/range", &body);
        let pairs = found["kvs"].as_array().into_iter().flatten();
        pairs
            .map(|pair| (decode(&pair["key"]), decode(&pair["value"])))
            .collect()
    }

    /// Forgets all history up to now: watches that stand behind it are cancelled.
    #[track_caller]
    pub(crate) fn compact(&self) {
        let now = revision(&self.call("kv/range", &json!({ "key": encode("none") })));
        self.call(
            "kv/compaction",
            &json!({ "revision": now.to_string(), "physical": true }),
        );
    }
}

/// A key or a value, as the gateway takes it.
pub(crate) fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

/// A key or a value, as the gateway gives it; one that is empty it leaves out.
pub(crate) fn decode(value: &Value) -> String {
    let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The first key behind all that begin with `prefix`.
pub(crate) fn end_of(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    let last = end.pop().unwrap();
    end.push(char::from_u32(u32::from(last) + 1).unwrap());
    end
}

fn revision(answer: &Value) -> u64 {
    let revision = answer["header"]["revision"].as_str().unwrap();
    revision.parse().unwrap()
}
