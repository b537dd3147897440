//! `mesh-node token`: tokens of services and users, and API keys.

mod user;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use clap::Subcommand;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::token::Expect;
use mesh_auth::token::Issuer;
use mesh_auth::token::Ring;
use mesh_auth::token::ServiceClaims;
use mesh_auth::token::Verifier;
use serde_json::json;

use super::Context;
use super::files;
use super::report::Failure;
use super::report::Report;
use crate::config::NodeConfig;
use crate::service_token;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Issues a token.
    Issue {
        /// Who calls: a SPIFFE id, or with a configuration a service of its trust domain; a consumer's token names anybody.
        #[arg(long, value_name = "WHO")]
        subject: String,
        /// Who is called, as it checks `aud`.
        #[arg(long, value_name = "SERVICE")]
        audience: String,
        /// How long the token is valid. Default: the configuration's, else 1h.
        #[arg(long, value_parser = humantime::parse_duration)]
        expiry: Option<Duration>,
        /// A group of the caller, for rules that say group:NAME; may be repeated.
        #[arg(long, value_name = "NAME")]
        group: Vec<String>,
        /// Writes the token that this consumer of the configuration would, with its secret.
        #[arg(
            long,
            value_name = "NAME",
            requires = "config",
            conflicts_with = "group"
        )]
        consumer: Option<String>,
        #[command(flatten)]
        keys: Keys,
    },
    /// Checks a token, and prints what it says: one of a service, or of an issuer or consumer of the configuration.
    Verify {
        /// The token; - reads it from standard input.
        token: String,
        /// Who is called: `aud` must be this.
        #[arg(long, value_name = "SERVICE")]
        audience: String,
        /// The key set of the token's issuer, where the configuration has a URL.
        #[arg(long, value_name = "FILE", requires = "config")]
        jwks: Option<PathBuf>,
        #[command(flatten)]
        keys: Keys,
    },
    /// Prints what any token says, without checking it.
    Inspect {
        /// The token; - reads it from standard input.
        token: String,
    },
    /// Makes an API key, prints it once, and the hash that goes into the configuration.
    ApiKey {
        /// The consumer that will use it.
        #[arg(long, value_name = "NAME")]
        consumer: String,
    },
}

/// Where the secret and the issuer come from.
#[derive(Debug, clap::Args)]
pub(super) struct Keys {
    /// The configuration with auth.jwt.
    #[arg(
        short,
        long,
        value_name = "FILE",
        required_unless_present = "secret_file"
    )]
    config: Option<PathBuf>,
    /// A file that holds the secret on one line, in place of a configuration.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "config",
        requires = "issuer"
    )]
    secret_file: Option<PathBuf>,
    /// `iss` of the token. Default: the configuration's.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
}

/// What [`Keys`] lead to.
struct Source {
    ring: Arc<Ring>,
    issuer: String,
    config: Option<NodeConfig>,
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Report, Failure> {
    match command {
        Command::Issue {
            consumer: Some(name),
            subject,
            audience,
            expiry,
            keys,
            ..
        } => {
            let config = keys.config(context)?;
            let wanted = user::Wanted {
                subject,
                audience,
                lifetime: *expiry,
            };
            user::issue(&config, name, &wanted, context)
        }
        Command::Issue {
            subject,
            audience,
            expiry,
            group,
            keys,
            consumer: None,
        } => issue((subject, audience), (*expiry, group), keys, context),
        Command::Verify {
            token,
            audience,
            jwks,
            keys,
        } => {
            let token = given(token)?;
            if keys.config.is_some() {
                let config = keys.config(context)?;
                let claims = user::claims_of(&token)?;
                let is_service = config.auth.jwt.is_some()
                    && claims["iss"].as_str() == Some(config.token_issuer());
                if config.auth.knows_users() && !is_service {
                    return user::verify(&config, (&token, audience), jwks.as_deref(), context);
                }
            }
            verify(&token, audience, keys, context)
        }
        Command::Inspect { token } => user::inspect(&given(token)?),
        Command::ApiKey { consumer } => user::api_key(consumer),
    }
}

/// The token itself, or what comes in on standard input.
fn given(token: &str) -> Result<String, Failure> {
    if token != "-" {
        return Ok(token.to_owned());
    }
    let read = files::read(std::path::Path::new("/dev/stdin"))?;
    Ok(read.trim().to_owned())
}

fn issue(
    (subject, audience): (&str, &str),
    (expiry, group): (Option<Duration>, &[String]),
    keys: &Keys,
    context: &Context,
) -> Result<Report, Failure> {
    let source = keys.open(context)?;
    let configured = source
        .config
        .as_ref()
        .and_then(|config| config.auth.jwt.as_ref());
    let subject = source.subject(subject)?;
    let mut claims = ServiceClaims::new(subject, audience).with_groups(group.to_vec());
    if let Some(lifetime) = expiry.or(configured.map(|jwt| jwt.token_expiry)) {
        claims = claims.with_lifetime(lifetime);
    }
    let token = Issuer::new(source.ring, &source.issuer)
        .issue(&claims, context.unix_seconds())
        .map_err(|error| Failure::new("could not issue the token", error))?;
    Ok(Report::new(
        token.clone(),
        json!({ "ok": true, "token": token }),
    ))
}

fn verify(token: &str, audience: &str, keys: &Keys, context: &Context) -> Result<Report, Failure> {
    let source = keys.open(context)?;
    let expect = Expect {
        audience,
        issuer: &source.issuer,
        now: context.unix_seconds(),
    };
    let claims = Verifier::new(source.ring)
        .verify(token, &expect)
        .map_err(|error| Failure::new("the token is not valid", error))?;
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(claims.expires_at.min(LAST_SECOND));
    let until = humantime::format_rfc3339_seconds(until).to_string();
    let groups: Vec<&str> = claims.groups.iter().map(AsRef::as_ref).collect();
    let mut lines = vec![
        format!("valid until {until}"),
        format!("  subject   {}", claims.subject),
        format!("  audience  {}", claims.audience),
        format!("  issuer    {}", claims.issuer),
    ];
    if !groups.is_empty() {
        lines.push(format!("  groups    {}", groups.join(", ")));
    }
    let json = json!({
        "ok": true, "subject": claims.subject.as_str(), "audience": claims.audience, "issuer": claims.issuer,
        "expires": until, "groups": groups, "session": claims.session, "id": claims.id,
    });
    Ok(Report::new(lines.join("\n"), json))
}

impl Keys {
    fn config(&self, context: &Context) -> Result<NodeConfig, Failure> {
        let path = self
            .config
            .as_ref()
            .ok_or_else(|| Failure::misuse("name a configuration with -c"))?;
        Ok(NodeConfig::load(path, &context.environment)?)
    }

    fn open(&self, context: &Context) -> Result<Source, Failure> {
        let config = match &self.config {
            Some(path) => Some(NodeConfig::load(path, &context.environment)?),
            None => None,
        };
        let jwt = config.as_ref().and_then(|config| config.auth.jwt.as_ref());
        let ring = match (&self.secret_file, jwt) {
            (Some(file), _) => {
                let secret = files::read(file)?;
                Ring::single(secret.trim_end_matches(['\r', '\n']).as_bytes())
                    .map_err(|error| Failure::new("the secret is not usable", error))?
            }
            (None, Some(jwt)) => service_token::ring(jwt)
                .map_err(|error| Failure::new("auth.jwt is not usable", error))?,
            (None, None) => {
                return Err(Failure::misuse(
                    "the configuration has no auth.jwt, so there are no tokens",
                ));
            }
        };
        let default = config.as_ref().map(NodeConfig::token_issuer);
        let issuer = self
            .issuer
            .clone()
            .or(default.map(str::to_owned))
            .unwrap_or_default();
        Ok(Source {
            ring: Arc::new(ring),
            issuer,
            config,
        })
    }
}

impl Source {
    fn subject(&self, text: &str) -> Result<SpiffeId, Failure> {
        let id = match &self.config {
            Some(config) if !text.contains("://") => config.spiffe_id_of(text),
            _ => text.to_owned(),
        };
        SpiffeId::parse(&id)
            .map_err(|error| Failure::new(format!("{text:?} is no subject"), error).into_misuse())
    }
}

/// The last second of the year 9999, the last that RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;
