//! `mesh-node policy test`: a policy against a table of expectations.

use std::path::PathBuf;
use std::sync::Arc;

use mesh_auth::caller::Caller;
use mesh_auth::caller::User;
use mesh_auth::policy::Expectation;
use mesh_auth::policy::Verdict;
use mesh_auth::policy::claim_of_text;
use mesh_auth::spiffe::TrustDomain;
use serde_json::Value;
use serde_json::json;

use super::Context;
use super::Domain;
use super::Failure;
use super::Loaded;
use super::Report;
use super::of_file;
use crate::cli::explain::canonical;
use crate::cli::explain::spiffe_id;
use crate::cli::explain::time;
use crate::config::ExpectedUser;
use crate::config::ExpectedVerdict;
use crate::config::TestConfig;
use crate::config::TestDocument;
use crate::explanation;

/// The arguments of `policy test`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The table.
    table: PathBuf,
    /// A policy file. Default: the policy of the configuration.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    domain: Domain,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Report, Failure> {
    let (policy, own) = match &args.policy {
        Some(path) => {
            let (own, scope) = args.domain.scope(context)?;
            (of_file(path, &scope, context)?, own)
        }
        None => {
            let loaded = Loaded::of_config(&args.domain.config, context)?;
            (loaded.policy, loaded.own)
        }
    };
    let document = TestDocument::read(&args.table, &context.environment)?;
    let tests = document.tests()?;
    let now = context.unix_seconds();
    let mut expectations = Vec::with_capacity(tests.len());
    for (test, index) in tests.iter().zip(0_usize..) {
        let wrong = |(key, message): (&str, String)| {
            let key = format!("tests[{index}].{key}");
            Failure::from(document.error(&key, message))
        };
        expectations.push(expectation(test, &own, now).map_err(wrong)?);
    }
    let (mut lines, mut json, mut surprises) = (Vec::new(), Vec::new(), 0_usize);
    for expectation in &expectations {
        match expectation.check(&policy) {
            Ok(()) => {
                lines.push(format!("ok    {}", expectation.name));
                json.push(json!({ "name": expectation.name, "ok": true }));
            }
            Err(surprise) => {
                surprises += 1;
                lines.push(format!("FAIL  {surprise}"));
                json.push(json!({
                    "name": surprise.name, "ok": false, "expected": surprise.verdict.as_str(),
                    "expected_rule": surprise.rule, "explanation": explanation::as_json(&surprise.explanation),
                }));
            }
        }
    }
    let all = expectations.len();
    lines.push(format!("{} of {all} expectation(s) hold", all - surprises));
    let json = json!({ "ok": surprises == 0, "tests": json, "surprises": surprises });
    Ok(Report::new(lines.join("\n"), json).that_holds(surprises == 0))
}

/// The expectation that a row of the table states; else the key that is wrong, and what is.
fn expectation<'a>(
    test: &TestConfig,
    own: &TrustDomain,
    now: u64,
) -> Result<Expectation, (&'a str, String)> {
    let id = test.from.as_deref().map(|from| spiffe_id(from, own));
    let id = id
        .transpose()
        .map_err(|error| ("from", format!("is nobody: {error}")))?;
    let caller = Caller::new(
        id,
        test.user.as_ref().map(|expected| Arc::new(user(expected))),
    );
    let at = test.at.as_deref().map_or(Ok(now), time);
    let at = at.map_err(|message| ("at", message))?;
    let verdict = match test.expect {
        ExpectedVerdict::Allow => Verdict::Allow,
        ExpectedVerdict::Deny => Verdict::Deny,
    };
    let mut expectation = Expectation::new(&test.name, caller, (&test.to, at), verdict);
    if let Some(port) = test.port {
        expectation = expectation.with_port(port);
    }
    if let Some(rule) = &test.rule {
        expectation = expectation.with_rule(rule);
    }
    if !test.is_http() {
        return Ok(expectation);
    }
    let method = test.method.as_deref().unwrap_or("GET");
    let path = test.path.as_deref().unwrap_or("/");
    let host = test.host.as_deref().unwrap_or(&test.to);
    let headers = test.headers.iter();
    let headers: Vec<(&str, &str)> = headers
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let request = canonical((method, path, host), &headers);
    let refused = |message| ("path", format!("is asked of no rule: {message}"));
    Ok(expectation.with_request(request.map_err(refused)?))
}

fn user(expected: &ExpectedUser) -> User {
    let mut user = User::new(&expected.issuer, &expected.subject);
    user.groups = expected
        .groups
        .iter()
        .map(|group| group.as_str().into())
        .collect();
    user.roles = expected
        .roles
        .iter()
        .map(|role| role.as_str().into())
        .collect();
    for (name, value) in &expected.claims {
        let value = match value {
            Value::String(text) => claim_of_text(text),
            // A list or map holds texts; as JSON it reads as itself.
            other => claim_of_text(&other.to_string()),
        };
        user.claims.insert(name.as_str().into(), value);
    }
    user
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  every expectation holds
  1  some do not
  2  wrong usage, a wrong policy, or a wrong table";
