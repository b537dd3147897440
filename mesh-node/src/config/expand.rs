//! `${NAME}` and `${NAME:-default}` in values; never in keys, and after parsing, so that a variable can't add a key.

use zeroize::Zeroizing;

use super::Environment;
use super::error::ConfigError;
use super::tree::Kind;
use super::tree::Node;

/// Puts variables into every value under `root`.
pub(super) fn expand(
    root: &mut Node,
    environment: &Environment,
    file: &str,
) -> Result<(), ConfigError> {
    walk(root, "", environment, file)
}

fn walk(
    node: &mut Node,
    path: &str,
    environment: &Environment,
    file: &str,
) -> Result<(), ConfigError> {
    match &mut node.kind {
        Kind::Scalar(text) => {
            let expanded = substitute(text, environment)
                .map_err(|message| ConfigError::new(file, node.place.clone(), path, message))?;
            if let Some((value, variable)) = expanded {
                *text = value;
                node.variable = variable;
            }
        }
        Kind::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, &format!("{path}[{index}]"), environment, file)?;
            }
        }
        Kind::Map(entries) => {
            for (key, item) in entries {
                let below = if path.is_empty() {
                    key.text.clone()
                } else {
                    format!("{path}.{}", key.text)
                };
                walk(item, &below, environment, file)?;
            }
        }
        Kind::Null => {}
    }
    Ok(())
}

type Expanded = Option<(Zeroizing<String>, Option<String>)>;

/// The text with its variables filled in and the last variable used; nothing if there is no `${` in it.
fn substitute(text: &str, environment: &Environment) -> Result<Expanded, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    let mut variable = None;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(escaped) = before.strip_suffix('$') {
            out.push_str(escaped);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let (inside, behind) = after
            .split_once('}')
            .ok_or("has a ${ without its }; write ${NAME}, or $${ for a plain ${")?;
        rest = behind;
        let (name, fallback) = match inside.split_once(":-") {
            Some((name, fallback)) => (name, Some(fallback)),
            None => (inside, None),
        };
        if !is_name(name) {
            return Err(format!(
                "${{{inside}}} is not a variable; write ${{NAME}} or ${{NAME:-default}}"
            ));
        }
        match (
            environment
                .get(name)
                .filter(|value| fallback.is_none() || !value.is_empty()),
            fallback,
        ) {
            (Some(value), _) => {
                out.push_str(value);
                variable = Some(format!("${{{name}}}"));
            }
            (None, Some(fallback)) => out.push_str(fallback),
            (None, None) => {
                return Err(format!(
                    "environment variable {name} is not set; set it, or write ${{{name}:-default}}"
                ));
            }
        }
    }
    out.push_str(rest);
    Ok(Some((out, variable)))
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty()
        && name.bytes().all(plain)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let environment = Environment::from([
            ("A".to_owned(), "one".to_owned()),
            ("EMPTY".to_owned(), String::new()),
        ]);
        let got = substitute(text, &environment);
        let got =
            got.map(|found| found.map_or_else(|| text.to_owned(), |(value, _)| value.to_string()));
        assert_eq!(got.as_deref().map_err(String::as_str), expected, "{text}");
    }

    #[test]
    fn fills_in_variables_defaults_and_escapes() {
        check("plain $A $", Ok("plain $A $"));
        check("${A}", Ok("one"));
        check("x${A}y${A}", Ok("xoneyone"));
        check("${MISSING:-two}:8080", Ok("two:8080"));
        check("${EMPTY:-two}", Ok("two"));
        check("${EMPTY}", Ok(""));
        check("${A:-two}", Ok("one"));
        check("$${A}", Ok("${A}"));
        check(
            "${MISSING}",
            Err("environment variable MISSING is not set; set it, or write ${MISSING:-default}"),
        );
        check(
            "${A-b}",
            Err("${A-b} is not a variable; write ${NAME} or ${NAME:-default}"),
        );
        check(
            "${",
            Err("has a ${ without its }; write ${NAME}, or $${ for a plain ${"),
        );
    }
}
