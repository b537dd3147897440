//! The bulkhead as its callers see it, against a list of who runs and who waits: polled, woken and dropped at any point.
#![cfg(feature = "bulkhead")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod traces;

use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use mesh_resilience::bulkhead::{Acquire, Bulkhead, BulkheadConfig, Permit};

use self::traces::Trace;

/// Somebody who waits, and was woken or not since it was last asked.
struct Caller {
    acquire: Pin<Box<Acquire>>,
    is_woken: Arc<Woken>,
    /// It was polled, so that it must be woken when its turn comes.
    was_asked: bool,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Caller {
    fn poll(&mut self) -> Poll<Result<Permit, mesh_resilience::bulkhead::BulkheadFull>> {
        self.was_asked = true;
        let waker = Waker::from(Arc::clone(&self.is_woken));
        self.acquire.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

/// Callers in the order in which they came.
struct Model {
    max_running: usize,
    max_waiting: usize,
    running: Vec<Permit>,
    /// Those whose turn it is, and who have not taken their permit yet.
    handed: Vec<Caller>,
    waiting: Vec<Caller>,
}

impl Model {
    fn taken(&self) -> usize {
        self.running.len() + self.handed.len()
    }

    /// A permit came back: the first who waits has it.
    fn hand_over(&mut self, seed: u64) {
        if self.taken() < self.max_running && !self.waiting.is_empty() {
            let first = self.waiting.remove(0);
            let is_woken = first.is_woken.0.load(Ordering::Relaxed);
            assert!(
                is_woken || !first.was_asked,
                "trace {seed}: its turn, and it sleeps"
            );
            self.handed.push(first);
        }
    }

    fn arrive(&mut self, bulkhead: &Bulkhead, seed: u64) {
        let mut caller = Caller {
            acquire: Box::pin(bulkhead.acquire()),
            is_woken: Arc::new(Woken(AtomicBool::new(false))),
            was_asked: false,
        };
        if self.taken() < self.max_running {
            // Nobody can wait while there is room.
            assert!(self.waiting.is_empty(), "trace {seed}");
            self.handed.push(caller);
        } else if self.waiting.len() < self.max_waiting {
            self.waiting.push(caller);
        } else {
            assert!(
                matches!(caller.poll(), Poll::Ready(Err(_))),
                "trace {seed}: no place"
            );
        }
    }
}

fn follow(trace: &Trace) {
    let seed = trace.seed;
    let mut model = Model {
        max_running: 1 + trace.place(4),
        max_waiting: trace.place(6),
        running: Vec::new(),
        handed: Vec::new(),
        waiting: Vec::new(),
    };
    let config = BulkheadConfig::default()
        .with_max_concurrent(NonZeroUsize::new(model.max_running).unwrap())
        .with_max_waiting(model.max_waiting);
    let bulkhead = Bulkhead::new(&config);
    for _ in 0..20 + trace.below(80) {
        match trace.below(10) {
            0..3 => model.arrive(&bulkhead, seed),
            3 => match bulkhead.try_acquire() {
                Ok(permit) => {
                    assert!(model.taken() < model.max_running, "trace {seed}");
                    model.running.push(permit);
                }
                Err(_) => assert_eq!(model.taken(), model.max_running, "trace {seed}"),
            },
            4..6 if !model.running.is_empty() => {
                drop(model.running.swap_remove(trace.place(model.running.len())));
                model.hand_over(seed);
            }
            6..8 if !model.handed.is_empty() => {
                let mut caller = model.handed.swap_remove(trace.place(model.handed.len()));
                let Poll::Ready(Ok(permit)) = caller.poll() else {
                    unreachable!("trace {seed}: it is its turn")
                };
                model.running.push(permit);
            }
            8 if !model.waiting.is_empty() => {
                let place = trace.place(model.waiting.len());
                let caller = &mut model.waiting[place];
                assert!(caller.poll().is_pending(), "trace {seed}: before its turn");
            }
            9 if !model.waiting.is_empty() && trace.once(1, 2) => {
                drop(model.waiting.remove(trace.place(model.waiting.len())));
            }
            9 if !model.handed.is_empty() => {
                drop(model.handed.swap_remove(trace.place(model.handed.len())));
                model.hand_over(seed);
            }
            _ => {}
        }
        let said = bulkhead.snapshot();
        assert_eq!(
            (said.running, said.waiting),
            (model.taken(), model.waiting.len()),
            "trace {seed}"
        );
    }
    model.running.clear();
    model.waiting.clear();
    model.handed.clear();
    assert_eq!(
        (bulkhead.running(), bulkhead.waiting()),
        (0, 0),
        "trace {seed}"
    );
}

// Goal R-8. `MESH_TRACES=1000000` follows all of a million.
// threat 44
#[test]
fn places_go_round_first_come_first_served_whoever_gives_up() {
    traces::each(10_000, follow);
}
