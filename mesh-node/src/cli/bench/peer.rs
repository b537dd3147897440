//! The answering process: how it is started and asked, and what it does.
//!
//! Both talk over its standard input and output, a line of JSON each way to get acquainted; then every line in is
//! answered with the nanoseconds of CPU time that it used so far. It ends when its input does, so with its parent.

use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::net::SocketAddr;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use mesh_transport::BoxError;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Transport;
use super::cpu;
use super::ends::Ends;
use super::grpc;
use super::tcp;

/// The arguments of the answering process.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[arg(long)]
    cpu: Option<usize>,
}

/// What the calling process says first.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Hello {
    pub(super) transport: Transport,
    /// Fingerprint of the caller's RSA key.
    pub(super) fingerprint: String,
    /// The answerer's certificate and key, and the authority's certificate.
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
    pub(super) authority_pem: String,
}

/// What the answering process says to it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Ready {
    pub(super) address: SocketAddr,
    /// Fingerprint of the answerer's RSA key.
    pub(super) fingerprint: String,
}

/// The answering process, as the calling one sees it; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct PeerProcess {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// The clocks at one moment.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) at: Instant,
    pub(super) client_cpu: Duration,
    pub(super) server_cpu: Duration,
}

impl PeerProcess {
    pub(super) fn start(cpu: Option<usize>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bench-peer");
        if let Some(cpu) = cpu {
            command.arg("--cpu").arg(cpu.to_string());
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = pipes else {
            return Err(io::Error::other("the answering process has no pipes"));
        };
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    pub(super) fn introduce(&mut self, hello: &Hello) -> io::Result<Ready> {
        say(&mut self.input, hello)?;
        hear(&mut self.output)
    }

    /// The clocks as a measurement begins.
    pub(super) fn begin(&mut self) -> io::Result<Mark> {
        // In this order: the question takes a while.
        Ok(Mark {
            server_cpu: self.cpu()?,
            client_cpu: cpu::used(),
            at: now(),
        })
    }

    /// The clocks as it ends.
    pub(super) fn end(&mut self) -> io::Result<Mark> {
        Ok(Mark {
            at: now(),
            client_cpu: cpu::used(),
            server_cpu: self.cpu()?,
        })
    }

    fn cpu(&mut self) -> io::Result<Duration> {
        say(&mut self.input, &"cpu")?;
        hear(&mut self.output).map(Duration::from_nanos)
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        // It may have ended before; then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Args {
    /// Answers until standard input ends.
    pub(super) fn run(&self) -> Result<(), BoxError> {
        if let Some(cpu) = self.cpu {
            cpu::pin(cpu)?;
        }
        let key = Ends::key()?;
        let mut input = io::stdin().lock();
        let hello: Hello = hear(&mut input)?;
        drop(input);
        let transport = hello.transport;
        let own = key.public().fingerprint();
        let ends = Ends::of_answerer(key, &hello)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let ready = |address| {
                let ready = Ready {
                    address,
                    fingerprint: own.to_string(),
                };
                say(&mut io::stdout().lock(), &ready)
            };
            let over = tokio::task::spawn_blocking(answer_questions);
            let serving = async {
                match transport {
                    Transport::Tcp => tcp::serve(&ends, ready).await,
                    Transport::Grpc => grpc::serve(&ends, ready).await,
                }
            };
            tokio::select! {
                served = serving => served,
                over = over => Ok(over??),
            }
        })
    }
}

fn answer_questions() -> io::Result<()> {
    for question in io::stdin().lock().lines() {
        drop(question?);
        let used = u64::try_from(cpu::used().as_nanos()).unwrap_or(u64::MAX);
        say(&mut io::stdout().lock(), &used)?;
    }
    Ok(())
}

fn say(to: &mut impl io::Write, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

fn hear<T: DeserializeOwned>(from: &mut impl io::BufRead) -> io::Result<T> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::Error::other("the other process of the benchmark ended"));
    }
    Ok(serde_json::from_str(&line)?)
}

/// The clock that everything here is measured with.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
