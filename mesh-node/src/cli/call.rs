//! `mesh-node call`: one JSON call through a running node.

use std::path::PathBuf;

use http::Request;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Limited;
use mesh_transport::Body;
use mesh_transport::app::AppClient;
use mesh_transport::app::AppConfig;
use mesh_transport::tasks::Tasks;
use serde_json::Value;
use serde_json::json;

use super::Context;
use super::report::Failure;
use super::report::Report;
use crate::config::NodeConfig;
use crate::stack::outbound::CALL_PREFIX;
use crate::stack::outbound::X_CIRCUIT_BREAKER_STATE;

/// The arguments of `call`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Service to call.
    service: String,
    /// Method to call.
    method: String,
    /// Input, as JSON.
    #[arg(long, value_name = "JSON", default_value = "null")]
    data: String,
    /// The configuration of the running node, whose outbound listener the call goes through.
    #[arg(short, long, value_name = "FILE", default_value = "mesh.yaml")]
    config: PathBuf,
}

/// Makes the call.
pub(super) fn run(args: &Args, context: &Context) -> Result<Report, Failure> {
    let data: Value = serde_json::from_str(&args.data)
        .map_err(|source| Failure::new("--data is not JSON", source).into_misuse())?;
    let config = NodeConfig::load(&args.config, &context.environment)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|source| Failure::new("could not start the async runtime", source))?;
    runtime.block_on(send(args, &config, &data))
}

async fn send(args: &Args, config: &NodeConfig, data: &Value) -> Result<Report, Failure> {
    let listen = config.outbound.listen.to_string();
    let client = AppClient::new(
        AppConfig::new(&*listen),
        Tasks::new(tokio::runtime::Handle::current()),
    );
    let request = Request::post(format!("{CALL_PREFIX}{}/{}", args.service, args.method))
        .header(header::HOST, &listen)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(data.to_string()))
        .map_err(|source| {
            Failure::new("service or method can't stand in a URL", source).into_misuse()
        })?;
    let unreached = |source| {
        Failure::new(
            format!("no node answers on {listen}; is `mesh-node run` running with this file?"),
            source,
        )
    };
    let response = client.send(request).await.map_err(unreached)?;
    let status = response.status();
    let breaker = response
        .headers()
        .get(X_CIRCUIT_BREAKER_STATE)
        .and_then(|state| state.to_str().ok())
        .map(str::to_owned);
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await;
    let body = body
        .map_err(|source| Failure::new("the answer broke off", source))?
        .to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    let answer: Value =
        serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(text.clone()));
    if !status.is_success() {
        let message = answer
            .pointer("/error/message")
            .and_then(Value::as_str)
            .unwrap_or(&text)
            .trim_end();
        return Err(Failure::plain(format!("{status}: {message}")));
    }
    let shown = format!("{answer:#}");
    Ok(Report::new(
        shown,
        json!({ "status": status.as_u16(), "circuitBreaker": breaker, "answer": answer }),
    ))
}

/// An answer is held whole to be printed.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
