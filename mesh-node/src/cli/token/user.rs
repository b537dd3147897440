//! Tokens and keys of users and consumers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh_auth::caller::User;
use mesh_auth::token::ApiKey;
use mesh_auth::token::Consumer;
use mesh_auth::token::RANDOM_BYTES;
use mesh_auth::token::dangerous;
use mesh_crypto::SystemRandom;
use serde_json::Value;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::Context;
use super::super::report::Failure;
use super::super::report::Report;
use crate::config::NodeConfig;
use crate::credentials::verifier_of;
use crate::jwks::read_keys;
use crate::secret_file;

/// What a consumer's token says.
pub(super) struct Wanted<'a> {
    pub(super) subject: &'a str,
    pub(super) audience: &'a str,
    pub(super) lifetime: Option<Duration>,
}

/// A token that the consumer `name` of `config` would write.
pub(super) fn issue(
    config: &NodeConfig,
    name: &str,
    wanted: &Wanted<'_>,
    context: &Context,
) -> Result<Report, Failure> {
    let found = config.auth.consumers.iter().find(|own| own.name == name);
    let found =
        found.ok_or_else(|| Failure::misuse(format!("auth.consumers has no consumer {name}")))?;
    let (Some(key), Some(file)) = (&found.key, &found.secret_file) else {
        let message = format!("consumer {name} has no secret_file, so it signs no tokens");
        return Err(Failure::misuse(message));
    };
    let unusable = |error| Failure::new(format!("{} is not usable", file.display()), error);
    let secret = secret_file::read(file).map_err(unusable)?;
    let consumer = Consumer::new(name, key, secret.as_bytes())
        .map_err(|error| Failure::new("the consumer's secret is not usable", error))?;
    let lifetime = wanted.lifetime.unwrap_or(LIFETIME);
    let token = consumer
        .issue(
            wanted.subject,
            wanted.audience,
            (context.unix_seconds(), lifetime),
        )
        .map_err(|error| Failure::new("could not issue the token", error))?;
    Ok(Report::new(
        token.clone(),
        json!({ "ok": true, "token": token }),
    ))
}

/// Checks a token of an issuer or consumer of `config`; `jwks` stands for the key set of its issuer's URL.
pub(super) fn verify(
    config: &NodeConfig,
    (token, audience): (&str, &str),
    jwks: Option<&Path>,
    context: &Context,
) -> Result<Report, Failure> {
    let verifier = verifier_of(&config.auth)
        .map_err(|error| Failure::new("the configuration's credentials are not usable", error))?;
    let claims = claims_of(token)?;
    let issuer = claims["iss"].as_str().unwrap_or_default();
    if let Some(file) = jwks {
        let unusable = |error| Failure::new(format!("{} is not usable", file.display()), error);
        let keys = read_keys(file).map_err(unusable)?;
        if !verifier.put_keys(issuer, Some(Arc::new(keys))) {
            let message = format!("auth.issuers has no issuer {issuer:?}, which the token names");
            return Err(Failure::misuse(message));
        }
    } else {
        let by_url =
            |own: &&crate::config::IssuerConfig| own.issuer == issuer && own.jwks_url.is_some();
        if let Some(url) = config
            .auth
            .issuers
            .iter()
            .find(by_url)
            .and_then(|own| own.jwks_url.as_ref())
        {
            let message = format!(
                "the keys of {issuer} are at {url}; fetch them and name the file with --jwks"
            );
            return Err(Failure::misuse(message));
        }
    }
    let user = verifier
        .verify(token, audience, context.unix_seconds())
        .map_err(|error| Failure::new("the token is not valid", error))?;
    Ok(shown(&user, &claims))
}

fn shown(user: &User, claims: &Value) -> Report {
    let mut lines = vec![
        "valid".to_owned(),
        format!("  subject   {}", user.subject),
        format!("  issuer    {}", user.issuer),
    ];
    for (name, all) in [("groups", &user.groups), ("roles", &user.roles)] {
        if !all.is_empty() {
            lines.push(format!("  {name:<9} {}", all.join(", ")));
        }
    }
    let texts = |all: &[Arc<str>]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let json = json!({
        "ok": true, "subject": &*user.subject, "issuer": &*user.issuer,
        "groups": texts(&user.groups), "roles": texts(&user.roles), "claims": claims,
    });
    Report::new(lines.join("\n"), json)
}

/// What a token says, whether or not it is true; the signature is not shown, so the output is no token.
pub(super) fn inspect(token: &str) -> Result<Report, Failure> {
    let unreadable = |error| Failure::new("this is not a token", error);
    let header = dangerous::decode_header_unverified(token).map_err(unreadable)?;
    let (header, claims) = (Value::Object(header), claims_of(token)?);
    let text =
        format!("not verified: anybody can write this\nheader {header:#}\nclaims {claims:#}");
    let json = json!({ "ok": true, "verified": false, "header": header, "claims": claims });
    Ok(Report::new(text, json))
}

pub(super) fn claims_of(token: &str) -> Result<Value, Failure> {
    dangerous::decode_unverified(token)
        .map(Value::Object)
        .map_err(|error| Failure::new("this is not a token", error))
}

/// A new API key for `consumer`, shown this once, and what to put into the configuration.
pub(super) fn api_key(consumer: &str) -> Result<Report, Failure> {
    let mut random = Zeroizing::new([0; RANDOM_BYTES]);
    mesh_crypto::Random::fill(&SystemRandom::new(), &mut *random)
        .map_err(|error| Failure::new("the system gives no random numbers", error))?;
    let key = ApiKey::new(&random);
    let hash = key.hash().to_string();
    let text = format!(
        "{}\n\nGive this key to {consumer}; it is not shown again. In auth.api_keys of mesh.yaml:\n\n    - \
         consumer: {consumer}\n      hash: \"{hash}\"",
        key.expose()
    );
    let json = json!({ "ok": true, "consumer": consumer, "key": key.expose(), "hash": hash });
    Ok(Report::new(text, json))
}

/// As long as a service token.
const LIFETIME: Duration = Duration::from_hours(1);
