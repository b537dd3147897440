//! Random traces of answers, failures, checks and time.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::collection::btree_map;
use proptest::collection::vec;
use proptest::prelude::*;

use super::model::Model;
use super::model::Said;
use super::*;
use crate::Condition;

#[derive(Clone, Debug)]
enum Step {
    Found(BTreeMap<String, Said>),
    /// Others come or go than in the last answer.
    Toggle(Vec<String>),
    Confirmed,
    Failed,
    Check(String, Status),
    Pass(u64),
}

fn id() -> impl Strategy<Value = String> {
    (0..10_u8).prop_map(|n| char::from(b'a' + n).to_string())
}

fn said() -> impl Strategy<Value = Said> {
    let condition = prop_oneof![
        6 => Just(Condition::Passing),
        1 => Just(Condition::Warning),
        1 => Just(Condition::Draining),
        2 => Just(Condition::Critical),
    ];
    (condition, prop_oneof![4 => Just(1_u16), 1 => Just(2)])
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        2 => Just(Status::Unknown),
        1 => Just(Status::Healthy),
        1 => Just(Status::Unhealthy),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => btree_map(id(), said(), 0..10).prop_map(Step::Found),
        4 => vec(id(), 1..4).prop_map(Step::Toggle),
        1 => Just(Step::Confirmed),
        1 => Just(Step::Failed),
        1 => (id(), status()).prop_map(|(id, status)| Step::Check(id, status)),
        4 => prop_oneof![0..120_u64, 0..5000_u64, 0..90_000_u64].prop_map(Step::Pass),
    ]
}

fn endpoints(answer: &BTreeMap<String, Said>) -> Endpoints {
    let of = |(id, (condition, weight)): (&String, &Said)| {
        let mut endpoint = Endpoint::new("10.0.0.7".parse().unwrap(), 80);
        endpoint.id.clone_from(id);
        endpoint.condition = *condition;
        endpoint.weight = (*weight).try_into().unwrap();
        endpoint
    };
    Endpoints::new(answer.iter().map(of).collect(), 0).unwrap()
}

fn flat(list: &Endpoints) -> Vec<(String, Said)> {
    let of = |one: &Arc<Endpoint>| (one.id.clone(), (one.condition, one.weight.get()));
    list.iter().map(of).collect()
}

/// A ledger and its model, told the same.
struct Pair {
    ledger: Ledger,
    model: Model,
    now: Instant,
    checks: RefCell<BTreeMap<String, Status>>,
    before: Endpoints,
    changed_at: Option<Instant>,
    answer: BTreeMap<String, Said>,
}

impl Pair {
    fn new() -> Self {
        Self {
            ledger: Ledger::new(&Belief::default()),
            model: Model::default(),
            now: tokio::time::Instant::now().into_std(),
            checks: RefCell::default(),
            before: Endpoints::pending(),
            changed_at: None,
            answer: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        let now = self.now;
        match step {
            Step::Found(answer) => return self.found(answer),
            Step::Toggle(ids) => {
                let mut answer = self.answer.clone();
                for id in ids {
                    if answer.remove(&id).is_none() {
                        answer.insert(id, (Condition::Passing, 1));
                    }
                }
                return self.found(answer);
            }
            Step::Confirmed => {
                self.ledger.confirmed(now);
                self.model.confirmed(now);
            }
            Step::Failed => {
                self.ledger.failed(now);
                self.model.failed(now);
            }
            Step::Check(id, status) => {
                self.checks.borrow_mut().insert(id, status);
            }
            Step::Pass(milliseconds) => return self.pass(Duration::from_millis(milliseconds)),
        }
        self.compare()
    }

    fn found(&mut self, answer: BTreeMap<String, Said>) -> Result<(), TestCaseError> {
        let check = |id: &str| *self.checks.borrow().get(id).unwrap_or(&Status::Unknown);
        let found = endpoints(&answer);
        self.ledger
            .found(self.now, &found, &|endpoint| check(&endpoint.id));
        self.model.found(self.now, &answer, &check);
        self.answer = answer;
        self.compare()
    }

    fn pass(&mut self, time: Duration) -> Result<(), TestCaseError> {
        let end = self.now + time;
        while let Some(due) = self.ledger.next_due().filter(|due| *due <= end) {
            prop_assert!(due >= self.now);
            self.now = due;
            let check = |id: &str| *self.checks.borrow().get(id).unwrap_or(&Status::Unknown);
            self.ledger.pass(due, &|endpoint| check(&endpoint.id));
            self.model.pass(due, &check);
            self.compare()?;
            prop_assert!(
                self.ledger.next_due().is_none_or(|next| next > due),
                "no busy loop"
            );
        }
        self.now = end;
        Ok(())
    }

    fn compare(&mut self) -> Result<(), TestCaseError> {
        let list = self.ledger.endpoints().clone();
        prop_assert_eq!(flat(&list), self.model.published.clone());
        let is_changed = list != self.before;
        prop_assert_eq!(list.revision() > self.before.revision(), is_changed);
        prop_assert!(list.revision() >= self.before.revision());
        if is_changed {
            if let Some(at) = self.changed_at {
                prop_assert!(
                    self.now >= at + Duration::from_millis(100),
                    "two lists in 100 ms"
                );
            }
            self.changed_at = Some(self.now);
            self.model.standing_changed(self.now);
        }
        for one in list.iter() {
            let same = self.before.iter().find(|old| *old == one);
            prop_assert!(
                same.is_none_or(|old| Arc::ptr_eq(old, one)),
                "a pointer changed"
            );
        }
        let (empty, known) = (list.is_empty(), list.is_known());
        prop_assert!(!(empty && known), "a list that is known has endpoints");
        self.before = list;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_ledger_does_what_the_model_does(steps in vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.take(step)?;
        }
    }

    // threat 50
    #[test]
    fn a_list_is_never_emptied_while_its_endpoints_work(steps in vec(step(), 1..60), first in id()) {
        let mut pair = Pair::new();
        *pair.checks.borrow_mut() = (b'a'..=b'j').map(|id| (char::from(id).to_string(), Status::Healthy)).collect();
        pair.found(BTreeMap::from([(first, (Condition::Passing, 1))]))?;
        for step in steps {
            // To drain is a wish, which checks that pass say nothing against.
            let is_drained = |said: &Said| said.0 == Condition::Draining;
            match &step {
                Step::Check(..) => continue,
                Step::Found(answer) if answer.values().any(is_drained) => continue,
                _ => {}
            }
            pair.take(step)?;
            prop_assert!(pair.ledger.endpoints().iter().any(|one| one.condition.is_usable()));
        }
    }

    // threat 50
    #[test]
    fn a_list_is_never_emptied_before_the_registry_has_stood_by_it(steps in vec(step(), 1..60)) {
        let mut pair = Pair::new();
        let mut given_at = None;
        for step in steps {
            if matches!(step, Step::Check(..)) {
                continue;
            }
            pair.take(step)?;
            // Endpoints that are critical are no news when they go; of the others one is there or was lately.
            if pair.answer.values().any(|(condition, _)| condition.is_usable()) && pair.ledger.endpoints().is_known() {
                given_at = Some(pair.now);
            }
            if pair.ledger.endpoints().standing() == Standing::Absent {
                prop_assert!(given_at.is_none_or(|at| pair.now >= at + Duration::from_mins(1)));
            }
        }
    }

    #[test]
    fn a_registry_that_stands_by_its_answer_is_believed_in_the_end(
        steps in vec(step(), 1..60), last in btree_map(id(), said(), 0..10),
    ) {
        let mut pair = Pair::new();
        for step in steps {
            pair.take(step)?;
        }
        pair.checks.borrow_mut().clear();
        pair.found(last.clone())?;
        pair.pass(Duration::from_mins(2))?;
        prop_assert_eq!(flat(pair.ledger.endpoints()), last.into_iter().collect::<Vec<_>>());
        prop_assert!(!pair.ledger.endpoints().is_stale());
        prop_assert_eq!(pair.ledger.exceptions(), vec![]);
        prop_assert_eq!(pair.ledger.next_due(), None, "nothing is remembered");
    }
}
