//! Tests that `docs/threats.md` names: they exist.

use super::Tree;

/// One message for each test that the page names and that is not where it says.
pub(crate) fn missing(tree: &Tree) -> Vec<String> {
    let Some(text) = tree.files.get(PAGE) else {
        return vec![format!("{PAGE}: is missing")];
    };
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        // The tests stand in the last cell of a row.
        let Some((_, cell)) = line.trim_end_matches(" |").rsplit_once(" | ") else {
            continue;
        };
        let mut file = "";
        for word in cell.split('`').skip(1).step_by(2) {
            let name = match word.split_once(": ") {
                Some((path, name)) => {
                    file = path;
                    Some(name)
                }
                None if word.contains('/') => {
                    file = word;
                    None
                }
                None => Some(word),
            };
            let text = tree.files.get(file);
            let is_there = match name {
                Some(name) => text.is_some_and(|text| text.contains(&format!("fn {name}"))),
                None => text.is_some(),
            };
            if file.starts_with("mesh-") && !is_there {
                found.push(format!(
                    "{PAGE}:{}: names `{word}`, which is not in {file}",
                    index + 1
                ));
            }
        }
    }
    found
}

const PAGE: &str = "docs/threats.md";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_test_must_be_where_the_page_says() {
        let page = "| 1 | what | `mesh-x/tests/a.rs: is_there`, `also_there`; `mesh-x/tests/a.rs: gone`; `mesh-x/b.rs` |";
        let files = [
            (PAGE, page),
            ("mesh-x/tests/a.rs", "fn is_there() {} fn also_there() {}"),
        ];
        let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
        let tree = Tree {
            files: BTreeMap::from(files),
        };
        let found = missing(&tree);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].contains("gone") && found[1].contains("b.rs"),
            "{found:?}"
        );
        let none = Tree {
            files: BTreeMap::new(),
        };
        assert_eq!(missing(&none).len(), 1);
    }
}
