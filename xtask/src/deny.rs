//! `cargo xtask deny`: licences, duplicates, sources and advisories of all dependencies, by cargo-deny.

use crate::step::execute;
use crate::step::output;
use crate::step::succeeds;
use crate::workspace::Workspace;

/// Checks against `deny.toml` where cargo-deny is installed; says what it left out.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    if !succeeds(&mut workspace.cargo(&["deny", "--version"])) {
        println!("skipped: cargo-deny is not installed (`cargo install cargo-deny --locked`)");
        return Ok(());
    }
    let check = |words: &[&str]| {
        let mut command = workspace.cargo(&["deny", "--log-level", "warn"]);
        execute(command.args(words))
    };
    check(&["check", "bans", "licenses", "sources"])?;
    // The database of advisories is a git repository that not every machine can reach.
    match output(&mut workspace.cargo(&["deny", "fetch", "db"])) {
        Ok(_) => check(&["--offline", "check", "advisories"]),
        Err(_) => {
            println!(
                "skipped: advisories, because `cargo deny fetch db` could not reach their database"
            );
            Ok(())
        }
    }
}
