//! `cargo xtask features`: every package compiles alone, with no features and with each one on its own.
//!
//! Building the whole workspace turns on the features that any package asks for, which hides that another
//! one forgot to.

use crate::step::execute;
use crate::workspace::Workspace;

/// Lints the libraries and programs, without tests, which need features of their own.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    for (name, package) in &workspace.packages {
        for features in selections(&package.features) {
            let shown = if features.is_empty() {
                "no features"
            } else {
                features
            };
            println!("    {name}: {shown}");
            let arguments = [
                "clippy",
                "--quiet",
                "--package",
                name,
                "--no-default-features",
                "--features",
                features,
            ];
            execute(workspace.cargo(&arguments).args(["--", "-D", "warnings"]))?;
        }
    }
    Ok(())
}

/// No features, then each alone. All at once is what the `clippy` step does.
fn selections(features: &[String]) -> impl Iterator<Item = &str> {
    let alone = features
        .iter()
        .map(String::as_str)
        .filter(|feature| *feature != "default");
    std::iter::once("").chain(alone)
}
