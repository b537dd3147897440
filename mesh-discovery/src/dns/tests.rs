//! What is refused before anything is asked.

use super::*;

fn error(change: impl FnOnce(&mut Config)) -> String {
    let mut config = Config::new("{service}.example.org");
    change(&mut config);
    let made = source(config, Arc::new(|| 0), RegistryConfig::new("dns"));
    made.err().unwrap().to_string()
}

#[test]
fn settings_that_can_not_work_are_refused_and_named() {
    for (text, part) in [
        (error(|config| config.srv = false), "port"),
        (error(|config| config.port = Some(0)), "port"),
        (error(|config| config.min_ttl = Duration::ZERO), "TTL"),
        (
            error(|config| config.max_ttl = Duration::from_secs(1)),
            "TTL",
        ),
        (
            error(|config| config.max_negative_ttl = Duration::from_secs(1)),
            "negative TTL",
        ),
        (error(|config| config.timeout = Duration::ZERO), "timeout"),
        (
            error(|config| config.servers = vec!["0.0.0.0:53".parse().unwrap()]),
            "servers",
        ),
        (
            error(|config| config.servers = vec!["10.0.0.1:53".parse().unwrap(); 9]),
            "servers",
        ),
        (error(|config| config.template.clear()), "{service}"),
    ] {
        assert!(text.contains(part), "{text}");
    }
}
