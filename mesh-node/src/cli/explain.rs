//! `mesh-node explain`: why a call is allowed or denied, and what would turn it; or which route it takes.

mod route;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use http::Request;
use http::header::HeaderName;
use http::header::HeaderValue;
use mesh_auth::caller::Caller;
use mesh_auth::caller::User;
use mesh_auth::policy::DEFAULT_RULE;
use mesh_auth::policy::Policy;
use mesh_auth::policy::Query;
use mesh_auth::policy::Recorded;
use mesh_auth::policy::claim_of_text;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;
use mesh_auth::request::strip_identity_headers;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use serde_json::Value;
use serde_json::json;

use super::Context;
use super::policy::Loaded;
use super::record;
use super::record::Entry;
use super::record::Read;
use super::report::Failure;
use super::report::Report;
use crate::explanation;

/// The arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Args {
    /// A decision, as a denied caller was told; it is looked up in the audit log.
    #[arg(
        value_name = "DECISION_ID",
        required_unless_present_any = ["call", "route"],
        conflicts_with = "call"
    )]
    decision: Option<String>,
    /// Explain the way out instead: which route a call of this node's application takes, and what is done with it.
    #[arg(
        long,
        conflicts_with_all = ["decision", "from", "port", "issuer", "subject", "at"]
    )]
    route: bool,
    #[command(flatten)]
    call: Call,
    /// The configuration whose policy decides.
    #[arg(short, long, value_name = "FILE", default_value = "mesh.yaml")]
    config: PathBuf,
}

/// A call that somebody asks about.
#[derive(Debug, clap::Args)]
#[group(id = "call", multiple = true)]
struct Call {
    /// Who calls: a service, or a SPIFFE id. Left out: a caller without a certificate.
    #[arg(long, value_name = "WHO")]
    from: Option<String>,
    /// The called service. Default: the one of the configuration.
    #[arg(long, value_name = "SERVICE")]
    to: Option<String>,
    /// The port. Default: that of the configuration, where its own service is called.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The method. Default GET, where a path is given; without both it is a connection that is not HTTP.
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// The path. Default /, where a method is given.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// The host. Default: the called service.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// A header of the request; may be given several times.
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Who vouches for the user.
    #[arg(long, value_name = "ISSUER", requires = "subject")]
    issuer: Option<String>,
    /// The user.
    #[arg(long, value_name = "SUBJECT", requires = "issuer")]
    subject: Option<String>,
    /// A group of the user; may be given several times.
    #[arg(long, value_name = "GROUP", requires = "subject")]
    group: Vec<String>,
    /// A role of the user; may be given several times.
    #[arg(long, value_name = "ROLE", requires = "subject")]
    role: Vec<String>,
    /// A claim of the user, its value as JSON or plain text; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", requires = "subject")]
    claim: Vec<String>,
    /// When: 2027-03-31T18:00:00Z or 2027-03-31. Default: now.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Report, Failure> {
    if args.route {
        return routed(&args.call, &args.config, context);
    }
    let loaded = Loaded::of_config(&args.config, context)?;
    match &args.decision {
        Some(id) => recorded(id, &loaded),
        None => asked(&args.call, &loaded, context),
    }
}

/// Explains the way out of a call that somebody describes.
fn routed(call: &Call, file: &Path, context: &Context) -> Result<Report, Failure> {
    let service = call.to.as_deref().or(call.host.as_deref()).ok_or_else(|| {
        Failure::misuse("--route needs --to: the service that the application calls")
    })?;
    let request = described(call, service)?;
    route::explain(
        &route::Described {
            service,
            request: &request,
        },
        file,
        context,
    )
}

/// Explains a call that somebody describes.
fn asked(call: &Call, loaded: &Loaded, context: &Context) -> Result<Report, Failure> {
    let config = &loaded.config;
    let service = call.to.as_deref().unwrap_or(&config.service.id);
    let caller = caller(call, &loaded.own)?;
    let own_port = (service == config.service.id).then(|| config.service.listen.port());
    let request = request(call, service)?;
    let now = match &call.at {
        Some(text) => time(text).map_err(|message| Failure::misuse(format!("--at {message}")))?,
        None => context.unix_seconds(),
    };
    let query = Query::new(&caller, service, now).with_port(call.port.or(own_port).unwrap_or(0));
    let query = match &request {
        Some(request) => query.with_request(request),
        None => query,
    };
    let explain = |policy: &Policy| policy.explain(&query);
    let live = explain(&loaded.policy);
    let shadow = loaded.shadow.as_ref().map(explain);
    let mut text = String::new();
    if shadow.is_some() {
        text.push_str("By the policy in force:\n");
    }
    text.push_str(&explanation::as_text(&live, &service));
    if let Some(shadow) = &shadow {
        text.push_str("\nBy the shadow policy, which decides nothing:\n");
        text.push_str(&explanation::as_text(shadow, &service));
    }
    let json = json!({
        "ok": true,
        "explanation": explanation::as_json(&live),
        "shadow": shadow.as_ref().map(explanation::as_json),
    });
    Ok(Report::new(text, json))
}

/// Explains a decision that the audit log has.
fn recorded(id: &str, loaded: &Loaded) -> Result<Report, Failure> {
    let is_id = !id.is_empty()
        && id.len() <= LONGEST_ID
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_id {
        return Err(Failure::misuse(format!(
            "{id:?} is not the id of a decision: these are 26 letters and digits, as a denied caller is told"
        )));
    }
    if !loaded.config.audit.enabled {
        return Err(Failure::plain(
            "the configuration writes no audit log (audit.enabled: false), so decisions can't be looked up",
        ));
    }
    let path = &loaded.config.audit.path;
    let mut read = Read::default();
    let mark = format!("\"decision\":\"{id}\"");
    for file in newest_first(path) {
        let mut found = None;
        let this = record::search(&file, &mark, |entry| {
            found = Some(entry);
            ControlFlow::Break(())
        })?;
        read.warnings.extend(this.warnings);
        if let Some(entry) = found {
            return told(id, &entry, &read, loaded);
        }
    }
    let warnings = lines(&read.warnings);
    Err(Failure::plain(format!(
        "there is no decision {id} in {}; is it one of this node?{warnings}",
        path.display()
    )))
}

fn told(id: &str, entry: &Entry, read: &Read, loaded: &Loaded) -> Result<Report, Failure> {
    let recorded = entry.recorded.as_ref().map_err(|error| {
        Failure::plain(format!(
            "the record of the decision {id} can't be explained: {error}"
        ))
    })?;
    let verdict = recorded.verdict_text();
    let by = recorded.rule.as_deref().unwrap_or(DEFAULT_RULE);
    let live = again(recorded, &loaded.policy);
    let since = if live.is_same {
        "By the present policy:"
    } else {
        "The policy has changed since. By the present one:"
    };
    let mut parts = vec![
        format!(
            "Decision {id}, recorded {}: {verdict} by {by}.\n",
            entry.time
        ),
        format!("{since}\n{}", live.text),
    ];
    if let Some(verdict) = entry.fields.get("shadow_verdict") {
        let by = entry.fields.get("shadow_rule");
        let by = by.map_or(DEFAULT_RULE, String::as_str);
        parts.push(format!(
            "The shadow policy of then said {verdict} by {by}.\n"
        ));
    }
    let shadow = loaded.shadow.as_ref().map(|shadow| again(recorded, shadow));
    if let Some(shadow) = &shadow {
        parts.push(format!(
            "By the present shadow policy, which decides nothing:\n{}",
            shadow.text
        ));
    }
    let text = parts.join("\n") + &lines(&read.warnings);
    let fields: BTreeMap<&str, &str> = entry
        .fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let json = json!({
        "ok": true,
        "decision": id,
        "time": entry.time,
        "verdict": verdict,
        "rule": by,
        "record": fields,
        "has_changed": !live.is_same,
        "explanation": live.json,
        "shadow": shadow.map(|shadow| shadow.json),
        "warnings": read.warnings,
    });
    Ok(Report::new(text, json))
}

/// What a policy says about a recorded call.
struct Again {
    text: String,
    json: Value,
    /// Whether its verdict is that of the record, as far as it has one.
    is_same: bool,
}

fn again(recorded: &Recorded, policy: &Policy) -> Again {
    match recorded.facts.explain(policy) {
        Ok(explained) => Again {
            is_same: explained.decision.verdict == recorded.verdict,
            text: explanation::as_text(&explained, &recorded.facts.service),
            json: explanation::as_json(&explained),
        },
        Err(missing) => Again {
            is_same: true,
            text: format!(
                "It can't decide this call again, as it reads what was not recorded: {}.\n",
                missing.join(", ")
            ),
            json: json!({ "undecidable": missing }),
        },
    }
}

fn lines(warnings: &[String]) -> String {
    warnings
        .iter()
        .map(|warning| format!("\nwarning: {warning}"))
        .collect::<Vec<_>>()
        .concat()
}

/// The log and the older ones that somebody moved aside under longer names (`mesh-audit.log.1`), the newest first.
fn newest_first(path: &Path) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Ok(entries) = fs::read_dir(folder.unwrap_or(Path::new("."))) else {
        return files;
    };
    let is_older = |name: &str, other: &str| {
        let rest = other.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['.', '-']))
    };
    let mut older: Vec<(SystemTime, PathBuf)> = entries
        .take(MOST_ENTRIES)
        .filter_map(Result::ok)
        .filter(|entry| is_older(&name, &entry.file_name().to_string_lossy()))
        .filter_map(|entry| {
            let facts = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((facts.modified().ok()?, entry.path()))
        })
        .collect();
    older.sort();
    files.extend(
        older
            .into_iter()
            .rev()
            .take(MOST_FILES)
            .map(|(_, path)| path),
    );
    files
}

fn caller(call: &Call, own: &TrustDomain) -> Result<Caller, Failure> {
    let id = call.from.as_deref().map(|from| {
        spiffe_id(from, own).map_err(|error| {
            Failure::new(format!("--from {from:?} is nobody"), error).into_misuse()
        })
    });
    let user = match (&call.issuer, &call.subject) {
        (Some(issuer), Some(subject)) => {
            let mut user = User::new(issuer, subject);
            user.groups = call
                .group
                .iter()
                .map(|group| group.as_str().into())
                .collect();
            user.roles = call.role.iter().map(|role| role.as_str().into()).collect();
            for claim in &call.claim {
                let (name, value) = claim.split_once('=').ok_or_else(|| {
                    Failure::misuse(format!("--claim {claim:?} is not NAME=VALUE"))
                })?;
                user.claims.insert(name.into(), claim_of_text(value));
            }
            Some(Arc::new(user))
        }
        _ => None,
    };
    Ok(Caller::new(id.transpose()?, user))
}

/// A service of the own trust domain, or a whole SPIFFE id.
pub(super) fn spiffe_id(
    who: &str,
    own: &TrustDomain,
) -> Result<SpiffeId, mesh_auth::spiffe::SpiffeIdError> {
    if who.contains("://") {
        SpiffeId::parse(who)
    } else {
        SpiffeId::for_service(own, who)
    }
}

fn request(call: &Call, service: &str) -> Result<Option<CanonicalRequest>, Failure> {
    let says_nothing = call.method.is_none() && call.path.is_none();
    if says_nothing && call.host.is_none() && call.header.is_empty() {
        return Ok(None);
    }
    described(call, service).map(Some)
}

fn described(call: &Call, service: &str) -> Result<CanonicalRequest, Failure> {
    let method = call.method.as_deref().unwrap_or("GET");
    let path = call.path.as_deref().unwrap_or("/");
    let mut headers = Vec::new();
    for header in &call.header {
        let (name, value) = header.split_once(':').ok_or_else(|| {
            Failure::misuse(format!("--header {header:?} is not \"NAME: VALUE\""))
        })?;
        headers.push((name.trim(), value.trim()));
    }
    let host = call.host.as_deref().unwrap_or(service);
    canonical((method, path, host), &headers).map_err(|message| {
        Failure::misuse(format!(
            "the request is none that a rule is asked about: {message}"
        ))
    })
}

/// The request as rules see it.
pub(super) fn canonical(
    (method, path, host): (&str, &str, &str),
    headers: &[(&str, &str)],
) -> Result<CanonicalRequest, String> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, host)
        .body(())
        .map_err(|error| format!("{method} {path} of {host}: {error}"))?;
    let mut parts = request.into_parts().0;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|error| format!("the header {name:?}: {error}"))?;
        let value = HeaderValue::from_str(value)
            .map_err(|error| format!("the value of the header {name}: {error}"))?;
        parts.headers.append(name, value);
    }
    // Whether path parameters are accepted is the listener's choice.
    let limits = Limits::default().with_path_parameters(true);
    let mut request = CanonicalRequest::new(parts, &limits).map_err(|error| error.to_string())?;
    // As a node does before it asks a rule.
    strip_identity_headers(request.headers_mut(), &[]);
    Ok(request)
}

/// Seconds since 1970 of a time or of the beginning of a day, in UTC.
pub(super) fn time(text: &str) -> Result<u64, String> {
    let whole = if text.contains('T') {
        text.to_owned()
    } else {
        format!("{text}T00:00:00Z")
    };
    let time = humantime::parse_rfc3339(&whole)
        .map_err(|_error| format!("{text:?} is neither 2027-03-31T18:00:00Z nor 2027-03-31"))?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    Ok(since.unwrap_or_default().as_secs())
}

const EXIT_CODES: &str = "\
Exit codes:
  0  explained, whatever the verdict
  1  the decision is not in the record, or can't be explained
  2  wrong usage, or a wrong configuration";
const LONGEST_ID: usize = 64;
/// Bounds the look at a folder that is full of something else.
const MOST_ENTRIES: usize = 10_000;
const MOST_FILES: usize = 100;
