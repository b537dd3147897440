//! `cargo xtask deps`: the edges between our crates are the ones that were decided on.

use anyhow::bail;

use crate::workspace::Workspace;

/// Compares the manifests with the tables below.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let edges = workspace.packages.iter().flat_map(|(from, package)| {
        package.dependencies.iter().map(move |dependency| Edge {
            from,
            to: &dependency.name,
            is_always_on: !dependency.is_optional && !dependency.is_dev,
        })
    });
    let ours = edges.filter(|edge| workspace.packages.contains_key(edge.to));
    let wrong: Vec<_> = ours.filter_map(|edge| judge(&edge)).collect();
    if !wrong.is_empty() {
        bail!(
            "{}\na new edge is its own change: edit xtask/src/deps.rs and ARCHITECTURE.md with it",
            wrong.join("\n")
        );
    }
    Ok(())
}

struct Edge<'a> {
    from: &'a str,
    to: &'a str,
    is_always_on: bool,
}

/// What is wrong with an edge, if anything.
fn judge(edge: &Edge<'_>) -> Option<String> {
    let Edge {
        from,
        to,
        is_always_on,
    } = *edge;
    if ALLOWED.contains(&(from, to)) {
        return None;
    }
    if !ALLOWED_WITH_A_FEATURE.contains(&(from, to)) {
        return Some(format!(
            "{from} must not depend on {to}: ARCHITECTURE.md does not draw that edge"
        ));
    }
    is_always_on
        .then(|| format!("{from} may depend on {to} only with a feature: see ARCHITECTURE.md"))
}

/// From the crate on the left to the one on the right; tests count like any other use.
const ALLOWED: &[(&str, &str)] = &[
    ("mesh-session", "mesh-crypto"),
    ("mesh-node", "mesh-audit"),
    ("mesh-node", "mesh-auth"),
    ("mesh-node", "mesh-crypto"),
    ("mesh-node", "mesh-discovery"),
    ("mesh-node", "mesh-resilience"),
    ("mesh-node", "mesh-session"),
    ("mesh-node", "mesh-transport"),
    ("benches", "mesh-audit"),
    ("benches", "mesh-auth"),
    ("benches", "mesh-crypto"),
    ("benches", "mesh-discovery"),
    ("benches", "mesh-node"),
    ("benches", "mesh-resilience"),
    ("benches", "mesh-session"),
    ("benches", "mesh-transport"),
];

/// Edges that must be optional dependencies, or serve tests only.
const ALLOWED_WITH_A_FEATURE: &[(&str, &str)] = &[
    ("mesh-transport", "mesh-auth"),
    ("mesh-transport", "mesh-crypto"),
    ("mesh-transport", "mesh-session"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &str, to: &str, is_always_on: bool, expected: Option<&str>) {
        assert_eq!(
            judge(&Edge {
                from,
                to,
                is_always_on
            })
            .as_deref(),
            expected
        );
    }

    #[test]
    fn an_edge_must_be_in_the_table() {
        check("mesh-session", "mesh-crypto", true, None);
        check("mesh-transport", "mesh-auth", false, None);
        check(
            "mesh-crypto",
            "mesh-session",
            true,
            Some(
                "mesh-crypto must not depend on mesh-session: ARCHITECTURE.md does not draw that edge",
            ),
        );
        check(
            "mesh-transport",
            "mesh-auth",
            true,
            Some("mesh-transport may depend on mesh-auth only with a feature: see ARCHITECTURE.md"),
        );
    }

    #[test]
    fn the_table_has_no_cycle() {
        let mut edges: Vec<_> = ALLOWED
            .iter()
            .chain(ALLOWED_WITH_A_FEATURE)
            .copied()
            .collect();
        // Taking away whatever nothing is needed by must leave nothing in the end.
        while !edges.is_empty() {
            let before = edges.len();
            let all = edges.clone();
            edges.retain(|(from, _)| all.iter().any(|(_, to)| to == from));
            assert!(edges.len() < before, "a cycle among {edges:?}");
        }
    }
}
