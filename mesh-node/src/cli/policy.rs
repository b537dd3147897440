//! `mesh-node policy`: trying a policy before it is in force.

mod diff;
mod lint;
mod suggest;
mod test;

use std::path::Path;
use std::path::PathBuf;

use clap::Subcommand;
use mesh_auth::policy::Policy;
use mesh_auth::policy::Scope;
use mesh_auth::spiffe::TrustDomain;

use super::Context;
use super::report::Failure;
use super::report::Report;
use crate::adapt::policy::Located;
use crate::adapt::policy::compile_document;
use crate::adapt::policy::scope_of;
use crate::config::Document;
use crate::config::NodeConfig;
use crate::config::PolicyDocument;
use crate::policy_store::build;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Holds a policy against a table of expectations.
    ///
    /// The table is YAML: `tests:` and a list of calls, each with name, from, to and expect (allow or deny), and where it
    /// matters user, port, method, path, host, headers, at and rule.
    #[command(after_help = test::EXIT_CODES)]
    Test(test::Args),
    /// Drafts least-privilege rules from recorded decisions; changes nothing.
    ///
    /// Prints a policy file: who called what, how often, and when. Read it before you use any of it: what an attacker tried
    /// is in the record too.
    Suggest(suggest::Args),
    /// Lists the recorded decisions that another policy would turn.
    #[command(after_help = diff::EXIT_CODES)]
    Diff(diff::Args),
    /// Lists what is doubtful about a policy: rules that match nobody, that others make superfluous, that are wide for ever.
    #[command(after_help = lint::EXIT_CODES)]
    Lint(lint::Args),
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Report, Failure> {
    match command {
        Command::Test(args) => test::run(args, context),
        Command::Suggest(args) => suggest::run(args, context),
        Command::Diff(args) => diff::run(args, context),
        Command::Lint(args) => lint::run(args, context),
    }
}

/// Which trust domain services are of that a rule names without one.
#[derive(Debug, clap::Args)]
struct Domain {
    /// The trust domain of services that are named without one. Default: that of the configuration.
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<String>,
    /// The configuration.
    #[arg(short, long, value_name = "FILE", default_value = "mesh.yaml")]
    config: PathBuf,
}

impl Domain {
    /// The trust domain, and where policies hold.
    fn scope(&self, context: &Context) -> Result<(TrustDomain, Scope), Failure> {
        if let Some(name) = &self.trust_domain {
            let own = TrustDomain::parse(name).map_err(|error| {
                Failure::new("--trust-domain is not the name of one", error).into_misuse()
            })?;
            let scope = Scope::new(&own);
            return Ok((own, scope));
        }
        let document = Document::read(&self.config, &context.environment)?;
        let config = document.config()?;
        let own = own(&config, &document)?;
        let scope = scope_of(&config, &own);
        Ok((own, scope))
    }
}

/// The policies of a configuration, ready to be asked.
pub(super) struct Loaded {
    pub(super) config: NodeConfig,
    pub(super) own: TrustDomain,
    pub(super) policy: Policy,
    pub(super) shadow: Option<Policy>,
}

impl Loaded {
    /// The policies of the configuration at `path`.
    pub(super) fn of_config(path: &Path, context: &Context) -> Result<Self, Failure> {
        let document = Document::read(path, &context.environment)?;
        let config = document.config()?;
        let own = own(&config, &document)?;
        let policies =
            build(&config.policy, &[], &scope_of(&config, &own), 1).map_err(|fault| {
                let Located { place, source } = fault.located(&config, &document);
                Failure::because(place, source)
            })?;
        Ok(Self {
            config,
            own,
            policy: policies.live,
            shadow: policies.shadow,
        })
    }
}

fn own(config: &NodeConfig, document: &Document) -> Result<TrustDomain, Failure> {
    TrustDomain::parse(&config.identity.trust_domain).map_err(|error| {
        let place = document.error("identity.trust_domain", "is not usable");
        Failure::because(place, error)
    })
}

/// A policy file, ready to be asked.
fn of_file(path: &Path, scope: &Scope, context: &Context) -> Result<Policy, Failure> {
    let document = PolicyDocument::read(path, &context.environment)?;
    compile_document(&document, &document.config()?, scope).map_err(|error| {
        let Located { place, source } = *error;
        Failure::because(place, source)
    })
}

fn with_warnings(text: &mut String, warnings: &[String]) {
    for warning in warnings {
        text.push_str("\nwarning: ");
        text.push_str(warning);
    }
}
