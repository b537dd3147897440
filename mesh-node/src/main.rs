//! The `mesh-node` program: arguments and environment in, exit code out.

use std::process::ExitCode;
use std::time::SystemTime;

fn main() -> ExitCode {
    let text = |name_or_value: std::ffi::OsString| name_or_value.into_string().ok();
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the clock is read that everything else is given"
    )]
    let now = SystemTime::now();
    mesh_node::cli::main(std::env::args_os(), variables.collect(), now)
}
