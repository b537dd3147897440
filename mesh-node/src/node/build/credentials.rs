//! Whose tokens and credentials count, and what keeps keys and secrets up to date.

use std::sync::Arc;

use mesh_auth::token::ServiceClaims;
use mesh_transport::drain::Drain;
use mesh_transport::session::TokenFor;
use mesh_transport::tasks::Tasks;

use super::Own;
use crate::config::NodeConfig;
use crate::credentials::KeyDrivers;
use crate::credentials::UserCheck;
use crate::error::Error;
use crate::jwks;
use crate::node::wall_clock;
use crate::policy_store::Shown;
use crate::service_token;
use crate::service_token::SecretDriver;
use crate::service_token::ServiceTokens;
use crate::stack::outbound::unix_seconds;
use crate::tasks::until_drain;

/// What checks and issues tokens, where that is configured.
pub(super) struct Credentials {
    pub(super) tokens: Option<Arc<ServiceTokens>>,
    pub(super) users: Option<Arc<UserCheck>>,
    pub(super) upkeep: Upkeep,
}

/// What keeps keys and secrets up to date.
#[derive(Debug)]
pub(in crate::node) struct Upkeep {
    keys: Option<KeyDrivers>,
    secrets: Option<SecretDriver>,
}

impl Upkeep {
    /// Starts all of it; it runs until draining begins.
    pub(in crate::node) fn start(self, tasks: &Tasks, drain: &Drain) {
        if let Some(keys) = self.keys {
            keys.start(tasks, drain);
        }
        if let Some(secrets) = self.secrets {
            until_drain(tasks, drain.clone(), secrets.run());
        }
    }
}

/// Reads keys and secrets; troubles with them are told where `shown` tells those of policies.
pub(super) fn credentials(
    config: &NodeConfig,
    own: &Own,
    shown: &Shown,
    tasks: &Tasks,
) -> Result<Credentials, Error> {
    let secrets = secrets(config, own, shown, tasks)?;
    let users = users(config, own, shown, tasks)?;
    let (users, keys) = users.unzip();
    Ok(Credentials {
        tokens: secrets.as_ref().map(|driver| Arc::clone(&driver.tokens)),
        users,
        upkeep: Upkeep { keys, secrets },
    })
}

fn secrets(
    config: &NodeConfig,
    own: &Own,
    shown: &Shown,
    tasks: &Tasks,
) -> Result<Option<SecretDriver>, Error> {
    let Some(jwt) = &config.auth.jwt else {
        return Ok(None);
    };
    // The node's own run is the session that a call's token names; it ends with the process.
    let session = format!(
        "{:016x}",
        mesh_resilience::random::Random::next_u64(&*own.seed)
    );
    let claims = ServiceClaims::new(own.id.clone(), "")
        .with_session(&session)
        .with_lifetime(jwt.token_expiry);
    // Marked before they are read: what changes meanwhile gives another mark.
    let seen = service_token::marks_of(jwt);
    let ring = service_token::ring(jwt)?;
    let tokens = ServiceTokens::new(ring, config.token_issuer(), &own.name, claims);
    Ok(Some(SecretDriver {
        config: jwt.clone(),
        seen,
        tokens: Arc::new(tokens),
        health: Arc::clone(&shown.health),
        telemetry: Arc::clone(&shown.telemetry),
        auditor: shown.auditor.clone(),
        clock: shown.clock,
        tasks: tasks.clone(),
    }))
}

fn users(
    config: &NodeConfig,
    own: &Own,
    shown: &Shown,
    tasks: &Tasks,
) -> Result<Option<(Arc<UserCheck>, KeyDrivers)>, Error> {
    let telemetry = &shown.telemetry;
    let Some(check) = UserCheck::new(&config.auth, telemetry, &*own.seed)? else {
        return Ok(None);
    };
    let check = Arc::new(check);
    let shown = jwks::Shown::new(Arc::clone(&shown.health), Arc::clone(telemetry));
    let drivers = KeyDrivers::new(&config.auth, &check, &Arc::new(shown), tasks)?;
    Ok(Some((check, drivers)))
}

/// A fresh token for each handshake, addressed to the peer's SPIFFE id.
pub(super) fn handshake_token(tokens: Option<&Arc<ServiceTokens>>) -> Arc<TokenFor> {
    let Some(tokens) = tokens.map(Arc::clone) else {
        return Arc::new(|_| Vec::new());
    };
    Arc::new(
        move |peer| match tokens.for_handshake(peer, unix_seconds(wall_clock())) {
            Ok(token) => token.into_bytes(),
            Err(error) => {
                tracing::error!(%error, "could not issue a token for a handshake");
                Vec::new()
            }
        },
    )
}
