//! The queue against a plain list of who runs and who waits.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Enter,
    Leave,
    Poll(prop::sample::Index),
    Abandon(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => Just(Step::Enter),
        2 => Just(Step::Leave),
        2 => index().prop_map(Step::Poll),
        1 => index().prop_map(Step::Abandon),
    ]
}

proptest! {
    // Goal R-8, threat 44.
    #[test]
    fn places_go_round_first_come_first_served(
        max_running in 1_usize..4,
        max_waiting in 0_usize..5,
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut queue = Queue::new(max_running, max_waiting);
        // Callers who run, who were handed a permit and don't know yet, and who wait, in order.
        let (mut running, mut handed, mut waiting) = (0_usize, Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Enter => match queue.enter() {
                    Turn::Run => {
                        prop_assert!(waiting.is_empty() && running + handed.len() < max_running);
                        running += 1;
                    }
                    Turn::Wait(id) => {
                        prop_assert_eq!(running + handed.len(), max_running);
                        waiting.push(id);
                        prop_assert!(waiting.len() <= max_waiting);
                    }
                    Turn::Refused => {
                        prop_assert_eq!((running + handed.len(), waiting.len()), (max_running, max_waiting));
                    }
                },
                Step::Leave if running > 0 => {
                    prop_assert!(queue.leave().is_none(), "no waker was registered");
                    running -= 1;
                    if !waiting.is_empty() {
                        handed.push(waiting.remove(0));
                    }
                }
                Step::Poll(who) if !handed.is_empty() => {
                    let id = handed.swap_remove(who.index(handed.len()));
                    prop_assert!(queue.poll_turn(id, Waker::noop()));
                    running += 1;
                }
                Step::Abandon(who) if !waiting.is_empty() || !handed.is_empty() => {
                    let at = who.index(waiting.len() + handed.len());
                    if let Some(place) = at.checked_sub(waiting.len()) {
                        prop_assert!(queue.abandon(handed.swap_remove(place)));
                        queue.leave();
                        if !waiting.is_empty() {
                            handed.push(waiting.remove(0));
                        }
                    } else {
                        prop_assert!(!queue.abandon(waiting.remove(at)));
                    }
                }
                Step::Leave | Step::Poll(_) | Step::Abandon(_) => {}
            }
            prop_assert_eq!(queue.running(), running + handed.len());
            prop_assert_eq!(queue.waiting(), waiting.len());
        }
    }
}

#[test]
fn a_waiter_polled_before_its_turn_leaves_its_waker() {
    let mut queue = Queue::new(1, 1);
    assert_eq!(queue.enter(), Turn::Run);
    let Turn::Wait(id) = queue.enter() else {
        unreachable!("the place is taken")
    };
    assert!(!queue.poll_turn(id, Waker::noop()));
    assert!(queue.leave().is_some());
    assert!(queue.poll_turn(id, Waker::noop()));
}
