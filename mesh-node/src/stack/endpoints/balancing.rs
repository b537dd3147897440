//! How the endpoints of a service are balanced, and what of a call that goes by.

use std::sync::Arc;

use http::HeaderMap;
use http::HeaderName;
use http::header;
use mesh_resilience::balance::BalanceConfig;
use mesh_resilience::balance::hash;

/// How the endpoints of a service are balanced.
#[derive(Clone, Debug, Default)]
pub(crate) struct Balancing {
    pub(crate) config: BalanceConfig,
    /// What calls are told apart by, where the policy is one by hash.
    pub(crate) hash_on: Option<HashOn>,
}

/// What calls are told apart by.
#[derive(Clone, Debug)]
pub(crate) enum HashOn {
    /// A header field.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// Nothing: all calls of one name go to one endpoint.
    Caller(Arc<str>),
}

impl Balancing {
    /// The hash of a call; nothing where it has not what is asked for, and then chance decides.
    pub(crate) fn hash(&self, headers: &HeaderMap) -> Option<u64> {
        let text = match self.hash_on.as_ref()? {
            HashOn::Header(name) => headers.get(name)?.as_bytes(),
            HashOn::Cookie(name) => cookie(headers, name)?,
            HashOn::Caller(name) => name.as_bytes(),
        };
        Some(hash(text))
    }
}

/// The first cookie of that name (RFC 6265, section 5.4).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b';'))
        .find_map(|pair| {
            let pair = pair.trim_ascii();
            let value = pair.strip_prefix(name.as_bytes())?;
            value.strip_prefix(b"=")
        })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_call_is_known_by_what_is_asked_for_and_by_nothing_else() {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from_static("ann"));
        headers.append("cookie", HeaderValue::from_static("a=1; usex=2"));
        headers.append("cookie", HeaderValue::from_static("b=3;use=ann; use=bob"));
        let on = |hash_on| {
            let config = BalanceConfig::default();
            let hash_on = Some(hash_on);
            Balancing { config, hash_on }.hash(&headers)
        };
        let header = |name| on(HashOn::Header(HeaderName::from_static(name)));
        let ann = Some(hash(b"ann"));
        assert_eq!(header("x-user"), ann);
        assert_eq!(header("x-nobody"), None);
        assert_eq!(on(HashOn::Cookie("use".to_owned())), ann);
        assert_eq!(on(HashOn::Cookie("us".to_owned())), None);
        assert_eq!(on(HashOn::Caller("ann".into())), ann);
        assert_eq!(Balancing::default().hash(&headers), None);
    }
}
