//! Responses in both forms, and those that are none.

use super::super::tests::CDS;
use super::super::tests::delta;
use super::super::tests::whole;
use super::*;

#[test]
fn both_forms_of_a_response_are_read() {
    let mut ignored = Ignored::default();
    let bytes = whole(CDS, "7", "n1", &[b"a".to_vec(), Vec::new()]);
    let response = Response::decode(&bytes, false, &mut ignored).unwrap();
    assert_eq!(
        (response.version, response.nonce, response.type_url),
        ("7", "n1", CDS)
    );
    let contents: Vec<_> = response.resources.iter().map(|one| one.content).collect();
    assert_eq!(contents, [Some((CDS, &b"a"[..])), Some((CDS, &b""[..]))]);

    let bytes = delta(CDS, "n2", &[("orders", "3", b"x".to_vec())], &["stock"]);
    let response = Response::decode(&bytes, true, &mut ignored).unwrap();
    let received = response.resources.first().unwrap();
    assert_eq!((received.name, received.version), ("orders", "3"));
    assert_eq!(
        (received.content, &*response.removed),
        (Some((CDS, &b"x"[..])), &["stock"][..])
    );
    assert_eq!(ignored.list(), []);
}

#[test]
fn a_wrapped_resource_of_the_state_of_the_world_has_its_name_outside() {
    let mut writer = Writer::default();
    writer.message(2, |any| {
        any.text(1, RESOURCE_TYPE);
        any.message(2, |resource| {
            resource.text(3, "orders");
            resource.message(2, |any| any.text(1, CDS));
            resource.message(6, |ttl| ttl.uint64(1, 5));
        });
    });
    let bytes = writer.finish();
    let mut ignored = Ignored::default();
    let response = Response::decode(&bytes, false, &mut ignored).unwrap();
    let received = response.resources.first().unwrap();
    assert_eq!(
        (received.name, received.content),
        ("orders", Some((CDS, &b""[..])))
    );
    assert_eq!(
        ignored.list()[0].field,
        "envoy.service.discovery.v3.Resource.ttl"
    );
}

// threat 51
#[test]
fn two_bytes_a_resource_fill_no_memory() {
    let many = [0x12, 0x00].repeat(MAX_RESOURCES + 1);
    for is_delta in [false, true] {
        let wrong = Response::decode(&many, is_delta, &mut Ignored::default()).unwrap_err();
        assert!(
            wrong.to_string().ends_with("has more than 10000 elements"),
            "{wrong}"
        );
    }
}

// threat 52
#[test]
fn invented_fields_are_listed_up_to_a_limit() {
    let mut ignored = Ignored::default();
    for tag in 1000..3000 {
        let mut writer = Writer::default();
        writer.uint64(tag, 1);
        Response::decode(&writer.finish(), false, &mut ignored).unwrap();
    }
    let list = ignored.list();
    assert_eq!(list.len(), 257);
    assert_eq!(
        list[0].field,
        "envoy.service.discovery.v3.DiscoveryResponse.#1000"
    );
    let others = list.last().unwrap();
    assert_eq!(
        (others.field.as_str(), others.count),
        ("others", 2000 - 256)
    );
}
