//! Every byte string is read to an end or to an error, and what is written reads back.

use proptest::prelude::*;

use super::super::fields::CLUSTER;
use super::*;

fn read(bytes: &[u8]) -> Result<Vec<Field<'_>>, Wrong> {
    fields(&CLUSTER, bytes).collect()
}

#[test]
fn what_is_written_reads_back() {
    let mut writer = Writer::default();
    writer.text(1, "orders");
    writer.uint64(2, 300);
    writer.text(3, "");
    writer.uint64(4, 0);
    writer.message(536_870_911, |inner| inner.uint64(1, u64::MAX));
    let bytes = writer.finish();
    let fields = read(&bytes).unwrap();
    let tags: Vec<_> = fields.iter().map(|field| field.tag).collect();
    assert_eq!(tags, [1, 2, 536_870_911]);
    assert_eq!(fields[0].text(), Ok("orders"));
    assert_eq!(fields[1].uint32(), Ok(300));
    let inner = read(fields[2].bytes().unwrap()).unwrap();
    assert_eq!(inner[0].uint64(), Ok(u64::MAX));
    assert!(
        inner[0]
            .uint32()
            .unwrap_err()
            .to_string()
            .contains("2^32-1")
    );
}

// threat 51
#[test]
fn what_is_no_message_is_refused_by_name() {
    let broken: [&[u8]; 8] = [
        &[0x08],             // no value
        &[0x0a, 0x05, b'a'], // cut off
        &[
            0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
        ], // longer than all memory
        &[0x00, 0x00],       // tag 0
        &[0x0b, 0x0c],       // a group
        &[0x0f],             // wire type 7
        &[
            0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02,
        ], // more than 64 bits
        &[0x09, 1, 2, 3],    // half a number
    ];
    for bytes in broken {
        let wrong = read(bytes).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "envoy.config.cluster.v3.Cluster is no protobuf message",
            "{bytes:?}"
        );
    }
    let wrong = read(&[0x0a, 1, 0xff]).unwrap()[0].text().unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "envoy.config.cluster.v3.Cluster.name is not UTF-8"
    );
    let number = read(&[0x08, 1]).unwrap()[0].text().unwrap_err();
    let bytes = read(&[0x0a, 0]).unwrap()[0].uint64().unwrap_err();
    assert_eq!(number, bytes);
}

proptest! {
    // threat 51
    #[test]
    fn no_bytes_make_it_fail_otherwise(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut count = 0;
        for field in fields(&CLUSTER, &bytes) {
            count += 1;
            let Ok(field) = field else { continue };
            drop((field.text(), field.uint64(), field.double(), field.name()));
        }
        prop_assert!(count <= bytes.len());
    }

    #[test]
    fn numbers_read_back(number in any::<u64>(), tag in 1_u32..536_870_912) {
        let mut writer = Writer::default();
        writer.uint64(tag, number);
        let bytes = writer.finish();
        let read = read(&bytes).unwrap();
        prop_assert_eq!(read.first().map(|field| field.uint64().unwrap()).unwrap_or_default(), number);
    }
}
