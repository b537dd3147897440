//! A Redis of its own, and what a test asks it.

use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::certificates::Certificates;
use super::process::Process;
use super::process::Server;
use super::process::free_port;
use super::process::wait_until;
use super::tools::tool;

/// A running server.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) port: u16,
    is_tls: bool,
    /// Where tests ask it: neither TLS nor a full port stands between.
    socket: PathBuf,
    server: Server,
}

impl Redis {
    /// A server without passwords, which keeps nothing: started again it is empty.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        Self::launch(None, "", dir)
    }

    /// A server with more lines in its configuration.
    pub(crate) fn start_with(settings: &str, dir: &Path) -> Option<Self> {
        Self::launch(None, settings, dir)
    }

    /// A server that takes TLS only, and clients with a certificate of the same authority or without one.
    pub(crate) fn start_with_tls(certificates: &Certificates, dir: &Path) -> Option<Self> {
        Self::launch(Some(certificates), "", dir)
    }

    /// A server that knows `user` only, who may do what `rules` say in the words of Redis's ACLs.
    pub(crate) fn start_with_user(
        user: &str,
        password: &str,
        rules: &str,
        dir: &Path,
    ) -> Option<Self> {
        let users = format!(
            "user default off\nuser {ADMIN} on >{ADMIN_PASSWORD} ~* &* +@all\nuser {user} on >{password} {rules}\n"
        );
        Self::launch(None, &users, dir)
    }

    /// One server that is a whole cluster: it refuses what touches keys of two slots at once.
    pub(crate) fn start_cluster(dir: &Path) -> Option<Self> {
        let redis = Self::launch(
            None,
            "cluster-enabled yes\ncluster-require-full-coverage no\n",
            dir,
        )?;
        redis.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        wait_until("the cluster is whole", || {
            let info = redis.ask(&["CLUSTER", "INFO"]);
            info.as_str()
                .is_some_and(|info| info.contains("cluster_state:ok"))
        });
        Some(redis)
    }

    fn launch(certificates: Option<&Certificates>, settings: &str, dir: &Path) -> Option<Self> {
        let program = tool("redis-server")?;
        let port = free_port();
        let home = dir.join(format!("redis-{port}"));
        fs::create_dir(&home).unwrap();
        let (config, socket) = (home.join("redis.conf"), home.join("s"));
        let ports = match certificates {
            None => format!("port {port}\n"),
            Some(files) => format!(
                "port 0\ntls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
                 tls-auth-clients optional\n",
                files.server.display(),
                files.server_key.display(),
                files.authority.display()
            ),
        };
        let (place, path) = (home.display(), socket.display());
        let text = format!(
            "bind 127.0.0.1\n{ports}unixsocket {path}\ndir {place}\nsave \"\"\nappendonly no\n{settings}"
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.arg(&config).env_clear();
        let redis = Self {
            port,
            is_tls: certificates.is_some(),
            socket,
            server: Server::start(command, dir, &format!("redis-{port}")),
        };
        redis.wait_ready();
        Some(redis)
    }

    #[track_caller]
    fn wait_ready(&self) {
        wait_until("Redis answers", || {
            self.try_ask(&["PING"]).is_ok_and(|answer| answer == "PONG")
        });
    }

    /// Where it takes clients.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Its answer to a command.
    #[track_caller]
    pub(crate) fn ask(&self, words: &[&str]) -> Value {
        self.try_ask(words)
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Its answer to a command, or what went wrong.
    pub(crate) fn try_ask(&self, words: &[&str]) -> Result<Value, String> {
        let asked = || -> std::io::Result<Result<Value, String>> {
            let stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut stream = BufReader::new(stream);
            send(&mut stream, &["AUTH", ADMIN, ADMIN_PASSWORD])?;
            // Where there are no passwords this is an error that changes nothing.
            drop(receive(&mut stream)?);
            send(&mut stream, words)?;
            receive(&mut stream)
        };
        asked().unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.server.process.kill();
    }

    /// Starts it again on the same port: it has forgotten everything, scripts too.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.server.start_again();
        self.wait_ready();
    }

    /// The server's process, to freeze it.
    pub(crate) fn process(&self) -> &Process {
        &self.server.process
    }
}

/// Writes a command (RESP, "Sending commands to a Redis server").
fn send(stream: &mut BufReader<UnixStream>, words: &[&str]) -> std::io::Result<()> {
    let parts = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    let text = format!("*{}\r\n{}", words.len(), parts.collect::<String>());
    stream.get_mut().write_all(text.as_bytes())
}

/// Reads one reply of RESP2.
fn receive(stream: &mut BufReader<UnixStream>) -> std::io::Result<Result<Value, String>> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let line = line.trim_end();
    let Some((kind, rest)) = line.split_at_checked(1) else {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    };
    let number = || rest.parse::<i64>().map_err(std::io::Error::other);
    Ok(match kind {
        "-" => Err(rest.to_owned()),
        ":" => Ok(Value::from(number()?)),
        "$" => match usize::try_from(number()?) {
            Err(_) => Ok(Value::Null),
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(Value::from(String::from_utf8_lossy(&bytes).into_owned()))
            }
        },
        "*" => {
            let count = number()?;
            let mut all = Vec::new();
            for _ in 0..count {
                match receive(stream)? {
                    Ok(value) => all.push(value),
                    Err(error) => return Ok(Err(error)),
                }
            }
            Ok(Value::Array(all))
        }
        _ => Ok(Value::from(rest)),
    })
}

const ADMIN: &str = "test-admin";
const ADMIN_PASSWORD: &str = "test-admin-password";
