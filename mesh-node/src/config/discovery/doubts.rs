//! What is right and yet worth a second look in how a registry is reached, and in what it may say.

use std::net::IpAddr;

use http::Uri;

use super::SourceConfig;

/// All of it, for `mesh-node check`.
pub(crate) fn doubts(source: &SourceConfig) -> Vec<String> {
    let mut doubts: Vec<String> = plaintext(source).into_iter().collect();
    let (name, may_name) = match source {
        SourceConfig::Consul(consul) => (&consul.name, &consul.may_name_identities),
        SourceConfig::Etcd(etcd) => (&etcd.name, &etcd.may_name_identities),
        SourceConfig::Xds(xds) => (&xds.name, &xds.may_name_identities),
        _ => return doubts,
    };
    if !may_name.is_empty() {
        doubts.push(format!(
            "discovery.sources: whoever can write to {name} can lead calls for any service to {}",
            may_name.join(", ")
        ));
    }
    doubts
}

/// That it is reached in plaintext and over a network, which is said at each start as well.
pub(crate) fn plaintext(source: &SourceConfig) -> Option<String> {
    let (name, urls, has_secret) = match source {
        SourceConfig::Consul(consul) => (
            &consul.name,
            std::slice::from_ref(&consul.url),
            consul.token.is_some() || consul.token_file.is_some(),
        ),
        SourceConfig::Etcd(etcd) => (&etcd.name, &etcd.endpoints[..], etcd.username.is_some()),
        SourceConfig::Xds(xds) => (&xds.name, &xds.servers[..], xds.token_file.is_some()),
        _ => return None,
    };
    let url = urls.iter().find(|url| is_plain_and_far(url))?;
    let shown = if has_secret {
        ", and with it our secret"
    } else {
        ""
    };
    Some(format!(
        "discovery.sources: {name} is asked without TLS at {url}: whoever is on the way can change what it says{shown}"
    ))
}

/// Whether an address is reached in plaintext and over a network.
fn is_plain_and_far(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else {
        // Whoever connects to it refuses it.
        return false;
    };
    if url.scheme_str() != Some("http") {
        return false;
    }
    let host = url.host().unwrap_or_default();
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => !address.to_canonical().is_loopback(),
        Err(_name) => {
            let name = bare.strip_suffix('.').unwrap_or(bare);
            !name.eq_ignore_ascii_case("localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_near_and_no_name_that_begins_like_it() {
        for (url, expected) in [
            ("http://127.0.0.1:8500", false),
            ("http://127.1.2.3", false),
            ("http://[::1]:8500/", false),
            ("http://localhost:8500", false),
            ("HTTP://LocalHost.:8500", false),
            ("https://consul.example.org", false),
            ("http://127.evil.example:8500", true),
            ("http://localhost.evil.example:8500", true),
            ("http://localhost@evil.example:8500", true),
            ("HTTP://consul.example.org", true),
            ("http://10.0.0.7:8500", true),
            ("http://[fd00::1]:8500", true),
        ] {
            assert_eq!(is_plain_and_far(url), expected, "{url}");
        }
    }
}
