//! What a registry, or whoever answers in its place, may say of a service: nothing that a list of endpoints can't hold.

use std::str;

use mesh_discovery::Endpoints;
use mesh_discovery::MAX_ENDPOINTS_PER_SERVICE;
use mesh_discovery::consul;
use mesh_discovery::etcd;
use mesh_discovery::xds;

/// An answer of Consul's health endpoint. What is taken is bounded, and what is refused is named in a short line.
pub fn consul_health(data: &[u8]) {
    let Ok((list, refused)) = consul::endpoints(data) else {
        return;
    };
    let count = list.len() + refused.count;
    assert!(count <= MAX_ENDPOINTS_PER_SERVICE, "{count}");
    match Endpoints::sift_more(list, refused, 0) {
        Ok((endpoints, refused)) => {
            assert_eq!(endpoints.len() + refused.count, count);
            assert_eq!(refused.first.is_some(), refused.count > 0);
            assert!(endpoints.iter().all(|endpoint| endpoint.port > 0));
        }
        Err(error) => {
            let line = error.to_string();
            assert!(
                line.len() < 4000 && !line.contains(char::is_control),
                "{line}"
            );
        }
    }
}

/// An instance's id on a line of its own, and its value in etcd. What is read is an endpoint that may stand in a list, and
/// what is refused is named in a short line.
pub fn etcd_value(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (Some(id), value) = (parts.next(), parts.next().unwrap_or_default()) else {
        return;
    };
    let Ok(id) = str::from_utf8(id) else {
        return;
    };
    match etcd::read_value(id, value) {
        Ok(endpoint) => {
            assert_eq!(endpoint.id, id);
            assert!(Endpoints::new(vec![endpoint], 0).is_ok());
        }
        Err(error) => {
            let line = error.to_string();
            assert!(
                line.len() < 1000 && !line.contains(char::is_control),
                "{line}"
            );
        }
    }
}

/// An assignment of a control plane: taken or refused as a whole, with a short line that says what is wrong.
pub fn xds_assignment(data: &[u8]) {
    match xds::endpoints(data) {
        Ok((list, ignored)) => {
            assert!(list.len() <= MAX_ENDPOINTS_PER_SERVICE, "{}", list.len());
            assert!(list.iter().all(|endpoint| endpoint.port > 0));
            assert!(list.iter().all(|endpoint| endpoint.host.ip().is_some()));
            assert!(ignored.len() <= 257, "{}", ignored.len());
        }
        Err(error) => {
            let line = error.to_string();
            assert!(
                line.len() < 4000 && !line.contains(char::is_control),
                "{line}"
            );
        }
    }
}
