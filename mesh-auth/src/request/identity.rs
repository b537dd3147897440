//! Header fields that say who the caller is, which the caller may not set.

use http::{HeaderMap, HeaderName};

/// Drops the fields in which a caller could claim to be someone: `x-forwarded-client-cert`,
/// `x-spiffe-id` and every `x-mesh-*`, except those listed in `except`.
///
/// Underscores count as dashes: many applications read header fields through CGI-style variables,
/// where `x_spiffe_id` and `x-spiffe-id` are the same. Gives the number of names dropped. Call this
/// before setting our own fields. Allocates only where there is something to drop.
pub fn strip_identity_headers(headers: &mut HeaderMap, except: &[HeaderName]) -> usize {
    let forged: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_identity_header(name.as_str()) && !except.contains(name))
        .cloned()
        .collect();
    for name in &forged {
        headers.remove(name);
    }
    forged.len()
}

/// Whether a field is one of those that [`strip_identity_headers`] drops.
pub fn is_identity_header(name: &str) -> bool {
    // Every field of interest starts like this; most fields end here.
    if !name.starts_with(['x', 'X']) {
        return false;
    }
    starts_like(name, PREFIX)
        || NAMES
            .iter()
            .any(|known| known.len() == name.len() && starts_like(name, known))
}

fn starts_like(name: &str, prefix: &str) -> bool {
    let same = |(ours, theirs): (u8, u8)| ours == theirs || (ours == b'-' && theirs == b'_');
    name.len() >= prefix.len() && prefix.bytes().zip(name.bytes()).all(same)
}

const PREFIX: &str = "x-mesh-";
const NAMES: [&str; 2] = ["x-forwarded-client-cert", "x-spiffe-id"];
