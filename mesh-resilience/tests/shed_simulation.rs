//! A service with so many workers and a queue before them, behind an adaptive limit, on virtual time.
//!
//! The queue is what the limit must keep short without knowing how many workers there are or what a call takes. Calls come in
//! at random (Poisson) and are not held back by slow answers, as those of many independent callers.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::cmp::Reverse;

use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use mesh_resilience::random::{Random, SplitMix64};
use mesh_resilience::shed::{Permit, Priority, Shed, ShedConfig};

/// What the calls do for a while.
#[derive(Clone, Copy, Debug)]
struct Phase {
    seconds: f64,
    /// Calls that come in, as part of what the service can do while a call takes `nominal`.
    load: f64,
    /// What a call takes compared with `nominal`.
    slowness: f64,
}

const fn phase(seconds: f64, load: f64, slowness: f64) -> Phase {
    Phase {
        seconds,
        load,
        slowness,
    }
}

/// The service.
#[derive(Clone, Copy, Debug)]
struct Plant {
    workers: u32,
    nominal: f64,
    /// Whether calls take a random time (exponential), or nearly always the same.
    is_random: bool,
}

/// What became of the calls that ended in a phase.
#[derive(Clone, Debug, Default)]
struct Seen {
    latencies: Vec<f64>,
    shed: u32,
    /// Answers as part of what the service can do.
    goodput: f64,
}

impl Seen {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a place in a list"
    )]
    fn p99(&self) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() as f64 * 0.99) as usize]
    }

    fn shed_part(&self) -> f64 {
        let answered = u32::try_from(self.latencies.len()).unwrap_or(u32::MAX);
        f64::from(self.shed) / f64::from(self.shed + answered)
    }
}

#[derive(Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    Arrives,
    Ends(usize),
}

struct Simulation {
    plant: Plant,
    random: SplitMix64,
    begin: Instant,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    /// Calls that run or wait: when they came, and their places.
    calls: Vec<Option<(Duration, Permit)>>,
    waiting: VecDeque<usize>,
    busy: u32,
}

impl Simulation {
    fn exponential(&self, mean: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.random.unit()).ln() * mean)
    }

    fn begin_work(&mut self, call: usize, now: Duration, slowness: f64) {
        let mean = self.plant.nominal * slowness;
        let takes = if self.plant.is_random {
            self.exponential(mean)
        } else {
            Duration::from_secs_f64(mean * (0.9 + 0.2 * self.random.unit()))
        };
        self.events.push(Reverse((now + takes, Event::Ends(call))));
    }

    fn arrives(&mut self, limit: &Shed, now: Duration, phase: Phase, told: &mut Seen) {
        let mean = self.plant.nominal / (f64::from(self.plant.workers) * phase.load);
        let next = now + self.exponential(mean);
        self.events.push(Reverse((next, Event::Arrives)));
        let Ok(permit) = limit.try_acquire(Priority::Normal, self.begin + now) else {
            told.shed += 1;
            return;
        };
        self.calls.push(Some((now, permit)));
        let call = self.calls.len() - 1;
        if self.busy < self.plant.workers {
            self.busy += 1;
            self.begin_work(call, now, phase.slowness);
        } else {
            self.waiting.push_back(call);
        }
    }

    fn ends(&mut self, call: usize, now: Duration, phase: Phase, told: &mut Seen) {
        if let Some((started, permit)) = self.calls[call].take() {
            permit.answered(self.begin + now);
            told.latencies
                .push(now.saturating_sub(started).as_secs_f64());
        }
        match self.waiting.pop_front() {
            Some(next) => self.begin_work(next, now, phase.slowness),
            None => self.busy -= 1,
        }
    }
}

fn run(plant: Plant, seed: u64, phases: &[Phase]) -> Vec<Seen> {
    let limit = Shed::new(ShedConfig::default()).unwrap();
    let mut simulation = Simulation {
        plant,
        random: SplitMix64::new(seed),
        begin: tokio::time::Instant::now().into_std(),
        events: BinaryHeap::from([Reverse((Duration::ZERO, Event::Arrives))]),
        calls: Vec::new(),
        waiting: VecDeque::new(),
        busy: 0,
    };
    let mut end = Duration::ZERO;
    let mut all = Vec::new();
    for phase in phases {
        end += Duration::from_secs_f64(phase.seconds);
        let mut told = Seen::default();
        while let Some(Reverse((now, event))) = simulation.events.pop() {
            if now >= end {
                simulation.events.push(Reverse((now, event)));
                break;
            }
            match event {
                Event::Arrives => simulation.arrives(&limit, now, *phase, &mut told),
                Event::Ends(call) => simulation.ends(call, now, *phase, &mut told),
            }
        }
        let answered = f64::from(u32::try_from(told.latencies.len()).unwrap_or(u32::MAX));
        let possible = f64::from(plant.workers) / (plant.nominal * phase.slowness) * phase.seconds;
        told.goodput = answered / possible;
        all.push(told);
    }
    all
}

/// Services as they are behind a node: many workers and few, fast and slow, regular and not.
fn plants() -> impl Iterator<Item = Plant> {
    [
        (8, 0.01, true),
        (8, 0.01, false),
        (64, 0.04, true),
        (64, 0.04, false),
        (16, 0.1, true),
    ]
    .into_iter()
    .map(|(workers, nominal, is_random)| Plant {
        workers,
        nominal,
        is_random,
    })
}

// Goal R-6.
#[test]
fn three_times_the_load_costs_little_goodput_and_little_latency_and_is_over_at_once() {
    let phases = [
        phase(20.0, 0.5, 1.0),
        phase(60.0, 3.0, 1.0),
        phase(2.0, 0.5, 1.0),
        phase(10.0, 0.5, 1.0),
    ];
    for plant in plants() {
        let [calm, overload, _, after] = &run(plant, 1, &phases)[..] else {
            unreachable!("four phases")
        };
        let slower = overload.p99() / calm.p99();
        assert!(
            slower <= 3.0,
            "{plant:?}: p99 is {slower} times that in the calm"
        );
        assert!(
            overload.goodput >= 0.9,
            "{plant:?}: goodput {}",
            overload.goodput
        );
        // From two seconds after the overload on, all is as before.
        assert!(
            after.shed_part() < 0.005,
            "{plant:?}: shed {}",
            after.shed_part()
        );
        let slower = after.p99() / calm.p99();
        assert!(slower < 1.3, "{plant:?}: p99 is {slower} times that before");
        assert!(
            calm.shed_part() < 0.005,
            "{plant:?}: shed {}",
            calm.shed_part()
        );
    }
}

#[test]
fn calls_that_take_twice_as_long_for_good_are_learnt_under_load() {
    let phases = [
        phase(20.0, 0.5, 1.0),
        phase(10.0, 3.0, 1.0),
        phase(10.0, 3.0, 2.0),
        phase(30.0, 3.0, 2.0),
        phase(30.0, 3.0, 1.0),
    ];
    for plant in plants() {
        let [calm, _, _, slow, again] = &run(plant, 2, &phases)[..] else {
            unreachable!("five phases")
        };
        assert!(slow.goodput >= 0.9, "{plant:?}: goodput {}", slow.goodput);
        assert!(again.goodput >= 0.9, "{plant:?}: goodput {}", again.goodput);
        let slower = slow.p99() / calm.p99();
        assert!(
            slower <= 2.0 * 3.0,
            "{plant:?}: p99 is {slower} times that in the calm"
        );
        let slower = again.p99() / calm.p99();
        assert!(
            slower <= 3.0,
            "{plant:?}: p99 is {slower} times that in the calm"
        );
    }
}

#[test]
fn a_service_that_starts_slow_under_load_gets_what_it_can_do_later() {
    let phases = [
        phase(10.0, 3.0, 5.0),
        phase(10.0, 3.0, 2.0),
        phase(5.0, 3.0, 1.0),
        phase(30.0, 3.0, 1.0),
        phase(2.0, 0.5, 1.0),
        phase(20.0, 0.5, 1.0),
    ];
    for plant in plants() {
        let [first, _, _, warm, _, calm] = &run(plant, 3, &phases)[..] else {
            unreachable!("six phases")
        };
        assert!(first.goodput >= 0.8, "{plant:?}: goodput {}", first.goodput);
        assert!(warm.goodput >= 0.9, "{plant:?}: goodput {}", warm.goodput);
        let slower = warm.p99() / calm.p99();
        assert!(
            slower <= 3.0,
            "{plant:?}: p99 is {slower} times that in the calm"
        );
    }
}

#[test]
fn a_service_that_gets_slow_in_the_quiet_sheds_nothing() {
    let phases = [
        phase(20.0, 0.3, 1.0),
        phase(20.0, 0.3, 2.0),
        phase(20.0, 0.1, 5.0),
    ];
    for plant in plants() {
        for told in run(plant, 4, &phases) {
            assert_eq!(told.shed, 0, "{plant:?}");
        }
    }
}
