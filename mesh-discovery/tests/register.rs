//! Keeping a registry told, with one that the test plays itself.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::future::pending;
use std::sync::Mutex;
use std::time::Duration;

use mesh_discovery::BoxFuture;
use mesh_discovery::Condition;
use mesh_discovery::Endpoint;
use mesh_discovery::Register;
use mesh_discovery::RegisterError;
use mesh_discovery::Registration;
use mesh_discovery::RegistrationState;
use mesh_discovery::Renewed;
use mesh_discovery::ServiceName;
use mesh_discovery::keep_registered;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::Instant;

/// Writes down what it is told and when, in milliseconds.
struct Model {
    begun: Instant,
    told: Mutex<Vec<(u128, String)>>,
    mood: Mutex<Mood>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Works,
    Fails,
    Hangs,
    HasForgotten,
}

impl Model {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            told: Mutex::default(),
            mood: Mutex::new(Mood::Works),
        }
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn take(&self) -> Vec<(u128, String)> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    async fn tell(&self, what: String) -> Result<(), RegisterError> {
        let mood = *self.mood.lock().unwrap();
        let at = self.begun.elapsed().as_millis();
        self.told.lock().unwrap().push((at, what));
        match mood {
            Mood::Fails => Err("connection refused".into()),
            Mood::Hangs => pending().await,
            Mood::Works | Mood::HasForgotten => Ok(()),
        }
    }
}

impl Register for Model {
    fn register<'a>(&'a self, of: &'a Registration) -> BoxFuture<'a, Result<(), RegisterError>> {
        Box::pin(async move {
            self.tell(format!("register {}", of.endpoint)).await?;
            if *self.mood.lock().unwrap() == Mood::HasForgotten {
                self.set(Mood::Works);
            }
            Ok(())
        })
    }

    fn renew<'a>(
        &'a self,
        _of: &'a Registration,
        condition: Condition,
    ) -> BoxFuture<'a, Result<Renewed, RegisterError>> {
        Box::pin(async move {
            self.tell(format!("renew {condition}")).await?;
            let has_forgotten = *self.mood.lock().unwrap() == Mood::HasForgotten;
            Ok(if has_forgotten {
                Renewed::Forgotten
            } else {
                Renewed::Kept
            })
        })
    }

    fn deregister<'a>(&'a self, _of: &'a Registration) -> BoxFuture<'a, Result<(), RegisterError>> {
        Box::pin(self.tell("deregister".into()))
    }

    fn renew_every(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// Runs `script` beside [`keep_registered`], then ends it; gives the state in the end.
async fn run(
    model: &Model,
    script: impl AsyncFnOnce(&watch::Sender<Condition>, &watch::Receiver<RegistrationState>),
) -> RegistrationState {
    let endpoint = Endpoint::new("10.0.0.7".parse().unwrap(), 80);
    let registration = Registration::new(ServiceName::parse("orders").unwrap(), endpoint);
    let (condition, conditions) = watch::channel(Condition::Passing);
    let (state, states) = watch::channel(RegistrationState::default());
    let (end, ended) = oneshot::channel::<()>();
    let random = || 999;
    let keep = keep_registered(model, &registration, (conditions, &state), &random, async {
        let _ended = ended.await;
    });
    let script = async {
        script(&condition, &states).await;
        drop(end);
    };
    tokio::join!(keep, script);
    states.borrow().clone()
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn texts(told: &[(u128, String)]) -> Vec<&str> {
    told.iter().map(|(_, what)| what.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn registers_renews_and_takes_it_away() {
    let model = Model::new();
    let state = run(&model, async |_, state| {
        pass(25).await;
        assert_eq!(*state.borrow(), RegistrationState::Registered);
    })
    .await;
    let told = model.take();
    assert_eq!(
        texts(&told),
        [
            "register 10.0.0.7:80",
            "renew passing",
            "renew passing",
            "renew passing",
            "deregister"
        ]
    );
    assert_eq!(
        told.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
        [0, 0, 10_000, 20_000, 25_000]
    );
    assert_eq!(state, RegistrationState::Deregistered);
}

#[tokio::test(start_paused = true)]
async fn a_new_condition_is_told_at_once() {
    let model = Model::new();
    run(&model, async |condition, _| {
        pass(3).await;
        condition.send_replace(Condition::Draining);
        pass(1).await;
    })
    .await;
    let told = model.take();
    assert!(told.contains(&(3000, "renew draining".into())), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn backs_off_from_a_registry_that_fails_and_registers_anew_when_it_is_back() {
    let model = Model::new();
    model.set(Mood::Fails);
    run(&model, async |_, state| {
        pass(120).await;
        let failing = RegistrationState::Failing("connection refused".into());
        assert_eq!(*state.borrow(), failing);
        let at: Vec<_> = model.take().into_iter().map(|(at, _)| at).collect();
        assert_eq!(at[..6], [0, 999, 2997, 6993, 14_985, 24_975]);
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] <= 10_000));
        model.set(Mood::Works);
        pass(10).await;
        assert_eq!(
            texts(&model.take())[..2],
            ["register 10.0.0.7:80", "renew passing"]
        );
        assert_eq!(*state.borrow(), RegistrationState::Registered);
        // What fails at a renewal may be a registry that comes back without its data.
        model.set(Mood::Fails);
        pass(11).await;
        model.take();
        model.set(Mood::Works);
        pass(10).await;
        assert_eq!(texts(&model.take())[0], "register 10.0.0.7:80");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn registers_again_with_a_registry_that_has_forgotten() {
    let model = Model::new();
    run(&model, async |_, state| {
        pass(5).await;
        model.take();
        model.set(Mood::HasForgotten);
        pass(9).await;
        let told = model.take();
        assert_eq!(
            texts(&told),
            ["renew passing", "register 10.0.0.7:80", "renew passing"]
        );
        assert_eq!(*state.borrow(), RegistrationState::Registered);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_is_tried_again_and_does_not_hold_up_the_end() {
    let model = Model::new();
    model.set(Mood::Hangs);
    let begun = Instant::now();
    let state = run(&model, async |_, _| pass(62).await).await;
    assert_eq!(
        begun.elapsed(),
        Duration::from_secs(67),
        "five seconds for the farewell"
    );
    let told = model.take();
    let tried = told.iter().filter(|(_, what)| what.starts_with("register"));
    assert_eq!(tried.count(), 2, "{told:?}");
    assert!(matches!(state, RegistrationState::Failing(_)), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn goes_on_when_nobody_is_left_to_change_the_condition() {
    let model = Model::new();
    let endpoint = Endpoint::new("10.0.0.7".parse().unwrap(), 80);
    let registration = Registration::new(ServiceName::parse("orders").unwrap(), endpoint);
    let (_, conditions) = watch::channel(Condition::Passing);
    let (state, _states) = watch::channel(RegistrationState::default());
    keep_registered(&model, &registration, (conditions, &state), &|| 0, pass(25)).await;
    assert_eq!(texts(&model.take()).len(), 5);
}
