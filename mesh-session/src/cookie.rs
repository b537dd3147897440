//! Stateless cookies, for responders without mTLS below: who sends one back receives at its address.
//!
//! # Sources
//!
//! RFC 9147 section 5.1 (DTLS 1.3), RFC 9000 section 8.1.4 (QUIC address validation tokens); the bytes are those of
//! `PROTOCOL.md` section 7.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;
use std::time::Duration;

use mesh_crypto::Engine;
use mesh_crypto::MacKey;
use mesh_crypto::Random;
use mesh_crypto::Secret;
use parking_lot::Mutex;

use crate::Error;
use crate::UnixTime;
use crate::wire;

/// Makes and checks cookies. It keeps nothing but its keys: one for a minute, and the one before.
///
/// A cookie is bound to its time, an address, and the first message that it was given for. Making or checking one costs
/// a SHA-256 of the message and an HMAC, 2 to 4 µs for the usual 2 to 4 KiB.
#[derive(Debug)]
pub struct CookieMint {
    engine: Arc<dyn Engine>,
    random: Arc<dyn Random>,
    lifetime: Duration,
    rotate_every: Duration,
    keys: Mutex<Keys>,
}

#[derive(Debug)]
struct Keys {
    current: Arc<MacKey>,
    previous: Option<Arc<MacKey>>,
    since: UnixTime,
}

impl CookieMint {
    /// Bytes of a cookie.
    pub const COOKIE_LEN: usize = TIME_LEN + MacKey::TAG_LEN;

    /// A mint with a fresh key, which never leaves memory.
    ///
    /// # Errors
    ///
    /// [`Error::Crypto`] if the source of randomness fails.
    pub fn new(
        engine: Arc<dyn Engine>,
        random: Arc<dyn Random>,
        now: UnixTime,
    ) -> Result<Self, Error> {
        let current = fresh(&*engine, &*random)?;
        Ok(Self {
            engine,
            random,
            lifetime: LIFETIME,
            rotate_every: ROTATE_EVERY,
            keys: Mutex::new(Keys {
                current,
                previous: None,
                since: now,
            }),
        })
    }

    /// Sets how long a cookie is good. Default 30 s. Longer than a key is used it is not good for sure.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// Sets how long a key is used; cookies of the one before it still pass. Default 1 min.
    #[must_use]
    pub fn with_rotate_every(self, rotate_every: Duration) -> Self {
        Self {
            rotate_every,
            ..self
        }
    }

    /// A cookie for whoever sent `message` from `address`, whatever the caller takes for one: bytes that the sender could
    /// not choose without receiving there, such as IP address and port.
    pub fn mint(&self, address: &[u8], message: &[u8], now: UnixTime) -> [u8; Self::COOKIE_LEN] {
        let time = now.as_millis().to_be_bytes();
        let (key, _) = self.keys(now);
        let hash = self.engine.sha256(&[message]);
        let tag = key.sign(&[LABEL, &time, &length(address), address, &hash]);
        let mut cookie = [0; Self::COOKIE_LEN];
        for (to, from) in cookie.iter_mut().zip(time.iter().chain(&tag)) {
            *to = *from;
        }
        cookie
    }

    /// Checks, in constant time, that `cookie` was made here for this address and message, and not too long ago.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if not; it does not say why.
    pub fn check(
        &self,
        cookie: &[u8],
        address: &[u8],
        message: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        let (time, tag) = cookie.split_first_chunk().ok_or(Error::Open)?;
        let made = UnixTime::from_millis(u64::from_be_bytes(*time));
        if tag.len() != MacKey::TAG_LEN || made.distance(now) > self.lifetime {
            return Err(Error::Open);
        }
        let (current, previous) = self.keys(now);
        let hash = self.engine.sha256(&[message]);
        let len = length(address);
        let parts = [LABEL, time, &len, address, &hash];
        let is_of = |key: &MacKey| key.verify(&parts, tag).is_ok();
        let is_good = is_of(&current) || previous.is_some_and(|key| is_of(&key));
        if is_good { Ok(()) } else { Err(Error::Open) }
    }

    /// The key of now and the one before, replaced when their time has come. Where no randomness is to be had the old key
    /// stays until there is.
    fn keys(&self, now: UnixTime) -> (Arc<MacKey>, Option<Arc<MacKey>>) {
        let keys = &mut *self.keys.lock();
        let age = now.since(keys.since);
        if age >= self.rotate_every
            && let Ok(current) = fresh(&*self.engine, &*self.random)
        {
            let replaced = std::mem::replace(&mut keys.current, current);
            // Whoever has not asked for so long has no cookie of it that is still good.
            keys.previous =
                (age < self.rotate_every.saturating_add(self.lifetime)).then_some(replaced);
            keys.since = now;
        }
        (Arc::clone(&keys.current), keys.previous.clone())
    }
}

/// The answer to a first message that needs a cookie.
pub fn challenge(cookie: &[u8; CookieMint::COOKIE_LEN]) -> Vec<u8> {
    with_kind(KIND_CHALLENGE, cookie, &[])
}

/// The cookie in a challenge.
///
/// # Errors
///
/// [`Error::Malformed`], [`Error::Version`].
pub fn parse_challenge(bytes: &[u8]) -> Result<[u8; CookieMint::COOKIE_LEN], Error> {
    match split("challenge", KIND_CHALLENGE, bytes)? {
        (cookie, []) => Ok(cookie),
        _ => Err(Error::Malformed { what: "challenge" }),
    }
}

/// `message` again, with the cookie that was given for it.
pub fn with_cookie(cookie: &[u8; CookieMint::COOKIE_LEN], message: &[u8]) -> Vec<u8> {
    with_kind(KIND_WITH_COOKIE, cookie, message)
}

/// The cookie and the message in what [`with_cookie`] made; the message is not looked at.
///
/// # Errors
///
/// [`Error::Malformed`], [`Error::Version`].
pub fn parse_with_cookie(bytes: &[u8]) -> Result<([u8; CookieMint::COOKIE_LEN], &[u8]), Error> {
    split("message with cookie", KIND_WITH_COOKIE, bytes)
}

fn with_kind(kind: u8, cookie: &[u8], message: &[u8]) -> Vec<u8> {
    [&[wire::VERSION, kind], cookie, message].concat()
}

fn split<'a>(
    what: &'static str,
    kind: u8,
    bytes: &'a [u8],
) -> Result<([u8; CookieMint::COOKIE_LEN], &'a [u8]), Error> {
    let malformed = Error::Malformed { what };
    match bytes {
        [wire::VERSION, got, rest @ ..] if *got == kind => {
            let (cookie, message) = rest.split_first_chunk().ok_or(malformed)?;
            Ok((*cookie, message))
        }
        [wire::VERSION, ..] | [] => Err(malformed),
        [version, ..] => Err(Error::Version { version: *version }),
    }
}

fn fresh(engine: &dyn Engine, random: &dyn Random) -> Result<Arc<MacKey>, Error> {
    let key = Secret::random(KEY_LEN, random).map_err(Error::Crypto)?;
    Ok(Arc::new(engine.mac_key(key.expose())))
}

/// What follows the address has one length, so even an address longer than this can say is told from every other.
fn length(address: &[u8]) -> [u8; 2] {
    u16::try_from(address.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes()
}

const LABEL: &[u8] = b"mesh-session v1 cookie\0";
const KIND_CHALLENGE: u8 = 6;
const KIND_WITH_COOKIE: u8 = 7;
const KEY_LEN: usize = 32;
const TIME_LEN: usize = 8;
/// Long enough for one round trip and a slow peer.
const LIFETIME: Duration = Duration::from_secs(30);
const ROTATE_EVERY: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests;
