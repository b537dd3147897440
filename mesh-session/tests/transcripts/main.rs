//! Handshakes, resumptions and exchanges whose messages somebody changed on the way: nothing of it is accepted, nothing
//! panics, and what was not changed still works.
//!
//! A few thousand by default; `cargo xtask transcripts --count 1000000` (or `MESH_TRANSCRIPTS=1000000`) for as many as
//! one likes. Each run prints its seed, and how many of each kind there were; `MESH_TRANSCRIPTS_SEED` repeats one.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]
#![expect(clippy::print_stdout, reason = "the counts are what a long run is for")]

mod change;
mod dice;
mod handshakes;
mod records;
mod resumptions;
#[expect(dead_code, reason = "it serves other tests too")]
#[path = "../pair/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::num::NonZero;

use crate::dice::Dice;
use crate::handshakes::Handshakes;
use crate::records::Records;
use crate::resumptions::Resumptions;

/// How many cases there were of each kind: the message, and what was done to it.
pub(crate) type Counts = BTreeMap<(&'static str, &'static str), u64>;

// threat 24, threat 25, threat 26, threat 29: goal C-4.
#[test]
fn no_changed_transcript_is_accepted() {
    let number = |name: &str, default: u64| -> u64 {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let count = number("MESH_TRANSCRIPTS", SHORT);
    let seed = number("MESH_TRANSCRIPTS_SEED", 1);
    // A short run leaves the other cores to the other tests.
    let threads = match count {
        ..=SHORT => 1,
        _ => std::thread::available_parallelism().map_or(1, NonZero::get),
    };
    let threads = u64::try_from(threads).unwrap();
    println!("seed {seed}, {threads} threads");
    let counts = std::thread::scope(|scope| {
        let run = |thread: u64| {
            let share = count / threads + u64::from(thread < count % threads);
            scope.spawn(move || {
                run(
                    Dice::new(seed.wrapping_mul(1_000).wrapping_add(thread)),
                    share,
                )
            })
        };
        let running: Vec<_> = (0..threads).map(run).collect();
        let mut all = Counts::new();
        for thread in running {
            for (kind, count) in thread.join().unwrap() {
                *all.entry(kind).or_default() += count;
            }
        }
        all
    });
    for ((message, change), count) in &counts {
        println!("{count:>9}  {message}: {change}");
    }
    assert_eq!(counts.values().sum::<u64>(), count);
    println!("{count:>9}  in all, none accepted");
}

fn run(mut dice: Dice, count: u64) -> Counts {
    let mut counts = Counts::new();
    let handshakes = Handshakes::new();
    let resumptions = Resumptions::new();
    let mut records = Records::new();
    for _ in 0..count {
        let kind = match dice.below(100) {
            0..10 => handshakes.offer(&mut dice),
            10..40 => handshakes.first_message(&mut dice),
            40..54 => handshakes.reply(&mut dice),
            54..58 => handshakes.several(&mut dice),
            58..68 => resumptions.message(&mut dice),
            68..76 => resumptions.reply(&mut dice),
            76..90 => records.record(&mut dice),
            _ => records.stream(&mut dice),
        };
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

/// Some seconds without optimisation.
const SHORT: u64 = 3_000;
