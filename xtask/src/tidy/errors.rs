//! Error messages that repeat their source.
//!
//! `#[error("could not read: {0}")] Read(#[from] io::Error)` prints the cause twice for everyone who walks
//! the chain of sources.

/// The lines of `#[error(...)]` attributes that show the field which is also the source.
pub(crate) fn repeated_sources(text: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let starts: Vec<usize> = text
        .match_indices(ATTRIBUTE)
        .map(|(at, _)| at)
        .filter(|at| begins_its_line(text, *at))
        .collect();
    for (i, start) in starts.iter().enumerate() {
        let end = starts.get(i + 1).copied().unwrap_or(text.len());
        let Some(variant) = text.get(*start..end) else {
            continue;
        };
        let Some((message, rest)) = variant.split_once(")]") else {
            continue;
        };
        // An enum ends at a brace in the first column; what follows belongs to something else.
        let fields = rest.split_once("\n}").map_or(rest, |(fields, _)| fields);
        let shows = ["{0", "{source"]
            .iter()
            .any(|field| message.contains(field));
        let has_source = ["#[from]", "#[source]", "source:"]
            .iter()
            .any(|field| fields.contains(field));
        if shows && has_source {
            let before = text.get(..*start).unwrap_or_default();
            found.push(before.matches('\n').count() + 1);
        }
    }
    found
}

/// True unless something stands before it on its line, such as the slashes of a comment.
fn begins_its_line(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    before
        .rsplit('\n')
        .next()
        .is_none_or(|start| start.trim().is_empty())
}

/// What opens a message of thiserror.
const ATTRIBUTE: &str = concat!("#[err", "or(");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_messages_that_show_their_source() {
        let text = concat!(
            "enum Error {\n    #[err",
            "or(\"reading: {0}\")]\n    A(#[from] Io),\n\n",
            "    #[err",
            "or(\"reading\")]\n    B(#[from] Io),\n\n",
            "    #[err",
            "or(\"frame of {0} bytes\")]\n    C(usize),\n\n",
            "    #[err",
            "or(\n        \"in {name}: {source}\"\n    )]\n    D { name: String, source: Io },\n}\n",
        );
        assert_eq!(repeated_sources(text), [2, 11]);
    }
}
