//! Tokens of services, and credentials of users: issuers, consumers and API keys.

use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use mesh_auth::token::JwksConfig;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::Error as _;

use super::value;
use super::value::SecretText;

/// Tokens and credentials.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Service tokens. Absent: none are issued and none accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "JwtConfig")]
    pub jwt: Option<JwtConfig>,
    /// Issuers whose tokens name users, checked with the issuers' public keys. Default none.
    pub issuers: Vec<IssuerConfig>,
    /// Callers that we know ourselves. Default none.
    pub consumers: Vec<ConsumerConfig>,
    /// API keys of consumers, as hashes. Default none.
    pub api_keys: Vec<ApiKeyConfig>,
    /// The header in which API keys come. It never reaches the application. Default `x-api-key`.
    #[serde(deserialize_with = "header_name")]
    pub api_key_header: String,
    /// Whether the application gets the `Authorization` header of a user whose token was verified. Default true.
    pub forward_authorization: bool,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            jwt: None,
            issuers: Vec::new(),
            consumers: Vec::new(),
            api_keys: Vec::new(),
            api_key_header: API_KEY_HEADER.to_owned(),
            forward_authorization: true,
        }
    }
}

impl AuthConfig {
    /// Whether any credential of a user can be verified here.
    pub fn knows_users(&self) -> bool {
        !(self.issuers.is_empty() && self.consumers.is_empty() && self.api_keys.is_empty())
    }
}

/// Service tokens (JWT, HS256).
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// Secret that signs tokens, the same on every node: at least 32 bytes, random. Better in `secret_file` or as
    /// `"${JWT_SECRET}"` than here. Never shown. Required, unless there is a `secret_file` or `secrets`.
    #[serde(default, deserialize_with = "value::strong_secret")]
    #[schemars(with = "String")]
    pub secret: SecretText,
    /// File that holds the secret, on one line. Once it is read, `secret` is what stood in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub secret_file: Option<PathBuf>,
    /// Secrets beside or in place of that, while one replaces another; each node must have all that the others sign
    /// with. Their files, and `secret_file`, are read again when they change: all of them, or none. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<JwtSecretConfig>,
    /// How long a token is valid. Default `1h`.
    #[serde(default = "default_expiry", with = "value::duration")]
    #[schemars(with = "String")]
    pub token_expiry: Duration,
    /// `iss` of the tokens that this node issues and accepts. Default: the trust domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub issuer: Option<String>,
}

impl JwtConfig {
    /// Tokens signed with `secret`, all else default.
    pub fn new(secret: SecretText) -> Self {
        Self {
            secret,
            secret_file: None,
            secrets: Vec::new(),
            token_expiry: TOKEN_EXPIRY,
            issuer: None,
        }
    }
}

/// A secret and when it counts. The newest by `not_before` signs, and of several the first in the list; all verify.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JwtSecretConfig {
    /// File that holds the secret, at least 32 bytes, on one line; nobody else may read it. Required.
    #[schemars(with = "String")]
    pub secret_file: PathBuf,
    /// Its name in tokens. Default: made from the secret, so that nodes agree on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub kid: Option<String>,
    /// From when on it signs, such as `2027-03-31T18:00:00Z`. Default: at once.
    #[serde(
        default,
        with = "value::moment",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub not_before: Option<SystemTime>,
    /// From when on it neither signs nor verifies. Default: never.
    #[serde(
        default,
        with = "value::moment",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub not_after: Option<SystemTime>,
}

/// An issuer whose tokens name users.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// `iss` of its tokens, compared whole. Required.
    #[serde(deserialize_with = "nonempty")]
    pub issuer: String,
    /// Who its tokens are for: one of these must be in `aud`. Default: the name of the service.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// HTTPS URL of its public keys (JWK set); redirects are not followed. Required, unless there is a `jwks_file`.
    #[serde(
        default,
        deserialize_with = "some_https_url",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub jwks_url: Option<String>,
    /// File with its public keys, read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub jwks_file: Option<PathBuf>,
    /// PEM roots that the server of `jwks_url` must lead to. Default: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub jwks_ca_file: Option<PathBuf>,
    /// How often the keys are fetched from `jwks_url`, at least. Default `5m`.
    #[serde(default = "default_refresh", with = "value::duration")]
    #[schemars(with = "String")]
    pub refresh: Duration,
    /// Two fetches begin at least this far apart, also when tokens name unknown keys. Default `10s`.
    #[serde(default = "default_min_interval", with = "value::duration")]
    #[schemars(with = "String")]
    pub min_interval: Duration,
    /// How long the last good keys count when no new ones can be fetched; then no token of the issuer is accepted.
    /// Default `24h`.
    #[serde(default = "default_max_stale", with = "value::duration")]
    #[schemars(with = "String")]
    pub max_stale: Duration,
    /// Whether `jwks_url` may lead to this machine or into a private network; never to link-local addresses and
    /// metadata services. Default false.
    #[serde(default)]
    pub allow_private_address: bool,
    /// The claim that lists a user's groups: a name, or a JSON Pointer such as `/realm_access/roles`. Default `groups`.
    #[serde(default = "default_groups", deserialize_with = "nonempty")]
    pub groups_claim: String,
    /// Roles that claims give. Default none.
    #[serde(default)]
    pub roles: Vec<RoleConfig>,
    /// Whether a token counts once: it must have a `jti`, and a second request with it is refused, a repeated one of the
    /// same call too. Each node remembers 65,536 that have not expired, and refuses more. Default false.
    #[serde(default)]
    pub single_use: bool,
}

/// A role and the claim that gives it: `equals` or `contains`.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// The role, for rules that say `role:NAME`. Required.
    #[serde(deserialize_with = "nonempty")]
    pub role: String,
    /// The claim: a name, or a JSON Pointer. Required.
    #[serde(deserialize_with = "nonempty")]
    pub claim: String,
    /// The claim must be this text, or a number or truth value that is written like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub equals: Option<String>,
    /// The claim must have this text in its list, or between spaces as in `scope`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub contains: Option<String>,
}

/// A caller that we know ourselves: by tokens that it signs with a secret of its own (HS256), by API keys, or both.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerConfig {
    /// Its name, which rules and records show. Required.
    #[serde(deserialize_with = "nonempty")]
    pub name: String,
    /// `iss` of its tokens. Goes with `secret_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub key: Option<String>,
    /// File that holds the secret of its tokens, at least 32 bytes, on one line; nobody else may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub secret_file: Option<PathBuf>,
    /// Groups it is in, for rules that say `group:NAME`. What its tokens say of groups counts for nothing. Default none.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// An API key of a consumer.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// The consumer's name. Required.
    pub consumer: String,
    /// What `mesh-node token api-key` printed to keep: `sha256:<id>:<hash>`. Required.
    #[serde(deserialize_with = "api_key_hash")]
    pub hash: String,
}

fn some_https_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_https = text.parse::<http::Uri>().is_ok_and(|uri| {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        uri.scheme_str() == Some("https") && !authority.is_empty() && !authority.contains('@')
    });
    if is_https && !text.contains('#') {
        return Ok(Some(text));
    }
    Err(D::Error::custom(
        "is not an HTTPS URL; write it like https://login.example.org/jwks.json",
    ))
}

fn nonempty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Err(D::Error::custom(
            "is empty; it must have at least one letter",
        ));
    }
    Ok(text)
}

fn api_key_hash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if mesh_auth::token::ApiKeyHash::parse(&text).is_ok() {
        return Ok(text);
    }
    Err(D::Error::custom(
        "is not the hash of an API key; `mesh-node token api-key` prints one",
    ))
}

fn header_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_ours = text.starts_with("x-mesh-") || RESERVED.contains(&text.as_str());
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_lower && !is_ours && http::HeaderName::try_from(&text).is_ok() {
        return Ok(text);
    }
    Err(D::Error::custom(
        "is not a header for API keys; write a lower-case name of its own, such as x-api-key",
    ))
}

fn default_refresh() -> Duration {
    JwksConfig::default().refresh
}

fn default_min_interval() -> Duration {
    JwksConfig::default().min_interval
}

fn default_max_stale() -> Duration {
    JwksConfig::default().max_stale
}

fn default_groups() -> String {
    GROUPS_CLAIM.to_owned()
}

fn default_expiry() -> Duration {
    TOKEN_EXPIRY
}

/// DESIGN section 7: JWT expiry 1 h.
const TOKEN_EXPIRY: Duration = Duration::from_hours(1);
const API_KEY_HEADER: &str = "x-api-key";
const GROUPS_CLAIM: &str = "groups";
/// Headers that mean something else.
const RESERVED: [&str; 4] = ["authorization", "cookie", "host", "x-request-id"];
