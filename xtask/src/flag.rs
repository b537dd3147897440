//! Numbers on the command line.

use anyhow::Context;
use anyhow::bail;

/// The number behind `flag`, which is all that the arguments may be; `default` if there are none.
pub(crate) fn number(arguments: &[String], flag: &str, default: u64) -> anyhow::Result<u64> {
    match arguments {
        [] => Ok(default),
        [given, value] if given == flag => value
            .parse()
            .with_context(|| format!("`{flag}` takes a number, not `{value}`")),
        _ => bail!("expected `{flag} N` or nothing"),
    }
}
