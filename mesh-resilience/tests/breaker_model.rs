//! The breaker against a model that derives all it says from the history of calls.
#![cfg(feature = "breaker")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod traces;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_resilience::breaker::{Breaker, BreakerConfig, Permit, SlowCalls, State, SuccessRate};
use mesh_resilience::classify::Outcome;

use self::traces::Trace;

/// A call that ended, and counted.
#[derive(Clone, Copy)]
struct Call {
    ended: Instant,
    is_failure: bool,
    is_slow: bool,
}

/// What happened since the last change of state, and nothing else.
struct Model {
    rules: Rules,
    state: State,
    until: Instant,
    calls: Vec<Call>,
    probes: u32,
    last_probe: Instant,
    era: usize,
    opened: u64,
    /// Tenths of the windows are counted from the first call.
    origin: Option<Instant>,
}

/// As [`BreakerConfig`]; ratios in eighths.
#[derive(Clone, Copy, Debug)]
struct Rules {
    threshold: u32,
    success_rate: Option<(u32, u32, Duration)>,
    slow_calls: Option<(u32, u32, Duration, Duration)>,
    open_for: Duration,
    half_open_requests: u32,
    successes_to_close: u32,
    probe_timeout: Duration,
}

impl Rules {
    /// Those of goal R-5 in every second trace, and any in the others.
    fn draw(trace: &Trace) -> Self {
        let mut rules = Self {
            threshold: 5,
            success_rate: None,
            slow_calls: None,
            open_for: Duration::from_mins(1),
            half_open_requests: 3,
            successes_to_close: 3,
            probe_timeout: Duration::from_mins(1),
        };
        if trace.once(1, 2) {
            rules.threshold = 1 + trace.below(6);
            rules.open_for = Duration::from_secs(u64::from(1 + trace.below(90)));
            rules.half_open_requests = 1 + trace.below(4);
            rules.successes_to_close = 1 + trace.below(4);
            rules.probe_timeout = Duration::from_secs(u64::from(1 + trace.below(90)));
            let window = Duration::from_millis(u64::from(500 + trace.below(20_000)));
            rules.success_rate = trace
                .once(2, 3)
                .then(|| (trace.below(9), 1 + trace.below(8), window));
            let longer_than = Duration::from_millis(u64::from(1 + trace.below(3_000)));
            rules.slow_calls = trace
                .once(2, 3)
                .then(|| (1 + trace.below(8), 1 + trace.below(8), window, longer_than));
        }
        rules
    }

    fn config(&self) -> BreakerConfig {
        let count = |count| NonZeroU32::new(count).unwrap();
        let mut config = BreakerConfig::default()
            .with_threshold(count(self.threshold))
            .with_open_for(self.open_for)
            .with_half_open_requests(count(self.half_open_requests))
            .with_successes_to_close(count(self.successes_to_close))
            .with_probe_timeout(self.probe_timeout);
        if let Some((eighths, volume, window)) = self.success_rate {
            let rate = SuccessRate::default().with_min_ratio(f64::from(eighths) / 8.0);
            let rate = rate.with_min_volume(count(volume)).with_window(window);
            config = config.with_success_rate(rate);
        }
        if let Some((eighths, volume, window, longer_than)) = self.slow_calls {
            let slow = SlowCalls::default().with_max_ratio(f64::from(eighths) / 8.0);
            let slow = slow.with_min_volume(count(volume)).with_window(window);
            config = config.with_slow_calls(slow.with_longer_than(longer_than));
        }
        config
    }
}

impl Model {
    fn enter(&mut self, state: State) {
        self.state = state;
        self.calls.clear();
        self.probes = 0;
        self.era += 1;
    }

    fn open(&mut self, now: Instant) {
        self.until = now + self.rules.open_for;
        self.opened += 1;
        self.enter(State::Open);
    }

    fn admit(&mut self, now: Instant) -> bool {
        if self.state == State::Open && now >= self.until {
            self.enter(State::HalfOpen);
        }
        match self.state {
            State::Closed => true,
            State::HalfOpen if self.probes < self.rules.half_open_requests => {
                self.probes += 1;
                self.last_probe = now;
                true
            }
            State::HalfOpen if now - self.last_probe >= self.rules.probe_timeout => {
                self.open(now);
                false
            }
            _ => false,
        }
    }

    /// The calls within the window that ends `now`, and those of them that `is_meant`.
    fn within(
        &self,
        window: Duration,
        now: Instant,
        is_meant: impl Fn(&Call) -> bool,
    ) -> (u64, u64) {
        let tenth =
            |at: Instant| (at - self.origin.unwrap_or(at)).as_nanos() / (window.as_nanos() / 10);
        let in_window = |call: &&Call| tenth(now) - tenth(call.ended) < 10;
        let calls: Vec<_> = self.calls.iter().filter(in_window).collect();
        let meant = calls.iter().filter(|call| is_meant(call)).count();
        (meant as u64, calls.len() as u64)
    }

    fn finish(&mut self, (era, started): (usize, Instant), outcome: Option<Outcome>, now: Instant) {
        if era != self.era {
            return;
        }
        self.probes = self.probes.saturating_sub(1);
        let is_failure = match outcome {
            Some(Outcome::Success) => false,
            Some(Outcome::Failure) => true,
            _ => return,
        };
        let slow = self.rules.slow_calls;
        let is_slow = slow.is_some_and(|(.., longer_than)| now - started > longer_than);
        let call = Call {
            ended: now,
            is_failure,
            is_slow,
        };
        self.calls.push(call);
        if self.state == State::HalfOpen {
            if is_failure || is_slow {
                self.open(now);
            } else if self.calls.len() as u64 == u64::from(self.rules.successes_to_close) {
                self.enter(State::Closed);
            }
            return;
        }
        self.origin.get_or_insert(now);
        let row = self.calls.iter().rev().take_while(|call| call.is_failure);
        let mut opens = row.count() as u64 >= u64::from(self.rules.threshold);
        if let Some((eighths, volume, window)) = self.rules.success_rate {
            let (good, all) = self.within(window, now, |call| !call.is_failure);
            opens |= is_failure && all >= u64::from(volume) && good * 8 < all * u64::from(eighths);
        }
        if let Some((eighths, volume, window, _)) = slow {
            let (slow, all) = self.within(window, now, |call| call.is_slow);
            opens |= is_slow && all >= u64::from(volume) && slow * 8 >= all * u64::from(eighths);
        }
        if opens {
            self.open(now);
        }
    }

    /// Compares all that a breaker says of itself.
    fn check(&self, breaker: &Breaker, now: Instant, trace: &Trace) {
        let seed = trace.seed;
        let is_due = self.state == State::Open && now >= self.until;
        let state = if is_due { State::HalfOpen } else { self.state };
        let said = breaker.snapshot(now);
        assert_eq!(
            (said.state, breaker.state(now)),
            (state, state),
            "trace {seed}"
        );
        let row = self.calls.iter().rev().take_while(|call| call.is_failure);
        let failures = if self.state == State::Closed {
            row.count()
        } else {
            0
        };
        let probes = if self.state == State::HalfOpen {
            self.probes
        } else {
            0
        };
        assert_eq!(
            (said.failures as usize, said.probes, said.opened),
            (failures, probes, self.opened),
            "trace {seed}"
        );
        let is_closed = self.state == State::Closed;
        let share = |window, is_meant: fn(&Call) -> bool| {
            if is_closed {
                self.within(window, now, is_meant)
            } else {
                (0, 0)
            }
        };
        let succeeded = self
            .rules
            .success_rate
            .map(|(.., window)| share(window, |call| !call.is_failure));
        let slow = self
            .rules
            .slow_calls
            .map(|(_, _, window, _)| share(window, |call| call.is_slow));
        let says = |share: Option<mesh_resilience::breaker::Share>| {
            share.map(|share| (share.part, share.of))
        };
        assert_eq!(
            (says(said.succeeded), says(said.slow)),
            (succeeded, slow),
            "trace {seed}"
        );
        let wait = if self.state == State::Open {
            self.until.saturating_duration_since(now)
        } else {
            Duration::ZERO
        };
        assert_eq!(
            (said.retry_after, breaker.retry_after(now)),
            (wait, wait),
            "trace {seed}"
        );
    }
}

fn follow(trace: &Trace) {
    let mut now = tokio::time::Instant::now().into_std();
    let rules = Rules::draw(trace);
    // The middle of the jitter range, so that it is open for just as long as configured.
    let breaker = Breaker::with_parts(rules.config(), Arc::new(|| 1_u64 << 63), None).unwrap();
    let mut model = Model {
        rules,
        state: State::Closed,
        until: now,
        calls: Vec::new(),
        probes: 0,
        last_probe: now,
        era: 0,
        opened: 0,
        origin: None,
    };
    let mut calls: Vec<(Permit, (usize, Instant))> = Vec::new();
    // Mostly failures in some traces, hardly any in others.
    let failing = 1 + trace.below(9);
    for _ in 0..20 + trace.below(80) {
        match trace.below(100) {
            0..20 => {
                let most = [20, 500, 5_000, 95_000][trace.place(4)];
                now += Duration::from_micros(u64::from(trace.below(most * 1_000)));
            }
            20..60 => {
                let permit = breaker.try_acquire(now);
                assert_eq!(permit.is_ok(), model.admit(now), "trace {}", trace.seed);
                calls.extend(permit.ok().map(|permit| (permit, (model.era, now))));
            }
            60..99 if !calls.is_empty() => {
                let (permit, call) = calls.swap_remove(trace.place(calls.len()));
                let outcome = match trace.below(12) {
                    0 => None,
                    1 => Some(Outcome::CallerError),
                    2 => Some(Outcome::Unknown),
                    _ if trace.once(failing, 10) => Some(Outcome::Failure),
                    _ => Some(Outcome::Success),
                };
                match outcome {
                    Some(outcome) => permit.record(outcome, now),
                    None => drop(permit),
                }
                model.finish(call, outcome, now);
            }
            99 if trace.once(1, 2) => {
                breaker.trip(now);
                model.open(now);
            }
            99 => {
                breaker.reset();
                model.enter(State::Closed);
            }
            _ => {}
        }
        model.check(&breaker, now, trace);
    }
}

// Goal R-5: opens after exactly five, at most three probes, three successes close, one failure reopens, and results from
// before a change are not counted. `MESH_TRACES=1000000` follows all of a million.
// threat 46
#[test]
fn follows_the_model_step_by_step() {
    traces::each(20_000, follow);
}
