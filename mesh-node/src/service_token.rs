//! Service tokens: the secrets that sign them, and how these are replaced while the node runs.
//!
//! Secrets are replaced together, whole or not at all, and with them all that was remembered of tokens that the old ones
//! signed. Several count side by side, so that no token is refused while the nodes of a mesh change over one by one.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use mesh_audit::Event;
use mesh_audit::EventKind;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::token::CachedIssuer;
use mesh_auth::token::CachedVerifier;
use mesh_auth::token::Claims;
use mesh_auth::token::Expect;
use mesh_auth::token::Issuer;
use mesh_auth::token::Ring;
use mesh_auth::token::RingKey;
use mesh_auth::token::ServiceClaims;
use mesh_auth::token::TokenError;
use mesh_auth::token::Verifier;
use mesh_transport::tasks::Tasks;

use crate::audit::Auditor;
use crate::config::JwtConfig;
use crate::config::JwtSecretConfig;
use crate::error::Error;
use crate::health::Board;
use crate::secret_file;
use crate::stack::outbound::chain;
use crate::stack::outbound::unix_seconds;
use crate::telemetry::Telemetry;
use crate::watch::Folders;
use crate::watch::Marks;
use crate::watch::folder_of;

/// What a service token must be.
#[derive(Debug)]
pub(crate) struct TokenCheck {
    verifier: ArcSwap<CachedVerifier>,
    issuer: String,
    audience: Arc<str>,
}

impl TokenCheck {
    fn new(ring: &Arc<Ring>, issuer: &str, audience: &str) -> Self {
        Self {
            verifier: ArcSwap::from_pointee(verifier_of(ring)),
            issuer: issuer.to_owned(),
            audience: audience.into(),
        }
    }

    /// Accepts a token that is valid at `now` (seconds since 1970), for us, and of `peer`.
    pub(crate) fn verify(
        &self,
        token: &str,
        peer: &SpiffeId,
        now: u64,
    ) -> Result<Arc<Claims>, TokenError> {
        let expect = Expect {
            audience: &self.audience,
            issuer: &self.issuer,
            now,
        };
        let claims = self.verifier.load().verify(token, &expect)?;
        claims.require_subject(peer)?;
        Ok(claims)
    }
}

/// Tokens that this node issues and accepts.
#[derive(Debug)]
pub(crate) struct ServiceTokens {
    /// For calls: the audience is the service's name.
    pub(crate) calls: Arc<TokenCheck>,
    /// For handshakes: the audience is the SPIFFE id.
    pub(crate) handshakes: Arc<TokenCheck>,
    ring: ArcSwap<Ring>,
    written: ArcSwap<CachedIssuer>,
    issuer: String,
    template: ServiceClaims,
}

impl ServiceTokens {
    /// Tokens that say `issuer`, signed with the keys of `ring`, for the service `name`; `template` has what is the same
    /// in each that we write.
    pub(crate) fn new(ring: Ring, issuer: &str, name: &str, template: ServiceClaims) -> Self {
        let ring = Arc::new(ring);
        let id = template.subject.to_string();
        Self {
            calls: Arc::new(TokenCheck::new(&ring, issuer, name)),
            handshakes: Arc::new(TokenCheck::new(&ring, issuer, &id)),
            written: ArcSwap::from_pointee(issuer_of(&ring, issuer, &template)),
            ring: ArcSwap::new(ring),
            issuer: issuer.to_owned(),
            template,
        }
    }

    /// A token for a call to `service`.
    pub(crate) fn for_call(&self, service: &str, now: u64) -> Result<Arc<str>, TokenError> {
        self.written.load().token(service, now)
    }

    /// A fresh token for a handshake with `peer`.
    pub(crate) fn for_handshake(&self, peer: &str, now: u64) -> Result<String, TokenError> {
        let claims = ServiceClaims::new(self.template.subject.clone(), peer)
            .with_lifetime(self.template.lifetime);
        Issuer::new(self.ring.load_full(), &self.issuer).issue(&claims, now)
    }

    /// Signs and verifies with the keys of `ring` alone from now on. What was remembered is forgotten, so tokens of a key
    /// that is gone stop at once.
    fn replace(&self, ring: Ring) {
        let ring = Arc::new(ring);
        // First what is accepted, then what is written, which may come back to us.
        for check in [&self.calls, &self.handshakes] {
            check.verifier.store(Arc::new(verifier_of(&ring)));
        }
        self.ring.store(Arc::clone(&ring));
        let written = issuer_of(&ring, &self.issuer, &self.template);
        self.written.store(Arc::new(written));
    }
}

fn verifier_of(ring: &Arc<Ring>) -> CachedVerifier {
    CachedVerifier::new(Verifier::new(Arc::clone(ring)), TOKENS_CACHED)
}

fn issuer_of(ring: &Arc<Ring>, issuer: &str, template: &ServiceClaims) -> CachedIssuer {
    CachedIssuer::new(Issuer::new(Arc::clone(ring), issuer), template.clone())
}

/// Reads the secrets that `config` names; the first one signs unless times say otherwise. A secret that stands twice
/// counts once, so that one file can be changed after another.
///
/// # Errors
///
/// A file that can't be read, or a secret that is weak.
pub(crate) fn ring(config: &JwtConfig) -> Result<Ring, Error> {
    let mut keys: Vec<RingKey> = Vec::new();
    if !config.secret.expose().is_empty() {
        let wrong = |source| Error::config("auth.jwt.secret is not usable", source);
        keys.push(RingKey::new(config.secret.expose().as_bytes()).map_err(wrong)?);
    }
    for secret in &config.secrets {
        let key = key_of(secret)?;
        let is_same = |known: &&mut RingKey| secret.kid.is_none() && known.kid() == key.kid();
        match keys.iter_mut().find(is_same) {
            None => keys.push(key),
            // One secret in two places: it counts only while both say so.
            Some(known) => {
                let from = known.not_before().max(key.not_before());
                let until = known.not_after().min(key.not_after());
                *known = key.with_not_before(from).with_not_after(until);
            }
        }
    }
    Ring::new(keys).map_err(|source| Error::config("auth.jwt.secrets are not usable", source))
}

fn key_of(config: &JwtSecretConfig) -> Result<RingKey, Error> {
    let mut key = read_key(&config.secret_file)?;
    if let Some(kid) = &config.kid {
        key = key.with_kid(kid);
    }
    if let Some(from) = config.not_before {
        key = key.with_not_before(unix_seconds(from));
    }
    if let Some(until) = config.not_after {
        key = key.with_not_after(unix_seconds(until));
    }
    Ok(key)
}

fn read_key(file: &Path) -> Result<RingKey, Error> {
    let unusable = || format!("{} is not usable", file.display());
    let secret = secret_file::read(file).map_err(|source| Error::config(unusable(), source))?;
    RingKey::new(secret.as_bytes()).map_err(|source| Error::config(unusable(), source))
}

/// Reads the secrets again when their files change.
#[derive(Debug)]
pub(crate) struct SecretDriver {
    pub(crate) config: JwtConfig,
    /// The files as they were before they were read for the start.
    pub(crate) seen: Marks,
    pub(crate) tokens: Arc<ServiceTokens>,
    pub(crate) health: Arc<Board>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) auditor: Option<Auditor>,
    pub(crate) clock: fn() -> SystemTime,
    pub(crate) tasks: Tasks,
}

impl SecretDriver {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let files = files_of(&self.config);
        if files.is_empty() {
            return;
        }
        let folders = files.iter().map(|file| folder_of(file)).collect();
        let mut folders = Folders::watch(folders, "the secrets of service tokens");
        let mut seen = self.seen.clone();
        loop {
            folders.changed(|| marks_of(&self.config)).await;
            // Marked before they are read: what changes meanwhile gives another mark.
            let marks = marks_of(&self.config);
            if marks == seen {
                continue;
            }
            seen = marks;
            let config = self.config.clone();
            match self.tasks.blocking(move || reread(config)).await {
                Ok(Ok(ring)) => self.take_over(ring),
                Ok(Err(error)) => self.refuse(&chain(&error)),
                Err(error) => self.refuse(&chain(&error)),
            }
        }
    }

    fn take_over(&self, ring: Ring) {
        let now = unix_seconds((self.clock)());
        let signing = ring.signing_kid(now).unwrap_or_default().to_owned();
        let keys = ring.keys().len();
        self.tokens.replace(ring);
        self.telemetry.credentials.secret_reloads.inc();
        self.health.ok(PART);
        tracing::info!(keys, signing, "secrets of service tokens replaced");
        if let Some(auditor) = &self.auditor {
            let event =
                Event::new(EventKind::KeyRotation).with("what", "secrets of service tokens");
            auditor.note(event.with("kid", &*signing));
        }
    }

    fn refuse(&self, error: &str) {
        tracing::error!(
            error,
            "new secrets of service tokens refused; the last good ones stay"
        );
        self.telemetry.credentials.secret_failures.inc();
        let message = format!("the last good secrets stay in force: {error}");
        self.health.degraded(PART, message);
    }
}

/// Marks the files of `config`, to see later whether they have changed.
pub(crate) fn marks_of(config: &JwtConfig) -> Marks {
    let files = files_of(config);
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    Marks::of(&files)
}

fn files_of(config: &JwtConfig) -> Vec<PathBuf> {
    let several = config.secrets.iter().map(|secret| &secret.secret_file);
    config.secret_file.iter().chain(several).cloned().collect()
}

fn reread(mut config: JwtConfig) -> Result<Ring, Error> {
    if let Some(file) = &config.secret_file {
        let unusable = |source| Error::config(format!("{} is not usable", file.display()), source);
        let mut secret = secret_file::read(file).map_err(unusable)?;
        config.secret = crate::config::SecretText::new(std::mem::take(&mut *secret));
    }
    ring(&config)
}

const PART: &str = "tokens";
/// Callers of one service: each has one token at a time, and an old one for a while.
const TOKENS_CACHED: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_secret_in_two_places_ends_when_one_of_them_says_so() {
        const SECRET: &str = "9f2c51d07be84c3aa6d15e0b7f3c8e1294ad60b5c7f1e83d";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwt.secret");
        std::fs::write(&file, SECRET).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let text = serde_json::json!({
            "secret": SECRET,
            "secrets": [ { "secret_file": file, "not_after": "2027-01-15T08:00:00Z" } ],
        });
        let config: JwtConfig = serde_json::from_value(text).unwrap();
        let ring = ring(&config).unwrap();
        let [key] = ring.keys() else {
            return assert_eq!(ring.keys().len(), 1);
        };
        let end = humantime::parse_rfc3339("2027-01-15T08:00:00Z").unwrap();
        let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(key.not_after(), end.as_secs());
    }
}
