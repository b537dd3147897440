//! The decision against the words of gRPC A6, on random courses of a call.

use super::*;
use crate::random::{Random, SplitMix64};

/// The policy as A6 tells it, for two attempts: a list of what runs, and one flag.
struct Model {
    running: usize,
    may_start: bool,
    due: Option<Instant>,
}

impl Model {
    /// "If a non-fatal status code is received, the next hedged RPC is sent at once"; "if server pushback that specifies not
    /// to retry [or too late a time], the client does not send another"; "if all fail, the call fails".
    fn non_fatal(
        &mut self,
        pushback: Duration,
        most: Duration,
        now: Instant,
        end: Option<Instant>,
    ) -> Next {
        self.running -= 1;
        if self.running > 0 {
            return Next::Forget;
        }
        let at = now + pushback;
        let in_time = pushback <= most && end.is_none_or(|end| at < end);
        if self.may_start && in_time {
            self.due = Some(at);
            return Next::Second(at);
        }
        Next::Answer
    }
}

fn result(random: &SplitMix64) -> Classified {
    let outcomes = [
        Outcome::Success,
        Outcome::Failure,
        Outcome::Failure,
        Outcome::CallerError,
        Outcome::Unknown,
    ];
    let retryable = [Retryable::Never, Retryable::IfIdempotent, Retryable::Always];
    let classified =
        Classified::new(outcomes[random.below(5)]).with_retryable(retryable[random.below(3)]);
    if random.below(3) == 0 {
        classified.with_retry_after(Duration::from_millis(random.below(60) as u64))
    } else {
        classified
    }
}

#[test]
fn calls_go_as_the_policy_says() {
    let traces = std::env::var("MESH_TRACES").map_or(20_000, |n| n.parse().unwrap());
    for trace in 0..traces {
        let random = SplitMix64::new(trace);
        let most = Duration::from_millis(30);
        let mut now = tokio::time::Instant::now().into_std();
        let ms = |ms: usize| Duration::from_millis(ms as u64);
        let deadline = (random.below(2) == 0).then(|| now + ms(random.below(60)));
        let delay = (random.below(4) > 0).then(|| ms(random.below(30)));
        let mut race = Race::new(now, delay, deadline.map(Deadline::at), most);
        let due = delay.map(|delay| now + delay);
        let due = due.filter(|due| deadline.is_none_or(|end| *due < end));
        let mut model = Model {
            running: 1,
            may_start: due.is_some(),
            due,
        };
        loop {
            assert_eq!(
                race.second_at(),
                model.due.filter(|_| model.may_start),
                "trace {trace}"
            );
            // Either the timer, or a result of something that runs.
            if let Some(due) = model
                .due
                .filter(|_| model.may_start && (model.running == 0 || random.below(2) == 0))
            {
                now = now.max(due);
                race.second_is_decided();
                model.may_start = false;
                if random.below(4) == 0 {
                    // The budget allows none.
                    if model.running == 0 {
                        break;
                    }
                } else {
                    model.running += 1;
                }
                continue;
            }
            now += ms(random.below(5));
            let classified = result(&random);
            let is_fatal = matches!(classified.outcome, Outcome::Success | Outcome::CallerError)
                || classified.retryable == Retryable::Never;
            let expected = if is_fatal {
                Next::Answer
            } else {
                let pushback = classified.retry_after.unwrap_or_default();
                model.non_fatal(pushback, most, now, deadline)
            };
            let other_runs = if is_fatal {
                model.running > 1
            } else {
                model.running > 0
            };
            let next = race.finished(&classified, other_runs, now);
            assert_eq!(next, expected, "trace {trace}: {classified:?}");
            if next == Next::Answer {
                break;
            }
        }
    }
}
