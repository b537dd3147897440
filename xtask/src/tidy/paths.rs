//! Paths that the pages at the root of the repository name: they exist.

use std::path::Path;

use super::Tree;

/// One message for each path in back-ticks that is not there, and for each page that is not.
pub(crate) fn missing(root: &Path, tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for page in PAGES {
        let Some(text) = tree.files.get(page) else {
            found.push(format!("{page}: is missing"));
            continue;
        };
        for (index, line) in text.lines().enumerate() {
            // Odd pieces stand between two back-ticks.
            let quoted = line.split('`').skip(1).step_by(2);
            for path in quoted
                .filter(|word| is_path(root, word))
                .flat_map(alternatives)
            {
                if !root.join(&path).exists() {
                    found.push(format!(
                        "{page}:{}: names `{path}`, which is not there",
                        index + 1
                    ));
                }
            }
        }
    }
    found
}

/// True for what reads as a path of this repository: it begins in a directory that is here.
fn is_path(root: &Path, word: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/{,}".contains(c);
    match word.split_once('/') {
        Some((first, _)) => {
            !first.is_empty() && word.chars().all(is_plain) && root.join(first).is_dir()
        }
        None => false,
    }
}

/// `a/{b,c}.rs` means two paths.
fn alternatives(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else {
        return vec![path.to_owned()];
    };
    let Some((inside, after)) = rest.split_once('}') else {
        return vec![path.to_owned()];
    };
    inside
        .split(',')
        .map(|choice| format!("{before}{choice}{after}"))
        .collect()
}

/// ARCHITECTURE.md is the map; a map that lies is worse than none.
const PAGES: [&str; 3] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_paths_and_nothing_else() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (word, expected) in [
            ("src/main.rs", true),
            ("src/{main,tidy}.rs", true),
            ("/metrics", false),
            ("application/json", false),
            ("src/main.rs --flag", false),
            ("main.rs", false),
        ] {
            assert_eq!(is_path(root, word), expected, "{word}");
        }
        assert_eq!(
            alternatives("src/{main,tidy}.rs"),
            ["src/main.rs", "src/tidy.rs"]
        );
    }
}
