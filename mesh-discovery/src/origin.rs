//! As much of an address as an error may show.

/// Scheme, host and port of an address that may be none, without the name, password and parameters that people put into
/// addresses; nothing of the host where one can't tell it from those.
pub(crate) fn origin(address: &str) -> String {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, address),
    };
    let mut parts = rest.splitn(2, ['/', '?', '#']);
    let authority = parts.next().unwrap_or_default();
    // The slash may be one of a password.
    let is_unclear = parts.next().is_some_and(|tail| tail.contains('@'));
    let host = match authority.rsplit_once('@') {
        _ if is_unclear => HIDDEN,
        Some((_, host)) => host,
        None => authority,
    };
    let shown = [scheme, scheme.map(|_| "://"), Some(host)];
    let shown = shown.into_iter().flatten().flat_map(str::chars);
    shown.take(MAX_SHOWN).collect()
}

const HIDDEN: &str = "…";
/// An address may come from a file and end in a log.
const MAX_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_passwords_paths_and_parameters_are_not_shown() {
        for (address, shown) in [
            ("http://consul:8500", "http://consul:8500"),
            ("http://user:secret@consul:8500/v1", "http://consul:8500"),
            ("http://consul:8500/?token=secret", "http://consul:8500"),
            ("http://consul:8500?token=secret", "http://consul:8500"),
            ("user:secret@consul", "consul"),
            ("http://user:se/cret@consul", "http://…"),
            ("http://user:s@cret/x@consul", "http://…"),
            ("http://consul/?token=a@secret", "http://…"),
            ("https://[::1]:8501#secret", "https://[::1]:8501"),
            ("", ""),
        ] {
            assert_eq!(origin(address), shown, "{address}");
        }
        assert_eq!(origin(&"x".repeat(1000)).len(), MAX_SHOWN);
    }
}
