//! Comparing tags: whether the time says how many of its first bytes were right.

use std::sync::Arc;

use mesh_crypto::AeadAlgorithm;
use mesh_crypto::Engine;
use mesh_crypto::aead::OpeningKey;
use mesh_crypto::aead::SealingKey;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::engine::rustcrypto;

use crate::Dice;
use crate::nanoseconds;
use crate::samples;
use crate::statistics::Prefixes;

const TEXT: [u8; 48] = [0x5a; 48];

/// Something that checks a tag whose first wrong byte is at a place, and says how long that took.
type Check = Box<dyn Fn(usize) -> f64>;

fn mac(engine: &dyn Engine) -> (usize, Check) {
    let key = engine.mac_key(&[7; 32]);
    let tag = key.sign(&[&TEXT]);
    let check = move |wrong: usize| {
        let mut tag = tag;
        tag[wrong] ^= 0x40;
        nanoseconds(|| key.verify(&[&TEXT], &tag))
    };
    (tag.len(), Box::new(check))
}

fn gcm(engine: &dyn Engine) -> (usize, Check) {
    let key = || engine.aead_key(AeadAlgorithm::Aes256Gcm, &[7; 32]).unwrap();
    let mut sealed = TEXT;
    let sealing = Arc::new(SealingKey::counting(key(), [0; 12]));
    let tag = sealing
        .next_stream()
        .unwrap()
        .seal(b"", &mut sealed)
        .unwrap();
    let opening = OpeningKey::new(key(), [0; 12]);
    let check = move |wrong: usize| {
        let (mut tag, mut text) = (tag, sealed);
        tag[wrong] ^= 0x40;
        nanoseconds(|| opening.open((0, 0), b"", &mut text, &tag))
    };
    (tag.len(), Box::new(check))
}

/// What nobody must write: it stops at the first wrong byte.
fn leaking() -> (usize, Check) {
    let right = [7_u8; 32];
    let check = move |wrong: usize| {
        let mut tag = right;
        tag[wrong] ^= 0x40;
        nanoseconds(|| {
            let mut pairs = std::hint::black_box(&right).iter().zip(&tag);
            pairs.all(|(one, other)| std::hint::black_box(one) == std::hint::black_box(other))
        })
    };
    (right.len(), Box::new(check))
}

/// The slope in nanoseconds a byte, its t, and Welch's t of the longer right prefixes against the shorter.
fn measure((len, check): &(usize, Check), samples: usize, dice: &mut Dice) -> [f64; 3] {
    for _ in 0..1_000 {
        check(dice.below(*len));
    }
    let taken = (0..samples).map(|_| {
        let wrong = dice.below(*len);
        (wrong, check(wrong))
    });
    let times = Prefixes::new(taken.collect());
    let (slope, t) = times.slope();
    [slope, t, times.welch(len / 2)]
}

fn checks() -> Vec<(String, (usize, Check))> {
    let mut all = Vec::new();
    for engine in [aws_lc(), rustcrypto()] {
        all.push((format!("{} HMAC", engine.name()), mac(&*engine)));
        all.push((format!("{} GCM tag", engine.name()), gcm(&*engine)));
    }
    all
}

// threat 28: goal C-8. The place of the wrong byte is drawn anew for each sample, so noise can't follow it; a t beyond 4.5
// comes by chance once in 1.5e5 runs, and must come three times, so a false alarm is rarer than once in 1e14 runs.
#[test]
fn how_much_of_a_tag_was_right_does_not_show_in_the_time() {
    if let Some(samples) = samples() {
        return report(samples);
    }
    let mut dice = Dice::new(1);
    for (name, check) in checks() {
        let runs = (0..3).map(|_| measure(&check, 20_000, &mut dice));
        // Stops at the first run without an alarm.
        let alarms: Vec<_> = runs.take_while(is_alarm).collect();
        assert!(alarms.len() < 3, "{name}: {alarms:?}");
    }
}

#[test]
fn a_comparison_that_stops_early_does_show() {
    let run = measure(&leaking(), 50_000, &mut Dice::new(2));
    assert!(is_alarm(&run), "{run:?}");
}

fn is_alarm([_, slope, welch]: &[f64; 3]) -> bool {
    slope.abs() > T || welch.abs() > T
}

/// The long form: a hundred samples for each of OAEP, which takes a thousand times as long.
fn report(samples: usize) {
    let samples = samples.saturating_mul(100);
    println!("\n{samples} tags, wrong from some byte on");
    println!(
        "{:<22} {:>12} {:>9} {:>9}",
        "check", "ns a byte", "slope t", "Welch t"
    );
    let mut dice = Dice::new(3);
    let control = ("control that leaks".to_owned(), leaking());
    for (name, check) in checks().into_iter().chain([control]) {
        let run = measure(&check, samples, &mut dice);
        let [slope, t, welch] = run;
        let verdict = if is_alarm(&run) { "FAIL" } else { "pass" };
        println!("{name:<22} {slope:>12.4} {t:>9.2} {welch:>9.2} {verdict}");
    }
}

/// dudect's bar.
const T: f64 = 4.5;
