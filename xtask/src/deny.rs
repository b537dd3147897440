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
    let check = [
        "deny",
        "--all-features",
        "--log-level",
        "error",
        "check",
        "--disable-fetch",
    ];
    execute(
        workspace
            .cargo(&check)
            .args(["bans", "licenses", "sources"]),
    )?;
    // The database of advisories is a git repository that not every machine can reach.
    match output(&mut workspace.cargo(&["deny", "fetch", "db"])) {
        Ok(_) => execute(workspace.cargo(&check).arg("advisories")),
        Err(error) => {
            println!(
                "skipped: advisories, because their database could not be fetched ({error:#})"
            );
            Ok(())
        }
    }
}
