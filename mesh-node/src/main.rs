//! The `mesh-node` program: arguments and environment in, exit code out.

mod core_dump;

use std::collections::BTreeMap;
use std::io;
use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

fn main() -> ExitCode {
    let text = |name_or_value: std::ffi::OsString| name_or_value.into_string().ok();
    let variables: BTreeMap<_, _> = std::env::vars_os()
        .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
        .collect();
    // Before any secret is read.
    if let Err(error) = core_dump::switch_off(&variables) {
        let allow = core_dump::ALLOW;
        // Nothing is left to do if the terminal is gone.
        drop(writeln!(
            io::stderr(),
            "error: could not switch off core dumps, which would hold private keys: {error}; set {allow}=1 to go without"
        ));
        return ExitCode::FAILURE;
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the clock is read that everything else is given"
    )]
    let now = SystemTime::now();
    mesh_node::cli::main(std::env::args_os(), variables, now)
}
