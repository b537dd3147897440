//! Who the user behind a request is: a token of a trusted issuer, a consumer's token, or an API key.
//!
//! A credential that is there and wrong refuses the request; it is never taken for none.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use http::header::WWW_AUTHENTICATE;
use mesh_auth::caller::User;
use mesh_auth::token::ApiKeyHash;
use mesh_auth::token::Consumer;
use mesh_auth::token::IssuerConfig as Issuer;
use mesh_auth::token::KeySet;
use mesh_auth::token::RoleCondition;
use mesh_auth::token::RoleMapping;
use mesh_auth::token::UserTokenError;
use mesh_auth::token::UserVerifier;
use mesh_resilience::random::Random;
use mesh_transport::drain::Drain;
use mesh_transport::tasks::Tasks;

use crate::config::AuthConfig;
use crate::config::ConsumerConfig;
use crate::config::IssuerConfig;
use crate::error::Error;
use crate::jwks::Fetcher;
use crate::jwks::FileDriver;
use crate::jwks::KeyDriver;
use crate::jwks::KeyFeed;
use crate::jwks::Reach;
use crate::jwks::Shown;
use crate::jwks::read_keys;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::secret_file;
use crate::stack::outbound::chain;
use crate::tasks::until_drain;
use crate::telemetry::Telemetry;

/// Finds and checks the credentials of users in requests.
#[derive(Debug)]
pub(crate) struct UserCheck {
    verifier: UserVerifier,
    /// Of the issuers whose keys come from a URL.
    feeds: HashMap<Box<str>, Arc<KeyFeed>>,
    telemetry: Arc<Telemetry>,
    /// Where API keys are configured.
    api_key_header: Option<HeaderName>,
    forwards_authorization: bool,
}

impl UserCheck {
    /// What `config` trusts; `None` where that is nobody, and then `Authorization` is the application's business alone.
    ///
    /// # Errors
    ///
    /// A file that can't be read, or holds what can't be used.
    pub(crate) fn new(
        config: &AuthConfig,
        telemetry: &Arc<Telemetry>,
        random: &dyn Random,
    ) -> Result<Option<Self>, Error> {
        if !config.knows_users() {
            return Ok(None);
        }
        let verifier = verifier_of(config)?;
        let by_url = config
            .issuers
            .iter()
            .filter(|issuer| issuer.jwks_url.is_some());
        let feed = |issuer: &IssuerConfig| {
            let feed = KeyFeed::new(issuer, random.next_u64());
            (issuer.issuer.as_str().into(), Arc::new(feed))
        };
        let feeds = by_url.map(feed).collect();
        let header = HeaderName::try_from(&config.api_key_header);
        let header = header.map_err(|source| Error::config("auth.api_key_header", source))?;
        Ok(Some(Self {
            verifier,
            feeds,
            telemetry: Arc::clone(telemetry),
            api_key_header: Some(header).filter(|_| !config.api_keys.is_empty()),
            forwards_authorization: config.forward_authorization,
        }))
    }

    /// The user that the request's credential proves at `now` (seconds since 1970); `None` where it has none.
    ///
    /// # Errors
    ///
    /// Two credentials, or one that is wrong. Which rule it broke is for our log; a forger learns nothing.
    pub(crate) async fn identify(
        &self,
        headers: &HeaderMap,
        service: &str,
        now: u64,
    ) -> Result<Option<Arc<User>>, Refusal> {
        let user = match (Self::bearer(headers)?, self.api_key(headers)?) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(refused(TWO)),
            (Some(token), None) => self.verify(token, service, now).await,
            (None, Some(key)) => self.verifier.verify_api_key(key),
        };
        self.telemetry.credentials.checked(user.is_ok());
        user.map(Some).map_err(|error| refused_for(&error))
    }

    /// A token of a key that is not here yet may be a good one: the issuer has replaced its keys.
    async fn verify(
        &self,
        token: &str,
        service: &str,
        now: u64,
    ) -> Result<Arc<User>, UserTokenError> {
        let first = self.verifier.verify(token, service, now);
        let Err(UserTokenError::UnknownKey { issuer } | UserTokenError::NoKeys { issuer }) = &first
        else {
            return first;
        };
        let Some(feed) = self.feeds.get(issuer.as_str()) else {
            return first;
        };
        feed.newer().await;
        self.verifier.verify(token, service, now)
    }

    /// What asks for the keys of an issuer whose keys come from a URL.
    pub(crate) fn feed(&self, issuer: &str) -> Option<Arc<KeyFeed>> {
        self.feeds.get(issuer).cloned()
    }

    /// Replaces all keys of an issuer; with `None` none of its tokens is accepted.
    pub(crate) fn put_keys(&self, issuer: &str, keys: Option<Arc<KeySet>>) {
        self.verifier.put_keys(issuer, keys);
    }

    /// Takes from a request what the application must not see.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        if let Some(name) = &self.api_key_header {
            headers.remove(name);
        }
        if !self.forwards_authorization {
            headers.remove(AUTHORIZATION);
        }
    }

    /// The token of `Authorization: Bearer`; another scheme is the application's business (RFC 6750 section 2.1).
    fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
        let Some(value) = only(headers, &AUTHORIZATION)? else {
            return Ok(None);
        };
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        Ok(is_bearer.then(|| token.trim_start_matches(' ')))
    }

    fn api_key<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, Refusal> {
        match &self.api_key_header {
            Some(name) => only(headers, name),
            None => Ok(None),
        }
    }
}

/// What keeps the keys of issuers fresh.
#[derive(Debug)]
pub(crate) struct KeyDrivers {
    fetching: Vec<KeyDriver>,
    watching: Option<FileDriver>,
}

impl KeyDrivers {
    /// Those of all issuers in `config`, for `users` that came from the same.
    ///
    /// # Errors
    ///
    /// A URL that can't be fetched from, or roots that can't be read.
    pub(crate) fn new(
        config: &AuthConfig,
        users: &Arc<UserCheck>,
        shown: &Arc<Shown>,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let (mut fetching, mut files) = (Vec::new(), Vec::new());
        for issuer in &config.issuers {
            let name: Arc<str> = issuer.issuer.as_str().into();
            if let Some(file) = &issuer.jwks_file {
                files.push((Arc::clone(&name), file.clone()));
            }
            if let (Some(url), Some(feed)) = (&issuer.jwks_url, users.feed(&name)) {
                let reach = if issuer.allow_private_address {
                    Reach::Private
                } else {
                    Reach::Public
                };
                fetching.push(KeyDriver {
                    issuer: name,
                    feed,
                    fetcher: Fetcher::new(url, issuer.jwks_ca_file.as_deref(), reach)?,
                    users: Arc::clone(users),
                    shown: Arc::clone(shown),
                });
            }
        }
        let watching = (!files.is_empty()).then(|| FileDriver {
            files,
            users: Arc::clone(users),
            shown: Arc::clone(shown),
            tasks: tasks.clone(),
        });
        Ok(Self { fetching, watching })
    }

    /// Starts them all; they run until draining begins.
    pub(crate) fn start(self, tasks: &Tasks, drain: &Drain) {
        for driver in self.fetching {
            until_drain(tasks, drain.clone(), driver.run());
        }
        if let Some(driver) = self.watching {
            until_drain(tasks, drain.clone(), driver.run());
        }
    }
}

/// The value of a header that may stand once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value
            .to_str()
            .map(Some)
            .map_err(|_error| refused(UNREADABLE)),
        (Some(_), Some(_)) => Err(refused(TWO)),
    }
}

fn refused_for(error: &UserTokenError) -> Refusal {
    tracing::info!(error = %chain(error), "credential refused");
    match error {
        UserTokenError::Expired { .. } => refused(EXPIRED),
        UserTokenError::ApiKey => {
            refused("the API key is not valid here; ask this service's owner for one")
        }
        UserTokenError::NoKeys { .. } => {
            refused("the token can't be checked here now; try again later")
        }
        _ => refused("the token is not valid here; get one that is meant for this service"),
    }
}

fn refused(message: &'static str) -> Refusal {
    // RFC 6750 section 3.1.
    let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    Refusal::new(Code::Unauthenticated, message).with_header(WWW_AUTHENTICATE, challenge)
}

fn issuer_of(config: &IssuerConfig) -> Issuer {
    let audiences: Vec<&str> = config.audiences.iter().map(String::as_str).collect();
    let issuer = Issuer::new(&config.issuer)
        .with_audiences(&audiences)
        .with_groups_claim(&config.groups_claim)
        .with_single_use(config.single_use);
    config.roles.iter().fold(issuer, |issuer, role| {
        let equals = role.equals.clone().map(RoleCondition::Equals);
        let contains = role.contains.clone().map(RoleCondition::Contains);
        match equals.or(contains) {
            Some(condition) => {
                issuer.with_role(RoleMapping::new(&role.role, &role.claim, condition))
            }
            None => issuer,
        }
    })
}

/// All that `config` trusts; keys that come from URLs are not there yet.
///
/// # Errors
///
/// A file that can't be read, or holds what can't be used.
pub(crate) fn verifier_of(config: &AuthConfig) -> Result<UserVerifier, Error> {
    let mut verifier = UserVerifier::new(CACHED);
    for issuer in &config.issuers {
        let own = |source| Error::config(format!("auth.issuers: {}", issuer.issuer), source);
        verifier.add_issuer(issuer_of(issuer)).map_err(own)?;
        if let Some(file) = &issuer.jwks_file {
            let keys = read_keys(file)?;
            verifier.put_keys(&issuer.issuer, Some(Arc::new(keys)));
        }
    }
    for consumer in &config.consumers {
        add_consumer(&mut verifier, config, consumer)?;
    }
    Ok(verifier)
}

fn add_consumer(
    verifier: &mut UserVerifier,
    config: &AuthConfig,
    consumer: &ConsumerConfig,
) -> Result<(), Error> {
    let name = &consumer.name;
    let groups: Vec<&str> = consumer.groups.iter().map(String::as_str).collect();
    if let (Some(key), Some(file)) = (&consumer.key, &consumer.secret_file) {
        let wrong = |source| Error::config(format!("the secret of consumer {name}"), source);
        let secret = secret_file::read(file)
            .map_err(|source| Error::config(format!("could not use {}", file.display()), source))?;
        let consumer = Consumer::new(name, key, secret.as_bytes()).map_err(wrong)?;
        verifier
            .add_consumer(consumer.with_groups(&groups))
            .map_err(|source| Error::config(format!("auth.consumers: {name}"), source))?;
    }
    for own in config.api_keys.iter().filter(|own| own.consumer == *name) {
        let wrong = |source: mesh_auth::token::ApiKeyError| {
            Error::config(format!("auth.api_keys of {name}"), source)
        };
        let hash = ApiKeyHash::parse(&own.hash).map_err(wrong)?;
        verifier
            .add_api_key(hash, name, &groups)
            .map_err(|source| Error::config(format!("auth.api_keys of {name}"), source))?;
    }
    Ok(())
}

const TWO: &str = "the request carries more than one credential; send one";
const UNREADABLE: &str = "the request's credential has bytes that no credential has";
const EXPIRED: &str = "the token has expired; get a new one";
/// Users that call one service within an hour, about.
const CACHED: usize = 10_000;
