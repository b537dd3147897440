//! What is refused before anything is asked.

use super::*;
use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::recall::Recall;
use crate::watch::Discover as _;

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

/// A list from before the start, of this machine and another.
struct Before;

impl Recall for Before {
    fn recall(&self, _source: &Arc<str>, _service: &ServiceName) -> Option<Endpoints> {
        let list = ["127.0.0.1", "10.0.0.7"].map(|host| Endpoint::new(host.parse().unwrap(), 80));
        Endpoints::new(list.into(), 0).ok()
    }

    fn remember(&self, _source: &Arc<str>, _service: &ServiceName, _endpoints: &Endpoints) {}
}

// threat 49
#[tokio::test]
async fn a_list_from_before_goes_through_the_rules_of_now() {
    for (allowed, expected) in [(None, 1), (Some("127.0.0.0/8"), 2)] {
        let mut config = Config::new("{service}.example.org");
        let allow = allowed.into_iter().map(|range| range.parse().unwrap());
        config.addresses.allow = allow.collect();
        let registry = RegistryConfig::new("dns").with_cache(Arc::new(Before));
        let (registry, _driver) = source(config, Arc::new(|| 0), registry).unwrap();
        let watch = registry.watch(&ServiceName::parse("orders").unwrap());
        assert_eq!(watch.current().len(), expected, "{allowed:?}");
    }
}
