//! Addresses and roots.

use std::error::Error as _;

use super::*;

fn client(config: &Config) -> Result<Client, Error> {
    Client::new(config, None, Arc::new(|| 0))
}

#[test]
fn an_address_is_http_or_https_with_a_host_and_nothing_that_is_secret() {
    for (url, what) in [
        ("", "no address"),
        ("127.0.0.1:8500", "http://"),
        ("ftp://consul", "http://"),
        ("/v1", "http://"),
        ("http://user:secret@consul:8500", "password"),
        ("http://consul:8500/?token=secret", "parameters"),
    ] {
        let config = Config::new(url);
        let error = client(&config).unwrap_err().to_string();
        assert!(error.contains(what), "{url}: {error}");
        assert!(!format!("{error} {config:?}").contains("secret"), "{error}");
    }
    for (url, host, port, prefix) in [
        ("http://127.0.0.1:8500", "127.0.0.1", 8500, ""),
        ("http://[::1]:8500/", "::1", 8500, ""),
        ("http://gateway/consul/", "gateway", 80, "/consul"),
    ] {
        let client = client(&Config::new(url)).unwrap();
        let server = &client.0.server;
        assert_eq!(
            (&*server.host, server.port, &*server.prefix),
            (host, port, prefix)
        );
    }
}

#[test]
fn https_needs_roots_that_can_be_read() {
    let mut config = Config::new("https://consul:8501");
    assert!(matches!(client(&config), Err(Error::NoRoots)));
    config.tls = Some(TlsConfig::new(""));
    let error = client(&config).unwrap_err();
    assert!(error.source().unwrap().to_string().contains("roots"));
}
