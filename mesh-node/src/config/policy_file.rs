//! A policy as a file of its own: what else stands in the `policy` section.

use std::path::Path;

use super::ConfigError;
use super::Environment;
use super::PolicyConfig;
use super::decode;
use super::expand;
use super::read_text;
use super::tree::Kind;
use super::tree::Node;

/// A policy file that was read and whose rules can still be found.
pub struct PolicyDocument {
    file: String,
    root: Node,
}

impl PolicyDocument {
    /// Reads the file at `path`, with `environment` for its variables.
    ///
    /// # Errors
    ///
    /// The file can't be read, is no YAML, or names a variable that is not set.
    pub fn read(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = read_text(path).map_err(|source| ConfigError::unreadable(&file, source))?;
        Self::parse(&text, file, environment)
    }

    fn parse(text: &str, file: String, environment: &Environment) -> Result<Self, ConfigError> {
        let mut root = Node::parse(text, &file)?;
        expand::expand(&mut root, environment, &file)?;
        Ok(Self { file, root })
    }

    /// The policy in it.
    ///
    /// # Errors
    ///
    /// An unknown or missing key, or a value that is not allowed. A policy file names no other.
    pub fn config(&self) -> Result<PolicyConfig, ConfigError> {
        for key in [RULES_FILE, SHADOW_FILE, CONSUL] {
            if self.root.get(key).is_some() {
                return Err(self.error(
                    key,
                    "has no place in a policy file; it stands in the configuration",
                ));
            }
        }
        decode::decode(&self.root, &self.file)
    }

    /// An error about `key`, such as `rules[2].from`, at its place.
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::new(&self.file, self.root.place_of(key), key, message)
    }
}

impl std::fmt::Debug for PolicyDocument {
    /// The file's name alone: its values may come from the environment.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyDocument")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl PolicyConfig {
    /// Reads a policy file: the content of the `policy` section, as a file of its own.
    ///
    /// # Errors
    ///
    /// As [`PolicyDocument::read`] and [`PolicyDocument::config`].
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        PolicyDocument::read(path, environment)?.config()
    }
}

/// The policy files that a configuration names.
#[derive(Debug, Default)]
pub(super) struct PolicyFiles {
    pub(super) rules: Option<PolicyDocument>,
    pub(super) shadow: Option<PolicyDocument>,
}

impl PolicyFiles {
    /// Reads the files that the configuration `root`, which lies in the folder `base`, names.
    pub(super) fn read(
        root: &Node,
        (file, base): (&str, &Path),
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let Some(policy) = root.get("policy") else {
            return Ok(Self::default());
        };
        let error = |key: &str, message: String| {
            let key = format!("policy.{key}");
            ConfigError::new(file, root.place_of(&key), &key, message)
        };
        let read = |key: &str| {
            let Some(Kind::Scalar(name)) = policy.get(key).map(|node| &node.kind) else {
                return Ok(None);
            };
            let path = base.join(name.as_str());
            let shown = path.display().to_string();
            let text = read_text(&path).map_err(|source| ConfigError {
                source: Some(source),
                ..error(key, format!("could not read {shown}"))
            })?;
            PolicyDocument::parse(&text, shown, environment).map(Some)
        };
        let rules = read(RULES_FILE)?;
        if rules.is_some() {
            let beside = ["default", "rules", "intentions"]
                .into_iter()
                .find(|key| policy.get(key).is_some());
            if let Some(key) = beside {
                return Err(error(
                    key,
                    format!("and {RULES_FILE} exclude each other; move it into that file"),
                ));
            }
        }
        Ok(Self {
            rules,
            shadow: read(SHADOW_FILE)?,
        })
    }

    /// Puts what the files say into the configuration that names them.
    pub(super) fn fill(&self, policy: &mut PolicyConfig) -> Result<(), ConfigError> {
        if let Some(rules) = &self.rules {
            *policy = PolicyConfig {
                rules_file: policy.rules_file.take(),
                shadow_file: policy.shadow_file.take(),
                consul: policy.consul.take(),
                ..rules.config()?
            };
        }
        if let Some(shadow) = &self.shadow {
            policy.shadow = Some(Box::new(shadow.config()?));
        }
        Ok(())
    }

    /// An error about `key` of the configuration, if what it is about stands in the file of rules.
    pub(super) fn error(&self, key: &str, message: &str) -> Option<ConfigError> {
        let rules = self.rules.as_ref()?;
        let key = key.strip_prefix("policy.")?;
        let is_there = !matches!(key, RULES_FILE | SHADOW_FILE) && !key.starts_with(CONSUL);
        is_there.then(|| rules.error(key, message))
    }
}

const RULES_FILE: &str = "rules_file";
const SHADOW_FILE: &str = "shadow_file";
const CONSUL: &str = "consul";
