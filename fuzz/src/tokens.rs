//! What an issuer of tokens may publish as its keys, or somebody in its name.

use std::error::Error;
use std::time::Duration;
use std::time::Instant;

use mesh_auth::token::Jwks;
use mesh_auth::token::JwksConfig;
use mesh_auth::token::KeySet;
use mesh_auth::token::MAX_SET_KEYS;

/// A key set: each entry is a key or is left out with a reason, and the same set is never a change.
#[expect(clippy::disallowed_methods, reason = "only what is added to it counts")]
pub fn key_set(data: &[u8]) {
    let set = match KeySet::parse(data) {
        Ok(set) => set,
        Err(error) => return check(&error),
    };
    let keys: Vec<_> = set.keys().collect();
    assert!(!keys.is_empty() && keys.len() == set.len());
    assert!(keys.len() + set.left_out().len() <= MAX_SET_KEYS);
    assert!(keys.iter().all(|(kid, _)| (1..=256).contains(&kid.len())));
    let mut now = Instant::now();
    let mut jwks = Jwks::new(JwksConfig::default(), now, 7);
    let first = jwks.fetched(now, data).expect("what was read");
    now += Duration::from_mins(10);
    let second = jwks.fetched(now, data).expect("the same");
    assert!(first.keys().eq(keys) && second.keys().eq(first.keys()));
}

/// An error and its causes can be shown in a line of the log.
fn check(error: &dyn Error) {
    let mut next = Some(error);
    while let Some(error) = next {
        let line = error.to_string();
        assert!(
            line.len() < 1000 && !line.contains(char::is_control),
            "{line}"
        );
        next = error.source();
    }
}
