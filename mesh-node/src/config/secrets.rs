//! Secrets that stand in files of their own: read once here, so that one that is missing, weak or open to others is
//! said with its place.

use std::path::Path;

use zeroize::Zeroizing;

use super::ConfigError;
use super::Document;
use super::NodeConfig;
use super::error::Place;
use super::value;
use super::value::SecretText;
use crate::secret_file;
use crate::secret_file::SecretFileError;

/// Reads every secret's file that `config` names.
pub(super) fn read(config: &mut NodeConfig, document: &Document) -> Result<(), ConfigError> {
    for (consumer, index) in config.auth.consumers.iter().zip(0..) {
        if let Some(file) = &consumer.secret_file {
            let key = format!("auth.consumers[{index}].secret_file");
            read_one(file, &key, document)?;
        }
    }
    let secrets = config.auth.jwt.iter().flat_map(|jwt| &jwt.secrets);
    for (secret, index) in secrets.zip(0..) {
        let key = format!("auth.jwt.secrets[{index}].secret_file");
        read_one(&secret.secret_file, &key, document)?;
    }
    token_secret(config, document)
}

/// Puts the token secret's file in place of the secret; a secret from the environment wins over the file.
fn token_secret(config: &mut NodeConfig, document: &Document) -> Result<(), ConfigError> {
    let Some(jwt) = &mut config.auth.jwt else {
        return Ok(());
    };
    let is_set = !jwt.secret.expose().is_empty();
    let is_override = matches!(
        document.root.place_of("auth.jwt.secret"),
        Place::Variable(_)
    );
    match &jwt.secret_file {
        None if !is_set && jwt.secrets.is_empty() => Err(document.error(
            "auth.jwt",
            "the required key \"secret\", \"secret_file\" or \"secrets\" is missing",
        )),
        Some(_) if is_set && !is_override => Err(document.error(
            "auth.jwt.secret_file",
            "and secret exclude each other; remove one of them",
        )),
        Some(file) if !is_set => {
            let mut secret = read_one(file, "auth.jwt.secret_file", document)?;
            jwt.secret = SecretText::new(std::mem::take(&mut *secret));
            Ok(())
        }
        _ => {
            // What stands there counts for nothing.
            jwt.secret_file = None;
            Ok(())
        }
    }
}

fn read_one(file: &Path, key: &str, document: &Document) -> Result<Zeroizing<String>, ConfigError> {
    let shown = file.display();
    let secret = secret_file::read(file).map_err(|error| match error {
        SecretFileError::Read(source) => ConfigError {
            source: Some(source),
            ..document.error(key, format!("could not read {shown}"))
        },
        error => document.error(key, format!("{shown} is not used: {error}")),
    })?;
    match value::weakness(&secret) {
        Some(why) => Err(document.error(key, format!("the secret in {shown} {why}"))),
        None => Ok(secret),
    }
}
