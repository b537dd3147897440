//! The policy of the configuration file in the policy engine's own words.

use mesh_auth::policy::Action;
use mesh_auth::policy::DefaultAction;
use mesh_auth::policy::Policy;
use mesh_auth::policy::PolicyConfig as Written;
use mesh_auth::policy::PolicyError;
use mesh_auth::policy::RuleConfig as Rule;
use mesh_auth::spiffe::TrustDomain;

use crate::config::PolicyConfig;
use crate::config::PolicyDefault;
use crate::config::RuleAction;

/// Compiles every rule, so that one that can't be enforced is refused.
///
/// # Errors
///
/// As [`Policy::build`]: the error names the rule.
pub(crate) fn compile(config: &PolicyConfig, own: &TrustDomain) -> Result<Policy, PolicyError> {
    let default = match config.default {
        PolicyDefault::Deny => DefaultAction::Deny,
        PolicyDefault::Audit => DefaultAction::Audit,
    };
    let mut policy = Written::default().with_default(default);
    for rule in &config.rules {
        let mut own = Rule::new(&rule.name, &[], &rule.to.service);
        own.from.clone_from(&rule.from);
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
    Policy::build(&policy, own)
}
