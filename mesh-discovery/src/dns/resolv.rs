//! The system's name servers.

use std::io::Read as _;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;

use super::Error;
use super::MAX_SERVERS;

/// Reads them from a file such as `/etc/resolv.conf`; nothing else in it counts.
pub(super) fn servers(path: &Path) -> Result<Vec<SocketAddr>, Error> {
    let failed = |source| Error::ResolvConf {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let servers = parse(&text);
    if servers.is_empty() {
        return Err(Error::NoServers {
            path: path.to_owned(),
        });
    }
    Ok(servers)
}

/// resolv.conf(5): `nameserver` and an address, from the line's beginning on. What is no address is left out, as the
/// system's own resolver does; so are link-local ones, which need an interface.
fn parse(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let rest = line.strip_prefix("nameserver")?;
        let address: IpAddr = rest
            .starts_with([' ', '\t'])
            .then(|| rest.split_whitespace().next())??
            .parse()
            .ok()?;
        Some(SocketAddr::new(address, PORT))
    };
    text.lines().filter_map(server).take(MAX_SERVERS).collect()
}

/// RFC 1035 section 4.2.
const PORT: u16 = 53;
const MAX_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_and_nothing_else() {
        let text = "# a comment\nsearch example.org\nnameserver 10.0.0.1\nnameserver\t::1 # why\n\
                    nameserver fe80::1%eth0\nnameservers 10.0.0.9\n nameserver 10.0.0.8\nnameserver\noptions ndots:5\n";
        let servers: Vec<_> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53"]);
        assert_eq!(
            parse(&"nameserver 10.0.0.1\n".repeat(20)).len(),
            MAX_SERVERS
        );
    }

    #[test]
    fn a_file_that_is_not_there_or_names_none_is_an_error_that_names_it() {
        for path in ["/nowhere/resolv.conf", "/dev/null"] {
            let error = servers(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(path), "{error}");
        }
    }
}
