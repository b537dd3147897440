//! `cargo xtask tidy`: what a machine can know of the house style and the compiler does not check.

mod errors;
mod paths;
mod threats;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use anyhow::bail;

use crate::reference;
use crate::step::output;
use crate::workspace::Workspace;

/// Looks at every file that git tracks or would track.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let tree = Tree::load(&workspace.root)?;
    let mut found = Vec::new();
    for (path, text) in &tree.files {
        found.extend(look(path, text));
    }
    found.extend(tree.fuzz_targets_without_test());
    found.extend(paths::missing(&workspace.root, &tree));
    found.extend(threats::missing(&tree));
    found.extend(reference::differences(workspace)?);
    if found.is_empty() {
        return Ok(());
    }
    found.sort_unstable();
    bail!("{} untidy places\n{}", found.len(), found.join("\n"))
}

/// The text files of the repository.
struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    fn load(root: &Path) -> anyhow::Result<Self> {
        let mut git = Command::new("git");
        git.current_dir(root).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]);
        let names = match output(&mut git) {
            Ok(names) => names.split_terminator('\0').map(str::to_owned).collect(),
            // An unpacked source archive has no git.
            Err(_) => walk(root)?,
        };
        let mut files = BTreeMap::new();
        for name in names {
            // Whatever is no text, or is deleted but not yet committed, has no style.
            if let Ok(text) = fs::read_to_string(root.join(&name)) {
                files.insert(name, text);
            }
        }
        Ok(Self { files })
    }

    /// Fuzz targets whose corpus no ordinary test replays.
    fn fuzz_targets_without_test(&self) -> Vec<String> {
        let targets = self.files.keys().filter_map(|path| {
            let (folder, file) = path.split_once("/fuzz_targets/")?;
            Some((path, folder, file.strip_suffix(".rs")?))
        });
        let is_replayed = |folder: &str, target: &str| {
            let corpus = format!("{folder}/corpus/{target}/");
            let mentioned = format!("corpus/{target}");
            self.files.keys().any(|path| path.starts_with(&corpus))
                && self
                    .files
                    .iter()
                    .any(|(path, text)| path.contains("tests/") && text.contains(&mentioned))
        };
        targets
            .filter(|(_, folder, target)| !is_replayed(folder, target))
            .map(|(path, folder, target)| {
                format!("{path}: no test replays {folder}/corpus/{target}")
            })
            .collect()
    }
}

/// Every file below a directory, without what is built and what is hidden.
fn walk(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("could not list {}", folder.display()))?
        {
            let entry = entry?;
            let name = entry.file_name();
            if name == "target" || name == ".git" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if let Ok(path) = entry.path().strip_prefix(root) {
                names.push(path.to_string_lossy().into_owned());
            }
        }
    }
    Ok(names)
}

/// What is wrong with one file.
fn look(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut report = |line: usize, message: &str| found.push(format!("{path}:{line}: {message}"));
    for (index, line) in text.lines().enumerate() {
        for (word, message) in FORBIDDEN_ANYWHERE {
            if line.contains(word) {
                report(index + 1, message);
            }
        }
        for word in UNFINISHED {
            if line
                .split_once(word)
                .is_some_and(|(_, rest)| !rest.starts_with('('))
            {
                report(
                    index + 1,
                    "names unfinished work without the id that tracks it, as in `WORD(#12)`",
                );
            }
        }
        if has_extension(path, "rs") {
            for (word, message) in FORBIDDEN_IN_RUST {
                if line.trim_start().starts_with(word) {
                    report(index + 1, message);
                }
            }
        }
    }
    if has_extension(path, "rs") {
        if !text.starts_with("//! ") {
            report(
                1,
                "does not begin with a `//!` sentence that says what the file is for",
            );
        }
        if path.ends_with("/mod.rs") && !path.contains("/tests/") {
            report(
                1,
                "should be named after its module, beside the folder of its parts",
            );
        }
        for line in errors::repeated_sources(text) {
            report(
                line,
                "prints its source, which whoever prints the chain of causes prints again",
            );
        }
    }
    found
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|found| found == extension)
}

// The words are written in pieces so that this file is tidy itself.
const UNFINISHED: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
];

const FORBIDDEN_ANYWHERE: [(&str, &str); 4] = [
    (concat!("/wo", "rk/"), "names a path of one machine"),
    (concat!("/ro", "ot/"), "names a path of one machine"),
    (concat!("/tmp/", "t/"), "names a path of one machine"),
    (
        concat!("SPDX-License-", "Identifier"),
        "has a licence banner; LICENSE-MIT and LICENSE-APACHE speak for all files",
    ),
];

const FORBIDDEN_IN_RUST: [(&str, &str); 3] = [
    (
        "// Copyright",
        "has a licence banner; LICENSE-MIT and LICENSE-APACHE speak for all files",
    ),
    (
        concat!("#[ig", "nore"),
        "leaves a test out; make it pass or take it away",
    ),
    (
        concat!("#[should_", "panic"),
        "accepts any panic; assert the error instead",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        let found = look(path, text);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                found.starts_with(path) && found.contains(expected),
                "{found}"
            );
        }
    }

    #[test]
    fn finds_untidy_places() {
        check("a/src/lib.rs", "//! Sentence.\n", &[]);
        check("a/src/lib.rs", "fn x() {}\n", &["does not begin"]);
        check("a/src/b/mod.rs", "//! Sentence.\n", &["should be named"]);
        check("a/tests/support/mod.rs", "//! Sentence.\n", &[]);
        check(
            "README.md",
            concat!("see /wo", "rk/main\n"),
            &["path of one machine"],
        );
        check("README.md", concat!("TO", "DO later\n"), &["unfinished"]);
        check("README.md", concat!("TO", "DO(#12) later\n"), &[]);
        check(
            "a/src/lib.rs",
            concat!("//! Sentence.\n  #[ig", "nore]\n"),
            &["leaves a test out"],
        );
        check("README.md", concat!("#[ig", "nore]\n"), &[]);
    }

    #[test]
    fn a_fuzz_target_needs_a_corpus_and_a_test_that_replays_it() {
        let tree = |names: &[(&str, &str)]| Tree {
            files: names
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
        };
        let target = ("c/fuzz/fuzz_targets/frame.rs", "");
        assert_eq!(tree(&[target]).fuzz_targets_without_test().len(), 1);
        let all = [
            target,
            ("c/fuzz/corpus/frame/1", ""),
            ("c/tests/corpus.rs", "\"fuzz/corpus/frame\""),
        ];
        assert_eq!(tree(&all).fuzz_targets_without_test(), Vec::<String>::new());
    }
}
