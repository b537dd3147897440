//! Which clusters are followed, and what is said of the others.

use super::super::tests::bad_cluster;
use super::super::tests::eds_cluster;
use super::super::tests::static_cluster;
use super::super::wire::Writer;
use super::*;

fn decoded(bytes: &[u8]) -> Result<Cluster, String> {
    decode(bytes, &mut Ignored::default()).map_err(|wrong| wrong.to_string())
}

#[test]
fn an_assignment_has_the_name_that_is_given_or_the_clusters() {
    assert_eq!(
        decoded(&eds_cluster("a", "b")),
        Ok(Cluster::Assigned("b".to_owned()))
    );
    assert_eq!(
        decoded(&eds_cluster("a", "")),
        Ok(Cluster::Assigned("a".to_owned()))
    );
    assert_eq!(name(&eds_cluster("a", "b")), Some("a"));
}

#[test]
fn a_static_cluster_carries_its_endpoints() {
    let Ok(Cluster::Inline(assignment)) = decoded(&static_cluster("a", &[1, 2])) else {
        unreachable!("it is static");
    };
    assert_eq!(assignment.endpoints.len(), 2);
}

// threat 52
#[test]
fn what_is_not_followed_is_named() {
    let with = |write: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::default();
        writer.text(1, "a");
        write(&mut writer);
        decoded(&writer.finish()).unwrap_err()
    };
    let prefix = "envoy.config.cluster.v3.Cluster";
    assert_eq!(
        decoded(&bad_cluster("a")).unwrap_err(),
        format!("{prefix}.type is STRICT_DNS; use EDS or STATIC")
    );
    assert_eq!(
        with(&|writer| writer.uint64(2, 9)),
        format!("{prefix}.type is 9; use EDS or STATIC")
    );
    assert_eq!(
        with(&|writer| writer.bytes(38, b"")),
        format!("{prefix}.cluster_type names an extension; use EDS or STATIC")
    );
    assert_eq!(
        with(&|_| {}),
        format!("{prefix}.load_assignment is needed by a cluster that is STATIC")
    );
    let long = decoded(&eds_cluster("a", &"x".repeat(MAX_NAME + 1))).unwrap_err();
    assert!(
        long.ends_with("service_name is longer than 4096 bytes"),
        "{long}"
    );
    // EDS from a file: the last of a oneof counts.
    let from_file = with(&|writer| {
        writer.uint64(2, 3);
        writer.message(3, |eds| {
            eds.message(1, |source| {
                source.bytes(3, b"");
                source.text(1, "/etc/eds");
            });
        });
    });
    assert!(
        from_file.contains("eds_config must say ads or self"),
        "{from_file}"
    );
}
