//! Each rule by an example, and all of them together against a model that is too simple to be wrong.

mod model;
mod traces;

use std::time::Duration;

use super::*;

/// `name` passing, `name!` critical, `name~` draining, `name=2` with another weight; ids in the order given.
pub(super) fn list(text: &str) -> Endpoints {
    let endpoint = |word: &str| {
        let name: String = word.chars().filter(char::is_ascii_lowercase).collect();
        let mut endpoint = Endpoint::new("10.0.0.7".parse().unwrap(), 80);
        endpoint.condition = match word.chars().last() {
            Some('!') => crate::Condition::Critical,
            Some('~') => crate::Condition::Draining,
            _ => crate::Condition::Passing,
        };
        if let Some((_, weight)) = word.split_once('=') {
            endpoint.weight = weight.parse().unwrap();
        }
        endpoint.id = name;
        endpoint
    };
    Endpoints::new(text.split_whitespace().map(endpoint).collect(), 0).unwrap()
}

/// The other way round.
fn text(endpoints: &Endpoints) -> String {
    let word = |endpoint: &Arc<Endpoint>| {
        let mark = match endpoint.condition {
            crate::Condition::Critical => "!",
            crate::Condition::Draining => "~",
            _ => "",
        };
        match endpoint.weight.get() {
            1 => format!("{}{mark}", endpoint.id),
            weight => format!("{}={weight}{mark}", endpoint.id),
        }
    };
    endpoints.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// A ledger, and a clock that lets it do what is due.
struct Test {
    ledger: Ledger,
    now: Instant,
    /// The ids of which checks say something.
    healthy: &'static str,
    unhealthy: &'static str,
}

impl Test {
    fn new() -> Self {
        Self::of(Ledger::new(&Belief::default()))
    }

    fn of(ledger: Ledger) -> Self {
        Self {
            ledger,
            now: tokio::time::Instant::now().into_std(),
            healthy: "",
            unhealthy: "",
        }
    }

    fn found(&mut self, answer: &str) -> String {
        let (healthy, unhealthy) = (self.healthy, self.unhealthy);
        self.ledger.found(self.now, &list(answer), &|endpoint| {
            status(healthy, unhealthy, &endpoint.id)
        });
        self.says()
    }

    fn pass(&mut self, seconds: f64) -> String {
        let end = self.now + Duration::from_secs_f64(seconds);
        let (healthy, unhealthy) = (self.healthy, self.unhealthy);
        while let Some(due) = self.ledger.next_due().filter(|due| *due <= end) {
            assert!(due >= self.now, "what is due lies ahead");
            self.now = due;
            self.ledger
                .pass(due, &|endpoint| status(healthy, unhealthy, &endpoint.id));
            assert!(self.ledger.next_due() > Some(due) || self.ledger.next_due().is_none());
        }
        self.now = end;
        self.says()
    }

    /// An answer, and what is published a second later.
    fn settled(&mut self, answer: &str) -> String {
        self.found(answer);
        self.pass(1.0)
    }

    fn says(&self) -> String {
        format!(
            "{} [{}]",
            self.ledger.endpoints().standing(),
            text(self.ledger.endpoints())
        )
    }

    fn exceptions(&self, reason: ExceptionReason) -> String {
        let of = |exception: &Exception| {
            (exception.reason == reason).then(|| exception.endpoint.id.clone())
        };
        self.ledger
            .exceptions()
            .iter()
            .filter_map(of)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn status(healthy: &str, unhealthy: &str, id: &str) -> Status {
    if healthy.split_whitespace().any(|one| one == id) {
        Status::Healthy
    } else if unhealthy.split_whitespace().any(|one| one == id) {
        Status::Unhealthy
    } else {
        Status::Unknown
    }
}

const WITHDRAWN: &str = "stale: withdrawal not believed";
const UNREACHABLE: &str = "stale: source unreachable";

#[test]
fn believes_small_withdrawals_at_once() {
    let mut test = Test::new();
    assert_eq!(test.says(), "pending []");
    assert_eq!(test.found("b a"), "fresh [a b]");
    assert_eq!(test.settled("a b c d"), "fresh [a b c d]");
    assert_eq!(test.settled("a b"), "fresh [a b]");
    assert_eq!(test.exceptions(ExceptionReason::WithdrawalNotBelieved), "");
}

// threat 50
#[test]
fn keeps_an_emptied_list_until_the_registry_has_stood_by_it() {
    let mut test = Test::new();
    test.settled("a b");
    assert_eq!(test.settled(""), format!("{WITHDRAWN} [a b]"));
    assert_eq!(
        test.exceptions(ExceptionReason::WithdrawalNotBelieved),
        "a b"
    );
    assert_eq!(test.ledger.kept(), 2);
    assert_eq!(test.pass(58.9), format!("{WITHDRAWN} [a b]"));
    assert_eq!(test.pass(0.2), "absent []");
    assert_eq!(test.ledger.exceptions(), []);
}

// threat 50
#[test]
fn a_check_that_passes_outweighs_a_withdrawal_and_one_that_fails_confirms_it() {
    let mut test = Test::new();
    test.settled("a b c d");
    test.healthy = "a b";
    test.unhealthy = "c";
    assert_eq!(test.settled(""), format!("{WITHDRAWN} [a b d]"));
    assert_eq!(test.pass(3600.0), format!("{WITHDRAWN} [a b]"));
    test.unhealthy = "a c";
    test.healthy = "b";
    assert_eq!(
        test.pass(1.2),
        format!("{WITHDRAWN} [b]"),
        "within a second"
    );
    test.healthy = "";
    assert_eq!(test.pass(1.2), "absent []", "an hour is long enough");
}

// threat 50
#[test]
fn withdrawals_one_by_one_count_together() {
    let mut test = Test::new();
    test.settled("a b c d e f");
    assert_eq!(test.settled("b c d e f"), "fresh [b c d e f]");
    assert_eq!(test.settled("c d e f"), "fresh [c d e f]");
    assert_eq!(test.settled("d e f"), "fresh [d e f]");
    assert_eq!(test.settled("e f"), format!("{WITHDRAWN} [d e f]"));
    assert_eq!(test.settled("f"), format!("{WITHDRAWN} [d e f]"));
    // After a minute the first ones no longer count: two of three are still too many.
    assert_eq!(test.pass(56.5), format!("{WITHDRAWN} [d e f]"));
    // One of three is not, but this one is kept already; until the registry has stood by it.
    assert_eq!(test.settled("e f"), format!("{WITHDRAWN} [d e f]"));
    assert_eq!(test.pass(4.0), "fresh [e f]");
}

// threat 50
#[test]
fn a_registry_that_lost_its_data_and_is_told_anew_takes_nothing_away_meanwhile() {
    let mut test = Test::new();
    test.settled("a b c d e f");
    assert_eq!(test.settled("a"), format!("{WITHDRAWN} [a b c d e f]"));
    assert_eq!(test.settled("a b"), format!("{WITHDRAWN} [a b c d e f]"));
    assert_eq!(
        test.exceptions(ExceptionReason::WithdrawalNotBelieved),
        "c d e f"
    );
    assert_eq!(
        test.settled("a b c d=2"),
        format!("{WITHDRAWN} [a b c d=2 e f]")
    );
    assert_eq!(
        test.settled("a b c d=2 e"),
        format!("{WITHDRAWN} [a b c d=2 e f]")
    );
    test.unhealthy = "f";
    assert_eq!(test.pass(1.0), "fresh [a b c d=2 e]");
}

#[test]
fn replacing_all_is_no_withdrawal_of_most() {
    let mut test = Test::new();
    test.settled("a b c");
    assert_eq!(test.settled("d e f"), "fresh [d e f]");
}

#[test]
fn who_is_told_to_drain_is_left_after_the_grace_although_it_works() {
    let mut test = Test::new();
    test.settled("a b c d");
    test.healthy = "a b c d";
    assert_eq!(
        test.settled("a! b~ c~ d~"),
        format!("{WITHDRAWN} [a b c d]")
    );
    assert_eq!(test.pass(50.0), format!("{WITHDRAWN} [a b c d]"));
    assert_eq!(
        test.pass(12.0),
        format!("{WITHDRAWN} [a b~ c~ d~]"),
        "a check says nothing against a wish, and much against a failure"
    );
}

// threat 50
#[test]
fn most_turning_critical_at_once_is_a_withdrawal_too() {
    let mut test = Test::new();
    test.settled("a b c");
    assert_eq!(test.settled("a! b c"), "fresh [a! b c]");
    assert_eq!(test.settled("a! b! c~"), format!("{WITHDRAWN} [a! b c]"));
    assert_eq!(test.settled("a! b c~"), format!("{WITHDRAWN} [a! b c]"));
    test.unhealthy = "c";
    assert_eq!(test.pass(2.0), "fresh [a! b c~]");
    test.unhealthy = "";
    assert_eq!(test.settled("a! b! c!"), format!("{WITHDRAWN} [a! b c!]"));
    assert_eq!(
        test.pass(61.0),
        "fresh [a! b! c!]",
        "believed, and still where nothing else is"
    );
    assert_eq!(test.settled("a! b!"), "fresh [a! b!]", "nobody used it");
}

#[test]
fn a_registry_that_fails_while_it_is_not_believed_has_to_stand_by_it_anew() {
    let mut test = Test::new();
    test.settled("a");
    test.settled("");
    test.pass(30.0);
    test.ledger.failed(test.now);
    assert_eq!(test.pass(600.0), format!("{UNREACHABLE} [a]"));
    assert_eq!(test.settled(""), format!("{WITHDRAWN} [a]"));
    assert_eq!(test.pass(58.0), format!("{WITHDRAWN} [a]"));
    assert_eq!(test.pass(2.0), "absent []");
}

#[test]
fn a_failure_changes_the_standing_and_nothing_else() {
    let mut test = Test::new();
    test.ledger.failed(test.now);
    assert_eq!(test.says(), "pending []");
    test.settled("a b");
    test.ledger.failed(test.now);
    assert_eq!(test.pass(86_400.0), format!("{UNREACHABLE} [a b]"));
    test.ledger.confirmed(test.now);
    assert_eq!(test.says(), "fresh [a b]");
}

#[test]
fn a_service_that_the_registry_never_knew_is_absent() {
    let mut test = Test::new();
    assert_eq!(test.found(""), "absent []");
    test.ledger.failed(test.now);
    assert_eq!(test.pass(1.0), "absent []");
    assert_eq!(test.found("a"), "fresh [a]");
}

// threat 50
#[test]
fn a_list_from_before_is_judged_like_an_answer() {
    let restored = |answer: &str| {
        let mut test = Test::of(Ledger::restored(&Belief::default(), &list("b a c")));
        assert_eq!(test.says(), "stale: restored from disk [a b c]");
        test.ledger.failed(test.now);
        test.ledger.confirmed(test.now);
        assert_eq!(test.pass(100.0), "stale: restored from disk [a b c]");
        test.found(answer)
    };
    assert_eq!(restored("b c d"), "fresh [b c d]");
    assert_eq!(restored("c"), format!("{WITHDRAWN} [a b c]"));
    assert_eq!(restored(""), format!("{WITHDRAWN} [a b c]"));
    let empty = Ledger::restored(&Belief::default(), &Endpoints::absent());
    assert_eq!(empty.endpoints(), &Endpoints::pending());
}

// threat 50
#[test]
fn an_endpoint_that_comes_and_goes_is_left_out_until_it_is_calm() {
    let mut test = Test::new();
    test.settled("a b c");
    for _ in 0..4 {
        assert_eq!(test.settled("a b"), "fresh [a b]");
        test.settled("a b c");
    }
    assert_eq!(test.says(), "fresh [a b]");
    assert_eq!(test.exceptions(ExceptionReason::Flapping), "c");
    assert_eq!(test.pass(15.0), "fresh [a b]");
    assert_eq!(test.pass(20.0), "fresh [a b c]");
    assert_eq!(test.ledger.exceptions(), []);
    test.pass(60.0);
    assert!(
        test.ledger.next_due().is_none(),
        "what is calm is forgotten"
    );
}

#[test]
fn however_often_an_endpoint_changed_it_is_back_after_three_half_lives() {
    let mut test = Test::new();
    test.settled("a b c");
    for _ in 0..500 {
        test.found("a b");
        test.pass(0.05);
        test.found("a b c");
        test.pass(0.05);
    }
    assert_eq!(test.pass(44.8), "fresh [a b]");
    assert_eq!(test.pass(0.5), "fresh [a b c]");
}

// threat 50
#[test]
fn never_more_than_half_of_a_list_is_left_out() {
    let mut test = Test::new();
    test.settled("a b c d");
    for _ in 0..20 {
        // Two each time, so that no withdrawal is one of most.
        for answer in ["a b", "a b c d", "c d", "a b c d"] {
            test.found(answer);
            test.pass(0.2);
            let given = list(answer).len();
            assert!(
                test.ledger.endpoints().len() * 2 >= given,
                "{}",
                test.says()
            );
        }
    }
    assert_eq!(test.says(), "fresh [a b]", "the others went first");
    assert_eq!(test.exceptions(ExceptionReason::Flapping), "c d");
}

#[test]
fn without_damping_nothing_is_left_out() {
    let belief = Belief::default().with_damping(None).unwrap();
    let mut test = Test::of(Ledger::new(&belief));
    for _ in 0..20 {
        test.settled("a b");
        assert_eq!(test.settled("a b c"), "fresh [a b c]");
    }
}

#[test]
fn without_grace_every_withdrawal_is_believed() {
    let mut test = Test::of(Ledger::new(&Belief::default().with_grace(Duration::ZERO)));
    test.healthy = "a b";
    test.settled("a b");
    assert_eq!(test.settled(""), "absent []");
}

#[test]
fn the_first_change_comes_at_once_and_more_of_them_as_one() {
    let mut test = Test::new();
    assert_eq!(test.found("a"), "fresh [a]");
    assert_eq!(test.found("a b"), "fresh [a]");
    assert_eq!(test.pass(0.05), "fresh [a]");
    assert_eq!(test.found("a b c"), "fresh [a]");
    assert_eq!(test.pass(0.049), "fresh [a]");
    assert_eq!(test.pass(0.001), "fresh [a b c]");
    assert_eq!(test.ledger.endpoints().revision(), 2);
    test.pass(0.1);
    assert_eq!(test.found("a b c d"), "fresh [a b c d]");
}

#[test]
fn another_order_is_no_change_and_what_did_not_change_keeps_its_pointer() {
    let mut test = Test::new();
    test.settled("a b c");
    let before = test.ledger.endpoints().clone();
    test.settled("c a b");
    assert_eq!(test.ledger.endpoints().revision(), before.revision());
    test.settled("a b=2 c d");
    let after = test.ledger.endpoints();
    assert!(after.revision() > before.revision());
    assert!(Arc::ptr_eq(&before[0], &after[0]) && Arc::ptr_eq(&before[2], &after[2]));
    // Also when it was kept against the registry.
    test.settled("");
    test.settled("a b=2 c d");
    assert!(Arc::ptr_eq(&before[0], &test.ledger.endpoints()[0]));
}

// threat 51
#[test]
fn what_is_kept_and_what_is_said_never_exceed_one_list() {
    let many = |from: usize, count: usize| {
        let endpoint = |n| {
            let mut endpoint = Endpoint::new("10.0.0.7".parse().unwrap(), 80);
            endpoint.id = format!("{n:06}");
            endpoint
        };
        Endpoints::new((from..from + count).map(endpoint).collect(), 0).unwrap()
    };
    let mut test = Test::new();
    let nothing = |_: &Endpoint| Status::Unknown;
    for round in 0..10 {
        test.ledger
            .found(test.now, &many(round * 10_000, 10_000), &nothing);
        test.pass(1.0);
        assert!(test.ledger.endpoints().len() <= MAX);
    }
    test.ledger.found(test.now, &many(1, 3000), &nothing);
    test.pass(1.0);
    assert_eq!(test.ledger.endpoints().len(), MAX);
    assert_eq!(test.ledger.kept(), 7000);
}

const MAX: usize = crate::MAX_ENDPOINTS_PER_SERVICE;

#[test]
fn refuses_settings_that_make_no_sense() {
    for share in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
        Belief::default().with_share(share).unwrap_err();
    }
    for damping in [
        Damping::default().with_half_life(Duration::ZERO),
        Damping::default().with_limits(1.0, 2.0),
        Damping::default().with_limits(f64::NAN, 2.0),
        Damping::default().with_limits(6.0, f64::NAN),
        Damping::default().with_limits(6.0, 0.0),
        Damping::default().with_limits(2000.0, 2.0),
    ] {
        Belief::default().with_damping(Some(damping)).unwrap_err();
    }
}
