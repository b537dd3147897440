//! `cargo xtask reference`: each crate's README is the documentation of its root.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;

use crate::workspace::Workspace;

/// Writes the README of the named crates, or of all, where it differs.
pub(crate) fn run(workspace: &Workspace, crates: &[String]) -> anyhow::Result<()> {
    if let Some(unknown) = crates
        .iter()
        .find(|name| !workspace.packages.contains_key(*name))
    {
        bail!("there is no crate `{unknown}` in the workspace");
    }
    for (name, path, expected) in readmes(workspace)? {
        if !crates.is_empty() && !crates.contains(&name) {
            continue;
        }
        if fs::read_to_string(&path).ok().as_ref() != Some(&expected) {
            fs::write(&path, expected)
                .with_context(|| format!("could not write {}", path.display()))?;
            println!("wrote {}", workspace.shown(&path));
        }
    }
    Ok(())
}

/// One message for each README that is not what [`run`] would write.
pub(crate) fn differences(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let differ = readmes(workspace)?
        .into_iter()
        .filter(|(_, path, expected)| fs::read_to_string(path).ok().as_ref() != Some(expected));
    let message = |path: &Path| {
        format!(
            "{}: differs from the crate documentation; run `cargo xtask reference`",
            workspace.shown(path)
        )
    };
    Ok(differ.map(|(_, path, _)| message(&path)).collect())
}

/// Each crate's name, the path of its README, and what should be there.
fn readmes(workspace: &Workspace) -> anyhow::Result<Vec<(String, PathBuf, String)>> {
    let mut all = Vec::new();
    for (name, package) in &workspace.packages {
        if let Some(library) = package.library.as_ref().filter(|_| package.is_published) {
            let source = fs::read_to_string(library)
                .with_context(|| format!("could not read {}", library.display()))?;
            all.push((
                name.clone(),
                package.directory.join("README.md"),
                readme(name, &source),
            ));
        }
    }
    Ok(all)
}

/// The inner documentation at the head of a file, under the name of the crate.
///
/// Lines that rustdoc hides in an example are left out; everything else stays as it is.
fn readme(name: &str, source: &str) -> String {
    let mut lines = vec![format!("# {name}"), String::new()];
    let mut fence: Option<Fence> = None;
    for line in source.lines().map_while(|line| line.strip_prefix("//!")) {
        let line = line.strip_prefix(' ').unwrap_or(line);
        let is_rust = matches!(fence, Some(Fence::Rust));
        if let Some(info) = line.trim_start().strip_prefix("```") {
            fence = match fence {
                Some(_) => None,
                None => Some(Fence::of(info)),
            };
        } else if is_rust && (line.trim() == "#" || line.trim_start().starts_with("# ")) {
            continue;
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.push(String::new());
    lines.join("\n")
}

/// What a block of code holds.
enum Fence {
    Rust,
    Other,
}

impl Fence {
    /// From the words after the opening fence, as rustdoc reads them.
    fn of(info: &str) -> Self {
        let mut words = info
            .split([',', ' '])
            .map(str::trim)
            .filter(|word| !word.is_empty());
        let is_rust = |word: &str| RUSTDOC_WORDS.contains(&word) || word.starts_with("edition");
        if words.all(is_rust) {
            Self::Rust
        } else {
            Self::Other
        }
    }
}

/// The rustdoc book, "Documentation tests", section "Attributes".
const RUSTDOC_WORDS: [&str; 5] = ["rust", "no_run", "ignore", "should_panic", "compile_fail"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_text_and_drops_hidden_lines_of_examples() {
        let source = "\
//! Sentence.
//!
//! ```
//! # fn main() {
//! let x = 1;
//! #
//! #[derive(Debug)]
//! # }
//! ```
//!
//! ```yaml
//! # a comment stays
//! ```
//!
//! # Heading

mod x;
//! not part of it
";
        let expected = "\
# mesh-x

Sentence.

```
let x = 1;
#[derive(Debug)]
```

```yaml
# a comment stays
```

# Heading
";
        assert_eq!(readme("mesh-x", source), expected);
    }
}
