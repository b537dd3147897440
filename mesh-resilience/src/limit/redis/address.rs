//! The address of a server.

/// Where a server is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: u32,
    pub(super) is_tls: bool,
}

impl Address {
    /// Reads `redis://HOST[:PORT][/DATABASE]` or `rediss://…`.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let is_tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return None,
        };
        let (authority, database) = match rest.split_once('/') {
            None | Some((_, "")) => (rest.trim_end_matches('/'), 0),
            Some((authority, database)) => (authority, database.parse().ok()?),
        };
        let (host, port) = split(authority)?;
        Some(Self {
            host: host.to_owned(),
            port: port.unwrap_or(DEFAULT_PORT),
            database,
            is_tls,
        })
    }

    /// The same server's neighbour in its cluster, as a `MOVED` names it.
    pub(super) fn moved(&self, to: &str) -> Option<Self> {
        // "CLUSTER SLOTS": no host means the one that said so. IPv6 addresses come without brackets.
        let (host, port) = to.rsplit_once(':')?;
        Some(Self {
            host: if host.is_empty() {
                self.host.clone()
            } else {
                host.to_owned()
            },
            port: port.parse().ok()?,
            ..self.clone()
        })
    }
}

/// Host, without brackets, and port.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            if after.is_empty() {
                (host, None)
            } else {
                (host, Some(after.strip_prefix(':')?))
            }
        }
        None => match authority.split_once(':') {
            None => (authority, None),
            Some((host, port)) => (host, Some(port)),
        },
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if host.is_empty() || !host.chars().all(is_host) {
        return None;
    }
    match port {
        None => Some((host, None)),
        Some(port) => Some((host, Some(port.parse().ok().filter(|port| *port > 0)?))),
    }
}

const DEFAULT_PORT: u16 = 6379;
