//! `cargo xtask soak`: faults at length, each with its figure and the goal that it is held against.

use anyhow::bail;

use crate::flag;
use crate::step::execute;
use crate::step::timed;
use crate::workspace::Workspace;

/// A test that has a long form.
struct Soak {
    name: &'static str,
    package: &'static str,
    test: &'static str,
    /// What the names of its cases begin with.
    cases: &'static str,
}

/// Runs all soaks whose names begin with the argument, against optimised programs, and fails with the first that falls
/// short. With a rate, each with that many calls a second.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<()> {
    let Some((wanted, flags)) = arguments.split_first() else {
        bail!("soak takes a name\n\n{}", names());
    };
    let rate = flag::number(flags, "--rate", RATE)?;
    let chosen: Vec<_> = SOAKS
        .iter()
        .filter(|soak| {
            let rest = soak.name.strip_prefix(wanted.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
        .collect();
    if chosen.is_empty() {
        bail!("there is no soak `{wanted}`\n\n{}", names());
    }
    for soak in chosen {
        let test = [
            "test",
            "--release",
            "--all-features",
            "--package",
            soak.package,
            "--test",
            soak.test,
        ];
        // One after the other: each measures time, and would measure the others.
        let flags = ["--", soak.cases, "--nocapture", "--test-threads=1"];
        let mut command = workspace.cargo(&test);
        command.args(flags).env("MESH_SOAK", "1");
        command.env("MESH_SOAK_RATE", rate.to_string());
        timed(soak.name, || execute(&mut command))?;
    }
    Ok(())
}

fn names() -> String {
    let names: Vec<_> = SOAKS.iter().map(|soak| soak.name).collect();
    format!(
        "soaks, by the beginnings of their names: {}",
        names.join(", ")
    )
}

/// Goal figures are held at half of what a machine carries: of two cores, about twice this.
const RATE: u64 = 200;

const SOAKS: [Soak; 14] = [
    Soak {
        name: "discovery-sets",
        package: "mesh-discovery",
        test: "faults",
        cases: "",
    },
    Soak {
        name: "discovery-outage",
        package: "mesh-node",
        test: "discovery_faults",
        cases: "outage",
    },
    Soak {
        name: "discovery-empty",
        package: "mesh-node",
        test: "discovery_faults",
        cases: "empty",
    },
    Soak {
        name: "discovery-flaps",
        package: "mesh-node",
        test: "discovery_faults",
        cases: "flaps",
    },
    Soak {
        name: "discovery-change",
        package: "mesh-node",
        test: "discovery_faults",
        cases: "change",
    },
    Soak {
        name: "discovery-poison",
        package: "mesh-node",
        test: "discovery_faults",
        cases: "poison",
    },
    Soak {
        name: "discovery-start",
        package: "mesh-node",
        test: "discovery_faults",
        cases: "start",
    },
    Soak {
        name: "writes",
        package: "mesh-node",
        test: "safe_writes",
        cases: "",
    },
    Soak {
        name: "resilience-instances",
        package: "mesh-node",
        test: "resilience_faults",
        cases: "instances",
    },
    Soak {
        name: "resilience-overload",
        package: "mesh-node",
        test: "resilience_faults",
        cases: "overload",
    },
    Soak {
        name: "resilience-retries",
        package: "mesh-node",
        test: "resilience_faults",
        cases: "amplification",
    },
    Soak {
        name: "resilience-breaker",
        package: "mesh-node",
        test: "resilience_faults",
        cases: "breaker",
    },
    Soak {
        name: "resilience-wires",
        package: "mesh-node",
        test: "resilience_faults",
        cases: "wires",
    },
    Soak {
        name: "resilience-restart",
        package: "mesh-node",
        test: "resilience_faults",
        cases: "restart",
    },
];
