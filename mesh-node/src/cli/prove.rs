//! `mesh-node prove`: probes and attacks on a running node, and the signed report of what they found.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::TrustBundles;
use mesh_transport::tls::certificates;
use rustls_pki_types::CertificateDer;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::Context;
use super::files;
use super::files::Access;
use super::report::Failure;
use super::report::Report;
use crate::adapt::policy::compile;
use crate::adapt::policy::scope_of;
use crate::config::Encryption;
use crate::config::NodeConfig;
use crate::node::build::sessions::terms;
use crate::node::wall_clock;
use crate::prove;
use crate::prove::Prober;
use crate::prove::line::Target;
use crate::prove::line::Tokens;
use crate::prove::plan::Paper;
use crate::prove::report::Outcome;
use crate::prove::report::Proof;
use crate::prove::report::hex;
use crate::service_token;

/// Probes a running node, and checks the report of one.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration that the running node was started with; its security.probe names the prober.
    #[arg(short, long, value_name = "FILE", default_value = "mesh.yaml")]
    config: PathBuf,
    /// Where the node is. Default: service.listen of the configuration, on this machine.
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<SocketAddr>,
    /// Folder of the built-in authority, to make the prober's certificate and bad ones for attacks. Default: the
    /// configuration's `identity.ca_dir`.
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// The prober's certificate, where there is no --ca-dir.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of that certificate.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Roots that the node's certificate must lead to. Default: the configuration's `identity.ca_file`, else those of the
    /// authority.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Writes the signed report to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Checks who signed a report, and that nobody changed it.
    Verify {
        /// The report.
        report: PathBuf,
        /// Roots that the signer's certificate must lead to.
        #[arg(long, value_name = "FILE")]
        ca_file: PathBuf,
        /// Who must have signed it: the SPIFFE id of the prober, never that of the node which is proven.
        #[arg(long, value_name = "SPIFFE_ID")]
        signer: String,
        /// How old the report may be.
        #[arg(long, default_value = "30days", value_parser = humantime::parse_duration)]
        max_age: Duration,
    },
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Report, Failure> {
    if let Some(Command::Verify {
        report,
        ca_file,
        signer,
        max_age,
    }) = &args.command
    {
        return verify(report, (ca_file, &parsed(signer)?), (context.now, *max_age));
    }
    let config = NodeConfig::load(&args.config, &context.environment)?;
    let own: TrustDomain = config.identity.trust_domain().parse().map_err(|error| {
        Failure::new("identity.trust_domain is no trust domain", error).into_misuse()
    })?;
    let policy = compile(&config.policy, &scope_of(&config, &own))
        .map_err(|error| Failure::new("policy.rules can't be enforced as they are", error))?;
    let setup = Setup::read(args, &config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|source| Failure::new("could not start the async runtime", source))?;
    let paper = Paper {
        policy: &policy,
        trust_domain: config.identity.trust_domain(),
        service: &config.service.id,
        port: config.service.listen.port(),
        now: context.unix_seconds(),
    };
    let proof = runtime.block_on(probe(&config, setup, paper))?;
    answer(args, &proof)
}

/// What probing needs beside the policy.
struct Setup<'a> {
    target: Target,
    id: SpiffeId,
    roots: Vec<CertificateDer<'static>>,
    pair: (Vec<u8>, Zeroizing<Vec<u8>>),
    ca_dir: Option<&'a Path>,
}

impl<'a> Setup<'a> {
    fn read(args: &'a Args, config: &'a NodeConfig) -> Result<Self, Failure> {
        let Some(written) = config.prober_id() else {
            return Err(Failure::misuse(
                "the node takes no probes; set security.probe to the SPIFFE id of the prober, such as mesh-probe",
            ));
        };
        let id = parsed(&written)?;
        let ca_dir = args.ca_dir.as_deref().or(config.identity.ca_dir.as_deref());
        let bytes = |path: &Path| {
            std::fs::read(path).map_err(|source| {
                Failure::new(format!("could not read {}", path.display()), source)
            })
        };
        let pair = match (&args.cert, &args.key, ca_dir) {
            (Some(cert), Some(key), _) => (bytes(cert)?, Zeroizing::new(bytes(key)?)),
            (_, _, Some(dir)) => issued(dir, &id)?,
            _ => {
                return Err(Failure::misuse(
                    "the prober needs a certificate: give --ca-dir, or --cert and --key",
                ));
            }
        };
        let named = args
            .ca_file
            .as_deref()
            .or(config.identity.ca_file.as_deref());
        let of_authority = ca_dir.map(|dir| dir.join("ca.crt"));
        let ca_file = named.or(of_authority.as_deref()).ok_or_else(|| {
            Failure::misuse("whom to trust? give --ca-file with the roots of the trust domain")
        })?;
        let roots = certificates(&bytes(ca_file)?).map_err(|error| {
            Failure::new(format!("{} holds no roots", ca_file.display()), error)
        })?;
        Ok(Self {
            target: target(args, config)?,
            id,
            roots,
            pair,
            ca_dir,
        })
    }
}

fn target(args: &Args, config: &NodeConfig) -> Result<Target, Failure> {
    let listen = config.service.listen;
    let local = if listen.ip().is_unspecified() {
        SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), listen.port())
    } else {
        listen
    };
    let tokens = match &config.auth.jwt {
        None => None,
        Some(jwt) => {
            let ring = service_token::ring(jwt)
                .map_err(|error| Failure::new("auth.jwt is not usable", error))?;
            Some(Tokens {
                ring: Arc::new(ring),
                issuer: config.token_issuer().to_owned(),
            })
        }
    };
    Ok(Target {
        address: args.address.unwrap_or(local),
        service: config.service.id.as_str().into(),
        id: parsed(&config.spiffe_id())?,
        tokens,
        terms: (config.security.encryption == Encryption::Hybrid).then(|| terms(&config.security)),
    })
}

fn issued(dir: &Path, id: &SpiffeId) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), Failure> {
    let failed = |error| {
        Failure::new(
            format!("no certificate for {id} from {}", dir.display()),
            error,
        )
    };
    let authority = prove::authority(dir).map_err(failed)?;
    let issued = authority
        .issue(id, LIFETIME, wall_clock(), &[])
        .map_err(|error| failed(error.into()))?;
    let key = Zeroizing::new(issued.key_pem.as_bytes().to_vec());
    Ok((issued.certificate_pem.into_bytes(), key))
}

fn parsed(id: &str) -> Result<SpiffeId, Failure> {
    id.parse()
        .map_err(|error| Failure::new(format!("{id:?} is no SPIFFE id"), error).into_misuse())
}

async fn probe(
    config: &NodeConfig,
    setup: Setup<'_>,
    paper: Paper<'_>,
) -> Result<(Proof, Option<String>), Failure> {
    let pair = (setup.pair.0.as_slice(), setup.pair.1.as_slice());
    let tls = prove::store(&setup.target, &setup.roots, pair)
        .map_err(|error| Failure::new("the prober's certificate is not usable", error))?;
    let prober = Prober {
        target: setup.target,
        paper,
        roots: setup.roots,
        pair: setup.pair,
        tls,
        id: setup.id,
        ca_dir: setup.ca_dir,
    };
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let tried = prober
        .run(&config.policy.rules, &tasks)
        .await
        .map_err(|error| Failure::new("the prober could not be made", error))?;
    let written = serde_json::to_value(&config.policy).unwrap_or_default();
    let proof = Proof {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: humantime::format_rfc3339_seconds(wall_clock()).to_string(),
        service: prober.target.service.to_string(),
        spiffe_id: prober.target.id.to_string(),
        address: prober.target.address.to_string(),
        policy_sha256: hex(&Sha256::digest(written.to_string())),
        probes: tried.probes,
        unproven: tried.unproven,
        attacks: tried.attacks,
    };
    let signed = proof.sign(prober.tls.current().credentials()).ok();
    Ok((proof, signed))
}

fn answer(args: &Args, (proof, signed): &(Proof, Option<String>)) -> Result<Report, Failure> {
    if let Some(path) = &args.out {
        let signed = signed.as_deref().ok_or_else(|| {
            Failure::plain("the prober's key can't sign a report; use ECDSA P-256")
        })?;
        files::write(path, signed, Access::Public)?;
    }
    let json = json!({ "ok": proof.holds(), "proof": proof });
    Ok(Report::new(text(proof), json).that_holds(proof.holds()))
}

/// For people: what failed first, then what could not be shown, then the counts.
fn text(proof: &Proof) -> String {
    let mut lines = Vec::new();
    for probe in proof.probes.iter().filter(|probe| !probe.ok) {
        let call = &probe.call;
        let found = match (&probe.found, &probe.error) {
            (Some(found), _) => {
                format!(
                    "the node says {} by {}",
                    found.verdict,
                    by(found.rule.as_deref())
                )
            }
            (None, error) => error.clone().unwrap_or_default(),
        };
        lines.push(format!(
            "FAILED  rule {}, {}: {} {} as {}: the policy says {} by {}, {found}",
            call.rule,
            call.what,
            call.method,
            call.path,
            call.caller.spiffe_id.as_deref().unwrap_or("nobody"),
            probe.expected.verdict,
            by(probe.expected.rule.as_deref()),
        ));
    }
    for attack in &proof.attacks {
        match attack.outcome {
            Outcome::GotThrough => lines.push(format!("FAILED  {}: {}", attack.what, attack.seen)),
            Outcome::Skipped => lines.push(format!("skipped {}: {}", attack.what, attack.seen)),
            Outcome::Refused => lines.push(format!("refused {}: {}", attack.what, attack.seen)),
        }
    }
    for unproven in &proof.unproven {
        lines.push(format!("unproven rule {}: {}", unproven.rule, unproven.why));
    }
    let right = proof.probes.iter().filter(|probe| probe.ok).count();
    let count = |outcome| {
        let of = proof
            .attacks
            .iter()
            .filter(|attack| attack.outcome == outcome);
        of.count()
    };
    lines.push(format!(
        "{} at {}: {right} of {} probes decided as the policy says; {} attacks refused, {} got through, {} skipped",
        proof.service,
        proof.address,
        proof.probes.len(),
        count(Outcome::Refused),
        count(Outcome::GotThrough),
        count(Outcome::Skipped),
    ));
    lines.join("\n")
}

fn by(rule: Option<&str>) -> String {
    rule.map_or_else(|| "the default".to_owned(), |rule| format!("rule {rule}"))
}

fn verify(
    report: &Path,
    (ca_file, expected): (&Path, &SpiffeId),
    (now, max_age): (SystemTime, Duration),
) -> Result<Report, Failure> {
    let text = files::read(report)?;
    let roots = files::read(ca_file)?;
    let unusable =
        |error| Failure::new(format!("{} holds no roots", ca_file.display()), error).into_misuse();
    let roots = certificates(roots.as_bytes()).map_err(unusable)?;
    let bundles = TrustBundles::new()
        .with_domain(&expected.trust_domain().to_string(), &roots)
        .map_err(unusable)?;
    let doubted =
        |why| Failure::plain(format!("{} is not to be believed: {why}", report.display()));
    let (proof, signer) = prove::report::verify(&text, bundles, (now, max_age)).map_err(doubted)?;
    if signer.as_str() != expected.as_str() {
        return Err(doubted(format!("{signer} signed it, not {expected}")));
    }
    let holds = proof.holds();
    let verdict = if holds {
        "it holds"
    } else {
        "IT DOES NOT HOLD"
    };
    let text = format!(
        "signed by {signer} on {}; nothing was changed since; {verdict}\n{}",
        proof.time,
        self::text(&proof)
    );
    let json = json!({ "ok": holds, "signer": signer.as_str(), "proof": proof });
    Ok(Report::new(text, json).that_holds(holds))
}

/// Long enough for a proof, short enough to be worthless if it is stolen.
const LIFETIME: Duration = Duration::from_hours(1);

const EXIT_CODES: &str = "\
Exit codes:
  0  the node decided every probe as the policy says, and refused every attack
  1  something got through that should not, or the reverse; or the report is not to be believed
  2  wrong usage, or a wrong configuration";
