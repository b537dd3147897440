//! The command line: one command a module, each a function from its arguments to what it prints.
//!
//! A command returns its answer twice, as text for people and as JSON for `--json`; what it prints, and with which exit
//! code the process ends, is decided here alone.

mod audit;
mod bench;
mod ca;
mod call;
mod cert;
mod check;
mod demo;
mod explain;
mod files;
mod init;
mod keys;
mod policy;
mod prove;
mod record;
mod report;
mod run;
mod services;
mod token;

use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::CommandFactory;
use clap::Parser;
use clap::Subcommand;
use clap_complete::Shell;

use self::report::Failure;
use self::report::Report;
use crate::config::Environment;
use crate::config::NodeConfig;

/// A zero-trust service mesh in one binary.
#[derive(Debug, Parser)]
#[command(name = "mesh-node", version, after_help = EXIT_CODES)]
struct Args {
    /// Prints JSON, for scripts.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the node until a stop signal.
    Run {
        /// The configuration.
        #[arg(short, long, value_name = "FILE", default_value = "mesh.yaml")]
        config: PathBuf,
    },
    /// Starts a small mesh on this machine and shows what it does, step by step.
    Demo(demo::Args),
    /// A process of the demonstration.
    #[command(hide = true)]
    DemoService(crate::demo::ChildArgs),
    /// Makes one JSON call through a running node.
    Call(call::Args),
    /// Shows where a running node's services are, how their endpoints do, and why.
    Services(services::Args),
    /// Checks a configuration and every file that it names; starts nothing.
    Check {
        /// The configuration.
        #[arg(short, long, value_name = "FILE", default_value = "mesh.yaml")]
        config: PathBuf,
        /// Takes a warning for a failure: exit code 1.
        #[arg(long)]
        strict: bool,
    },
    /// Says why a call is allowed or denied, and the smallest change that would turn it.
    Explain(explain::Args),
    /// Trying a policy before it is in force.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Prints the JSON schema of the configuration.
    Schema,
    /// Writes a configuration that runs, with a certificate authority and a token secret of its own.
    Init(init::Args),
    /// The built-in certificate authority.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Certificates.
    #[command(subcommand)]
    Cert(cert::Command),
    /// RSA identity keys.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Shows that a running node does what its policy says: probes, attacks, and a signed report.
    Prove(prove::Args),
    /// Service tokens.
    #[command(subcommand)]
    Token(token::Command),
    /// The audit log.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Measures what this machine can do with the parts of the mesh.
    #[command(subcommand)]
    Bench(bench::Command),
    /// The answering process of a benchmark.
    #[command(hide = true)]
    BenchPeer(bench::PeerArgs),
    /// Prints the completions of a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// What a command sees of the world beside its arguments and the file system.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) environment: Environment,
    pub(crate) now: SystemTime,
}

impl Context {
    /// Seconds since 1970 (UTC).
    fn unix_seconds(&self) -> u64 {
        self.now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    }
}

/// Runs the command that `arguments` name, the program's own name first, and gives the process's exit code.
///
/// 0: done. 1: the check said no, or the operation failed. 2: wrong usage or a wrong configuration.
pub fn main(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Environment,
    now: SystemTime,
) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            // Nothing is left to do if the terminal is gone.
            drop(error.print());
            return if error.use_stderr() {
                ExitCode::from(report::MISUSE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let result = run(args.command, args.json, &Context { environment, now });
    let code = match &result {
        Ok(report) => ExitCode::from(report.code),
        Err(failure) => ExitCode::from(failure.code),
    };
    match print(&result, args.json) {
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => code,
    }
}

fn run(command: Command, json: bool, context: &Context) -> Result<Report, Failure> {
    match command {
        Command::Run { config } => run::run(&config, context),
        Command::Demo(args) => demo::run(args, json),
        Command::DemoService(child) => demo::child(child),
        Command::Call(args) => call::run(&args, context),
        Command::Services(args) => services::run(&args, context),
        Command::Check { config, strict } if strict => check::strictly(&config, context),
        Command::Check { config, .. } => check::run(&config, context),
        Command::Explain(args) => explain::run(&args, context),
        Command::Policy(command) => policy::run(&command, context),
        Command::Schema => Ok(Report::raw(&NodeConfig::schema())),
        Command::Init(args) => init::run(&args, context),
        Command::Ca(command) => ca::run(&command, context),
        Command::Cert(command) => cert::run(&command, context),
        Command::Keys(command) => keys::run(&command, context),
        Command::Prove(args) => prove::run(&args, context),
        Command::Token(command) => token::run(&command, context),
        Command::Audit(command) => audit::run(&command),
        Command::Bench(command) => bench::run(&command, json),
        Command::BenchPeer(args) => bench::peer(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "mesh-node", &mut script);
            Ok(Report::text(String::from_utf8_lossy(&script).into_owned()))
        }
    }
}

fn print(result: &Result<Report, Failure>, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match result {
        // Nothing to say, such as after a run, whose output may be an access log.
        Ok(report) if report.text.is_empty() => Ok(()),
        Ok(report) if json => writeln!(out, "{:#}", report.json),
        Ok(report) => writeln!(out, "{}", report.text.trim_end()),
        Err(failure) => {
            if json {
                writeln!(out, "{:#}", failure.json())?;
            }
            writeln!(io::stderr().lock(), "error: {failure}")
        }
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the check said no, or the operation failed
  2  wrong usage, or a wrong configuration";
