//! Frames cut anywhere, too large, or not whole.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use proptest::prelude::*;

use super::*;

fn framed(messages: &[Vec<u8>]) -> BytesMut {
    let mut writer = FrameWriter::new();
    for message in messages {
        writer.put(message).unwrap();
    }
    writer.buffer().split()
}

fn all(reader: &mut FrameReader) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| reader.next_frame().unwrap())
        .map(|frame| frame.to_vec())
        .collect()
}

#[test]
fn an_announcement_alone_takes_no_memory() {
    // threat 37: sixteen million bytes announced, one sent.
    let mut reader = FrameReader::new(MAX_FRAME);
    let len = u32::try_from(MAX_FRAME).unwrap();
    reader.buffer().put_u32(len);
    reader.buffer().put_u8(0);
    assert_eq!(reader.next_frame(), Ok(None));
    assert!(reader.buffer().capacity() <= 2 * ROOM);
}

#[test]
fn a_frame_above_the_limit_is_refused_as_soon_as_its_length_is_there() {
    let mut reader = FrameReader::new(1_000);
    reader.buffer().put_u32(1_001);
    let refused = Err(FramingError::TooLarge {
        len: 1_001,
        max: 1_000,
    });
    assert_eq!(reader.next_frame(), refused);
    assert_eq!(reader.next_frame(), refused);

    let mut reader = FrameReader::new(usize::MAX);
    reader.buffer().put_u32(u32::MAX);
    assert_eq!(
        reader.next_frame(),
        Err(FramingError::TooLarge {
            len: 0xffff_ffff,
            max: MAX_FRAME
        })
    );
}

#[test]
fn a_stream_may_end_between_frames_only() {
    let bytes = framed(&[b"abc".to_vec(), Vec::new()]);
    for len in 0..=bytes.len() {
        let mut reader = FrameReader::new(3);
        reader.buffer().extend_from_slice(&bytes[..len]);
        all(&mut reader);
        let is_whole = [0, 7, 11].contains(&len);
        assert_eq!(reader.finish().is_ok(), is_whole, "{len}");
    }
}

#[test]
fn a_message_above_the_limit_is_not_framed() {
    let mut writer = FrameWriter::new();
    writer.put(b"before").unwrap();
    let before = writer.buffer().clone();
    assert!(matches!(
        writer.put(&vec![0; MAX_FRAME + 1]),
        Err(Error::TooLong { .. })
    ));
    assert_eq!(*writer.buffer(), before);
}

#[test]
fn memory_stays_within_a_small_multiple_of_the_longest_frame() {
    for size in [100, 1_100, 10_000, 60_000, 300_000] {
        let stream = framed(&vec![vec![7; size]; 50]);
        let mut reader = FrameReader::new(size);
        let (mut taken, mut most) = (0, 0);
        for chunk in stream.chunks(9_973) {
            reader.buffer().extend_from_slice(chunk);
            most = most.max(reader.buffer.capacity());
            taken += all(&mut reader).len();
        }
        assert_eq!(taken, 50);
        assert!(most <= 4 * size + 2 * ROOM, "{size}: {most}");
    }
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_wherever_the_stream_is_cut(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..12),
        cuts in proptest::collection::vec(1_usize..400, 1..20),
    ) {
        let mut stream = framed(&messages);
        let mut reader = FrameReader::new(300);
        let mut found = Vec::new();
        for cut in cuts.iter().cycle() {
            if stream.is_empty() {
                break;
            }
            let chunk = stream.split_to(stream.len().min(*cut));
            reader.buffer().extend_from_slice(&chunk);
            found.extend(all(&mut reader));
        }
        prop_assert_eq!(found, messages);
        prop_assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn any_bytes_are_frames_or_an_error(
        bytes in proptest::collection::vec(0_u8..4, 0..400),
        max in 0_usize..600,
    ) {
        let mut reader = FrameReader::new(max);
        reader.buffer().extend_from_slice(&bytes);
        let mut len = 0;
        while let Ok(Some(frame)) = reader.next_frame() {
            prop_assert!(frame.len() <= max);
            len += PREFIX + frame.len();
        }
        prop_assert_eq!(len + reader.buffer.len(), bytes.len());
    }
}
