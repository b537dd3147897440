//! Policies and rules as an operator would write them into the file.
//!
//! Every text that is not plain is written as a JSON string, which YAML 1.2 reads as the same text (section 1.3).

use std::fmt;
use std::fmt::Write as _;

use super::{DefaultAction, PolicyConfig, RuleConfig};

/// The rules and the default.
pub(super) fn policy(config: &PolicyConfig) -> String {
    let default = match config.default {
        DefaultAction::Deny => "deny",
        DefaultAction::Audit => "audit",
    };
    let mut out = format!("default: {default}\nrules:");
    if config.rules.is_empty() {
        out.push_str(" []\n");
        return out;
    }
    out.push('\n');
    for one in &config.rules {
        for (line, text) in rule(one).lines().enumerate() {
            out.push_str(if line == 0 { "  - " } else { "    " });
            out.push_str(text);
            out.push('\n');
        }
    }
    out
}

/// A rule without the dash of its list.
pub(super) fn rule(rule: &RuleConfig) -> String {
    let mut out = String::new();
    // A String takes whatever is written to it.
    let _written: fmt::Result = write_rule(rule, &mut out);
    out
}

fn write_rule(rule: &RuleConfig, out: &mut String) -> fmt::Result {
    writeln!(out, "name: {}", scalar(&rule.name))?;
    writeln!(out, "from: {}", list(&rule.from))?;
    if !rule.users.is_empty() {
        writeln!(out, "users: {}", list(&rule.users))?;
    }
    write!(out, "to: {{ service: {}", scalar(&rule.to.service))?;
    if !rule.to.methods.is_empty() {
        write!(out, ", methods: {}", list(&rule.to.methods))?;
    }
    if !rule.to.paths.is_empty() {
        write!(out, ", paths: {}", list(&rule.to.paths))?;
    }
    if !rule.to.ports.is_empty() {
        let ports: Vec<String> = rule.to.ports.iter().map(u16::to_string).collect();
        write!(out, ", ports: [{}]", ports.join(", "))?;
    }
    writeln!(out, " }}")?;
    if let Some(when) = &rule.when {
        writeln!(out, "when: {}", quoted(when))?;
    }
    writeln!(out, "action: {}", rule.action.as_str())?;
    for (key, text) in [
        ("owner", &rule.owner),
        ("reason", &rule.reason),
        ("expires", &rule.expires),
    ] {
        if let Some(text) = text {
            writeln!(out, "{key}: {}", quoted(text))?;
        }
    }
    Ok(())
}

fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| scalar(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// A text that is plain to the eye stands without quotes, as people write it.
fn scalar(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '.');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let is_keyword = KEYWORDS.iter().any(|word| word.eq_ignore_ascii_case(text));
    if begins && !is_keyword && text.chars().all(is_word) {
        return text.to_owned();
    }
    quoted(text)
}

/// A JSON string; characters that could break a line or the terminal that shows it are escaped as well.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_dangerous(c) {
            // All of them are in the basic plane, so one unit is enough.
            let _written: fmt::Result = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// DEL and the C1 controls, line separators, zero-width and bidirectional controls (Unicode TR 36, section 2.5).
fn is_dangerous(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Words that YAML, of one version or another, reads as something else than a text.
const KEYWORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Action;

    #[test]
    fn a_rule_reads_as_people_write_it() {
        let rule = RuleConfig::new("web-reads", &["web", "group:a b"], "orders")
            .with_methods(&["GET"])
            .with_paths(&["/api/*", "/x"])
            .with_ports(&[80])
            .with_action(Action::Deny)
            .with_when("request.host == \"pay\"")
            .with_reason("why: \u{202e}because\n");
        assert_eq!(
            super::rule(&rule),
            "name: web-reads\nfrom: [web, \"group:a b\"]\n\
             to: { service: orders, methods: [GET], paths: [\"/api/*\", /x], ports: [80] }\n\
             when: \"request.host == \\\"pay\\\"\"\naction: deny\nreason: \"why: \\u202ebecause\\n\"\n"
        );
    }

    #[test]
    fn what_yaml_would_read_as_something_else_is_quoted() {
        for text in [
            "no", "True", "1e3", "~", "", "*", "-x", "a: b", "a #b", "0x1f", "é",
        ] {
            assert!(scalar(text).starts_with('"'), "{text}");
        }
        for text in ["web", "/a/b-c_d.json", "GET"] {
            assert_eq!(scalar(text), text);
        }
    }

    #[test]
    fn a_policy_has_its_default_and_its_rules() {
        let rule = || RuleConfig::new("r", &["*"], "*");
        let policy = PolicyConfig::default().with_rule(rule());
        let body =
            "  - name: r\n    from: [\"*\"]\n    to: { service: \"*\" }\n    action: allow\n";
        assert_eq!(
            super::policy(&policy),
            format!("default: deny\nrules:\n{body}")
        );
        assert_eq!(
            super::policy(&PolicyConfig::default()),
            "default: deny\nrules: []\n"
        );
    }
}
