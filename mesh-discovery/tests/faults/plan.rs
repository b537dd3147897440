//! How long and how hard, and what came of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh_discovery::Belief;
use mesh_discovery::RegistryConfig;
use tokio::time::Instant;

use crate::events::Fleet;
use crate::events::Target;
use crate::follower::Follower;
use crate::follower::Truth;
use crate::support::process::lasts;

/// How long and how hard.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Random registrations and deregistrations in all.
    pub(crate) events: usize,
    /// Of them before each fault, and during each that lets writes through.
    pub(crate) burst: usize,
    /// How long after its TTL a change in DNS may be seen; the goal is a second, on a machine that does nothing else.
    pub(crate) late: Duration,
    /// How often a zone changes.
    pub(crate) zones: u16,
    /// How often a registry loses its data.
    pub(crate) resets: usize,
    /// How long it then takes until it is told all anew: the slowest sign of life.
    pub(crate) told_again: Duration,
    /// How long a fault lasts.
    pub(crate) fault: Duration,
    pub(crate) seed: u64,
}

impl Plan {
    /// The short form, unless `cargo xtask soak` runs this.
    pub(crate) fn chosen() -> Self {
        let seed = number("MESH_SOAK_SEED").unwrap_or(1);
        if std::env::var_os("MESH_SOAK").is_some() {
            return Self {
                events: 1000,
                burst: 40,
                late: Duration::from_secs(1),
                zones: 200,
                resets: 10,
                told_again: Duration::from_secs(20),
                fault: Duration::from_secs(30),
                seed,
            };
        }
        Self {
            events: 120,
            burst: 10,
            late: Duration::from_secs(4),
            zones: 5,
            resets: 2,
            told_again: Duration::from_secs(5),
            fault: Duration::from_secs(1),
            seed,
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

/// How answers are taken: as by default, but who comes and goes is not left out, for that is another goal.
pub(crate) fn registry(name: &str, truth: &Arc<Truth>) -> RegistryConfig {
    let belief = Belief::default().with_damping(None).unwrap();
    RegistryConfig::new(name)
        .with_belief(belief)
        .with_evidence(Arc::clone(truth) as Arc<_>)
}

/// A run of faults against one registry.
pub(crate) struct Run<'a> {
    pub(crate) plan: Plan,
    pub(crate) fleet: Fleet,
    pub(crate) follower: Follower,
    pub(crate) target: &'a dyn Target,
    rounds: Vec<(String, Duration)>,
}

impl<'a> Run<'a> {
    /// A follower of a fleet in `target`, in step with it.
    pub(crate) fn begin(
        plan: Plan,
        target: &'a dyn Target,
        fleet: Fleet,
        follower: Follower,
    ) -> Self {
        fleet.wait_agreed(&follower, target);
        Self {
            plan,
            fleet,
            follower,
            target,
            rounds: Vec::new(),
        }
    }

    /// True until there were as many events as there are to be.
    pub(crate) fn goes_on(&self) -> bool {
        self.fleet.events < self.plan.events
    }

    /// Some events in a row.
    pub(crate) fn burst(&mut self) {
        for _ in 0..self.plan.burst {
            self.fleet.step(self.target);
        }
    }

    /// A fault takes its time.
    pub(crate) fn lasts(&self) {
        lasts(self.plan.fault);
    }

    /// Another figure than that of a round.
    pub(crate) fn note(&mut self, what: &str, took: Duration) {
        self.rounds.push((what.to_owned(), took));
    }

    /// Events, a fault and its end, events; and how long it takes from the fault's end until all agree.
    #[track_caller]
    pub(crate) fn round(&mut self, fault: &str, befall: impl FnOnce(&mut Self)) {
        self.burst();
        befall(self);
        let ended = Instant::now();
        self.burst();
        self.fleet.wait_agreed(&self.follower, self.target);
        let took = ended.elapsed();
        self.rounds.push((fault.to_owned(), took));
        assert!(took <= LIMIT, "{fault}: {took:?}\n{self}");
        let (_, lost) = self.follower.findings();
        assert!(
            lost.is_empty(),
            "{fault} (seed {}): {lost:#?}",
            self.plan.seed
        );
    }
}

/// The figures: for each fault how often, and the longest time from its end until all agreed.
impl fmt::Display for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<_> = self.rounds.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let of = self.rounds.iter().filter(|(other, _)| other == name);
            let longest = of.clone().map(|(_, took)| *took).max().unwrap_or_default();
            writeln!(
                f,
                "  {name:<42} {:>3} times, at most {:>6.0} ms",
                of.count(),
                longest.as_secs_f64() * 1e3
            )?;
        }
        let (lists, lost) = self.follower.findings();
        let (events, lost) = (self.fleet.events, lost.len());
        write!(
            f,
            "  {events} events, {lists} lists, {lost} endpoints lost that nobody took away"
        )
    }
}

/// Goal D-5.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
