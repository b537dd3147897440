//! The policy of the configuration file in the policy engine's own words.

use mesh_auth::policy::Action;
use mesh_auth::policy::DefaultAction;
use mesh_auth::policy::IntentionConfig;
use mesh_auth::policy::Policy;
use mesh_auth::policy::PolicyConfig as Written;
use mesh_auth::policy::PolicyError;
use mesh_auth::policy::RuleConfig as Rule;
use mesh_auth::policy::Scope;
use mesh_auth::spiffe::TrustDomain;

use crate::config::ConfigError;
use crate::config::Document;
use crate::config::NodeConfig;
use crate::config::PolicyConfig;
use crate::config::PolicyDefault;
use crate::config::PolicyDocument;
use crate::config::RuleAction;
use crate::config::RuleConfig;
use crate::config::SecurityMode;

/// Compiles every rule, so that one that can't be enforced is refused.
///
/// # Errors
///
/// As [`Policy::build_in`]: the error names the rule.
pub(crate) fn compile(config: &PolicyConfig, scope: &Scope) -> Result<Policy, PolicyError> {
    compile_beside(config, &[], scope)
}

/// The same, with Consul's intentions beside the rules.
pub(crate) fn compile_beside(
    config: &PolicyConfig,
    intentions: &[IntentionConfig],
    scope: &Scope,
) -> Result<Policy, PolicyError> {
    let mut written = written(config);
    written.intentions = intentions.to_vec();
    Policy::build_in(&written, scope)
}

/// The policy as the engine takes it.
pub(crate) fn written(config: &PolicyConfig) -> Written {
    let default = match config.default {
        PolicyDefault::Deny => DefaultAction::Deny,
        PolicyDefault::Audit => DefaultAction::Audit,
    };
    let mut policy = Written::default().with_default(default);
    for rule in &config.rules {
        let mut own = Rule::new(&rule.name, &[], &rule.to.service);
        own.from.clone_from(&rule.from);
        own.users.clone_from(&rule.users);
        own.when.clone_from(&rule.when);
        own.to.methods.clone_from(&rule.to.methods);
        own.to.paths.clone_from(&rule.to.paths);
        own.to.ports.clone_from(&rule.to.ports);
        own.action = match rule.action {
            RuleAction::Allow => Action::Allow,
            RuleAction::Deny => Action::Deny,
            RuleAction::Audit => Action::Audit,
        };
        own.owner.clone_from(&rule.owner);
        own.reason.clone_from(&rule.reason);
        own.expires.clone_from(&rule.expires);
        policy = policy.with_rule(own);
    }
    policy
}

/// Where the policies of a node hold; `own` is its trust domain.
pub(crate) fn scope_of(config: &NodeConfig, own: &TrustDomain) -> Scope {
    let is_permissive = config.security.mode == SecurityMode::Permissive;
    Scope::new(own).with_permissive(is_permissive)
}

/// Compiles the policy of a file of its own; `config` came from `document`.
///
/// # Errors
///
/// As [`compile`], with file and line of the rule.
pub(crate) fn compile_document(
    document: &PolicyDocument,
    config: &PolicyConfig,
    scope: &Scope,
) -> Result<Policy, Box<Located>> {
    compile(config, scope).map_err(|source| {
        let place = document.error(&place_of(&source, &config.rules), NOT_ENFORCEABLE);
        Box::new(Located { place, source })
    })
}

/// Which of two policies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Which {
    /// The one that decides.
    Live,
    /// The one beside it.
    Shadow,
}

impl Which {
    /// Says of an error which policy it is about.
    pub(crate) fn fault(self) -> impl Fn(PolicyError) -> PolicyFault {
        move |source| PolicyFault {
            which: self,
            source,
        }
    }
}

/// Why policies can't be put into force.
#[derive(Debug, thiserror::Error)]
#[error("{}", match self.which {
    Which::Live => "policy.rules can't be enforced as they are",
    Which::Shadow => "the rules of policy.shadow_file can't be enforced as they are",
})]
pub(crate) struct PolicyFault {
    which: Which,
    source: PolicyError,
}

impl PolicyFault {
    /// What is wrong with the rules.
    pub(crate) fn into_source(self) -> PolicyError {
        self.source
    }

    /// The same, with file and line of the rule; `config` came from `document`.
    pub(crate) fn located(self, config: &NodeConfig, document: &Document) -> Located {
        let policy = &config.policy;
        let rules = match self.which {
            Which::Live => Some(&policy.rules),
            Which::Shadow => policy.shadow.as_ref().map(|shadow| &shadow.rules),
        };
        let key = place_of(&self.source, rules.map_or(&[], Vec::as_slice));
        let message = NOT_ENFORCEABLE;
        let place = match (self.which, document.shadow()) {
            (Which::Shadow, Some(shadow)) => shadow.error(&key, message),
            _ => document.error(&format!("policy.{key}"), message),
        };
        Located {
            place,
            source: self.source,
        }
    }
}

/// Why policies can't be put into force, with file and line.
#[derive(Debug, thiserror::Error)]
#[error("{place}")]
pub(crate) struct Located {
    pub(crate) place: ConfigError,
    pub(crate) source: PolicyError,
}

/// The key, within a policy, of the rule that an error is about.
fn place_of(error: &PolicyError, rules: &[RuleConfig]) -> String {
    let named = rule_of(error);
    let index = named.and_then(|name| rules.iter().rposition(|rule| rule.name == name));
    index.map_or_else(|| "rules".to_owned(), |index| format!("rules[{index}]"))
}

/// The rule that an error is about.
fn rule_of(error: &PolicyError) -> Option<&str> {
    match error {
        PolicyError::Name { rule }
        | PolicyError::DuplicateName { rule }
        | PolicyError::NoSource { rule }
        | PolicyError::Source { rule, .. }
        | PolicyError::User { rule, .. }
        | PolicyError::Anonymous { rule }
        | PolicyError::AnonymousUser { rule }
        | PolicyError::When { rule, .. }
        | PolicyError::Service { rule, .. }
        | PolicyError::Method { rule, .. }
        | PolicyError::Path { rule, .. }
        | PolicyError::Port { rule }
        | PolicyError::Expires { rule, .. } => Some(rule),
        _ => None,
    }
}

const NOT_ENFORCEABLE: &str = "is not a policy that can be enforced";
