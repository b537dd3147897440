//! The memory against a model that never forgets before its time, over random traces.

use std::num::NonZeroUsize;

use super::*;
use crate::random::{Random as _, SplitMix64};

const WINDOW: u64 = 100;
const MAX_ANSWER: usize = 8;
const CALLERS: [&str; 3] = ["quiet", "busy", "busier"];
/// Of the quiet caller, at a time: no more than its share of the small memory.
const QUIET: usize = 3;

/// What the model knows of a call.
#[derive(Clone, Copy, Debug)]
struct Call {
    fingerprint: u8,
    /// The newest stamp that it was accepted under.
    stamp: u64,
    run: u64,
    state: Told,
}

/// What is found, without what hangs on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    First,
    Running,
    Answered(u64),
    Lost,
    Unknown,
    Mismatch,
    Stale,
}

/// A call that runs: caller, id, the memory's number for it, and the model's.
type Running = (usize, u8, u64, u64);

struct Trace {
    random: SplitMix64,
    start: Instant,
    now: u64,
    table: Table<u64>,
    is_strict: bool,
    calls: HashMap<(usize, u8), Call>,
    /// Leases that were given, of each caller.
    leases: [Vec<Lease>; 3],
    running: Vec<Running>,
    runs: u64,
}

impl Trace {
    fn new(seed: u64) -> Self {
        let random = SplitMix64::new(seed);
        let is_strict = random.below(2) == 0;
        let (entries, bytes) = if is_strict {
            (1000, 10_000)
        } else {
            (3 * QUIET, 3 * QUIET * MAX_ANSWER)
        };
        let config = OnceConfig::default()
            .with_window(Duration::from_millis(WINDOW))
            .with_max_entries(NonZeroUsize::new(entries).unwrap())
            .with_max_bytes(bytes)
            .with_max_answer_bytes(MAX_ANSWER);
        let start = tokio::time::Instant::now().into_std();
        Self {
            random,
            start,
            now: 0,
            table: Table::new(config, [7; 16], start),
            is_strict,
            calls: HashMap::new(),
            leases: Default::default(),
            running: Vec::new(),
            runs: 0,
        }
    }

    fn at(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn step(&mut self) {
        match self.random.below(8) {
            0 => self.now += self.random.below(40) as u64,
            1 | 2 => self.settle(),
            3 | 4 => {
                let caller = self.random.below(3);
                let lease = self.table.lease(CALLERS[caller], self.at());
                self.leases[caller].push(lease);
            }
            _ => self.begin(),
        }
        let held = self.table.snapshot(self.at());
        self.table.recount();
        assert!(held.entries <= self.table.config.max_entries.get());
        assert!(held.bytes <= self.table.config.max_bytes);
    }

    /// What a memory without bounds would say.
    fn expected(&self, caller: usize, id: u8, fingerprint: u8, stamp: Option<u64>) -> Told {
        let is_new = |stamp: u64| stamp + WINDOW > self.now;
        match self.calls.get(&(caller, id)) {
            Some(call) if is_new(call.stamp) && call.fingerprint != fingerprint => Told::Mismatch,
            Some(call) if is_new(call.stamp) => call.state,
            _ if stamp.is_some_and(is_new) => Told::First,
            _ => Told::Stale,
        }
    }

    fn begin(&mut self) {
        let caller = self.random.below(3);
        let is_mine =
            |call: &(&(usize, u8), &Call)| call.0.0 == caller && call.1.stamp + WINDOW > self.now;
        let kept = self.calls.iter().filter(is_mine).count();
        let ids = if caller == 0 { QUIET } else { 12 };
        let id = u8::try_from(self.random.below(ids)).unwrap();
        assert!(caller != 0 || kept <= QUIET);
        let fingerprint = u8::from(self.random.below(10) == 0);
        let given = &self.leases[caller];
        let lease = match self.random.below(10) {
            0 => None,
            1 => Some(Lease::new([8; 16], self.now)),
            2 => Some(Lease::new([7; 16], u64::MAX)),
            _ => given.get(self.random.below(given.len())).copied(),
        };
        let stamp = lease.and_then(|lease| lease.stamp_of(&[7; 16]));
        let stamp = stamp.filter(|stamp| *stamp != u64::MAX);
        let expected = self.expected(caller, id, fingerprint, stamp);
        let attempt = Attempt::new(
            CALLERS[caller],
            MessageId::new([id; 32]),
            [fingerprint; 32],
            lease,
        );
        let is_admitted = self.random.below(8) > 0;
        // What is over goes either way.
        self.table.tick(self.at());
        self.table.sweep(CALLERS[caller]);
        let before = self.table.held.all();
        let admit = || if is_admitted { Ok(()) } else { Err(()) };
        let Ok(found) = self.table.begin_if(&attempt, self.at(), admit) else {
            let is_asked = !self.is_strict && caller != 0 || expected == Told::First;
            assert!(is_asked, "a repeat was refused");
            assert_eq!(self.table.held.all(), before, "left something behind");
            assert_eq!(self.table.take_evicted(), 0, "took something from others");
            return;
        };
        self.table.take_evicted();
        let (told, number) = match found {
            Found::First(number) => (Told::First, number),
            Found::Running(_) => (Told::Running, 0),
            Found::Answered(answer) => (Told::Answered(*answer), 0),
            Found::Lost => (Told::Lost, 0),
            Found::Unknown => (Told::Unknown, 0),
            Found::Mismatch => (Told::Mismatch, 0),
            Found::Stale(lease) => {
                self.leases[caller].push(lease);
                (Told::Stale, 0)
            }
        };
        // Who keeps within the equal share is not touched by the others.
        if self.is_strict || caller == 0 {
            assert_eq!(told, expected, "caller {caller} id {id} at {}", self.now);
        }
        let known = self.calls.get_mut(&(caller, id));
        if told == Told::First {
            let stamp = stamp.expect("runs only under a lease of its own");
            let ran_before = known.is_some_and(|call| call.stamp >= stamp);
            assert!(!ran_before, "ran twice under one lease");
            self.runs += 1;
            let (run, state) = (self.runs, Told::Running);
            self.calls.insert(
                (caller, id),
                Call {
                    fingerprint,
                    stamp,
                    run,
                    state,
                },
            );
            self.running.push((caller, id, number, run));
        } else if let (Some(call), Some(stamp)) = (known, stamp)
            && !matches!(told, Told::Mismatch | Told::Stale)
        {
            call.stamp = call.stamp.max(stamp);
        }
    }

    fn settle(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let which = self.random.below(self.running.len());
        let (caller, id, number, run) = self.running.swap_remove(which);
        let (how, state) = match self.random.below(5) {
            0 => (Settled::Lost, Some(Told::Lost)),
            1 => (Settled::Unknown, Some(Told::Unknown)),
            2 => (Settled::Released, None),
            3 => (
                Settled::Answered(Arc::new(run), MAX_ANSWER + 1),
                Some(Told::Lost),
            ),
            _ => {
                let bytes = self.random.below(MAX_ANSWER + 1);
                (
                    Settled::Answered(Arc::new(run), bytes),
                    Some(Told::Answered(run)),
                )
            }
        };
        self.table
            .settle(CALLERS[caller], MessageId::new([id; 32]), number, how);
        let Some(call) = self
            .calls
            .get_mut(&(caller, id))
            .filter(|call| call.run == run)
        else {
            return;
        };
        match state {
            Some(state) => call.state = state,
            None => drop(self.calls.remove(&(caller, id))),
        }
    }
}

/// `MESH_TRACES=1000000` runs all of a million.
// threat 43
#[test]
fn nothing_runs_twice_under_a_lease_and_all_else_is_as_if_nothing_were_forgotten() {
    let wanted = std::env::var("MESH_TRACES")
        .ok()
        .and_then(|count| count.parse().ok());
    for seed in 0..wanted.unwrap_or(2_000) {
        let mut trace = Trace::new(seed);
        for _ in 0..80 {
            trace.step();
        }
    }
}

impl<A> Table<A> {
    fn begin(&mut self, attempt: &Attempt<'_>, now: Instant) -> Found<A> {
        self.begin_if(attempt, now, || Ok::<_, ()>(())).unwrap()
    }

    /// Whoever has most is who has most.
    fn recount(&self) {
        let amounts = || self.books.values().map(Book::amount);
        let (entries, bytes) = (
            amounts().map(|amount| amount.entries),
            amounts().map(|amount| amount.bytes),
        );
        let most = self.held.most_entries().map(|(most, _)| most);
        assert_eq!(most, entries.clone().max().filter(|most| *most > 0));
        let most = self.held.most_bytes().map(|most| self.books[&most].bytes);
        assert_eq!(most, bytes.clone().max().filter(|most| *most > 0));
        let (entries, bytes) = (entries.sum(), bytes.sum());
        assert_eq!(self.held.all(), Amount { entries, bytes });
    }
}

fn small(entries: usize) -> (Table<u8>, Instant) {
    let start = tokio::time::Instant::now().into_std();
    let config = OnceConfig::default().with_max_entries(NonZeroUsize::new(entries).unwrap());
    (Table::new(config, [1; 16], start), start)
}

#[test]
fn a_lease_of_another_memory_or_none_runs_nothing_and_gets_a_new_one() {
    let (mut table, now) = small(4);
    let begin = |table: &mut Table<u8>, lease| {
        let attempt = Attempt::new("a", MessageId::new([1; 32]), [0; 32], lease);
        table.begin(&attempt, now)
    };
    let Found::Stale(lease) = begin(&mut table, None) else {
        panic!("ran without a lease");
    };
    let other = Lease::new([2; 16], 0);
    assert!(matches!(begin(&mut table, Some(other)), Found::Stale(_)));
    assert!(matches!(begin(&mut table, Some(lease)), Found::First(_)));
    assert!(matches!(begin(&mut table, Some(lease)), Found::Running(_)));
    assert_eq!(lease, table.lease("a", now));
}

#[test]
fn what_is_pushed_out_makes_older_leases_stale_of_that_caller_alone() {
    let (mut table, now) = small(2);
    let (a, b) = (table.lease("a", now), table.lease("b", now));
    let begin = |table: &mut Table<u8>, caller, id, lease| {
        table.begin(
            &Attempt::new(caller, MessageId::new([id; 32]), [0; 32], Some(lease)),
            now,
        )
    };
    for id in 0..2 {
        assert!(matches!(begin(&mut table, "a", id, a), Found::First(_)));
    }
    assert!(matches!(begin(&mut table, "b", 0, b), Found::First(_)));
    assert_eq!(table.take_evicted(), 1);
    let Found::Stale(newer) = begin(&mut table, "a", 0, a) else {
        panic!("ran a second time");
    };
    assert!(matches!(begin(&mut table, "b", 0, b), Found::Running(_)));
    assert!(matches!(begin(&mut table, "a", 2, newer), Found::First(_)));
}

#[test]
fn what_is_not_admitted_is_not_remembered_and_pushes_nothing_out() {
    let (mut table, now) = small(1);
    let lease = table.lease("a", now);
    let attempt = |id| Attempt::new("a", MessageId::new([id; 32]), [0; 32], Some(lease));
    assert!(matches!(table.begin(&attempt(0), now), Found::First(_)));
    let refused = table.begin_if(&attempt(1), now, || Err("full"));
    assert_eq!(refused.unwrap_err(), "full");
    assert_eq!(table.take_evicted(), 0);
    // A repeat needs no place.
    let again = table.begin_if(&attempt(0), now, || Err("full"));
    assert!(matches!(again, Ok(Found::Running(_))));
}

/// A look at all callers would take a thousand times as long with a thousand times as many.
#[test]
fn room_is_made_as_fast_for_many_callers_as_for_few() {
    let clock = || tokio::time::Instant::now().into_std();
    let time = |callers: usize| {
        let (mut table, now) = small(callers);
        let names: Vec<String> = (0..callers).map(|number| number.to_string()).collect();
        let mut number = 0_u64;
        let mut add = |name: &str| {
            number += 1;
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let lease = table.lease(name, now);
            let attempt = Attempt::new(name, MessageId::new(id), [0; 32], Some(lease));
            assert!(matches!(table.begin(&attempt, now), Found::First(_)));
        };
        for name in &names {
            add(name);
        }
        // The best of a few: others use the processor too.
        let rounds = (0..5).map(|_| {
            let start = clock();
            for name in names.iter().cycle().take(64) {
                add(name);
            }
            clock().duration_since(start)
        });
        rounds.min().unwrap()
    };
    let (few, many) = (time(16), time(16_384));
    assert!(many < few * 50, "{few:?} and {many:?}");
}
