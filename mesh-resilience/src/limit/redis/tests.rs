//! Addresses, names of records, and what is refused before a server is asked.

use super::*;
use crate::random::SplitMix64;

#[test]
fn an_address_is_read_whole_or_not_at_all() {
    let read = |url: &str| {
        let address = Address::parse(url)?;
        Some((address.host, address.port, address.database, address.is_tls))
    };
    let some = |host: &str, port, database, is_tls| Some((host.to_owned(), port, database, is_tls));
    for (url, expected) in [
        ("redis://cache", some("cache", 6379, 0, false)),
        ("redis://10.0.0.7:7000/", some("10.0.0.7", 7000, 0, false)),
        (
            "rediss://cache.test:6380/3",
            some("cache.test", 6380, 3, true),
        ),
        ("redis://[::1]:7000/2", some("::1", 7000, 2, false)),
        ("http://cache", None),
        ("redis://user:secret@cache", None),
        ("redis://cache:0", None),
        ("redis://cache:port", None),
        ("redis://cache/x", None),
        ("redis://", None),
        ("cache:6379", None),
    ] {
        assert_eq!(read(url), expected, "{url}");
    }
    let moved = Address::parse("redis://a:1/2").and_then(|a| a.moved("10.0.0.1:6381"));
    assert_eq!(
        moved.map(|a| (a.host, a.port, a.database)),
        Some(("10.0.0.1".to_owned(), 6381, 2))
    );
}

#[test]
fn what_can_not_be_kept_in_redis_is_refused_before_it_is_tried() {
    let build = |config: RedisConfig, limit: &LimitConfig| {
        RedisStore::new(config, limit, Arc::new(SplitMix64::new(1))).map(drop)
    };
    let usual = LimitConfig::default();
    let url = "redis://cache";
    build(RedisConfig::new(url), &usual).unwrap();
    let fine = super::super::Window::new(NonZeroU32::MIN, Duration::from_millis(10));
    for (config, limit) in [
        (RedisConfig::new("cache"), usual.clone()),
        (RedisConfig::new(url).with_prefix("a{b}"), usual.clone()),
        (RedisConfig::new(url).with_prefix(""), usual.clone()),
        (RedisConfig::new("rediss://cache"), usual.clone()),
        (RedisConfig::new(url), usual.with_windows(vec![fine])),
    ] {
        build(config, &limit).unwrap_err();
    }
}

#[test]
fn no_byte_of_a_caller_is_in_the_name_of_its_record() {
    let (store, _) = RedisStore::new(
        RedisConfig::new("redis://cache").with_prefix("p"),
        &LimitConfig::default(),
        Arc::new(SplitMix64::new(1)),
    )
    .unwrap();
    for key in ["", "ann", "}{\r\nFLUSHALL", &"x".repeat(100_000)] {
        let name = store.record(key);
        let digits = name.strip_prefix("{p}:").unwrap();
        assert!(
            digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()),
            "{name}"
        );
    }
    assert_ne!(store.record("a"), store.record("b"));
}

#[test]
fn a_password_is_not_shown() {
    let config = RedisConfig::new("redis://cache")
        .with_credentials(None, Arc::new(|| Ok("hunter2".to_owned())));
    assert!(!format!("{config:?}").contains("hunter2"));
}
