//! `mesh-node services`: where a running node's services are, how their endpoints do, and why.

mod resilience;

use std::path::PathBuf;

use http::Request;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Limited;
use mesh_discovery::ServiceName;
use mesh_transport::Body;
use mesh_transport::app::AppClient;
use mesh_transport::app::AppConfig;
use mesh_transport::tasks::Tasks;
use serde_json::Value;

use super::Context;
use super::report::Failure;
use super::report::Report;
use crate::config::NodeConfig;

/// The arguments of `services`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A service: each of its endpoints. Default: all services, a line each.
    service: Option<String>,
    /// The configuration of the running node, whose admin listener is asked.
    #[arg(short, long, value_name = "FILE", default_value = "mesh.yaml")]
    config: PathBuf,
}

/// Asks the node.
pub(super) fn run(args: &Args, context: &Context) -> Result<Report, Failure> {
    let config = NodeConfig::load(&args.config, &context.environment)?;
    let path = match &args.service {
        None => "/services".to_owned(),
        Some(service) if ServiceName::parse(service).is_ok() => format!("/services/{service}"),
        Some(service) => {
            let message = format!("{service:?} is no name of a service");
            return Err(Failure::misuse(message));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|source| Failure::new("could not start the async runtime", source))?;
    let page = runtime.block_on(ask(&config, &path))?;
    let text = match &args.service {
        None => all(&page),
        Some(_) => one(&page),
    };
    Ok(Report::new(text, page))
}

async fn ask(config: &NodeConfig, path: &str) -> Result<Value, Failure> {
    let listen = config.admin.listen.to_string();
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let client = AppClient::new(AppConfig::new(&*listen), tasks);
    let request = Request::get(path)
        .header(header::HOST, &listen)
        .body(Body::empty())
        .map_err(|source| Failure::new("the name can't stand in a URL", source).into_misuse())?;
    let response = client.send(request).await.map_err(|source| {
        let message =
            format!("no node answers on {listen}; is `mesh-node run` running with this file?");
        Failure::new(message, source)
    })?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_PAGE_BYTES).collect();
    let body = body
        .await
        .map_err(|source| Failure::new("the answer broke off", source))?
        .to_bytes();
    if !status.is_success() {
        let text = String::from_utf8_lossy(&body);
        return Err(Failure::plain(format!("{status}: {}", text.trim_end())));
    }
    serde_json::from_slice(&body)
        .map_err(|source| Failure::new("the answer is no page of a node", source))
}

/// A line for each service.
fn all(page: &Value) -> String {
    let services = page["services"].as_array().map_or(&[][..], Vec::as_slice);
    if services.is_empty() {
        return "The node knows no services; see discovery in its configuration.\n".to_owned();
    }
    let mut rows = vec![row([
        "SERVICE",
        "ENDPOINTS",
        "STANDING",
        "SOURCE",
        "ANSWERED",
        "CIRCUIT",
    ])];
    rows.extend(services.iter().map(|service| {
        row([
            &shown(&service["service"]),
            &states(&service["states"]),
            &shown(&service["standing"]),
            &names(&service["sources"]),
            &ago(&service["answeredSecondsAgo"]),
            &shown(&service["circuitBreaker"]),
        ])
    }));
    let reasons = services.iter().filter_map(|service| {
        let reason = service["reason"].as_str()?;
        Some(format!("\n{}: {reason}", shown(&service["service"])))
    });
    let without_effect = list(&page["controlPlanes"]).iter().map(without_effect);
    let open = services.iter().map(resilience::open_routes);
    let more = reasons.chain(without_effect).chain(open);
    table(&rows) + &more.collect::<String>() + &resilience::here(page)
}

/// What a control plane sent that has no effect; nothing where it sent no such thing.
fn without_effect(plane: &Value) -> String {
    let fields = list(&plane["ignored"]);
    if fields.is_empty() {
        return String::new();
    }
    let lines = fields.iter().take(MAX_FIELDS).map(|field| {
        let (name, count) = (shown(&field["field"]), shown(&field["count"]));
        // Whoever fills the control plane writes to this terminal.
        let first = shown(&field["first"]);
        format!(
            "\n  {name} ({count} times, first in {})",
            first.escape_debug()
        )
    });
    let left_out = plane["ignoredLeftOut"].as_u64().unwrap_or_default();
    let more = match fields.len().saturating_sub(MAX_FIELDS) {
        0 if left_out == 0 => String::new(),
        _ => "\n  and more, see --json".to_owned(),
    };
    let source = shown(&plane["source"]);
    format!(
        "\n{source}: fields that have no effect here:{}{more}",
        lines.collect::<String>()
    )
}

/// A service with its sources and endpoints.
fn one(service: &Value) -> String {
    let mut text = format!(
        "{}: {}; circuit {}\n",
        shown(&service["service"]),
        shown(&service["standing"]),
        shown(&service["circuitBreaker"])
    );
    text.extend(list(&service["sources"]).iter().map(source));
    if service["usesAll"] == true && service["endpoints"] != 0 {
        text.push_str("  No endpoint may be used, so all are.\n");
    }
    text.extend(list(&service["drops"]).iter().map(dropped));
    text.push_str(&resilience::lanes(service));
    let mut rows = vec![row([
        "ADDRESS",
        "STATE",
        "WEIGHT",
        "PRIORITY",
        "ZONE",
        "VERSION",
        "SOURCE",
        "AGE",
        "IN FLIGHT",
        "REASON",
    ])];
    rows.extend(list(&service["endpointList"]).iter().map(|endpoint| {
        row([
            &shown(&endpoint["address"]),
            &shown(&endpoint["state"]),
            &resilience::weight(endpoint),
            &shown(&endpoint["priority"]),
            &shown(&endpoint["zone"]),
            &shown(&endpoint["version"]),
            &shown(&endpoint["source"]),
            &age(&endpoint["ageSeconds"]),
            &shown(&endpoint["inFlight"]),
            &resilience::reason(endpoint),
        ])
    }));
    if rows.len() > 1 {
        text.push('\n');
        text.push_str(&table(&rows));
    }
    let expected: std::collections::BTreeSet<_> = list(&service["endpointList"])
        .iter()
        .map(|endpoint| shown(&endpoint["spiffeId"]))
        .collect();
    text.extend(expected.iter().map(|id| format!("\nexpected: {id}")));
    text
}

/// A share of the requests that is dropped.
fn dropped(share: &Value) -> String {
    let per_million = share["perMillion"].as_f64().unwrap_or_default();
    format!(
        "  {} wants {} % of the requests dropped ({})\n",
        shown(&share["source"]),
        per_million / 1e4,
        shown(&share["category"]),
    )
}

/// What a source says.
fn source(source: &Value) -> String {
    let used = if source["isUsed"] == true {
        "used"
    } else {
        "not used"
    };
    let failure = source["failure"].as_str();
    let failure = failure.map(|failure| format!("\n    no answer: {failure}"));
    format!(
        "  {} ({used}): {}, {} endpoints, answered {}, changed {}{}\n",
        shown(&source["source"]),
        shown(&source["standing"]),
        shown(&source["endpoints"]),
        ago(&source["answeredSecondsAgo"]),
        ago(&source["changedSecondsAgo"]),
        failure.unwrap_or_default(),
    )
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[][..], Vec::as_slice)
}

/// `3 healthy, 1 ejected`.
fn states(states: &Value) -> String {
    let counts: Vec<String> = states
        .as_object()
        .into_iter()
        .flatten()
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    if counts.is_empty() {
        "none".to_owned()
    } else {
        counts.join(", ")
    }
}

/// The sources whose endpoints are used.
fn names(sources: &Value) -> String {
    let used = list(sources)
        .iter()
        .filter(|source| source["isUsed"] == true);
    let names: Vec<String> = used.map(|source| shown(&source["source"])).collect();
    if names.is_empty() {
        NOTHING.to_owned()
    } else {
        names.join(", ")
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn ago(seconds: &Value) -> String {
    if seconds.is_null() {
        return NOTHING.to_owned();
    }
    format!("{} ago", age(seconds))
}

/// `45s`, `3m`, `2h`, `5d`.
fn age(seconds: &Value) -> String {
    match seconds.as_u64() {
        None => NOTHING.to_owned(),
        Some(seconds @ ..120) => format!("{seconds}s"),
        Some(seconds @ ..7_200) => format!("{}m", seconds / 60),
        Some(seconds @ ..172_800) => format!("{}h", seconds / 3600),
        Some(seconds) => format!("{}d", seconds / 86_400),
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Columns as wide as their widest cell, two blanks apart.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Enough to see what a control plane expects in vain; `--json` has more.
const MAX_FIELDS: usize = 20;
const NOTHING: &str = "-";
/// A page is held whole to be printed; one of 10,000 endpoints has some 10 MiB.
const MAX_PAGE_BYTES: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_as_wide_as_what_it_holds() {
        let page = json!({ "services": [
            { "service": "order-service", "states": { "ejected": 1, "healthy": 3 }, "standing": "fresh",
              "sources": [{ "source": "dns", "isUsed": false }, { "source": "consul", "isUsed": true }], "answeredSecondsAgo": 119, "circuitBreaker": "CLOSED" },
            { "service": "users", "states": {}, "standing": "stale: source unreachable", "sources": [],
              "circuitBreaker": "OPEN", "reason": "consul: connection refused" },
        ] });
        let expected = "\
SERVICE        ENDPOINTS             STANDING                   SOURCE  ANSWERED  CIRCUIT
order-service  1 ejected, 3 healthy  fresh                      consul  119s ago  CLOSED
users          none                  stale: source unreachable  -       -         OPEN

users: consul: connection refused";
        assert_eq!(all(&page), expected);
        assert_eq!(
            [7_199, 7_200, 172_800].map(|s| age(&json!(s))),
            ["119m", "2h", "2d"]
        );
    }

    #[test]
    fn what_a_control_plane_sends_without_effect_writes_to_no_terminal_and_fills_none() {
        let field = json!({ "field": "a.B.c", "count": 2, "first": "order\u{1b}[2J" });
        let plane = json!({ "source": "xds", "ignored": [field], "ignoredLeftOut": 0 });
        let expected =
            "\nxds: fields that have no effect here:\n  a.B.c (2 times, first in order\\u{1b}[2J)";
        assert_eq!(without_effect(&plane), expected);
        let many = json!({ "source": "xds", "ignored": vec![field; 100], "ignoredLeftOut": 9 });
        let text = without_effect(&many);
        assert!(text.ends_with("\n  and more, see --json"), "{text}");
        assert_eq!(text.matches("a.B.c").count(), MAX_FIELDS);
        assert_eq!(
            without_effect(&json!({ "source": "xds", "ignored": [] })),
            ""
        );
    }
}
