//! The stream to a management server: opens it, carries requests and responses, and begins anew when it ends.

mod codec;
mod error;

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::Streaming;
use tonic::client::Grpc;

use self::codec::Bare;
use self::error::StreamError;
use super::BoxError;
use super::Config;
use super::TokenFor;
use super::Variant;
use super::follower::Follower;
use super::follower::Report;
use super::pace::Pace;
use super::turns::Turns;
use super::wire::Wrong;
use crate::error::chain;
use crate::grpc::Channel;
use crate::grpc::Dialer;
use crate::registry::Reporter;
use crate::registry::Want;
use crate::registry::Wants;

/// What a source does.
pub(super) struct Stream {
    config: Config,
    dialer: Arc<Dialer>,
    follower: Follower,
    reporters: HashMap<String, Reporter>,
    turns: Turns,
    pace: Pace,
    /// Where the last stream led, for its versions mean nothing elsewhere.
    server: Option<Arc<str>>,
    /// Why there is no stream, while there is none.
    failure: Option<StreamError>,
    /// The stream has brought a response.
    has_worked: bool,
}

impl Stream {
    pub(super) fn new(config: Config, dialer: Dialer) -> Self {
        let is_delta = config.variant == Variant::Incremental;
        Self {
            follower: Follower::new(is_delta, config.first_answer),
            reporters: HashMap::new(),
            turns: Turns::new(dialer.len()),
            pace: Pace::default(),
            server: None,
            failure: None,
            has_worked: false,
            dialer: Arc::new(dialer),
            config,
        }
    }

    /// Follows what is wanted; never ends.
    pub(super) async fn run(mut self, mut wants: Wants) {
        loop {
            self.rest(&mut wants).await;
            let started = now();
            self.has_worked = false;
            let outcome = self.follow(&mut wants).await;
            self.config.findings.ended();
            self.follower.end_stream(outcome.is_err());
            let random = (self.config.random)();
            match outcome {
                Ok(()) => self.turns.worked(started, random),
                Err(error) if self.has_worked && !error.is_of_content() => {
                    // The next stream will tell whether anything is wrong.
                    tracing::info!(
                        error = chain(&error),
                        "the stream of xds ended, beginning anew"
                    );
                    self.turns.worked(started, random);
                }
                Err(error) => {
                    if !error.is_of_connecting()
                        && let Some(server) = &self.server
                    {
                        self.dialer.pass_over(server);
                    }
                    if self.has_worked {
                        self.turns.forgive();
                    }
                    self.turns.failed(started, now(), random);
                    for reporter in self.reporters.values() {
                        reporter.failed(&error);
                    }
                    self.failure = Some(error);
                }
            }
        }
    }

    /// Waits until a stream is needed and may be begun.
    async fn rest(&mut self, wants: &mut Wants) {
        loop {
            self.tell();
            let turn = self.turns.not_before().filter(|turn| *turn > now());
            if !self.follower.is_idle() && turn.is_none() {
                return;
            }
            let due = [self.follower.next_due(), turn];
            self.meanwhile(wants, due.into_iter().flatten().min()).await;
        }
    }

    /// One stream, from connecting to its end; `Ok` when it is of no more use.
    async fn follow(&mut self, wants: &mut Wants) -> Result<(), StreamError> {
        let dialer = Arc::clone(&self.dialer);
        let mut connecting = pin!(dialer.connect());
        let channel = loop {
            let due = self.follower.next_due();
            tokio::select! {
                connected = &mut connecting => break connected,
                () = self.meanwhile(wants, due) => self.tell(),
            }
        };
        let channel = channel.map_err(|source| StreamError::Connect {
            source: source.into(),
        })?;
        let server = Arc::clone(channel.server());
        let is_same_server = self.server.as_ref() == Some(&server);
        self.follower.begin_stream(is_same_server);
        self.config.findings.begun(&server);
        self.server = Some(Arc::clone(&server));
        let (requests, queue) = mpsc::channel(QUEUE);
        let call = call(&self.config, channel, queue)?;
        self.converse(wants, (&server, requests), call).await
    }

    /// Requests and responses, until the stream ends.
    async fn converse(
        &mut self,
        wants: &mut Wants,
        (server, requests): (&Arc<str>, mpsc::Sender<Bytes>),
        call: impl Future<Output = Result<Streaming<Bytes>, Status>>,
    ) -> Result<(), StreamError> {
        let mut call = pin!(call);
        let mut responses: Option<Streaming<Bytes>> = None;
        let mut is_first = true;
        let mut confirm_at = now() + CONFIRM_EVERY;
        loop {
            if confirm_at <= now() {
                confirm_at = now() + CONFIRM_EVERY;
                self.follower.reaffirm();
            }
            while self.follower.has_request()
                && let Ok(permit) = requests.try_reserve()
                && let Some(request) = self.follower.next_request(now())
            {
                let node = std::mem::take(&mut is_first).then_some(&self.config.node);
                permit.send(request.encode(node));
            }
            self.tell();
            if self.follower.is_idle() || self.follower.needs_stream() {
                return Ok(());
            }
            let paced = self.pace.not_before().filter(|at| *at > now());
            let due = [self.follower.next_due(), paced, Some(confirm_at)];
            let due = due.into_iter().flatten().min();
            tokio::select! {
                opened = &mut call, if responses.is_none() => {
                    responses = Some(opened.map_err(|status| StreamError::of_status(server, status))?);
                    self.failure = None;
                }
                message = next(&mut responses), if responses.is_some() && paced.is_none() => {
                    let message = message.map_err(|status| StreamError::of_status(server, status))?;
                    let bytes = message.ok_or_else(|| StreamError::Ended { server: Arc::clone(server) })?;
                    self.take(&bytes).map_err(|wrong| StreamError::of_content(server, &wrong))?;
                }
                _ = requests.reserve(), if self.follower.has_request() => {}
                () = self.meanwhile(wants, due) => {}
            }
        }
    }

    /// Waits for the next change in what is wanted, or until something is due, and does what that asks for.
    async fn meanwhile(&mut self, wants: &mut Wants, due: Option<Instant>) {
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            want = wants.next() => match want {
                Want::Begin(reporter) => self.begin(reporter),
                Want::End(service) => {
                    self.reporters.remove(service.as_str());
                    self.follower.unwant(service.as_str());
                    self.config.findings.set_drops(service.as_str(), &[]);
                }
            },
            () = sleep => self.follower.expire(now()),
        }
    }

    fn begin(&mut self, reporter: Reporter) {
        let service = reporter.service().as_str().to_owned();
        if let Some(failure) = &self.failure {
            reporter.failed(failure);
        }
        self.follower.want(&service);
        self.reporters.insert(service, reporter);
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        self.pace.read(now(), bytes.len());
        let Self {
            config, follower, ..
        } = self;
        let verdict = config
            .findings
            .while_reading(|ignored| follower.take(now(), bytes, ignored));
        config.findings.count(verdict?);
        self.has_worked = true;
        Ok(())
    }

    /// Tells those who watch.
    fn tell(&mut self) {
        for (service, report) in self.follower.take_reports() {
            let Some(reporter) = self.reporters.get(&service) else {
                continue;
            };
            match report {
                Report::Found(assignment) => {
                    self.config.findings.set_drops(&service, &assignment.drops);
                    reporter.found(assignment.endpoints.clone());
                }
                Report::Absent => {
                    self.config.findings.set_drops(&service, &[]);
                    reporter.found(Vec::new());
                }
                Report::Confirmed => reporter.confirmed(),
                Report::Refused(refusal) => reporter.failed(&*refusal),
            }
        }
    }
}

/// Begins the call; what comes out of `queue` are its requests.
fn call(
    config: &Config,
    channel: Channel,
    mut queue: mpsc::Receiver<Bytes>,
) -> Result<impl Future<Output = Result<Streaming<Bytes>, Status>> + use<>, StreamError> {
    let requests = futures_util::stream::poll_fn(move |cx| queue.poll_recv(cx));
    let mut request = tonic::Request::new(requests);
    if let Some(token) = &config.token {
        request
            .metadata_mut()
            .insert("authorization", bearer(&**token)?);
    }
    let path = PathAndQuery::from_static(match config.variant {
        Variant::StateOfTheWorld => STREAM,
        Variant::Incremental => DELTA,
    });
    let origin = channel.origin().clone();
    let mut grpc = Grpc::with_origin(channel, origin).max_decoding_message_size(config.max_message);
    Ok(async move { Ok(grpc.streaming(request, path, Bare).await?.into_inner()) })
}

fn bearer(
    token: &TokenFor,
) -> Result<tonic::metadata::MetadataValue<tonic::metadata::Ascii>, StreamError> {
    let failed = |source: BoxError| StreamError::Token { source };
    let token = token().map_err(|source| failed(source.into()))?;
    let value = format!("Bearer {}", token.trim());
    let mut value =
        tonic::metadata::MetadataValue::try_from(value).map_err(|source| failed(source.into()))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn next(responses: &mut Option<Streaming<Bytes>>) -> Result<Option<Bytes>, Status> {
    match responses {
        Some(responses) => responses.message().await,
        None => std::future::pending().await,
    }
}

/// The clock of the runtime, so that tests can pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How often what the server has said and not changed is taken as said again: lists on disk are as old as that.
const CONFIRM_EVERY: Duration = Duration::from_secs(30);
/// Requests that wait for the connection; what is behind them is made when there is room.
const QUEUE: usize = 4;
/// The methods of `envoy.service.discovery.v3.AggregatedDiscoveryService`.
const STREAM: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
