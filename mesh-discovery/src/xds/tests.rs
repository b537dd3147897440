//! Resources as bytes, for the tests of what reads them; and what stands in a configuration that is refused.

use super::follower::Assignments;
use super::follower::Clusters;
use super::topic::Kind as _;
use super::wire::Writer;
use super::*;

/// A cluster whose endpoints come over the same stream, under this name.
pub(super) fn eds_cluster(name: &str, assignment: &str) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.text(1, name);
    writer.uint64(2, 3);
    writer.message(3, |eds| {
        eds.message(1, |source| source.bytes(3, b""));
        eds.text(2, assignment);
    });
    writer.finish()
}

/// A cluster that carries endpoints on these ports of 10.0.0.1.
pub(super) fn static_cluster(name: &str, ports: &[u16]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.text(1, name);
    writer.bytes(33, &assignment(name, ports));
    writer.finish()
}

/// A cluster of a type that is not followed.
pub(super) fn bad_cluster(name: &str) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.text(1, name);
    writer.uint64(2, 1);
    writer.finish()
}

/// An assignment with endpoints on these ports of 10.0.0.1.
pub(super) fn assignment(name: &str, ports: &[u16]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.text(1, name);
    writer.message(2, |locality| {
        for port in ports {
            locality.message(2, |endpoint| socket(endpoint, "10.0.0.1", *port));
        }
    });
    writer.finish()
}

/// The address of an `LbEndpoint`.
pub(super) fn socket(writer: &mut Writer, address: &str, port: u16) {
    writer.message(1, |endpoint| {
        endpoint.message(1, |addresses| {
            addresses.message(1, |socket| {
                socket.text(2, address);
                socket.uint64(3, port.into());
            });
        });
    });
}

/// A `DiscoveryResponse` with these resources.
pub(super) fn whole(type_url: &str, version: &str, nonce: &str, resources: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.text(1, version);
    for resource in resources {
        writer.message(2, |any| {
            any.text(1, type_url);
            any.bytes(2, resource);
        });
    }
    writer.text(4, type_url);
    writer.text(5, nonce);
    writer.finish()
}

/// A `DeltaDiscoveryResponse` with these resources, each with name and version, and names of what is gone.
pub(super) fn delta(
    type_url: &str,
    nonce: &str,
    resources: &[(&str, &str, Vec<u8>)],
    removed: &[&str],
) -> Vec<u8> {
    let mut writer = Writer::default();
    for (name, version, content) in resources {
        writer.message(2, |resource| {
            resource.text(1, version);
            resource.message(2, |any| {
                any.text(1, type_url);
                any.bytes(2, content);
            });
            resource.text(3, name);
        });
    }
    writer.text(4, type_url);
    writer.text(5, nonce);
    for name in removed {
        writer.bytes(6, name.as_bytes());
    }
    writer.finish()
}

pub(super) const CDS: &str = Clusters::TYPE_URL;
pub(super) const EDS: &str = Assignments::TYPE_URL;

fn refused(config: Config) -> String {
    let error = source(config, RegistryConfig::new("xds")).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    format!("{error}: {}", cause.unwrap_or_default())
}

fn config(server: &str) -> Config {
    Config::new(vec![server.to_owned()], "node", Arc::new(|| 0))
}

#[test]
fn what_can_not_work_is_refused_before_anything_is_connected() {
    assert!(refused(Config::new(Vec::new(), "node", Arc::new(|| 0))).contains("one at least"));
    assert!(refused(config("xds:18000")).contains("http://"));
    assert!(refused(config("https://xds:18000")).contains("roots"));
    let nobody = Config::new(vec!["http://xds:18000".to_owned()], "", Arc::new(|| 0));
    assert!(refused(nobody).contains("id of a node"));
    let mut hurried = config("http://xds:18000");
    hurried.first_answer = Duration::ZERO;
    assert!(refused(hurried).contains("zero"));
    let mut token = config("http://xds:18000");
    token.token = Some(Arc::new(|| Ok("secret".to_owned())));
    assert!(refused(token).contains("only over https"));
}
