//! What somebody on the path may do to a message.

use std::ops::Range;

use crate::dice::Dice;

/// A message as its parts: where each field is, lengths included.
pub(crate) type Layout = Vec<Range<usize>>;

/// Changes `message` in one way, perhaps with parts of `other`, which is of the same kind and must not be accepted either.
/// What comes out is another message for sure.
pub(crate) fn change(
    dice: &mut Dice,
    (message, other): (&[u8], &[u8]),
    layout: fn(&[u8]) -> Layout,
) -> (Vec<u8>, &'static str) {
    loop {
        let mut bytes = message.to_vec();
        let how = match dice.below(13) {
            0..2 => flip(dice, &mut bytes),
            2 => overwrite(dice, &mut bytes),
            3 => truncate(dice, &mut bytes),
            4 => extend(dice, &mut bytes),
            5 => remove(dice, &mut bytes),
            6 => splice(dice, &mut bytes, other),
            7 => whole(&mut bytes, other),
            _ => of_a_field(dice, &mut bytes, other, layout),
        };
        if bytes != message {
            return (bytes, how);
        }
    }
}

fn flip(dice: &mut Dice, bytes: &mut [u8]) -> &'static str {
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len());
        bytes[at] ^= 1 << dice.below(8);
    }
    "bits flipped"
}

fn overwrite(dice: &mut Dice, bytes: &mut [u8]) -> &'static str {
    let at = dice.below(bytes.len());
    let len = 1 + dice.below(64);
    let with = *dice.of(&[None, Some(0), Some(0xff)]);
    for byte in bytes.iter_mut().skip(at).take(len) {
        *byte = with.unwrap_or_else(|| dice.byte());
    }
    "bytes overwritten"
}

fn truncate(dice: &mut Dice, bytes: &mut Vec<u8>) -> &'static str {
    let len = if dice.one_in(2) {
        bytes.len() - 1 - dice.below(bytes.len().min(64))
    } else {
        dice.below(bytes.len())
    };
    bytes.truncate(len);
    "cut short"
}

fn extend(dice: &mut Dice, bytes: &mut Vec<u8>) -> &'static str {
    for _ in 0..=dice.below(40) {
        let byte = dice.byte();
        bytes.push(byte);
    }
    "bytes appended"
}

fn remove(dice: &mut Dice, bytes: &mut Vec<u8>) -> &'static str {
    let at = dice.below(bytes.len());
    let end = (at + 1 + dice.below(64)).min(bytes.len());
    if dice.one_in(2) {
        bytes.drain(at..end);
        "bytes left out"
    } else {
        let again = bytes[at..end].to_vec();
        bytes.splice(at..at, again);
        "bytes repeated"
    }
}

/// The beginning of one and the end of the other, or a stretch in the middle.
fn splice(dice: &mut Dice, bytes: &mut [u8], other: &[u8]) -> &'static str {
    let shorter = bytes.len().min(other.len());
    let start = dice.below(shorter);
    let end = if dice.one_in(2) {
        shorter
    } else {
        start + dice.below(shorter - start) + 1
    };
    bytes[start..end].copy_from_slice(&other[start..end]);
    "spliced with another one"
}

fn whole(bytes: &mut Vec<u8>, other: &[u8]) -> &'static str {
    *bytes = other.to_vec();
    "another one in its place"
}

fn of_a_field(
    dice: &mut Dice,
    bytes: &mut Vec<u8>,
    other: &[u8],
    layout: fn(&[u8]) -> Layout,
) -> &'static str {
    let (ours, theirs) = (layout(bytes), layout(other));
    let at = dice.below(ours.len());
    let field = ours[at].clone();
    match dice.below(5) {
        0..2 if ours.len() == theirs.len() => {
            let with = other[theirs[at].clone()].to_vec();
            bytes.splice(field, with);
            "a field of another one"
        }
        2 => {
            let with = *dice.of(&[0, 0xff]);
            bytes[field].fill(with);
            "a field of zeros or ones"
        }
        3 => {
            let same: Vec<_> = ours
                .iter()
                .filter(|other| other.len() == field.len())
                .collect();
            let with = (*dice.of(&same)).clone();
            let (one, two) = (bytes[field.clone()].to_vec(), bytes[with.clone()].to_vec());
            bytes[field].copy_from_slice(&two);
            bytes[with].copy_from_slice(&one);
            "two fields exchanged"
        }
        _ => {
            number(dice, &mut bytes[field]);
            "a number counted on or back"
        }
    }
}

/// The first or last bytes of a field as a number: a length, a time, a suite, an index.
fn number(dice: &mut Dice, field: &mut [u8]) {
    let width = (*dice.of(&[1, 2, 4, 8])).min(field.len());
    let start = if dice.one_in(2) {
        0
    } else {
        field.len() - width
    };
    let place = &mut field[start..start + width];
    let mut number = place
        .iter()
        .fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    number = match dice.below(4) {
        0 => number.wrapping_add(1),
        1 => number.wrapping_sub(1),
        2 => number.wrapping_add(1 << dice.below(64)),
        // A suite: agreement, then protection of records.
        _ => *dice.of(&[0, 0x100]) | *dice.of(&[0x01, 0x02, 0x03, 0x11, 0x12, 0x13]),
    };
    for byte in place.iter_mut().rev() {
        *byte = u8::try_from(number & 0xff).unwrap();
        number >>= 8;
    }
}

/// Reads a layout: fields of fixed lengths and fields after a length of two bytes.
pub(crate) struct Fields<'a> {
    message: &'a [u8],
    layout: Layout,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        let layout = Layout::new();
        Self { message, layout }
    }

    fn at(&self) -> usize {
        self.layout.last().map_or(0, |last| last.end)
    }

    pub(crate) fn fixed(mut self, lens: &[usize]) -> Self {
        for len in lens {
            let at = self.at();
            self.layout.push(at..at + len);
        }
        self
    }

    /// The length is a field too.
    pub(crate) fn vec(self) -> Self {
        let at = self.at();
        let len = self.message[at..at + 2].try_into().unwrap();
        self.fixed(&[2, usize::from(u16::from_be_bytes(len))])
    }

    pub(crate) fn end(self) -> Layout {
        assert_eq!(self.at(), self.message.len());
        self.layout
            .into_iter()
            .filter(|field| !field.is_empty())
            .collect()
    }
}
