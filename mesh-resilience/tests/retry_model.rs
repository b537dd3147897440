//! The retry layer against a table of what may be repeated and when, on a paused clock.
#![cfg(feature = "retry")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod traces;

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_resilience::BoxError;
use mesh_resilience::classify::{Classified, Outcome, Retryable};
use mesh_resilience::deadline::Deadline;
use mesh_resilience::retry::{
    Attempt, Budget, BudgetConfig, Observe, Replay, RetryConfig, RetryLayer, Stop,
};
use tower::{Layer, Service, ServiceExt, service_fn};

use self::traces::Trace;

/// A call, and how each of its attempts ends. Times are milliseconds.
#[derive(Clone, Debug)]
struct Call {
    is_idempotent: bool,
    has_copy: bool,
    made_for: Attempt,
    due: Option<u64>,
    ends: Vec<End>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    took: u64,
    /// `None` is a success.
    failure: Option<(Retryable, Option<u64>)>,
}

#[derive(Debug)]
struct Rules {
    max_attempts: u32,
    initial_delay: u64,
    factor: u32,
    max_delay: u64,
    reserve: u32,
}

fn number(trace: &Trace, bound: u32) -> u64 {
    u64::from(trace.below(bound))
}

impl Rules {
    fn draw(trace: &Trace) -> Self {
        Self {
            max_attempts: 1 + trace.below(6),
            // Even, since the jitter of this test is one half.
            initial_delay: 2 * number(trace, 1_000),
            factor: 1 + trace.below(3),
            max_delay: 2 * number(trace, 5_000),
            reserve: trace.below(8),
        }
    }
}

impl Call {
    fn draw(trace: &Trace, attempts: u32) -> Self {
        let end = |_| End {
            took: number(trace, 2_000),
            failure: trace.once(5, 6).then(|| {
                let kinds = [
                    Retryable::Never,
                    Retryable::Always,
                    Retryable::IfIdempotent,
                    Retryable::IfIdempotent,
                ];
                let retryable = kinds[trace.place(kinds.len())];
                (retryable, trace.once(1, 5).then(|| number(trace, 8_000)))
            }),
        };
        Self {
            is_idempotent: trace.once(3, 4),
            has_copy: trace.once(7, 8),
            made_for: if trace.once(1, 8) {
                Attempt::FIRST.next()
            } else {
                Attempt::FIRST
            },
            due: trace.once(1, 2).then(|| number(trace, 12_000)),
            ends: (0..attempts).map(end).collect(),
        }
    }

    /// How many attempts there are, when the last one ends, and why no other follows.
    fn expect(&self, rules: &Rules, budget: &mut u32) -> (u32, u64, Option<Stop>) {
        let (mut attempts, mut at) = (0, 0);
        let mut bound = rules.initial_delay;
        loop {
            let end = self.ends[attempts as usize];
            attempts += 1;
            at += end.took;
            let Some((retryable, asked)) = end.failure else {
                return (attempts, at, None);
            };
            let wait = asked.unwrap_or(0) + bound.min(rules.max_delay) / 2;
            bound *= u64::from(rules.factor);
            let reasons = [
                (retryable == Retryable::Never, Stop::NotRetryable),
                (
                    retryable == Retryable::IfIdempotent && !self.is_idempotent,
                    Stop::Unsafe,
                ),
                (self.made_for.is_retry(), Stop::Repeated),
                (attempts == rules.max_attempts, Stop::Attempts),
                (!self.has_copy, Stop::NotReplayable),
                (asked.unwrap_or(0) > rules.max_delay, Stop::Delay),
                (self.due.is_some_and(|due| at + wait >= due), Stop::Deadline),
                (*budget == 0, Stop::Budget),
            ];
            if let Some((_, reason)) = reasons.iter().find(|(is_so, _)| *is_so) {
                return (attempts, at, Some(*reason));
            }
            *budget -= 1;
            at += wait;
        }
    }
}

/// A call under way.
#[derive(Clone)]
struct Ask {
    call: Arc<Call>,
    attempt: Attempt,
    deadline: Option<Deadline>,
}

impl Replay for Ask {
    fn try_replay(&self) -> Option<Self> {
        self.call.has_copy.then(|| self.clone())
    }

    fn is_idempotent(&self) -> bool {
        self.call.is_idempotent
    }

    fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    fn attempt(&self) -> Attempt {
        self.call.made_for
    }

    fn begin_attempt(&mut self, attempt: Attempt) {
        self.attempt = attempt;
    }
}

#[derive(Debug, thiserror::Error)]
#[error("failed as the trace says")]
struct Failed(Classified);

#[derive(Default)]
struct Seen(Mutex<Option<(u32, Stop)>>);

impl Observe for Seen {
    fn gave_up(&self, attempts: u32, reason: Stop) {
        *self.0.lock().unwrap() = Some((attempts, reason));
    }
}

async fn answer(ask: Ask) -> Result<u32, BoxError> {
    let attempt = ask.attempt.number().get();
    let end = ask.call.ends[attempt as usize - 1];
    tokio::time::sleep(Duration::from_millis(end.took)).await;
    let Some((retryable, asked)) = end.failure else {
        return Ok(attempt);
    };
    let classified = Classified::new(Outcome::Failure).with_retryable(retryable);
    Err(Failed(match asked {
        Some(millis) => classified.with_retry_after(Duration::from_millis(millis)),
        None => classified,
    })
    .into())
}

fn judge(result: Result<&u32, &BoxError>) -> Classified {
    result.map_or_else(
        |error| error.downcast_ref::<Failed>().unwrap().0,
        |_| Classified::success(),
    )
}

async fn follow(trace: &Trace) {
    let seed = trace.seed;
    let rules = Rules::draw(trace);
    let config = RetryConfig::default()
        .with_max_attempts(NonZeroU32::new(rules.max_attempts).unwrap())
        .with_initial_delay(Duration::from_millis(rules.initial_delay))
        .with_factor(f64::from(rules.factor))
        .with_max_delay(Duration::from_millis(rules.max_delay));
    let budget = BudgetConfig::default()
        .with_ratio(0.0)
        .with_reserve(rules.reserve)
        .with_window(Duration::from_hours(24));
    let reported = Arc::new(Seen::default());
    let observer: Arc<dyn Observe> = Arc::<Seen>::clone(&reported);
    let layer = RetryLayer::new(config, Budget::new(budget).unwrap(), judge).unwrap();
    let layer = layer
        .with_random(Arc::new(|| 1_u64 << 63))
        .with_observer(observer);
    let mut service = layer.layer(service_fn(answer));
    let mut budget = rules.reserve;
    for _ in 0..4 {
        let call = Arc::new(Call::draw(trace, rules.max_attempts));
        let begin = tokio::time::Instant::now();
        let due = |millis| Deadline::after(begin.into_std(), Duration::from_millis(millis));
        let ask = Ask {
            attempt: Attempt::FIRST,
            deadline: call.due.map(due),
            call: Arc::clone(&call),
        };
        let result = service.ready().await.unwrap().call(ask).await;
        let (attempts, at, stop) = call.expect(&rules, &mut budget);
        let took = begin.elapsed().as_millis();
        assert_eq!(took, u128::from(at), "trace {seed}: {rules:?} {call:?}");
        assert_eq!(
            result.ok(),
            stop.is_none().then_some(attempts),
            "trace {seed}: {rules:?} {call:?}"
        );
        let gave_up = reported.0.lock().unwrap().take();
        assert_eq!(
            gave_up,
            stop.map(|reason| (attempts, reason)),
            "trace {seed}: {rules:?} {call:?}"
        );
    }
}

// Goal R-13. `MESH_TRACES=1000000` follows all of a million.
// threat 43
#[test]
fn repeats_what_may_be_repeated_when_it_may_and_nothing_else() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    traces::each(3_000, |trace| runtime.block_on(follow(trace)));
}
