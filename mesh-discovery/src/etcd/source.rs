//! The source: what is watched is asked for, its events are followed, and breaks are mended.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::Stream;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio::time::sleep_until;

use super::Client;
use super::Error;
use super::PREFIX;
use super::check_prefix;
use super::messages::RangeRequest;
use super::messages::RangeResponse;
use super::messages::WatchOp;
use super::messages::WatchProgressRequest;
use super::messages::WatchRequest;
use super::messages::WatchResponse;
use super::tracker::Step;
use super::tracker::Tracker;
use crate::endpoint::MAX_ENDPOINTS_PER_SERVICE;
use crate::name::ServiceName;
use crate::registry::Driver;
use crate::registry::Registry;
use crate::registry::RegistryConfig;
use crate::registry::Reporter;
use crate::registry::Want;
use crate::registry::Wants;

/// What is watched in etcd.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SourceConfig {
    /// What all keys begin with, up to and with the slash before the service. Default `/mesh/services/`.
    pub prefix: String,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            prefix: PREFIX.to_owned(),
        }
    }
}

impl SourceConfig {
    /// With another prefix.
    #[must_use]
    pub fn with_prefix(self, prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }
}

/// A source of what etcd holds under the keys of this module's page.
///
/// All services share one stream of watches, and etcd pushes what changes. A member that breaks is noticed at once, one that
/// freezes within 9 s, and another is asked, the same one after at most 4 s; lists are kept meanwhile, and are told to be stale when the
/// second attempt fails too.
///
/// # Errors
///
/// [`Error::Setting`].
pub fn source(
    client: Client,
    config: &SourceConfig,
    registry: RegistryConfig,
) -> Result<(Registry, Driver), Error> {
    check_prefix(&config.prefix)?;
    let (registry, wants) = Registry::new(registry);
    let work = Work {
        client,
        wants,
        tracker: Tracker::new(&config.prefix),
        reporters: HashMap::new(),
        refused: VecDeque::new(),
    };
    Ok((registry, Driver::new(work.run())))
}

struct Work {
    client: Client,
    wants: Wants,
    tracker: Tracker,
    reporters: HashMap<ServiceName, Reporter>,
    /// Services to ask for again, and when; the next first.
    refused: VecDeque<(Instant, ServiceName)>,
}

/// What is under way on one connection.
#[derive(Default)]
struct Session {
    asking: FuturesUnordered<BoxFuture<'static, Answer>>,
    to_ask: VecDeque<(ServiceName, i64)>,
    to_send: VecDeque<WatchOp>,
    /// etcd has answered something.
    is_good: bool,
    /// How often etcd was asked whether the watches are up to date since it last said anything about them.
    unanswered: u32,
}

impl Session {
    /// Asks whether the watches are up to date. A member may answer pings and calls, and no longer the stream of watches.
    fn ask_progress(&mut self) -> Result<(), Error> {
        if self.unanswered >= MAX_UNANSWERED {
            return Err(Error::Unexpected {
                what: "no answer twice in a row when asked whether its watches are up to date",
            });
        }
        self.unanswered += 1;
        self.to_send
            .push_back(WatchOp::Progress(WatchProgressRequest {}));
        Ok(())
    }
}

struct Answer {
    service: ServiceName,
    number: i64,
    outcome: Result<RangeResponse, Error>,
}

impl Work {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            while self.reporters.is_empty() {
                let want = self.wants.next().await;
                self.take(want);
            }
            let begun = Instant::now();
            let (error, was_good) = self.follow().await;
            let was_steady = was_good && begun.elapsed() >= STEADY;
            failures = if was_steady {
                0_u32
            } else {
                failures.saturating_add(1)
            };
            if was_good {
                // Another member may answer at once, and nobody is the worse for it.
                tracing::info!(source = %self.wants.source(), error = &error as &dyn std::error::Error,
                    "the watch of etcd broke, and begins anew");
            } else {
                for reporter in self.reporters.values() {
                    reporter.failed(&error);
                }
            }
            let until = Instant::now() + self.pause(failures);
            loop {
                tokio::select! {
                    want = self.wants.next() => self.take(want),
                    () = sleep_until(until) => break,
                }
            }
        }
    }

    /// Full jitter, so that many nodes do not come back to a member at the same moment.
    fn pause(&self, failures: u32) -> Duration {
        let longest = (FIRST_PAUSE * 2_u32.saturating_pow(failures)).min(LONGEST_PAUSE);
        let share = u32::try_from(self.client.random() >> 32).unwrap_or_default();
        let spread = longest.mul_f64(f64::from(share) / f64::from(u32::MAX));
        spread.max(SHORTEST_PAUSE)
    }

    fn take(&mut self, want: Want) {
        match want {
            Want::Begin(reporter) => {
                let service = reporter.service().clone();
                self.tracker.ask(&service);
                self.reporters.insert(service, reporter);
            }
            Want::End(service) => {
                self.tracker.end(&service);
                self.reporters.remove(&service);
                self.refused.retain(|(_, other)| *other != service);
            }
        }
    }

    /// Follows all services on one connection until it breaks; why, and whether it was of use.
    async fn follow(&mut self) -> (Error, bool) {
        self.tracker.restart();
        self.refused.clear();
        let (sender, receiver) = mpsc::channel(1);
        let mut messages = self.client.watch(receiver);
        let mut session = Session::default();
        let mut confirm_at = Instant::now() + CONFIRM_EVERY;
        loop {
            self.tracker.settle();
            while let Some(step) = self.tracker.next_step() {
                self.perform(step, &mut session);
            }
            while session.asking.len() < MAX_ASKING
                && let Some((service, number)) = session.to_ask.pop_front()
            {
                session.asking.push(self.ask(service, number).boxed());
            }
            let again_at = self.refused.front().map(|(at, _)| *at);
            let outcome = tokio::select! {
                want = self.wants.next() => {
                    self.take(want);
                    Ok(())
                }
                Some(answer) = session.asking.next() => self.answered(answer, &mut session),
                message = messages.next() => {
                    session.unanswered = 0;
                    self.heard(message, &mut messages)
                }
                Ok(permit) = sender.reserve(), if !session.to_send.is_empty() => {
                    let op = session.to_send.pop_front();
                    permit.send(WatchRequest { op });
                    Ok(())
                }
                () = sleep_until(again_at.unwrap_or(confirm_at)), if again_at.is_some() => {
                    if let Some((_, service)) = self.refused.pop_front() {
                        self.tracker.ask(&service);
                    }
                    Ok(())
                }
                () = sleep_until(confirm_at) => {
                    confirm_at += CONFIRM_EVERY;
                    if self.tracker.watched().next().is_some() {
                        session.ask_progress()
                    } else {
                        Ok(())
                    }
                }
            };
            if let Err(error) = outcome {
                return (error, session.is_good);
            }
        }
    }

    fn perform(&mut self, step: Step, session: &mut Session) {
        match step {
            Step::Ask(service, number) => session.to_ask.push_back((service, number)),
            Step::Send(op) => session.to_send.push_back(op),
            Step::Tell(service) => {
                if let Some(reporter) = self.reporters.get(&service) {
                    let (list, refused) = self.tracker.list(&service);
                    reporter.found_except(list, refused);
                }
            }
            Step::Refuse(service, error) => {
                if let Some(reporter) = self.reporters.get(&service) {
                    reporter.failed(&error);
                    self.refused
                        .push_back((Instant::now() + ASK_AGAIN, service));
                }
            }
            Step::Confirm => {
                for service in self.tracker.watched() {
                    if let Some(reporter) = self.reporters.get(service) {
                        reporter.confirmed();
                    }
                }
            }
        }
    }

    fn ask(
        &self,
        service: ServiceName,
        number: i64,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let client = self.client.clone();
        let (key, range_end) = self.tracker.range(&service);
        let limit = i64::try_from(MAX_ENDPOINTS_PER_SERVICE).unwrap_or(i64::MAX);
        let request = RangeRequest {
            key,
            range_end,
            limit,
            keys_only: false,
        };
        async move {
            Answer {
                service,
                number,
                outcome: client.call(request).await,
            }
        }
    }

    fn answered(&mut self, answer: Answer, session: &mut Session) -> Result<(), Error> {
        match answer.outcome {
            Err(error) if !error.is_of_one_request() => Err(error),
            of_one => {
                session.is_good = true;
                self.tracker
                    .answered(&answer.service, answer.number, of_one);
                Ok(())
            }
        }
    }

    /// Takes all messages that are there, so that a thousand events cost one new list.
    fn heard<S>(
        &mut self,
        mut message: Option<Result<WatchResponse, Error>>,
        messages: &mut S,
    ) -> Result<(), Error>
    where
        S: Stream<Item = Result<WatchResponse, Error>> + Unpin,
    {
        for _ in 0..MAX_AT_ONCE {
            let Some(heard) = message else {
                return Err(Error::Unexpected {
                    what: "an end of the stream of watches",
                });
            };
            self.tracker.heard(heard?)?;
            match messages.next().now_or_never() {
                Some(next) => message = next,
                None => break,
            }
        }
        Ok(())
    }
}

/// How many services are asked for at a time, so that a node with many does not flood a member.
const MAX_ASKING: usize = 8;
/// How many messages are taken before what they say is told.
const MAX_AT_ONCE: usize = 256;
/// How often etcd is asked whether the watches are up to date, which shows in reports as the age of the answer.
const CONFIRM_EVERY: Duration = Duration::from_secs(30);
/// After so many questions without a word, another stream of watches is begun.
const MAX_UNANSWERED: u32 = 2;
/// A connection that lasted so long and breaks is no reason to be slow about the next.
const STEADY: Duration = Duration::from_secs(5);
/// When to ask again for what was not permitted or too large.
const ASK_AGAIN: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// Doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// With a call that is under way when etcd returns, and takes 3 s to fail, this still leaves time within 10 s.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests;
