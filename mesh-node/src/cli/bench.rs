//! `mesh-node bench`: what this machine can do with the parts of the mesh.

mod cpu;
mod ends;
mod grpc;
mod latency;
mod peer;
mod tcp;

use std::io;
use std::io::Write as _;
use std::time::Duration;

use mesh_transport::BoxError;
use serde_json::Value;
use serde_json::json;

use self::ends::Ends;
pub(super) use self::peer::Args as PeerArgs;
use self::peer::Mark;
use self::peer::PeerProcess;
use super::report::Failure;
use super::report::Report;

/// What is measured.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Sealed calls between two processes over one loopback connection: each request is sealed, opened by the other
    /// process, and answered with as many bytes, sealed. A handshake with RSA-4096 keys comes before.
    Session(Session),
}

/// The arguments of `bench session`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Session {
    /// Seconds that each figure is measured for.
    #[arg(long, default_value = "1", value_parser = seconds)]
    secs: Duration,
    /// What carries the sealed records.
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    transport: Transport,
    /// Bytes of a request and of its answer, at most 1048576; may be given several times.
    #[arg(long, value_name = "BYTES", default_values_t = SIZES, value_parser = size)]
    size: Vec<usize>,
    /// Calls in flight, besides the figures of one at a time.
    #[arg(long, default_value_t = 64, value_name = "CALLS", value_parser = clap::value_parser!(u16).range(1..=512))]
    in_flight: u16,
    /// Processor that the calling process stays on.
    #[arg(long, value_name = "CPU")]
    client_cpu: Option<usize>,
    /// Processor that the answering process stays on.
    #[arg(long, value_name = "CPU")]
    server_cpu: Option<usize>,
}

/// What carries the sealed records.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub(super) enum Transport {
    /// Length-prefixed records over plain TCP, read and written in batches.
    Tcp,
    /// The service between nodes: gRPC over HTTP/2 over mutual TLS.
    Grpc,
}

/// One figure's worth of calls.
#[derive(Clone, Copy, Debug)]
struct Plan {
    size: usize,
    in_flight: usize,
    warm: Duration,
    measured: Duration,
}

/// What became of a plan.
#[derive(Debug)]
struct Measured {
    latencies: latency::Latencies,
    elapsed: Duration,
    client_cpu: Duration,
    server_cpu: Duration,
}

/// Runs the benchmark. As JSON it is one line, for scripts that read line by line.
pub(super) fn run(command: &Command, json: bool) -> Result<Report, Failure> {
    let Command::Session(args) = command;
    let figures = session(args).map_err(|source| Failure::new("the benchmark failed", source))?;
    if json {
        let printed = writeln!(io::stdout().lock(), "{figures}");
        printed.map_err(|source| Failure::new("could not print the figures", source))?;
        return Ok(Report::text(String::new()));
    }
    Ok(Report::new(table(args, &figures), figures))
}

/// The answering process; it ends when the calling one does.
pub(super) fn peer(args: &PeerArgs) -> Result<Report, Failure> {
    args.run()
        .map(|()| Report::text(String::new()))
        .map_err(|source| Failure::new("the answering process of the benchmark failed", source))
}

fn session(args: &Session) -> Result<Value, BoxError> {
    if let Some(cpu) = args.client_cpu {
        cpu::pin(cpu)?;
    }
    // First, so that both processes make their keys at the same time.
    let mut peer = PeerProcess::start(args.server_cpu)?;
    let ends = Ends::meet(&mut peer, args.transport)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut rows = Vec::new();
        for &size in &args.size {
            let one = measure(&ends, &mut peer, args, (size, 1)).await?;
            let many = measure(&ends, &mut peer, args, (size, args.in_flight.into())).await?;
            rows.push(row(size, &one, &many));
        }
        let mut setups = Vec::new();
        for _ in 0..SETUPS {
            setups.push(match args.transport {
                Transport::Tcp => tcp::set_up(&ends).await?,
                Transport::Grpc => grpc::set_up(&ends).await?,
            });
        }
        setups.sort_unstable();
        let middle = setups.get(SETUPS / 2).copied().unwrap_or_default();
        Ok(json!({ "setup_ms": middle.as_secs_f64() * 1e3, "rows": rows }))
    })
}

async fn measure(
    ends: &Ends,
    peer: &mut PeerProcess,
    args: &Session,
    (size, in_flight): (usize, usize),
) -> Result<Measured, BoxError> {
    let plan = Plan {
        size,
        in_flight,
        warm: WARM_UP,
        measured: args.secs,
    };
    match args.transport {
        Transport::Tcp => tcp::load(ends, peer, plan).await,
        Transport::Grpc => grpc::load(ends, peer, plan).await,
    }
}

impl Measured {
    fn new(latencies: latency::Latencies, begin: &Mark, end: &Mark) -> Self {
        Self {
            latencies,
            elapsed: end.at.saturating_duration_since(begin.at),
            client_cpu: end.client_cpu.saturating_sub(begin.client_cpu),
            server_cpu: end.server_cpu.saturating_sub(begin.server_cpu),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn calls(&self) -> f64 {
        self.latencies.count().max(1) as f64
    }

    fn rate(&self) -> f64 {
        self.calls() / self.elapsed.as_secs_f64()
    }

    fn quantile_us(&self, quantile: f64) -> f64 {
        self.latencies.quantile(quantile).as_secs_f64() * 1e6
    }
}

/// One line of the figures, named as side-by-side runs name them: `seq_` is one call at a time, `par_` many.
fn row(size: usize, one: &Measured, many: &Measured) -> Value {
    json!({
        "size": size,
        "seq_rps": one.rate(),
        "seq_p50_us": one.quantile_us(0.5),
        "seq_p99_us": one.quantile_us(0.99),
        "par_rps": many.rate(),
        "par_p50_us": many.quantile_us(0.5),
        "par_p99_us": many.quantile_us(0.99),
        "cpu_client_us": many.client_cpu.as_secs_f64() * 1e6 / many.calls(),
        "cpu_server_us": many.server_cpu.as_secs_f64() * 1e6 / many.calls(),
    })
}

fn table(args: &Session, figures: &Value) -> String {
    let mut lines = vec![
        format!(
            "sealed calls over {}, between two processes",
            match args.transport {
                Transport::Tcp => "one TCP connection",
                Transport::Grpc => "gRPC, one HTTP/2 connection with mutual TLS",
            }
        ),
        format!(
            "{:>9} | {:>22} | {:>34} | {:>21}",
            "",
            "one at a time",
            format!("{} in flight", args.in_flight),
            "CPU a call, µs"
        ),
        format!(
            "{:>9} | {:>11} {:>10} | {:>11} {:>10} {:>11} | {:>10} {:>10}",
            "bytes", "calls/s", "p50 µs", "calls/s", "p50 µs", "p99 µs", "caller", "answerer"
        ),
    ];
    for row in figures["rows"].as_array().into_iter().flatten() {
        let figure = |name: &str| row[name].as_f64().unwrap_or_default();
        lines.push(format!(
            "{:>9} | {:>11.0} {:>10.1} | {:>11.0} {:>10.1} {:>11.1} | {:>10.2} {:>10.2}",
            row["size"].as_u64().unwrap_or_default(),
            figure("seq_rps"),
            figure("seq_p50_us"),
            figure("par_rps"),
            figure("par_p50_us"),
            figure("par_p99_us"),
            figure("cpu_client_us"),
            figure("cpu_server_us"),
        ));
    }
    let setup = figures["setup_ms"].as_f64().unwrap_or_default();
    lines.push(format!(
        "connecting and agreeing on a session, RSA-4096 on both sides: {setup:.1} ms"
    ));
    lines.join("\n")
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|secs| (0.01..=3600.0).contains(secs));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "give seconds, from 0.01 to 3600".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| *size <= MAX_SIZE);
    size.ok_or_else(|| format!("give bytes, at most {MAX_SIZE}"))
}

const SIZES: [usize; 3] = [64, 1024, 16_384];
/// So that all calls in flight fit into memory well.
const MAX_SIZE: usize = 1024 * 1024;
/// Caches are warm and congestion windows open after that.
const WARM_UP: Duration = Duration::from_millis(100);
/// Handshakes whose median is told.
const SETUPS: usize = 40;
